"""The store of artifacts: the only module that makes outputs visible.

An artifact is a directory HOME/artifacts/<kind>/<digest>/; it exists when its manifest.json does, which is
renamed into place last. Whatever lies there without a manifest is work in progress.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

from xclr.artifact import Artifact, Digest, FileEntry, Manifest, canonical_json, sha256_file
from xclr.disk import OWN, said
from xclr.errors import StoreError

MANIFEST, LOCK = "manifest.json", ".lock"


def write_atomically(path: Path, text: str) -> None:
    """Replace `path` by `text` so that a reader, or a crash, sees the old or the new content and nothing between."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with draft.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def link_atomically(path: Path, target: str) -> None:
    """Replace `path` by a symbolic link to `target`, a name beside it."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    draft.symlink_to(target)
    draft.replace(path)


def describe(root: Path, name: str) -> FileEntry:
    """Measure one finished file below `root`, after flushing it to disk."""
    path = root / name
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
    rows = _rows(path) if path.suffix == ".parquet" else None
    return FileEntry(path=name, bytes=path.stat().st_size, rows=rows, sha256=sha256_file(path))


_HASHES: ContextVar[dict[Path, str] | None] = ContextVar("_HASHES", default=None)


@contextmanager
def hashed_once() -> Iterator[None]:
    """Let each file be hashed, or its note be read, once in the block: a sweep plans hundreds of recipes of one."""
    token = _HASHES.set({})
    try:
        yield
    finally:
        _HASHES.reset(token)


class Store:
    """Artifacts below one HOME."""

    def __init__(self, home: Path) -> None:
        self.home = Path(home).absolute()
        self.root = self.home / "artifacts"

    @classmethod
    def of(cls, artifact: Path) -> Store:
        """The store that an artifact's directory, HOME/artifacts/<kind>/<digest>, belongs to."""
        return cls(artifact.parents[2])

    def check_writable(self) -> None:
        """Raise StoreError unless HOME can be written."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            probe = self.root / f".probe.{os.getpid()}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise said(error) or StoreError(f"cannot write to {self.home}: {error.strerror}", OWN) from error

    def reference(self, digest: Digest) -> Artifact:
        """Where an artifact is or will be."""
        return Artifact(digest.kind, digest, self.folder(digest.kind, digest))

    def folder(self, kind: str, digest: str) -> Path:
        """The directory of an artifact that is or will be."""
        return self.root / kind / digest

    def manifest(self, artifact: Artifact) -> Manifest:
        """Read an artifact's manifest; raises StoreError when there is none, or that of another artifact."""
        try:
            found = Manifest.model_validate_json((artifact.path / MANIFEST).read_text())
        except (OSError, ValueError) as error:
            raise StoreError(f"{artifact.path} has no readable {MANIFEST}", "run the recipe again") from error
        if (found.kind, found.digest) != (artifact.kind, str(artifact.digest)):
            raise StoreError(
                f"{artifact.path / MANIFEST} is that of {found.kind} {found.digest}", "run the recipe again"
            )
        return found

    def find(self, digest: Digest) -> Artifact | None:
        """The artifact of that digest, when it exists and its files have the recorded sizes and rows."""
        artifact = self.reference(digest)
        if not (artifact.path / MANIFEST).exists():
            return None
        with suppress(StoreError):
            self._check(artifact, self.manifest(artifact))
            return artifact
        return None

    def begin(self, digest: Digest) -> Path:
        """Make the directory in which an artifact is built; what an interrupted attempt left stays for resuming."""
        path = self.reference(digest).path
        path.mkdir(parents=True, exist_ok=True)
        return path

    def commit(self, artifact: Artifact, manifest: Manifest) -> Artifact:
        """Make an artifact visible, once: its files are checked, then the manifest is renamed into place."""
        self._check(artifact, manifest)
        if self.find(artifact.digest) is None:
            write_atomically(artifact.path / MANIFEST, manifest.model_dump_json(indent=1))
        return artifact

    def discard(self, artifact: Artifact) -> None:
        """Take an artifact out of sight, so that it is made again."""
        (artifact.path / MANIFEST).unlink(missing_ok=True)

    def remove(self, artifact: Artifact) -> bool:
        """Remove an artifact, or what was begun of one; False when someone is writing it."""
        with only_writer(artifact.path, wait=False) as mine:
            if mine:
                self.discard(artifact)
                shutil.rmtree(artifact.path)
        return mine

    def verify(self, artifact: Artifact) -> None:
        """Hash every file anew and compare it with the manifest, as with sizes and rows.

        Raises StoreError naming what differs; so does then every `check`.
        """
        self._compare(artifact, slice(None), self._hash)

    def check(self, artifact: Artifact, share: slice = slice(None)) -> None:
        """Raise StoreError unless the files hold what was committed, before they are read as an input.

        Hashes are remembered by size and time of change, so that each file is hashed once. share: of the files, the
        largest first, those whose content is looked at.
        """
        self._compare(artifact, share, self.content_hash)

    def _compare(self, artifact: Artifact, share: slice, hash_of: Callable[[Path], str]) -> None:
        manifest = self.manifest(artifact)
        self._check(artifact, manifest)
        for entry in sorted(manifest.files, key=lambda each: -each.bytes)[share]:
            if hash_of(artifact.path / entry.path) != entry.sha256:
                raise StoreError(
                    f"{artifact.path / entry.path} has changed since it was written",
                    "xclr verify --remove takes it away with what was made of it; xclr retry RUN makes all of it again",
                )

    def content_hash(self, path: Path) -> str:
        """SHA-256 of a file, or of a folder's files by name; each remembered by (path, size, mtime_ns)."""
        known = _HASHES.get()
        if known is None:
            return self._content_hash(path)
        if path not in known:
            known[path] = self._content_hash(path)
        return known[path]

    def _content_hash(self, path: Path) -> str:
        if path.is_dir():
            files = sorted(each for each in path.rglob("*") if each.is_file() and each.suffix not in {".md", ".pyc"})
            listing = [[each.relative_to(path).as_posix(), self.content_hash(each)] for each in files]
            return hashlib.sha256(canonical_json(listing).encode()).hexdigest()
        note = self._note(path)
        if note.exists():
            return note.read_text()
        if not os.access(self.root, os.W_OK):  # a plan on a fresh machine touches nothing, nor does a guest
            return sha256_file(path)
        with _alone(note.with_suffix(".lock")):  # elements of an array begin together, and one of them is enough
            return note.read_text() if note.exists() else self._hash(path)

    def _hash(self, path: Path) -> str:
        """SHA-256 of a file as it is now, and take note of it where that may be written."""
        note, sha256 = self._note(path), sha256_file(path)
        if os.access(self.root, os.W_OK):
            write_atomically(note, sha256)
        return sha256

    def _note(self, path: Path) -> Path:
        """Where the hash of a file of this size and time of change is kept."""
        found = path.stat()
        seen = [str(path.absolute()), found.st_size, found.st_mtime_ns]
        return self.home / "hashes" / f"{hashlib.blake2b(str(seen).encode(), digest_size=16).hexdigest()}.txt"

    def _check(self, artifact: Artifact, manifest: Manifest) -> None:
        for entry in manifest.files:
            path = artifact.path / entry.path
            if not path.is_file() or path.stat().st_size != entry.bytes:
                raise StoreError(f"{path} is missing or has another size", "run the recipe again")
            if entry.rows is not None and _rows(path) != entry.rows:
                raise StoreError(f"{path} has another number of rows", "run the recipe again")


