"""ImageNet: the synsets' names as captions, no two classes with one caption."""

import io
import tarfile

import numpy as np
import pytest
from scipy.io import savemat

from tests.kit.tars import added
from tests.kit.trees import as_kaggle
from xclr.captions import reader_of
from xclr.errors import DataError
from xclr.recipe import DataConfig

NAMES = {
    "n01440764": "tench, Tinca tinca",
    "n02012849": "crane",
    "n03126707": "crane",
    "n03710637": "maillot",
    "n03710721": "maillot, tank suit",
}


@pytest.fixture
def data(tmp_path):
    """A tiny ImageNet: one picture a synset in train and in val."""
    for part in ("train", "val"):
        for synset in NAMES:
            (tmp_path / part / synset).mkdir(parents=True)
            (tmp_path / part / synset / f"{part}_1.JPEG").write_bytes(b"1")
    mapping = "".join(f"{synset} {names}\n" for synset, names in NAMES.items())
    (tmp_path / "LOC_synset_mapping.txt").write_text(mapping)
    return DataConfig(source="imagenet", path=tmp_path)


def test_captions_are_first_names_and_no_two_synsets_share_one(data):
    records = list(reader_of("imagenet").captions(data))
    captions = {each["label"]: each["caption"] for each in records}
    assert captions["n01440764"] == "a photo of a tench"
    assert len(set(captions.values())) == len(captions) == 5
    assert {(each["label"], each["split"]) for each in records} == {
        (synset, split) for synset in NAMES for split in ("train", "pictures")
    }


def test_pictures_follow_the_captions(data):
    paths = list(reader_of("imagenet").pictures(data))
    assert [path.parent.name for path in paths] == [each["label"] for each in reader_of("imagenet").captions(data)]
    assert reader_of("imagenet").size(data) == 10


def test_a_folder_that_is_no_synset_is_named(data):
    (data.path / "val" / "dogs").mkdir()
    (data.path / "val" / "dogs" / "a.JPEG").write_bytes(b"1")
    with pytest.raises(DataError, match="val/dogs"):
        list(reader_of("imagenet").captions(data))


def test_a_line_without_a_name_is_named(data):
    (data.path / "LOC_synset_mapping.txt").write_text("n01440764 tench\nn02012849\n")
    with pytest.raises(DataError, match="line 2 has no name"):
        list(reader_of("imagenet").captions(data))


