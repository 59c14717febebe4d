"""WebDataset tars as the public mirrors lay them out."""

import json

import pytest

from tests.kit.tars import write_samples
from xclr import schema
from xclr.captions import reader_of, run
from xclr.captions.stages import CAPTIONS, CaptionsConfig
from xclr.captions.wds import READER, listing
from xclr.errors import DataError
from xclr.recipe import DataConfig
from xclr.stage import Stage


def about(**fields):
    return json.dumps(fields).encode()


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
    assert produced.files == ("captions.parquet", "places.parquet")
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
