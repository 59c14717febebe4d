"""A look at own pictures: what the headers of a few tell, from any source."""

import csv
import io
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.kit.pictures import claiming, encode
from xclr.errors import DataError
from xclr.images import look as looking
from xclr.images.look import LOOKED, look
from xclr.recipe import DataConfig, Seen

PHOTO = encode(Image.new("RGB", (300, 200), (90, 120, 60)), "JPEG")
OPAQUE = encode(Image.new("RGBA", (300, 200), (90, 120, 60, 255)))
CUT_OUT = encode(Image.new("RGBA", (300, 200), (90, 120, 60, 0)))
MANY = LOOKED + 36


def folder_of(root, pictures):
    """Class folders that hold these pictures in turn."""
    for index, picture in enumerate(pictures):
        path = root / "abc"[index % 3] / f"{index:03d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture)
    return DataConfig(source="folder", path=root)


def paths_of(root, pictures):
    """A CSV beside the files that it names."""
    folder_of(root, pictures)
    return csv_of(root, [path.relative_to(root) for path in sorted(root.glob("*/*.jpg"))])


def csv_of(root, images):
    root.mkdir(parents=True, exist_ok=True)
    with (root / "mine.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("caption", "image"), *((f"a {row}", each) for row, each in enumerate(images))])
    return DataConfig(source="table", path=root / "mine.csv")


def bytes_of(root, pictures):
    """A Parquet table that holds them."""
    root.mkdir(parents=True, exist_ok=True)
    captions = [f"a {row}" for row in range(len(pictures))]
    pq.write_table(pa.table({"caption": captions, "image": pa.array(pictures, pa.binary())}), root / "mine.parquet")
    return DataConfig(source="table", path=root / "mine.parquet")


def tars_of(root, pictures):
    """Two WebDataset tars."""
    root.mkdir(parents=True, exist_ok=True)
    for number in range(2):
        with tarfile.open(root / f"{number:05d}.tar", "w") as tar:
            for index, picture in enumerate(pictures[number::2]):
                for ending, content in (("jpg", picture), ("txt", b"a thing")):
                    entry = tarfile.TarInfo(f"{index:05d}.{ending}")
                    entry.size = len(content)
                    tar.addfile(entry, io.BytesIO(content))
    return DataConfig(source="wds", path=root)


SOURCES = {"folder": folder_of, "paths": paths_of, "bytes": bytes_of, "tars": tars_of}


@pytest.mark.parametrize("source", SOURCES)
def test_every_source_tells_how_many_and_how_large_its_pictures_are(source, tmp_path):
    assert look(SOURCES[source](tmp_path / "few", [PHOTO] * 6)) == Seen(6, 300, 200, 200)
    many = SOURCES[source](tmp_path / "many", [PHOTO] * MANY)
    seen = look(many)
    assert seen == look(many) and seen._replace(number=0) == Seen(0, 300, 200, 200)
    assert MANY * 0.7 <= seen.number <= MANY * 1.3
    assert look(many.model_copy(update={"limit": 70})).number <= 70


@pytest.mark.parametrize("source", SOURCES)
def test_no_more_than_a_few_headers_are_read(source, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(looking, "opened", lambda data: asked.append(1) or Image.open(io.BytesIO(PHOTO)))
    look(SOURCES[source](tmp_path, [PHOTO] * MANY))
    assert len(asked) == LOOKED


def test_of_a_folder_all_classes_are_looked_at(tmp_path):
    data = folder_of(tmp_path, [PHOTO] * 2)
    for index in range(3 * LOOKED):
        (tmp_path / "b" / f"{index}-small.jpg").write_bytes(encode(Image.new("RGB", (40, 30)), "JPEG"))
    assert look(data)._replace(number=0) == Seen(0, 40, 30, 30)


def test_a_picture_is_as_large_as_it_is_upright_and_medians_are_of_all(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encode(Image.new("RGB", (300, 200)), "JPEG", exif=exif)
    assert look(bytes_of(tmp_path / "one", [turned])) == Seen(1, 200, 300, 200)
    sizes = [(100, 90), (500, 80), (120, 400)]
    mixed = [encode(Image.new("RGB", size), "JPEG") for size in sizes]
    assert look(bytes_of(tmp_path / "two", mixed)) == Seen(3, 120, 90, 90)


@pytest.mark.parametrize(
    ("pictures", "cut_out"),
    [
        ([CUT_OUT] * 4, True),
        ([OPAQUE] * 4, False),
        ([CUT_OUT] * 2 + [PHOTO] * 2, False),
        ([CUT_OUT] * 3 + [PHOTO] * 2, True),
    ],
    ids=["cut out", "a full channel", "half", "most"],
)
def test_cut_out_pictures_have_transparent_parts_not_just_a_channel_for_them(pictures, cut_out, tmp_path):
    assert look(bytes_of(tmp_path, pictures)) == Seen(len(pictures), 300, 200, 200, cut_out)


def test_what_is_no_picture_is_passed_over(tmp_path):
    bomb = claiming(encode(Image.new("RGB", (8, 8))), 60_000, 60_000)
    assert look(bytes_of(tmp_path / "some", [b"", b"x", bomb, None, PHOTO])) == Seen(5, 300, 200, 200)
    assert look(bytes_of(tmp_path / "none", [b"", b"x", None])) is None
    assert look(csv_of(tmp_path / "lost", ["a.jpg", "b.jpg"])) is None


def test_pictures_at_addresses_are_counted_and_not_fetched(tmp_path):
    assert look(csv_of(tmp_path / "urls", [f"http://nobody.invalid/{row}.jpg" for row in range(5)])) == Seen(5)
    (tmp_path / "both").mkdir()
    (tmp_path / "both" / "here.jpg").write_bytes(PHOTO)
    assert look(csv_of(tmp_path / "both", ["http://nobody.invalid/a.jpg", "here.jpg"])) == Seen(2, 300, 200, 200)


def test_data_that_are_not_there_are_told(tmp_path):
    with pytest.raises(DataError, match="no table at"):
        look(DataConfig(source="table", path=tmp_path / "none.csv"))
