import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.kit.features import ABOUT, artifact, write_checkpoint
from xclr import schema
from xclr.errors import DataError
from xclr.evaluation import Score
from xclr.evaluation.comparison import ORDER, run
from xclr.evaluation.stages import COMPARISON, ComparisonConfig
from xclr.evaluation.suite import score_table
from xclr.recipe import SimCLRConfig, XCLRConfig
from xclr.stage import Stage

SCORES = [
    Score("linear", "vendor", "top1", 0.2, 10, 0.1, "bootstrap"),
    Score("linear", "pictures", "top1", 0.5, 10, None, "none"),
]


def scores_of(home, objective, seed):
    made = artifact(home, "suite", f"{objective} {seed}")
    table = score_table(SCORES, write_checkpoint(home, objective, seed=seed))
    schema.write(table, made.path / "scores.parquet", schema.SCORES, ABOUT)
    return made


def compare(tmp_path, inputs):
    stage = Stage(COMPARISON, "comparison", ComparisonConfig(dataset="emoji"), inputs)
    produced = run(stage, tmp_path, lambda done, total: None)
    return produced, schema.read(tmp_path / "scores.parquet", schema.SCORES).to_pylist()


def test_all_scores_stand_in_one_sorted_table(tmp_path):
    cells = [(XCLRConfig(), 1), (XCLRConfig(), 0), (SimCLRConfig(), 0)]
    inputs = {f"scores{index}": scores_of(tmp_path, *cell) for index, cell in enumerate(cells)}
    produced, rows = compare(tmp_path, inputs)
    assert (produced.files, produced.stats) == (("scores.parquet",), {"rows": 6})
    keys = [tuple(row[name] for name in ORDER) for row in rows]
    assert keys == sorted(keys)
    assert [key[:3] for key in keys[::2]] == [
        ("simclr", "augmentation", 0),
        ("xclr", "captions", 0),
        ("xclr", "captions", 1),
    ]


def test_no_scores_make_an_empty_table(tmp_path):
    produced, rows = compare(tmp_path, {})
    assert (produced.stats, rows) == ({"rows": 0}, [])


def test_a_damaged_table_is_refused(tmp_path):
    made = artifact(tmp_path, "suite", "damaged")
    pq.write_table(pa.table({"run": ["r"]}), made.path / "scores.parquet")
    with pytest.raises(DataError, match="no column 'method'"):
        compare(tmp_path, {"scores0": made})
