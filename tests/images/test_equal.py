"""Placeholders: one picture under many addresses."""

import pyarrow as pa
import pyarrow.compute as pc

from tests.kit.captions import artifact, captions_table
from xclr import schema
from xclr.artifact import Manifest
from xclr.images.equal import MANY, Equal
from xclr.images.stages import tell_equal

PICTURES = [*"a" * (MANY + 10), None, *"bbc"]


def images():
    """An images table of downloads; a letter is a picture."""
    rows = [
        {"row_id": row, "status": "ok" if each else "dns", "http": 200 if each else None, "attempt": 1,
         "sha256": each * 64 if each else None, "error": None if each else "no such name"}
        for row, each in enumerate(PICTURES)
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema.IMAGES)


def captions(folder):
    """Captions with the addresses of these pictures."""
    table = captions_table([("a dog", 0)] * len(PICTURES))
    urls = pa.array([f"http://host{row % 2}/{row}" for row in range(len(PICTURES))])
    at = table.schema.get_field_index("url")
    schema.write(table.set_column(at, table.schema.field(at), urls), folder / "captions.parquet", schema.CAPTIONS, {})
    return artifact("captions", folder).path


def test_pictures_under_many_addresses_are_counted_and_told_with_their_hosts(tmp_path):
    equal = Equal.among([images()], captions(tmp_path))
    assert equal.times.tolist() == [MANY + 10] * (MANY + 10) + [2, 2, 1]
    half = MANY // 2 + 5
    stats = equal.stats(tmp_path)
    assert stats == {"equal": 2 * half, "equal_most": 2 * half, "equal_hosts": f"host0 ({half}), host1 ({half})"}
    made = Manifest(kind="images", digest="", inputs=(), config={}, code=1, files=(), stats=stats, created="")
    assert "--set data.most_equal=5 leaves out" in next(iter(tell_equal(made)))


def test_they_are_left_out_on_request_and_come_back_without(tmp_path):
    equal = Equal.among([images()], captions(tmp_path))
    assert equal.left_out(images(), None) == images()
    without = equal.left_out(images(), 2)
    assert without.schema == schema.IMAGES
    assert without["status"].to_pylist() == ["repeated"] * (MANY + 10) + ["dns", "ok", "ok", "ok"]
    assert without["error"].to_pylist()[-4:] == ["no such name", None, None, None]
    again = Equal.among([without], tmp_path)
    assert again.left_out(without, 1000) == images(), "the next generation counts anew"
    assert pc.sum(pc.equal(again.left_out(without, 1)["status"], "repeated")).as_py() == MANY + 12
