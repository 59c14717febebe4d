"""Disks that take nothing more: whatever it is that cannot write, people are told which disk, and what to do."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from contextlib import closing, redirect_stdout
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from tests.kit.disks import fill, read_only, small_disk
from xclr.disk import check_room, existing, output_told, room_at, size, told
from xclr.errors import DataError, StoreError
from xclr.store import Store, is_locked, only_writer, write_atomically

SIZE = 4 << 20
NOISE = np.random.default_rng(0).random(SIZE // 8)


@pytest.fixture(scope="module")
def disk(tmp_path_factory):
    with small_disk(tmp_path_factory.mktemp("full") / "disk", SIZE) as disk:
        fill(disk, leave=1 << 18)
        yield disk


def insert(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("create table noise (number blob)")
        database.execute("insert into noise values (?)", (NOISE.tobytes(),))
        database.commit()


def copy(path: Path) -> None:
    source = path.parent.parent / "source"
    source.mkdir(exist_ok=True)
    np.save(source / "noise.npy", NOISE)
    shutil.copytree(source, path)


WAYS = {
    "a text": lambda path: write_atomically(path, "x" * SIZE),
    "a table": lambda path: pq.write_table(pa.table({"noise": NOISE}), path),
    "an array": lambda path: np.save(path, NOISE),
    "weights": lambda path: torch.save(torch.from_numpy(NOISE), path),
    "a database": insert,
    "a copy": copy,
}


@pytest.mark.parametrize("way", WAYS)
def test_whatever_does_not_fit_says_which_disk_is_full(way, disk, tmp_path):
    path = disk / "new.npy"
    try:
        with pytest.raises(StoreError) as caught, told(tmp_path, disk):
            WAYS[way](path)
        assert caught.value.message.startswith(f"no space left on {disk} (")
        assert caught.value.message.endswith(f"free of {size(SIZE)})")
        assert "xclr gc --dry-run" in caught.value.remedy
        assert not list(disk.glob(".new.npy*")), "a draft is no one's"
    finally:
        for each in disk.glob("new.npy*"):
            shutil.rmtree(each) if each.is_dir() else each.unlink()


def test_what_has_another_cause_stays_what_it_is(disk, tmp_path):
    for error in (DataError("no picture"), ValueError("no disk")):
        with pytest.raises(type(error)) as caught, told(tmp_path):
            raise error
        assert caught.value is error
    with pytest.raises(DataError), told(disk):
        raise DataError("no picture")


def test_room_is_looked_at_before_work(disk, tmp_path):
    check_room(tmp_path / "not" / "yet", 1)
    with pytest.raises(StoreError, match=rf"{disk} \(.* free of .*\): at least 32 MB are needed"):
        check_room(disk / "not" / "yet", 32_000_000)
    assert room_at(disk / "not" / "yet").mount == disk


def test_a_read_only_disk_is_told_by_its_name_and_can_be_looked_at(tmp_path):
    home = tmp_path / "home"
    with only_writer(home / "artifacts" / "kind" / "digest"):
        pass
    with read_only(home, tmp_path / "seen") as seen:
        for write in (Store(seen).check_writable, lambda: write_atomically(seen / "new", "")):
            with pytest.raises(StoreError, match=f"{seen} is mounted read-only"), told(seen):
                write()
        assert not is_locked(seen / "artifacts" / "kind" / "digest")
        with only_writer(home / "artifacts" / "kind" / "digest"):
            assert is_locked(seen / "artifacts" / "kind" / "digest")


def test_a_quota_is_told_as_one(tmp_path):
    with pytest.raises(StoreError, match=r"the quota on .* is used up"), told(tmp_path):
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), str(tmp_path / "new"))


@pytest.mark.parametrize("telling", [told, output_told])
def test_output_that_nobody_takes_is_told(telling):
    said = pytest.raises(StoreError, match="standard output cannot be written: No space left")
    with Path("/dev/full").open("w") as nowhere, redirect_stdout(nowhere), said, telling():
        print("x" * 100_000, flush=True)


@pytest.mark.parametrize("closed", [True, False])
def test_what_stays_in_a_buffer_is_told_too_and_a_closed_pipe_is_no_fault(closed):
    reader, writer = os.pipe()
    os.close(reader)
    place = writer if closed else os.open("/dev/full", os.O_WRONLY)
    ends = pytest.raises(SystemExit if closed else StoreError)
    with os.fdopen(place, "w") as where, redirect_stdout(where), ends, output_told():
        print("x")


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (8_388_608, "8.4 MB"), (999_600_000, "1.0 GB")]
)
def test_sizes_are_written_as_people_write_them(number, text):
    assert size(number) == text


def test_what_is_not_there_yet_lies_on_the_disk_of_its_folder(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path)
    assert existing(tmp_path / "link" / "not" / "yet") == tmp_path.resolve()
