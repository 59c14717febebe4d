"""`xclr register`: a network of a run under a name in MLflow, once."""

from __future__ import annotations

import json

import pytest

from tests.kit.command import call_xclr, fails, succeeds
from tests.kit.servers import known_to_mlflow

pytestmark = pytest.mark.slow


def test_a_network_is_registered_once_and_the_best_by_a_suite_has_its_alias(served):
    home, name = served.home, "emoji"

    def register(*arguments: str) -> dict[str, object]:
        return json.loads(
            succeeds(
                call_xclr("register", "smoke", "--as", name, *arguments, "--json", "--home", str(home), cwd=home)
            ).stdout
        )

    first = register("--method", "xclr")
    assert (first["method"], first["version"], first["uri"], first["aliases"]) == ("xclr", 1, "models:/emoji/1", {})
    assert register("--method", "xclr", "--alias", "chosen") == first | {"aliases": {"chosen": 1}}
    other = register("--method", "simclr", "--suite", "imagenet")
    assert (other["version"], other["aliases"]) == (2, {"best-imagenet": 2})
    best = register("--suite", "imagenet")
    scores = json.loads(call_xclr("compare", "smoke", "--json", "--home", str(home), cwd=home).stdout)
    tops = {each["method"]: each["value"] for each in scores if (each["suite"], each["metric"]) == ("imagenet", "top1")}
    assert best["method"] == max(tops, key=lambda method: tops[method])
    assert best["aliases"] == {"best-imagenet": best["version"]}
    worse = register("--method", min(tops, key=lambda method: tops[method]), "--suite", "imagenet")
    assert worse["aliases"] == best["aliases"], "a worse one does not take the alias"
    with known_to_mlflow(served) as client:
        experiment = client.get_experiment_by_name("smoke").experiment_id
        models = {each.tags["digest"]: each for each in client.search_logged_models([experiment])}
        for each in client.search_model_versions(f"name = '{name}'"):
            told = json.loads(models[each.tags["digest"]].tags["mlflow.modelVersions"])
            assert [one["version"] for one in told if one["name"] == name] == [int(each.version)]


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("--as", "x", "--method", "nope"), ("no finished network of method nope", "xclr (captions), seed 0")),
        (("--as", "x"), ("networks of 4 methods", "name one")),
        (("--as", "x", "--suite", "nope"), ("suite nope has not judged", "imagenet9")),
        (
            ("--as", "x", "--suite", "zero-shot", "--method", "xclr"),
            ("judged no network of method xclr", "clip (pairs)"),
        ),
        (("--as", "x/y", "--method", "xclr"), ("--as x/y", "leave out")),
        (("--as", "x", "--method", "clip", "--alias", "latest"), ("does not register x", "another name or alias")),
    ],
)
def test_what_cannot_be_registered_is_said(served, arguments, parts):
    fails(call_xclr("register", "smoke", *arguments, "--home", str(served.home), cwd=served.home), *parts)
