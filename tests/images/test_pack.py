"""The images stage: one row for every caption whatever the bytes are, and tars that any reader opens."""

import hashlib
import io
import json
import random
import subprocess
import sys
import tarfile
from contextlib import ExitStack
from itertools import takewhile

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, features

from tests.kit.pictures import (
    HUGE,
    JPEG,
    PNG,
    RED,
    WEBP,
    check_rows,
    claiming,
    encode,
    located,
    pack,
    pack_table,
    prepare,
    write_table,
)
from tests.kit.stages import no_progress
from tests.kit.web import serving
from xclr import schema
from xclr.errors import DataError
from xclr.images import decode, read_pictures, usable_rows
from xclr.images import run as run_images
from xclr.images.outcome import Outcome
from xclr.images.pack import MOST_TRIES, _pack
from xclr.images.pack import ROWS as DESCRIBED
from xclr.images.picture import judge
from xclr.recipe import MIN_SIDE, DataConfig
from xclr.shards import SHARDS

KINDS = {
    "png": (PNG, "ok"),
    "webp": (WEBP, "ok"),
    "jpeg": (JPEG, "ok"),
    "gif": (encode(RED, "GIF"), "ok"),
    "palette": (encode(RED.convert("P")), "ok"),
    "just large enough": (encode(RED.resize((MIN_SIDE, 50))), "ok"),
    "truncated png": (PNG[: len(PNG) // 2], "decode"),
    "truncated jpeg": (JPEG[: len(JPEG) // 2], "decode"),
    "truncated webp": (WEBP[:-9], "decode"),
    "header only": (PNG[:8], "decode"),
    "empty": (b"", "decode"),
    "missing": (None, "decode"),
    "text": (b"<html>not found</html>", "decode"),
    "zeros": (bytes(1000), "decode"),
    "tiny": (encode(RED.resize((MIN_SIDE - 1, 50))), "too_small"),
    "one pixel": (encode(Image.new("L", (1, 1))), "too_small"),
    "huge": (HUGE, "too_large"),
    "wider than its data": (claiming(PNG, 400, 16), "decode"),
    "a rule": (encode(Image.new("L", (900, 9))), "too_large"),
    "a format that starts programs": (encode(RED, "EPS"), "decode"),
    "animated gif": (encode(RED, "GIF", save_all=True, append_images=[RED.rotate(90)]), "ok"),
    "animated webp": (encode(RED, "WEBP", save_all=True, append_images=[RED.rotate(90)]), "ok"),
    "Lab colours": (encode(Image.new("LAB", (24, 16)), "TIFF"), "ok"),
    "no area": (claiming(PNG, 0, 0), "decode"),
}
ANY_BYTES = (
    st.sampled_from([picture for picture, _ in KINDS.values()])
    | st.binary(max_size=60)
    | st.builds(lambda picture, at: picture[:at], st.sampled_from([PNG, WEBP, JPEG]), st.integers(0, 400))
)


def members(images):
    """Name and content of every file in the tars, in order."""
    found = []
    for path in sorted(images.path.glob("shard-*.tar")):
        with tarfile.open(path, "r:") as tar:
            found += [(entry.name, tar.extractfile(entry).read()) for entry in tar]
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_have_the_status_they_deserve(kind):
    picture, status = KINDS[kind]
    found = judge(picture).columns
    assert found["status"] == status
    assert ("error" in found) == (status != "ok")
    if status != "decode" and picture is not HUGE:
        with Image.open(io.BytesIO(picture)) as opened:
            assert (found["width"], found["height"]) == opened.size


@settings(max_examples=30, deadline=None)
@given(pictures=st.lists(ANY_BYTES, min_size=1, max_size=12))
def test_every_caption_has_one_images_row_whatever_the_bytes_are(pictures, tmp_path_factory):
    pictures = [*pictures, PNG]  # one is usable
    images, produced = pack_table(pictures, tmp_path_factory.mktemp("pack"))
    rows = check_rows(images, pictures)
    usable = [row["row_id"] for row in rows if row["status"] == "ok"]
    assert usable_rows(images.path).tolist() == usable
    assert read_pictures(images.path, usable, 8).shape == (len(usable), 4, 8, 8)
    assert [int(name.partition(".")[0]) for name, _ in members(images)] == [row for row in usable for _ in range(2)]
    counts = {name: count for name, count in produced.stats.items() if name != "rows"}
    assert produced.stats["rows"] == sum(counts.values()) == len(pictures)
    assert counts.get("ok", 0) == len(usable)


def flips(picture, rng):
    """A picture with some bytes overwritten."""
    broken = bytearray(picture)
    for _ in range(rng.choice([1, 2, 8])):
        broken[rng.randrange(len(broken))] = rng.randrange(256)
    return bytes(broken)


@pytest.mark.filterwarnings("ignore::UserWarning")  # what Pillow finds odd in broken TIFF
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG", "GIF", "BMP", "TIFF", "AVIF"])
def test_pictures_with_flipped_bytes_are_told_apart_from_good_ones(kind):
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow reads no AVIF")
    rng, picture = random.Random(0), encode(RED, kind)
    for _ in range(300):
        broken = flips(picture, rng)
        found = judge(broken).columns
        assert found["status"] in {"ok", "decode", "too_small", "too_large"}
        if found["status"] == "ok" and found["width"] * found["height"] < 10**6:
            assert decode(broken, 8).shape == (4, 8, 8)


def test_a_tar_holds_each_picture_beside_its_caption(tmp_path):
    images, produced = pack_table([PNG, None, WEBP, JPEG], tmp_path)
    assert produced.files == ("images.parquet", "accounts.parquet", "shard-00000.tar")
    assert members(images) == [
        ("000000000.png", PNG), ("000000000.txt", b"picture 0"),
        ("000000002.webp", WEBP), ("000000002.txt", b"picture 2"),
        ("000000003.jpg", JPEG), ("000000003.txt", b"picture 3"),
    ]  # fmt: skip


def test_a_camera_s_jpeg_with_a_second_picture_inside_is_a_jpeg_to_other_readers(tmp_path):
    picture = encode(RED, "MPO", save_all=True, append_images=[RED])
    images, _ = pack_table([picture], tmp_path)
    assert members(images)[0] == ("000000000.jpg", picture)


def test_the_emoji_are_packed_as_they_were_given(tmp_path):
    images, produced = pack(DataConfig(limit=40), tmp_path)
    assert produced.stats == {"rows": 40, "ok": 40}
    rows = pq.read_table(images.path / "images.parquet").to_pylist()
    captions = pq.read_table(tmp_path / "captions" / "captions.parquet")["caption"].to_pylist()
    files = members(images)
    assert len(files) == 80
    for row, (name, picture), (beside, caption) in zip(rows, files[::2], files[1::2], strict=True):
        number, suffix = name.split(".")
        assert suffix in {"webp", "png"}
        assert beside == f"{number}.txt"
        assert int(number) == row["row_id"]
        assert hashlib.sha256(picture).hexdigest() == row["sha256"]
        assert caption.decode() == captions[row["row_id"]]
        assert located(images, row) == picture


def test_pictures_beyond_a_shard_go_to_the_next(tmp_path):
    small = encode(Image.new("L", (MIN_SIDE, MIN_SIDE)))
    pictures = [small] * (SHARD + 2)
    pictures[1], pictures[-1] = None, PNG
    assert DataConfig().shard == 10_000
    images, produced = pack_table(pictures, tmp_path, shard=SHARD)
    assert produced.files == ("images.parquet", "accounts.parquet", "shard-00000.tar", "shard-00001.tar")
    rows = pq.read_table(images.path / "images.parquet").to_pylist()
    assert [row["row_id"] for row in rows] == list(range(SHARD + 2))
    assert [row["shard"] for row in rows] == [0, None, *[0] * (SHARD - 2), 1, 1]
    assert located(images, rows[-1]) == PNG
    assert located(images, rows[SHARD - 1]) == small
    pixels = read_pictures(images.path, [SHARD + 1, 0], 8)
    assert pixels[:, 0, 4, 4].tolist() == [200, 0]


def test_a_set_without_a_usable_picture_is_an_error_that_counts(tmp_path):
    with pytest.raises(DataError, match=r"none of the 4 pictures can be used: 3 decode, 1 too_small") as caught:
        pack_table([None, b"", b"x", encode(RED.resize((3, 3)))], tmp_path)
    assert "no bytes" in caught.value.message
    assert "data.image_column" in caught.value.remedy


@pytest.mark.parametrize(
    "content", [b"<!DOCTYPE html><html>", b"version https://git-lfs.github.com/spec/v1", b"\0" * 40]
)
def test_what_is_no_picture_is_told_by_how_it_begins_and_where_it_is(content, tmp_path):
    with pytest.raises(DataError) as caught:
        pack_table([content], tmp_path)
    begins = repr(content[:24])
    assert (
        f"the first: UnidentifiedImageError: {len(content)} bytes that are no picture: {begins}" in caught.value.message
    )
    assert "object at" not in caught.value.message
    path = tmp_path / "page.png"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        pack_table([str(path)], tmp_path / "by name")
    assert caught.value.message.endswith(f"({path})")


def test_a_set_of_which_most_is_lost_says_so_and_goes_on(tmp_path, capsys):
    _, produced = pack_table([None, b"", b"x", PNG], tmp_path)
    assert produced.stats == {"rows": 4, "decode": 3, "ok": 1}
    assert capsys.readouterr().err == "only 1 of 4 pictures can be used: 3 decode\n"


def test_the_same_pictures_give_the_same_files(tmp_path):
    first, second = (pack_table([PNG, None, WEBP], tmp_path / name)[0] for name in "ab")
    assert (first.path / "shard-00000.tar").read_bytes() == (second.path / "shard-00000.tar").read_bytes()
    assert pq.read_table(first.path / "images.parquet").equals(pq.read_table(second.path / "images.parquet"))


def test_tries_beyond_what_the_table_tells_are_its_most(tmp_path):
    _pack(tmp_path, 0, iter([(0, "a dog", Outcome("dns", error="no such name", attempt=200))]))
    assert pq.read_table(tmp_path / DESCRIBED)["attempt"].to_pylist() == [MOST_TRIES]


def test_the_table_says_which_stage_made_it(tmp_path):
    images, _ = pack_table([PNG], tmp_path)
    about = json.loads(pq.read_metadata(images.path / "images.parquet").metadata[b"about"])
    assert len(about["digest"]) == 32
    assert about["config"]["data"]["source"] == "table"


LOCAL = {"allow_hosts": ("127.0.0.1:*",)}
SHARD = 10  # rows, of the runs that are interrupted
ROWS = 45
STOPPED = 33  # rows that the first run comes to, in the fourth shard
RUN = """
import sys
from pathlib import Path
from xclr.images import run
from xclr.pipeline import KINDS
from xclr.stage import Stage
stage = Stage.from_json(Path(sys.argv[1]).read_text(), KINDS)
run(stage, Path(sys.argv[2]), lambda done, total, ok: print(done, flush=True))
"""


@pytest.fixture
def server():
    with serving() as running:
        yield running


def test_pictures_by_path_and_url_are_accounted_for_like_the_others(server, tmp_path):
    (tmp_path / "here.webp").write_bytes(WEBP)
    (tmp_path / "text.png").write_bytes(b"no picture")
    given = ["here.webp", server.url("/ok"), server.url("/status/404"), server.url("/html"), None, "text.png",
             server.url("/ok", "localhost"), server.url("/busy/503/0")]  # fmt: skip
    images, produced = pack_table(given, tmp_path, **LOCAL)
    rows = schema.read(images.path / "images.parquet", schema.IMAGES).to_pylist()
    told = [(row["status"], row["http"], row["attempt"]) for row in rows]
    assert told == [
        ("ok", None, 1), ("ok", 200, 1), ("http_4xx", 404, 1), ("decode", 200, 1), ("decode", None, 1),
        ("decode", None, 1), ("blocked", None, 1), ("ok", 200, 2),
    ]  # fmt: skip
    assert [located(images, rows[row]) for row in (0, 1, 7)] == [WEBP, PNG, PNG]
    assert (rows[2]["error"], rows[2]["bytes"], rows[2]["sha256"]) == ("HTTP 404", None, None)
    assert "data.allow_hosts" in rows[6]["error"]
    downloaded = 2 * len(PNG) + rows[3]["bytes"]
    counts = {"rows": 8, "blocked": 1, "decode": 3, "http_4xx": 1, "ok": 3}
    assert produced.stats == counts | {"downloaded_bytes": downloaded}
    assert usable_rows(images.path).tolist() == [0, 1, 7]


def test_a_file_that_goes_after_the_captions_were_read_loses_its_row_only(tmp_path):
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(PNG)
    stage, images = prepare(DataConfig(source="table", path=write_table(["a.png", "b.png"], tmp_path)), tmp_path)
    (tmp_path / "a.png").unlink()
    assert run_images(stage, images.path, no_progress).stats == {"rows": 2, "decode": 1, "ok": 1}
    rows = pq.read_table(images.path / "images.parquet").to_pylist()
    assert rows[0]["error"] == f"no file {tmp_path / 'a.png'}"


def test_a_table_that_changes_meanwhile_is_an_error(tmp_path):
    stage, images = prepare(DataConfig(source="table", path=write_table([PNG] * 3, tmp_path)), tmp_path)
    for number, word in ((2, "fewer"), (4, "more")):
        write_table([PNG] * number, tmp_path)
        with pytest.raises(DataError, match=f"now has {word} pictures than captions"):
            run_images(stage, images.path, no_progress)


def test_progress_is_told_after_every_picture(tmp_path):
    stage, images = prepare(DataConfig(source="table", path=write_table([PNG] * 5, tmp_path), shard=2), tmp_path)
    told = []
    run_images(stage, images.path, lambda *counts: told.append(counts))
    assert told == [(row, 5, row) for row in range(1, 6)]


@pytest.mark.slow
def test_a_killed_run_goes_on_with_the_first_unfinished_shard(server, tmp_path):
    """Row 33 is held back: the first run is killed in the fourth shard, when three are on disk."""
    urls = [server.url(f"/ok?{row}") for row in range(ROWS)]
    urls[STOPPED] = server.url("/hold")
    stage, images = prepare(
        DataConfig(source="table", path=write_table(urls, tmp_path), shard=SHARD, **LOCAL), tmp_path
    )
    (tmp_path / "stage.json").write_text(stage.to_json())
    command = [sys.executable, "-c", RUN, str(tmp_path / "stage.json"), str(images.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        done = [int(line) for line in takewhile(lambda line: int(line) < STOPPED, process.stdout)]
        process.kill()
    assert done == list(range(1, STOPPED))
    assert sorted(path.name for path in (images.path / SHARDS).glob("[0-9]*")) == ["00000", "00001", "00002"]
    before = [(images.path / SHARDS / f"0000{shard}" / "pictures.tar").stat().st_mtime_ns for shard in range(3)]
    server.released.set()
    produced = run_images(stage, images.path, no_progress)
    assert produced.stats == {"rows": ROWS, "ok": ROWS, "downloaded_bytes": ROWS * len(PNG)}
    assert produced.scratch == (SHARDS,)
    assert [(images.path / f"shard-0000{shard}.tar").stat().st_mtime_ns for shard in range(3)] == before
    assert [server.asked[f"/ok?{row}"] for row in range(30)] == [1] * 30
    assert server.asked["/hold"] == 2
    fresh, _ = pack(DataConfig(source="table", path=tmp_path / "mine.parquet", shard=SHARD, **LOCAL), tmp_path / "b")
    assert members(images) == members(fresh)
    tables = [pq.read_table(each.path / "images.parquet") for each in (images, fresh)]
    assert tables[0].equals(tables[1])


@pytest.mark.slow
def test_a_run_without_a_network_keeps_its_shards_and_goes_on_when_there_is_one(tmp_path):
    with serving() as dead:
        pass
    with ExitStack() as network:
        server = network.enter_context(serving())
        urls = [server.url(f"/ok?{row}") for row in range(2 * SHARD)] + [dead.url(f"/ok?{row}") for row in range(300)]
        one_by_one = LOCAL | {"download": {"connections": 1, "tries": 1}}  # the network goes before the dead ones
        stage, images = prepare(
            DataConfig(source="table", path=write_table(urls, tmp_path), shard=SHARD, **one_by_one), tmp_path
        )
        with pytest.raises(DataError, match="200 downloads in a row reached no server"):
            run_images(stage, images.path, lambda done, *_: network.close() if done == 2 * SHARD else None)
        finished = len(list((images.path / SHARDS).glob("[0-9]*")))
        assert 2 <= finished <= 22
        assert server.asked.total() == 2 * SHARD
        with pytest.raises(DataError, match="50 downloads in a row reached no server"):
            run_images(stage, images.path, no_progress)
        assert server.asked.total() == 2 * SHARD


def test_a_run_without_a_usable_picture_tries_all_again(server, tmp_path):
    urls = [server.url(f"/busy/404/0?{row}") for row in range(3)]
    stage, images = prepare(
        DataConfig(source="table", path=write_table(urls, tmp_path), shard=SHARD, **LOCAL), tmp_path
    )
    with pytest.raises(DataError, match="none of the 3 pictures can be used: 3 http_4xx; the first: HTTP 404"):
        run_images(stage, images.path, no_progress)
    assert run_images(stage, images.path, no_progress).stats["ok"] == 3
