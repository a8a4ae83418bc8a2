"""The lab's page: every finding with its word, the numbers of the file, figures that are drawn, nobody asked."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lab_results import SEEDS, SHAPES, arm_of, cell, results
from test_report import embedded, without_plotly

from potstill.report.lab import duration, measure, number, probability, write_lab_report
from potstill.report.lab_arms import COMPARISONS, LOOKS, comparisons, looks
from potstill.report.lab_findings import dot_plot, headline, read_findings
from potstill.report.lab_lines import Drawing, opened
from potstill.report.lab_reading import LabResultsError, mean_over_seeds, read_results
from potstill.report.numbers import Estimate

DASH, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"
HOSTILE = '</pre></script><script>alert("x")</script>'
FEW = ("offline", "oracle_as_teacher", "online_student", "mixture_10")


def write(folder: Path, tree: dict[str, Any]) -> Path:
    path = folder / "results.json"
    path.write_text(json.dumps(tree))
    return path


def page_of(folder: Path, tree: dict[str, Any]) -> str:
    return write_lab_report(write(folder, tree)).read_text()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    return page_of(tmp_path_factory.mktemp("lab"), results())


def text_of(html: str) -> str:
    """What a reader sees, with single spaces."""
    page = re.sub(r"<(script|style).*?</\1>", " ", html, flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", page)).split()).replace(DASH, "-").replace(MINUS, "-")


def rows_of(html: str, section: str) -> list[str]:
    inside = html.split(f'<section id="{section}"')[1].split("</section>")[0]
    return [text_of(row) for row in re.findall(r"<tr>.*?</tr>", inside, flags=re.DOTALL)]


# -- what it says ---------------------------------------------------------------


def test_every_finding_stands_with_its_word(page: str) -> None:
    found = dict(re.findall(r'<details class="finding (\w+)" id="finding-(\d)">', page)[i][::-1] for i in range(7))
    assert found == {
        "1": "reproduced", "2": "reproduced", "3": "reproduced", "4": "undecided", "5": "refuted",
        "6": "reproduced", "7": "undecided",
    }  # fmt: skip
    text = text_of(page)
    assert "4 of 7 findings reproduced, 1 not reproduced, 2 not decidable" in text
    assert "5. More completions a prompt help. not reproduced Golden does not fall." in text
    assert "The results say nothing of it yet." in text  # the seventh


def test_effects_have_interval_dots_and_what_was_wanted(page: str) -> None:
    finding = page.split('id="finding-1"')[1].split("</details>")[0]
    text = text_of(finding)
    # 1.55, 1.71, 1.62: mean 1.6267, standard deviation 0.0802, times 4.303 / sqrt(3) is 0.1993
    assert "1.627 1.427 to 1.826 wanted: above 0 met" in text
    assert finding.count("<circle") == 6 and "seed 4: 1.71" in text
    assert "wanted: below 0 not met" in text_of(page.split('id="finding-5"')[1].split("</details>")[0])
    assert "wanted: near 0 not decided" in text_of(page.split('id="finding-4"')[1].split("</details>")[0])


def test_an_effect_for_the_reader_is_neither_met_nor_missed() -> None:
    effect = {"name": "a", "mean": 0.5, "interval": None, "met": None, "outcome": "reported", "wanted": "nothing"}
    found = read_findings([{"number": 1, "statement": "s", "status": "reproduced", "effects": [effect]}])
    assert (found[0].effects[0].outcome, found[0].effects[0].wanted) == ("for the reader", "")
    assert found[0].effects[0].estimate == Estimate(0.5)


def test_tables_hold_the_numbers_of_the_file(page: str) -> None:
    tree = results()
    arms = {row.split(" 3 ")[0]: row for row in rows_of(page, "arms")}
    mean, low, high = next(arm for arm in tree["arms"] if arm["arm"] == "offline")["golden_last"]
    assert f"{mean:.2f} {low:.2f} to {high:.2f}" in arms["offline"]
    assert "3 hacking 3" in arms["offline"] and "3 healthy 0" in arms["10 % online student"]
    runs = rows_of(page, "runs")
    assert len(runs) == 1 + len(SHAPES) * len(SEEDS)
    assert "offline 4 hacking > 0.99 < 0.001 1 min -" in runs
    assert "online student 5 healthy 0.93 0.310 1 min -" in runs


def test_a_run_with_a_page_of_its_own_is_linked(tmp_path: Path) -> None:
    tree = results(FEW)
    run = tmp_path / "results" / tree["cells"][0]["run"]
    run.mkdir(parents=True)
    (run / "report.html").write_text("x")
    path = write(tmp_path / "results", tree)
    beside, elsewhere = write_lab_report(path).read_text(), write_lab_report(path, tmp_path / "page.html").read_text()
    assert f'href="./{tree["cells"][0]["run"]}/report.html"' in beside
    assert f'href="./results/{tree["cells"][0]["run"]}/report.html"' in elsewhere
    assert beside.count(">report</a>") == 1


def test_page_asks_nobody_and_runs_nothing_from_the_file(tmp_path: Path) -> None:
    tree = results(FEW)
    tree["hardware"] = tree["setting"]["note"] = HOSTILE
    tree["findings"][0]["why"] = tree["findings"][0]["effects"][0]["words"] = HOSTILE
    for found in tree["cells"][:3]:
        found["arm"] = HOSTILE
    tree["arms"][0]["arm"] = HOSTILE
    html = without_plotly(page_of(tmp_path, tree))
    assert 'alert("x")' not in html
    assert not re.search(r"""(src|href|action|data)\s*=\s*["']?\s*(https?:)?//""", html)
    assert not re.search(r"@import|url\(|cdn", html)
    assert "default-src 'none'" in html


