"""ImageNet: the synsets' names as captions, no two classes with one caption."""

import pytest

from xclr.captions import SOURCES
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
    records = list(SOURCES["imagenet"].captions(data))
    captions = {each["label"]: each["caption"] for each in records}
    assert captions["n01440764"] == "a photo of a tench"
    assert len(set(captions.values())) == len(captions) == 5
    assert {(each["label"], each["split"]) for each in records} == {
        (synset, split) for synset in NAMES for split in ("train", "pictures")
    }


def test_pictures_follow_the_captions(data):
    paths = list(SOURCES["imagenet"].pictures(data))
    assert [path.parent.name for path in paths] == [each["label"] for each in SOURCES["imagenet"].captions(data)]
    assert SOURCES["imagenet"].size(data) == 10


def test_a_folder_that_is_no_synset_is_named(data):
    (data.path / "val" / "dogs").mkdir()
    (data.path / "val" / "dogs" / "a.JPEG").write_bytes(b"1")
    with pytest.raises(DataError, match="val/dogs"):
        list(SOURCES["imagenet"].captions(data))


def test_a_line_without_a_name_is_named(data):
    (data.path / "LOC_synset_mapping.txt").write_text("n01440764 tench\nn02012849\n")
    with pytest.raises(DataError, match="line 2 has no name"):
        list(SOURCES["imagenet"].captions(data))
