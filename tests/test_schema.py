"""The Parquet contracts: what check and write refuse, and what a file says of itself."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from xclr import schema
from xclr.errors import DataError


def columns(**changes):
    """A graph_class table's columns, some replaced, None taken out."""
    whole = {
        "src": pa.array([0, 0], pa.int16()),
        "dst": pa.array([0, 1], pa.int16()),
        "sim": pa.array([1.0, 0.25], pa.float32()),
    }
    return pa.table({name: column for name, column in (whole | changes).items() if column is not None})


def test_a_table_that_fits_is_returned():
    table = columns()
    assert schema.check(table, schema.GRAPH_CLASS) is table


def test_a_missing_column_is_named_with_those_there_are():
    with pytest.raises(DataError) as caught:
        schema.check(columns(dst=None), schema.GRAPH_CLASS)
    assert caught.value.message == "graph_class: no column 'dst'"
    assert "src, sim" in caught.value.remedy


@pytest.mark.parametrize("kind", [pa.int32(), pa.uint16(), pa.float32(), pa.string()])
def test_a_column_of_another_type_is_named_with_both_types(kind):
    with pytest.raises(DataError) as caught:
        schema.check(columns(dst=pa.array([0, 1]).cast(kind)), schema.GRAPH_CLASS)
    assert caught.value.message == f"graph_class: column 'dst' is {kind}, not int16"


def test_a_null_where_none_may_be_is_named():
    with pytest.raises(DataError, match="graph_class: column 'sim' has 1 nulls"):
        schema.check(columns(sim=pa.array([None, 0.5], pa.float32())), schema.GRAPH_CLASS)


def test_nulls_are_allowed_where_the_schema_says_so():
    row = {"row_id": 0, "status": "decode", "attempt": 1}
    assert schema.check(pa.Table.from_pylist([row], schema.IMAGES), schema.IMAGES).num_rows == 1


def test_vectors_of_another_length_or_precision_do_not_fit():
    def table(dim, dtype):
        flat = pa.array(np.zeros(2 * dim, dtype))
        return pa.table({"row_id": [0, 1], "vec": pa.FixedSizeListArray.from_arrays(flat, dim)})

    schema.check(table(4, np.float16), schema.embeddings(4))
    for wrong in (table(3, np.float16), table(4, np.float32)):
        with pytest.raises(DataError, match="embeddings: column 'vec'"):
            schema.check(wrong, schema.embeddings(4))


def test_neighbours_carry_their_k():
    assert schema.graph_knn(3).field("dst").type.list_size == 3
    assert schema.graph_knn(3).field("sim").type.list_size == 3


def test_a_file_says_schema_version_and_what_made_it(tmp_path):
    about = {"digest": "ab" * 16, "config": {"seed": 3, "source": "random_class"}}
    schema.write(columns(), tmp_path / "graph.parquet", schema.GRAPH_CLASS, about)
    metadata = pq.read_metadata(tmp_path / "graph.parquet").metadata
    assert metadata[b"schema"] == b"graph_class"
    assert metadata[b"version"] == str(schema.VERSION).encode()
    assert json.loads(metadata[b"about"]) == about


def test_what_is_written_is_read_back_in_the_schemas_order_without_other_columns(tmp_path):
    table = columns(note=pa.array(["a", "b"])).select(["note", "sim", "dst", "src"])
    schema.write(table, tmp_path / "graph.parquet", schema.GRAPH_CLASS, {})
    back = schema.read(tmp_path / "graph.parquet", schema.GRAPH_CLASS)
    assert back.column_names == ["src", "dst", "sim"]
    assert back.to_pylist() == columns().to_pylist()
    assert [field.nullable for field in back.schema] == [False, False, False]
    assert pq.ParquetFile(tmp_path / "graph.parquet").metadata.row_group(0).column(0).compression == "ZSTD"


@pytest.mark.parametrize("change", [{"dst": None}, {"sim": pa.array([1, 2])}, {"src": pa.array([0, None], pa.int16())}])
def test_a_table_that_does_not_fit_is_not_written(change, tmp_path):
    with pytest.raises(DataError):
        schema.write(columns(**change), tmp_path / "graph.parquet", schema.GRAPH_CLASS, {})
    assert not (tmp_path / "graph.parquet").exists()


def test_a_file_that_does_not_fit_is_not_read(tmp_path):
    pq.write_table(columns(dst=None), tmp_path / "graph.parquet")
    with pytest.raises(DataError, match="no column 'dst'"):
        schema.read(tmp_path / "graph.parquet", schema.GRAPH_CLASS)


@pytest.mark.parametrize(
    "contract", [schema.CAPTIONS, schema.ANNOTATIONS, schema.IMAGES, schema.GRAPH_CLASS, schema.SCORES]
)
def test_every_contract_has_a_name_and_a_version(contract):
    assert contract.metadata[b"version"] == b"1"
    assert contract.metadata[b"schema"].decode() in {"captions", "annotations", "images", "graph_class", "scores"}
    assert schema.check(contract.empty_table(), contract).num_rows == 0
