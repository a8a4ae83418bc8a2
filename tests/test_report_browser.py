"""The pages in Chromium: all points there, nothing asked, nothing complained of, nothing too wide."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import test_report_mending as mending
from test_report import STEPS, make_run

from potstill.report import write_comparison, write_report

CHROMIUM = Path("/usr/bin/chromium")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.parametrize("width", [1280, 390]),
    pytest.mark.parametrize("scheme", ["light", "dark"]),
]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One run's page, and one on that run and another with fewer evaluations and a long name."""
    folder = tmp_path_factory.mktemp("pages")
    first = make_run(folder / "first").path
    second = make_run(folder / "second_run_with_a_name_too_long_for_a_line_on_a_phone", STEPS[:9], further=0.2).path
    (second / "config.yaml").write_text("seed: 4\nkey_without_any_space: " + "long" * 40 + "\n")
    mended = write_report(mending.make_run(folder / "mended", mending.MENDED).path)
    return {
        "mended": mended,
        "one": write_report(first),
        "two": write_comparison([first, second], folder / "comparison.html"),
    }


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is not there; install Debian's chromium")
    api = pytest.importorskip("playwright.sync_api", reason="needs the extra: pip install potstill[browser]")
    with api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def visit(browser: Any, width: int, scheme: str) -> Iterator[Any]:
    """Opens a page; what it complained of and asked for is judged at the end."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    complaints: list[str] = []
    requests: list[str] = []
    page.on("console", lambda said: complaints.append(said.text) if said.type != "log" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: complaints.append("a script from the data ran"))
    page.on("request", lambda asked: requests.append(asked.url))

    def opened(path: Path, last_plot: str) -> Any:
        page.goto(path.as_uri())
        page.wait_for_selector(f"#plot-{last_plot} .main-svg")
        return page

    yield opened
    assert complaints == []
    assert [url for url in requests if not url.startswith(("file:", "data:", "blob:"))] == []
    assert len([url for url in requests if url.startswith("file:")]) == 1
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.close()


def points(page: Any, plot: str) -> int:
    return int(page.locator(f"#plot-{plot} .scatterlayer .point").count())


def test_page_on_one_run(visit: Any, pages: dict[str, Path]) -> None:
    page = visit(pages["one"], "schedule")
    rings = page.evaluate("document.getElementById('plot-plane').data.length") - 1
    assert points(page, "plane") == len(STEPS) + rings
    assert points(page, "golden") == len(STEPS)
    assert points(page, "proxy") == 2 * len(STEPS)
    assert page.locator("#plot-loss .scatterlayer path.js-line").count() == 2
    assert page.locator("#plot-terms .scatterlayer path.js-line").count() == 3


def test_page_on_a_mended_run(visit: Any, pages: dict[str, Path]) -> None:
    page = visit(pages["mended"], "loss")
    assert page.locator("#alarms .story tr").count() == 6
    assert points(page, "plane") == len(mending.STEPS) + 2  # best and alarm
    for plot in ("proxy", "golden", "loss"):
        assert page.locator(f"#plot-{plot} .annotation-text", has_text="alarm").count() == 1


def test_page_on_two_runs(visit: Any, pages: dict[str, Path]) -> None:
    page = visit(pages["two"], "golden")
    evaluations = len(STEPS) + 9
    assert points(page, "plane") == evaluations + 1  # the ring of the exported step that was evaluated
    assert points(page, "proxy_fkl") == points(page, "golden") == evaluations
    assert page.locator("#plot-plane .legend .traces").count() == 3  # two runs, one teacher's line
    assert page.locator(".sample").count() == 3
