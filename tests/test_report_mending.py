"""An alarm on the page: what the diary says of it, what followed it, in numbers by hand and in words."""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_report import HOSTILE, embedded, measured_curve, without_plotly

from potstill.diagnosis.plans import plan_changes
from potstill.diagnosis.views import fewer_prompts, seen_by_alarm
from potstill.records import Curve, EvaluationRecord, Measured
from potstill.report import write_comparison, write_report
from potstill.report.alarm_words import findings, summaries
from potstill.report.alarms import Alarm, read_alarms
from potstill.report.reading import read
from potstill.report.since_alarm import Since, since_alarms
from potstill.run_dir import RunDir, append_lines

STEPS = tuple(range(0, 481, 20))
PLAN = {"version": 1, "from_step": 0, "fractions": {"teacher": 1.0}, "completions_per_prompt": 1, "num_prompts": 32,
        "reason": "as configured", "answers": None}  # fmt: skip
MORE = PLAN | {"version": 2, "from_step": 280, "completions_per_prompt": 5, "answers": "hacking", "reason": "hacking"}


def alarm(step: int = 280, **more: Any) -> dict[str, Any]:
    said = {"verdict": "hacking", "confidence": 0.98, "sentence": "It learns accidents.", "best_step": 160}
    return {"event": "alarm", "step": step, "without_oracle": False, **said, **more}


def remedy(step: int = 280, plan: dict[str, Any] | None = MORE, **more: Any) -> dict[str, Any]:
    said = {"action": "more_completions_per_prompt", "why": "one answer shows accidents", "completions": 128}
    return {"event": "remedy", "step": step, "plan": plan, **said, **more}


def refused(action: str, why: str, step: int = 280) -> dict[str, Any]:
    return {"event": "remedy refused", "step": step, "action": action, "why": why}


def planned(plan: dict[str, Any]) -> dict[str, Any]:
    return {"event": "data plan", **plan}


def evaluation(step: int, after: float, noise: float = 0.01) -> EvaluationRecord:
    """Proxy falls; golden falls, rises from step 160 to 280 by 0.001 a step, and from there on by `after` a step."""
    ids = np.array([f"p{i:03}" for i in range(64)])
    difficulty = np.random.default_rng(7).normal(0, 0.1, 64)
    jitter = np.random.default_rng(step).normal(0, noise, (3, 64))
    golden = 2.0 + 1.3 * np.exp(-step / 25) + 0.001 * (min(step, 280) - 160) * (step > 160)
    means = {"proxy": 0.35 + 1.6 * np.exp(-step / 130), "golden": golden + after * max(0, step - 280)}
    means["proxy_fkl"] = means["proxy"]
    tokens = np.full(64, 20, dtype=np.int64)
    series = {
        name: Measured(ids, (mean + difficulty + moved) * tokens, tokens)
        for (name, mean), moved in zip(means.items(), jitter, strict=True)
    }
    return EvaluationRecord(step, series, {str(name): "selection" if i % 2 else "test" for i, name in enumerate(ids)})


def make_run(
    path: Path, events: list[dict[str, Any]], after: float = -0.0008, last: int = 480, kind: str = "oracle"
) -> RunDir:
    run = RunDir(path)
    for step in STEPS:
        if step <= last:
            run.write_evaluation(evaluation(step, after))
    append_lines(run.file("events.jsonl"), events)
    metrics = [{"step": step, "loss": 1.0, "rows/teacher": 4, "tokens/teacher": 80} for step in range(1, last + 1)]
    append_lines(run.file("metrics.jsonl"), metrics)
    run.write_json("provenance.json", {"golden": kind})
    told = {"verdict": "hacking", "confidence": 0.9, "best_step": 160, "sentence": "Said.", "evidence": {}}
    run.write_json("verdict.json", told)
    return run


MENDED = [planned(PLAN), alarm(), refused("online_mixture", "no budget"), remedy(), planned(MORE)]


def story(html: str) -> str:
    """The section's words."""
    part = without_plotly(html).split('<section id="alarms">')[1].split("</section>")[0]
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", part)))


# -- the diary ------------------------------------------------------------------


def test_an_alarm_with_what_was_refused_done_changed_and_spent(tmp_path: Path) -> None:
    (found,) = read_alarms(make_run(tmp_path, MENDED))
    assert (found.step, found.words, found.kept, found.sentence) == (280, "hacking", "0.98", "It learns accidents.")
    assert found.refused == (("online_mixture", "no budget"),)
    assert found.done == "more completions per prompt" and found.why == "one answer shows accidents"
    assert found.changes == ("completions of each prompt: 1 → 5",)
    assert found.rows == 4 * 480 and found.cost.startswith("128 completions, 6.67 % of the 1,920 rows")
    assert not found.ended and found.again == ()


