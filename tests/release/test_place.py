"""An export is whole or not there, and nothing that somebody else made is lost."""

import pytest

from xclr.errors import StoreError
from xclr.release import put

NAMES = {"weights", "card"}


def writes(**texts):
    def write(folder):
        for name, text in texts.items():
            (folder / name).write_text(text)
        return tuple(texts)

    return write


def contents(folder):
    return {each.name: each.read_text() for each in folder.iterdir()}


def test_a_folder_is_made_where_none_or_an_empty_one_is(tmp_path):
    (tmp_path / "empty").mkdir()
    for out in (tmp_path / "new" / "deep", tmp_path / "empty"):
        put(out, writes(weights="1"), names=NAMES)
        assert contents(out) == {"weights": "1"}
        assert [each.name for each in out.parent.glob(".*")] == []


def test_the_same_again_changes_nothing_and_another_needs_force(tmp_path):
    out = tmp_path / "out"
    put(out, writes(weights="1", card="a"), names=NAMES)
    (out / "__pycache__").mkdir()
    before = (out / "weights").stat().st_mtime_ns
    put(out, writes(weights="1", card="a"), names=NAMES)
    assert (out / "weights").stat().st_mtime_ns == before
    for other in ({"weights": "2", "card": "a"}, {"weights": "1"}):
        with pytest.raises(StoreError, match="holds another export") as caught:
            put(out, writes(**other), names=NAMES)
        assert "--force" in caught.value.remedy
        assert (out / "weights").read_text() == "1"
    put(out, writes(weights="2"), names=NAMES, force=True)
    assert contents(out) == {"weights": "2"}


@pytest.mark.parametrize("force", [False, True])
def test_what_no_export_writes_is_never_replaced(tmp_path, force):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(StoreError, match=r"holds thesis.tex, which no export writes"):
        put(tmp_path, writes(weights="1"), names=NAMES, force=force)
    with pytest.raises(StoreError, match="is a file"):
        put(tmp_path / "thesis.tex", writes(weights="1"), names=NAMES, force=force)
    assert contents(tmp_path) == {"thesis.tex": "mine"}


def test_an_export_that_fails_leaves_what_was_there(tmp_path):
    def breaks(folder):
        (folder / "weights").write_text("half")
        raise OSError(28, "No space left on device")

    put(tmp_path / "out", writes(weights="1"), names=NAMES)
    with pytest.raises(StoreError, match="No space left"):
        put(tmp_path / "out", breaks, names=NAMES, force=True)
    assert contents(tmp_path / "out") == {"weights": "1"}
    assert [each.name for each in tmp_path.iterdir()] == ["out"]
