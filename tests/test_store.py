"""The store: an artifact exists when its manifest does, and its files are what the manifest says."""

import os
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.kit.users import as_nobody
from xclr.artifact import Digest, FileEntry, Manifest, sha256_file
from xclr.errors import StoreError
from xclr.store import MANIFEST, Store, describe, is_locked, only_writer, write_atomically

NAME = Digest("captions", "ab" * 16)
HOLDER = """
import sys
from pathlib import Path
from xclr.store import only_writer
with only_writer(Path(sys.argv[1]), wait=False) as mine:
    print(mine, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "home")


def build(store, *, rows=3):
    """An artifact's files, and the manifest that describes them."""
    out = store.begin(NAME)
    pq.write_table(pa.table({"row_id": list(range(rows))}), out / "rows.parquet")
    (out / "shards").mkdir(exist_ok=True)
    (out / "shards" / "0.tar").write_bytes(b"pictures")
    files = tuple(describe(out, name) for name in ("rows.parquet", "shards/0.tar"))
    return Manifest(
        kind=NAME.kind, digest=NAME, inputs=(), config={"rows": rows}, code=1, files=files, stats={"rows": rows},
        created="2025-01-01T00:00:00Z",
    )  # fmt: skip


def commit(store, **options):
    return store.commit(store.reference(NAME), build(store, **options))


def test_an_artifact_lies_below_home_by_kind_and_digest(store):
    artifact = store.reference(NAME)
    assert artifact.path == store.home / "artifacts" / "captions" / ("ab" * 16)
    assert (artifact.kind, artifact.digest) == ("captions", NAME)
    assert not store.home.exists()


def test_what_is_committed_is_found_and_verified(store):
    manifest = build(store)
    artifact = store.commit(store.reference(NAME), manifest)
    assert store.find(NAME) == artifact
    assert store.manifest(artifact) == manifest
    store.verify(artifact)


def test_files_are_described_by_size_rows_and_hash(store):
    parquet, tar = build(store, rows=4).files
    path = store.reference(NAME).path / "rows.parquet"
    assert (parquet.path, parquet.bytes, parquet.rows) == ("rows.parquet", path.stat().st_size, 4)
    assert parquet.sha256 == sha256_file(path)
    assert (tar.path, tar.bytes, tar.rows) == ("shards/0.tar", 8, None)


def test_without_a_manifest_there_is_no_artifact(store):
    assert store.find(NAME) is None
    build(store)
    assert store.find(NAME) is None
    with pytest.raises(StoreError, match=MANIFEST):
        store.manifest(store.reference(NAME))
    with pytest.raises(StoreError, match=MANIFEST):
        store.verify(store.reference(NAME))


def test_begin_keeps_what_an_interrupted_attempt_left(store):
    (store.begin(NAME) / "part").write_text("half")
    assert (store.begin(NAME) / "part").read_text() == "half"


@pytest.mark.parametrize("content", ["", "{", '{"kind": "captions"}', "\x00" * 40])
def test_a_broken_manifest_is_no_manifest(content, store):
    artifact = commit(store)
    (artifact.path / MANIFEST).write_text(content)
    assert store.find(NAME) is None
    with pytest.raises(StoreError, match=MANIFEST):
        store.verify(artifact)


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def grow(path):
    path.write_bytes(path.read_bytes() + b"\0")


def zero(path):
    path.write_bytes(bytes(path.stat().st_size))


def spoil_footer(path):
    """The size and the magic bytes stay, the metadata between them are lost."""
    data = path.read_bytes()
    length = int.from_bytes(data[-8:-4], "little")
    path.write_bytes(data[: -8 - length] + b"\xff" * length + data[-8:])


@pytest.mark.parametrize("damage", [os.remove, cut, grow, zero, spoil_footer])
def test_an_artifact_with_a_damaged_table_is_not_found(damage, store):
    artifact = commit(store)
    damage(artifact.path / "rows.parquet")
    assert store.find(NAME) is None
    with pytest.raises(StoreError, match=r"rows\.parquet"):
        store.verify(artifact)


@pytest.mark.parametrize("damage", [os.remove, cut, grow])
def test_an_artifact_with_another_file_missing_or_cut_is_not_found(damage, store):
    artifact = commit(store)
    damage(artifact.path / "shards" / "0.tar")
    assert store.find(NAME) is None


