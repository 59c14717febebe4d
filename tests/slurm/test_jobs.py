"""Jobs of a real cluster: what they get, what they leave, and what is in their files."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

from infra.cluster import Cluster
from infra.executors import snapshot
from infra.executors.executor import executor_named
from infra.ledger import JobState
from infra.resources import Resources
from infra.slurm.queue import slurm_ids
from infra.stage import ensure
from tests.kit.polling import until
from tests.kit.recipes import TINY, tiny
from tests.kit.runs import open_run, planned
from tests.kit.slurm import JOB, SECRET, element, elements_named, everything_taken, on_slurm, slurm
from tests.kit.trainings import Training
from xclr import shards
from xclr.recipe import Recipe

SHORT = tiny(epochs=1)


def test_a_training_runs_as_a_job_whose_traces_lie_beside_its_artifact(cluster, undisturbed):
    entry, out = undisturbed.entry(), undisturbed.out
    assert entry.state is JobState.COMPLETED and entry.job.startswith("slurm/")
    assert undisturbed.manifest().jobs == (entry.job,)
    log = Path(entry.log)
    assert log.is_relative_to(out / "jobs")
    assert len(list(log.parent.glob("*_log.out"))) == 2
    for path in (*log.parent.iterdir(), *(cluster.root / "state").rglob("*")):
        assert path.is_dir() or SECRET.encode() not in path.read_bytes(), path
    pickle = (log.parent / "job.pkl").read_bytes()
    assert len(pickle) < 10_000 and b"PATH" not in pickle
    shown = slurm("scontrol", "show", "job", undisturbed.job())
    assert f"JobName={entry.name}" in shown
    assert "TresPerNode=gres:gpu:2" in shown and "NumTasks=2" in shown
    assert f"Comment=xclr run={entry.run} stage={entry.stage} digest={undisturbed.digest}" in shown
    assert undisturbed.losses()


def test_ranks_on_one_node_and_on_two_train_alike(cluster, home):
    found = {}
    for nodes in (1, 2):
        where = on_slurm(ranks=4, gpus=4, nodes=nodes, setup=["export GLOO_SOCKET_IFNAME=lo"])
        with Training(home / str(nodes), SHORT, where) as training:
            training.follow().result()
            logs = sorted(Path(training.entry().log).parent.glob("*_log.out"))
            said = [path.read_text() for path in logs]
            assert len(said) == 4
            assert all(f"local_rank={rank % (4 // nodes)}({4 // nodes})" in said[rank] for rank in range(4))
            assert all(f"global_rank={rank}(4)" in said[rank] for rank in range(4))
            found[nodes] = training.losses()
    assert found[1] == pytest.approx(found[2], rel=1e-6)
    with Training(home / "alone", SHORT, on_slurm(ranks=1, gpus=1)) as training:
        training.follow().result()
        assert found[1] == pytest.approx(training.losses(), rel=1e-4)


def test_a_queued_job_runs_the_code_as_it_was_submitted(cluster, home, tmp_path, monkeypatch):
    own = {name: tmp_path / "checkout" / name for name in snapshot.PACKAGES}
    for name, folder in snapshot.PACKAGES.items():
        shutil.copytree(folder, own[name], ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(snapshot, "PACKAGES", own)
    job = own["xclr"] / "job.py"
    line = "    stage = Stage.from_json"
    job.write_text(job.read_text().replace(line, f'    print("as it was", flush=True)\n{line}', 1))
    with Training(home, SHORT, on_slurm()) as training:
        with everything_taken():
            followed = training.follow()
            training.entry()
            job.write_text("raise SystemExit('edited')")
        followed.result()
        assert "as it was" in Path(training.entry().log).read_text()


def test_an_array_comes_in_pieces_and_only_missing_elements_run_again(cluster, home, monkeypatch):
    monkeypatch.setattr(executor_named("slurm").queue, "array_size", 3)
    small = Recipe.model_validate(TINY | {"embed": {"shard": 16}, "retries": {"lost_after_s": 5}})
    where = Cluster(name="test", stages={"embeddings": Resources.model_validate(JOB | {"parallel": 2})})
    run = open_run(home, recipe=small, cluster=where)
    stages = planned(small, run.store)
    ensure(run, stages["captions"])
    stage = stages["embeddings"]
    number = stage.pieces(run.store).shards
    assert number > 4
    out = run.store.reference(stage.digest).path
    thread = threading.Thread(target=ensure, args=(run, stage))
    thread.start()
    entry = until(lambda: (found := run.book.latest(stage.digest)) and found.job and "+" in found.job and found)
    victim = until(lambda: element(out, slurm_ids(entry.job)[0]))
    done = {path.name: path.stat().st_mtime_ns for path in (out / shards.SHARDS).glob("[0-9]*")}
    victim.kill()
    second = until(lambda: (found := run.book.latest(stage.digest)) and found.attempt == 2 and found.job and found)
    thread.join()
    first = run.book.attempts(stage.digest)[0]
    assert len(slurm_ids(first.job)) == -(-number // 3), "arrays are as long as Slurm takes them"
    assert second.before == (JobState.GONE,) and done
    assert len(elements_named(second.name)) == 1, "one element was missing"
    plain = open_run(home.parent / "plain", recipe=small)
    ensure(plain, planned(small, plain.store)["captions"])
    reference = ensure(plain, planned(small, plain.store)["embeddings"])
    mine = np.load(run.store.find(stage.digest).path / "vectors.npy").astype(np.float32)
    np.testing.assert_allclose(mine, np.load(reference.path / "vectors.npy").astype(np.float32), atol=2e-3)
