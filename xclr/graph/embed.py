"""Captions become unit vectors: each distinct caption is encoded once, every row gets its vector."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from numpy.lib.format import open_memmap

from xclr import schema, shards
from xclr.errors import DataError
from xclr.graph.encoder import Encoder, open_encoder
from xclr.graph.stages import EmbeddingsConfig
from xclr.stage import Produced, Progress, Stage

CHUNK = 1024  # captions between two reports of progress, where the encoder does not say
COPY_ROWS = 1 << 16
ROWS_AT_ONCE = 1 << 18  # of the table, written
SAMPLE = 256  # captions that show what a precision costs
NEEDED = ("row_id", "caption", "dup_of")
TOLERANCE = 1e-3  # of a stored vector's norm; half precision leaves about 1e-5

Vectors = npt.NDArray[np.float16]
RowIds = npt.NDArray[np.int64]


def run(stage: Stage[EmbeddingsConfig], out: Path, progress: Progress) -> Produced:
    """Stage "embeddings": captions.parquet -> embeddings.parquet and vectors.npy, float16 [n, d], sorted by row_id.

    Shards that are there already are not encoded again. Raises DataError when the captions' row_id are not 0..n-1, or
    a caption has no direction.
    """
    captions = read_captions(stage.inputs["captions"].path / "captions.parquet", NEEDED)
    firsts, size = distinct(captions), stage.config.shard
    encoder = _encoder(stage.config)
    number = -(-len(firsts) // size)
    for shard in shards.missing(out, number):
        done = min(shard * size, len(firsts))
        _encode_shard(captions, firsts, encoder, shards.Shard(out, shard, size), part_of(progress, done, len(firsts)))
    vectors = open_memmap(out / "vectors.npy", mode="w+", dtype=np.float16, shape=(captions.num_rows, encoder.dim))
    for shard in range(number):
        vectors[firsts[shard * size : (shard + 1) * size]] = np.load(shards.folder(out, shard) / "vectors.npy")
    _copy_to_duplicates(vectors, captions)
    progress(len(firsts), len(firsts))
    about = {"digest": stage.digest, "config": stage.identity, "encoder": encoder.about}
    with schema.writing(out / "embeddings.parquet", schema.embeddings(encoder.dim), about) as part:
        for start in range(0, len(vectors), ROWS_AT_ONCE):
            part(table(vectors[start : start + ROWS_AT_ONCE], start))
    stats = {"rows": len(vectors), "distinct": len(firsts), **encoder.about}
    if stage.config.precision != "float32":
        stats |= precision_loss(vectors, captions, firsts, stage.config.model)
    return Produced(("embeddings.parquet", "vectors.npy"), stats, (shards.SHARDS,))


def run_shard(stage: Stage[EmbeddingsConfig], out: Path, shard: int, progress: Progress) -> None:
    """Encode one shard of the distinct captions, for `run` to find."""
    captions = read_captions(stage.inputs["captions"].path / "captions.parquet", NEEDED)
    place = shards.Shard(out, shard, stage.config.shard)
    _encode_shard(captions, distinct(captions), _encoder(stage.config), place, progress)


def _encoder(config: EmbeddingsConfig) -> Encoder:
    return open_encoder(config.model, config.precision, config.batch_tokens)


def precision_loss(vectors: Vectors, captions: pa.Table, firsts: RowIds, model: str) -> dict[str, float]:
    """What stored vectors lost against float32, on captions at even distances.

    1 - cos of each with itself, and by how much the similarities between them moved.
    """
    rows = firsts[np.unique(np.linspace(0, len(firsts) - 1, SAMPLE).astype(np.int64))]
    exact = open_encoder(model).encode(captions["caption"].take(rows).to_pylist()).astype(np.float64)
    stored = vectors[rows].astype(np.float64)
    lost = np.maximum(0, 1 - (exact * stored).sum(1) / np.linalg.norm(stored, axis=1))
    moved = np.abs(exact @ exact.T - stored @ stored.T)
    return {
        "loss_mean": float(lost.mean()),
        "loss_max": float(lost.max()),
        "similarity_moved": float(moved.mean()),
        "loss_sample": len(rows),
    }


def read_captions(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """The captions by row_id, or some columns, row_id among them; raises DataError unless it is 0..n-1 and n > 0."""
    captions = schema.read(path, schema.CAPTIONS, columns)
    if not captions.num_rows:
        raise DataError(f"{path} has no captions", "check data.path, data.caption_column and data.limit")
    if not _is_dense(captions):  # sorting copies: 1 GiB for a million rows
        captions = captions.sort_by("row_id")
    if not _is_dense(captions):
        raise DataError(f"{path}: row_id is not 0..{captions.num_rows - 1}, each once", "run the captions stage again")
    return captions


def _is_dense(captions: pa.Table) -> bool:
    return np.array_equal(captions["row_id"].to_numpy(), np.arange(captions.num_rows))


def representatives(captions: pa.Table) -> RowIds:
    """For each row [n] the first row with the same caption, which stands for it in graphs."""
    own = captions["row_id"].to_numpy()
    first = captions["dup_of"].combine_chunks()
    return np.asarray(np.where(first.is_null(), own, first.fill_null(-1)), dtype=np.int64)


def distinct(captions: pa.Table) -> RowIds:
    """Rows that are the first with their caption, ascending."""
    return np.flatnonzero(captions["dup_of"].combine_chunks().is_null()).astype(np.int64)


def embed_captions(captions: pa.Table, encoder: Encoder, path: Path, progress: Progress) -> Vectors:
    """Encode each distinct caption once and write every row's vector to the .npy file `path`, memory-mapped.

    `captions` is as read_captions returns it; the result is float16 [n, d] with unit rows. Raises DataError when a
    vector is not finite or has no norm.
    """
    vectors = open_memmap(path, mode="w+", dtype=np.float16, shape=(captions.num_rows, encoder.dim))
    firsts = distinct(captions)
    for rows, units in _encoded(captions, firsts, encoder, progress):
        vectors[rows] = units
    _copy_to_duplicates(vectors, captions)
    return vectors


def _encoded(
    captions: pa.Table, rows: RowIds, encoder: Encoder, progress: Progress
) -> Iterator[tuple[RowIds, Vectors]]:
    """Unit vectors of the captions of `rows`, chunk by chunk."""
    done = 0
    for chunk in _by_length(captions, rows, getattr(encoder, "chunk", CHUNK)):
        yield chunk, _units(encoder.encode(captions["caption"].take(chunk).to_pylist()), chunk, captions)
        done += len(chunk)
        progress(done, len(rows))


def _encode_shard(
    captions: pa.Table, firsts: RowIds, encoder: Encoder, place: shards.Shard, progress: Progress
) -> None:
    rows = firsts[place.shard * place.size : (place.shard + 1) * place.size]
    vectors = np.empty((len(rows), encoder.dim), dtype=np.float16)
    for chunk, units in _encoded(captions, rows, encoder, progress):
        vectors[np.searchsorted(rows, chunk)] = units
    with shards.writing(place) as folder:
        np.save(folder / "vectors.npy", vectors)


def part_of(progress: Progress, done: int, total: int) -> Progress:
    """Progress of a shard as progress of the whole."""

    def of_all(more: int, _: int, ok: int | None = None, /) -> None:
        progress(done + more, total)

    return of_all


def _copy_to_duplicates(vectors: Vectors, captions: pa.Table) -> None:
    """Give each row the vector of the first row with its caption."""
    sources = representatives(captions)
    copies = np.flatnonzero(sources != np.arange(len(sources)))
    for start in range(0, len(copies), COPY_ROWS):
        rows = copies[start : start + COPY_ROWS]
        vectors[rows] = vectors[sources[rows]]
    vectors.flush()  # type: ignore[attr-defined]


def table(vectors: Vectors, first: int = 0) -> pa.Table:
    """The embeddings table of float16 vectors [n, d] of the rows from `first` on, without a copy of them."""
    rows, dim = vectors.shape
    vec = pa.FixedSizeListArray.from_arrays(pa.array(np.asarray(vectors).reshape(-1)), dim)
    ids = np.arange(first, first + rows, dtype=np.int64)
    return pa.table({"row_id": ids, "vec": vec}, schema=schema.embeddings(dim))


def _by_length(captions: pa.Table, rows: RowIds, size: int) -> Iterator[RowIds]:
    """Chunks of rows, long captions first: little padding, and the largest batch shows at once that it fits."""
    lengths = pc.utf8_length(captions["caption"].take(rows)).to_numpy()
    ordered = rows[np.argsort(-lengths, kind="stable")]
    return (ordered[start : start + size] for start in range(0, len(ordered), size))


def _units(vectors: npt.NDArray[np.float32], rows: RowIds, captions: pa.Table) -> Vectors:
    """Normalised and rounded to half precision; raises DataError naming the first caption without a direction."""
    with np.errstate(invalid="ignore", divide="ignore"):
        units: Vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
    norms = np.linalg.norm(units.astype(np.float32), axis=1)
    wrong = np.flatnonzero(~(np.abs(norms - 1) < TOLERANCE))  # NaN is wrong too
    if len(wrong):
        row = int(rows[wrong[0]])
        raise DataError(
            f"the text model gives no unit vector for {len(wrong)} captions, first row {row}: "
            f"{captions['caption'][row].as_py()!r}",
            "check the model's files (embed.model), or take these captions out of the data",
        )
    return units
