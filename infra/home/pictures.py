"""What became of a run's pictures, and which of them are tried again."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from infra.home.runs import RunRecord
from xclr.captions.source import placed
from xclr.errors import RecipeError, StoreError
from xclr.images.generations import STATUSES, advance
from xclr.images.stages import IMAGES, ImagesConfig
from xclr.pipeline import add_pictures
from xclr.schema import ACCOUNTS, read
from xclr.stage import Plan, Stage
from xclr.store import Store

OK = "ok"


class ShardLine(BaseModel):
    """Rows of one status in one shard of the captions."""

    model_config = ConfigDict(frozen=True)
    shard: int
    status: str
    rows: int


class Accounts(BaseModel):
    """What `xclr accounts --json` prints: rows by status, in all and by shard; `tries` counts rows by attempts."""

    model_config = ConfigDict(frozen=True)
    run: str
    digest: str
    generation: int
    rows: int
    statuses: dict[str, int]
    tries: dict[int, int]
    shards: tuple[ShardLine, ...]


def accounts(home: Path, record: RunRecord) -> Accounts:
    """The accounts of a run's pictures; raises StoreError while they are not complete."""
    store = Store(home)
    generations = _generations(store, record)
    made = next((each for each in reversed(generations) if store.find(each.digest) is not None), None)
    if made is None:
        raise StoreError(f"the pictures of {record.run} are not complete", "xclr status shows how far they are")
    artifact = store.reference(made.digest)
    rows = read(artifact.path / "accounts.parquet", ACCOUNTS).to_pylist()
    statuses = {name: sum(row["rows"] for row in rows if row["status"] == name) for name in STATUSES}
    tried = pq.read_table(artifact.path / "images.parquet", columns=["attempt"])["attempt"].value_counts().to_pylist()
    return Accounts(
        run=record.run,
        digest=str(made.digest),
        generation=generations.index(made),
        rows=sum(statuses.values()),
        statuses={name: number for name, number in statuses.items() if number},
        tries={each["values"]: each["counts"] for each in sorted(tried, key=lambda each: int(each["values"]))},
        shards=tuple(ShardLine(**row) for row in rows),
    )


def try_again(home: Path, record: RunRecord, statuses: Sequence[str]) -> str:
    """Make a generation of the run's pictures current that obtains those of some statuses again; says which.

    A later generation that is not complete goes on instead. Raises RecipeError for a status that there is not, and
    StoreError when there is nothing to try again.
    """
    for status in statuses:
        if status not in STATUSES or status == OK:
            near = difflib.get_close_matches(status, STATUSES[1:], n=1) or STATUSES[1:]
            raise RecipeError(f"no status {status!r} to try again", f"choose {', '.join(near)}")
    store = Store(home)
    generations = _generations(store, record)
    artifact = store.find(generations[-1].digest)
    if artifact is None and len(generations) > 1:
        return f"{generations[-1].name} is not complete: it goes on with what it was asked to try"
    if artifact is None:
        raise StoreError(f"the pictures of {record.run} are not complete", "xclr retry RUN, without --status, goes on")
    counts = store.manifest(artifact).stats
    lost = {status: int(counts[status]) for status in STATUSES if status != OK and counts.get(status)}
    wanted = {status: lost[status] for status in dict.fromkeys(statuses) if status in lost}
    if not wanted:
        there = ", ".join(f"{name} ({number:,})" for name, number in lost.items()) or "none: all are ok"
        raise StoreError(f"no picture of {record.run} has status {', '.join(statuses)}", f"there are: {there}")
    advance(store, generations[0].digest, tuple(wanted))
    said = ", ".join(f"{number:,} {name}" for name, number in wanted.items())
    return f"images, generation {len(generations)}: {said} are tried again"


def _generations(store: Store, record: RunRecord) -> list[Stage[ImagesConfig]]:
    recipe = placed(record.recipe, store.home)
    plan = Plan(recipe, store)
    add_pictures(plan)
    return plan.of(IMAGES)
