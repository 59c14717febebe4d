"""Networks as logged models: others open them without this project, they tell the features, and there is one each."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from infra.tracking import models
from infra.tracking.described import NOTE
from infra.tracking.tracker import Tracker
from xclr.recipe import TrainConfig

ELSEWHERE = """
import json, os, sys
for name in ("xclr", "infra", "flows", "tasks", "pytorch_lightning", "lightning"):
    sys.modules[name] = None
os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
import mlflow.pytorch, numpy, torch
mlflow.set_tracking_uri(sys.argv[1])
pixels = torch.from_numpy(numpy.load("pixels.npy"))
for model in sys.argv[2:]:
    network = mlflow.pytorch.load_model(f"models:/{model}")
    parts = [network(each) for each in pixels.split([1, 4, len(pixels) - 5])]
    numpy.save(f"{model}.npy", torch.cat(parts).numpy())
about = mlflow.models.Model.load(f"models:/{model}")
example = about.load_input_example()
served = mlflow.pyfunc.load_model(f"models:/{model}").predict(example)
print(json.dumps([list(example.shape), list(served.shape), about.signature.to_dict()]))
"""


@pytest.fixture(scope="module")
def logged(tracked):
    """The models of the run, by the digest of their network."""
    client = tracked.client
    found = client.search_logged_models([each.experiment_id for each in client.search_experiments()])
    return {each.tags["digest"]: each for each in found}


@pytest.mark.slow
def test_every_network_is_a_model_that_others_open_and_that_says_what_the_backbone_says(tracked, logged, tmp_path):
    networks = {str(each.checkpoint.digest): each for each in tracked.opened.networks()}
    assert len(networks) == 6 and logged.keys() == networks.keys()
    networks = {digest: each for digest, each in networks.items() if each.seed == (each.method == "xclr")}
    size = next(iter(networks.values())).open(torch.device("cpu")).preparation.size
    pixels = torch.randn(11, 3, size, size, generator=torch.Generator().manual_seed(0))
    np.save(tmp_path / "pixels.npy", pixels.numpy())
    names = [logged[digest].model_id for digest in networks]
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, tracked.uri, *names],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    said = []
    for digest, network in networks.items():
        with torch.inference_mode():
            expected = network.open(torch.device("cpu")).backbone(pixels).numpy()
        said.append(expected)
        np.testing.assert_allclose(np.load(tmp_path / f"{logged[digest].model_id}.npy"), expected, rtol=1e-5, atol=1e-5)
    assert len({each.tobytes() for each in said}) == 3, "each has its own weights"
    example, served, signature = json.loads(done.stdout)
    assert (example, served) == ([1, 3, size, size], [1, expected.shape[1]])
    assert [each["tensor-spec"]["shape"] for each in json.loads(signature["inputs"])] == [[-1, 3, size, size]]


@pytest.mark.slow
def test_a_model_has_the_parameters_of_its_run_and_the_scores_of_its_suites(tracked, logged):
    for digest, run in tracked.runs().items():
        if digest:
            model = logged[digest]
            assert model.source_run_id == run.info.run_id and model.params == run.data.params
            scores = {name: value for name, value in run.data.metrics.items() if name.startswith("eval/")}
            assert scores and {each.key: each.value for each in model.metrics} == scores
            assert [model.tags[name] for name in ("method", NOTE)] == [run.data.tags[name] for name in ("method", NOTE)]
            (output,) = tracked.client.get_run(run.info.run_id).outputs.model_outputs
            assert output.model_id == model.model_id


@pytest.mark.slow
@pytest.mark.parametrize("broken", ["log_artifacts", "finalize_logged_model", "log_outputs"])
def test_what_was_killed_while_it_was_logged_is_gone_on_with(tracked, logged, broken, monkeypatch):
    network = tracked.opened.network("xclr", 1)
    client, digest = tracked.client, str(network.checkpoint.digest)
    run, before = tracked.runs()[digest], logged[digest].model_id
    experiment = client.create_experiment(f"killed {broken}", (tracked.home / broken).as_uri())
    other = client.create_run(experiment, tags={"digest": digest}, run_name="xclr, seed 1")
    tracker = Tracker(tracked.uri, tracked.record.recipe, tracked.home / "state" / "mlflow-artifacts", {})

    class Killed(BaseException):
        pass

    def kill(*arguments: object) -> None:
        raise Killed

    def files(location: str):
        repository = tracker.mlflow.files_at(location)
        if broken == "log_artifacts" and not done:
            monkeypatch.setattr(repository, broken, kill)
        return repository

    done: list[str] = []
    with monkeypatch.context() as patch, pytest.raises(Killed):
        if broken != "log_artifacts":
            patch.setattr(client, broken, kill)
        models.log_model(client, other, network.checkpoint, files)
    done.append(broken)
    ids = {models.log_model(client, other, network.checkpoint, files).model_id for _ in range(2)}
    (found,) = client.search_logged_models([experiment])
    assert ids == {found.model_id} and before not in ids
    assert len(client.get_run(other.info.run_id).outputs.model_outputs) == 1
    assert len(client.get_run(run.info.run_id).outputs.model_outputs) == 1


@pytest.mark.slow
def test_a_backbone_of_torchvision_is_a_program_for_any_batch_with_the_weights_that_it_is_given():
    backbone, program = models._traced(TrainConfig(backbone="resnet18", image_size=32).network)
    pixels = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for each in backbone.parameters():
            each.mul_(1.1)
    torch.testing.assert_close(program.module()(pixels), backbone(pixels), rtol=1e-5, atol=1e-5)