# -- what it tolerates, what it refuses ---------------------------------------------


def test_what_is_missing_is_a_dash(tmp_path: Path) -> None:
    tree = results(("offline", "mixture_10"), laws=False)
    first, *others = tree["cells"]
    first |= {"rise": None, "teacher_golden": None, "seconds": None, "verdict": None, "confidence": None}
    first |= {"proxy_fkl": None, "golden": [None] * len(first["steps"])}
    for found in others:
        found["training_loss"] = [None] * len(found["steps"])
    tree["arms"][0] |= {"golden_rise": None, "proxy_gain": [3.0, None, None], "verdicts": {}}
    tree["findings"], tree["seconds"] = [], None
    html = page_of(tmp_path, tree)
    assert "offline 3 - - - - -" in rows_of(html, "runs")
    row = rows_of(html, "arms")[1]
    assert row.startswith("offline 3 - 3") and " - " in row and " 3.000 " in row
    assert "0 of 7 findings reproduced, 7 not decidable" in text_of(html)
    assert "NaN" not in without_plotly(html)


def test_a_page_without_any_run_says_so(tmp_path: Path) -> None:
    text = text_of(page_of(tmp_path, {"preset": "tiny", "cells": []}))
    assert "No run has finished yet, so there is nothing to draw." in text
    assert "The arms have not been summed up yet." in text


def change(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda tree: tree["cells"][1].__setitem__(key, value)


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (change("golden", [float("nan")] * 19), "NaN.*expected null"),
        (change("golden", [1.0, 2.0]), "golden has 2 values for 19 steps"),
        (change("steps_per_epoch", 0), "expected more than 0"),
        (change("steps", None), "lacks steps"),
        (lambda tree: tree.pop("cells"), "no list of `cells`"),
        (lambda tree: tree["arms"][0]["laws"]["proxy"].__setitem__("exponent", 0.45), "law of proxy in arm offline"),
    ],
)
def test_results_that_cannot_be_drawn_are_refused(
    tmp_path: Path, break_it: Callable[[dict[str, Any]], None], said: str
) -> None:
    tree = results(("offline",))
    break_it(tree)
    with pytest.raises(LabResultsError, match=said):
        write_lab_report(write(tmp_path, tree))
    assert not (tmp_path / "report.html").exists()


def test_no_file_and_no_json(tmp_path: Path) -> None:
    with pytest.raises(LabResultsError, match="is not there"):
        write_lab_report(tmp_path / "results.json")
    (tmp_path / "results.json").write_text("{")
    with pytest.raises(LabResultsError, match="is not JSON"):
        write_lab_report(tmp_path / "results.json")
    with pytest.raises(IsADirectoryError):
        write_lab_report(write(tmp_path, results(("offline",))), tmp_path)


