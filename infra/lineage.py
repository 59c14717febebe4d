"""What artifacts were made of, back to the files that a person gave: read from the store, without any server."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import zip_longest
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from infra.executors.executor import STAGE, executor_of
from infra.ledger import Book
from xclr import __version__
from xclr.artifact import Artifact, Digest, Manifest
from xclr.errors import StoreError, XclrError
from xclr.pipeline import KINDS
from xclr.recipe import RECIPES
from xclr.record import Record, scan_records
from xclr.stage import Given, Stage
from xclr.store import Store

SHORT = 8  # letters of a digest beside its name
MINUTES = 16  # letters of a time
WRONG = "WRONG: "
SOURCES = "sources"  # the folder of HOME with tables that were fetched


class Source(BaseModel):
    """Files that a stage read and no stage made: their hashes when they were read, and what is wrong with them now."""

    model_config = ConfigDict(frozen=True)
    what: str
    paths: tuple[str, ...]
    sha256: tuple[str, ...]
    bytes: int | None  # of files; None where they lie in a folder, or are gone
    url: str | None = None  # that they were fetched from
    version: str | None = None  # of the package that they come with
    fault: str = ""

    def lines(self) -> Iterator[str]:
        """What people read: what it is, and a line for each file."""
        size = None if self.bytes is None else _size(self.bytes)
        origin = f"fetched from {self.url}" if self.url else f"embedded in {self.version}" if self.version else None
        yield ", ".join(filter(None, (f"source of the {self.what}", size, origin)))
        own = [f"  sha256 {each}" for each in self.sha256] if len(self.paths) == len(self.sha256) else []
        yield from (f"{path}{hashed}" for path, hashed in zip_longest(self.paths, own, fillvalue=""))
        yield from [] if own else [f"sha256 {each}" for each in self.sha256]
        yield from [f"{WRONG}{self.fault}"] * bool(self.fault)


class Link(BaseModel):
    """An artifact of a chain; `path` is its first file, `inputs` the digests it was made of, `fault` what is wrong."""

    model_config = ConfigDict(frozen=True)
    kind: str
    part: str = ""
    digest: str
    path: str
    rows: int | None = None
    bytes: int | None = None
    code: int | None = None
    created: str | None = None
    job: str | None = None
    run: str | None = None
    inputs: tuple[str, ...] = ()
    given: tuple[Source, ...] = ()
    fault: str = ""

    @property
    def title(self) -> str:
        """What people call it."""
        return f"{self.kind.replace('_', ' ')} {self.part}".strip()

    def lines(self) -> Iterator[str]:
        """What people read: what it is, by what it was made, and where it lies."""
        facts = [
            None if self.rows is None else f"{self.rows:,} rows",
            None if self.bytes is None else _size(self.bytes),
            None if self.code is None else f"code {self.code}",
        ]
        yield ", ".join(filter(None, (f"{self.title} {self.digest[:SHORT]}", *facts)))
        yield self.path
        job = executor_of(self.job).call(self.job) if self.job else None
        when = self.created[:MINUTES].replace("T", " ") if self.created else None
        if when or self.run:
            yield " ".join(filter(None, ("made", when, f"by {self.run}" if self.run else None)))
        if job:
            yield f"in {job}"
        yield from [f"{WRONG}{self.fault}"] * bool(self.fault)


Links = Mapping[str, Link]  # by digest


def trace(store: Store, roots: Iterable[Artifact], *, check: bool = False) -> dict[str, Link]:
    """Everything that artifacts were made of, these first.

    check: look for what is missing or has changed since; a file is hashed where its size or time is not as it was.
    """
    links, waiting = dict[str, Link](), deque(roots)
    while waiting:
        artifact = waiting.popleft()
        if str(artifact.digest) not in links:
            link, inputs = _link(store, artifact, check=check)
            links[link.digest] = link
            waiting.extend(inputs)
    return links


def artifact_of(store: Store, digest: str) -> Artifact:
    """The artifact of a digest, whatever its kind; one that is nowhere is of the kind `artifact`."""
    kind = next((each.parent.name for each in store.root.glob(f"*/{digest}")), "artifact")
    return store.reference(Digest(kind, digest))


def behind(links: Links, digest: str) -> set[str]:
    """The digests of all that one was made of."""
    found, waiting = set[str](), [digest]
    while waiting:
        new = set(links[waiting.pop()].inputs) - found
        found |= new
        waiting += new
    return found


def tops(links: Links, digests: Collection[str]) -> list[str]:
    """Of some digests those of which no other of them was made."""
    below = set[str]().union(*(behind(links, each) for each in digests))
    return [each for each in digests if each not in below]


def lines_of(links: Links, digests: Iterable[str]) -> Iterator[str]:
    """Chains as a tree, for people: each artifact and source once, below what was made of it and of nothing between."""
    seen = set[str]()
    for digest in digests:
        yield from _branch(links, digest, seen)


def damage_of(links: Links) -> list[str]:
    """The artifacts that are missing or have changed, a line each."""
    return [f"{each.title} {each.digest[:SHORT]}: {each.fault}" for each in links.values() if each.fault]


def changes_of(links: Links) -> list[str]:
    """The sources that are missing or have changed, a line each."""
    given = (one for each in links.values() for one in each.given)
    return [*dict.fromkeys(f"source of the {each.what}: {each.fault}" for each in given if each.fault)]


def _branch(links: Links, digest: str, seen: set[str]) -> Iterator[str]:
    link = links[digest]
    if digest in seen:
        yield f"{link.title} {digest[:SHORT]}, as above"
        return
    seen.add(digest)
    first, *more = link.lines()
    below = [list(_branch(links, each, seen)) for each in tops(links, link.inputs)]
    below += [_source_lines(each, seen) for each in link.given]
    yield first
    yield from (f"{'│' if below else ' '}  {each}" for each in more)
    for number, lines in enumerate(below, start=1):
        corner, side = ("└─ ", "   ") if number == len(below) else ("├─ ", "│  ")
        yield from (f"{side if place else corner}{line}" for place, line in enumerate(lines))


def _source_lines(source: Source, seen: set[str]) -> list[str]:
    """A source's lines, all of them the first time."""
    first, *more = source.lines()
    files = " ".join(more)
    if files in seen:
        return [f"{first}, as above"]
    seen.add(files)
    return [first, *more]


