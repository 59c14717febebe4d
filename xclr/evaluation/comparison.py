"""The stage `comparison`: every score of a recipe in one table."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from xclr import schema
from xclr.evaluation.stages import ComparisonConfig
from xclr.stage import Produced, Progress, Stage

ORDER = ("method", "graph", "seed", "suite", "split", "metric")


def run(stage: Stage[ComparisonConfig], out: Path, progress: Progress) -> Produced:
    """Concatenate the scores.parquet of every input, sorted stably by ORDER; raises DataError for a damaged table."""
    tables = [schema.SCORES.empty_table()]
    for done, artifact in enumerate(stage.inputs.values()):
        progress(done, len(stage.inputs))
        tables.append(schema.read(artifact.path / "scores.parquet", schema.SCORES).cast(schema.SCORES))
    table = pa.concat_tables(tables).sort_by([(name, "ascending") for name in ORDER])
    schema.write(table, out / "scores.parquet", schema.SCORES, {"digest": stage.digest, "config": stage.identity})
    progress(len(stage.inputs), len(stage.inputs))
    return Produced(("scores.parquet",), {"rows": table.num_rows})