# -- what it draws ----------------------------------------------------------------


def test_the_plane_has_paths_seeds_start_teacher_and_diagonal(page: str) -> None:
    drawn = embedded(page, "plane-whole-fixed-or-fresh")
    named = [unescape(trace["name"]) for trace in drawn["data"] if trace.get("showlegend")]
    assert named[:4] == ["offline", "online teacher", "online student", "oracle as teacher"]
    assert named[4:] == ["forward KL = golden", "the teacher's own golden, 8.10", "start"]
    mine = [trace for trace in drawn["data"] if trace["legendgroup"] == "offline"]
    assert [trace["line"]["width"] for trace in mine] == [1, 1, 1, 2.4]
    band = next(trace for trace in drawn["data"] if trace.get("fill") == "toself")
    assert min(band["y"]) == pytest.approx(7.98) and max(band["y"]) == pytest.approx(8.22)
    offline = next(trace for trace in drawn["data"] if trace.get("name") == "offline")
    by_hand = np.mean([cell("offline", seed)["golden"] for seed in SEEDS], axis=0)
    assert offline["y"] == pytest.approx(by_hand.tolist()) and offline["customdata"][:3] == [0, 1, 2]
    diagonal = next(trace for trace in drawn["data"] if trace.get("name") == "forward KL = golden")
    assert diagonal["x"] == diagonal["y"]


def test_a_late_plane_opens_on_the_end_and_holds_the_teacher(page: str) -> None:
    layout = embedded(page, "plane-fixed-or-fresh")["layout"]
    (left, right), (low, high) = layout["xaxis"]["range"], layout["yaxis"]["range"]
    assert right < 10 and high < 20  # and not the start at (19, 38)
    assert left < 1.5 and 3.8 < low < 8.22 < high  # the teacher is in view, the control below is not
    assert "range" not in embedded(page, "plane-whole-fixed-or-fresh")["layout"]["xaxis"]


def test_laws_are_straight_lines_with_a_cross_where_they_break(page: str) -> None:
    drawn = embedded(page, "laws-fixed-or-fresh")
    law = arm_of([cell("offline", seed) for seed in SEEDS])["laws"]["training_loss"]
    mine = [trace for trace in drawn["data"] if trace["legendgroup"] == "offline" and trace["xaxis"] == "x"]
    points, fitted, beyond, cross = mine
    assert 0.0 not in points["x"] and points["mode"] == "markers"
    assert fitted["x"] == [law["from"], law["to"]] and beyond["x"] == [law["to"], 48.0]
    assert fitted["y"] == pytest.approx([law["C"] * x ** law["exponent"] for x in fitted["x"]])
    assert cross["x"] == [law["break_epoch"]]
    assert drawn["layout"]["xaxis"]["type"] == drawn["layout"]["yaxis2"]["type"] == "log"


def test_without_laws_there_are_points_only(tmp_path: Path) -> None:
    html = page_of(tmp_path, results(FEW, laws=False))
    assert {trace["mode"] for trace in embedded(html, "laws-fixed-or-fresh")["data"]} == {"markers"}
    assert "No law was fitted." in html and "Power laws" not in html


def test_other_teachers_bring_lines_of_their_own(tmp_path: Path) -> None:
    tree = results(("offline", "oracle_as_teacher", "small_student", "small_teacher"))
    found = read_results(write(tmp_path, tree), tmp_path / "report.html")
    arms = found.names
    teachers = Drawing(found, arms, looks(arms)).teachers()
    assert {arm: list(found) for arm, found in teachers.items()} == {"offline": [*SEEDS], "small_teacher": [*SEEDS]}


def test_a_mean_stands_where_all_seeds_were_measured(tmp_path: Path) -> None:
    tree = results(("offline",))
    tree["cells"][0]["golden"][2] = None
    cells = read_results(write(tmp_path, tree), tmp_path / "report.html").cells
    epochs, values = mean_over_seeds(cells, "golden")
    assert epochs.tolist()[:3] == [0, 1, 3]
    assert values[1] == pytest.approx(np.mean([cell("offline", seed)["golden"][1] for seed in SEEDS]))
    stopped = replace(cells[1], series=cells[1].series | {"golden": np.full(19, np.nan)})
    assert mean_over_seeds([cells[0], stopped], "golden")[0].size == 18  # a seed without the series does not count


