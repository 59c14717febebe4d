"""The plan says what is there, and touches nothing."""

from __future__ import annotations

import pytest

from infra.cluster import Cluster
from infra.executors.observe import observe
from infra.ledger import UNSEEN_GRACE, Entry, JobState
from infra.plan import check_budget, lack_of_room, plan, plan_sweep
from infra.processes import now, this_process
from infra.resources import Resources
from tests.kit.disks import small_disk
from tests.kit.recipes import CLUSTER, TINY
from tests.kit.runs import data, open_run
from tests.kit.sweeps import TAU, make_levels, open_sweep, small
from xclr.artifact import Manifest
from xclr.errors import RecipeError
from xclr.job import RESULT
from xclr.pipeline import pipeline
from xclr.recipe import EmbedConfig, Recipe, load_recipe
from xclr.stage import Stage
from xclr.store import Store, only_writer
from xclr.sweep.layout import layout
from xclr.sweep.spec import Sweep

RECIPE = Recipe.model_validate(TINY)
GPUS = Cluster(name="gpus", stages={"pretrain": Resources(executor="slurm", ranks=8, gpus=8, timeout_min=60)})


def test_an_empty_home_is_all_misses_and_stays_empty(home):
    planned = plan(RECIPE, Store(home), CLUSTER)
    assert {stage.state for stage in planned} == {"miss"}
    assert not home.exists()
    assert len({stage.digest for stage in planned}) == len(planned)


def test_finished_stages_are_hits_with_rows_and_bytes(home):
    data(open_run(home))
    planned = {stage.stage: stage for stage in plan(RECIPE, Store(home), CLUSTER)}
    assert planned["captions"].state == planned["images"].state == "hit"
    assert planned["images"].rows == 400
    assert planned["images"].bytes > 100_000
    assert planned["comparison"].state == "miss"


def test_a_stage_with_a_live_job_is_running(home):
    run = open_run(home)
    stage = plan(RECIPE, run.store, CLUSTER)[0]
    entry = Entry(
        digest=stage.digest, kind="captions", stage="captions", run=run.id, attempt=1, owner=this_process(),
        claimed=now(), job=this_process(),
    )  # fmt: skip
    assert run.book.claim(entry)
    assert plan(RECIPE, run.store, CLUSTER)[0].state == "running"


def test_a_job_of_another_machine_is_believed_alive_while_it_is_young_or_writes(home):
    run = open_run(home)
    out = home / "out"
    young = Entry(
        digest="d" * 32, kind="captions", stage="captions", run=run.id, attempt=1, owner="elsewhere/1/1",
        claimed=now(), job="elsewhere/2/2",
    )  # fmt: skip
    old = young.model_copy(update={"claimed": now() - 2 * UNSEEN_GRACE})
    assert observe(young, out) == {"elsewhere/2/2": JobState.RUNNING}
    assert observe(old, out) == {"elsewhere/2/2": JobState.GONE}
    with only_writer(out):
        assert observe(old, out) == {"elsewhere/2/2": JobState.RUNNING}
    (out / RESULT).touch()
    assert observe(young, out) == {"elsewhere/2/2": JobState.COMPLETED}


def test_a_sweep_counts_what_it_would_make_once_and_touches_nothing(home):
    swept = layout(small(), Store(home))
    planned = {each.level: each for each in plan_sweep(swept, Store(home), GPUS)}
    assert list(planned) == list(swept.levels)
    assert {(each.hit, each.running) for each in planned.values()} == {(0, 0)}
    trained = planned.pop("pretrain")
    assert (trained.stages, trained.miss, trained.arrays, trained.at_once, trained.gpu_hours) == (2, 2, 1, 64, 16)
    assert {(each.arrays, each.gpu_hours) for each in planned.values()} == {(0, 0)}
    assert (planned["captions"].miss, planned["suite linear"].miss) == (1, 2)
    assert not home.exists()