def test_a_table_with_another_number_of_rows_is_not_found(store):
    manifest = build(store)
    entry = manifest.files[0].model_copy(update={"rows": 4})
    artifact = store.reference(NAME)
    write_atomically(artifact.path / MANIFEST, manifest.model_copy(update={"files": (entry,)}).model_dump_json())
    assert store.find(NAME) is None
    with pytest.raises(StoreError, match="rows"):
        store.verify(artifact)


def test_half_written_files_cannot_be_committed(store):
    manifest = build(store)
    cut(store.reference(NAME).path / "shards" / "0.tar")
    with pytest.raises(StoreError, match=r"0\.tar"):
        store.commit(store.reference(NAME), manifest)
    assert not (store.reference(NAME).path / MANIFEST).exists()


def test_verify_catches_a_flipped_byte(store):
    artifact = commit(store)
    path = artifact.path / "shards" / "0.tar"
    path.write_bytes(b"Pictures")
    assert store.find(NAME) == artifact
    with pytest.raises(StoreError, match=r"0\.tar has changed"):
        store.verify(artifact)


def test_a_second_commit_keeps_the_first_manifest(store):
    first = build(store)
    artifact = store.commit(store.reference(NAME), first)
    before = (artifact.path / MANIFEST).stat()
    store.commit(artifact, first.model_copy(update={"created": "2026-01-01T00:00:00Z", "jobs": ("7",)}))
    assert store.manifest(artifact) == first
    after = (artifact.path / MANIFEST).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_commit_mends_an_artifact_whose_manifest_is_broken(store):
    artifact = commit(store)
    (artifact.path / MANIFEST).write_text("{")
    assert store.find(commit(store).digest) == artifact


def test_of_many_who_want_a_files_hash_one_reads_it(store, tmp_path, monkeypatch):
    store.check_writable()
    (tmp_path / "large").write_bytes(b"x" * 1000)
    read = []

    def slowly(path):
        read.append(path)
        time.sleep(0.2)
        return sha256_file(path)

    monkeypatch.setattr("xclr.store.sha256_file", slowly)
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(store.content_hash, [tmp_path / "large"] * 8))
    assert found == {sha256_file(tmp_path / "large")} and len(read) == 1


def test_a_guest_who_may_only_read_has_the_hash_and_leaves_nothing():
    """As another user where we may become one, else in a folder that nobody may write."""
    with TemporaryDirectory() as folder:
        home = Path(folder)
        (home / "artifacts").mkdir(mode=0o555)
        (home / "file").write_text("x")
        home.chmod(0o555)
        assert as_nobody(lambda: Store(home).content_hash(home / "file")) == sha256_file(home / "file")
        assert {each.name for each in home.iterdir()} == {"artifacts", "file"}
        home.chmod(0o755)


def test_what_is_discarded_is_made_again(store):
    artifact = commit(store)
    store.discard(artifact)
    store.discard(artifact)
    assert store.find(NAME) is None
    assert store.find(commit(store, rows=5).digest) == artifact
    assert store.manifest(artifact).stats == {"rows": 5}


def test_write_atomically_leaves_the_file_and_nothing_else(tmp_path):
    path = tmp_path / "new" / "folder" / "note.txt"
    for text in ("first", "zweiter Text, länger: ✓"):
        write_atomically(path, text)
        assert path.read_bytes() == text.encode()
        assert [each.name for each in path.parent.iterdir()] == ["note.txt"]


def test_a_reader_never_sees_a_part_of_what_is_written(tmp_path):
    path = tmp_path / "note.txt"
    texts = ["a" * 100_000, "b" * 250_000]
    write_atomically(path, texts[0])
    done, begun = threading.Event(), threading.Event()
    seen: set[str] = set()

    def read():
        while not done.is_set():
            seen.add(path.read_text())
            begun.set()

    reader = threading.Thread(target=read)
    reader.start()
    assert begun.wait(timeout=120)
    for turn in range(100):
        write_atomically(path, texts[turn % 2])
    done.set()
    reader.join()
    assert seen <= set(texts)


def test_two_threads_may_write_the_same_file(tmp_path):
    path = tmp_path / "note.txt"
    start = threading.Barrier(2)
    errors = []

    def write(letter):
        start.wait()
        try:
            for _ in range(100):
                write_atomically(path, letter * 1000)
        except OSError as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=letter) for letter in "ab"]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert errors == []
    assert path.read_text() in {"a" * 1000, "b" * 1000}


