"""The report: one page that holds what it should, lets nothing run and asks nobody."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from potstill.records import Curve, EvaluationRecord, Measured
from potstill.report import figures, write_report
from potstill.report.numbers import band, before_after, column, reported, teacher_value, thinned
from potstill.report.sections import side_by_side
from potstill.report.template import nats, plain
from potstill.report.zoom import enlarged
from potstill.run_dir import RunDir, RunDirError, append_lines

HOSTILE = '</pre></script><script>alert("x")</script><img src="http://evil.example/a.png" onerror="alert(1)">'
STEPS = tuple(range(0, 481, 40))


def evaluation(step: int, num_prompts: int, further: float = 0.0, prompt: str = "p") -> EvaluationRecord:
    """Proxy falls all the way, to a level that is `further` away; golden falls, turns at step 200 and rises."""
    ids = np.array([f"{prompt}{i:03}" for i in range(num_prompts)])
    difficulty = np.random.default_rng(7).normal(0, 0.4, num_prompts)
    jitter = np.random.default_rng(step).normal(0, 0.03, (4, num_prompts))
    tokens = np.full(num_prompts, 24, dtype=np.int64)
    turn = max(0.0, step - 200) * 0.0016
    means = {
        "proxy": 0.35 + 1.6 * np.exp(-step / 130),
        "proxy_fkl": 0.42 + further + 1.7 * np.exp(-step / 130),
        "golden": 2.1 + 1.3 * np.exp(-step / 90) + turn,
        "teacher_golden": 2.35,
    }
    series = {}
    for noise, (name, mean) in zip(jitter, means.items(), strict=True):
        steady = 0.0 if name == "teacher_golden" else 1.0
        per_token = np.maximum(mean + difficulty * 0.3 + noise * steady, 0.01)
        series[name] = Measured(ids, per_token * tokens, tokens)
    splits = {str(name): "selection" if i % 2 else "test" for i, name in enumerate(ids)}
    return EvaluationRecord(step, series, splits)


def make_run(path: Path, steps: tuple[int, ...] = STEPS, num_prompts: int = 64, **more: Any) -> RunDir:
    """A run directory as the loop and the monitor write it."""
    run = RunDir(path)
    random = np.random.default_rng(0)
    for step in steps:
        run.write_evaluation(evaluation(step, num_prompts, **more))
        for number in range(3):
            line = {"step": step, "prompt_id": f"p{number:03}", "prompt": f"When does water boil? {HOSTILE}"}
            line["student"] = "I think, I think" if step == 0 else f"Water boils at {step} degrees. {HOSTILE}"
            others = {"teacher": "At 100 degrees \ud800.", "reference": "At 100 °C & 1 atm <sea level>."}
            run.append("samples.jsonl", {**line, **others})
    lines = []
    for step in range(1, 481):
        loss = 0.4 + 1.8 * np.exp(-step / 120) + random.normal(0, 0.06)
        rates = {"learning_rate": 1e-3 * min(step / 50, 1), "grad_norm": 1 + random.exponential(0.3)}
        terms = {"term/forward_kl": loss - 0.1, "term/cross_entropy": 0.2, "weight/forward_kl": 1.0}
        lines.append({"step": step, "loss": loss, **rates, **terms, "weight/cross_entropy": step / 480})
    append_lines(run.file("metrics.jsonl"), lines)  # with one fsync
    run.append("events.jsonl", {"event": "finished", "exported_step": 200})
    run.append("events.jsonl", {"event": "finished", "exported_step": 440})
    layers = {"student_layer": 1, "teacher_layer": 3}
    student = {"from_layers_of": "teacher", "layer_map": [{**layers, "from": 0}, {**layers, "from": 5}]}
    run.write_json(
        "provenance.json",
        {"golden": "oracle", "student": student, "teacher": {"id": f"tiny {HOSTILE}", "depth": 1}},
    )
    run.write_json("environment.json", {"python": "3.11", "libraries": {"numpy": "2.0", "plotly": "6.0"}})
    run.write_text("config.yaml", f"output: runs/example\nseed: 3\nnote: '{HOSTILE}'\n")
    return run


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunDir, Path, str]:
    run = make_run(tmp_path_factory.mktemp("report") / "example")
    path = write_report(run.path)
    return run, path, path.read_text()


def without_plotly(html: str) -> str:
    """The page less Plotly's own source, which is full of addresses that it never asks."""
    scripts = re.findall(r"<script>.*?</script>", html, flags=re.DOTALL)
    assert len(scripts) == 2, "Plotly once, and the script that draws"
    return html.replace(scripts[0], "")


