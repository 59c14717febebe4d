"""The doctor: each check on something that is right and on something that is wrong."""

from __future__ import annotations

import errno
import os
import re
from typing import NamedTuple

import pytest
import torch

from infra.disks import fs_type_of
from infra.doctor.machine import (
    GATHERING,
    check_database,
    check_gathering,
    check_home,
    check_packages,
    check_python,
    check_recipe,
    check_server,
    check_slurm,
    check_speed,
    check_state,
    check_text_model,
    check_throughput,
    check_wordnet,
    examine_gpus,
    unmet_requirements,
)
from infra.doctor.parity import inputs, loss, parity
from tests.kit.command import ROOT, command
from tests.kit.disks import refusing
from tests.kit.terminal import in_terminal
from xclr.disk import existing
from xclr.errors import JobError
from xclr.recipe import RECIPES


class Mount(NamedTuple):
    mountpoint: str
    fstype: str


MOUNTS = (Mount("/", "ext4"), Mount("/data", "xfs"), Mount("/data/shared", "nfs4"), Mount("/data", "lustre"))


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/tmp/state", "ext4"),
        ("/data", "lustre"),  # mounted over
        ("/data/shared/team/state", "nfs4"),
        ("/database", "ext4"),
        ("/data/sharedness", "lustre"),
    ],
)
def test_a_path_lies_on_its_nearest_mount(path, kind, tmp_path):
    assert fs_type_of(type(tmp_path)(path), MOUNTS) == kind


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "smb3", "lustre", "gpfs", "beegfs", "ceph", "fuse.sshfs"])
def test_state_on_a_network_file_system_is_refused(tmp_path, kind):
    finding = check_state(tmp_path / "state", [Mount("/", "ext4"), Mount(str(tmp_path), kind)])
    assert (finding.state, kind in finding.found, "XCLR_STATE" in finding.remedy) == ("wrong", True, True)
    assert check_state(tmp_path / "state", [Mount("/", "ext4")]).state == "ok"


def test_the_nearest_folder_that_exists_is_looked_at_and_nothing_is_left(tmp_path, monkeypatch):
    there = tmp_path / "link"
    there.symlink_to(tmp_path / "real")
    (tmp_path / "real").mkdir()
    assert existing(there / "not" / "yet") == tmp_path / "real"
    assert check_home(there / "home").state == "ok"
    with monkeypatch.context() as patch:
        patch.setattr("os.link", refusing(errno.EPERM))
        assert (check_home(there).state, "no hard links" in check_home(there).remedy) == ("ok", True)
        patch.setattr("fcntl.flock", refusing(errno.ENOLCK))
        assert (check_home(there).state, "NFS 3 needs lockd" in check_home(there).remedy) == ("wrong", True)
    assert not list(there.iterdir()), "a probe was left behind"
    assert check_database(there / "state").state == "ok"
    assert list((tmp_path / "real").iterdir()) == []


def test_a_home_that_cannot_be_written_and_a_damaged_database(tmp_path):
    (tmp_path / "file").touch()
    assert check_home(tmp_path / "file" / "home").state == "wrong"
    (tmp_path / "mlflow.db").write_bytes(b"this is not a database" * 100)
    finding = check_database(tmp_path)
    assert (finding.state, "not a database" in finding.found) == ("wrong", True)


def test_the_environment_of_the_tests_is_whole():
    assert check_python().state == "ok"
    assert check_packages().state == "ok", check_packages()
    assert unmet_requirements("prefect") == []
    assert [each.wanted for each in unmet_requirements("no-such-package")] == ["no-such-package"]


def test_named_recipes_say_what_their_data_lack():
    assert check_recipe("emoji").state == "ok"
    finding = check_recipe("no-such-recipe")
    assert (finding.state, bool(finding.remedy)) == ("optional", True)