@pytest.mark.slow
def test_of_a_sweep_only_what_is_not_there_counts(home):
    run, swept = open_sweep(home, small(parallel=1))
    make_levels(run, swept, "images")
    training = swept.cells[1].training
    entry = Entry(
        digest=training.digest, kind=training.kind, stage=training.name, run=run.id, attempt=1, owner=this_process(),
        claimed=now(), job=this_process(),
    )  # fmt: skip
    assert run.book.claim(entry)
    planned = {each.level: each for each in plan_sweep(swept, run.store, GPUS)}
    assert (planned["captions"].hit, planned["images"].hit, planned["images"].miss) == (1, 1, 0)
    trained = planned["pretrain"]
    assert (trained.hit, trained.running, trained.miss, trained.arrays) == (0, 1, 1, 1)
    assert (trained.at_once, trained.gpu_hours) == (1, 16)


@pytest.mark.slow
def test_suites_are_submitted_as_cells_come_in_and_in_one_array_where_all_are_there(home):
    sweep = small(grid={TAU: [0.05, 0.1, 0.2, 0.3, 0.5]}, parallel=2)
    suites = Cluster(name="c", stages={"suite": Resources(executor="slurm"), "pretrain": Resources(executor="slurm")})
    run, swept = open_sweep(home, sweep)
    planned = {each.level: each.arrays for each in plan_sweep(swept, run.store, suites)}
    assert planned.pop("pretrain") == 1 and planned.pop("suite linear") == 3 and set(planned.values()) == {0}
    for stage in (each for level in ("pretrain", "features") for each in swept.levels[level]):
        mark_made(run.store, stage)
    planned = {each.level: each.arrays for each in plan_sweep(swept, run.store, suites)}
    assert planned.pop("suite linear") == 1 and set(planned.values()) == {0}


def mark_made(store: Store, stage: Stage) -> None:
    """Let a stage have been made, as far as a plan sees."""
    store.begin(stage.digest)
    about = {"kind": stage.kind.name, "digest": stage.digest, "config": stage.identity, "code": stage.kind.code}
    store.commit(
        store.reference(stage.digest), Manifest(**about, inputs=(), files=(), stats={}, created=now().isoformat())
    )


def test_a_sweep_over_its_budget_is_refused_with_what_costs_most(home):
    swept = layout(small(max_gpu_hours=15), Store(home))
    with pytest.raises(RecipeError) as caught:
        check_budget(swept, plan_sweep(swept, Store(home), GPUS))
    assert caught.value.message == (
        "sweep s may take 16 GPU-hours, more than the 15 allowed: 2 x pretrain of at most 8 each"
    )
    assert "fewer values" in caught.value.remedy and "--max-gpu-hours" in caught.value.remedy
    assert not home.exists()


@pytest.mark.parametrize(("allowed", "cluster"), [(16, GPUS), (None, GPUS), (0, CLUSTER)])
def test_a_sweep_within_its_budget_may_run(allowed, cluster, home):
    swept = layout(small(max_gpu_hours=allowed), Store(home))
    check_budget(swept, plan_sweep(swept, Store(home), cluster))


def test_a_cell_that_two_points_share_is_planned_once(home):
    sweep = Sweep(
        name="s", recipe=Recipe.model_validate(TINY | {"objectives": ["simclr", "xclr"]}), grid={TAU: (0.1, 0.2)}
    )
    planned = {each.level: each for each in plan_sweep(layout(sweep, Store(home)), Store(home), GPUS)}
    assert (planned["pretrain"].stages, planned["pretrain"].gpu_hours) == (3, 24)


def test_data_for_which_there_is_no_room_are_told_with_what_they_need(tmp_path):
    (tmp_path / "cc12m.tsv").write_text("http://127.0.0.1/1.jpg\ta dog\n")
    big = load_recipe("cc12m", [f"data.path={tmp_path / 'cc12m.tsv'}", f"embed.model={EmbedConfig().model}"])
    with small_disk(tmp_path / "small", 8 << 20) as home:
        said = lack_of_room(pipeline(big, Store(home)))
        assert said is not None and "the data may need 398 GB" in said and f"{home} has 8.4 MB free of 8.4 MB" in said
        few = big.model_copy(update={"data": big.data.model_copy(update={"limit": 100})})
        assert lack_of_room(pipeline(few, Store(home))) is None
