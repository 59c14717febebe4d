"""Folders and tars as trees of files: one content, one order, and damage that is named."""

from __future__ import annotations

import gzip
import os
import tarfile
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.kit.trees import packed, tarred
from xclr.errors import DataError
from xclr.evaluation.datasets import Tree

FILES = {
    "b/2.jpg": b"two",
    "b/1.jpg": b"one",
    "b-c/x.jpg": b"a name that sorts before the folder b",
    "b/deep/er/3.jpg": b"three" * 500,
    "top.txt": b"",
    "ümläut/ß.png": b"text",
}
HIDDEN = ("b/._1.jpg", "b/.DS_Store", ".git/config", "b/.cache/4.jpg")


@pytest.fixture
def folder(tmp_path):
    """A folder with files, hidden files and a folder without any."""
    root = tmp_path / "data"
    for name, content in [*FILES.items(), *((name, b"hidden") for name in HIDDEN)]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    (root / "empty" / "inner").mkdir(parents=True)
    return root


@pytest.fixture(params=["folder", "tar", "tar of GNU", "tar of pax", "tar with a folder above"])
def tree(request, folder, tmp_path):
    """The same files in every kind of tree."""
    if request.param == "folder":
        return Tree.open(folder)
    path = tmp_path / "data.tar"
    if request.param == "tar":
        os.spawnlp(os.P_WAIT, "tar", "tar", "-cf", str(path), "-C", str(folder), ".")
        return Tree.open(path)
    kind = tarfile.GNU_FORMAT if "GNU" in request.param else tarfile.PAX_FORMAT
    with tarfile.open(path, "w", format=kind) as tar:
        tar.add(folder, "/" if "above" in request.param else "", filter=lambda each: each)
    return Tree.open(path)


def test_names_and_contents_are_those_of_the_folder(tree):
    assert tree.files() == sorted(FILES)
    assert tree.files("b") == ["b/1.jpg", "b/2.jpg", "b/deep/er/3.jpg"]
    assert tree.files("empty") == []
    assert tree.folders() == ["b", "b-c", "empty", "ümläut"]
    assert tree.folders("b") == ["deep"]
    assert tree.folders("empty") == ["inner"]
    assert {name: tree.read(name) for name in FILES} == FILES


def test_what_exists_and_what_does_not(tree):
    assert all(map(tree.exists, ["b", "b/deep/er", "b/1.jpg", "empty/inner"]))
    assert not any(map(tree.exists, ["b/3.jpg", "c", "b/1", "zzz"]))
    for ask in (tree.read, tree.entry):
        with pytest.raises(DataError, match=r"b/nine\.jpg is missing"):
            ask("b/nine.jpg")
    for ask in (tree.files, tree.folders):
        with pytest.raises(DataError, match="nowhere is missing"):
            ask("nowhere")


def test_entries_name_size_and_change(tree):
    assert tree.entry("b/1.jpg").startswith(b"b/1.jpg\x003\x00")
    assert len({tree.entry(name) for name in FILES}) == len(FILES)
    assert tree.entry("b/1.jpg") == tree.entry("b/1.jpg")


def test_many_threads_read_at_once(tree):
    names = [*FILES] * 200
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(tree.read, names)) == [FILES[name] for name in names]


def test_links_to_folders_are_listed_but_not_entered_further_down(folder, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "5.jpg").write_bytes(b"five")
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "b" / "circle").symlink_to(folder)
    (folder / "b" / "6.jpg").symlink_to(tmp_path / "elsewhere" / "5.jpg")
    (folder / "b" / "7.jpg").symlink_to(tmp_path / "gone")
    tree = Tree.open(folder)
    assert "linked" in tree.folders()
    assert tree.files("linked") == ["linked/5.jpg"]
    assert tree.files("b") == ["b/1.jpg", "b/2.jpg", "b/6.jpg", "b/7.jpg", "b/deep/er/3.jpg"]
    assert tree.read("b/6.jpg") == b"five"
    for ask in (tree.read, tree.entry):
        with pytest.raises(DataError, match=r"b/7\.jpg is missing"):
            ask("b/7.jpg")


def test_a_changed_file_and_a_changed_tar_have_other_entries(folder, tmp_path):
    path = packed(folder, tmp_path / "data.tar")
    before = [Tree.open(each).entry("b/1.jpg") for each in (folder, path)]
    for each in (folder / "b/1.jpg", path):
        os.utime(each, ns=(1, 1))
    assert not set(before) & {Tree.open(each).entry("b/1.jpg") for each in (folder, path)}


def test_a_tar_that_was_replaced_is_read_anew(folder, tmp_path):
    path = packed(folder, tmp_path / "data.tar")
    old = Tree.open(path)
    (folder / "b/1.jpg").write_bytes(b"another one")
    path.unlink()
    packed(folder, path)
    assert Tree.open(path).read("b/1.jpg") == b"another one"
    assert old.read("b/1.jpg") == b"one"


