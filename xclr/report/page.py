"""The comparison as one HTML file that needs nothing else: tables, training curves, nearest neighbours."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from xclr.captions.stages import CAPTIONS
from xclr.errors import StoreError, XclrError
from xclr.evaluation.significance import Answers, distances_of
from xclr.evaluation.stages import tell_skipped
from xclr.images.stages import IMAGES
from xclr.pipeline import pipeline
from xclr.recipe import Recipe, reproduction
from xclr.record import Record
from xclr.report.curves import LOSS, METRICS, Plot, Trace, draw, metric_of, read_metrics
from xclr.report.html import environment
from xclr.report.paper import load_paper, paper_view
from xclr.report.scenes import scenes_of
from xclr.report.score_plots import draw_panel, panels_of
from xclr.report.sheet import NEIGHBOURS, SIDE, sheet_of
from xclr.report.tables import (
    GROUPS,
    NO_SCORES,
    UNTRAINED,
    Grid,
    answers_of,
    base_of,
    distance_grids,
    grids_of,
    methods_of,
)
from xclr.report.trainings import Method, Training, labels_of, trainings_of
from xclr.store import Store, link_atomically, write_atomically

Made = TypeVar("Made")
LONGEST_NAME = 120  # of a page's file, characters
GREY = "#8b919a"  # the untrained network
COLOURS = ("#3b82c4", "#2f9e6e", "#d9822b", "#c2508f", "#8561c5", "#b08d12", "#2b9fae", "#b5533c")
GLOSSARY: Mapping[str, str] = {each.heading: each.about for group in GROUPS.values() for each in group}


def write_page(
    home: Path, runs: Sequence[Record], names: Sequence[str], scores: pa.Table, against: str | None, out: Path | None
) -> Path:
    """Write the page of runs, by the names they were asked for, and their scores; returns its path.

    It is compare-<runs>.html in HOME/pages, which compare-<names>.html leads to, or that file in `out` where it is a
    folder, else the file `out`. What cannot be shown (features that are gone, no labels) is told on the page. Raises
    StoreError when the file cannot be written.
    """
    own, called = (f"compare-{file_name(each)}" for each in ([run.run for run in runs], names or [runs[0].recipe.name]))
    return write_html(home / "pages" / own, called, render(runs, scores, Store(home), against), out)


def write_html(own: Path, called: str, html: str, out: Path | None) -> Path:
    """Write a page to <own>.html, which is kept, and let <called>.html beside it lead there.

    With `out` it is <called>.html there where that is a folder, else the file `out`. Returns where it is; raises
    StoreError when it cannot be written.
    """
    path = own.with_name(f"{own.name}.html")
    if out is not None:
        path = out.absolute() / f"{called}.html" if out.is_dir() else out.absolute()
    try:
        if path.is_symlink() or (path.exists() and not path.is_file()):  # /dev/null, which root could replace by a file
            path.write_text(html, encoding="utf-8")
        else:
            write_atomically(path, html)
        if out is None and called != own.name:
            link_atomically(own.with_name(f"{called}.html"), path.name)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror}", "name another place: --out FILE") from error
    return path


def file_name(names: Sequence[str]) -> str:
    """Names in one, cut where it would be too long for a file's."""
    whole = "-".join(names)
    if len(whole) <= LONGEST_NAME:
        return whole
    return f"{whole[:LONGEST_NAME]}-{hashlib.blake2b(whole.encode(), digest_size=4).hexdigest()}"


def render(runs: Sequence[Record], scores: pa.Table, store: Store, against: str | None = None) -> str:
    """The page as HTML."""
    trainings, lost = _or_reason(lambda: trainings_of([recipe for each in runs for recipe in each.recipes], store))
    sheet, no_sheet = _or_reason(lambda: sheet_of(trainings, store)) if trainings else (None, lost)
    methods = list(dict.fromkeys([*(each.method for each in trainings or ()), *methods_of(scores)]))
    styles, labels = _styles(methods), labels_of(methods)
    colours, panels = {method: colour for method, (colour, _) in styles.items()}, list(panels_of(scores))
    loss, shared = _plots(trainings or (), styles, labels)
    answers = answers_of(runs, store)
    template = environment().get_template("page.html.j2")
    return template.render(
        title=" and ".join(dict.fromkeys(each.recipe.name for each in runs)),
        runs=[_facts(each, store) for each in runs],
        skipped=list(dict.fromkeys(line for each in runs for line in tell_skipped(each.recipe))),
        tables=_tables(scores, answers, against),
        panels=[(each.title, draw_panel(each, labels, colours)) for each in panels],
        smaller=any(each.unit == "points" for each in panels),
        paper=_beside_the_paper(scores, answers),
        glossary=GLOSSARY,
        no_scores=NO_SCORES,
        colours=colours,
        labels=labels,
        loss=[(each.title, draw(each)) for each in loss],
        shared=[(each.title, draw(each)) for each in shared],
        several_seeds=any(len(each.traces) > 1 for each in loss),
        no_curves=lost or "No training metric was logged.",
        scenes=scenes_of(each.recipe for each in runs),
        sheet=sheet,
        no_sheet=no_sheet,
        neighbours=NEIGHBOURS,
        side=SIDE,
        recipes=list(dict.fromkeys(reproduction(each.recipe) for each in runs)),
        command=" ".join(["xclr compare", *(each.run for each in runs)]),
    )


