"""The Parquet contracts: one schema a table, versioned, checked when read and when written."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from xclr.errors import DataError
from xclr.recipe.scenes import FACTORS

VERSION = 1


def _schema(name: str, *fields: pa.Field[Any]) -> pa.Schema:
    return pa.schema(fields, metadata={"schema": name, "version": str(VERSION)})


def required(name: str, kind: pa.DataType) -> pa.Field[Any]:
    """A column without nulls."""
    return pa.field(name, kind, nullable=False)


CAPTIONS = _schema(
    "captions",
    required("row_id", pa.int64()),  # dense from 0
    required("key", pa.binary(16)),  # of the sample, stable over runs
    required("dataset", pa.string()),
    pa.field("url", pa.string()),
    required("caption", pa.string()),  # NFC, single spaces
    required("caption_key", pa.binary(16)),
    pa.field("dup_of", pa.int64()),  # first row with this caption
    pa.field("label", pa.int32()),  # class of the sample
    required("split", pa.string()),
)
ANNOTATIONS = _schema(  # the emoji's further labels, one row for every captions row
    "annotations",
    required("row_id", pa.int64()),
    required("subgroup", pa.int32()),
    required("group", pa.int32()),
    required("tags", pa.list_(pa.string())),
)
SHARED_PICTURES = _schema(  # where pictures have several captions: which rows show one
    "shared_pictures",
    required("row_id", pa.int64()),
    required("first", pa.int64()),  # the first row with this picture
)
CLASSES = _schema(  # what the labels of the captions stand for
    "classes",
    required("label", pa.int32()),  # sorted
    required("name", pa.string()),  # as a caption would call it
    pa.field("synset", pa.string()),  # of WordNet 3.0, as in n02084071
)
PLACES = _schema(  # where the pictures of a source with tars lie, one row for every captions row
    "places",
    required("row_id", pa.int64()),
    required("file", pa.string()),  # below data.path
    required("offset", pa.int64()),
    required("size", pa.int64()),
)
NAMES = _schema(  # what people call the rows of captions and their pictures, one row for every captions row
    "names",
    required("row_id", pa.int64()),
    pa.field("id", pa.string()),  # of data.id_column
    pa.field("path", pa.string()),  # as the source says it: below data.path, of tars the file, a colon and the sample
)
SCENES = _schema(  # what is true of drawn scenes, one row for every captions row
    "scenes",
    required("row_id", pa.int64()),
    *(required(name, pa.string()) for name in FACTORS),
    required("radius", pa.float32()),  # of the object, in shares of the picture's side
    required("turn", pa.float32()),  # radians
    required("wrong", pa.bool_()),  # the caption tells of another scene
)
ITEMS = _schema(  # the pictures of a benchmark
    "items",
    required("row_id", pa.int64()),  # dense from 0
    required("name", pa.string()),  # of the file, below the data set's folder
    required("split", pa.string()),
    required("targets", pa.list_(pa.field("item", pa.int64()))),  # every class that counts as right
    pa.field("attribute", pa.int64()),
)
ACCOUNTS = _schema(  # pictures by shard and status
    "accounts",
    required("shard", pa.int32()),
    required("status", pa.string()),
    required("rows", pa.int64()),
)
TAXONOMY = _schema(
    "taxonomy",
    required("synset", pa.string()),
    required("name", pa.string()),  # as in dog.n.01
    required("hypernyms", pa.list_(pa.string())),  # and instance hypernyms
)
IMAGES = _schema(
    "images",
    required("row_id", pa.int64()),
    required("status", pa.string()),
    pa.field("http", pa.int16()),
    pa.field("error", pa.string()),
    required("attempt", pa.int8()),
    pa.field("bytes", pa.int64()),
    pa.field("width", pa.int32()),
    pa.field("height", pa.int32()),
    pa.field("sha256", pa.string()),
    pa.field("shard", pa.int32()),
    pa.field("offset", pa.int64()),
    pa.field("size", pa.int32()),
)
GRAPH_CLASS = _schema(
    "graph_class", required("src", pa.int16()), required("dst", pa.int16()), required("sim", pa.float32())
)
GRAPH_EDGES = _schema(  # of rows that stand for what is called the same, each pair once, src < dst, sorted
    "graph_edges", required("src", pa.int64()), required("dst", pa.int64()), required("sim", pa.float32())
)
NODES = _schema(  # which rows the edges of a graph are between
    "nodes",
    required("row_id", pa.int64()),
    required("node", pa.int64()),  # the first row that is called the same
)
SCORES = _schema(
    "scores",
    required("run", pa.string()),
    required("method", pa.string()),
    required("dataset", pa.string()),
    required("graph", pa.string()),
    required("seed", pa.int64()),
    required("checkpoint", pa.string()),
    required("step", pa.int64()),
    required("suite", pa.string()),
    required("split", pa.string()),
    required("metric", pa.string()),
    required("value", pa.float64()),
    required("n", pa.int64()),
    pa.field("ci95", pa.float64()),  # half width
    required("ci_kind", pa.string()),
    pa.field("rate", pa.string()),  # optimiser and highest learning rate
    pa.field("uses", pa.string()),  # what the network learned from
    pa.field("trained", pa.string()),  # how, where that is otherwise than the recipe's other networks
    pa.field("remark", pa.string()),  # what a reader of the value must know, as for which classes alone it holds
)


def predictions(kind: pa.DataType) -> pa.Schema:
    """A suite's answers: the targets that count as right, the prediction, both of type `kind`, and whether it is right.

    `right` is null where an answer is not simply right or wrong.
    """
    return _schema(
        "predictions",
        required("row_id", pa.int64()),
        required("split", pa.string()),
        required("target", pa.list_(pa.field("item", kind))),
        required("prediction", kind),
        pa.field("right", pa.bool_()),
    )


def embeddings(dim: int) -> pa.Schema:
    """row_id (sorted) and its unit vector in half precision."""
    return _schema(
        "embeddings", required("row_id", pa.int64()), required("vec", pa.list_(pa.field("item", pa.float16()), dim))
    )


def vectors(dim: int, name: pa.Field[Any] | None = None) -> pa.Schema:
    """Pictures anywhere, each with what a network makes of it; `name` is the column by which their table knows them."""
    return _schema(
        "vectors",
        pa.field("file", pa.string()),  # below the folder, in the tar or as the table calls it
        required("row", pa.int64()),  # place in the source, from 0, counting those that cannot be read
        *([] if name is None else [name]),
        required("vector", pa.list_(pa.field("item", pa.float32()), dim)),
    )


def graph_knn(k: int) -> pa.Schema:
    """The k nearest neighbours of each row: descending, without self, ties by dst, padded with -1 and NaN."""
    return _schema(
        "graph_knn",
        required("src", pa.int64()),
        required("dst", pa.list_(pa.field("item", pa.int64()), k)),
        required("sim", pa.list_(pa.field("item", pa.float32()), k)),
        required("count", pa.int32()),
    )


def check(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return the table if columns, types and nulls are the schema's; raises DataError naming the column."""
    name = (schema.metadata or {}).get(b"schema", b"table").decode()
    for field in schema:
        if field.name not in table.column_names:
            raise DataError(f"{name}: no column {field.name!r}", "columns there are: " + ", ".join(table.column_names))
        column = table.column(field.name)
        if not column.type.equals(field.type):
            raise DataError(f"{name}: column {field.name!r} is {column.type}, not {field.type}", "write it again")
        if not field.nullable and column.null_count:
            raise DataError(f"{name}: column {field.name!r} has {column.null_count} nulls", "write it again")
    return table