def embedded(html: str, name: str) -> dict[str, Any]:
    found = re.search(rf'id="data-{name}">(.*?)</script>', html, flags=re.DOTALL)
    assert found is not None
    figure: dict[str, Any] = json.loads(found[1])
    return figure


def measured_curve(values: np.ndarray, **more: Any) -> Curve:
    ids = np.array([f"p{i}" for i in range(values.shape[1])])
    kept: dict[str, Any] = {"name": "golden", "splits": np.full(ids.size, "test"), **more}
    return Curve(
        steps=np.arange(values.shape[0]), sums=values * 10, tokens=np.full(values.shape, 10.0),
        prompt_ids=ids, **kept,
    )  # fmt: skip


def test_page_is_in_the_run_and_says_its_verdict_first(written: tuple[RunDir, Path, str]) -> None:
    from potstill.diagnosis import diagnose

    run, path, html = written
    verdict = diagnose(run.path)
    assert path == run.file("report.html")
    said = re.search(r'<h1>(.*?)</h1>\s*<p class="rest">(.*?)</p>', html)
    assert said is not None and verdict.sentence == unescape(f"{said[1]} {said[2]}")
    assert html.index("<h1>") < html.index("<h2>")
    assert verdict.verdict.replace("_", " ") in html


def test_hostile_text_is_escaped_wherever_it_comes_from(written: tuple[RunDir, Path, str]) -> None:
    page = without_plotly(written[2])
    assert 'alert("x")' not in page and "<img" not in page
    assert page.count("&lt;script&gt;alert(&#34;x&#34;)") >= 5  # prompt, student, config, provenance
    assert "At 100 °C &amp; 1 atm &lt;sea level&gt;." in page
    assert "At 100 degrees ?." in page  # half a surrogate pair cannot be written


def test_page_asks_nobody(written: tuple[RunDir, Path, str]) -> None:
    page = without_plotly(written[2])
    unescaped = page.replace("src=&#34;http://evil.example", "")
    assert not re.search(r"""(src|href|action|data)\s*=\s*["']?\s*(https?:)?//""", unescaped)
    assert not re.search(r"@import|url\(|cdn", unescaped)
    assert "default-src 'none'" in page


def test_scripts_are_allowed_by_hash_alone(written: tuple[RunDir, Path, str]) -> None:
    policy = re.search(r"script-src (.*?); style-src", unescape(without_plotly(written[2])))
    assert policy is not None and "unsafe" not in policy[1]
    for script in re.findall(r"<script>(.*?)</script>", written[2], flags=re.DOTALL):
        assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() in policy[1]


def test_figures_hold_the_measured_points(written: tuple[RunDir, Path, str]) -> None:
    run, _, html = written
    records = run.evaluations()
    test = [prompt == "test" for prompt in records[0].splits.values()]
    means = {
        name: [r.series[name].sums[test].sum() / r.series[name].tokens[test].sum() for r in records]
        for name in ("proxy", "golden", "proxy_fkl")
    }
    path = embedded(html, "plane")["data"][0]
    np.testing.assert_allclose(path["x"], means["proxy"])
    np.testing.assert_allclose(path["y"], means["golden"])
    assert path["marker"]["color"] == list(STEPS)
    drawn = {trace.get("name"): trace for trace in embedded(html, "proxy")["data"]}
    np.testing.assert_allclose(drawn["Proxy, forward KL"]["y"], means["proxy_fkl"])
    assert len(embedded(html, "loss")["data"][0]["x"]) == 480
    assert {trace["name"] for trace in embedded(html, "schedule")["data"]} == {"learning rate", "grad norm"}