def test_a_diary_that_says_things_twice_is_read_once_and_its_last_word_counts(tmp_path: Path) -> None:
    killed = [planned(PLAN), alarm(confidence=0.5), refused("human_text", "taken back"), remedy(completions=1)]
    run = make_run(tmp_path, [*killed, planned(PLAN), *MENDED[1:], planned(PLAN), planned(MORE)])
    (found,) = read_alarms(run)
    assert (found.confidence, found.completions) == (0.98, 128)
    assert found.refused == (("online_mixture", "no budget"),)
    assert found.changes == ("completions of each prompt: 1 → 5",)


def test_an_alarm_of_steps_that_the_run_did_not_come_to_again_is_no_alarm(tmp_path: Path) -> None:
    assert read_alarms(make_run(tmp_path, MENDED, last=260)) == ()
    assert 'id="alarms"' not in without_plotly(write_report(tmp_path).read_text())


@pytest.mark.parametrize("events", [
    [alarm(), remedy(plan=None, action="stop", why="was best at step 160", completions=0)],
    [{"event": "stopped by verdict", "step": 280, "verdict": "hacking"}],
])  # fmt: skip
def test_a_run_that_its_alarm_ended(tmp_path: Path, events: list[dict[str, Any]]) -> None:
    run = make_run(tmp_path, [planned(PLAN), *events], last=280)
    (found,) = read_alarms(run)
    assert found.ended and found.done in ("stop", "the run ended") and found.changes == ()
    assert read(run).since == (None,)
    html = write_report(run.path).read_text()
    assert "the run ended" in story(html).lower() and "since then" not in story(html)
    assert "None of these has been applied" in html
    texts = [one["text"] for one in embedded(html, "plane")["layout"]["annotations"]]
    assert "alarm, step 280" in texts and "step 280" not in texts, "one name for one point"


def test_an_alarm_that_nothing_could_be_done_about_stands_once(tmp_path: Path) -> None:
    events = [line for step in (280, 320, 360) for line in (alarm(step), refused("stop", "not today", step))]
    (found,) = read_alarms(make_run(tmp_path, [planned(PLAN), *events]))
    assert (found.step, found.again, found.done) == (280, (320, 360), "nothing was done")
    other = [alarm(400), refused("stop", "for another reason", 400)]
    append_lines(RunDir(tmp_path).file("events.jsonl"), other)
    assert [one.step for one in read_alarms(RunDir(tmp_path))] == [280, 400]
    told = story(write_report(tmp_path).read_text())
    assert "It came again at steps 320, 360." in told and "not today" in told and "what followed" in told


def test_changes_of_a_plan_are_named_with_what_was_before() -> None:
    after = PLAN | {"fractions": {"teacher": 0.75, "online_student": 0.25}, "num_prompts": 1037}
    assert plan_changes(PLAN, after) == (
        "prompts in use: 32 → 1,037",
        "the teacher's answers in every batch: 100 % → 75 %",
        "the student's own answers in every batch: 0 % → 25 %",
    )
    assert plan_changes(None, MORE)[0] == "completions of each prompt: 5"
    assert plan_changes(PLAN, PLAN) == ()


# -- what followed, by hand -------------------------------------------------------


def lines_of(values: list[float], name: str = "golden", prompts: int = 16) -> Curve:
    """[S] evaluations at steps 0, 10, 20 ...; each prompt lies its own constant away."""
    table = np.array(values)[:, None] + np.linspace(-0.5, 0.5, prompts)
    curve = measured_curve(table, name=name)
    return Curve(curve.name, curve.steps * 10, curve.sums, curve.tokens, curve.prompt_ids, curve.splits)


#: Falls to 1.0 at step 30, rises by 0.02 each ten steps up to the alarm at 80, then falls by 0.01 each.
TENT = [4.0, 3.0, 2.0, 1.0, 1.02, 1.04, 1.06, 1.08, 1.10, 1.09, 1.08, 1.07, 1.06, 1.05]
TAKEN = Alarm(80, "hacking", action="more_prompts", changes=("prompts in use: 8 → 16",))


