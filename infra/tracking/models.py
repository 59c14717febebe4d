"""Networks as MLflow's logged models, which mlflow.pytorch.load_model opens without this project; the registry."""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Callable
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from infra.tracking.described import NOTE
from xclr.artifact import Artifact
from xclr.recipe import TrainConfig

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel
    from mlflow.entities import Run as MlflowRun
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.store.artifact.artifact_repository import ArtifactRepository
    from torch import nn
    from torch.export import ExportedProgram

    from xclr.evaluation.networks.network import Network

DIGEST = "digest"  # tag: of the pretraining
SHARED = (DIGEST, "method", "dataset", "graph", "seed")  # tags of a run that its model has too
KIND = "backbone"  # as MLflow's pages call what a model is
FLAVOUR, DATA, PROGRAM = "pytorch", "data", "model.pt2"  # what mlflow.pytorch.load_model looks for
NEEDS = ("torch", "torchvision", "numpy", "pillow")  # the program, and preprocessing.py beside it
REQUIREMENTS, PYTHON, EXAMPLE = "requirements.txt", "python_env.yaml", "input_example.json"
REFUSED = r"""[/:.%"']+"""  # in the name of a model
NO_MODEL = "model.reason"  # tag of a run whose network is no logged model: why
VERSIONS = "mlflow.modelVersions"  # tag of a model: where it is registered, for MLflow's pages


def log_model(
    client: MlflowClient, run: MlflowRun, checkpoint: Artifact, files: Callable[[str], ArtifactRepository]
) -> LoggedModel | None:
    """The logged model of a run's pretraining, made unless it is there; None, and a tag that says why, where it cannot.

    files: what writes to an artifact location. Raises what MLflow's client raises; what was begun is then gone on with.
    """
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus

    from xclr.training.timm_models import UNFIT

    model = find_model(client, run.info.experiment_id, str(checkpoint.digest), finished=False)
    if model is None or model.status != LoggedModelStatus.READY:
        with TemporaryDirectory() as folder:
            try:
                network = write_program(checkpoint, Path(folder))
            except UNFIT as error:  # a network of timm whose ways depend on its pixels
                client.set_tag(run.info.run_id, NO_MODEL, f"torch.export: {error}"[:500])
                return None
            model = model or _create(client, run)
            _describe(model, network, Path(folder))
            files(model.artifact_location).log_artifacts(folder)
        model = client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
    outputs = client.get_run(run.info.run_id).outputs
    if model.model_id not in {each.model_id for each in (outputs.model_outputs if outputs else ())}:
        client.log_outputs(run.info.run_id, [LoggedModelOutput(model.model_id, step=0)])
    return model


def find_model(client: MlflowClient, experiment: str, digest: str, *, finished: bool = True) -> LoggedModel | None:
    """The logged model of a pretraining; without `finished` also one whose files are not all there."""
    from mlflow.entities import LoggedModelStatus

    found = client.search_logged_models([experiment], f"tags.{DIGEST} = '{digest}'")
    ready = [each for each in found if each.status == LoggedModelStatus.READY]
    return next(iter(ready if finished else [*ready, *found]), None)


def _create(client: MlflowClient, run: MlflowRun) -> LoggedModel:
    """A model that is found again by its digest, with the parameters and the name of its run."""
    fresh = client.get_run(run.info.run_id)
    return client.create_logged_model(
        run.info.experiment_id,
        name=re.sub(REFUSED, "-", fresh.info.run_name or KIND),
        source_run_id=run.info.run_id,
        tags={name: fresh.data.tags[name] for name in (*SHARED, NOTE) if name in fresh.data.tags},
        params=fresh.data.params,
        model_type=KIND,
    )


def write_program(checkpoint: Artifact, folder: Path) -> Network:
    """Write a checkpoint's backbone as a torch.export program, float32 [batch, 3, s, s] to [batch, F]; what it is."""
    import torch

    from xclr.evaluation.networks.network import open_network
    from xclr.release.preprocessing import write_preprocessing
    from xclr.store import Store
    from xclr.training.stages import PretrainConfig
    from xclr.training.views import PLAIN

    network = open_network(checkpoint, torch.device("cpu"))
    config = PretrainConfig.model_validate(Store.of(checkpoint.path).manifest(checkpoint).config)
    backbone, program = _traced(config.train.network)
    backbone.load_state_dict(network.backbone.state_dict())
    (folder / DATA).mkdir()
    torch.export.save(program, folder / DATA / PROGRAM)
    write_preprocessing(network.preparation, PLAIN, folder)
    return network


