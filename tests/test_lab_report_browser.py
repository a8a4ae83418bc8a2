"""The lab's page in Chromium: all figures drawn, findings that open, nothing asked, nothing too wide."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from lab_results import SEEDS, results
from test_report_browser import browser, points, visit

from potstill.report.lab import write_lab_report

__all__ = ["browser", "visit"]  # fixtures
pytestmark = [
    pytest.mark.browser,
    pytest.mark.parametrize("width", [1280, 390]),
    pytest.mark.parametrize("scheme", ["light", "dark"]),
]
ARMS = ("offline", "oracle_as_teacher", "online_teacher", "online_student", "few_epochs", "mixture_10", "small_teacher")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lab") / "results.json"
    path.write_text(json.dumps(results(ARMS)))
    return write_lab_report(path)


def test_every_figure_is_drawn_and_findings_open(visit: Any, written: Path) -> None:
    page = visit(written, "curves-models")
    plots = page.locator(".plot")
    for place in plots.all():
        place.locator(".main-svg").first.wait_for()
        assert place.locator(".scatterlayer path.point").count() > 3
    assert plots.count() == 1 + 3 * 4 + 1  # where arms ended, three figures a comparison, the first plane whole
    assert points(page, "plane-whole-fixed-or-fresh") == 4 * 19 + _starts(page)  # arms times evaluations
    lines = page.locator("#plot-curves-fixed-or-fresh .scatterlayer path.js-line").count()
    assert lines == 3 * 4 * (len(SEEDS) + 1) + 2  # thin and thick lines, the teacher's line and its band
    assert not page.locator("#finding-1 .effects").is_visible()
    page.locator("#finding-1 summary").click()
    assert page.locator("#finding-1 svg.dots circle").first.is_visible()
    box = page.locator("#finding-1 svg.dots").first.bounding_box()
    assert box["width"] > 110 and box["height"] == 34


def test_the_legend_switches_an_arm_with_its_seeds(visit: Any, written: Path) -> None:
    page = visit(written, "curves-models")
    plot = "#plot-curves-mixtures"
    before = page.locator(f"{plot} .scatterlayer path.js-line").count()
    page.locator(f"{plot} .legend .traces .legendtoggle").first.click()
    api = pytest.importorskip("playwright.sync_api")  # the page's policy forbids wait_for_function its eval
    left = before - 3 * (len(SEEDS) + 1)
    api.expect(page.locator(f"{plot} .scatterlayer path.js-line")).to_have_count(left)  # waits for it
    assert page.locator(f"{plot} .scatterlayer path.js-line").count() == left


def _starts(page: Any) -> int:
    plot = "document.getElementById('plot-plane-whole-fixed-or-fresh')"
    return int(page.evaluate(f"{plot}.data.find((trace) => trace.name === 'start').x.length"))