def test_the_view_leaves_out_a_crowding_start_only() -> None:
    epochs = np.arange(9.0)
    steep = np.array([90.0, 50, 10, 9, 8, 7, 6, 5, 4])
    view = opened([(epochs, epochs, steep)])
    assert view is not None and view[1] == pytest.approx([4 - 0.07 * 6, 10 + 0.07 * 6])
    assert opened([(epochs, epochs, epochs)]) is None
    assert opened([(epochs, epochs, np.full(9, np.nan))]) is None


def test_dots_lie_in_proportion() -> None:
    plot = dot_plot([("3", 1.0), ("4", 2.0), ("5", None)], Estimate(1.5, -2.0, 2.0))
    assert plot is not None
    assert [at for at, _ in plot.dots] == [73.0, 96.0]  # 4 + 92 * 3/4, 4 + 92
    assert (plot.low, plot.zero, plot.high) == (4.0, 50.0, 96.0)
    assert dot_plot([("3", None)], None) is None


# -- words, looks -------------------------------------------------------------------


def test_numbers_as_they_are_written() -> None:
    assert [number(value) for value in (None, 0.0, 1.23456, -12.3456, 123.456, 0.00004)] == [
        DASH, "0", "1.235", f"{MINUS}12.35", "123.5", f"4e{MINUS}05",
    ]  # fmt: skip
    assert measure(Estimate(9.5, 8.0, 11.0)) == ("9.50", "8.00", "11.00")
    assert [probability(p) for p in (None, 0.0004, 0.31)] == [DASH, "< 0.001", "0.310"]
    assert [duration(s) for s in (None, 12.3, 200, 4321.0)] == [DASH, "12 s", "3 min", "1 h 12 min"]
    assert headline(read_findings(None)) == "0 of 7 findings reproduced, 7 not decidable"


def test_no_two_arms_of_a_figure_look_alike() -> None:
    for one in COMPARISONS:
        assert len({LOOKS[arm].symbol for arm in one.arms}) == len(one.arms), one.id
        assert len({(LOOKS[arm].colour, LOOKS[arm].dash) for arm in one.arms}) == len(one.arms), one.id
    assert len({(look.colour, look.symbol) for look in LOOKS.values()}) == len(LOOKS)


def test_every_arm_of_the_lab_has_a_look_and_a_place() -> None:
    from typing import get_args

    from potstill.config.lab import Arm

    assert set(get_args(Arm)) <= set(LOOKS)
    assert set(LOOKS) <= {arm for one in COMPARISONS for arm in one.arms}


def test_comparisons_hold_what_was_run() -> None:
    assert [one.id for one in comparisons(["offline", "online_student"])] == ["fixed-or-fresh"]
    found = comparisons(["offline", "mixture_10", "mixture_7"])
    assert [(one.id, one.arms) for one in found] == [
        ("fixed-or-fresh", ("offline",)),
        ("mixtures", ("offline", "mixture_10")),
        ("others", ("offline", "mixture_7")),
    ]


def test_the_page_reads_what_the_lab_writes(tmp_path: Path) -> None:
    from potstill.lab.arms_table import arms_table
    from potstill.lab.cells import Cell
    from potstill.lab.findings import judge_findings

    tree = results((*FEW, "online_teacher", "reverse_kl"))
    cells = [Cell.from_json(found) for found in tree["cells"]]
    tree |= {"cells": [one.to_json() for one in cells], "arms": arms_table(cells)}
    tree["findings"] = [finding.to_json() for finding in judge_findings(cells)]
    html = page_of(tmp_path, tree)
    assert html.count('<details class="finding') == 7
    for finding in tree["findings"]:
        assert f"{finding['number']}. {finding['statement']} {finding['status']}" in text_of(html)
    assert "for the reader" in text_of(html) and "nothing: for the reader" not in text_of(html)
    assert "forward KL, last" in html  # a column that the made-up results lack
    law = next(row for row in rows_of(html, "arms") if row.startswith("offline") and "band" in row)
    assert re.search(r"of 3 -?0\.\d+ 1 to ", law), law  # seeds that leave the loss's law, then proxy's exponent
