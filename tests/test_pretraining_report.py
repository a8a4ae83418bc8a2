"""The pretraining lab's page: the answer, the numbers of the file, figures that are drawn, names that cannot inject."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from pretraining_page import STUDENT, WEIGHTS, page_results
from pretraining_results import DIFFERENCE, difference, simulated
from test_lab_report import HOSTILE, rows_of, text_of
from test_report import embedded, without_plotly

from potstill.report.lab_reading import LabResultsError
from potstill.report.numbers import Estimate
from potstill.report.pretraining import write_pretraining_report
from potstill.report.pretraining_heat import colours_end, heat
from potstill.report.pretraining_laws import gap_set, law_curve
from potstill.report.pretraining_measures import DOWNSTREAM, HELD_OUT, OUTSIDE, over_seeds
from potstill.report.pretraining_reading import Results, read_results
from potstill.report.pretraining_words import answer, by_relation, clear, ends, in_words, signed

MINUS = "\N{MINUS SIGN}"


def write(folder: Path, tree: dict[str, Any]) -> Path:
    path = folder / "results.json"
    path.write_text(json.dumps(tree))
    return path


def page_of(folder: Path, tree: dict[str, Any]) -> str:
    return write_pretraining_report(write(folder, tree)).read_text()


def read(folder: Path, tree: dict[str, Any]) -> Results:
    return read_results(write(folder, tree))


@pytest.fixture(scope="module")
def tree() -> dict[str, Any]:
    return page_results()


@pytest.fixture(scope="module")
def page(tree: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> str:
    return page_of(tmp_path_factory.mktemp("pretraining"), tree)


# -- what it says ---------------------------------------------------------------


def test_the_answer_names_teacher_weight_interval_and_seeds(page: str, tree: dict[str, Any]) -> None:
    cells = [cell for cell in tree["differences"] if not cell["variant"] and cell["size"] == STUDENT[0]]
    best = min(cells, key=lambda cell: cell["measures"]["held_out"]["mean"])
    found = best["measures"]["held_out"]
    said = re.search(r"<h1>(.*?)</h1>", page, flags=re.DOTALL)
    assert said is not None
    text = text_of(said[0])
    assert text.startswith(("Yes: beside", "Probably: beside"))
    assert (
        f"beside {best['teacher']['size']}@2.46M at weight {best['weight']:g}, a 0.9M student of 1.02M tokens" in text
    )
    assert f"95 % interval {-found['high']:.3f} to {-found['low']:.3f}, 3 seeds" in text
    second = text_of(page.split('<p class="answer">')[1].split("</p>")[0])
    assert second.startswith("Out of domain the best is") and "; downstream the best is" in second
    assert "of minimal pairs accuracy" in second


def one_cell(values: list[float], others: int = 0) -> dict[str, Any]:
    """A student of one cell and `others` of no gain."""
    tree = page_results()
    cells = [cell for cell in tree["differences"] if not cell["variant"]][: 1 + others]
    for i, cell in enumerate(cells):
        each = values if i == 0 else [1.0] * len(values)
        estimate = over_seeds(each)
        assert estimate is not None
        facts = {"mean": estimate.value, "low": estimate.low, "high": estimate.high, "by_seed": each}
        cell["seeds"] = list(range(1, len(values) + 1))
        cell["measures"] = {"held_out": cell["measures"]["held_out"] | facts}
    return tree | {"differences": cells, "best_weights": []}


@pytest.mark.parametrize(
    ("values", "others", "said"),
    [
        ([-0.10, -0.11, -0.12], 0, "Yes: beside"),  # -0.11 +- 4.303 * 0.01 / sqrt(3)
        ([-0.10, -0.11, -0.12], 20, "Probably: beside"),  # for 21 looks t is 20.5, the half width 0.118
        ([-0.10, 0.01, -0.12], 0, "Not shown: beside"),
        ([-0.10], 0, "Perhaps: beside"),
        ([0.10, 0.11, 0.12], 0, "No: in domain none of 1 cell beats its twin"),
    ],
)
def test_the_answer_is_as_sure_as_its_interval(tmp_path: Path, values: list[float], others: int, said: str) -> None:
    found = read(tmp_path, one_cell(values, others))
    sentences = answer(found, found.students[0])
    assert len(sentences) == 1 and sentences[0].startswith(said)
    assert ("no interval" in sentences[0]) == (len(values) == 1)


def test_relations_count_teachers_that_help(tmp_path: Path, tree: dict[str, Any]) -> None:
    found = read(tmp_path, tree)
    said = by_relation(found, found.students[0])
    for relation in ("weak-to-strong", "same-level", "strong-to-weak"):
        helping = {
            cell["teacher"]["id"]
            for cell in tree["differences"]
            if cell["relation"] == relation and cell["size"] == STUDENT[0] and not cell["variant"]
            if cell["measures"]["held_out"]["high"] < 0
        }
        assert f"{len(helping)} of 2 {relation}" in said


def test_claims_stand_with_their_colours(page: str) -> None:
    assert re.findall(r'<article class="claim (\w+)">', page) == ["reproduced", "undecided", "reproduced", "refuted"]
    assert "The claims: 2 reproduced, 1 not decidable, 1 not reproduced" in text_of(page)


def test_tables_hold_the_numbers_of_the_file(page: str, tree: dict[str, Any]) -> None:
    rows = rows_of(page, "relations")
    order = [row for row in rows if row in ("weak-to-strong", "same-level", "strong-to-weak")]
    assert order == ["weak-to-strong", "same-level", "strong-to-weak", "same-level", "strong-to-weak"]
    best = next(one for one in tree["best_weights"] if one["measure"] == "held_out")
    row = next(row for row in rows if row.startswith("0.2M@307k"))
    assert f"0.2M to 0.9M 4.999 +1.479 {best['weight']:g} {best['mean']:+.3f}" in row
    assert any(row.startswith("teacher 2M 2.1M 1.9M 2.46M 1.170 42 2.905") for row in rows_of(page, "models"))
    assert "technical out of domain 400 100k 2.00 %" in rows_of(page, "sets")
    assert len(rows_of(page, "numbers")) == 1 + 6 * (len(WEIGHTS) + 1)
    assert "tokens per parameter; the work" in text_of(page)


def test_an_ablation_stands_beside_its_cell_with_the_change_by_seed(page: str, tree: dict[str, Any]) -> None:
    variant = next(cell for cell in tree["differences"] if cell["variant"] == "uniform teacher")
    main = next(
        cell
        for cell in tree["differences"]
        if not cell["variant"] and all(cell[key] == variant[key] for key in ("size", "teacher", "weight"))
    )
    mine, its = (cell["measures"]["held_out"] for cell in (variant, main))
    changes = [a - b for a, b in zip(mine["by_seed"], its["by_seed"], strict=True)]
    mean = sum(changes) / 3
    half = 4.302653 * math.sqrt(sum((value - mean) ** 2 for value in changes) / 2 / 3)
    row = next(row for row in rows_of(page, "ablations") if row.startswith("uniform teacher"))
    assert f"main {its['mean']:+.3f}" in row
    assert f"{mean:+.3f} {mean - half:+.3f} to {mean + half:+.3f}" in row


# -- what it draws ----------------------------------------------------------------


def test_the_heat_map_has_weak_teachers_on_top_and_gains_as_colours(page: str, tree: dict[str, Any]) -> None:
    drawn = embedded(page, "heat-s0-m0")
    trace = next(one for one in drawn["data"] if one["type"] == "heatmap")
    losses = [float(text.split("<br>")[1]) for text in drawn["layout"]["yaxis"]["ticktext"]]
    assert losses == sorted(losses, reverse=True) and drawn["layout"]["yaxis"]["range"] == [5.5, -0.5]
    assert drawn["layout"]["xaxis"]["ticktext"] == ["0.2", "0.4", "0.6", "0.8", "1"]
    cell = next(
        one for one in tree["differences"] if one["teacher"]["id"] == "teacher-0.2M-307200" and one["weight"] == 1
    )
    value = cell["measures"]["held_out"]["mean"]
    assert trace["z"][0][4] == pytest.approx(-value) and trace["text"][0][4] == f"{value:+.3f}"
    assert "seeds 1:" in trace["hovertext"][0][4] and "1.089 tokens per parameter" in trace["hovertext"][0][4]
    outside = sum(
        cell["measures"]["held_out"]["low"] > 0 or cell["measures"]["held_out"]["high"] < 0
        for cell in tree["differences"]
        if cell["size"] == STUDENT[0] and not cell["variant"]
    )
    assert sum(shape["type"] == "rect" for shape in drawn["layout"]["shapes"]) == outside


def test_better_is_the_same_colour_whatever_the_sign(tmp_path: Path, tree: dict[str, Any]) -> None:
    found = read(tmp_path, tree)
    margin = next(one for one in found.measures if one.name == "minimal pairs margin")
    lower = heat(found, found.students[0], found.triplet[HELD_OUT]).data[0]
    higher = heat(found, found.students[0], margin).data[0]
    assert lower.z[5][4] > 0 and lower.text[5][4].startswith(MINUS)
    assert higher.z[5][4] > 0 and higher.text[5][4].startswith("+")
    gains = [gain for cell in found.cells if (gain := cell.gain(margin)) is not None]
    assert higher.zmax == -higher.zmin == colours_end(found, margin) == max(gains)


def test_every_measure_has_a_version_that_its_list_names(page: str) -> None:
    lists = dict(re.findall(r'<select data-steers="([\w-]+)"[^>]*>(.*?)</select>', page, flags=re.DOTALL))
    assert set(lists) == {"heat", "strength", "triplet", "bins-s0", "bins-s1"}
    for group, entries in lists.items():
        keys = re.findall(r'value="(\w+)"', entries)
        stems = re.findall(rf'data-group="{group}" data-stem="data-([\w-]+)" data-figure="data-([\w-]+)"', page)
        assert stems
        for stem, shown in stems:
            assert shown == f"{stem}-{keys[0]}"
            assert all(embedded(page, f"{stem}-{key}")["layout"] for key in keys)
    assert "in domain: held-out text" in unescape(lists["heat"]) and "minimal pairs margin" in lists["heat"]


def test_strength_goes_from_weak_to_strong_with_the_law_through_it(page: str, tree: dict[str, Any]) -> None:
    drawn = embedded(page, "strength-s0-m0")
    left, right = drawn["layout"]["xaxis"]["range"]
    assert left > right  # weaker teachers have the larger loss
    points = [trace for trace in drawn["data"] if trace.get("name")]
    laws = [trace for trace in drawn["data"] if not trace.get("name")]
    assert [trace["name"] for trace in points] == [f"weight {weight:g}" for weight in WEIGHTS]
    assert [len(trace["x"]) for trace in points] == [6] * 5 and len(laws) == 5
    for weight, law in zip(WEIGHTS, laws, strict=True):
        assert law["y"] == pytest.approx([difference(x, weight, DIFFERENCE) for x in law["x"]])
    assert points[0]["error_y"]["array"][0] > 0
    other = embedded(page, "strength-s0-m2")  # pydoc has no law: lines join its points
    assert all(trace["mode"] == "lines+markers" for trace in other["data"])


def test_the_triplet_keeps_its_teachers_in_order(page: str, tree: dict[str, Any]) -> None:
    own, by_in_domain = embedded(page, "triplet-s0-own"), embedded(page, "triplet-s0-w0")
    for drawn in (own, by_in_domain):
        for axis in ("y", "y2", "y3"):
            assert sorted(x for one in drawn["data"] if one["yaxis"] == axis for x in one["x"]) == [0, 1, 2, 3, 4, 5]
    picks = {one["measure"]: one for one in tree["best_weights"] if one["teacher"]["id"] == "teacher-0.9M-2457600"
             and one["size"] == STUDENT[0]}  # fmt: skip
    for axis, role in (("y", HELD_OUT), ("y2", OUTSIDE), ("y3", DOWNSTREAM)):
        trace = next(one for one in own["data"] if one["yaxis"] == axis and one["name"] == "same-level")
        assert trace["y"][trace["x"].index(4)] == pytest.approx(picks[role]["mean"])


def test_bins_are_named_by_their_edges(page: str, tree: dict[str, Any]) -> None:
    drawn = embedded(page, "difficulty-s0-t0")
    assert drawn["layout"]["xaxis"]["ticktext"][1] == "0.8\N{EN DASH}1.9"
    assert [trace["name"] for trace in drawn["data"]] == ["weight 0.4", "weight 1"]
    assert drawn["data"][0]["y"] == tree["bins"][0]["mean"]


# -- what it tolerates, what it refuses ---------------------------------------------


def test_no_cell_no_model_no_claim(tmp_path: Path) -> None:
    text = text_of(page_of(tmp_path, {"lab": "pretraining", "models": [], "differences": []}))
    assert "No student has been compared with its twin yet." in text
    assert "No claim has been judged yet." in text and "No law was fitted." in text


@pytest.mark.parametrize("lost", ["best_weights", "bins", "claims", "laws", "corpus", "models", "differences", "seeds"])
def test_any_list_may_be_empty(tmp_path: Path, tree: dict[str, Any], lost: str) -> None:
    html = page_of(tmp_path, tree | {lost: type(tree[lost])()})
    assert "NaN" not in without_plotly(html)


def test_one_seed_and_one_teacher(tmp_path: Path) -> None:
    tree = page_results(seeds=(1,), laws=False)
    kept = "teacher-2M-2457600"
    for key in ("differences", "best_weights", "bins"):
        tree[key] = [one for one in tree[key] if one["teacher"]["id"] == kept]
    html = page_of(tmp_path, tree)
    assert "NaN" not in without_plotly(html) and "None" not in text_of(html)
    assert embedded(html, "heat-s0-m0")["layout"]["shapes"][0]["type"] == "line"  # no frame without an interval
    assert "1 seed, so no interval" in text_of(html)
    assert any(row.endswith(" -") for row in rows_of(html, "numbers")) is False


def test_values_that_are_missing_are_dashes(tmp_path: Path) -> None:
    tree = page_results()
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
    tree = json.loads(json.dumps(page_results()).replace("technical", "</script><img src=x onerror=boom>"))
    tree["hardware"] = tree["preset"] = tree["setting"]["note"] = HOSTILE
    tree["claims"][0] |= {"name": HOSTILE, "statement": HOSTILE, "status": HOSTILE, "why": HOSTILE}
    for one in (*tree["differences"], *tree["models"], *tree["bins"], *tree["best_weights"]):
        if one.get("teacher"):
            one["teacher"] |= {"id": one["teacher"]["id"] + HOSTILE, "size": HOSTILE}
    tree["differences"][-1]["variant"] = tree["differences"][0]["relation"] = HOSTILE
    html = without_plotly(page_of(tmp_path, tree))
    assert 'alert("x")' not in html and "<img" not in html
    for name in re.findall(r'id="data-([\w-]+)"', html):
        assert "<img" not in unescape_once(embedded(html, name))
    assert not re.search(r"""(src|href|action|data)\s*=\s*["']?\s*(https?:)?//""", html)


def unescape_once(figure: dict[str, Any]) -> str:
    """What Plotly gets, which takes some HTML in texts: an escaped name stays escaped."""
    return json.dumps(figure)


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
    tree = page_results()
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
    assert law_curve(tree, "technical", 0.5, (0, 1)) is None


def test_the_page_draws_the_laws_that_the_lab_fits(tmp_path: Path) -> None:
    from potstill.lab.laws import fit_laws

    grid = simulated(weights=(0.3, 0.6, 1.0))
    fitted = fit_laws(grid)
    law = fitted["measures"]["held_out"]["difference"]
    cell = law["cells"][0]
    found = law_curve({"laws": fitted}, "held_out", cell["weight"], (cell["x"], cell["x"] + 1))
    assert found is not None and found[1][0] == pytest.approx(cell["fitted"])
    html = page_of(tmp_path, page_results() | {"laws": fitted})
    assert len(rows_of(html, "laws")) == 1 + 2 * 3 + 2  # two sets with three laws, accuracy and margin with one
