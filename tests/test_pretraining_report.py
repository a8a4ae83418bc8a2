"""The pretraining lab's page: the answer, the numbers of the file, figures that are drawn, names that cannot inject."""

from __future__ import annotations

import math
import re
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from pretraining_page import STUDENT, WEIGHTS, page_results
from pretraining_results import DIFFERENCE, difference
from test_lab_report import rows_of, text_of, write
from test_report import embedded

from potstill.report.pretraining import write_pretraining_report
from potstill.report.pretraining_heat import colours_end, heat
from potstill.report.pretraining_measures import DOWNSTREAM, HELD_OUT, OUTSIDE, over_seeds
from potstill.report.pretraining_reading import Results, read_results
from potstill.report.pretraining_words import answer, by_relation

MINUS = "\N{MINUS SIGN}"


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


def test_relations_count_pairs_in_which_the_teacher_helps(tmp_path: Path, tree: dict[str, Any]) -> None:
    said = by_relation(read(tmp_path, tree))
    assert len({cell["size"] for cell in tree["differences"]}) > 1
    for relation in ("weak-to-strong", "same-level", "strong-to-weak"):
        cells = [cell for cell in tree["differences"] if cell["relation"] == relation and not cell["variant"]]
        pairs = {(cell["size"], cell["teacher"]["id"]) for cell in cells}
        helping = {(c["size"], c["teacher"]["id"]) for c in cells if c["measures"]["held_out"]["high"] < 0}
        assert f"{len(helping)} of {len(pairs)} {relation}" in said


def test_claims_stand_with_their_colours(page: str) -> None:
    assert re.findall(r'<article class="claim (\w+)">', page) == ["reproduced", "undecided", "reproduced", "refuted"]
    assert "The claims: 2 reproduced, 1 not decidable, 1 not reproduced" in text_of(page)


def test_tables_hold_the_numbers_of_the_file(page: str, tree: dict[str, Any]) -> None:
    rows = rows_of(page, "relations")
    order = re.findall(r'<th scope="rowgroup"[^>]*>(.*?)</th>', page)
    assert order == ["weak-to-strong", "same-level", "strong-to-weak", "same-level", "strong-to-weak"]
    best = next(one for one in tree["best_weights"] if one["measure"] == "held_out")
    row = next(row for row in rows if row.startswith("0.2M@307k"))
    assert f"4.999 +1.479 {best['weight']:g} {best['mean']:+.3f}" in row
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
