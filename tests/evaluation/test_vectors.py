"""Vectors of any pictures: those that the backbone gives, each once, however often the writing was killed."""

import json
import multiprocessing
import os
import signal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from tests.kit.features import Passed
from tests.kit.home import one_thread
from tests.kit.pictures import encode
from xclr import schema
from xclr.errors import BusyError, DataError, StoreError
from xclr.evaluation import vectors
from xclr.evaluation.networks.network import Network, preparation_of
from xclr.evaluation.networks.pictures import normalised, prepare
from xclr.evaluation.vectors import PARTS, write_vectors
from xclr.images.listing import list_pictures
from xclr.recipe import TrainConfig
from xclr.store import only_writer
from xclr.training import build_backbone

ABOUT = {"run": "own-1", "method": "xclr", "checkpoint": "5" * 32}
NUMBER, BROKEN = 30, (4, 17)


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    with one_thread():
        yield


@pytest.fixture(scope="module")
def network():
    """A backbone as it is before training, of 32 features."""
    train = TrainConfig(width=4, image_size=16)
    torch.manual_seed(0)
    backbone, width = build_backbone(train)
    return Network(backbone.eval().requires_grad_(False), width, preparation_of(train), torch.device("cpu"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pictures of several shapes and kinds, two of them broken."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for number in range(NUMBER):
        kind = ("PNG", "JPEG", "WEBP")[number % 3]
        pixels = rng.integers(0, 256, (20 + number, 30, 4 if kind == "PNG" else 3), dtype=np.uint8)
        whole = encode(Image.fromarray(pixels), kind)
        (folder / f"{number:02d}.{kind.lower()}").write_bytes(whole[:40] if number in BROKEN else whole)
    return folder


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(vectors, "PART", 8)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out.parquet"


def write(network, folder, out, **how):
    return write_vectors(lambda: network, list_pictures(folder), out, ABOUT, **how)


def array(table):
    return np.stack(table["vector"].to_numpy(zero_copy_only=False))


def test_each_vector_is_the_backbones_of_that_picture(network, folder, out, small_parts):
    said = []
    written = write(network, folder, out, progress=lambda *place: said.append(place))
    table = schema.read(out, schema.vectors(32))
    names = sorted(path.name for path in folder.iterdir())
    rows = [row for row in range(NUMBER) if row not in BROKEN]
    assert table["row"].to_pylist() == rows and table["file"].to_pylist() == [names[row] for row in rows]
    for name, vector in zip(table["file"].to_pylist(), array(table), strict=True):
        pixels = prepare((folder / name).read_bytes(), network.preparation)[None]
        alone = network.backbone(normalised(pixels, network.preparation))[0]
        np.testing.assert_allclose(vector, alone.numpy(), rtol=0, atol=1e-5)
    assert (written.out, written.rows, written.dim, written.unreadable) == (out, NUMBER - 2, 32, 2)
    assert [name.split()[0] for name in written.named] == [names[row] for row in BROKEN]
    assert said == sorted(said) and said[-1] == (NUMBER, NUMBER)
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_the_file_says_what_made_it(network, folder, out):
    write(network, folder, out)
    about = json.loads(pq.read_schema(out).metadata[b"about"])
    assert about.items() >= ABOUT.items()
    assert about["preparation"]["size"] == 16 and about["preparation"]["interpolation"] == "bilinear"
    assert about["unreadable"] == 2 and about["pictures"] == str(folder)


def test_ids_of_a_table_stand_beside_its_vectors(network, out):
    picture = encode(Image.linear_gradient("L"))
    table = pa.table({"image": [picture, b"none", picture, None], "id": pa.array([5, 6, None, 8], pa.int32())})
    pq.write_table(table, out.with_name("in.parquet"))
    listed = list_pictures(out.with_name("in.parquet"), id_column="id")
    written = write_vectors(lambda: network, listed, out, ABOUT)
    found = pq.read_table(out)
    assert found.column_names == ["file", "row", "id", "vector"] and found.schema.field("id").type == pa.int32()
    assert found.select(["file", "row", "id"]).to_pylist() == [
        {"file": None, "row": 0, "id": 5}, {"file": None, "row": 2, "id": None},
    ]  # fmt: skip
    assert written.unreadable == 2 and written.named[0].startswith("row 1 ") and written.named[1].startswith("row 3 ")


@pytest.mark.parametrize("at", [3, 8, 20, NUMBER])
def test_killed_at_any_time_it_goes_on_where_it_was(network, folder, out, small_parts, monkeypatch, at):
    monkeypatch.setattr(vectors, "BATCH", 3)
    whole = out.with_name("whole.parquet")
    write(network, folder, whole)

    def die(done, total, ok=None):
        if done >= at:
            os.kill(os.getpid(), signal.SIGKILL)

    with torch.inference_mode():
        child = multiprocessing.get_context("fork").Process(
            target=write, args=(network, folder, out), kwargs={"progress": die}
        )
        child.start()
        child.join()
    assert child.exitcode == -signal.SIGKILL and not out.exists()
    there = len(list(out.with_name(out.name + PARTS).glob("*/*.parquet")))
    with Passed() as passed:
        written = write(network, folder, out)
    assert passed.pictures == NUMBER - min(NUMBER, 8 * there), "a part that was there was made again"
    assert written.unreadable == 2
    found, expected = pq.read_table(out), pq.read_table(whole)
    assert found.drop(["vector"]).equals(expected.drop(["vector"]))
    np.testing.assert_array_equal(array(found), array(expected))
    assert {path.name for path in out.parent.iterdir()} == {out.name, whole.name}


def test_a_file_that_is_there_is_not_made_again(network, folder, out):
    first, stamp = write(network, folder, out), out.stat().st_mtime_ns
    with Passed() as passed:
        assert write(network, folder, out) == first
    assert (passed.pictures, out.stat().st_mtime_ns) == (0, stamp)
    parts = out.with_name(out.name + PARTS)  # left by one that was killed after the file was in place
    (parts / "0123").mkdir(parents=True)
    assert write(network, folder, out) == first and not parts.exists()


def test_parts_of_other_pictures_are_not_taken_for_these(network, folder, out, small_parts, tmp_path):
    class EnoughError(Exception):
        pass

    def stop(done, total, ok=None):
        if done >= 16:
            raise EnoughError

    with pytest.raises(EnoughError):
        write(network, folder, out, progress=stop)
    other = tmp_path / "other"
    other.mkdir()
    (other / "one.png").write_bytes(encode(Image.linear_gradient("L")))
    assert write(network, other, out).rows == 1
    assert pq.read_table(out)["file"].to_pylist() == ["one.png"]


def test_what_would_be_lost_is_refused(network, folder, out):
    out.write_bytes(b"somebody's")
    with pytest.raises(StoreError, match="holds something else") as caught:
        write(network, folder, out)
    assert "--force" in caught.value.remedy
    assert out.read_bytes() == b"somebody's" and len(list(out.parent.iterdir())) == 1
    assert write(network, folder, out, force=True).rows == NUMBER - 2
    with pytest.raises(StoreError, match="is what is read"):
        write(network, folder / "00.png", folder / "00.png", force=True)
    with pytest.raises(StoreError, match="it is a folder"):
        write(network, folder, folder, force=True)
    with pytest.raises(StoreError, match="cannot be written"):
        write(network, folder, out / "below.parquet")


def test_two_at_once_do_not_write_one_file(network, folder, out):
    with only_writer(out.with_name(out.name + PARTS)), pytest.raises(BusyError, match="another process"):
        write(network, folder, out)


def test_pictures_none_of_which_can_be_read_are_an_error_with_the_first(network, out):
    folder = out.with_name("pictures")
    folder.mkdir()
    (folder / "a.png").write_bytes(b"")
    (folder / "b.png").write_bytes(b"text")
    with pytest.raises(DataError, match=r"no picture of .* can be read, first a\.png"):
        write(network, folder, out)
    assert [path.name for path in out.parent.iterdir()] == ["pictures"]
