"""The data sets of MLflow's runs: what a network was trained and judged on, and the files that all of it comes from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.lineage import SHORT, Link, Links, Source, artifact_of, behind, lines_of, tops, trace
from xclr.artifact import Artifact
from xclr.recipe import SOURCES, DataConfig, Recipe
from xclr.stage import Stage
from xclr.store import Store

if TYPE_CHECKING:
    import pyarrow as pa
    from mlflow.entities import DatasetInput
    from mlflow.types.schema import Array, DataType, Object

CONTEXT = "mlflow.data.context"
JUDGED, SOURCE = "evaluation", "source"  # contexts; what a training reads has its role there
DIGEST = 32  # letters; MLflow takes 36


def inputs_of(stage: Stage, artifact: Artifact, recipe: Recipe) -> list[DatasetInput]:
    """What a run is told of the data of a stage that makes or judges its network, or of the run of the data.

    A training's inputs by their roles, a suite's data sets, and the files that these come from.
    """
    store = Store.of(artifact.path)
    if stage.network == stage.digest:  # it may not be there yet
        links = trace(store, stage.inputs.values())
        read = [(links[str(each.digest)], role) for role, each in stage.inputs.items()]
        return [*(_dataset(links, each, recipe.data, role) for each, role in read), *_sources(links)]
    links = trace(store, [artifact])
    if stage.kind.judges:
        judged = _judged(links, str(artifact.digest), str(stage.network))
        below = {str(artifact.digest), *judged}.union(*(behind(links, each) for each in judged))
        sources = _sources({each: link for each, link in links.items() if each in below})
        return [*(_dataset(links, links[each], recipe.judged, JUDGED) for each in judged), *sources]
    return list(_sources({str(artifact.digest): links[str(artifact.digest)]})) if stage.network is None else []


def lineage_files(store: Store, digests: Sequence[str]) -> dict[str, bytes]:
    """Files that say what artifacts were made of: lineage.json for programs, lineage.txt for people."""
    links = trace(store, [artifact_of(store, each) for each in digests])
    chain = [each.model_dump() for each in links.values()]
    lines = lines_of(links, tops(links, digests))
    return {"lineage.json": json.dumps(chain, indent=1).encode(), "lineage.txt": "\n".join(lines).encode()}


def schema_of(columns: pa.Schema) -> str:
    """Columns as MLflow's pages show them."""
    from mlflow.types.schema import ColSpec, Schema

    specs = [ColSpec(_type_of(each.type), each.name, required=not each.nullable) for each in columns]
    return json.dumps({"mlflow_colspec": Schema(specs).to_dict()})


def _judged(links: Links, suite: str, checkpoint: str) -> list[str]:
    """The tables that joined a network's outputs on their way to a suite: what is not made of the network."""
    waiting, found = [suite], list[str]()
    while waiting:
        for each in links[waiting.pop()].inputs:
            if checkpoint in behind(links, each):
                waiting.append(each)
            elif each != checkpoint and each not in found and links[each].rows is not None:
                found.append(each)
    return found


def _dataset(links: Links, link: Link, data: DataConfig, context: str) -> DatasetInput:
    name = link.part if link.part and link.given else f"{_called(data)} {link.title}"
    facts = {"num_rows": link.rows, "bytes": link.bytes, "made_of": _origins(links, link) or None}
    return _input(name, link.digest, {"uri": link.path}, facts, context)


def _called(data: DataConfig) -> str:
    """What people call a recipe's data."""
    return data.path.name if SOURCES[data.source].own and data.path else data.source


def _origins(links: Links, link: Link) -> str:
    """The artifacts that one was made of, and the files that no stage made, by what they are called here."""
    made = [f"{each.title} {each.digest[:SHORT]}" for each in map(links.__getitem__, link.inputs)]
    return ", ".join([*made, *(Path(path).name for each in link.given for path in each.paths)])


def _sources(links: Links) -> Iterator[DatasetInput]:
    """The files that no stage made, each once."""
    given = [each for link in reversed([*links.values()]) for each in link.given if each.paths]
    for each in {(each.paths, each.sha256): each for each in given}.values():
        yield _source(each)


def _source(source: Source) -> DatasetInput:
    first, whole = Path(source.paths[0]), "\n".join(source.sha256)
    digest = source.sha256[0] if len(source.sha256) == 1 else hashlib.sha256(whole.encode()).hexdigest()
    more = f" and {len(source.paths) - 1} more" if len(source.paths) > 1 else ""
    place = {"url": source.url} if source.url else {"uri": str(first)}
    facts = {"bytes": source.bytes, "version": source.version}
    facts |= {"sha256": ", ".join(source.sha256), "paths": ", ".join(source.paths)}
    return _input(f"{source.what}: {first.name}{more}", digest[:DIGEST], place, facts, SOURCE, first)


def _input(
    name: str, digest: str, place: dict[str, str], facts: dict[str, Any], context: str, table: Path | None = None
) -> DatasetInput:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    profile = json.dumps({key: value for key, value in facts.items() if value is not None})
    kind, schema = "http" if "url" in place else "local", _schema(table or Path(place["uri"]))
    return DatasetInput(Dataset(name, digest, kind, json.dumps(place), schema, profile), [InputTag(CONTEXT, context)])


def _schema(path: Path) -> str | None:
    """The columns of a Parquet file; None for another, and for one that is gone or damaged."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with suppress(OSError, pa.ArrowException):
        if path.suffix == ".parquet":
            return schema_of(pq.read_schema(path))
    return None


def _type_of(kind: pa.DataType) -> DataType | Array | Object:
    import pyarrow as pa
    from mlflow.types.schema import Array, DataType, Object, Property

    types = pa.types
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return Array(_type_of(kind.value_type))
    if types.is_struct(kind):
        return Object([Property(each.name, _type_of(each.type), required=not each.nullable) for each in kind])
    if types.is_dictionary(kind):
        return _type_of(kind.value_type)
    known = {
        DataType.boolean: types.is_boolean(kind),
        DataType.integer: types.is_integer(kind) and kind.bit_width <= 32 and kind != pa.uint32(),
        DataType.long: types.is_integer(kind),
        DataType.float: types.is_floating(kind) and kind.bit_width <= 32,
        DataType.double: types.is_floating(kind) or types.is_decimal(kind),
        DataType.datetime: types.is_temporal(kind),
        DataType.binary: types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind),
    }
    return next((each for each, fits in known.items() if fits), DataType.string)