def test_hard_links_in_a_tar_are_files(folder, tmp_path):
    (folder / "b" / "9.jpg").hardlink_to(folder / "b" / "2.jpg")
    tree = Tree.open(packed(folder, tmp_path / "data.tar"))
    assert tree.read("b/9.jpg") == tree.read("b/2.jpg") == b"two"


def test_of_two_files_with_one_name_the_later_counts(tmp_path):
    members = [(tarfile.TarInfo("a/1.jpg"), b"old"), (tarfile.TarInfo("./a/1.jpg"), b"new")]
    tree = Tree.open(tarred(tmp_path / "twice.tar", members))
    assert (tree.files(), tree.read("a/1.jpg"), tree.folders()) == (["a/1.jpg"], b"new", ["a"])


def test_symbolic_links_in_a_tar_are_refused(folder, tmp_path):
    (folder / "b" / "link.jpg").symlink_to("1.jpg")
    with pytest.raises(DataError, match=r"link\.jpg is a link.*") as caught:
        Tree.open(packed(folder, tmp_path / "data.tar"))
    assert "--dereference" in caught.value.remedy


@pytest.mark.parametrize("cut", [1, 512, 1024, 4000])
def test_a_tar_that_ends_early_is_refused_wherever_it_was_cut(folder, tmp_path, cut):
    path = packed(folder, tmp_path / "data.tar")
    with tarfile.open(path) as tar:
        end = tar.getmembers()[-1].offset_data + 512
    path.write_bytes(path.read_bytes()[: end - cut])
    with pytest.raises(DataError, match=r"data\.tar"):
        Tree.open(path)


def test_a_damaged_header_is_no_end(folder, tmp_path):
    path = packed(folder, tmp_path / "data.tar")
    with tarfile.open(path) as tar:
        third = tar.getmembers()[3].offset
    data = bytearray(path.read_bytes())
    data[third : third + 100] = b"x" * 100
    path.write_bytes(data)
    with pytest.raises(DataError, match=f"data.tar cannot be read as a tar: no header at byte {third:,}"):
        Tree.open(path)


def test_compressed_and_other_files_are_refused(folder, tmp_path):
    path = packed(folder, tmp_path / "data.tar")
    (tmp_path / "data.tar.gz").write_bytes(gzip.compress(path.read_bytes()))
    (tmp_path / "empty.tar").touch()
    for name in ("data.tar.gz", "empty.tar"):
        with pytest.raises(DataError, match=f"{name} cannot be read as a tar") as caught:
            Tree.open(tmp_path / name)
        assert "uncompressed" in caught.value.remedy
    with pytest.raises(DataError, match="nothing is missing"):
        Tree.open(tmp_path / "nothing")


def test_a_tar_that_shrank_under_a_reader_is_named(folder, tmp_path):
    path = packed(folder, tmp_path / "data.tar")
    tree = Tree.open(path)
    os.truncate(path, 600)
    with pytest.raises(DataError, match=r"3\.jpg has 0 of 2500 bytes"):
        tree.read("b/deep/er/3.jpg")


def test_names_that_are_not_utf8_are_refused_in_both(folder, tmp_path):
    os.close(os.open(os.fsencode(folder) + b"/b/caf\xe9.jpg", os.O_CREAT))
    (folder / os.fsdecode(b"t\xe9")).mkdir()
    for tree in (Tree.open(folder), Tree.open(packed(folder, tmp_path / "data.tar"))):
        for ask in (lambda tree=tree: tree.files("b"), tree.folders):
            with pytest.raises(DataError, match="1 file names are not UTF-8") as caught:
                ask()
            assert str(tree.root) in caught.value.message


def test_a_json_file_is_a_tree_of_one(tmp_path):
    path = tmp_path / "real.json"
    path.write_text("[[0]]")
    tree = Tree.open(path)
    assert (tree.files(), tree.folders(), tree.read("real.json")) == (["real.json"], [], b"[[0]]")
    assert tree.entry("real.json") == Tree.open(tmp_path).entry("real.json")
    for ask in (lambda: tree.read("x"), lambda: tree.entry("x"), lambda: tree.files("x"), lambda: tree.folders("x")):
        with pytest.raises(DataError, match=r"real\.json is a file: there is no x in it"):
            ask()


def test_what_cannot_be_read_is_named(folder):
    with pytest.raises(DataError, match="b is no file"):
        Tree.open(folder).read("b")
    with pytest.raises(DataError, match="b is no file"):
        Tree.open(folder).entry("b")
    for ask in (Tree.open(folder).files, Tree.open(folder).folders):
        with pytest.raises(DataError, match=r"top\.txt cannot be read: Not a directory"):
            ask("top.txt")
    with pytest.raises(DataError, match=r"top\.txt/data cannot be read: Not a directory"):
        Tree.open(folder / "top.txt" / "data")