def test_teacher_and_axes_are_named(written: tuple[RunDir, Path, str]) -> None:
    plane, golden = embedded(written[2], "plane"), embedded(written[2], "golden")
    assert any("the teacher's own" in a["text"] for a in plane["layout"]["annotations"])
    assert any("the teacher's own" in trace.get("name", "") for trace in golden["data"])
    titles = [f["layout"][axis]["title"]["text"] for f in (plane, golden) for axis in ("xaxis", "yaxis")]
    assert titles[:2] == ["proxy, nats per token", "golden, nats per token"]
    assert titles[2:] == ["optimiser steps", "nats per token"]


def test_exported_step_is_the_last_one_in_the_diary(written: tuple[RunDir, Path, str]) -> None:
    assert "exported student: step <b>440</b>" in written[2]


def test_terms_and_moving_weights_are_drawn(written: tuple[RunDir, Path, str]) -> None:
    traces = embedded(written[2], "terms")["data"]
    names = [(trace["name"], trace["yaxis"]) for trace in traces]
    assert names == [("cross entropy", "y"), ("forward kl", "y"), ("cross entropy", "y2")]  # one weight stands still
    assert np.mean(traces[0]["y"]) == pytest.approx(0.2)


def test_one_term_needs_no_figure_of_its_own(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    for step in range(1, 4):
        run.append("metrics.jsonl", {"step": step, "loss": 2.0, "term/forward_kl": 2.0})
    assert 'id="plot-terms"' not in write_report(run.path).read_text()


def test_unit_is_not_called_nats_where_a_term_is_not_in_nats(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", steps=(0, 40, 80), num_prompts=8)
    html = write_report(run.path).read_text()
    assert embedded(html, "loss")["layout"]["yaxis"]["title"]["text"] == "training loss, nats"
    run.append("metrics.jsonl", {"step": 481, "loss": 1.0, "term/logit_mse": 3.0})
    html = write_report(run.path).read_text()
    titles = [embedded(html, name)["layout"] for name in ("plane", "loss")]
    assert titles[0]["xaxis"]["title"]["text"] == "proxy, the objective's own unit, per token"
    assert titles[1]["yaxis"]["title"]["text"] == "training loss, the objective's own unit"


def test_names_of_terms_cannot_make_links_in_a_figure(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    for step in range(1, 4):
        run.append("metrics.jsonl", {"step": step, "term/<a href='http://evil.example'>x</a>": 1.0, "term/b": 2.0})
    names = [trace["name"] for trace in embedded(write_report(run.path).read_text(), "terms")["data"]]
    assert names == ["&lt;a href=&#x27;http://evil.example&#x27;&gt;x&lt;/a&gt;", "b"]


def test_crowded_end_of_a_path_is_enlarged() -> None:
    falling = np.tile(8 * np.exp(-np.arange(12.0))[:, None] + 1, 10)  # late part: 1.0 to 1.15
    axes = ("proxy", "golden")
    for teacher, shown in ((0.9, True), (0.8, False)):
        golden = measured_curve(falling, teacher=np.full(10, 10 * teacher))
        assert teacher_value(golden) == pytest.approx(teacher)
        (late,) = enlarged([{"proxy": measured_curve(falling), "golden": golden}], axes) or [{}]
        assert late["proxy"].steps.tolist() == list(range(4, 12))
        assert (late["golden"].teacher is not None) == shown


@pytest.mark.parametrize("values", [np.arange(12.0), np.ones(12), np.array([9.0, 1.0, 1.0])])
def test_path_that_would_gain_nothing_is_not_enlarged(values: np.ndarray) -> None:
    curve = measured_curve(np.tile(values[:, None], 10))
    assert enlarged([{"proxy": curve, "golden": curve}], ("proxy", "golden")) is None


def test_stored_verdict_is_used_and_its_best_step_marked(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    told = {"verdict": "hacking", "confidence": 0.97, "best_step": 200, "sentence": "It learned <mistakes>."}
    run.write_json("verdict.json", {**told, "evidence": {"golden_rise": 0.123456, "interval": [0.1, 0.2]}})
    html = write_report(run.path).read_text()
    assert "<h1>It learned &lt;mistakes&gt;.</h1>" in html
    assert "golden rise" in html and "0.1235" in html and "[0.1, 0.2]" in html
    texts = [a["text"] for a in embedded(html, "plane")["layout"]["annotations"]]
    assert "best, step 200" in texts and "step 480" in texts
    assert 'data-label="best, step 200"' in html


def test_diversity_is_shown_where_the_run_wrote_it_down(tmp_path: Path, written: tuple[RunDir, Path, str]) -> None:
    assert 'id="diversity"' not in written[2]
    run = make_run(tmp_path / "run")
    prompts = {"rows": 40, "texts": 40, "mean_length": 7.25, "distinct_2": 0.625, "near_duplicates": 0.1}
    completions = {HOSTILE: {"rows": 80, "texts": 80, "mean_length": 31.5, "self_bleu": 0.375}}
    visits = {"per_prompt": 12.0, "per_completion": {HOSTILE: 6.0}}
    found = {"prompts": prompts, "completions": completions, "planned_visits": visits}
    run.write_json("provenance.json", run.read_json("provenance.json") | {"diversity": found})
    page = without_plotly(write_report(run.path).read_text())
    table = page.split('id="diversity"')[1].split("</table>")[0]
    cells = [" ".join(re.sub(r"<[^>]+>", "", cell).split()) for cell in re.findall(r"<td.*?</td>", table, re.DOTALL)]
    assert cells[:6] == ["40", "7.25 words", "0.625", "\N{EN DASH}", "10 %", "12 times each"]
    assert cells[6:] == ["80", "31.5 tokens", "\N{EN DASH}", "0.375", "&ndash;", "6 times each"]
    assert HOSTILE not in page


def test_run_with_two_evaluations_is_inconclusive(tmp_path: Path) -> None:
    html = write_report(make_run(tmp_path / "short", steps=(0, 40), num_prompts=8).path).read_text()
    assert "inconclusive" in html and "Proxy against golden" in html


@pytest.mark.parametrize("name", ["config.yaml", "metrics.jsonl"])
def test_missing_pieces_are_named(tmp_path: Path, name: str) -> None:
    run = RunDir(tmp_path / "bare")
    run.write_text(name, "")
    html = write_report(run.path).read_text()
    assert "inconclusive" in html
    for words in ("No evaluations", "No samples", "No provenance.json", "No environment.json"):
        assert words in html


def test_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunDirError, match="is not a run directory"):
        write_report(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


def test_differences_are_paired() -> None:
    difficulty = np.linspace(1, 5, 40)
    row = before_after(measured_curve(np.stack([difficulty, difficulty - 0.5])), best_step=1)
    assert row.change.low is not None and row.change.high is not None
    np.testing.assert_allclose([row.change.value, row.change.low, row.change.high], -0.5)
    assert row.first.low is not None and row.first.low < 2.8 < 3.2 < row.first.high  # type: ignore[operator]
    assert row.best is None  # the best step is the last one: no column of its own


def test_unpaired_means_get_no_interval() -> None:
    curve = measured_curve(np.ones((3, 1)), paired=False)
    assert band(curve) is None
    assert before_after(curve, None).change.low is None
    assert len(figures.curves([curve], None).data) == 1


def test_run_of_means_says_that_it_has_no_intervals(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "means")
    for step in range(0, 100, 10):
        run.write_evaluation(EvaluationRecord(step, {}, {}, {"proxy": 1 / (1 + step), "golden": 2.0}))
    html = write_report(run.path).read_text()
    assert "There are no intervals" in html and "95 % interval over prompts" not in html


def test_band_covers_the_mean_of_fresh_prompts() -> None:
    hits = 0
    for seed in range(200):
        edges = band(measured_curve(np.random.default_rng(seed).normal(3, 1, (1, 60))))
        assert edges is not None
        hits += int(edges[0][0] <= 3 <= edges[1][0])
    assert 180 <= hits <= 200  # 95 % of 200, give or take three standard errors


def test_numbers_come_from_the_split_that_chose_nothing() -> None:
    splits = np.array(["test", "selection"] * 8)
    curve = measured_curve(np.tile([1.0, 9.0], (2, 8)), splits=splits, teacher=np.arange(16.0))
    kept = reported(curve)
    assert kept.per_token.tolist() == [1.0, 1.0]
    assert kept.teacher is not None and kept.teacher.tolist() == list(range(0, 16, 2))
    few = measured_curve(np.ones((2, 9)), splits=np.array(["test"] + ["selection"] * 8))
    assert reported(few).prompt_ids.size == 9


def test_evaluation_that_is_not_finite_is_left_out() -> None:
    values = np.ones((3, 10))
    values[2, 4] = np.inf
    assert reported(measured_curve(values)).steps.tolist() == [0, 1]


def test_columns_skip_what_is_not_there_and_thin_by_means() -> None:
    steps, values = column([{"step": 1, "loss": 2.0}, {"step": 2}, {"step": 3, "loss": None}], "loss")
    assert (steps.tolist(), values.tolist()) == ([1.0], [2.0])
    assert thinned(np.arange(4.0), np.array([1.0, 3.0, 5.0, 7.0]), 2)[1].tolist() == [2.0, 6.0]


def test_samples_show_teacher_then_student_before_and_after() -> None:
    line = {"prompt_id": "a", "prompt": "?", "teacher": "t", "reference": None}
    lines = [{**line, "step": step, "student": f"s{step}"} for step in (0, 10, 20)]
    (sample,) = side_by_side(lines)
    assert sample.answers == (
        ("teacher", "t"), ("student before, step 0", "s0"), ("student after, step 20", "s20")
    )  # fmt: skip
    assert side_by_side(lines[1:2])[0].answers == (("teacher", "t"), ("student, step 10", "s10"))


def test_values_are_written_for_people() -> None:
    assert [nats(v) for v in (-1.23456, 0.0, 0.0012345)] == ["\N{MINUS SIGN}1.235", "0.000", "0.0012"]
    assert [plain(v) for v in (True, None, 0.123456, [1, "a"])] == ["yes", "\N{EN DASH}", "0.1235", "[1, a]"]


def test_report_never_imports_torch(tmp_path: Path) -> None:
    make_run(tmp_path / "run", steps=(0, 40, 80), num_prompts=8)
    code = (
        "import sys; from potstill.report import write_report; write_report(sys.argv[1]); "
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "run")], check=True)


def test_the_page_says_what_fed_the_student_and_what_passed(tmp_path: Path) -> None:
    from potstill.report.feeding import describe_benchmark, describe_feeding

    lines = [
        {"rows/teacher": 9, "tokens/teacher": 90, "rows/online_student": 1, "tokens/online_student": 30,
         "staleness/online_student": 2.0},
        {"rows/teacher": 9, "tokens/teacher": 60, "rows/online_student": 1, "tokens/online_student": 20,
         "staleness/online_student": 0.0},
    ]  # fmt: skip
    student, teacher = describe_feeding(lines)
    assert (student.rows, student.row_share, student.token_share) == (2, 0.1, 0.25)
    assert (student.staleness, student.most_stale, teacher.staleness) == (1.0, 2.0, None)
    assert describe_feeding([{"loss": 1.0}]) == [] == describe_benchmark(None)
    stored = {"start": {"passed": 1, "asked": 4, "low": 0.0, "high": 0.8}, "p_no_change": 1.0}
    assert [(row.label, row.passed) for row in describe_benchmark(stored)] == [("student before", 1)]
