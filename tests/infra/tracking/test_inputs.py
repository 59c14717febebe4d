"""The data sets of MLflow's runs lead to the files that a person gave, with their columns."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mlflow.entities import DatasetInput
from mlflow.types.schema import Schema

from infra.home.runs import read_runs
from infra.tracking.inputs import inputs_of, lineage_files, schema_of
from xclr import schema
from xclr.artifact import sha256_file
from xclr.pipeline import pipeline
from xclr.recipe import Recipe
from xclr.stage import Stage
from xclr.store import Store


def told(home: Path, stage: Stage, recipe: Recipe) -> dict[str, DatasetInput]:
    """What a stage's run is told, by name."""
    found = inputs_of(stage, Store(home).reference(stage.digest), recipe)
    assert len({(each.dataset.name, each.dataset.digest) for each in found}) == len(found)
    return {each.dataset.name: each for each in found}


def columns(given: DatasetInput) -> list[str]:
    return Schema.from_json(json.dumps(json.loads(given.dataset.schema)["mlflow_colspec"])).input_names()


@pytest.fixture(scope="module")
def stages(own_home) -> tuple[Recipe, dict[str, Stage]]:
    (record,) = read_runs(own_home)
    return record.recipe, {each.name: each for each in pipeline(record.recipe, Store(own_home))}


def test_a_training_is_told_what_it_reads_by_role_and_the_file_that_this_comes_from(own_home, stages):
    recipe, planned = stages
    stage = planned["pretrain xclr seed 0"]
    found = told(own_home, stage, recipe)
    roles = {each.tags[0].value: each.dataset for each in found.values()}
    assert {role: roles[role].digest for role in stage.inputs} == {
        role: str(each.digest) for role, each in stage.inputs.items()
    }
    captions = found["own.parquet captions"]
    assert columns(captions) == schema.CAPTIONS.names
    assert json.loads(captions.dataset.source) == {"uri": str(stage.inputs["captions"].path / "captions.parquet")}
    assert json.loads(captions.dataset.profile)["num_rows"] == 80
    assert json.loads(captions.dataset.profile)["made_of"] == "own.parquet"
    assert json.loads(found["own.parquet images"].dataset.profile)["made_of"].startswith("captions ")
    table = own_home.parent / "own.parquet"
    source = found["captions: own.parquet"]
    assert source.tags[0].value == "source" and columns(source) == pq.read_schema(table).names
    assert json.loads(source.dataset.source) == {"uri": str(table)}
    assert source.dataset.digest == sha256_file(table)[:32]
    assert json.loads(source.dataset.profile)["sha256"] == sha256_file(table)


def test_a_suite_is_told_what_it_judges_on_and_the_data_run_where_its_data_come_from(own_home, stages):
    recipe, planned = stages
    suite = told(own_home, planned["linear xclr seed 0"], recipe)
    assert {name: each.tags[0].value for name, each in suite.items()} == {
        "own.parquet captions": "evaluation",
        "own.parquet images": "evaluation",
        "captions: own.parquet": "source",
    }
    assert [*told(own_home, planned["captions"], recipe)] == ["captions: own.parquet"]
    assert not told(own_home, planned["graph"], recipe) and not told(own_home, planned["features xclr seed 0"], recipe)


def test_the_files_of_a_run_lead_from_all_its_outputs_to_the_table(own_home, stages):
    _, planned = stages
    shown = [str(planned[name].digest) for name in ("pretrain xclr seed 0", "linear xclr seed 0")]
    files = lineage_files(Store(own_home), shown)
    chain = {each["digest"]: each for each in json.loads(files["lineage.json"])}
    waiting, sources = [shown[1]], set()
    while waiting:
        link = chain[waiting.pop()]
        waiting += link["inputs"]
        sources |= {path for each in link["given"] for path in each["paths"]}
    assert str(own_home.parent / "own.parquet") in sources
    text = files["lineage.txt"].decode()
    assert text.startswith(f"suite linear {shown[1][:8]}") and text.count("checkpoint.pt") == 1


def test_columns_of_any_type_are_ones_that_mlflow_knows():
    kinds = {
        "boolean": [pa.bool_()],
        "integer": [pa.int8(), pa.uint16(), pa.int32()],
        "long": [pa.uint32(), pa.int64()],
        "float": [pa.float16(), pa.float32()],
        "double": [pa.float64(), pa.decimal128(9)],
        "string": [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string()), pa.null()],
        "binary": [pa.binary(), pa.binary(16), pa.large_binary()],
        "datetime": [pa.timestamp("us"), pa.date32()],
        "array": [pa.list_(pa.string()), pa.list_(pa.float16(), 8)],
        "object": [pa.struct({"bytes": pa.binary(), "path": pa.string()})],
    }
    fields = [pa.field(f"{name} {at}", kind) for name, several in kinds.items() for at, kind in enumerate(several)]
    written = json.loads(schema_of(pa.schema(fields)))["mlflow_colspec"]
    assert [(each["name"], each["type"], each["required"]) for each in written] == [
        (each.name, each.name.split()[0], False) for each in fields
    ]
    assert Schema.from_json(json.dumps(written)).input_names() == [each.name for each in fields]
