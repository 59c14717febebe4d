"""What a flow run shows in the Prefect UI beside its task runs: the table, and links to MLflow."""

from __future__ import annotations

from prefect.artifacts import create_link_artifact, create_markdown_artifact

from infra.stage import Run
from tasks.stage import artifact_key
from xclr import schema, stages
from xclr.artifact import Artifact


def publish_table(run: Run, comparison: Artifact) -> None:
    """Method by suite as a Markdown artifact of the flow run."""
    from flows.compare import markdown_of  # brings torch: a deployment whose inputs are absent fails before that

    scores = schema.read(comparison.path / "scores.parquet", schema.SCORES)
    if scores.num_rows:
        key = artifact_key(f"{run.recipe.name} comparison")
        create_markdown_artifact(markdown_of(scores), key=key, description=f"Scores of {run.id}")


def publish_links(run: Run) -> None:
    """Links to the recipe's experiment and to its trainings side by side, where MLflow has a server."""
    made = stages.references(run.recipe, run.store)
    trained = [str(made[title].digest) for title, _, _ in stages.trainings(run.recipe)]
    links = {"experiment": run.tracker.experiment_url(), "compare": run.tracker.compare_url(trained)}
    for what, link in links.items():
        if link is not None:
            key = artifact_key(f"{run.recipe.name} mlflow {what}")
            create_link_artifact(link, key=key, link_text=f"{run.recipe.name} in MLflow: {what}")