def tarred(files):
    """A plain tar."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, content in files.items():
            added(tar, name, content)
    return stream.getvalue()


def official(root, *, order=1):
    """ImageNet's own tars: two pictures a synset in training, one in validation, told by the devkit's ids."""
    synsets = list(NAMES)
    numbers = {synset: 5 - index for index, synset in enumerate(synsets)}  # the devkit has an order of its own
    inner = {
        f"{synset}.tar": tarred({f"{synset}_{index}.JPEG": f"{synset} {index}".encode() for index in (7, 2)})
        for synset in synsets
    }
    (root / "ILSVRC2012_img_train.tar").write_bytes(tarred(inner))
    held_out = {f"ILSVRC2012_val_{place:08d}.JPEG": synset.encode() for place, synset in enumerate(synsets, start=1)}
    (root / "ILSVRC2012_img_val.tar").write_bytes(tarred(dict(list(held_out.items())[::order])))
    rows = [(numbers[synset], synset, names) for synset, names in NAMES.items()]
    rows.append((1001, "n00001740", "entity"))
    kinds = [("ILSVRC2012_ID", object), ("WNID", object), ("words", object)]
    meta = io.BytesIO()
    savemat(meta, {"synsets": np.array(rows, dtype=kinds)})
    truth = "".join(f"{numbers[synset]}\n" for synset in synsets)
    with tarfile.open(root / "ILSVRC2012_devkit_t12.tar.gz", "w:gz") as tar:
        added(tar, "ILSVRC2012_devkit_t12/data/meta.mat", meta.getvalue())
        added(tar, "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt", truth.encode())
    return DataConfig(source="imagenet", path=root)


def unpacked(root):
    """The same as folders."""
    for synset in NAMES:
        for part, names in (("train", [f"{synset}_7", f"{synset}_2"]), ("val", [])):
            (root / part / synset).mkdir(parents=True)
            for name in names:
                (root / part / synset / f"{name}.JPEG").write_bytes(f"{synset} {name[-1]}".encode())
    for place, synset in enumerate(NAMES, start=1):
        (root / "val" / synset / f"ILSVRC2012_val_{place:08d}.JPEG").write_bytes(synset.encode())
    (root / "LOC_synset_mapping.txt").write_text("".join(f"{synset} {names}\n" for synset, names in NAMES.items()))
    return DataConfig(source="imagenet", path=root)


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("limit", [None, 6])
def test_the_official_tars_give_what_the_folders_give(order, limit, tmp_path):
    (tmp_path / "tars").mkdir()
    tars = official(tmp_path / "tars", order=order).model_copy(update={"limit": limit})
    folders = unpacked(tmp_path / "folders").model_copy(update={"limit": limit})
    packed = list(reader_of("imagenet").captions(tars))
    assert len(packed) == (limit or 15)
    for record, path in zip(packed, reader_of("imagenet").pictures(folders), strict=True):
        file, offset, size = record["place"]
        assert (tars.path / file).read_bytes()[offset : offset + size] == path.read_bytes()
    plain = [{name: value for name, value in record.items() if name != "place"} for record in packed]
    assert plain == list(reader_of("imagenet").captions(folders))
    assert next(each.name for each in reader_of("imagenet").classes(tars, sorted(NAMES))) == "tench"


def test_tars_without_their_devkit_or_cut_short_are_refused(tmp_path):
    data = official(tmp_path)
    path = tmp_path / "ILSVRC2012_img_train.tar"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(DataError, match="cannot be read as a tar"):
        list(reader_of("imagenet").captions(data))
    (tmp_path / "ILSVRC2012_devkit_t12.tar.gz").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"devkit_t12\.tar\.gz cannot be read"):
        list(reader_of("imagenet").captions(data))


@pytest.mark.parametrize("at", ["", "ILSVRC", "ILSVRC/Data", "ILSVRC/Data/CLS-LOC"])
@pytest.mark.parametrize("limit", [None, 6])
def test_kaggles_folders_give_what_sorted_ones_give_wherever_one_points(at, limit, tmp_path):
    folders = unpacked(tmp_path / "folders").model_copy(update={"limit": limit})
    unpacked(tmp_path / "kaggle")
    kaggle = folders.model_copy(update={"path": as_kaggle(tmp_path / "kaggle") / at})
    reader = reader_of("imagenet")
    assert list(reader.captions(kaggle)) == list(reader.captions(folders))
    assert reader.captions_listing(kaggle) == reader.captions_listing(folders)
    pairs = zip(reader.pictures(kaggle), reader.pictures(folders), strict=True)
    assert all(mine.read_bytes() == theirs.read_bytes() for mine, theirs in pairs)
    assert [path.read_text() for path in reader.files(kaggle)] == [path.read_text() for path in reader.files(folders)]
    assert reader.size(kaggle) == (limit or 15)


@pytest.mark.parametrize(
    ("spoil", "message", "remedy"),
    [
        (lambda top: (top / "LOC_val_solution.csv").unlink(), "no LOC_val_solution.csv lies beside or above", "put"),
        (lambda top: (top / "LOC_synset_mapping.txt").unlink(), "LOC_synset_mapping.txt is missing", "Kaggle"),
        (
            lambda top: (top / "ILSVRC/Data/CLS-LOC/val/ILSVRC2012_val_00000009.JPEG").write_bytes(b"1"),
            "has no line for 1 pictures of val: ILSVRC2012_val_00000009.JPEG",
            "whole LOC_val_solution.csv",
        ),
        (
            lambda top: (top / "LOC_val_solution.csv").write_text("ImageId,PredictionString\nILSVRC2012_val_00000001,"),
            "line 2 has no synset",
            "ImageId,wnid",
        ),
    ],
)
def test_what_kaggles_folders_lack_is_told_in_one_line(spoil, message, remedy, tmp_path):
    unpacked(tmp_path)
    spoil(as_kaggle(tmp_path))
    data = DataConfig(source="imagenet", path=tmp_path)
    with pytest.raises(DataError, match=message) as caught:
        list(reader_of("imagenet").captions(data))
    assert remedy in caught.value.remedy and "\n" not in caught.value.message + caught.value.remedy