def test_levels_and_slopes_are_those_of_the_lines() -> None:
    (found,) = since_alarms({"golden": lines_of(TENT)}, [TAKEN], None)
    assert found is not None
    golden = found.courses["golden"]
    levels = [one.value for one in (golden.at, golden.end, golden.change) if one is not None]
    np.testing.assert_allclose(levels, [1.10, 1.05, -0.05])
    np.testing.assert_allclose([golden.change.low, golden.change.high], -0.05, err_msg="paired: prompts cancel out")
    # A running mean of three is lowest at step 40.
    assert (found.best_step, found.end, found.evaluations, found.unit) == (40, 130, 5, 100)
    assert golden.beyond is not None and golden.beyond.value == pytest.approx(0.03)
    assert golden.before is not None and golden.after is not None
    assert golden.before.steps == (50, 80) and golden.after.steps == (90, 130)
    assert golden.before.per_token.value == pytest.approx(0.2) and golden.after.per_token.value == pytest.approx(-0.1)
    assert golden.after.per_sequence.value == pytest.approx(-1.0), "ten tokens to a sequence"
    assert golden.after.per_token.high is not None and golden.after.per_token.high < 0


def test_a_curve_that_did_not_turn_is_fitted_over_its_last_four_evaluations() -> None:
    falling = [4.0, 3.5, 3.0, 2.5, 2.0, 1.9, 1.8, 1.7, 1.6, 1.5, 1.4, 1.3, 1.2, 1.1]
    (found,) = since_alarms({"proxy": lines_of(falling, "proxy")}, [TAKEN], None)
    assert found is not None and found.best_step is None, "the alarm's own evaluation is the lowest"
    before = found.courses["proxy"].before
    assert before is not None and before.steps == (50, 80) and before.per_token.value == pytest.approx(-1.0)


def test_three_evaluations_are_too_few_for_a_slope() -> None:
    (found,) = since_alarms({"golden": lines_of(TENT[:12])}, [TAKEN], None)
    assert found is not None and found.courses["golden"].after is None
    assert "Too few evaluations after it to say how it sloped then (3 of 4)." in findings(TAKEN, found, "oracle")[1]


def test_what_followed_ends_at_the_next_remedy() -> None:
    second = Alarm(120, "hacking", action="human_text", changes=("something",))
    first, later = since_alarms({"golden": lines_of(TENT)}, [TAKEN, second], None)
    assert first is not None and later is not None
    assert (first.end, later.step, later.end) == (120, 120, 130)
    assert later.courses["golden"].before is not None and later.courses["golden"].before.steps == (90, 120)


def test_prompts_that_the_alarm_saw_do_not_measure_where_others_are_left() -> None:
    curve = lines_of(TENT, prompts=24)
    seen = seen_by_alarm(curve.prompt_ids, 12)
    curve.sums[9:, seen] -= 5.0  # what the alarm saw falls far
    (found,) = since_alarms({"golden": curve}, [TAKEN], 12)
    assert found is not None and found.unseen and found.prompts == "12 test prompts"
    assert found.courses["golden"].change.value == pytest.approx(-0.05)
    (all_of_them,) = since_alarms({"golden": curve}, [TAKEN], None)
    assert all_of_them is not None and not all_of_them.unseen
    (too_few,) = since_alarms({"golden": curve}, [TAKEN], 20)
    assert too_few is not None and not too_few.unseen, "four prompts are not enough to measure with"


def test_the_alarm_sees_some_prompts_and_the_others_are_left() -> None:
    curve = lines_of(TENT, prompts=40)
    shown = fewer_prompts(curve, 13)
    assert curve.prompt_ids[seen_by_alarm(curve.prompt_ids, 13)].tolist() == shown.prompt_ids.tolist()
    assert len(shown.prompt_ids) == 13 and shown.sums.shape == (len(curve.steps), 13)


def test_means_and_few_prompts_get_no_intervals() -> None:
    (found,) = since_alarms({"golden": lines_of(TENT, prompts=3)}, [TAKEN], None)
    assert found is not None
    golden = found.courses["golden"]
    assert golden.change.low is None and golden.after is not None and golden.after.per_token.low is None
    assert golden.after.per_token.value == pytest.approx(-0.1)
    assert "its error is not known" in findings(TAKEN, found, "oracle")[0]


# -- in words ---------------------------------------------------------------------


def followed(after: float, tmp_path: Path, **more: Any) -> tuple[str, Since]:
    run = make_run(tmp_path, MENDED, after, **more)
    found = read(run)
    (since,) = found.since
    assert since is not None
    return " ".join(findings(found.alarms[0], since, found.golden_kind)), since


def test_what_improved_is_said_with_its_interval(tmp_path: Path) -> None:
    said, since = followed(-0.0008, tmp_path)
    assert said.startswith("Golden fell by 0.1") and "Its line before the alarm rose: +0.1" in said
    assert "; after the alarm it fell: " in said
    assert "Golden ends below its lowest before the alarm (step 140), by 0.046" in said
    assert "the truth of this experiment" in said
    change = since.courses["golden"].change
    assert change.low is not None and change.high is not None and change.low < -0.16 < change.high < 0


