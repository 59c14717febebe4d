"""The command line: what goes wrong is said in two lines before any long work."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from flows.cli import main
from flows.context import cluster_name, home_folder, state_folder
from infra.home.runs import read_runs
from tests.kit.command import call_xclr, fails, run_xclr, succeeds
from tests.kit.databases import give_databases
from tests.kit.disks import read_only, small_disk
from tests.kit.finished import begin, own_recipe
from tests.kit.jobs import few_jobs
from tests.kit.recipes import TINY
from xclr.environment import setting
from xclr.errors import StoreError
from xclr.recipe import load_recipe


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["run", "emojy"], ["no recipe 'emojy'", "did you mean emoji"]),
        (["plan", "nowhere/mine.yaml"], ["no recipe file nowhere/mine.yaml"]),
        (["run", "emoji", "--set", "train.epoch=2"], ["unknown key 'train.epoch'", "did you mean epochs"]),
        (["run", "emoji", "--set", "train.epochs=two"], ["train.epochs", "valid integer"]),
        (["run", "emoji", "--set", "objective.target_temprature=1"], ["target_temprature", "target_temperature"]),
        (["run", "emoji", "--mode", "maybe"], ["--mode maybe", "retry"]),
        (["run", "emoji", "--until", "lunch"], ["--until lunch", "captions"]),
        (["run", "emoji", "--cluster", "moon"], ["no cluster 'moon'", "local"]),
        (["run", "emoji", "--home", "/dev/null/home"], ["cannot write to /dev/null/home", "XCLR_HOME"]),
        (["plan", "cc12m"], ["the table of cc12m has not been fetched", "xclr run cc12m --until captions"]),
        (
            ["plan", "cc12m", "--set", "data.url=http://nobody.invalid/a b.tsv"],
            ["xclr run cc12m --set 'data.url=http://nobody.invalid/a b.tsv' --until captions"],
        ),
        (["run", "emoji", "--cluster", "slurm"], ["no sbatch, squeue, scancel on this machine", "--cluster local"]),
        (["compare", "--home", "empty"], ["no finished run", "xclr run emoji"]),
    ],
)
def test_a_fault_in_what_was_typed(tmp_path, arguments, parts):
    fails(call_xclr(*arguments, cwd=tmp_path, PATH=str(tmp_path)), *parts)


def test_a_process_ends_as_its_message_says(tmp_path):
    fails(run_xclr("run", "emojy", cwd=tmp_path), "xclr: no recipe 'emojy'")


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_output_that_takes_ascii_alone_is_written_to(stream, monkeypatch):
    written = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr(sys, stream, written)
    monkeypatch.setattr(sys, "argv", ["xclr", "run", "\u00fc\u30a2"])
    with pytest.raises(SystemExit):
        main()
    print("\u00fc", file=written, flush=True)
    assert written.buffer.getvalue().splitlines()[-1] == b"\\xfc"


def test_output_that_nobody_takes_ends_a_command_in_a_sentence(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["xclr", "--version"])
    with Path("/dev/full").open("w") as nowhere, redirect_stdout(nowhere), pytest.raises(SystemExit, match="1"):
        main()
    assert capsys.readouterr().err.startswith("xclr: standard output cannot be written: No space left")


@pytest.mark.parametrize(
    ("variable", "address", "server"),
    [
        ("MLFLOW_TRACKING_URI", "htp://me:secret@127.0.0.1:9", "begins with htp:, which MLflow does not know"),
        ("PREFECT_API_URL", "http://me:secret@127.0.0.1:9/api", "the Prefect server at http://127.0.0.1:9/api cannot"),
    ],
)
def test_a_server_that_cannot_be_is_told_before_any_work(tmp_path, variable, address, server):
    done = call_xclr("run", "smoke", cwd=tmp_path, **{variable: address})
    fails(done, server, variable)
    assert "secret" not in done.stdout + done.stderr
    assert not list(tmp_path.glob(".xclr/artifacts/*/*"))


def test_a_recipe_of_a_newer_format(tmp_path):
    (tmp_path / "new.yaml").write_text("version: 99\nquantum: true\n")
    fails(call_xclr("plan", "new.yaml", cwd=tmp_path), "new.yaml was written for a newer xclr", "upgrade")


@pytest.mark.slow
def test_a_text_model_that_is_nowhere(tmp_path):
    done = run_xclr("plan", "emoji", "--set", "embed.model=no-such/model", cwd=tmp_path, HF_HUB_OFFLINE="1")
    fails(done, "text model 'no-such/model' is not on this machine", "embed.model")


def recipe_for(table: pa.Table, folder: Path, **keys: object) -> str:
    """A recipe over a table of one's own."""
    pq.write_table(table, folder / "own.parquet")
    recipe = {"data": {"source": "table", "path": "own.parquet"}, "objectives": ["xclr"], **keys}
    (folder / "own.yaml").write_text(yaml.safe_dump(recipe))
    return "own.yaml"


