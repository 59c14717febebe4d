"""Whether a cluster would take the jobs of a cluster file: asked of the live Slurm, stage kind by stage kind."""

from __future__ import annotations

import difflib
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import psutil

from infra.disks import NETWORK, fs_type_of
from infra.finding import Finding
from infra.resources import Resources
from infra.slurm.look import ask
from infra.slurm.queue import DEFAULT_MAX_ARRAY
from infra.slurm.submit import Order, test_only
from infra.stagejob import StageJob
from xclr.disk import existing
from xclr.errors import JobError


class Node(NamedTuple):
    """What one node of a partition has."""

    cores: int
    memory_mb: int
    gpus: int
    features: frozenset[str]


class Partition(NamedTuple):
    """A partition and its limits; None is no limit."""

    name: str
    longest_min: float | None
    most_nodes: int | None
    accounts: frozenset[str]  # that it admits; empty for all
    qos: frozenset[str]
    nodes: tuple[Node, ...]
    is_default: bool


def examine(kinds: Mapping[str, Resources], home: Path) -> Iterator[Finding]:
    """Slurm itself, HOME, then each stage kind."""
    try:
        config = read_config(ask("scontrol", "show", "config"))
        partitions = read_partitions(
            ask("scontrol", "show", "partition", "--oneliner"),
            ask("sinfo", "--noheader", "--Node", "--format=%R|%c|%m|%G|%f"),
        )
    except OSError as error:
        remedy = "run on a login node whose sinfo works; the private cluster wants: source DIR/env.sh"
        yield Finding(check="Slurm", state="wrong", found=str(error), remedy=remedy)
        return
    yield from check_slurm(config)
    yield check_shared(home)
    for kind, resources in kinds.items():
        yield check_kind(kind, resources, partitions, home)


def check_slurm(config: Mapping[str, str]) -> Iterator[Finding]:
    """The version and settings that jobs depend on."""
    size = config.get("MaxArraySize", DEFAULT_MAX_ARRAY)
    found = f"{config.get('SLURM_VERSION', '?')}, arrays of at most {size} elements"
    yield Finding(check="Slurm", state="ok", found=found)
    if config.get("AccountingStorageType", "").endswith("/slurmdbd"):
        yield Finding(check="accounting", state="ok", found="slurmdbd")
    else:
        remedy = f"jobs are followed by squeue, which forgets ended ones after {config.get('MinJobAge', 'some time')}"
        yield Finding(check="accounting", state="optional", found="none: no costs from sacct", remedy=remedy)
    if "preempt_send_user_signal" in config.get("SlurmctldParameters", ""):
        yield Finding(check="preemption", state="ok", found="jobs are told and requeue themselves")
    else:
        remedy = "a preempted training goes on from its last periodic checkpoint; see train.checkpoint_every"
        yield Finding(check="preemption", state="optional", found="no preempt_send_user_signal", remedy=remedy)


def check_shared(home: Path) -> Finding:
    """HOME on a file system that other nodes can see."""
    kind = fs_type_of(existing(home), psutil.disk_partitions(all=True))
    if kind in NETWORK:
        return Finding(check="HOME", state="ok", found=f"{home} on {kind}")
    remedy = (
        "jobs on other nodes need it: set XCLR_HOME to a shared folder (not needed when all nodes are this machine)"
    )
    return Finding(check="HOME", state="optional", found=f"{home} on {kind}, which looks local", remedy=remedy)


def check_kind(kind: str, resources: Resources, partitions: Sequence[Partition], home: Path) -> Finding:
    """What keeps the jobs of a stage kind from running, in our words where we can, else in those of Slurm."""
    faults = list(faults_of(resources, partitions))
    if faults:
        found, remedies = zip(*faults, strict=True)
        return Finding(check=kind, state="wrong", found="; ".join(found), remedy="; ".join(dict.fromkeys(remedies)))
    with tempfile.TemporaryDirectory(prefix="xclr-doctor-") as folder:
        nothing = (StageJob(Path(folder), Path(folder), 1),)
        order = Order(nothing, Path(folder), "xclr-doctor", "xclr doctor", Path(folder), 0, home)
        try:
            said = test_only(order, resources)
        except JobError as error:
            remedy = f"change stages.{kind} in the cluster file"
            return Finding(check=kind, state="wrong", found=error.message, remedy=remedy)
    return Finding(check=kind, state="ok", found=re.sub(r"^sbatch: Job \d+ ", "", said))


