"""The pretraining lab's page in Chromium: figures are drawn, lists change them, nothing asked, nothing too wide."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pretraining_page import page_results
from test_report_browser import browser, visit

from potstill.report.pretraining import write_pretraining_report

__all__ = ["browser", "visit"]  # fixtures
pytestmark = [
    pytest.mark.browser,
    pytest.mark.parametrize("width", [1280, 400]),
    pytest.mark.parametrize("scheme", ["light", "dark"]),
]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pretraining") / "results.json"
    path.write_text(json.dumps(page_results(small=True)))
    return write_pretraining_report(path)


def data(page: Any, plot: str, what: str) -> Any:
    return page.evaluate(f"document.getElementById('plot-{plot}').data{what}")


def test_every_figure_is_drawn_and_follows_its_list(visit: Any, written: Path) -> None:
    page = visit(written, "position-s0")
    assert page.locator(".plot").count() == 5
    for place in page.locator(".plot").all():
        place.locator(".main-svg").first.wait_for()
    assert page.locator("#plot-heat-s0 .heatmaplayer image").count() == 1
    assert page.locator("#plot-strength-s0 .scatterlayer .point").count() == 3 * 2
    assert page.locator("#plot-triplet-s0 .scatterlayer .point").count() == 3 * 3
    before = data(page, "heat-s0", "[0].text[2][1]")
    page.locator('select[data-steers="heat"]').select_option(label="downstream: minimal pairs margin")
    after = data(page, "heat-s0", "[0].text[2][1]")
    assert before.startswith("\N{MINUS SIGN}") and after.startswith("+")
    assert data(page, "heat-s0", "[0].z[2][1]") > 0
    assert (
        data(page, "strength-s0", "[0].y[0]")
        == json.loads(written.with_name("results.json").read_text())["differences"][0]["measures"]["held_out"]["mean"]
    )  # another list steers this one


def test_the_numbers_of_all_cells_open(visit: Any, written: Path) -> None:
    page = visit(written, "position-s0")
    assert not page.locator("#numbers table").is_visible()
    page.locator("#numbers summary").click()
    assert page.locator("#numbers tbody tr").count() == 6