def _link(store: Store, artifact: Artifact, *, check: bool) -> tuple[Link, list[Artifact]]:
    stage = _stage(artifact)
    written = {} if stage is None else {str(each.digest): each.kind for each in stage.inputs.values()}
    own = {"kind": artifact.kind, "digest": str(artifact.digest)}
    try:
        manifest = store.manifest(artifact)
    except StoreError:
        inputs, fault = tuple(written), "it was removed, or is being made again" if check else ""
        return Link(path=str(artifact.path), inputs=inputs, fault=fault, **own), _placed(store, inputs, written)
    config = _config(artifact, stage, manifest)
    given = () if config is None else KINDS[artifact.kind].given(config, store)
    link = Link(
        part="" if config is None else KINDS[artifact.kind].part(config),
        path=str(artifact.path / manifest.files[0].path) if manifest.files else str(artifact.path),
        rows=next((each.rows for each in manifest.files if each.rows is not None), manifest.stats.get("rows")),
        bytes=sum(each.bytes for each in manifest.files),
        code=manifest.code,
        created=manifest.created,
        job=next(iter(manifest.jobs), None),
        run=_run_of(store, artifact),
        inputs=manifest.inputs,
        given=tuple(_source(store, artifact, each, check=check) for each in given),
        fault=_fault_of(store, artifact) if check else "",
        **own,
    )
    return link, _placed(store, manifest.inputs, written)


def _placed(store: Store, digests: Iterable[str], kinds: Mapping[str, str]) -> list[Artifact]:
    return [
        store.reference(Digest(kinds[each], each)) if each in kinds else artifact_of(store, each) for each in digests
    ]


def _stage(artifact: Artifact) -> Stage | None:
    """The stage as its job read it, which knows where its files lay; None where it is not written down."""
    with suppress(OSError, ValueError, KeyError):
        return Stage.from_json((artifact.path / STAGE).read_text(), KINDS)
    return None


def _config(artifact: Artifact, stage: Stage | None, manifest: Manifest) -> Any | None:  # noqa: ANN401 - of any kind
    if stage is not None:
        return stage.config
    with suppress(ValueError, KeyError):  # a manifest lacks what enters no digest
        return KINDS[artifact.kind].config.model_validate(manifest.config)
    return None


def _run_of(store: Store, artifact: Artifact) -> str | None:
    with suppress(StoreError):
        entry = Book(store.home).latest(artifact.digest)
        return None if entry is None else entry.run
    return None


def _fault_of(store: Store, artifact: Artifact) -> str:
    try:
        store.check(artifact)
    except StoreError as error:
        return error.message
    return ""


def _source(store: Store, artifact: Artifact, given: Given, *, check: bool) -> Source:
    return Source(
        what=given.what,
        paths=tuple(str(each.absolute()) for each in given.paths),
        sha256=given.sha256,
        bytes=_bytes_of(given.paths),
        url=_url(store, artifact, given.paths),
        version=f"xclr {__version__}" if any(each.is_relative_to(RECIPES) for each in given.paths) else None,
        fault=_change_of(given) if check else "",
    )


def _bytes_of(paths: Sequence[Path]) -> int | None:
    """The size of files; None where one is a folder, or not there."""
    with suppress(OSError):
        if paths and all(each.is_file() for each in paths):
            return sum(each.stat().st_size for each in paths)
    return None


def _url(store: Store, artifact: Artifact, paths: Iterable[Path]) -> str | None:
    """Where a table that lies in HOME was fetched from, as the runs say that read it."""
    if not any(each.is_relative_to(store.home / SOURCES) for each in paths):
        return None
    records = scan_records(store.home, Record).records
    recipes = (one for each in records if artifact.digest in each.digests for one in each.recipes)
    return next((each.data.url for each in recipes if each.data.url), None)


def _change_of(given: Given) -> str:
    """What is wrong with files; empty where they are as they were read."""
    try:
        now = given.rehash()
    except XclrError as error:
        return error.message
    except OSError as error:
        return f"{error.filename}: {error.strerror}"
    where = ", ".join(map(str, given.paths))
    return "" if now == given.sha256 else f"{where} changed since: sha256 {', '.join(now)}"


def _size(size: int) -> str:
    from rich.filesize import decimal

    return decimal(size)
