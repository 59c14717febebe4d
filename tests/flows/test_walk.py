"""The order in which a flow submits the stages of a plan."""

from __future__ import annotations

from flows.walk import by_step
from xclr.pipeline import pipeline
from xclr.recipe import load_recipe
from xclr.store import Store


def test_trainings_come_before_what_judges_any_and_each_stage_after_what_it_reads(tmp_path):
    plan = pipeline(load_recipe("emoji"), Store(tmp_path))
    stages = by_step(plan)
    place = {stage.digest: index for index, stage in enumerate(stages)}
    assert sorted(place) == sorted(plan.stages)
    assert all(place[each.digest] < place[stage.digest] for stage in stages for each in stage.inputs.values())
    trained = [place[stage.digest] for stage in stages if stage.kind.step == "pretrain"]
    assert len(trained) == 7 and max(trained) < min(place[stage.digest] for stage in stages if stage.kind.judges)
