"""The stage kind `captions`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from pydantic import Field

from xclr.artifact import Manifest
from xclr.captions.source import SEVERAL, most_rows, reader_of
from xclr.errors import DataError
from xclr.files import TRAIN
from xclr.recipe import LATER, SOURCES, SUITES, Config, DataConfig, Recipe
from xclr.stage import Given, Kind, Refusal, Stage
from xclr.store import Store

CAPTION_BYTES = 150  # of a row with a caption of ten words and an address, compressed
MOST_FORESEEN = 10_000  # captions, which are read in less than a second


class CaptionsConfig(Config):
    """Source tables, named by their content, and folders, by the names in them."""

    data: DataConfig
    sha256: tuple[str, ...]
    names: int = Field(1, json_schema_extra=LATER)  # edition of the names that the source itself gives its classes

    @property
    def several(self) -> bool:
        """Whether some picture has several captions."""
        return any(SEVERAL in each for each in self.sha256)


EDITIONS: Mapping[str, int] = {"imagenet": 2}  # 2: the dog Cardigan and the garment are two


class Counted(NamedTuple):
    """Of captions: rows, distinct ones, pictures, those that are trained on, and classes where there are some."""

    rows: int
    distinct: int
    pictures: int
    trained: int
    classes: int | None


def refuse(stage: Stage[CaptionsConfig], recipe: Recipe, captions: Manifest) -> Iterator[Refusal]:
    """Why the captions are too few, or too much alike, for a recipe, before any long work."""
    yield from _refuse(stage.config.data, recipe, counted(captions))


def foresee(stage: Stage[CaptionsConfig], recipe: Recipe) -> Iterator[Refusal]:
    """The same of a person's own pictures, before their captions are made, where they are few enough to look at all."""
    data = stage.config.data
    if SOURCES[data.source].own and most_rows(data) <= MOST_FORESEEN:
        with suppress(DataError):  # their job tells what cannot be read of them
            yield from _refuse(data, recipe, count(data))


def counted(captions: Manifest) -> Counted:
    """What a manifest says of them."""
    stats = captions.stats
    rows, train = int(stats["rows"]), int(stats["train"])
    classes = next((each.rows for each in captions.files if each.path == "classes.parquet"), None)
    pictures, trained = int(stats.get("pictures_shown", rows)), int(stats.get("train_pictures", train))
    return Counted(rows, int(stats["distinct"]), pictures, trained, classes)


def count(data: DataConfig) -> Counted:
    """Read all captions of a source and count them."""
    records = list(islice(reader_of(data.source).captions(data), data.limit))
    splits: dict[object, str] = {}  # a picture is in that of its first caption
    for row, each in enumerate(records):
        splits.setdefault(each.get("picture", row), each["split"])
    classes = len({each["label"] for each in records} - {None}) or None
    trained = sum(split == TRAIN for split in splits.values())
    return Counted(len(records), len({each["caption"] for each in records}), len(splits), trained, classes)


def _refuse(data: DataConfig, recipe: Recipe, counted: Counted) -> Iterator[Refusal]:
    if data.for_captions == recipe.data.for_captions:
        yield from _refuse_sizes(recipe, counted)
    if (why := _alike_classes(data, counted)) is not None:
        yield from _refuse_classes(data, recipe, why)


def _refuse_sizes(recipe: Recipe, counted: Counted) -> Iterator[Refusal]:
    train, (key, batch), distinct = recipe.train, recipe.largest_batch, counted.distinct
    rows, pictures = counted.rows, counted.trained
    seen, tuned = train.seen(pictures), recipe.evaluate.finetune.batch_size
    if rows == 1:
        yield Refusal("graph", DataError("there is one caption alone", "give more captioned pictures"))
        return
    if distinct == 1:
        yield Refusal("graph", DataError(f"all {rows:,} captions are the same", _remedy_of_alike(recipe.data)))
    if batch > seen:
        left, more = f" that train.fraction {train.fraction} leaves", ", or a larger train.fraction"
        few = f"{key} {batch} is larger than the {seen} training pictures{left * (train.fraction < 1)}"
        yield Refusal("pretrain", DataError(few, f"--set {key}={max(2, seen // 2)}{more * (train.fraction < 1)}"))
    if recipe.tunes_own and tuned > pictures:
        few = f"evaluate.finetune.batch_size {tuned} is larger than the {pictures} training pictures"
        remedy = f"--set evaluate.finetune.batch_size={max(2, pictures // 2)}, or leave own-finetune out"
        yield Refusal("evaluate", DataError(few, remedy))
    if recipe.graph.k >= distinct > 1:
        few = f"graph.k {recipe.graph.k} needs more than {distinct} distinct captions"
        yield Refusal("graph", DataError(few, f"--set graph.k={distinct - 1}"))