def test_a_text_model_and_wordnet_and_slurm_and_servers(tmp_path, monkeypatch):
    assert check_text_model(str(tmp_path)).state == "ok"
    corpus = tmp_path / "corpora" / "wordnet"
    corpus.mkdir(parents=True)
    monkeypatch.setenv("NLTK_DATA", str(tmp_path))
    assert check_wordnet().state == "ok"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert check_slurm().state == "optional"
    for name in ("sinfo", "sbatch", "squeue", "sacct"):
        (tmp_path / name).touch(mode=0o755)
    assert check_slurm().state == "ok"
    assert check_server("a server", "NO_VARIABLE", None, str).state == "optional"
    assert "at http://host/api" in check_server("a server", "NO_VARIABLE", "http://me:secret@host/api", len_of).found

    def refuses(url):
        raise JobError("it is down", "start it")

    finding = check_server("a server", "NO_VARIABLE", "http://host", refuses)
    assert (finding.state, finding.remedy) == ("wrong", "start it")


def len_of(url):
    return str(len(url))


@pytest.mark.slow
def test_two_processes_gather_what_one_has():
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    finding = check_gathering(2, "cpu")
    assert (finding.state, "2 cpu processes" in finding.found) == ("ok", True)


def test_a_wrong_value_and_a_wrong_gradient_are_noticed():
    rows = inputs(2).requires_grad_()
    loss(rows, rows).backward()
    halves = [{"gathered": rows.detach(), "gradient": 2 * part} for part in rows.grad.chunk(2)]
    assert parity(halves, "cpu").holds
    assert not parity([halves[1], halves[0]], "cpu").holds
    assert not parity([halves[0], halves[1] | {"gathered": rows.detach() + 1e-6}], "cpu").holds


@pytest.mark.slow
def test_a_check_that_takes_too_long_or_fails_is_a_finding():
    assert "did not end" in check_gathering(2, "cpu", within_s=0.01).found
    finding = check_gathering(2, "no-such-device")
    assert (finding.state, "infra.doctor.parity" in finding.remedy) == ("wrong", True)


@pytest.mark.slow
def test_the_throughput_of_two_processes_is_measured_in_real_steps():
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    finding = check_throughput(2, "cpu", seconds=1)
    assert finding.state == "ok", finding
    assert "pictures a second" in finding.found and "2 cpu processes: resnet-mini in float32" in finding.found
    assert check_throughput(1, "no-such-device", seconds=1).state == "wrong"


@pytest.mark.slow
def test_the_speed_of_a_device_is_told_beside_its_bars_with_the_narrow_place():
    *findings, narrow = check_speed("cpu", ("losses", "optimiser"))
    assert [each.found.partition(":")[0] for each in findings] == [
        "loss from embeddings, n = 256 / its products", "one LARS step over ResNet-50 / 1 ms"
    ]  # fmt: skip
    assert all(each.remedy for each in findings if each.state != "ok") and narrow.check == "narrow place"
    (finding,) = check_speed("no-such-device")
    assert (finding.state, "infra.doctor.ratios" in finding.remedy) == ("wrong", True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU to measure")
def test_without_a_gpu_the_gpu_examination_says_so():
    (finding,) = examine_gpus(1, print)
    assert (finding.check, finding.state) == ("GPUs", "wrong") and "nvidia-smi" in finding.remedy


@pytest.mark.slow
def test_a_whole_examination_finds_this_machine_fit_and_touches_nothing(tmp_path):
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_", "XCLR_"))}
    done = in_terminal(command(tmp_path / "home", "doctor"), cwd=ROOT, environment=ours)
    assert done.returncode == 0, done.stdout
    assert done.first_s < 2 and done.wide == []
    _, *findings = re.split(r"\n(?=\S)", "\n".join(done.lines))
    checks = {each[9:27].strip() for each in findings}
    assert checks >= {"Python", "STATE", "GPUs", "all-gather", "Slurm"}
    assert checks >= {f"data of {path.stem}" for path in RECIPES.glob("*.yaml")}
    assert all("-> " in each for each in findings if each.startswith("optional"))
    assert done.stdout.index(GATHERING) < done.stdout.index("all-gather"), "what takes long is named before it begins"
    assert not (tmp_path / "home").exists()
