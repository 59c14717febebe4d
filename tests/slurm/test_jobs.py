"""Jobs of a real cluster: what they get, what they leave, and what is in their files."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import numpy as np
import psutil
import pytest

from infra.cluster import Cluster
from infra.executors import snapshot
from infra.executors.executor import executor_named
from infra.ledger import JobState
from infra.resources import Resources
from infra.slurm.queue import slurm_ids
from infra.stage import ensure
from tests.infra.conftest import TINY, open_run
from tests.infra.test_stage import pretrained, until
from tests.slurm.conftest import everything_taken, losses, on_slurm, recipe, slurm
from xclr import shards
from xclr.artifact import Digest
from xclr.captions import stages as captions_stages
from xclr.graph import stages as graph_stages
from xclr.recipe import Recipe
from xclr.training.spool import SPOOL, read_spool


def test_a_training_runs_as_a_job_whose_traces_lie_beside_its_artifact(cluster, home, monkeypatch):
    monkeypatch.setenv("SOME_TOKEN", "hush-hush-4711")
    run = open_run(home, recipe=recipe(epochs=2), cluster=on_slurm())
    artifact = pretrained(run)
    entry = run.book.latest(artifact.digest)
    assert entry.state is JobState.COMPLETED and entry.job.startswith("slurm/")
    assert run.store.manifest(artifact).jobs == (entry.job,)
    log = Path(entry.log)
    assert log.is_relative_to(artifact.path / "jobs")
    assert len(list(log.parent.glob("*_log.out"))) == 2
    for path in (*log.parent.iterdir(), *(cluster.root / "state").rglob("*")):
        assert path.is_dir() or b"hush-hush" not in path.read_bytes(), path
    pickle = (log.parent / "job.pkl").read_bytes()
    assert len(pickle) < 10_000 and b"PATH" not in pickle
    shown = slurm("scontrol", "show", "job", entry.job.removeprefix("slurm/"))
    assert f"JobName={entry.name}" in shown
    assert "TresPerNode=gres:gpu:2" in shown and "NumTasks=2" in shown
    assert f"Comment=xclr run={run.id} stage={entry.stage} digest={artifact.digest}" in shown
    assert [each.step for each in read_spool(artifact.path / SPOOL)]


def test_eight_ranks_on_one_node_and_on_two_train_alike(cluster, home):
    found = {}
    for nodes in (1, 2):
        place = home / str(nodes)
        where = on_slurm(ranks=8, gpus=8, nodes=nodes, setup=["export GLOO_SOCKET_IFNAME=lo"])
        run = open_run(place, recipe=recipe(epochs=1), cluster=where)
        artifact = pretrained(run)
        entry = run.book.latest(artifact.digest)
        logs = sorted(Path(entry.log).parent.glob("*_log.out"))
        said = [path.read_text() for path in logs]
        assert len(said) == 8
        assert all(f"local_rank={rank % (8 // nodes)}({8 // nodes})" in said[rank] for rank in range(8))
        assert all(f"global_rank={rank}(8)" in said[rank] for rank in range(8))
        found[nodes] = losses(place, str(artifact.digest))
    assert found[1] == pytest.approx(found[2], rel=1e-6)
    alone = pretrained(open_run(home / "alone", recipe=recipe(epochs=1), cluster=on_slurm(ranks=1, gpus=1)))
    assert found[1] == pytest.approx(losses(home / "alone", str(alone.digest)), rel=1e-4)


def test_a_queued_job_runs_the_code_as_it_was_submitted(cluster, home, tmp_path, monkeypatch):
    own = {name: tmp_path / "checkout" / name for name in snapshot.PACKAGES}
    for name, folder in snapshot.PACKAGES.items():
        shutil.copytree(folder, own[name], ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(snapshot, "PACKAGES", own)
    job = own["xclr"] / "job.py"
    line = "    stage = Stage.from_json"
    job.write_text(job.read_text().replace(line, f'    print("as it was", flush=True)\n{line}', 1))
    with everything_taken():
        run = open_run(home, recipe=recipe(epochs=1), cluster=on_slurm())
        thread = threading.Thread(target=pretrained, args=(run,))
        thread.start()
        entry = until(lambda: next((each for each in run.book.read().entries if each.job and each.name), None))
        job.write_text("raise SystemExit('edited')")
    thread.join()
    assert "as it was" in Path(entry.log).read_text()
    assert run.store.find(Digest("pretrain", entry.digest)) is not None


def test_an_array_comes_in_pieces_and_only_missing_elements_run_again(cluster, home, monkeypatch):
    monkeypatch.setattr(executor_named("slurm").queue, "array_size", 3)
    small = Recipe.model_validate(TINY | {"embed": {"shard": 16}, "retries": {"lost_after_s": 5}})
    slurm_for = {"embeddings": Resources(executor="slurm", threads=1, timeout_min=60, parallel=2)}
    where = Cluster(name="test", stages=slurm_for)
    run = open_run(home, recipe=small, cluster=where)
    captions = ensure(run, captions_stages.captions(run.recipe, run.store))
    stage = graph_stages.embeddings(run.recipe, run.store, captions)
    number = stage.pieces(run.store).shards
    assert number > 4
    out = run.store.reference(stage.digest).path
    thread = threading.Thread(target=ensure, args=(run, stage))
    thread.start()
    entry = until(lambda: (found := run.book.latest(stage.digest)) and found.job and "+" in found.job and found)
    victim = until(lambda: element(out, slurm_ids(entry.job)[0]), 60)
    done = {path.name: path.stat().st_mtime_ns for path in (out / shards.SHARDS).glob("[0-9]*")}
    victim.kill()
    second = until(lambda: (found := run.book.latest(stage.digest)) and found.attempt == 2 and found.job and found, 60)
    thread.join()
    first = run.book.attempts(stage.digest)[0]
    assert len(slurm_ids(first.job)) == -(-number // 3), "arrays are as long as Slurm takes them"
    assert second.before == (JobState.GONE,) and done
    again = slurm("squeue", "--states=all", "--array", "--noheader", f"--name={second.name}", "--format=%i").split()
    assert len(again) == 1, "one element was missing"
    plain = open_run(home.parent / "plain", recipe=small)
    reference = ensure(
        plain, graph_stages.embeddings(small, plain.store, ensure(plain, captions_stages.captions(small, plain.store)))
    )
    mine = np.load(run.store.find(stage.digest).path / "vectors.npy").astype(np.float32)
    np.testing.assert_allclose(mine, np.load(reference.path / "vectors.npy").astype(np.float32), atol=2e-3)


def element(out: Path, first: str) -> psutil.Process | None:
    """The process of the first array's third element, while its shard is not done and another one is."""
    finished = {path.name for path in (out / shards.SHARDS).glob("[0-9]*")}
    for process in psutil.process_iter() if finished and "00002" not in finished else ():
        try:
            found = process.environ()
            mine = found.get("SLURM_ARRAY_JOB_ID") == first and found.get("SLURM_ARRAY_TASK_ID") == "2"
            if mine and process.name().startswith("python"):
                return process
        except psutil.Error:
            continue
    return None