def write(table: pa.Table, path: Path, schema: pa.Schema, about: Mapping[str, Any]) -> None:
    """Write a checked table as zstd Parquet; schema name, version and `about` (digest, config) go to its metadata."""
    check(table, schema)
    with writing(path, schema, about) as part:
        part(table)


@contextmanager
def writing(path: Path, schema: pa.Schema, about: Mapping[str, Any]) -> Iterator[Callable[[pa.Table], None]]:
    """Write a table in parts, each checked, to one file as `write` makes it.

    Vectors are written plainly: they do not compress, and with a dictionary they are read at a fifth of the speed.
    """
    metadata = {**(schema.metadata or {}), b"about": json.dumps(about, sort_keys=True, default=str).encode()}
    stamped = schema.with_metadata(metadata)
    plain = any(each.name in {"vec", "vector"} for each in schema)
    how: dict[str, Any] = {"compression": "none", "use_dictionary": False} if plain else {"compression": "zstd"}
    with pq.ParquetWriter(path, stamped, **how) as writer:

        def part(table: pa.Table) -> None:
            check(table, schema)
            writer.write_table(table.select(schema.names).cast(schema).replace_schema_metadata(metadata))

        yield part


def read(path: Path, schema: pa.Schema, columns: Sequence[str] | None = None) -> pa.Table:
    """Read and check a table, or some of its columns; one that may be null, and came after the file, is null."""
    wanted = schema if columns is None else pa.schema([schema.field(name) for name in columns], schema.metadata)
    there = pq.read_schema(path).names
    table = pq.read_table(path, columns=None if columns is None else [c for c in columns if c in there])
    for field in wanted:
        if field.nullable and field.name not in there:
            table = table.append_column(field, pa.nulls(table.num_rows, field.type))
    return check(table, wanted)
