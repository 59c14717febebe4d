"""WebDataset tars as the public mirrors lay them out."""

import json
import tarfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kit.captions import artifact
from tests.kit.tars import added, between, header, member, pax, write_samples
from xclr import schema
from xclr.artifact import Manifest
from xclr.captions import reader_of, run
from xclr.captions.stages import CAPTIONS, CaptionsConfig, tell_left_out
from xclr.captions.wds import READER, captions, listing
from xclr.errors import DataError
from xclr.files import is_text
from xclr.images.given import pictures
from xclr.images.stages import IMAGES, ImagesConfig
from xclr.recipe import DataConfig
from xclr.stage import Stage


def about(**fields):
    return json.dumps(fields).encode()


def sample(name, txt=None, json=None):
    """A sample by hand."""
    files = {b"jpg": b"pixels", b"txt": txt, b"json": json}
    return b"".join(member(name + b"." + end, content) for end, content in files.items() if content is not None)


@pytest.fixture
def data(tmp_path):
    write_samples(tmp_path / "set-train-0000.tar", {
        "0001": {"jpg": b"first", "json": about(url="http://h/1", caption="unused"), "txt": b"a  dog\n"},
        "0002": {"json": about(caption="a cat", url=None), "png": b"second one"},
    })  # fmt: skip
    write_samples(tmp_path / "set-train-0001.tar", {
        "0001": {"txt": b"a dog", "jpg": b"third"},
        "0002": {"txt": b"no picture"},
        "0003": {"jpg": b"no caption", "json": b"{"},
        "0004": {"jpg": b"no caption", "txt": b" "},
        "a/0005.v2": {"jpg": b"x"},
        "0006": {"txt": "caf\u00e9".encode(), "webp": b"fourth"},
    })  # fmt: skip
    return DataConfig(source="wds", path=tmp_path)


def test_samples_become_rows_whose_pictures_stay_in_the_tars(data, tmp_path):
    (tmp_path / "out").mkdir()
    stage = Stage(CAPTIONS, "captions", CaptionsConfig(data=data, sha256=()))
    produced = run(stage, tmp_path / "out", lambda done, total: None)
    assert produced.files == ("captions.parquet", "places.parquet", "names.parquet")
    rows = schema.read(tmp_path / "out" / "captions.parquet", schema.CAPTIONS).to_pylist()
    assert [(row["caption"], row["url"], row["dup_of"]) for row in rows] == [
        ("a dog", "http://h/1", None), ("a cat", None, None), ("a dog", None, 0), ("caf\u00e9", None, None)
    ]  # fmt: skip
    places = schema.read(tmp_path / "out" / "places.parquet", schema.PLACES).to_pylist()
    found = [(data.path / row["file"]).read_bytes()[row["offset"] : row["offset"] + row["size"]] for row in places]
    assert found == [b"first", b"second one", b"third", b"fourth"]
    assert len({row["key"] for row in rows}) == 4
    assert produced.stats["malformed"] == 4
    assert produced.stats["malformed_samples"].startswith("set-train-0001.tar: 0002, set-train-0001.tar: 0003")


def test_one_tar_may_be_named_and_a_limit_set(data):
    one = data.model_copy(update={"path": data.path / "set-train-0000.tar", "limit": 1})
    assert [each["caption"] for each in reader_of("wds").captions(one)] == ["a dog"]
    assert reader_of("wds").size(data) >= 4


def test_the_tars_name_the_captions_by_size_and_time(data):
    assert READER.files(data) == ()
    before = listing(data)
    write_samples(data.path / "set-train-0002.tar", {"1": {"jpg": b"x", "txt": b"y"}})
    assert listing(data) != before


def test_what_is_no_plain_tar_is_refused(tmp_path):
    data = DataConfig(source="wds", path=tmp_path)
    with pytest.raises(DataError, match="has no tars"):
        list(reader_of("wds").captions(data))
    (tmp_path / "a.tar").write_bytes(b"\x1f\x8b" + bytes(600))
    with pytest.raises(DataError, match=r"a\.tar cannot be read as a tar"):
        list(reader_of("wds").captions(data))
    with pytest.raises(DataError, match="no tars at"):
        READER.files(DataConfig(source="wds", path=tmp_path / "gone"))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_captions_are_read_with_marks_of_order_and_without_what_nobody_sees(encoding, tmp_path):
    write_samples(tmp_path / "x.tar", {
        "1": {"jpg": b"x", "txt": "un\u200b cafe\u0301\u00a0\n".encode(encoding)},
        "2": {"jpg": b"x", "json": json.dumps({"caption": "\ufeffun\u00a0café"}).encode(encoding)},
        "3": {"jpg": b"x", "txt": "\u200b\u200f".encode(encoding)},
    })  # fmt: skip
    assert [each["caption"] for each in captions(DataConfig(source="wds", path=tmp_path))] == ["un café"] * 2


