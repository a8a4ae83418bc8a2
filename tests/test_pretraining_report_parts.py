"""What the pretraining lab's page tolerates, what it refuses, and the parts that it is made of."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pretraining_page import page_results
from pretraining_results import simulated
from test_lab_report import HOSTILE, rows_of, text_of
from test_pretraining_report import page_of, read, write
from test_report import embedded, without_plotly

from potstill.report.lab_reading import LabResultsError
from potstill.report.numbers import Estimate
from potstill.report.pretraining import write_pretraining_report
from potstill.report.pretraining_laws import gap_set, law_curve
from potstill.report.pretraining_measures import DOWNSTREAM, HELD_OUT, OUTSIDE, over_seeds
from potstill.report.pretraining_words import clear, ends, in_words, signed

MINUS = "\N{MINUS SIGN}"


@pytest.fixture(scope="module")
def tree() -> dict[str, Any]:
    return page_results(small=True)


# -- what it tolerates, what it refuses ---------------------------------------------


def test_no_cell_no_model_no_claim(tmp_path: Path) -> None:
    text = text_of(page_of(tmp_path, {"lab": "pretraining", "models": [], "differences": []}))
    assert "No student has been compared with its twin yet." in text
    assert "No claim has been judged yet." in text and "No law was fitted." in text


@pytest.mark.parametrize(
    "lost", [("best_weights",), ("models",), ("differences",), ("bins", "claims", "laws", "corpus")]
)
def test_any_list_may_be_empty(tmp_path: Path, tree: dict[str, Any], lost: tuple[str, ...]) -> None:
    html = page_of(tmp_path, tree | {name: type(tree[name])() for name in lost})
    assert "NaN" not in without_plotly(html)


def test_one_seed_and_one_teacher(tmp_path: Path) -> None:
    tree = page_results(seeds=(1,), laws=False, small=True)
    kept = "teacher-2M-2457600"
    for key in ("differences", "best_weights", "bins"):
        tree[key] = [one for one in tree[key] if one["teacher"]["id"] == kept]
    html = page_of(tmp_path, tree)
    assert "NaN" not in without_plotly(html) and "None" not in text_of(html)
    assert embedded(html, "heat-s0-m0")["layout"]["shapes"][0]["type"] == "line"  # no frame without an interval
    assert "1 seed, so no interval" in text_of(html)


def test_values_that_are_missing_are_dashes(tmp_path: Path) -> None:
    tree = page_results(small=True)
    cell = tree["differences"][0]
    cell["measures"]["held_out"] |= {"mean": None, "low": None, "high": None, "by_seed": [None] * 3}
    cell["measures"]["prose"] |= {"by_seed": []}
    tree["differences"][1]["teacher"] = None
    tree["models"][0] |= {"perplexity": {}, "seconds": None, "flops": None, "parameters": None, "tokens": None}
    tree["bins"][0]["mean"][0] = None
    tree["bins"][1] |= {"low": None, "high": None}
    html = page_of(tmp_path, tree)
    first = embedded(html, "heat-s0-m0")["data"][0]
    assert sum(value is None for row in first["z"] for value in row) == 2
    assert "NaN" not in without_plotly(html)


def test_a_name_from_the_file_neither_runs_nor_links(tmp_path: Path) -> None:
    tree = json.loads(json.dumps(page_results(small=True)).replace("technical", "</script><img src=x onerror=boom>"))
    tree["hardware"] = tree["preset"] = tree["setting"]["note"] = HOSTILE
    tree["claims"][0] |= {"name": HOSTILE, "statement": HOSTILE, "status": HOSTILE, "why": HOSTILE}
    for one in (*tree["differences"], *tree["models"], *tree["bins"], *tree["best_weights"]):
        if one.get("teacher"):
            one["teacher"] |= {"id": one["teacher"]["id"] + HOSTILE, "size": HOSTILE}
    tree["differences"][-1]["variant"] = tree["differences"][0]["relation"] = HOSTILE
    html = without_plotly(page_of(tmp_path, tree))
    assert 'alert("x")' not in html and "<img" not in html
    for name in re.findall(r'id="data-([\w-]+)"', html):
        assert "<img" not in json.dumps(embedded(html, name))
    assert not re.search(r"""(src|href|action|data)\s*=\s*["']?\s*(https?:)?//""", html)


def change(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda tree: tree["differences"][1].__setitem__(key, value)


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (change("weight", float("nan")), "NaN.*expected null"),
        (change("weight", None), "difference 1 lacks weight"),
        (lambda tree: tree["models"][0].pop("role"), "model 0 lacks role"),
        (lambda tree: tree.pop("models"), "no lists of `models` and `differences`"),
    ],
)
def test_results_that_cannot_be_drawn_are_refused(
    tmp_path: Path, break_it: Callable[[dict[str, Any]], None], said: str
) -> None:
    tree = page_results(small=True)
    break_it(tree)
    with pytest.raises(LabResultsError, match=said):
        write_pretraining_report(write(tmp_path, tree))
    assert not (tmp_path / "report.html").exists()


