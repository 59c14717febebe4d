"""One reader of tars, whoever asks: it ends, and what is lost is told."""

from __future__ import annotations

import os
import random
import tarfile

import pytest

from tests.kit.tars import between, header, member, pax
from xclr.captions import wds
from xclr.errors import DataError
from xclr.evaluation.datasets import Tree
from xclr.tars import entries, files, opened

SAMPLES = 40


@pytest.fixture(scope="module")
def whole():
    """A tar of many samples, and where its headers are."""
    rng, parts, places = random.Random(0), [], [0]
    for number in range(SAMPLES):
        for name, content in ((b"%d.jpg" % number, rng.randbytes(rng.randrange(6000))), (b"%d.txt" % number, b"a dog")):
            parts.append(member(name, content))
            places.append(places[-1] + len(parts[-1]))
    return b"".join(parts) + bytes(1024), places


def told(path):
    """Whether each reader refuses a tar."""
    found = []
    for read in (lambda: list(wds.members(path)), lambda: Tree.open(path)):
        try:
            read()
        except DataError as error:
            assert str(path) in error.message
            found.append(True)
        else:
            found.append(False)
    return found


def test_wherever_a_tar_was_cut_all_readers_say_so(whole, tmp_path):
    content, places = whole
    rng, path = random.Random(1), tmp_path / "x.tar"
    last = places[-1]
    cuts = [*places[:8], last, *(rng.randrange(last) for _ in range(40)), *range(4096, last, 4096)]
    for cut in cuts:
        path.write_bytes(content[:cut])
        assert told(path) == [True, True], f"cut at {cut}"
    path.write_bytes(content)
    assert told(path) == [False, False]
    assert len(list(wds.members(path))) == 2 * SAMPLES


@pytest.mark.parametrize("size", [512, 4096])
def test_zeros_in_the_middle_are_no_end(size, whole, tmp_path):
    content, places = whole
    path, middle = tmp_path / "x.tar", places[SAMPLES]
    path.write_bytes(content[:middle] + bytes(size) + content[middle + size :])
    assert told(path) == [True, True]
    path.write_bytes(content + content)  # joined by cat: what comes second would be lost
    assert told(path) == [True, True]


@pytest.mark.parametrize("kind", ["fifo", "device"])
@pytest.mark.parametrize("name", ["x.tar", "real.json"])
def test_what_is_no_file_is_not_waited_for(kind, name, tmp_path):
    path = tmp_path / name
    os.mkfifo(path) if kind == "fifo" else path.symlink_to("/dev/zero")
    assert told(path) == [True, True]
    with pytest.raises(DataError, match=f"{name} is no file"):
        Tree.open(tmp_path).read(name)


@pytest.mark.parametrize("lie", [pax(b"size", b"-1536"), header(b"x.jpg", field=b"\xff" * 10 + b"\xfe\x00")])
def test_a_size_that_goes_back_ends_in_every_reader(lie, tmp_path):
    (tmp_path / "x.tar").write_bytes(between(lie + member(b"y.jpg", b"pixels")))
    assert told(tmp_path / "x.tar") == [False, True], "samples beside it are kept, a data set is whole or refused"


def test_a_tar_in_a_tar_ends_where_it_ends(tmp_path):
    """Not in the next one: without its end blocks its neighbour's pictures would be of its class."""
    inner = member(b"a.jpg", b"pixels")
    path = tmp_path / "x.tar"
    path.write_bytes(member(b"1.tar", inner) + member(b"2.tar", inner + bytes(1024)) + bytes(1024))
    with opened(path) as tar:
        first, second = (each for each in entries(tar) if each)
        assert [each.name for each in files(tar, second)] == ["a.jpg"]
        with pytest.raises(tarfile.ReadError, match="without the blocks that end a tar"):
            list(files(tar, first))
