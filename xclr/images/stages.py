"""The stage kind `images`."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from pydantic import Field

from xclr.artifact import Artifact, Manifest
from xclr.captions.source import reader_of
from xclr.captions.stages import given_data, hash_files
from xclr.errors import DataError
from xclr.images import generations
from xclr.recipe import LATER, Config, DataConfig, Recipe
from xclr.stage import Given, Kind, Pieces, Refusal, Rows, Stage
from xclr.store import Store

NAMED = 20  # rows
PICTURE_BYTES, PICTURE_EDGE = 30_000, 256  # of CC12M (docs/conceptual.md)


class ImagesConfig(Config):
    """The same tables as the captions', and the files that pictures are read from, by name, size and time of change.

    A later generation tries again the rows of the one before whose status is among `retry`.
    """

    data: DataConfig
    sha256: tuple[str, ...]
    generation: int = 0
    retry: tuple[str, ...] = ()
    shrunk_by_opencv: bool = Field(False, json_schema_extra=LATER)  # pictures above shortest_edge; before, by Pillow


def cut(stage: Stage[ImagesConfig], store: Store) -> Pieces:
    """A shard holds `data.shard` pictures; a later generation has only those that it tries again."""
    if "before" in stage.inputs:
        stats = store.manifest(stage.inputs["before"]).stats
        items = sum(int(stats.get(status, 0)) for status in stage.config.retry)
    else:
        items = int(store.manifest(stage.inputs["captions"]).stats["rows"])
    return Pieces(items, -(-items // stage.config.data.shard))


def refuse(stage: Stage[ImagesConfig], recipe: Recipe, images: Manifest) -> Iterator[Refusal]:
    """Why too few pictures can be used for the recipe, before any training."""
    usable, rows = int(images.stats.get("ok", 0)), int(images.stats["rows"])
    key, batch = recipe.largest_batch
    if usable >= batch or stage.config.data.for_captions != recipe.data.for_captions:
        return
    lost = ", ".join(
        f"{images.stats[each]} {each}" for each in generations.STATUSES if each != "ok" and each in images.stats
    )
    few = f"{usable} of {rows} pictures can be used ({lost or 'no others'}), fewer than {key} {batch}"
    remedy = f"--set {key}={max(2, usable // 2)}, or mend the rows that images.parquet says are lost"
    yield Refusal("pretrain", DataError(few, remedy))


def tabulate(images: Manifest) -> list[dict[str, Any]]:
    """Pictures by what became of them."""
    total, stats = images.stats["rows"], images.stats
    there = [(each, stats[each]) for each in generations.STATUSES if each in stats]
    return [{"status": each, "rows": rows, "share": f"{rows / total:.1%}"} for each, rows in there]


def measure(config: ImagesConfig, images: Manifest, whole: bool) -> Mapping[str, Any]:
    """What became of the pictures; rows a second where one process made all of them."""
    counts = {name: each for name, each in images.stats.items() if not isinstance(each, str)}
    stats = {**counts, "success_rate": images.stats.get("ok", 0) / images.stats["rows"]}
    if whole and not config.generation:
        stats["rows_per_s"] = stats["rows"] / max(images.cost.wall_s, 1e-9)
    return stats


def tell_equal(made: Manifest) -> Iterator[str]:
    """What people are told of pictures that many addresses show."""
    if number := made.stats.get("equal"):
        yield (
            f"{number:,} pictures are the same as many others, up to {made.stats['equal_most']:,} addresses for one: "
            f"{made.stats['equal_hosts']}; --set data.most_equal=5 leaves out what more than 5 show"
        )


def unreadable(rows: Collection[int]) -> dict[str, int | str]:
    """What a manifest says of rows that were judged ok and could not be read later: their number, and the first."""
    if not rows:
        return {}
    return {"unreadable": len(rows), "unreadable_rows": ", ".join(map(str, sorted(rows)[:NAMED]))}


def tell_unreadable(made: Manifest) -> Iterator[str]:
    """What people are told of them."""
    if number := made.stats.get("unreadable"):
        more = f" and {number - NAMED} more" if number > NAMED else ""
        yield f"{number} pictures could not be read, others stood in: rows {made.stats['unreadable_rows']}{more}"


def given(config: ImagesConfig, store: Store) -> Iterator[Given]:
    """The tables or files that pictures, or their addresses, come from."""
    yield given_data("pictures", config.data, config.sha256, lambda: hash_pictures(config.data, store))


def pictures_bytes(stage: Stage[ImagesConfig], recipe: Recipe, rows: Rows) -> int:
    """What pictures that are made smaller will take; others are copied as they are, or left where they lie."""
    edge = stage.config.data.shortest_edge
    return 0 if edge is None else int(PICTURE_BYTES * (edge / PICTURE_EDGE) ** 2) * rows(stage.config.data)


IMAGES = Kind(
    "images",
    ImagesConfig,
    code=2,
    run="xclr.images.pack",
    step="images",
    given=given,
    pieces=cut,
    generation=lambda config: config.generation,
    refuse=refuse,
    table=tabulate,
    facts=measure,
    tell=tell_equal,
    writes=pictures_bytes,
    watched=True,
)
KINDS = (IMAGES,)


def images(recipe: Recipe, store: Store, captions: Artifact) -> list[Stage[ImagesConfig]]:
    """Fetch and check every picture and pack it into shards; then, a stage each, what `xclr retry` tries again.

    The last generation is the current one, which others read. Raises DataError when picture files are not there.
    """
    data = recipe.data.model_copy(update={"allow_hosts": recipe.data.reachable, "url": None})
    config = ImagesConfig(data=data, sha256=hash_pictures(data, store), shrunk_by_opencv=data.shortest_edge is not None)
    found = [Stage(IMAGES, "images", config, {"captions": captions})]
    for generation, statuses in enumerate(generations.read(store, found[0].digest), start=1):
        later = config.model_copy(update={"generation": generation, "retry": statuses})
        inputs = {"captions": captions, "before": store.reference(found[-1].digest)}
        found.append(Stage(IMAGES, f"images, generation {generation}", later, inputs))
    return found


def hash_pictures(data: DataConfig, store: Store) -> tuple[str, ...]:
    """What names the pictures of a source: its tables' contents, and names, sizes and times of its files."""
    return hash_files(data, store, reader_of(data.source).pictures_listing(data))