PICTURES = {"caption": ["a red apple", "a blue bird"], "image": [b"not a", b"picture"]}


@pytest.mark.parametrize(
    ("columns", "parts"),
    [
        (PICTURES | {"caption": [b"\xff\xfd", b"\xff\xfe"]}, ["not UTF-8", "rows 0, 1"]),
        (PICTURES, ["train.batch_size 256 is larger than"]),
    ],
)
@pytest.mark.slow
def test_a_fault_in_the_data_is_told_before_long_work(tmp_path, served, columns, parts):
    recipe = recipe_for(pa.table(columns), tmp_path)
    fails(run_xclr("run", recipe, cwd=tmp_path, **served.environment), *parts)
    assert not (tmp_path / ".xclr" / "artifacts" / "embeddings").exists()


@pytest.mark.slow
def test_a_run_that_no_suite_judges_has_features_and_a_page_and_fails_with_its_training(tmp_path, served):
    own_recipe(tmp_path, "a drawing of")
    give_databases(tmp_path / ".xclr")
    small = TINY["train"] | {"batch_size": 16}
    recipe = recipe_for(pq.read_table(tmp_path / "own.parquet"), tmp_path, graph={"k": 4}, train=small)
    begin(tmp_path / ".xclr", load_recipe(str(tmp_path / recipe)))
    there = {"cwd": tmp_path, "XCLR_CLUSTER": few_jobs(tmp_path), **served.environment}
    why = "No suite judged this run: linear is left out: it needs classes (data.label_column)"
    assert why in " ".join(succeeds(run_xclr("run", recipe, **there)).stderr.split())
    page = (tmp_path / ".xclr" / "pages" / "compare-own.html").read_text()
    assert page.count("data:image/webp") > 10, "the features were not waited for"
    done = run_xclr("run", recipe, "--set", "train.learning_rate=1e30", **there)
    fails(done, "pretrain xclr", "the gradient is not finite")


EMPTY = {
    "no rows": ({"caption": [], "image": []}, "own.parquet has no rows"),
    "no captions": ({"caption": ["", " "], "image": [b"1", b"2"]}, "2 of 2 captions are of no use (empty: rows 0, 1"),
    "few captions": (
        {"caption": ["a", None, ""], "image": [b"1", b"2", b"3"]},
        "2 of 3 captions are of no use (empty: rows 1, 2",
    ),
}


@pytest.mark.parametrize("what", EMPTY)
def test_a_plan_finds_a_table_without_rows_or_captions(what, tmp_path):
    columns, says = EMPTY[what]
    types = pa.schema([("caption", pa.string()), ("image", pa.binary())])
    recipe = recipe_for(pa.table(columns, types), tmp_path)
    for command in ("plan", "run"):
        fails(call_xclr(command, recipe, cwd=tmp_path), says)
    assert not list(tmp_path.glob(".xclr/state/*"))


ALIKE = {
    "captions": ({"caption": ["a dog"] * 6}, "all 6 captions are the same", "data.caption_column"),
    "a class": ({"kind": ["dog"] * 6}, "all 6 pictures are of one class, which tells linear", "data.label_column=null"),
    "classes": ({"kind": [*"abcdef"]}, "each of 6 pictures is its own class, which tells linear", "data.label_column"),
    "a batch": ({}, "train.batch_size 256 is larger than the 6 training pictures", "--set train.batch_size=3"),
}


@pytest.mark.parametrize("what", ALIKE)
def test_a_plan_says_what_few_pictures_are_no_use_for_and_a_run_before_any_server(what, tmp_path):
    changed, says, remedy = ALIKE[what]
    columns = {"caption": [*"abcdef"], "image": [b"1"] * 6, "kind": [*"aabbab"]} | changed
    small = {"batch_size": 2} if changed else {}
    recipe = recipe_for(pa.table(columns), tmp_path, train=small, graph={"k": 2}, evaluate={"suites": ["linear"]})
    labels = ("--set", "data.label_column=kind")
    planned = succeeds(call_xclr("plan", recipe, *labels, cwd=tmp_path)).stderr
    assert f"a run would end after captions: {says}" in planned
    assert remedy in planned
    fails(call_xclr("run", recipe, *labels, cwd=tmp_path), says, remedy)
    assert not list(tmp_path.glob(".xclr/state/*"))


FULL = [
    ("run", "smoke"),
    ("sweep", "smoke", "--grid", "train.epochs=1,2"),
    ("study", "emoji"),
    ("serve", "--prefect-port", "0", "--mlflow-port", "0"),
]


@pytest.mark.slow
def test_a_disk_on_which_no_run_can_begin_is_told_before_any_server(tmp_path):
    with small_disk(tmp_path / "full", 1 << 23) as home:
        for arguments in FULL:
            done = call_xclr(*arguments, "--home", str(home), cwd=tmp_path)
            fails(done, f"no space left on {home} (", "at least 32 MB are needed", "xclr gc --dry-run")
        assert not (home / "state").exists()