CHAIN = b"".join(member(b"././@LongLink", b"x\0", b"L") for _ in range(3000))
MALFORMED = {
    "half a character": sample(b"x", json=b'{"caption": "a dog \\ud83d"}'),
    "half a character in its address": sample(b"x", b"a dog", b'{"url": "http://x/\\ud800"}'),
    "nested deep": sample(b"x", json=b"[" * 100_000),
    "a number of 5,000 digits": sample(b"x", json=b'{"caption": ' + b"9" * 5000 + b"}"),
    "a name that is no UTF-8": sample(b"caf\xe9", b"a dog"),
    "no name": member(b"", b"x"),
    "a folder's name": member(b"./", b"x"),
    "3,000 long names": CHAIN + member(b"x.jpg", b"pixels"),
    "a size of 2^70": pax(b"size", str(2**70).encode()) + member(b"x.jpg", b"pixels"),
    "a size of -1536": pax(b"size", b"-1536") + member(b"x.jpg", b"pixels"),
    "a size in words": pax(b"size", b"abc") + member(b"x.jpg", b"\xff" * 9000),
    "a negative size": header(b"x.jpg", field=b"\xff" * 10 + b"\xfe\x00"),
    "a map of holes that is none": pax(b"GNU.sparse.map", b"a,b") + member(b"x.txt", bytes(512)),
    "a path that is no text": pax(b"path", b"\xff.jpg") + member(b"x.jpg", b"pixels"),
}


@pytest.mark.parametrize("what", MALFORMED)
def test_a_sample_that_nobody_can_read_costs_itself(what, tmp_path):
    (tmp_path / "x.tar").write_bytes(between(MALFORMED[what]))
    (tmp_path / "out").mkdir()
    data = DataConfig(source="wds", path=tmp_path)
    stage = Stage(CAPTIONS, "captions", CaptionsConfig(data=data, sha256=()))
    produced = run(stage, tmp_path / "out", lambda done, total: None)
    assert produced.stats["rows"] == 2
    assert produced.stats["malformed"] in {1, 2}, "a header that lies may belong to a sample that is none anyway"
    assert is_text(produced.stats["malformed_samples"])
    rows = schema.read(tmp_path / "out" / "captions.parquet", schema.CAPTIONS).to_pylist()
    assert [row["caption"] for row in rows] == ["a word", "a word"]
    whole = (tmp_path / "x.tar").read_bytes()
    places = schema.read(tmp_path / "out" / "places.parquet", schema.PLACES).to_pylist()
    assert [whole[each["offset"] : each["offset"] + each["size"]] for each in places] == [b"pixels"] * 2


def test_a_header_in_the_middle_that_is_none_is_damage(tmp_path):
    """Not the end, as which tarfile takes it: what follows would be lost without a word."""
    (tmp_path / "x.tar").write_bytes(between(b"\xff" * 512))
    with pytest.raises(DataError, match="no header at byte 2,048"):
        list(captions(DataConfig(source="wds", path=tmp_path)))


