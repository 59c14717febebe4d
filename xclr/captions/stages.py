"""The stage kind `captions`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pydantic import Field

from xclr.artifact import Manifest
from xclr.captions.source import SEVERAL, reader_of
from xclr.errors import DataError
from xclr.recipe import LATER, Config, DataConfig, Recipe
from xclr.stage import Kind, Stage
from xclr.store import Store


class CaptionsConfig(Config):
    """Source tables, named by their content, and folders, by the names in them."""

    data: DataConfig
    sha256: tuple[str, ...]
    names: int = Field(1, json_schema_extra=LATER)  # edition of the names that the source itself gives its classes

    @property
    def several(self) -> bool:
        """Whether some picture has several captions."""
        return any(each.startswith(SEVERAL) for each in self.sha256)


EDITIONS: Mapping[str, int] = {"imagenet": 2}  # 2: the dog Cardigan and the garment are two


def check_sizes(recipe: Recipe, captions: Manifest) -> None:
    """Raise DataError when the data are too few for the recipe, before any long work."""
    train, (key, batch), distinct = recipe.train, recipe.largest_batch, int(captions.stats["distinct"])
    pictures = int(captions.stats.get("train_pictures", captions.stats["train"]))
    seen = train.seen(pictures)
    if batch > seen:
        left, more = f" that train.fraction {train.fraction} leaves", ", or a larger train.fraction"
        raise DataError(
            f"{key} {batch} is larger than the {seen} training pictures{left * (train.fraction < 1)}",
            f"--set {key}={max(2, seen // 2)}{more * (train.fraction < 1)}",
        )
    tuned = recipe.evaluate.finetune.batch_size
    if recipe.tunes_own and tuned > pictures:
        raise DataError(
            f"evaluate.finetune.batch_size {tuned} is larger than the {pictures} training pictures",
            f"--set evaluate.finetune.batch_size={max(2, pictures // 2)}, or leave own-finetune out",
        )
    if recipe.graph.k >= distinct:
        raise DataError(
            f"graph.k {recipe.graph.k} needs more than {distinct} distinct captions",
            f"--set graph.k={max(1, distinct - 1)}",
        )


def tell_left_out(captions: Manifest) -> Iterator[str]:
    """Lines that say what of a source became no caption."""
    stats = captions.stats
    if malformed := stats.get("malformed"):
        which = stats["malformed_samples"] if "malformed_samples" in stats else f"lines {stats['malformed_lines']}"
        yield f"captions: left out as malformed: {malformed:,} ({which})"
    if repeated := stats.get("repeated_urls"):
        yield f"captions: left out because their address stood before: {repeated:,}"


CAPTIONS = Kind(
    "captions",
    CaptionsConfig,
    code=3,
    run="xclr.captions.collect",
    step="captions",
    refuse=check_sizes,
    tell=tell_left_out,
)
KINDS = (CAPTIONS,)


def captions(recipe: Recipe, store: Store) -> Stage[CaptionsConfig]:
    """Read, normalise and deduplicate the captions; raises DataError when the data cannot be what the recipe says."""
    reader_of(recipe.data.source).check(recipe.data)
    data = recipe.data.for_captions
    names = reader_of(data.source).captions_listing(data)
    edition = EDITIONS.get(data.source, 1)
    return Stage(CAPTIONS, "captions", CaptionsConfig(data=data, sha256=hash_files(data, store, names), names=edition))


def hash_files(data: DataConfig, store: Store, listing: str | None) -> tuple[str, ...]:
    """Contents of the source's tables, and the hash of its listing of other files where it has one."""
    hashes = tuple(store.content_hash(path) for path in reader_of(data.source).files(data))
    return hashes if listing is None else (*hashes, listing)
