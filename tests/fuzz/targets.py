"""What reads bytes of strangers, each with a few inputs to begin with."""

from __future__ import annotations

import io
import tarfile
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml
from PIL import Image
from safetensors.torch import save

from infra.ledger import Entry, JobState
from infra.processes import now
from tests.fuzz import files, servers
from tests.fuzz.files import DIGEST
from tests.fuzz.target import Target
from tests.kit.recipes import TINY
from tests.kit.tars import between, member, pax
from xclr.artifact import Manifest, Usage
from xclr.errors import RecipeError
from xclr.recipe.load import RECIPES


def encoded(kind: str, **options: object) -> bytes:
    """A small picture."""
    stream = io.BytesIO()
    Image.radial_gradient("L").resize((24, 16)).convert("P" if kind == "GIF" else "RGB").save(stream, kind, **options)
    return stream.getvalue()


def _parquet() -> bytes:
    stream = io.BytesIO()
    table = {
        "caption": ["a dog", None],
        "image": [b"x", b"y"],
        "tags": [["a"], []],
        "at": pa.array([1, 2], "timestamp[ns]"),
    }
    pq.write_table(pa.table(table), stream)
    return stream.getvalue()


def _weights() -> bytes:
    stream = io.BytesIO()
    torch.save({"state_dict": {"conv1.weight": torch.ones(2, 3)}, "epoch": 3}, stream)
    return stream.getvalue()


def _mit_states() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for pair in ("ancient bear", "bright bear", "ancient clock", "adj cat"):
            info = tarfile.TarInfo(f"images/{pair}/0.jpg")
            info.size = len(PNG)
            tar.addfile(info, io.BytesIO(PNG))
    return stream.getvalue()


PNG = encoded("PNG")
TURNED = b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: %d\r\n\r\n" % len(PNG)
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n3;x=y\r\nefg\r\n0\r\n\r\n"
MOVED = b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n"
BUSY = b"HTTP/1.1 503 Later\r\nRetry-After: 1\r\nContent-Encoding: gzip\r\nX-Robots-Tag: noai\r\n\r\n"
PART = b"HTTP/1.1 206 Part\r\nETag: x\r\nContent-Range: bytes 0-3/4\r\nContent-Length: 4\r\n\r\nabcd"
ENTRY = Entry(
    digest=DIGEST, kind="graph", stage="graph", run="r", attempt=1, owner="host/1/1", job="slurm/7",
    claimed=now(), ended=now(), state=JobState.FAILED,
)  # fmt: skip
USAGE = Usage(gpu_hours=1, cpu_hours=2, cpu_efficiency=0.5, jobs=1)
MANIFEST = Manifest(
    kind="graph", digest=DIGEST, inputs=("1" * 32,), config={"k": 5}, code=1, files=(), stats={}, created="now"
)
TARGETS = {
    "pictures": Target(
        (*map(encoded, ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")), encoded("JPEG", progressive=True, exif=TURNED)),
        files.pictures,
    ),
    "tars": Target(
        (between(b""), between(pax(b"path", b"long/x.jpg") + member(b"x.jpg", b"p"))),
        files.refusing("x.tar", files.read_tar),
    ),
    "CSV": Target(
        (b'caption,image\r\n"a ""red"" dog",a.jpg\r\n\xc3\xa9,b.jpg\r\n',), files.refusing("x.csv", files.read_table)
    ),
    "JSON lines": Target(
        (b'{"caption": "a", "n": 1e3}\n{"caption": "\\ud83d\\ude00", "n": null}\n',),
        files.refusing("x.jsonl", files.read_table),
    ),
    "Parquet": Target((_parquet(),), files.refusing("x.parquet", files.read_table)),
    "weights": Target((_weights(),), files.refusing("x.pt", files.read_weights, RecipeError)),
    "safetensors": Target(
        (save({"conv1.weight": torch.ones(2, 3)}),), files.refusing("x.safetensors", files.read_weights, RecipeError)
    ),
    "ReaL": Target((b"[[0], [], [2, 0], [1]]",), files.refusing("real.json", files.read_benchmark("real"))),
    "MIT-States": Target((_mit_states(),), files.refusing("x.tar", files.read_benchmark("mit-states"))),
    "recipes": Target(
        (yaml.safe_dump(TINY).encode(), *(path.read_bytes() for path in sorted(RECIPES.glob("[ec]*.yaml")))),
        files.recipes,
    ),
    "--set": Target(
        (b"train.epochs=2", b"objective.target_temperature=0.1", b"evaluate.suites=[linear, knn]", b"data.path=~/x"),
        files.settings,
    ),
    "manifests": Target((MANIFEST.model_dump_json(indent=1).encode(),), files.manifests),
    "ledger": Target((ENTRY.model_dump_json().encode(),), files.ledger("0001.json", lambda book: book.latest(DIGEST))),
    "usage": Target((USAGE.model_dump_json().encode(),), files.ledger("usage.json", lambda book: book.usage(DIGEST))),
    "answers": Target((HEAD + PNG, CHUNKED, MOVED, BUSY), servers.pictures),
    "Retry-After": Target(
        (b"120", b"1.5", b"Mon, 30 Nov 2026 02:38:33 GMT"), partial(servers.pictures, around=servers.WAITS)
    ),
    "tables' answers": Target((HEAD + PNG, CHUNKED, MOVED, PART), servers.tables),
}