def check_file_system(folder: Path) -> str | None:
    """A line where a folder that is there has no hard links; raises StoreError where its files cannot be locked."""
    with tempfile.TemporaryDirectory(prefix=".probe-", dir=folder) as name:
        probe = Path(name)
        try:
            with only_writer(probe):
                pass
        except OSError as error:
            raise said(error) or StoreError(
                f"files below {folder} cannot be locked ({error.strerror}), and two runs might write one output",
                "choose a disk with locks: --home DIR or XCLR_HOME; NFS 3 needs lockd on both sides, Lustre the mount "
                "option flock",
            ) from error
        try:
            os.link(probe / LOCK, probe / "link")
        except OSError:
            return f"{folder} has no hard links: what one of several runs may do is settled by locks alone"
    return None


def _rows(path: Path) -> int:
    import pyarrow as pa  # here, because a plan of what is not there needs none
    import pyarrow.parquet as pq

    try:
        return int(pq.read_metadata(path).num_rows)
    except (pa.ArrowException, OSError) as error:
        raise StoreError(f"{path} is not a whole Parquet file", "run the recipe again") from error


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Hold a lock, the kernel's, as long as the block lasts."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


@contextmanager
def only_writer(directory: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold the lock of a directory while writing in it; yields False when `wait` is off and another holds it.

    The lock is the kernel's (flock), so that it ends with its process, however that ends.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / LOCK).open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True


def is_locked(directory: Path) -> bool:
    """True when someone writes in a directory; asks without leaving a trace."""
    try:
        with (directory / LOCK).open() as stream:  # for reading: so HOME may be
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False
