"""What a flow run shows in the Prefect UI beside its task runs: the table, and links to MLflow."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from prefect.artifacts import create_link_artifact, create_markdown_artifact

from infra.batch import join_sweep
from infra.processes import now
from infra.run import Run
from infra.tracking.files import pages_of
from infra.tracking.tracker import sweep_key
from tasks.make import artifact_key
from xclr import schema
from xclr.artifact import Artifact
from xclr.errors import StoreError
from xclr.stage import Stage
from xclr.training.stages import PRETRAIN


def publish_table(run: Run, comparison: Artifact) -> None:
    """Method by suite as a Markdown artifact of the flow run."""
    from xclr.report.tables import markdown_of  # brings torch: a deployment whose inputs are absent fails before that

    scores = schema.read(comparison.path / "scores.parquet", schema.SCORES)
    if scores.num_rows:
        key = artifact_key(f"{run.recipe.name} comparison")
        create_markdown_artifact(markdown_of(scores), key=key, description=f"Scores of {run.id}")


def publish_page(run: Run, stages: Sequence[Stage], comparison: Artifact) -> None:
    """The comparison as a page of HOME and, with the graph's, in MLflow at the run of each network; a line if not."""
    from xclr.report.page import write_page

    scores = schema.read(comparison.path / "scores.parquet", schema.SCORES)
    try:
        page = write_page(run.store.home, [run.record], [], scores, None, None)
    except StoreError as error:
        run.board.say(str(error))
        return
    run.save(page=page.name)
    networks = [str(stage.digest) for stage in stages if stage.kind.network]
    run.tracker.record_pages(networks, pages_of(stages, run.store, str(comparison.digest), page))


def publish_links(run: Run, stages: Iterable[Stage]) -> None:
    """Links to the recipe's experiment and to its trainings among the stages, where MLflow has a server."""
    trained = [str(stage.digest) for stage in stages if stage.kind is PRETRAIN]
    links = {"experiment": run.tracker.experiment_url(), "compare": run.tracker.compare_url(trained)}
    for what, link in links.items():
        if link is not None:
            key = artifact_key(f"{run.recipe.name} mlflow {what}")
            create_link_artifact(link, key=key, link_text=f"{run.recipe.name} in MLflow: {what}")


def publish_sweep(run: Run) -> None:
    """What came of a sweep: a Markdown artifact of the flow run, and the sweep's own run in MLflow with its page."""
    from infra.home.swept import read_swept, summary
    from xclr.report.sweep import markdown_of_sweep, state_counts

    swept = read_swept(run.store.home, run.record)
    name, states = swept.sweep.name, state_counts(swept)
    complete = states.get("done", 0) + states.get("stopped", 0) == len(swept.lines)
    state = "completed" if complete else "cancelled" if run.cancelled else "failed"
    swept = replace(swept, record=run.record.model_copy(update={"state": state, "ended": now()}))  # all but its ending
    key = artifact_key(f"sweep {name}")
    create_markdown_artifact(markdown_of_sweep(swept), key=key, description=f"Cells of {run.id}")
    join_sweep(run)
    run.tracker.record_sweep(name, summary(swept))
    if link := run.tracker.run_url(sweep_key(name)):
        create_link_artifact(link, key=artifact_key(f"sweep {name} mlflow"), link_text=f"sweep {name} in MLflow")
