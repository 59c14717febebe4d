"""The stage `benchmark`: a data set's pictures and labels, read once from its published layout."""

from __future__ import annotations

from pathlib import Path

from xclr.artifact import Artifact
from xclr.errors import DataError
from xclr.evaluation.datasets import READERS, Tree, write
from xclr.evaluation.stages import BenchmarkConfig, BenchmarkFeaturesConfig
from xclr.stage import Produced, Progress, Stage


def run(stage: Stage[BenchmarkConfig], out: Path, progress: Progress) -> Produced:
    """Write items.parquet, classes.parquet and, for ImageNet-9, mapping.json; raises DataError for another layout."""
    tree = Tree.open(place_of(stage.config, stage.inputs.get("export")))
    try:
        found = READERS[stage.config.dataset].read(tree)
    except DataError as error:
        if "export" not in stage.inputs:
            raise
        few = f"so few emoji do not fill {stage.config.dataset}: {error.message}"
        raise DataError(few, "raise data.limit, or leave its suites out of evaluate.suites") from error
    rows = found.items.num_rows
    files = write(found, out, {"digest": stage.digest, "config": stage.identity})
    progress(rows, rows)
    return Produced(files, {"rows": rows, "classes": len(found.classes)})


def place_of(config: BenchmarkConfig | BenchmarkFeaturesConfig, export: Artifact | None) -> Path:
    """Where a data set's files are: below the root of the recipe, or among what the emoji were exported to."""
    if config.root is not None:
        return config.root
    assert export is not None
    return export.path / ("real.json" if config.dataset == "real" else f"{config.dataset}.tar")