def hold(directory):
    """A process that holds the directory's lock until its input ends; returns once it has said whether it does."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(directory)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    return process, process.stdout.readline().strip()


def test_a_directory_has_one_writer_among_processes(tmp_path):
    process, holds = hold(tmp_path / "out")
    try:
        assert holds == "True"
        with only_writer(tmp_path / "out", wait=False) as mine:
            assert not mine
        with only_writer(tmp_path / "other", wait=False) as mine:
            assert mine
    finally:
        process.communicate("", timeout=120)
    with only_writer(tmp_path / "out", wait=False) as mine:
        assert mine
        second, holds = hold(tmp_path / "out")
        second.communicate("", timeout=120)
        assert holds == "False"


def test_asking_whether_a_directory_is_written_leaves_no_trace(tmp_path):
    assert not is_locked(tmp_path / "out")
    assert not (tmp_path / "out").exists()
    process, _ = hold(tmp_path / "out")
    assert is_locked(tmp_path / "out")
    process.communicate("", timeout=120)
    assert not is_locked(tmp_path / "out")


def test_a_killed_writer_gives_the_directory_free(tmp_path):
    process, holds = hold(tmp_path / "out")
    assert holds == "True"
    process.kill()
    process.communicate(timeout=120)
    with only_writer(tmp_path / "out", wait=False) as mine:
        assert mine


def test_a_writer_that_waits_gets_the_directory_when_the_other_ends(tmp_path):
    process, holds = hold(tmp_path / "out")
    assert holds == "True"
    got = []

    def wait():
        with only_writer(tmp_path / "out") as mine:
            got.append(mine)

    waiting = threading.Thread(target=wait)
    waiting.start()
    assert got == []
    process.kill()
    process.wait(timeout=120)
    waiting.join(timeout=120)
    assert got == [True]
    process.communicate()


def test_the_lock_is_free_after_an_error(tmp_path):
    with pytest.raises(KeyError), only_writer(tmp_path):
        raise KeyError
    with only_writer(tmp_path, wait=False) as mine:
        assert mine


def test_a_content_hash_is_the_files_sha256_and_follows_its_content(store, tmp_path):
    store.check_writable()
    path = tmp_path / "table"
    path.write_text("one")
    first = store.content_hash(path)
    assert first == sha256_file(path)
    path.write_text("other")
    assert store.content_hash(path) == sha256_file(path) != first


def test_a_content_hash_is_remembered_by_size_and_time(store, tmp_path):
    store.check_writable()
    path = tmp_path / "table"
    path.write_text("one")
    first, found = store.content_hash(path), path.stat()
    path.write_text("two")
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
    assert store.content_hash(path) == first  # the file was not read again
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns + 1))
    assert store.content_hash(path) == sha256_file(path) != first


def test_hashing_for_a_plan_writes_nothing(store, tmp_path):
    (tmp_path / "table").write_text("one")
    assert store.content_hash(tmp_path / "table") == sha256_file(tmp_path / "table")
    assert not store.home.exists()


def test_a_folders_hash_follows_names_and_contents_not_places(store, tmp_path):
    def folder(name, **files):
        for file, text in files.items():
            path = tmp_path / name / file.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return store.content_hash(tmp_path / name)

    first = folder("a", weights="1", sub__config="2")
    assert folder("b", sub__config="2", weights="1") == first
    assert folder("c", weights="1", sub__config="3") != first
    assert folder("d", weights="1", config="2") != first
    assert folder("e", weights="1") != first
    assert folder("a", more="") != first


def test_a_home_that_can_be_written_is_left_empty(store):
    store.check_writable()
    assert list(store.root.iterdir()) == []


@pytest.mark.parametrize("below", [".", "home", "deep/home"])
def test_a_home_that_cannot_be_written_is_named(below, tmp_path):
    (tmp_path / "file").write_text("in the way")
    home = tmp_path / "file" / below
    with pytest.raises(StoreError) as caught:
        Store(home).check_writable()
    assert str(home) in caught.value.message
    assert "XCLR_HOME" in caught.value.remedy
    assert Store(home).find(NAME) is None


def test_the_manifest_of_another_is_not_believed_nor_a_path_that_leaves_its_folder(store):
    other = Digest(NAME.kind, "cd" * 16)
    shutil.copytree(commit(store).path, store.reference(other).path)
    assert store.find(NAME) is not None and store.find(other) is None
    with pytest.raises(ValueError, match="leaves the artifact's folder"):
        FileEntry(path="../../x", bytes=1, sha256="0")
