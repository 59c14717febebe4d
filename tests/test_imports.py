"""What each entry point imports of the heavy packages: these and no others, since every rank and every job pays."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from xclr.pipeline import KINDS
from xclr.recipe import SUITES

HEAVY = (
    "PIL", "faiss", "httpx", "huggingface_hub", "jinja2", "matplotlib", "mlflow", "nltk", "open_clip", "pandas",
    "prefect", "pyarrow", "rich", "safetensors", "scipy", "scipy.stats", "sentence_transformers", "sklearn",
    "submitit", "sympy", "timm", "torch", "torchvision", "transformers",
)  # fmt: skip
JOBS = {  # what a job of each kind imports before it starts
    "captions": {"pyarrow"},
    "images": {"PIL", "pyarrow"},
    "embeddings": {"pyarrow", "torch"},
    "graph": {"pyarrow", "torch"},
    "graph_report": {"PIL", "pandas", "pyarrow", "torch"},  # pandas by pyarrow.dataset
    "class_graph": {"pyarrow", "torch"},
    "own_graph": {"pyarrow", "torch"},
    "initial": {"safetensors", "torch"},
    "pretrain": {"PIL", "pyarrow", "torch"},
    "reference": {"PIL", "safetensors", "torch"},
    "export": {"PIL", "pyarrow", "torch"},
    "benchmark": set(),
    "features": {"PIL", "pyarrow", "safetensors", "torch"},
    "benchmark_features": {"PIL", "pyarrow", "safetensors", "torch"},
    "probe": {"pyarrow", "torch"},
    "finetune": {"PIL", "pyarrow", "torch"},
    "suite": {"pyarrow", "torch"},
    "comparison": {"pyarrow"},
}
SCIKIT = {"pandas", "rich", "scipy", "scipy.stats", "sklearn"}  # some of them by scikit-learn
SUITE = "from xclr.evaluation.suite import function_of; list(map(function_of, {}))"
OPTIMISER = """
import torch
from xclr.recipe import TrainConfig
from xclr.training.optim import build_descents
for each in ("adamw", "lars"):
    model = torch.nn.Linear(2, 2)
    ((optimizer, _),) = build_descents(model, TrainConfig(optimizer=each))
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
"""
APART = {"keywords"}  # imports more than the other suites
COMMAND = "import sys, flows.cli; sys.stdout = sys.stderr; flows.cli.app.app({}, standalone_mode=False)"
SHELL = {"rich"}  # typer's, for --help and errors
ENTRIES: dict[str, tuple[str, set[str]]] = {
    **{f"job {kind}": (f"import xclr.job, {KINDS[kind].run}", wanted) for kind, wanted in JOBS.items()},
    "suites": (SUITE.format(sorted(set(SUITES) - APART)), JOBS["suite"]),
    "suite keywords": (SUITE.format(["keywords"]), JOBS["suite"] | SCIKIT),
    "suites of texts": ("import xclr.evaluation.suite, xclr.evaluation.projected", JOBS["suite"]),
    "an optimiser": (OPTIMISER, {"torch"}),
    "decoder": ("import xclr.images.picture", {"PIL"}),
    "unpickled job": ("from infra.slurm import StageJob", {"submitit"}),
    "xclr --help": (COMMAND.format(["--help"]), SHELL),
    "xclr plan": (COMMAND.format(["plan", "smoke"]), SHELL),
    "xclr status": (COMMAND.format(["status"]), SHELL),
    "xclr compare": ("import xclr.report.tables", {"pyarrow", "rich"}),
    "a page": ("import xclr.report.page, xclr.report.sweep_page", {"PIL", "pyarrow", "rich", "torch"}),
    **{
        f"flow {name}": (f"import flows.{name}", {"httpx", "prefect", "pyarrow", "rich", "submitit"})
        for name in ("full", "sweep")
    },
}
PROGRAM = """
import builtins, importlib, json, os, sys, traceback
bases, heavy, entries = json.load(sys.stdin)
for base in (*bases, "numpy", "pydantic", "yaml"):
    importlib.import_module(base)
there, asked, ask = set(sys.modules), set(), builtins.__import__
def note(name, *rest, **more):
    asked.add(name.partition(".")[0])
    return ask(name, *rest, **more)
builtins.__import__ = note
for name, code in entries.items():
    asked.clear()
    if not os.fork():
        answers = os.dup(1)
        try:
            exec(code)
            found = [each for each in heavy if each in sys.modules]
            own = [each for each in found if each not in there or each.partition(".")[0] in asked]
            os.write(answers, json.dumps([name, own]).encode() + b"\\n")
        except BaseException:
            traceback.print_exc()
        os._exit(0)
    os.wait()
"""


@pytest.mark.parametrize("bases", [(), ("torch", "pyarrow.parquet"), ("prefect", "pyarrow.parquet")])
@pytest.mark.slow
def test_each_entry_point_imports_what_it_needs(bases, tmp_path):
    """The bases are imported once for all that need them: the entry points are forks, told by what they ask for."""
    expected = {name: wanted for name, (_, wanted) in ENTRIES.items() if base_of(wanted) == "".join(bases[:1])}
    asked = json.dumps([bases, HEAVY, {name: ENTRIES[name][0] for name in expected}])
    done = subprocess.run([sys.executable, "-c", PROGRAM], input=asked, capture_output=True, text=True, cwd=tmp_path)
    assert {name: set(own) for name, own in map(json.loads, done.stdout.splitlines())} == expected, done.stderr


def base_of(wanted: set[str]) -> str:
    return next((each for each in ("torch", "prefect") if each in wanted), "")


def test_every_kind_is_told():
    assert set(JOBS) == set(KINDS)
