"""Names of artifacts: a digest of what made them, and the manifest that says so."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict
from pydantic.fields import FieldInfo

from xclr.owncode import Code


class Digest(str):
    """32 hex characters that name an artifact, and its kind; equal digests mean equal kind, config, inputs, code."""

    kind: str

    def __new__(cls, kind: str, hexadecimal: str) -> Digest:
        self = super().__new__(cls, hexadecimal)
        self.kind = kind
        return self

    def __getnewargs__(self) -> tuple[str, str]:  # type: ignore[override]
        return self.kind, str(self)


@dataclass(frozen=True, slots=True)
class Artifact:
    """A reference to an immutable artifact: `path` is HOME/artifacts/<kind>/<digest>, which need not exist yet."""

    kind: str
    digest: Digest
    path: Path


def _below(path: str) -> str:
    """Refuse a path that leaves the folder it starts at."""
    if Path(path).is_absolute() or ".." in Path(path).parts:
        raise ValueError("it leaves the artifact's folder")
    return path


class FileEntry(BaseModel):
    """One file of an artifact; `path` is relative to it, `rows` is set for Parquet."""

    model_config = ConfigDict(frozen=True)
    path: Annotated[str, AfterValidator(_below)]
    bytes: int
    rows: int | None = None
    sha256: str


class Cost(BaseModel):
    """What making an artifact took, summed over ranks."""

    model_config = ConfigDict(frozen=True)
    cpu_s: float = 0.0
    gpu_s: float = 0.0
    wall_s: float = 0.0


class Manifest(BaseModel):
    """Everything that is known of an artifact; its presence makes the artifact exist."""

    model_config = ConfigDict(frozen=True)
    kind: str
    digest: str
    generation: int = 0
    inputs: tuple[str, ...]
    config: dict[str, Any]
    code: int
    files: tuple[FileEntry, ...]
    stats: dict[str, Any]
    cost: Cost = Cost()
    jobs: tuple[str, ...] = ()
    made_by: Code | None = None
    created: str


def canonical_json(value: object) -> str:
    """One spelling per value: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def is_runtime(model: type[BaseModel], field: str) -> bool:
    """True for a field that never changes a value (workers, block sizes, intervals)."""
    return _is_marked(model.model_fields[field].json_schema_extra, "runtime")


def identity(value: object) -> object:
    """The JSON-able part of a config that names its output.

    Every field but those marked `runtime`, and those marked `later` that have their default: an output that was named
    before there was the field is the same.
    """
    if isinstance(value, BaseModel):
        named = ((name, later, getattr(value, name)) for name, later in _named(type(value)))
        return {
            name: identity(held)
            for name, later, held in named
            if later is None or held != later.get_default(call_default_factory=True)
        }
    if isinstance(value, Mapping):
        return {str(key): identity(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [identity(item) for item in value]
    return str(value) if isinstance(value, Path) else value


@cache
def _named(model: type[BaseModel]) -> tuple[tuple[str, FieldInfo | None], ...]:
    """The fields that name an output, in order; with those that only do where they have not their default."""
    named = ((name, field) for name, field in model.model_fields.items() if not is_runtime(model, name))
    return tuple((name, field if _is_marked(field.json_schema_extra, "later") else None) for name, field in named)


def _is_marked(extra: object, mark: str) -> bool:
    return isinstance(extra, Mapping) and bool(extra.get(mark))


def digest(kind: str, config: BaseModel, inputs: Sequence[Artifact], code: int) -> Digest:
    """blake2b-128 of (kind, identity(config), input digests in order, code version)."""
    spelled = canonical_json([kind, identity(config), [str(each.digest) for each in inputs], code])
    return Digest(kind, hashlib.blake2b(spelled.encode(), digest_size=16).hexdigest())


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


class Usage(BaseModel):
    """What the jobs of a digest used, as Slurm's accounting has it, over all attempts and requeues."""

    model_config = ConfigDict(frozen=True)
    gpu_hours: float
    cpu_hours: float  # allocated
    cpu_efficiency: float | None  # of the allocated time, how much was computed; None where nobody counted
    jobs: int
    memory_gb: float | None = None  # GiB on a node, at the highest
    memory_asked_gb: float | None = None  # GiB on each node

    @property
    def is_counted(self) -> bool:
        """False for what was taken from the clock, since nobody counted."""
        return self.cpu_efficiency is not None