def test_what_did_not_improve_is_said_first(tmp_path: Path) -> None:
    said, _ = followed(0.0008, tmp_path)
    assert said.startswith("Nothing improved. Golden rose by 0.1") and "by it the student of that step" in said
    said, _ = followed(0.0, tmp_path / "flat")
    assert said.startswith("No improvement can be told from noise. Golden changed by")


def test_overfitting_is_about_proxy_and_either_curve_may_improve() -> None:
    taken = Alarm(80, "overfitting", action="more_prompts", changes=("prompts in use: 8 → 16",))
    worse = [*TENT[:9], 1.2, 1.3, 1.4, 1.5, 1.6]
    (found,) = since_alarms({"golden": lines_of(TENT), "proxy": lines_of(worse, "proxy")}, [taken], None)
    assert found is not None
    said = findings(taken, found, "reference_nll")
    assert said[0].startswith("Proxy rose by 0.500") and said[2].startswith("Golden fell by 0.050")
    (found,) = since_alarms({"golden": lines_of(worse), "proxy": lines_of(worse, "proxy")}, [taken], None)
    assert found is not None and findings(taken, found, "reference_nll")[0] == "Nothing improved."
    (found,) = since_alarms({"golden": lines_of(worse), "proxy": lines_of(TENT, "proxy")}, [TAKEN], None)
    assert found is not None and findings(TAKEN, found, "oracle")[0] == "Nothing improved.", "closer is no cure"


def test_without_an_oracle_golden_proves_less(tmp_path: Path) -> None:
    said, _ = followed(-0.0008, tmp_path, kind="reference_nll")
    assert "not that the student's answers are better" in said and "truth" not in said


# -- on the page --------------------------------------------------------------------


def test_the_page_tells_the_story_after_the_verdict(tmp_path: Path) -> None:
    hostile = refused("human_text", HOSTILE)
    run = make_run(tmp_path, [*MENDED[:2], hostile, *MENDED[2:]])
    html = write_report(run.path).read_text()
    told = story(html)
    for words in ("alarm, step 280", "hacking , confidence 0.98: It learns accidents.", "online mixture : no budget",
                  "completions of each prompt: 1 → 5", "128 completions, 6.67 %", "Golden fell by",
                  "The alarm looked at these prompts too"):  # fmt: skip
        assert words in told, words
    assert html.index("<h1>") < html.index('id="alarms"') < html.index('id="remedies"')
    assert "Already applied, at the alarm above: more completions per prompt." in html
    assert 'alert("x")' not in without_plotly(html)


def test_the_figures_show_where_it_came(tmp_path: Path) -> None:
    html = write_report(make_run(tmp_path, MENDED).path).read_text()
    for name in ("proxy", "golden", "loss"):
        layout = embedded(html, name)["layout"]
        assert 280 in [shape["x0"] for shape in layout["shapes"]], name
        (named,) = [one for one in layout["annotations"] if one["text"] == "alarm"]
        assert "completions of each prompt: 1 → 5" in named["hovertext"]
    plane = embedded(html, "plane")
    (diamond,) = [trace for trace in plane["data"] if trace.get("name") == "alarm"]
    path = plane["data"][0]
    at = path["customdata"].index(280)
    assert (diamond["x"], diamond["y"]) == ([path["x"][at]], [path["y"][at]])
    assert "more completions per prompt" in diamond["hovertemplate"]


def test_the_set_aside_prompts_are_read_from_the_configuration(tmp_path: Path) -> None:
    run = make_run(tmp_path, MENDED)
    run.write_text("config.yaml", json.dumps({"monitor": {"on_alarm": {"alarm_prompts": 24}}}))
    assert "On 40 held-out prompts. The alarm never looked at these prompts" in story(
        write_report(run.path).read_text()
    )


def test_a_comparison_gives_each_alarm_a_line(tmp_path: Path) -> None:
    first, second = make_run(tmp_path / "mended", MENDED), make_run(tmp_path / "plain", [planned(PLAN)])
    html = write_comparison([first.path, second.path], tmp_path / "page.html").read_text()
    found = read(first)
    (line,) = summaries(found.alarms, found.since)
    assert line.startswith("Hacking at step 280. More completions per prompt (completions of each prompt: 1 → 5), 128")
    assert line in unescape(html) and html.count("<b>Alarm:</b>") == 1
    diamonds = [trace for trace in embedded(html, "plane")["data"] if trace.get("name") == "alarm"]
    assert len(diamonds) == 1 and diamonds[0]["hovertemplate"].startswith("alarm: mended: hacking, step 280")