@lru_cache(maxsize=1)
def _traced(train: TrainConfig) -> tuple[nn.Module, ExportedProgram]:
    """A backbone and its program, which has the weights that the backbone is given: networks of a run are alike."""
    import torch

    from xclr.training import build_backbone

    backbone = build_backbone(train)[0].eval().requires_grad_(False).to(memory_format=torch.contiguous_format)
    shown = torch.zeros(2, 3, train.image_size, train.image_size)  # of one picture, the batch would be a constant
    return backbone, torch.export.export(backbone, (shown,), dynamic_shapes=({0: torch.export.Dim("batch")},))


def _describe(model: LoggedModel, network: Network, folder: Path) -> None:
    """Write MLmodel, an example of the input, and what the program needs.

    As mlflow.pytorch.save_model does, which traces each network anew; and its import takes 20 s where pytorch_lightning
    is installed.
    """
    import numpy as np
    import torch
    from mlflow import pyfunc
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec

    size = network.preparation.size
    shapes = {"pixels": (-1, 3, size, size), "features": (-1, network.width)}
    inputs, outputs = (Schema([TensorSpec(np.dtype("float32"), shape)]) for shape in shapes.values())
    about = Model(
        artifact_path=model.artifact_location,
        run_id=model.source_run_id,
        model_uuid=model.model_id,
        model_id=model.model_id,
        signature=ModelSignature(inputs, outputs),
        saved_input_example_info={"artifact_path": EXAMPLE, "type": "ndarray"},
    )
    about.add_flavor(FLAVOUR, model_data=DATA, pytorch_version=str(torch.__version__), code=None)
    pyfunc.add_to_model(
        about, loader_module="mlflow.pytorch", data=DATA, python_env=PYTHON, model_config={"device": None}
    )
    grey = np.zeros((1, 3, size, size), np.float32)
    (folder / EXAMPLE).write_text(json.dumps(grey.tolist()), encoding="utf-8")
    needs = [f"{name}=={metadata.version(name).partition('+')[0]}" for name in NEEDS]
    (folder / REQUIREMENTS).write_text("\n".join(["mlflow", *needs, ""]), encoding="utf-8")
    python = f'python: "{platform.python_version()}"\nbuild_dependencies: [pip]\ndependencies: ["-r {REQUIREMENTS}"]\n'
    (folder / PYTHON).write_text(python, encoding="utf-8")
    about.save(str(folder / "MLmodel"))


def register(client: MlflowClient, model: LoggedModel, name: str) -> ModelVersion:
    """The version of a registered model that a logged model is, made unless there is one."""
    there = _versions(client, name)
    found = [each for each in there if each.tags.get(DIGEST) == model.tags[DIGEST]]
    if found:
        return found[0]
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    tags = {key: model.tags[key] for key in SHARED if key in model.tags}
    made = client.create_model_version(
        name, model.artifact_location, model.source_run_id, tags, await_creation_for=0, model_id=model.model_id
    )
    told = {"name": name, "version": int(made.version)}  # text where a server answers, a number in what it notes
    before = json.loads(client.get_logged_model(model.model_id).tags.get(VERSIONS, "[]"))
    if told not in before:  # a server has told it
        client.set_logged_model_tags(model.model_id, {VERSIONS: json.dumps([*before, told])})
    return made


def best_version(client: MlflowClient, name: str, score: str, *, least: bool = False) -> ModelVersion:
    """The version of a registered model whose tag `score` is the highest, or the least; the first of several."""
    scored = sorted((each for each in _versions(client, name) if score in each.tags), key=lambda each: each.version)
    return (min if least else max)(scored, key=lambda each: float(each.tags[score]))


def _versions(client: MlflowClient, name: str) -> list[ModelVersion]:
    """All versions of a registered model."""
    return list(client.search_model_versions(f"name = '{name}'", max_results=10_000))