def _or_reason(make: Callable[[], Made]) -> tuple[Made | None, str]:
    """What could be made, or the line that says why not."""
    try:
        return make(), ""
    except XclrError as error:
        return None, f"Not shown: {error.message} ({error.remedy})."


def _styles(methods: Sequence[Method]) -> dict[Method, tuple[str, bool]]:
    """Colour and dash of each method, the same everywhere on the page."""
    trained = [each for each in methods if each[0] not in UNTRAINED]
    styles = {each: (COLOURS[i % len(COLOURS)], i // len(COLOURS) % 2 == 1) for i, each in enumerate(trained)}
    return {each: styles.get(each, (GREY, False)) for each in methods}


def _tables(scores: pa.Table, answers: Answers, against: str | None) -> list[tuple[str, list[Grid]]]:
    """The scores, and distances to `against`, else to CLIP, else to the first method that was trained."""
    if not scores.num_rows:
        return []
    tables = [("Scores", grids_of(scores))]
    names = [method for method, _ in methods_of(scores)]
    base = against or next((each for each in ("clip", *names) if each in names and each not in UNTRAINED), None)
    if base is not None and len(names) > 1:
        found = distances_of(scores, base_of(scores, base), answers)
        tables += [(f"Distance to {base}", distance_grids(scores, found, base))] if found else []
    return tables


def _beside_the_paper(scores: pa.Table, answers: Answers) -> tuple[Grid, ...]:
    """Our scores beside the paper's; nothing where it has none of them."""
    try:
        return paper_view(scores, answers, load_paper()).grids
    except StoreError:
        return ()


def _facts(run: Record, store: Store) -> dict[str, str]:
    """What was run, for people."""
    facts = facts_of(run.recipe)
    data = {"data": facts.pop("data"), "training pictures": _training_pictures(run.recipe, store)}
    return {"run": run.run} | data | facts | {"started": f"{run.started:%Y-%m-%d %H:%M} UTC"}


def facts_of(recipe: Recipe) -> dict[str, str]:
    """What a recipe trains on what, and how long, for people."""
    train = recipe.train
    data = recipe.data.source if recipe.data.path is None else f"{recipe.data.source} {recipe.data.path.name}"
    return {
        "data": data + (f", first {recipe.data.limit:,} rows" if recipe.data.limit else ""),
        "epochs": str(train.epochs),
        "training": f"batch {train.batch_size}, {train.image_size} pixels",
        "learning rate": f"{train.rate} at its highest",
        "backbone": train.backbone + (f", width {train.width}" if train.backbone == "resnet-mini" else ""),
        "seeds": ", ".join(map(str, recipe.seeds)),
    }


def _training_pictures(recipe: Recipe, store: Store) -> str:
    """How many pictures could be decoded and are in split "train"."""
    try:
        plan = pipeline(recipe, store)
    except XclrError:
        return "unknown: the data are gone"
    captions, images = store.reference(plan.of(CAPTIONS)[-1].digest), store.reference(plan.of(IMAGES)[-1].digest)
    if store.find(captions.digest) is None or store.find(images.digest) is None:
        return "unknown: the artifacts are gone"
    split = pq.read_table(captions.path / "captions.parquet", columns=["row_id", "split"]).sort_by("row_id")["split"]
    status = pq.read_table(images.path / "images.parquet", columns=["row_id", "status"]).sort_by("row_id")["status"]
    count = pc.sum(pc.and_(pc.equal(split, "train"), pc.equal(status, "ok"))).as_py()
    return f"{count or 0:,}"


def _plots(
    trainings: Sequence[Training], styles: Mapping[Method, tuple[str, bool]], labels: Mapping[Method, str]
) -> tuple[list[Plot], list[Plot]]:
    """A plot of the loss for each method, whose scales differ; and one for each metric that methods share."""
    traces: dict[str, dict[Method, tuple[Trace, ...]]] = {}
    for each in trainings:
        for name, (epochs, values) in read_metrics(each.checkpoint.path).items():
            lines = traces.setdefault(name, {})
            lines[each.method] = (*lines.get(each.method, ()), Trace(epochs, values, *styles[each.method]))
    loss = [Plot(labels[method], METRICS[LOSS].unit, lines) for method, lines in traces.pop(LOSS, {}).items()]
    shared = [_shared_plot(name, traces[name]) for name in sorted(traces, key=_place)]
    return loss, shared


def _place(metric: str) -> tuple[int, str]:
    return (list(METRICS).index(metric) if metric in METRICS else len(METRICS)), metric


def _shared_plot(metric: str, traces: Mapping[Method, tuple[Trace, ...]]) -> Plot:
    return Plot(*metric_of(metric), tuple(line for lines in traces.values() for line in lines))