def faults_of(resources: Resources, partitions: Sequence[Partition]) -> Iterator[tuple[str, str]]:
    """(what is wrong, remedy) of what the partition's limits and nodes exclude."""
    wanted = resources.partition
    partition = next((each for each in partitions if each.name == wanted or (not wanted and each.is_default)), None)
    if partition is None:
        names = [each.name for each in partitions]
        near = difflib.get_close_matches(wanted or "", names, n=1) or names
        yield (f"no partition {wanted!r}" if wanted else "no default partition"), f"partition: {' or '.join(near)}"
        return
    name = partition.name
    if partition.longest_min is not None and resources.timeout_min > partition.longest_min:
        most = int(partition.longest_min)
        yield f"timeout_min {resources.timeout_min} is above the {most} of {name}", f"timeout_min: {most}"
    if partition.most_nodes is not None and resources.nodes > partition.most_nodes:
        yield f"{resources.nodes} nodes, {name} allows {partition.most_nodes}", f"nodes: {partition.most_nodes}"
    yield from _admission_faults(resources, partition)
    yield from _node_faults(resources, partition)


def _admission_faults(resources: Resources, partition: Partition) -> Iterator[tuple[str, str]]:
    for key, value, admitted in (
        ("account", resources.account, partition.accounts),
        ("qos", resources.qos, partition.qos),
    ):
        if value and admitted and value not in admitted:
            yield f"{partition.name} does not admit {key} {value}", f"{key}: {' or '.join(sorted(admitted))}"


def _node_faults(resources: Resources, partition: Partition) -> Iterator[tuple[str, str]]:
    """What no node, or too few nodes, of the partition can give."""
    nodes, ranks = partition.nodes, resources.ranks // resources.nodes
    if len(nodes) < resources.nodes:
        yield f"{resources.nodes} nodes, {partition.name} has {len(nodes)}", f"nodes: {len(nodes)}"
        return
    features = frozenset(re.split(r"[&|,*\[\]()]+", resources.constraint)) if resources.constraint else frozenset()
    known = frozenset[str]().union(*(each.features for each in nodes))
    if absent := {each for each in features - known if each and not each.isdigit()}:
        yield (
            f"no node of {partition.name} has {', '.join(sorted(absent))}",
            f"features there: {', '.join(sorted(known))}",
        )
    for what, wanted, have in (
        ("GPUs", resources.gpus // resources.nodes, sorted(each.gpus for each in nodes)),
        ("cores", ranks * (resources.cpus or resources.threads or 1), sorted(each.cores for each in nodes)),
        ("MB of memory", int(1024 * (resources.memory_gb or 0)), sorted(each.memory_mb for each in nodes)),
    ):
        fit = sum(each >= wanted for each in have)
        if fit < resources.nodes:
            most = have[-resources.nodes]
            yield f"{wanted} {what} on each node, {partition.name} has {most}", f"ask for at most {most} {what} a node"


def read_config(text: str) -> dict[str, str]:
    """The lines "Key = value" of `scontrol show config`."""
    return {
        key.strip(): value.strip()
        for key, equals, value in (line.partition("=") for line in text.splitlines())
        if equals
    }


def read_partitions(shown: str, nodes: str) -> list[Partition]:
    """Of `scontrol show partition --oneliner` and `sinfo --Node --format=%R|%c|%m|%G|%f`."""
    by_partition: dict[str, list[Node]] = {}
    for line in nodes.splitlines():
        name, cores, memory, gres, features = line.split("|", 4)
        gpus = sum(int(each) for each in re.findall(r"gpu:(?:[^:,(]+:)?(\d+)", gres))
        own = frozenset(features.replace("(null)", "").split(",")) - {""}
        node = Node(int(cores.rstrip("+")), int(memory.rstrip("+")), gpus, own)
        by_partition.setdefault(name, []).append(node)
    lines = (dict(part.split("=", 1) for part in line.split() if "=" in part) for line in shown.splitlines())
    return [
        Partition(
            name=facts["PartitionName"],
            longest_min=_minutes(facts.get("MaxTime", "")),
            most_nodes=_limit(facts.get("MaxNodes", "")),
            accounts=_listed(facts.get("AllowAccounts", "ALL")),
            qos=_listed(facts.get("AllowQos", "ALL")),
            nodes=tuple(by_partition.get(facts["PartitionName"], ())),
            is_default=facts.get("Default") == "YES",
        )
        for facts in lines
        if "PartitionName" in facts
    ]


def _listed(text: str) -> frozenset[str]:
    return frozenset() if text in {"ALL", "N/A", "(null)"} else frozenset(text.split(","))


def _limit(text: str) -> int | None:
    return int(text) if text.isdigit() else None


def _minutes(text: str) -> float | None:
    """Minutes of [days-]hours:minutes:seconds; None for UNLIMITED."""
    days, _, rest = text.rpartition("-")
    try:
        hours, minutes, seconds = (int(each) for each in rest.split(":"))
        return int(days or 0) * 1440 + hours * 60 + minutes + seconds / 60
    except ValueError:
        return None
