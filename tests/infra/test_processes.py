"""Processes by names that outlive the clock, and are not taken for one another."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from infra import processes
from infra.processes import find_process, process_id, this_process


def test_a_process_is_known_by_its_birth_as_well_as_its_number():
    host, pid, born = this_process().rsplit("/", 2)
    boot, ticks = born.split(".")
    assert boot == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert int(ticks) / os.sysconf("SC_CLK_TCK") == pytest.approx(psutil.Process().create_time() - psutil.boot_time())
    assert find_process(f"{host}/{pid}/{born}") is not None
    assert find_process(f"{host}/{pid}/{boot}.{int(ticks) - 1}") is None, "the number was another's"
    assert find_process(f"{host}/{pid}/{'0' * 36}.{ticks}") is None, "before the machine was started anew"


def test_names_that_older_records_hold_are_found(monkeypatch, tmp_path):
    host, pid, _ = this_process().rsplit("/", 2)
    start_ms = int(psutil.Process().create_time() * 1000)
    assert find_process(f"{host}/{pid}/{start_ms}") is not None
    assert find_process(f"{host}/{pid}/{start_ms - 60_000}") is None
    monkeypatch.setattr(processes, "PROC", tmp_path)  # as on a machine that has none
    assert this_process() == f"{host}/{pid}/{start_ms}"
    assert find_process(this_process()) is not None


def test_a_process_whose_name_is_odd_is_known(tmp_path):
    """The second field of its line holds the name as it is."""
    program = tmp_path / "a) S 1 (b"
    program.symlink_to("/bin/sleep")
    process = subprocess.Popen([str(program), "60"])
    try:
        assert find_process(process_id(process.pid)) is not None
    finally:
        process.kill()
        process.wait()


def test_an_ended_process_is_not_found_even_before_it_is_reaped():
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    name = process_id(process.pid)
    assert find_process(name) is not None
    process.kill()
    process.wait()
    assert find_process(name) is None


SET_THE_CLOCK = """
from pathlib import Path
import re, sys, psutil
from infra.processes import find_process
stat, name = Path(sys.argv[1]), sys.argv[2]
stat.write_text(re.sub(r"btime (\\d+)", lambda found: f"btime {int(found[1]) + 5}", stat.read_text()))
began = psutil.Process(int(name.split("/")[1])).create_time()
print(began, find_process(name) is not None)
"""


def may_mount() -> bool:
    """True where a process may have mounts of its own."""
    trial = ["unshare", "--mount", "mount", "--bind", "/proc/stat", "/proc/stat"]
    return bool(shutil.which("unshare")) and subprocess.run(trial, capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not may_mount(), reason="this user may not mount here")
def test_a_clock_that_is_set_changes_no_process(tmp_path):
    """As NTP and a laptop that wakes do it: the time of booting, from which psutil counts, moves by five seconds."""
    stat = tmp_path / "stat"
    stat.write_bytes(Path("/proc/stat").read_bytes())
    sleeper = subprocess.Popen(["/bin/sleep", "60"])
    try:
        name, began = process_id(sleeper.pid), psutil.Process(sleeper.pid).create_time()
        script = 'mount --bind "$1" /proc/stat && exec "$2" -c "$3" "$1" "$4"'
        command = ["unshare", "--mount", "sh", "-ec", script, "sh", stat, sys.executable, SET_THE_CLOCK, name]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    finally:
        sleeper.kill()
        sleeper.wait()
    assert float(said[0]) == pytest.approx(began + 5, abs=0.5), "psutil follows the clock"
    assert said[1] == "True"
