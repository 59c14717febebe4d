"""A finished run from Python: its backbones, what they see and say, its scores, captions and graph."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from xclr.artifact import Artifact, Digest, Manifest
from xclr.captions.stages import CAPTIONS
from xclr.environment import setting
from xclr.errors import StoreError
from xclr.evaluation.stages import SUITE
from xclr.images.picture import opened
from xclr.pipeline import KINDS
from xclr.recipe import method_name
from xclr.record import RUNS, Record, read_records, records_named
from xclr.stage import network_name
from xclr.store import MANIFEST, Store
from xclr.training.stages import PRETRAIN, PretrainConfig, origin

if TYPE_CHECKING:
    import pyarrow as pa
    import torch
    from PIL import Image
    from torch import Tensor, nn

    from xclr.evaluation.networks.network import Network
    from xclr.evaluation.vectors import Written
    from xclr.images.listing import Listing
    from xclr.release import About, Released


@dataclass(frozen=True)
class Trained:
    """A finished network of a run, as tables name it, and the artifact that it is in."""

    method: str
    graph: str  # where its targets come from
    seed: int
    checkpoint: Artifact
    manifest: Manifest

    @property
    def called(self) -> str:
        """Method, graph and seed, as a person tells networks apart."""
        return network_name(self.method, self.graph, self.seed)

    def open(self, device: torch.device | None = None) -> Network:
        """The frozen backbone, in evaluation mode, on a GPU where there is one; raises StoreError for damaged files.

        device: where it goes instead.
        """
        from xclr.evaluation.networks.network import open_network

        Store.of(self.checkpoint.path).check(self.checkpoint)
        return open_network(self.checkpoint, device)

    def released(self, about: About) -> Released:
        """The backbone that was trained here, on the CPU, with all that an export says of it."""
        from xclr.release import Released
        from xclr.training.views import PLAIN

        network, config = self.open(), PretrainConfig.model_validate(self.manifest.config)
        return Released(network.backbone.cpu(), network.width, config.train, network.preparation, PLAIN, about)


class Opened:
    """A run of a HOME. What its data were made from need not be there any more: all is read from its artifacts."""

    def __init__(self, home: Path, record: Record) -> None:
        self.store, self.record = Store(home), record

    def __repr__(self) -> str:
        return f"<run {self.record.run} of {self.store.home}: {self.record.state}>"

    @cached_property
    def made(self) -> dict[Artifact, Manifest]:
        """What the run refers to and is there, with its manifest."""
        digests = [*self.record.digests, *([self.record.scores] if self.record.scores else [])]
        found = [
            self.store.reference(Digest(kind, digest))
            for kind in KINDS
            for digest in dict.fromkeys(digests)
            if (self.store.folder(kind, digest) / MANIFEST).exists()
        ]
        return {each: self.store.manifest(each) for each in found}

    def networks(self) -> tuple[Trained, ...]:
        """Every network that is finished, references among them, in the order in which they were planned."""
        return tuple(_networks(self.made.items(), self.record.digests))

    def network(self, method: str | None = None, seed: int | None = None, graph: str | None = None) -> Trained:
        """The network of a method; of several seeds or graphs the first of the recipe.

        Raises StoreError with the networks that there are when none is finished or called so, and when no method is
        named though there are several.
        """
        there = self.networks()
        if not there:
            raise StoreError(
                f"no network of {self.record.run} is finished ({self.record.state})", f"xclr retry {self.record.run}"
            )
        wanted = {"method": method, "seed": seed, "graph": graph}
        asked = {name: value for name, value in wanted.items() if value is not None}
        self._check_finished(there, method, seed)
        found = [each for each in there if all(getattr(each, name) == value for name, value in asked.items())]
        methods = {each.method for each in found}
        if len(methods) != 1:
            said = ", ".join(f"{name} {value}" for name, value in asked.items())
            what = f"networks of {len(methods)} methods" if methods else f"no finished network of {said}"
            named = ", ".join(dict.fromkeys(each.called for each in found or there))
            raise StoreError(f"{self.record.run} has {what}", f"name one: {named}")
        return found[0]

    def backbone(self, method: str | None = None, seed: int | None = None, graph: str | None = None) -> nn.Module:
        """The frozen backbone in evaluation mode, on the CPU: float32 [b, 3, s, s] to features [b, F]."""
        return self.network(method, seed, graph).open().backbone.cpu()

    def preprocess(
        self, method: str | None = None, seed: int | None = None, graph: str | None = None
    ) -> Callable[[Image.Image | Path | str | bytes], Tensor]:
        """What a picture, or a path or bytes of one, is turned into for the backbone: float32 [3, s, s]."""
        from PIL.Image import Image as Decoded

        from xclr.evaluation.networks.pictures import normalised, pixels

        how = self.network(method, seed, graph).open().preparation

        def prepare(picture: Image.Image | Path | str | bytes) -> Tensor:
            with nullcontext(picture) if isinstance(picture, Decoded) else opened(_bytes(picture)) as decoded:
                return normalised(pixels(decoded, how)[None], how)[0]

        return prepare

    def embed(
        self, pictures: Path | str | Listing, out: Path | str, method: str | None = None, seed: int | None = None
    ) -> Written:
        """Write the vectors of any pictures, those of a folder, a table or tars, to a Parquet file (schema `vectors`).

        What the command `xclr embed` does, with the rows, their width and what could not be read as its answer. Raises
        what `list_pictures` and `write_vectors` raise.
        """
        from xclr.evaluation.vectors import write_vectors
        from xclr.images.listing import list_pictures

        network = self.network(method, seed)
        listed = list_pictures(pictures) if isinstance(pictures, Path | str) else pictures
        return write_vectors(network.open, listed, Path(out), self.about(network))

    def about(self, network: Trained) -> dict[str, str | int]:
        """What names a network of the run in the metadata of a file."""
        return {
            "run": self.record.run,
            "method": network.method,
            "graph": network.graph,
            "seed": network.seed,
            "checkpoint": str(network.checkpoint.digest),
        }

    def features(self, method: str | None = None, seed: int | None = None, graph: str | None = None) -> pa.Table:
        """The backbone's features of the run's own pictures: row_id and vector, float16 [F], sorted by row_id.

        And id and path, what the data call each row and its picture, where they do. Of a large set a sample, where no
        suite wanted all. Raises StoreError where they are not there.
        """
        import pyarrow as pa

        from xclr.evaluation.data import load_features

        network = self.network(method, seed, graph)
        features = self._one("features", made_of=network.checkpoint)
        stored = load_features(features.path)
        width = stored.vectors.shape[1]
        flat = pa.array(stored.vectors.reshape(-1))
        vectors = pa.FixedSizeListArray.from_arrays(flat, width)
        made_of = self.made[features].inputs
        captions = next((each for each in self.made if each.kind == "captions" and str(each.digest) in made_of), None)
        return _named(pa.table({"row_id": stored.rows, "vector": vectors}), captions)

    def scores(self) -> pa.Table:
        """Every score of the run, by network, suite, split and metric (schema SCORES)."""
        from xclr import schema

        if self.record.scores is None:
            swept = self.record.sweep is not None
            remedy = f"xclr compare --sweep {self.record.called} --json" if swept else f"xclr retry {self.record.run}"
            raise StoreError(f"{self.record.run} has no table of scores of its own ({self.record.state})", remedy)
        return schema.read(self._one("comparison").path / "scores.parquet", schema.SCORES)

    def captions(self) -> pa.Table:
        """The captions, and the names of their classes in the column `class` (schema CAPTIONS).

        And id and path, what the data call each row and its picture, where they do.
        """
        import pyarrow as pa

        from xclr import schema

        captions = self._one("captions")
        folder = captions.path
        table = schema.read(folder / "captions.parquet", schema.CAPTIONS).sort_by("row_id")
        names: list[str] = []
        if (folder / "classes.parquet").exists():
            names = schema.read(folder / "classes.parquet", schema.CLASSES).sort_by("label")["name"].to_pylist()
        classes = pa.array(names, pa.string()).take(table["label"].combine_chunks())
        return _named(table.append_column("class", classes), captions)

    def graph(self) -> pa.Table:
        """The nearest captions of each row: src, and lists dst and sim of k, descending (schema graph_knn)."""
        import pyarrow.parquet as pq

        return pq.read_table(self._one("graph").path / "graph_knn.parquet")

    def export(
        self, network: Trained, form: str = "safetensors", out: Path | None = None, *, force: bool = False
    ) -> Path:
        """Write a network's backbone for other libraries into a folder, `out` or one of HOME/exports; returns where.

        form: safetensors, torchvision, timm, onnx or hf. Raises RecipeError for a form that cannot hold the backbone,
        StoreError for a network from elsewhere and, without `force`, where the folder holds another export.
        """
        from xclr.release import FILES, check_format, put, write_export

        about = self._about(network)
        train = PretrainConfig.model_validate(network.manifest.config).train
        check_format(form, train)
        if out is None:
            name = f"{self.record.run} {network.method} {network.graph} seed {network.seed} {form}"
            out = self.store.home / "exports" / re.sub(r"[^A-Za-z0-9._=-]+", "-", name)
        released = network.released(about)
        put(out.absolute(), lambda folder: write_export(released, form, folder), names=FILES, force=force)
        return out.absolute()

    def _one(self, kind: str, made_of: Artifact | None = None) -> Artifact:
        """The newest finished artifact of a kind whose files are as they were written."""
        found = [
            each
            for each, manifest in self.made.items()
            if each.kind == kind and (made_of is None or str(made_of.digest) in manifest.inputs)
        ]
        if not found:
            raise StoreError(f"{self.record.run} has no {kind} in {self.store.home}", f"xclr retry {self.record.run}")
        self.store.check(found[-1])
        return found[-1]

    def _check_finished(self, there: Iterable[Trained], method: str | None, seed: int | None) -> None:
        """Raise StoreError for a method and seed that the run was to train and has not."""
        if any(each.method == method and seed in {None, each.seed} for each in there):
            return
        recipes = self.record.recipes
        methods = {method_name(objective) for recipe in recipes for objective in recipe.objectives}
        if method in methods and (seed is None or any(seed in recipe.seeds for recipe in recipes)):
            state, run = self.record.state, self.record.run
            raise StoreError(
                f"the training of {method} in {run} has not finished ({state})",
                "wait for it; see xclr status" if state == "running" else f"xclr retry {run}",
            )

    def _about(self, network: Trained) -> About:
        """What a card says; raises StoreError for a network that this run did not train."""
        from xclr import schema
        from xclr.release import About

        if network.checkpoint.kind != PRETRAIN.name:
            raise StoreError(
                f"{network.method} is a network from elsewhere, whose weights {self.record.run} only judged",
                "take them from its library",
            )
        config = PretrainConfig.model_validate(network.manifest.config)
        judged = [
            each.path / "scores.parquet"
            for each, manifest in self.made.items()
            if each.kind == SUITE.name and str(network.checkpoint.digest) in manifest.inputs
        ]
        read = ((each, manifest) for each, manifest in self.made.items() if str(each.digest) in network.manifest.inputs)
        rows = (manifest.stats.get("rows") for each, manifest in read if each.kind == CAPTIONS.name)
        return About(
            origin=origin(config),
            objective=config.objective,
            stats=network.manifest.stats,
            digest=str(network.checkpoint.digest),
            rows=next(rows, None),
            scores=[row for path in judged for row in schema.read(path, schema.SCORES).to_pylist()],
            recipe=self.record.recipe if self.record.sweep is None else None,
        )


def open_run(place: str | Path | None = None, run: str | None = None) -> Opened:
    """The newest run of a HOME that completed, or of those that `run` names by their id or recipe; else the newest.

    place: a HOME, or the name of a run in the one that XCLR_HOME names, else .xclr. Raises StoreError when there is
    no such run, with the names that there are.
    """
    home = Path(setting("XCLR_HOME") or ".xclr")
    if place is not None and (Path(place) / RUNS).is_dir():
        home = Path(place)
    elif place is not None and run is None:
        run = str(place)
    return run_of(home.absolute(), run)


def run_of(home: Path, run: str | None) -> Opened:
    """As `open_run`, of the HOME that is given."""
    records = records_named(home, read_records(home, Record), run)
    return Opened(home, next((each for each in reversed(records) if each.state == "completed"), records[-1]))


def _networks(made: Iterable[tuple[Artifact, Manifest]], order: tuple[str, ...]) -> Iterator[Trained]:
    places = {digest: place for place, digest in enumerate(order)}
    for artifact, manifest in sorted(made, key=lambda each: places.get(str(each[0].digest), len(places))):
        kind = KINDS[artifact.kind]
        if kind.network is not None:
            origin = kind.network(kind.config.model_validate(manifest.config))
            yield Trained(origin.method, origin.graph, origin.seed, artifact, manifest)


def _named(table: pa.Table, captions: Artifact | None) -> pa.Table:
    """A table with what people call its rows and their pictures, in the columns id and path, where captions have it."""
    from xclr.captions.shared import names_of

    names = None if captions is None else names_of(captions.path)
    if names is None:
        return table
    of_rows = names.take(table["row_id"])
    return table.append_column("id", of_rows["id"]).append_column("path", of_rows["path"])


def _bytes(picture: Path | str | bytes) -> bytes:
    return picture if isinstance(picture, bytes) else Path(picture).read_bytes()