LOOKING = ("status", "plan own.yaml", "compare --json", "costs own", "accounts own", "verify", "gc --dry-run --keep 0")
WRITING = ("run own.yaml", "retry own", "serve --prefect-port 0 --mlflow-port 0", "gc --keep 0")


@pytest.mark.slow
def test_a_read_only_home_can_be_looked_at_and_what_would_write_says_so(own_home, tmp_path):
    (record,) = read_runs(own_home)
    (tmp_path / "own.yaml").write_text(record.recipe.model_dump_json())
    with read_only(own_home, tmp_path / "seen") as home:
        for looking in LOOKING:
            assert "Traceback" not in succeeds(call_xclr(*looking.split(), "--home", str(home), cwd=tmp_path)).stderr
        for writing in WRITING:
            done = call_xclr(*writing.split(), "--home", str(home), cwd=tmp_path)
            fails(done, f"{home} is mounted read-only", "--home DIR", "XCLR_STATE")
        done = call_xclr("compare", "--home", str(home), cwd=tmp_path)
        fails(done, f"cannot write {home / 'pages'}", "--out FILE")
        assert "xclr" in done.stdout and "writable directory" not in done.stderr


@pytest.mark.parametrize("blank", ["", "  "])
def test_a_blank_variable_is_one_that_is_not_set(blank, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("XCLR_HOME", "XCLR_STATE", "XCLR_CLUSTER", "XCLR_THREADS"):
        monkeypatch.setenv(name, blank)
        assert setting(name) is None
    home = tmp_path / ".xclr"
    assert (home_folder(None), state_folder(home), cluster_name(None)) == (home, home / "state", "local")


@pytest.mark.parametrize("name", ["a?b", "#a", "%41", "a\nb"])
def test_databases_are_in_no_folder_that_their_addresses_cannot_name(name, tmp_path, monkeypatch):
    with pytest.raises(StoreError, match="no database can be in a folder with") as caught:
        state_folder(tmp_path / name)
    assert "set XCLR_STATE" in caught.value.remedy
    monkeypatch.setenv("XCLR_STATE", str(tmp_path))
    assert state_folder(tmp_path / name) == tmp_path


@pytest.mark.slow
def test_a_run_of_which_no_suite_that_was_asked_for_can_judge_is_an_error(own_home, tmp_path):
    before = sorted(path.name for path in (own_home / "runs").iterdir())
    for asked in (["knn"], ["knn", "mit-states"]):
        flags = [each for name in asked for each in ("--suite", name)]
        done = call_xclr("evaluate", "own", *flags, "--home", str(own_home), cwd=tmp_path)
        fails(
            done, "suite knn is left out: evaluate.roots.imagenet is not set", "that these data can serve: ", "own-knn"
        )
    assert sorted(path.name for path in (own_home / "runs").iterdir()) == before


@pytest.mark.slow
def test_a_plan_says_after_which_stage_a_run_would_end_and_why(own_home, tmp_path):
    (record,) = read_runs(own_home)
    (tmp_path / "own.yaml").write_text(record.recipe.model_dump_json())
    arguments = ("plan", "own.yaml", "--home", str(own_home))
    assert "would end" not in succeeds(call_xclr(*arguments, cwd=tmp_path)).stderr
    said = succeeds(call_xclr(*arguments, "--set", "train.batch_size=4096", cwd=tmp_path)).stderr
    assert "a run would end after captions: train.batch_size 4096 is larger than" in said
    assert "-> --set train.batch_size=" in said


def test_help_and_plan_import_nothing_heavy(tmp_path):
    code = "import sys; sys.argv = ['xclr', '--help']; from flows.cli.app import app; app(standalone_mode=False);"
    code += "print([name for name in ('prefect', 'torch', 'mlflow', 'pyarrow') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("[]")


@pytest.mark.slow
def test_plan_prints_stable_json_and_touches_nothing(tmp_path):
    rows = json.loads(succeeds(call_xclr("plan", "emoji", "--json", cwd=tmp_path)).stdout)
    assert set(rows[0]) == {"stage", "digest", "state", "rows", "bytes", "gpu_hours", "core_hours", "memory_gb"}
    assert {row["state"] for row in rows} == {"miss"}
    assert list(tmp_path.iterdir()) == []


def test_an_unlabelled_table_leaves_out_what_needs_classes(tmp_path):
    name = recipe_for(pa.table(PICTURES), tmp_path, objectives=["supcon", "xclr"])
    done = succeeds(call_xclr("plan", name, cwd=tmp_path))
    assert "supcon is left out" in done.stderr
    assert "suite linear is left out" in done.stderr
    assert "pretrain supcon" not in done.stdout


def test_the_entry_point_is_a_function_whatever_was_imported_before():
    program = """
import importlib, pkgutil, flows.cli
for each in pkgutil.iter_modules(flows.cli.__path__, "flows.cli."):
    each.name.endswith("__main__") or importlib.import_module(each.name)
assert callable(flows.cli.main)
"""
    subprocess.run([sys.executable, "-c", program], check=True)
