"""From a score to the caption file on MLflow's pages: the data sets that a run used, and what they are made of."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser, expect

from tests.kit.servers import known_to_mlflow
from xclr import schema

pytestmark = pytest.mark.slow


def test_the_run_of_a_score_shows_columns_and_origin_of_its_data_sets(browser: Browser, smoke_home, served):
    with known_to_mlflow(served) as client:
        experiment = client.get_experiment_by_name("smoke").experiment_id
        (run,) = client.search_runs([experiment], "tags.method = 'xclr'")
    user, _, password = served.auth.partition(":")
    page = browser.new_page(
        viewport={"width": 1500, "height": 1000}, http_credentials={"username": user, "password": password}
    )
    page.set_default_timeout(120_000)  # for a fault, however slow the machine is
    place = f"{served.mlflow}/#/experiments/{experiment}/runs/{run.info.run_id}"
    page.goto(f"{place}?workflowType=machine_learning")
    page.get_by_text("emoji captions").click()
    drawer = page.get_by_role("dialog").filter(has_text="Data details for")
    for name in schema.CAPTIONS.names:
        expect(drawer.get_by_role("row", name=name).or_(drawer.get_by_text(name, exact=True)).first).to_be_visible()
    (path,) = smoke_home.glob("artifacts/captions/*/captions.parquet")
    expect(drawer).to_contain_text(f"Path: {path}")
    expect(drawer).to_contain_text("made of: emoji48-permissive.parquet")
    drawer.get_by_text("captions: emoji48-permissive.parquet").first.click()
    expect(drawer).to_contain_text("Path: ")
    expect(drawer).to_contain_text("recipes/data/emoji48-permissive.parquet")
    page.goto(f"{place}/artifacts/lineage.txt?workflowType=machine_learning")
    expect(page.get_by_text("source of the captions").first).to_be_visible()
    page.close()