def _remedy_of_alike(data: DataConfig) -> str:
    if SOURCES[data.source].labels == "always":
        return "they come from the classes: put the pictures of each class into a folder of its own"
    remedy = "captions must tell the pictures apart"
    column = f": set data.caption_column to a column that does, not to {data.caption_column}"
    return remedy + column * (SOURCES[data.source].labels == "column")


def _alike_classes(data: DataConfig, counted: Counted) -> str | None:
    """What makes the pictures' classes of no use; None where they are, or where there are none."""
    classes, pictures = counted.classes, counted.pictures
    if classes is None or pictures < 2 or SOURCES[data.source].annotated:
        return None
    alike = {
        1: f"all {pictures:,} pictures are of one class",
        pictures: f"each of {pictures:,} pictures is its own class",
    }
    return alike.get(classes)


def _refuse_classes(data: DataConfig, recipe: Recipe, why: str) -> Iterator[Refusal]:
    """Of the objectives, and of the suites, those that go by the classes of these pictures."""
    own, judged = (data.for_captions == each.for_captions for each in (recipe.data, recipe.judged))
    objectives = [each.name for each in recipe.objectives if each.targets == "class"]
    suites = [name for name in recipe.evaluate.suites if SUITES[name].classes]
    if own and objectives:
        yield Refusal("pretrain", _telling_nothing(data, why, objectives, "data"))
    if judged and suites:
        key = "data" if recipe.evaluate.data is None else "evaluate.data"
        yield Refusal("evaluate", _telling_nothing(data, why, suites, key))


def _telling_nothing(data: DataConfig, why: str, names: Sequence[str], key: str) -> DataError:
    remedy = "leave these out, or give pictures of other classes"
    if data.label_column is not None:
        remedy = f"--set {key}.label_column=null, which leaves out what goes by classes, or another column"
    return DataError(f"{why}, which tells {', '.join(names)} nothing", remedy)


def tell_left_out(captions: Manifest) -> Iterator[str]:
    """Lines that say what of a source became no caption."""
    stats = captions.stats
    if malformed := stats.get("malformed"):
        which = stats["malformed_samples"] if "malformed_samples" in stats else f"lines {stats['malformed_lines']}"
        yield f"captions: left out as malformed: {malformed:,} ({which})"
    if repeated := stats.get("repeated_urls"):
        yield f"captions: left out because their address stood before: {repeated:,}"
    if cut := stats.get("cut_keys"):
        yield f"captions: keys cut at the first dot of a name, as WebDataset does: {cut:,} ({stats['cut_first']})"
    if again := stats.get("repeated_keys"):
        yield f"captions: keys that stand twice in a tar, so that samples are mixed or doubled: {again:,} " + (
            f"({stats['repeated_first']})"
        )


def tell_choices(recipe: Recipe) -> list[str]:
    """Lines that say what the data decide where the recipe does not."""
    data = [recipe.data, *([recipe.evaluate.data] if recipe.evaluate.data else [])]
    return [f"data: {line}" for each in data for line in reader_of(each.source).tell(each)]


def given(config: CaptionsConfig, store: Store) -> Iterator[Given]:
    """The tables or the folder that captions come from."""
    yield given_data("captions", config.data, config.sha256, lambda: hash_captions(config.data, store))


def given_data(what: str, data: DataConfig, sha256: tuple[str, ...], rehash: Callable[[], tuple[str, ...]]) -> Given:
    """A source's tables where they are there, else what data.path names."""
    paths: tuple[Path, ...] = () if data.path is None else (data.path,)
    with suppress(DataError, OSError):
        paths = reader_of(data.source).files(data) or paths
    return Given(what, paths, sha256, rehash)


CAPTIONS = Kind(
    "captions",
    CaptionsConfig,
    code=3,
    run="xclr.captions.collect",
    step="captions",
    given=given,
    refuse=refuse,
    foresee=foresee,
    writes=lambda stage, recipe, rows: CAPTION_BYTES * rows(stage.config.data),
    tell=tell_left_out,
)
KINDS = (CAPTIONS,)


def captions(recipe: Recipe, store: Store) -> Stage[CaptionsConfig]:
    """Read, normalise and deduplicate the captions; raises DataError when the data cannot be what the recipe says."""
    reader_of(recipe.data.source).check(recipe.data)
    data = recipe.data.for_captions
    edition = EDITIONS.get(data.source, 1)
    return Stage(CAPTIONS, "captions", CaptionsConfig(data=data, sha256=hash_captions(data, store), names=edition))


def hash_captions(data: DataConfig, store: Store) -> tuple[str, ...]:
    """What names the captions of a source: its tables' contents, and what else they depend on."""
    return hash_files(data, store, reader_of(data.source).captions_listing(data))


def hash_files(data: DataConfig, store: Store, listing: str | None) -> tuple[str, ...]:
    """Contents of the source's tables, and the hash of its listing of other files where it has one."""
    hashes = tuple(store.content_hash(path) for path in reader_of(data.source).files(data))
    return hashes if listing is None else (*hashes, listing)