def test_no_file_and_no_json(tmp_path: Path) -> None:
    with pytest.raises(LabResultsError, match="is not there"):
        write_pretraining_report(tmp_path / "results.json")
    (tmp_path / "results.json").write_text("[")
    with pytest.raises(LabResultsError, match="is not JSON"):
        write_pretraining_report(tmp_path / "results.json")


# -- the parts ----------------------------------------------------------------------


def test_means_that_the_file_lacks_are_made_by_seed(tmp_path: Path, tree: dict[str, Any]) -> None:
    without = json.loads(json.dumps(tree))
    for cell in without["differences"]:
        del cell["measures"]["out of domain"]
    given, made = read(tmp_path, tree), read(tmp_path, without)
    for one, other in zip(given.cells, made.cells, strict=True):
        mine, its = one.found[OUTSIDE].estimate, other.found[OUTSIDE].estimate
        assert (its.value, its.low, its.high) == pytest.approx((mine.value, mine.low, mine.high), rel=1e-3)
    assert made.triplet[OUTSIDE].made and not given.triplet[OUTSIDE].made


def test_downstream_is_the_measure_that_chose_the_weight(tmp_path: Path, tree: dict[str, Any]) -> None:
    assert read(tmp_path, tree).triplet[DOWNSTREAM].name == "minimal pairs accuracy"
    other = json.loads(json.dumps(tree))
    for one in other["best_weights"]:
        if one["measure"] == DOWNSTREAM:
            cell = next(c for c in other["differences"] if all(c[k] == one[k] for k in ("size", "teacher", "weight")))
            one["mean"] = cell["measures"]["minimal pairs margin"]["mean"]
    assert read(tmp_path, other).triplet[DOWNSTREAM].name == "minimal pairs margin"


def test_intervals_over_seeds() -> None:
    assert over_seeds([]) is None and over_seeds([2.0]) == Estimate(2.0)
    found = over_seeds([1.0, 2.0, 3.0])
    assert found is not None and found.low == pytest.approx(2 - 4.302653 / math.sqrt(3), rel=1e-5)
    wide = over_seeds([1.0, 2.0, 3.0], looks=10)
    assert wide is not None and wide.low == pytest.approx(2 - 14.0890 / math.sqrt(3), rel=1e-4)  # t at 0.9975, two


def test_words_and_numbers() -> None:
    assert [in_words(n) for n in (None, 950, 1_024_000, 2.5e9)] == ["\N{EN DASH}", "950", "1.02M", "2.5B"]
    assert [signed(v) for v in (None, 0.0, 0.0123, -0.5)] == ["\N{EN DASH}", "0", "+0.012", f"{MINUS}0.500"]
    assert ends(Estimate(0.1, -0.05, 0.25)) == f"{MINUS}0.050 to +0.250" and ends(Estimate(1.0)) == ""
    assert [clear(Estimate(1, *pair)) for pair in ((0.1, 2), (-0.1, 2), (-2, -1), (None, None))] == [
        True, False, True, False,
    ]  # fmt: skip


def test_the_gap_is_taken_where_the_law_takes_it(tree: dict[str, Any]) -> None:
    assert gap_set(tree, "technical", "out") == "technical"
    assert gap_set(tree, "minimal pairs margin", "downstream") == gap_set(tree, OUTSIDE, "out") == HELD_OUT
    assert law_curve(tree, "technical", "0.9M", 0.5, (0, 1)) is None


def test_a_law_that_knows_sizes_is_drawn_for_each_student(tree: dict[str, Any]) -> None:
    values = {"c10": -0.2, "c11": 0.1, "s10": -0.05}
    law = {"status": "fitted", "centre": {"size": 1000.0}, "parameters": {k: {"value": v} for k, v in values.items()}}
    raw = {"laws": {"measures": {"held_out": {"difference": law}}}, "sizes": {"large": {"body_parameters": 2000.0}}}
    found = law_curve(raw, "held_out", "large", 0.5, (0.0, 1.0))
    assert found is not None and found[1][0] == pytest.approx(0.5 * (-0.2 - 0.05 * math.log(2)))
    assert found[1][-1] - found[1][0] == pytest.approx(0.5 * 0.1)
    assert law_curve(raw, "held_out", "unknown", 0.5, (0.0, 1.0)) is None


@pytest.mark.slow
def test_the_page_draws_the_laws_that_the_lab_fits(tmp_path: Path) -> None:
    from potstill.lab.laws import fit_laws

    grid = simulated(weights=(0.3, 0.6, 1.0))
    fitted = fit_laws(grid)
    law = fitted["measures"]["held_out"]["difference"]
    cell = law["cells"][0]
    found = law_curve({"laws": fitted}, "held_out", cell["size"], cell["weight"], (cell["x"], cell["x"] + 1))
    assert found is not None and found[1][0] == pytest.approx(cell["fitted"])
    html = page_of(tmp_path, page_results(small=True) | {"laws": fitted})
    assert len(rows_of(html, "laws")) == 1 + 2 * 3 + 2  # two sets with three laws, accuracy and margin with one