@settings(max_examples=200, deadline=None)
@given(noise=st.lists(st.tuples(st.integers(0, 511), st.integers(0, 255)), min_size=1, max_size=6))
def test_headers_with_any_bytes_end_or_are_told(noise, tmp_path_factory):
    """With a checksum that is right, so that they are believed."""
    block = bytearray(header(b"x.jpg", 6))
    for place, value in noise:
        block[place] = value
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    folder = tmp_path_factory.mktemp("noise")
    (folder / "x.tar").write_bytes(between(bytes(block) + b"pixels".ljust(512, b"\0")))
    try:
        found = [record["caption"] for record in captions(DataConfig(source="wds", path=folder))]
    except DataError as error:
        assert "cannot be read as a tar" in error.message
    else:
        assert found.count("a word") == 2


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Four tars in two folders, the names of which have a blank."""
    root = tmp_path_factory.mktemp("set of tars")
    for place in ("a/x-00", "a/x-01", "b/x-00", "b/y-00"):
        (root / place).parent.mkdir(exist_ok=True)
        write_samples(root / f"{place}.tar", {"1": {"jpg": place.encode(), "txt": place.encode()}})
    return root


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("a/x-{00..01}.tar", ["a/x-00", "a/x-01"]),
        ("{a,b}/x-00.tar", ["a/x-00", "b/x-00"]),
        ("{b,a}/x-*.tar", ["a/x-00", "a/x-01", "b/x-00"]),
        ("b/*.tar", ["b/x-00", "b/y-00"]),
        ("b/[xy]-0?.tar", ["b/x-00", "b/y-00"]),
        ("{a,b}", ["a/x-00", "a/x-01", "b/x-00", "b/y-00"]),
        ("a/x-00.tar", ["a/x-00"]),
    ],
)
def test_braces_and_wildcards_name_tars_and_each_picture_is_where_it_is_said(pattern, expected, shards, tmp_path):
    data = DataConfig(source="wds", path=shards / pattern)
    captioned = Stage(CAPTIONS, "captions", CaptionsConfig(data=data, sha256=()))
    run(captioned, tmp_path, lambda done, total: None)
    rows = schema.read(tmp_path / "captions.parquet", schema.CAPTIONS).to_pylist()
    assert [row["caption"] for row in rows] == expected
    made = Stage(IMAGES, "images", ImagesConfig(data=data, sha256=()), {"captions": artifact("captions", tmp_path)})
    found = [each.path.read_bytes()[each.offset :][: each.size] for each in pictures(made, np.arange(len(rows)))]
    assert found == [name.encode() for name in expected]


def test_a_folder_and_its_tars_spelt_out_are_the_same_captions(shards):
    folder, spelt = (DataConfig(source="wds", path=shards / name) for name in ("a", "a/x-{00..01}.tar"))
    assert list(captions(folder)) == list(captions(spelt))
    assert listing(folder) == listing(spelt)


def test_of_tars_that_are_spelt_out_those_not_there_are_told_and_of_none_the_pattern(shards):
    with pytest.raises(DataError, match=r"2 of 4 tars are not there, first .*x-02\.tar"):
        listing(DataConfig(source="wds", path=shards / "a/x-{00..03}.tar"))
    for pattern in ("a/z-{00..03}.tar", "a/z*.tar", "a/{x", "c/x-00.tar"):
        with pytest.raises(DataError, match="no tars at"):
            listing(DataConfig(source="wds", path=shards / pattern))


def test_a_name_with_braces_that_is_there_is_itself(tmp_path):
    write_samples(tmp_path / "x{1,2}.tar", {"1": {"jpg": b"x", "txt": b"y"}})
    assert len(list(captions(DataConfig(source="wds", path=tmp_path / "x{1,2}.tar")))) == 1


def told(root):
    """The lines about captions of tars."""
    stage = Stage(CAPTIONS, "captions", CaptionsConfig(data=DataConfig(source="wds", path=root), sha256=()))
    (root / "out").mkdir()
    stats = run(stage, root / "out", lambda done, total: None).stats
    made = Manifest(kind="captions", digest="", inputs=(), config={}, code=1, files=(), stats=stats, created="")
    return list(tell_left_out(made))


def test_keys_that_are_cut_or_stand_twice_are_told(tmp_path):
    good = {"jpg": b"x", "txt": b"y"}
    write_samples(tmp_path / "a.tar", {"plain": good})
    assert told(tmp_path) == []
    write_samples(tmp_path / "a.tar", {"photo.v2": good, "photo.v3": good, "other": good, "x.y": good, "d.1/z": good})
    write_samples(tmp_path / "b.tar", {"other": good, "more": good})
    with tarfile.open(tmp_path / "b.tar", "a") as tar:
        added(tar, "other.jpg", b"x")
        added(tar, "other.jpg", b"z")
    (tmp_path / "out").rename(tmp_path / "before")
    left_out, cut, again = told(tmp_path)
    assert "malformed: 3" in left_out
    assert cut.endswith("as WebDataset does: 2 (photo.v2.jpg -> key photo)")
    assert again.endswith("mixed or doubled: 1 (b.tar: other)")
