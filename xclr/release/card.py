"""The model card of an export: what it is, how it is loaded, what it was made from, and how well it does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from xclr.recipe import SOURCES, PairsConfig, RandomConfig, reproduction
from xclr.release.preprocessing import PROGRAM, VALUES
from xclr.release.released import About, Released
from xclr.stage import network_name

CARD = "README.md"
HEAD = """\
---
library_name: {library}
pipeline_tag: image-feature-extraction
---
# {title}

The backbone for pictures out of a network that xclr trained: {train.backbone}, pictures of {how.size} pixels,
{released.width:,} features a picture. {left_out}

## Load it

In this folder, with `pip install {packages}`:

```python
{code}

from PIL import Image
from preprocessing import transform

with torch.inference_mode():
    features = network(transform(Image.open("picture.jpg"))[None])  # [1, {released.width}]
```

The network takes what `transform` of {program} gives, float32 [batch, 3, {how.size}, {how.size}].
{values} holds the same as values: the shortest edge becomes {how.resize} pixels ({how.interpolation}), the
centre is cut out, pixels from 0 to 1 are reduced by {mean} and divided by {std}. Transparent parts are grey.

## What it was made from

"""


class Loading(NamedTuple):
    """The packages that load an export, and Python that makes `network`, a function of pixels [b, 3, s, s]."""

    packages: str
    code: str


def card(released: Released, loading: Loading) -> str:
    """The card as Markdown."""
    about = released.about
    head = HEAD.format(
        library=loading.packages.partition(" ")[0],
        title=network_name(about.origin.method, about.origin.graph, about.origin.seed),
        released=released,
        train=released.train,
        how=released.preparation,
        mean=_triple(released.preparation.mean),
        std=_triple(released.preparation.std),
        left_out=_left_out(about),
        packages=loading.packages,
        code=loading.code,
        program=PROGRAM,
        values=VALUES,
    )
    facts = "".join(f"- {name}: {value}\n" for name, value in _facts(released))
    return "\n".join([head + facts, *_scores(about), *_again(about)])


def _triple(values: tuple[float, ...]) -> str:
    return f"{values[0]:g}" if len(set(values)) == 1 else ", ".join(f"{each:g}" for each in values)


def _left_out(about: About) -> str:
    if isinstance(about.objective, RandomConfig):
        return "Its weights are the initial ones: the row that trained networks are compared with."
    tower = ", nor is the text tower, which no other library has" if isinstance(about.objective, PairsConfig) else ""
    return f"The projection head, which the loss saw, is not in it{tower}."


def _facts(released: Released) -> Iterator[tuple[str, str]]:
    about, train = released.about, released.train
    source = SOURCES[about.origin.dataset]
    rows = "" if about.rows is None else f", {about.rows:,} captioned pictures"
    yield "data", f"{about.origin.dataset} ({source.about}){rows}"
    yield "licence of the data", source.licence or "xclr does not know it: that of the pictures which were given"
    yield "backbone", train.backbone
    if isinstance(about.objective, RandomConfig):
        return
    yield "pictures of the training", f"{about.stats.get('train_pictures', about.rows or 0):,}"
    yield "method", f"{about.origin.method}; targets from {about.origin.graph}; it learned from {about.origin.uses}"
    yield from _settings(about)
    yield "training", f"{train.epochs} epochs, {about.stats['step']:,} steps of {train.batch_size:,} pictures"
    yield "optimiser", f"{about.origin.rate}, weight decay {train.weight_decay:g}"
    yield "views", f"{train.views}, {train.image_size} pixels"
    yield "checkpoint", about.digest


def _settings(about: About) -> Iterator[tuple[str, str]]:
    """Temperatures and what else the objective sets; of a learned one also where it ended."""
    given = about.objective.model_dump(exclude={"name", "graph", "train", "text", "classes"})
    yield "settings", ", ".join(f"{name} {value}" for name, value in given.items())
    if "init_temperature" in given and "train/temperature" in about.stats:
        yield "learned temperature", f"{about.stats['train/temperature']:.4g}"


def _scores(about: About) -> Iterator[str]:
    yield "## Scores\n"
    if not about.scores:
        yield "No suite had judged it when this was written.\n"
        return
    yield "Of the frozen features; behind ± half of a 95 % interval.\n"
    yield "| suite | split | metric | value | items |\n|---|---|---|---|---|"
    yield from map(_line, about.scores)
    yield ""


def _line(row: Mapping[str, Any]) -> str:
    interval = "" if row["ci95"] is None else f" ± {row['ci95']:.4f} ({row['ci_kind']})"
    return f"| {row['suite']} | {row['split']} | {row['metric']} | {row['value']:.4f}{interval} | {row['n']:,} |"


def _again(about: About) -> Iterator[str]:
    if about.recipe is None:
        return
    command, text = reproduction(about.recipe)
    yield "## Have it again\n"
    beside = f"`{about.recipe.name}.yaml`, beside the data where it names a file:\n\n" if text else ""
    yield f"{beside}```yaml\n{text}```\n" if text else "With the recipe that comes with xclr:\n"
    yield f"```bash\n{command}\n```\n"
