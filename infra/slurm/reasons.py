"""Why Slurm lets a job wait, in plain words, and what to do about a job that will not start by itself."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple


class Reason(NamedTuple):
    """What a reason code means; `remedy` is set where nothing but a person lets the job start."""

    words: str
    remedy: str = ""


RELEASE = "scontrol release {job} lets it go; xclr cancel and xclr retry submit it anew"
CHANGE = "change {keys} of its stage in the cluster file, then xclr cancel and xclr retry"
NODE = "see sinfo -R and its log; scontrol release {job} tries again"
REASONS: Mapping[str, Reason] = {  # man squeue, JOB REASON CODES
    "None": Reason("about to be looked at by the scheduler"),
    "Priority": Reason("jobs of higher priority come first"),
    "Resources": Reason("waits for free nodes, GPUs or memory"),
    "Dependency": Reason("waits for another job to end"),
    "BeginTime": Reason("its earliest start has not come; a requeued job waits a little"),
    "Prolog": Reason("its node is being prepared"),
    "Cleaning": Reason("what it ran before is being cleared away"),
    "SchedDefer": Reason("the scheduler looks at jobs in turns"),
    "JobArrayTaskLimit": Reason("as many elements of the array run as may at once"),
    "Reservation": Reason("waits for its reservation"),
    "Licenses": Reason("waits for a licence"),
    "MpiPortsBusy": Reason("waits for free ports of MPI"),
    "MaxPoweredUpNodes": Reason("as many nodes are powered up as may be"),
    "PowerNotAvail": Reason("waits for power"),
    "PowerReserved": Reason("waits for power"),
    "BurstBufferResources": Reason("waits for a burst buffer"),
    "BurstBufferStageIn": Reason("its burst buffer is being filled"),
    "FedJobLock": Reason("another cluster of the federation looks at it"),
    "UnknownAssocLimit": Reason("its account is at a limit"),
    "AssociationJobLimit": Reason("the account runs as many jobs as it may"),
    "AssociationResourceLimit": Reason("the account is at a limit"),
    "AssociationTimeLimit": Reason("the account's time is used up", CHANGE.format(keys="account")),
    "QOSJobLimit": Reason("the QOS runs as many jobs as it may"),
    "QOSResourceLimit": Reason("the QOS is at a limit"),
    "QOSTimeLimit": Reason("the QOS's time is used up", CHANGE.format(keys="qos")),
    "ReqNodeNotAvail": Reason("nodes that it needs are down, drained or reserved"),
    "DependencyNeverSatisfied": Reason("waits for a job that failed", "xclr cancel and xclr retry submit it anew"),
    "JobHeldUser": Reason("held", RELEASE),
    "JobHeldAdmin": Reason("held by an administrator", "ask them: only they can release it"),
    "JobHoldMaxRequeue": Reason("held, since it was requeued as often as may be", NODE),
    "FedJobRequeue": Reason("held, since the federation requeued it", RELEASE),
    "PartitionDown": Reason("its partition is down", "wait until it is up; " + CHANGE.format(keys="partition")),
    "PartitionInactive": Reason("its partition takes no jobs", CHANGE.format(keys="partition")),
    "PartitionNodeLimit": Reason("asks for more nodes than its partition has", CHANGE.format(keys="nodes")),
    "PartitionTimeLimit": Reason("its time limit is above its partition's", CHANGE.format(keys="timeout_min")),
    "BadConstraints": Reason("no node has what it asks for", CHANGE.format(keys="constraint, gpus, cpus or memory_gb")),
    "MaxMemPerLimit": Reason("asks for more memory than a job may have", CHANGE.format(keys="memory_gb")),
    "InvalidAccount": Reason("its account is not valid", CHANGE.format(keys="account")),
    "AccountNotAllowed": Reason("its partition does not admit its account", CHANGE.format(keys="account or partition")),
    "InvalidQOS": Reason("its QOS is not valid", CHANGE.format(keys="qos")),
    "QOSNotAllowed": Reason("its partition does not admit its QOS", CHANGE.format(keys="qos or partition")),
    "ReservationDeleted": Reason("its reservation was deleted", CHANGE.format(keys="sbatch.reservation")),
    "BurstBufferOperation": Reason("its burst buffer failed", "see scontrol show burstbuffer; " + RELEASE),
    "DeadLine": Reason("it cannot end before its deadline", CHANGE.format(keys="sbatch.deadline or timeout_min")),
    "NodeDown": Reason("its node is down", "wait until it is up; " + RELEASE),
    "FrontEndDown": Reason("no front end is up", "ask the administrators"),
    "JobLaunchFailure": Reason("it could not be started", NODE),
    "SystemFailure": Reason("Slurm or its node failed", NODE),
    "NonZeroExitCode": Reason("it failed and is kept", RELEASE),
    "RaisedSignal": Reason("it was killed and is kept", RELEASE),
    "TimeLimit": Reason("it reached its time limit and is kept", RELEASE),
    "InactiveLimit": Reason("it was idle for too long and is kept", RELEASE),
    "OutOfMemory": Reason("it ran out of memory and is kept", CHANGE.format(keys="memory_gb")),
}
LIMIT = re.compile(r"(QOS|Assoc)(Grp|Max|Min)(\w*?)(Minutes)?(?:Per(Job|User|Account|Node))?(?:Limit|NotSatisfied)?")
THINGS = {"cpu": "cores", "gres": "GPUs", "mem": "memory", "node": "nodes", "jobs": "jobs", "submit": "submitted jobs"}
KEYS = {"cpu": "cpus", "gres": "gpus", "mem": "memory_gb", "node": "nodes", "wall": "timeout_min"}


def reason_of(code: str, job: str) -> Reason:
    """What Slurm's own word means for a job, with the word; an unknown one stands for itself."""
    word = code.strip("()").partition(",")[0].replace("_", " ").strip()
    found = REASONS.get(word) or _of_words(word) or _of_limit(word)
    if found is None:
        return Reason(word)
    return Reason(f"{found.words} ({word})", found.remedy.format(job=job))


def _of_words(word: str) -> Reason | None:
    """What is written instead of a code where a start failed: launch failed requeued held."""
    if not re.search(r"\bheld\b|limit exceeded", word):
        return None
    return Reason("held, since Slurm could not start it", NODE)


def _of_limit(word: str) -> Reason | None:
    """The many limits of accounts and QOS; those that the job alone exceeds let it wait for ever."""
    found = LIMIT.fullmatch(word)
    if found is None:
        return None
    of, kind, what, minutes, each = found.groups()
    whose, key = ("the QOS", "qos") if of == "QOS" else ("the account", "account")
    thing = next((name for part, name in THINGS.items() if what.lower().startswith(part)), "time" if what else "jobs")
    asked = next((name for part, name in KEYS.items() if what.lower().startswith(part)), "timeout_min")
    if kind == "Min":
        return Reason(f"asks for fewer {thing} than {whose} wants", CHANGE.format(keys=f"{asked} or {key}"))
    if each == "Job":
        return Reason(f"asks for more {thing} than {whose} allows a job", CHANGE.format(keys=f"{asked} or {key}"))
    if minutes and not what.endswith("Run"):
        return Reason(f"{whose}'s time for {thing} is used up", CHANGE.format(keys=key))
    return Reason(f"{whose}'s {thing} are all in use")
