"""Makes the pictures of README and docs: `make screenshots`, after `make demo`.

Opens the pages of MLflow, Prefect, `xclr compare` and `xclr graph show` in Chromium as a person would and saves what is
seen to docs/images/. Chromium is Debian's (apt-get install chromium); XCLR_HOME names another HOME than .xclr.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

from flows.cli import graph
from flows.context import home_folder, state_folder
from infra import servers
from infra.access import auth_string
from infra.home.runs import read_runs

IMAGES = Path(__file__).parent / "images"
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
RECIPE = "emoji"


def main() -> None:
    """Bring up both servers of HOME and take every picture."""
    chromium = shutil.which("chromium") or sys.exit("Chromium is missing: apt-get install chromium")
    home = home_folder(None)
    state = state_folder(home)
    with (
        servers.using(servers.PREFECT, state) as prefect,
        servers.using(servers.MLFLOW, state) as mlflow,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
        pages = servers.experiments(mlflow, auth_string(state))[RECIPE]
        compare_in_mlflow(browser, str(pages.compare), auth_string(state))
        run_in_prefect(browser, prefect, home)
        comparison_page(browser, home)
        graph_page(browser, home)
        study_pages(browser, home)
        sweep_pages(browser, home)
        browser.close()


def compare_in_mlflow(browser: Browser, link: str, auth: str) -> None:
    """CLIP and X-CLR side by side, as the link that `xclr serve` prints opens them, without what is folded away."""
    user, _, password = auth.partition(":")
    page = open_page(browser, link, height=1000, http_credentials={"username": user, "password": password})
    page.get_by_role("button", name="Close").or_(page.get_by_label("Close")).first.click(timeout=3000)
    page.reload()  # with the width that the closed panel leaves
    page.get_by_text("Comparing 2 Runs").wait_for()
    page.wait_for_timeout(4000)
    for section in ("Visualizations", "Parameters", "Artifacts", "Tags"):
        page.get_by_role("button", name=section, exact=True).or_(page.get_by_text(section, exact=True)).first.click()
    page.wait_for_timeout(1500)
    save(page, "mlflow-compare", height=900)


def run_in_prefect(browser: Browser, prefect: str, home: Path) -> None:
    """The longest completed run of the recipe: its graph of task runs."""
    runs = [each for each in read_runs(home) if each.recipe.name == RECIPE and each.ended and each.flow_run]
    run = max((each for each in runs if each.state == "completed"), key=lambda each: each.ended - each.started)
    page = open_page(browser, f"{prefect}/login?redirect=/runs/flow-run/{run.flow_run}", height=900)
    page.locator("input[type=password]").fill(auth_string(state_folder(home)))
    page.keyboard.press("Enter")
    page.get_by_text("Task Runs", exact=True).click()
    page.wait_for_timeout(8000)  # the graph settles, and what Prefect has to say is gone
    save(page, "prefect-run")


def comparison_page(browser: Browser, home: Path) -> None:
    """The page of `xclr compare`."""
    page = open_page(browser, (home / "pages" / f"compare-{RECIPE}.html").as_uri(), height=1400)
    save(page, "compare-page", height=1120)
    page.get_by_role("heading", name="Nearest neighbours").evaluate("each => each.scrollIntoView()")
    save(page, "compare-neighbours", height=760)


def graph_page(browser: Browser, home: Path) -> None:
    """The page of `xclr graph show`."""
    path = home / "pages" / f"graph-{RECIPE}.html"
    graph.page(RECIPE, out=path, browse=False, home=str(home))
    page = open_page(browser, path.as_uri(), height=1400)
    page.locator(".plots").scroll_into_view_if_needed()
    page.screenshot(
        path=IMAGES / "graph-page.png", full_page=True, clip={"x": 60, "y": 0, "width": 1280, "height": 520}
    )
    page.get_by_role("heading", name="Pictures whose captions are near").evaluate("each => each.scrollIntoView()")
    save(page, "graph-sheet", height=820)


def study_pages(browser: Browser, home: Path) -> None:
    """The plots of the pages of `xclr study`, where there are any, and of scenes the one of colour by itself."""
    for name, plots, image in (
        ("emoji", ".charts", "study"),
        ("scenes", ".charts", "study-scenes"),
        ("scenes", "figure:has(svg[aria-label^='colour and'])", "study-scenes-colour"),
    ):
        path = home / "pages" / f"study-{name}.html"
        if path.exists():
            page = open_page(browser, path.as_uri(), height=1000)
            page.locator(plots).screenshot(path=IMAGES / f"{image}.png")
            print(IMAGES / f"{image}.png")


def sweep_pages(browser: Browser, home: Path) -> None:
    """The plots of the sweeps on scenes, where their pages are."""
    for name in ("scenes-size", "scenes-noise", "scenes-edges", "scenes-neighbourhoods"):
        path = home / "pages" / f"sweep-{name}.html"
        if path.exists():
            page = open_page(browser, path.as_uri(), height=1000)
            page.locator(".charts").first.screenshot(path=IMAGES / f"sweep-{name}.png")
            print(IMAGES / f"sweep-{name}.png")


def open_page(browser: Browser, address: str, *, height: int, **options: Any) -> Page:  # noqa: ANN401
    """A page that has come to rest."""
    page = browser.new_page(viewport={"width": 1400, "height": height}, **options)
    page.goto(address)
    page.wait_for_timeout(4000)
    return page


def save(page: Page, name: str, height: int | None = None) -> None:
    """Save what is seen."""
    size = page.viewport_size or {"width": 1400, "height": 900}
    clip = {"x": 0, "y": 0, "width": size["width"], "height": height or size["height"]}
    page.screenshot(path=IMAGES / f"{name}.png", clip=clip)
    print(IMAGES / f"{name}.png")


if __name__ == "__main__":
    main()
