"""The commands about a graph over the finished smoke run, and other tools over its tables."""

from __future__ import annotations

import json

import duckdb
import pandas as pd
import polars
import pyarrow.parquet as pq
import pytest

from infra.servers import artifacts_of
from tests.kit.command import call_xclr
from tests.kit.servers import known_to_mlflow

pytestmark = pytest.mark.slow


def xclr(home, *arguments, code=0):
    done = call_xclr(*arguments, "--home", str(home), cwd=home)
    assert done.returncode == code, done.stderr
    return done


def test_the_page_is_copied_where_it_is_asked_for(smoke_home, tmp_path):
    done = xclr(smoke_home, "graph", "show", "--out", str(tmp_path / "page.html"))
    assert str(tmp_path / "page.html") in done.stdout
    html = (tmp_path / "page.html").read_text()
    assert "Similarity graph: emoji" in html and html.count('<figure class="question">') > 20
    facts = json.loads(xclr(smoke_home, "graph", "show", "smoke", "--out", str(tmp_path), "--json").stdout)
    assert facts["nodes"] > 100 and facts["method"] == "exact" and facts["page"].startswith(str(tmp_path))
    missing = xclr(smoke_home, "graph", "show", "nothing", code=1)
    assert "no run 'nothing'" in missing.stderr


def test_a_free_text_finds_captions(smoke_home):
    found = json.loads(xclr(smoke_home, "graph", "neighbours", "a red apple", "-k", "7", "--json").stdout)
    assert len(found) == 7 and found == sorted(found, key=lambda each: -each["similarity"])
    assert all(set(each) == {"row_id", "similarity", "caption"} for each in found)


def test_the_page_is_in_mlflow_also_in_a_home_that_was_copied(served):
    with known_to_mlflow(served) as client:
        experiment = client.get_experiment_by_name("smoke data")
        (run,) = client.search_runs([experiment.experiment_id], "tags.stage = 'data'")
        names = {each.path for each in client.list_artifacts(run.info.run_id, "graph-report")}
    assert "graph-report/graph.html" in names
    assert run.info.artifact_uri.startswith(artifacts_of(served.home / "state").as_uri())
    assert run.data.metrics["data/graph_report/components"] > 0


def test_duckdb_polars_and_pandas_open_every_table(smoke_home):
    paths = sorted(smoke_home.glob("artifacts/*/*/*.parquet"))
    kinds = {path.stem for path in paths}
    assert {"captions", "images", "accounts", "embeddings", "graph_knn", "classes", "annotations", "scores"} <= kinds
    for path in paths:
        expected = pq.read_table(path)
        ((rows,),) = duckdb.sql(f"select count(*) from '{path}'").fetchall()
        assert rows == expected.num_rows == len(polars.read_parquet(path)) == len(pd.read_parquet(path)), path
        assert duckdb.sql(f"select * from '{path}'").columns == expected.column_names, path
        assert duckdb.sql(f"select * from '{path}' limit 3").fetchall() is not None, path
        assert polars.read_parquet(path).columns == expected.column_names, path


def test_the_query_of_the_docs_joins_edges_with_captions(smoke_home):
    (graph,) = smoke_home.glob("artifacts/graph/*/graph_knn.parquet")
    captions = next(iter(smoke_home.glob("artifacts/captions/*/captions.parquet")))
    rows = duckdb.sql(
        f"SELECT a.caption, b.caption, sim FROM (SELECT src, unnest(dst) AS dst, unnest(sim) AS sim FROM '{graph}') g "
        f"JOIN '{captions}' a ON a.row_id = src JOIN '{captions}' b ON b.row_id = dst ORDER BY sim DESC LIMIT 10"
    ).fetchall()
    assert len(rows) == 10 and rows[0][2] <= 1
