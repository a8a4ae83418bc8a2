"""From measured curves, or a run directory, or a table, to the right word and the right step."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from curve_simulator import TOKENS, shape_of, simulate

from potstill.diagnosis import choose_step, diagnose, judge, read_curves, remedies, step_to_keep
from potstill.diagnosis.remedies import Amounts, choose, cost
from potstill.records import Curve, DataPlan, EvaluationRecord, Measured
from potstill.run_dir import RunDir

EVALUATIONS = 30
TIME = np.linspace(0, 1, EVALUATIONS)
LEVELLED = 10 + 7.4 * np.exp(-10 * TIME)  # falls, then stands
FALLING = 10 + 7.4 * (1 - 0.8 * TIME)  # a fifth of the run gains 16 %, delta is 2 %
TURNING = shape_of("u", EVALUATIONS, rise=1.5)


def run(golden: np.ndarray, proxy: np.ndarray, seed: int = 0, **more: np.ndarray) -> dict[str, Curve]:
    """Measured curves of a run whose true curves are given."""
    truths = {"golden": golden, "proxy": proxy, **more}
    return {name: simulate(truth, seed, name=name) for name, truth in truths.items()}


def first(curves: Mapping[str, Curve], num: int) -> dict[str, Curve]:
    """The run as it was after its first `num` evaluations."""
    return {
        name: replace(curve, steps=curve.steps[:num], sums=curve.sums[:num], tokens=curve.tokens[:num])
        for name, curve in curves.items()
    }


def means(curves: Mapping[str, Curve]) -> list[dict[str, float]]:
    """The same run as another tool would log it."""
    steps = curves["golden"].steps.tolist()
    rows = zip(steps, curves["proxy"].per_token, curves["golden"].per_token, strict=True)
    return [{"step": step, "proxy": float(proxy), "golden": float(golden)} for step, proxy, golden in rows]


# -- words --------------------------------------------------------------------


def test_golden_rising_while_proxy_stands_is_hacking_with_an_oracle() -> None:
    verdict = judge(run(TURNING, LEVELLED), "oracle")
    assert verdict.verdict == "hacking"
    assert verdict.confidence > 0.95
    assert "teacher's mistakes" in verdict.sentence
    assert 100 <= verdict.evidence["change_point"] <= 200
    assert verdict.evidence["golden_rise"]["p"] <= 0.02
    low, high = verdict.evidence["golden_rise"]["interval"]
    assert 0 < low < verdict.evidence["golden_rise"]["slope"] < high


def test_most_seeds_of_a_clear_u_are_called_hacking() -> None:
    verdicts = [judge(run(TURNING, LEVELLED, seed), "oracle").verdict for seed in range(20)]
    assert verdicts.count("hacking") >= 18


def test_the_same_curves_without_an_oracle_are_drift_and_not_suspected_hacking() -> None:
    verdict = judge(run(TURNING, LEVELLED), "reference_nll")
    assert verdict.verdict == "healthy"
    assert verdict.confidence <= 0.5
    assert verdict.evidence["style_or_calibration_drift"] is True
    assert "style or calibration drift" in verdict.sentence


def test_a_verifier_that_agrees_makes_it_suspected_hacking_but_not_with_an_oracle() -> None:
    curves = run(TURNING, LEVELLED, verifier_failure=TURNING)
    assert judge(curves, "reference_nll").verdict == "suspected_hacking"
    assert "suspicion" in judge(curves, "reference_nll").sentence
    assert judge(curves, "oracle").verdict == "hacking"


def test_a_verifier_that_does_not_agree_leaves_it_drift() -> None:
    verdict = judge(run(TURNING, LEVELLED, verifier_failure=LEVELLED), "reference_nll")
    assert verdict.verdict == "healthy"
    assert verdict.evidence["style_or_calibration_drift"] is True


@pytest.mark.parametrize("kind", ["oracle", "reference_nll"])
def test_both_rising_is_overfitting_with_the_unexplained_share(kind: str) -> None:
    verdict = judge(run(TURNING, TURNING - 6 - 0.75 * np.maximum(0, 2 * TIME - 1)), kind)
    assert verdict.verdict == "overfitting"
    assert verdict.evidence["share_not_explained_by_proxy"] == pytest.approx(0.5, abs=0.15)


def test_proxy_rising_alone_is_overfitting() -> None:
    verdict = judge(run(shape_of("exponential", EVALUATIONS, 0), TURNING), "oracle")
    assert verdict.verdict == "overfitting"
    assert verdict.evidence["share_not_explained_by_proxy"] is None


@pytest.mark.parametrize("kind", ["oracle", "reference_nll"])
def test_both_still_falling_is_still_improving(kind: str) -> None:
    verdict = judge(run(FALLING + 6, FALLING), kind)
    assert verdict.verdict == "still_improving"
    assert verdict.best_step == 290


@pytest.mark.parametrize("kind", ["oracle", "reference_nll"])
def test_both_levelled_out_is_healthy(kind: str) -> None:
    verdicts = [judge(run(LEVELLED + 6, LEVELLED, seed), kind) for seed in range(10)]
    healthy = [verdict for verdict in verdicts if verdict.verdict == "healthy"]
    assert len(healthy) >= 8
    assert {verdict.best_step for verdict in healthy} == {290}
    assert np.median([verdict.confidence for verdict in healthy]) > 0.5


def test_runs_that_only_fall_are_alarmed_in_at_most_one_of_twenty() -> None:
    alarms = ("hacking", "overfitting")
    verdicts = [judge(run(LEVELLED + 6, LEVELLED, seed), "oracle").verdict for seed in range(100)]
    assert sum(word in alarms for word in verdicts) <= 5


def test_five_evaluations_after_the_start_are_too_few() -> None:
    verdict = judge(first(run(TURNING, LEVELLED), 6), "oracle")
    assert verdict.verdict == "inconclusive"
    assert verdict.confidence == 0
    assert "5 usable evaluations" in verdict.sentence
    assert "monitor.every_steps=2" in verdict.evidence["log_instead"]


def test_jitter_in_which_a_fifth_of_the_gain_could_hide_is_inconclusive() -> None:
    curves = {name: simulate(LEVELLED + 6, 1, name=name, jitter=3.0) for name in ("golden", "proxy")}
    verdict = judge(curves, "oracle")
    assert verdict.verdict == "inconclusive"
    assert verdict.evidence["log_instead"]


def test_golden_that_rises_over_a_noisy_proxy_is_not_named() -> None:
    curves = run(TURNING, LEVELLED) | {"proxy": simulate(LEVELLED, 0, name="proxy", jitter=2.0)}
    verdict = judge(curves, "oracle")
    assert verdict.verdict == "inconclusive"
    assert "rose by" in verdict.sentence


@pytest.mark.parametrize("missing", ["proxy", "golden"])
def test_a_run_without_proxy_or_golden_is_inconclusive(missing: str) -> None:
    curves = run(TURNING, LEVELLED)
    del curves[missing]
    verdict = judge(curves)
    assert verdict.verdict == "inconclusive"
    assert missing in verdict.evidence["log_instead"]


def test_no_curves_at_all_are_inconclusive() -> None:
    verdict = judge({})
    assert (verdict.verdict, verdict.best_step) == ("inconclusive", None)


def test_four_prompts_are_too_few() -> None:
    curves = {name: simulate(TURNING, 0, name=name, prompts=4) for name in ("golden", "proxy")}
    verdict = judge(curves)
    assert verdict.verdict == "inconclusive"
    assert "4 prompts" in verdict.sentence


def test_judging_often_asks_for_a_stronger_rise() -> None:
    curves = run(shape_of("u", EVALUATIONS, rise=0.6), LEVELLED, seed=3)
    assert 0.001 < judge(curves, "oracle").evidence["golden_rise"]["p"] <= 0.02
    assert judge(curves, "oracle").verdict == "hacking"
    assert judge(curves, "oracle", looks=20).verdict not in ("hacking", "overfitting")
    with pytest.raises(ValueError, match="looks must be 1 to 20"):
        judge(curves, looks=21)


def test_evaluations_that_are_not_finite_are_counted_and_left_out() -> None:
    curves = run(TURNING, LEVELLED)
    curves["golden"].sums[7, 3] = np.inf
    verdict = judge(curves, "oracle")
    assert verdict.verdict == "hacking"
    assert verdict.evidence["not_finite"] == {"golden": 1}


def test_an_unknown_kind_of_golden_is_refused() -> None:
    with pytest.raises(ValueError, match="'oracle' or 'reference_nll'"):
        judge(run(TURNING, LEVELLED), "vibes")


# -- without an oracle: the detector ------------------------------------------

AFTER_START = np.arange(1, EVALUATIONS)
MEMORISED = 10 * AFTER_START**-0.6  # training loss, nats per sequence, since the evaluation before
PLATEAU = 4 + 6 * (1 + np.arange(EVALUATIONS)) ** -1.2  # follows it at first, then stands
FOLLOWED = 10 * (1 + np.arange(EVALUATIONS)) ** -0.35
REFERENCES_TURN = 18 + 1.5 * np.exp(-10 * TIME) + 1.2 * np.maximum(0, TIME - 0.4)


def logged(proxy: np.ndarray, golden: np.ndarray | None = None, training: np.ndarray = MEMORISED) -> dict[str, Curve]:
    """A run without an oracle: training loss, proxy, and the NLL on references where given."""
    loss = (training / TOKENS)[:, None]
    mean, test = np.array(["mean"]), np.array(["test"])
    curves = {
        "training_loss": Curve("training_loss", 10 * AFTER_START, loss, np.ones_like(loss), mean, test, paired=False)
    }
    curves["proxy"] = simulate(proxy, 0, name="proxy", jitter=0.02)
    if golden is not None:
        curves["golden"] = simulate(golden, 0, name="golden", jitter=0.05)
    return curves


def test_references_that_rise_while_training_goes_on_are_suspected_by_the_detector() -> None:
    curves = logged(PLATEAU, REFERENCES_TURN)
    verdict = judge(curves)
    said = verdict.evidence["detector"]
    assert verdict.verdict == "suspected_hacking"
    assert verdict.evidence["suspected_by"] == "detector"
    assert said["alarm"] and said["in_range"] and said["model"] == "with_references"
    assert verdict.confidence == said["probability"] >= said["threshold"]
    assert "the NLL on references has risen" in verdict.sentence
    assert f"alarmed {said['false_alarms']['hits']} in {said['false_alarms']['of']}" in verdict.sentence
    assert json.loads(json.dumps(verdict.evidence, allow_nan=False)) == verdict.evidence


def test_the_same_rise_in_raw_nll_without_a_training_loss_is_only_drift() -> None:
    curves = logged(PLATEAU, REFERENCES_TURN)
    del curves["training_loss"]
    verdict = judge(curves)
    assert verdict.verdict == "healthy"
    assert verdict.evidence["style_or_calibration_drift"] is True
    assert "log the training loss at every evaluation" in verdict.sentence


def test_an_oracle_makes_the_detector_needless() -> None:
    curves = logged(PLATEAU, REFERENCES_TURN)
    verdict = judge(curves, "oracle")
    assert verdict.verdict == "hacking"
    assert verdict.evidence["detector"] is None
    without = {name: curve for name, curve in curves.items() if name != "training_loss"}
    assert judge(without, "oracle") == verdict


def test_calm_without_an_oracle_is_as_sure_as_the_detector() -> None:
    golden = 6 + FOLLOWED
    verdict = judge(logged(FOLLOWED, golden))
    said = verdict.evidence["detector"]
    assert verdict.verdict in ("healthy", "still_improving")
    assert said["in_range"] and not said["alarm"]
    assert verdict.confidence <= 1 - said["probability"]


def test_training_loss_and_proxy_alone_are_judged() -> None:
    improving = judge(logged(FOLLOWED))
    assert improving.verdict == "still_improving"
    assert improving.evidence["golden_rise"] is None
    overfitting = judge(logged(PLATEAU + 3 * np.maximum(0, TIME - 0.5)))
    assert overfitting.verdict == "overfitting"
    assert overfitting.best_step is not None and overfitting.best_step <= 190
    level = judge(logged(4 + 6 * np.exp(-10 * TIME), training=5 + 5 * np.exp(-10 * TIME[1:])))
    assert level.verdict == "healthy"
    assert "cannot be told from this log" in level.sentence  # its training loss has stopped: no such run was seen
    assert "proxy changed by" in level.sentence and "golden" not in level.sentence


def test_training_loss_and_proxy_alone_need_eight_evaluations() -> None:
    verdict = judge(first(logged(FOLLOWED), 8))
    assert verdict.verdict == "inconclusive"
    assert "7 usable evaluations" in verdict.sentence
    assert "monitor.every_steps" in verdict.evidence["log_instead"]


def test_the_nll_of_references_stands_for_golden_where_there_is_no_other() -> None:
    curves = logged(PLATEAU, REFERENCES_TURN)
    golden = curves.pop("golden")
    assert judge(curves | {"reference_nll": golden}).verdict == "suspected_hacking"
    assert judge(curves | {"reference_nll": golden}, "oracle").verdict == "inconclusive"


# -- evidence -----------------------------------------------------------------


def test_evidence_survives_json_unchanged_and_is_the_same_twice() -> None:
    curves = run(TURNING, LEVELLED, verifier_failure=TURNING)
    verdict = judge(curves)
    assert json.loads(json.dumps(verdict.evidence, allow_nan=False)) == verdict.evidence
    assert judge(curves) == verdict


def test_evidence_gives_levels_per_token() -> None:
    facts = judge(run(TURNING, LEVELLED), "oracle").evidence
    assert facts["golden"]["first"] == pytest.approx(TURNING[0] / TOKENS, rel=0.1)
    assert facts["proxy"]["last"] == pytest.approx(LEVELLED[-1] / TOKENS, rel=0.1)
    assert (facts["evaluations"], facts["prompts"], facts["paired"]) == (30, 256, True)


@pytest.mark.parametrize(
    ("shift", "side"),
    [(0.2, "worse than teacher"), (-0.2, "better than teacher"), (0.0, "level with teacher")],
)
def test_the_side_of_the_teachers_line_is_told_with_a_paired_interval(shift: float, side: str) -> None:
    curves = run(LEVELLED + 6, LEVELLED)
    golden = curves["golden"]
    noise = np.random.default_rng(0).standard_normal(256)
    teacher = golden.sums[-1] + noise - noise.mean() - shift * golden.tokens[-1]
    facts = judge(curves | {"golden": replace(golden, teacher=teacher)}).evidence
    assert facts["side_of_teacher"] == side
    low, high = facts["teacher_difference"]["interval"]
    assert low <= shift + 1e-9 and shift - 1e-9 <= high
    assert facts["teacher_golden"] == pytest.approx(golden.per_token[-1] - shift)


# -- steps --------------------------------------------------------------------


def test_the_last_step_is_best_unless_golden_rose() -> None:
    assert judge(run(LEVELLED + 6, LEVELLED), "oracle").best_step == 290


def test_after_a_rise_the_best_step_is_the_most_distilled_near_the_minimum() -> None:
    curves = run(TURNING, FALLING)
    best = judge(curves, "oracle").best_step
    assert best is not None
    lowest = int(curves["golden"].steps[curves["golden"].per_token.argmin()])
    assert 100 <= best <= 210  # golden turns at 145 and rises by 1.5 until 290
    assert curves["proxy"].per_token[best // 10] <= curves["proxy"].per_token[lowest // 10]
    assert choose_step(curves, curves["golden"].steps.tolist()) == best


def test_the_choice_is_among_the_checkpoints_that_exist() -> None:
    curves = run(TURNING, FALLING)
    assert choose_step(curves, [50, 150, 280, 290]) == 150
    assert choose_step(curves, [250, 290]) == 250  # both too late: the lower golden
    assert choose_step(run(LEVELLED + 6, LEVELLED), [50, 150, 280]) == 280


def test_a_trainer_keeps_the_step_that_a_later_rise_would_make_best() -> None:
    """It holds the last two checkpoints and `step_to_keep`; what it exports is no late one."""
    curves = run(TURNING, FALLING)
    kept: list[int] = []
    for num in range(1, EVALUATIONS + 1):
        now, step = first(curves, num), 10 * (num - 1)
        kept = sorted({*kept[-2:], *kept, step})
        kept = sorted({*kept[-2:], step_to_keep(now, kept)})
    assert 100 <= choose_step(curves, kept) <= 210


def test_young_runs_keep_their_last_checkpoint() -> None:
    curves = first(run(TURNING, FALLING), 3)
    assert choose_step(curves, [0, 10, 20]) == 20
    assert step_to_keep(curves, [0, 10, 20]) == 20
    with pytest.raises(ValueError, match="no checkpoint"):
        choose_step(curves, [])


# -- readers ------------------------------------------------------------------


def write_run(folder: Path, curves: Mapping[str, Curve], teacher: np.ndarray, kind: str | None) -> RunDir:
    """What a monitor would have written: two completions a prompt, and a training prompt by mistake."""
    run_dir = RunDir(folder)
    if kind is not None:
        run_dir.write_json("provenance.json", {"golden": kind})
    prompts = curves["golden"].prompt_ids
    splits: dict[str, Literal["train", "selection", "test"]] = {"stray": "train"}
    splits |= dict(zip(prompts.tolist(), curves["golden"].splits.tolist(), strict=True))
    ids = np.append(np.repeat(prompts, 2), "stray")
    for index, step in enumerate(curves["golden"].steps.tolist()):
        values = {name: (curve.sums[index], curve.tokens[index]) for name, curve in curves.items()}
        values["teacher_golden"] = (teacher, curves["golden"].tokens[index])
        series = {name: pairs_of(ids, sums, tokens) for name, (sums, tokens) in values.items()}
        run_dir.write_evaluation(EvaluationRecord(step, series, splits, {"training_loss": 5.0 - 0.1 * index}))
    return run_dir


def pairs_of(ids: np.ndarray, sums: np.ndarray, tokens: np.ndarray) -> Measured:
    """Two completions around each prompt's mean, and one stray row."""
    apart = np.tile([-1.0, 1.0], len(sums))
    return Measured(ids, np.append(np.repeat(sums, 2) + apart, 1e6), np.append(np.repeat(tokens, 2), 1).astype(int))


def test_a_run_directory_gives_back_the_curves_that_were_written(tmp_path: Path) -> None:
    curves = run(TURNING, LEVELLED)
    teacher = curves["golden"].sums[-1] - 1
    write_run(tmp_path, curves, teacher, "oracle")
    found = read_curves(tmp_path)
    assert sorted(found) == ["golden", "proxy", "training_loss"]
    for name in ("golden", "proxy"):
        np.testing.assert_allclose(found[name].sums, curves[name].sums)
        np.testing.assert_array_equal(found[name].prompt_ids, curves[name].prompt_ids)
        np.testing.assert_array_equal(found[name].splits, curves[name].splits)
    assert found["golden"].teacher == pytest.approx(teacher)
    assert found["training_loss"].per_token.tolist() == pytest.approx([5.0 - 0.1 * i for i in range(30)])


def test_a_run_directory_is_judged_by_the_golden_that_its_provenance_names(tmp_path: Path) -> None:
    curves = run(TURNING, LEVELLED)
    teacher = curves["golden"].sums[-1]
    write_run(tmp_path / "oracle", curves, teacher, "oracle")
    write_run(tmp_path / "unsaid", curves, teacher, None)
    write_run(tmp_path / "wrong", curves, teacher, "taste")
    assert diagnose(tmp_path / "oracle").verdict == "hacking"
    assert diagnose(tmp_path / "unsaid").evidence["golden_kind"] == "reference_nll"
    assert diagnose(tmp_path / "unsaid", golden_kind="oracle").verdict == "hacking"
    with pytest.raises(ValueError, match=r"mend provenance\.json"):
        diagnose(tmp_path / "wrong")


def test_a_series_on_a_slower_clock_keeps_its_own_steps(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    rows = Measured(np.array(["a", "b"]), np.array([1.0, 2.0]), np.array([1, 1]))
    for step in range(6):
        series = {"proxy": rows} | ({"golden": rows} if step % 2 == 0 else {})
        run_dir.write_evaluation(EvaluationRecord(step, series, {"a": "test", "b": "test"}))
    curves = read_curves(tmp_path)
    assert curves["golden"].steps.tolist() == [0, 2, 4]
    assert curves["proxy"].steps.tolist() == [0, 1, 2, 3, 4, 5]


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no evaluations"):
        diagnose(tmp_path)


def test_means_are_judged_and_marked_weak() -> None:
    verdict = diagnose(means(run(TURNING, LEVELLED)), golden_kind="oracle")
    assert verdict.verdict == "hacking"
    assert verdict.evidence["paired"] is False
    assert verdict.confidence <= 0.5
    assert "unpaired, weak" in verdict.sentence


def test_flat_means_are_alarmed_in_at_most_one_of_twenty_runs() -> None:
    flat = np.full(EVALUATIONS, 16.0)
    words = [diagnose(means(run(flat, LEVELLED, seed)), golden_kind="oracle").verdict for seed in range(100)]
    assert words.count("hacking") + words.count("overfitting") <= 5


def test_csv_json_lines_a_list_and_a_data_frame_give_the_same_verdict(tmp_path: Path) -> None:
    rows = means(run(TURNING, LEVELLED))
    with open(tmp_path / "log.csv", "w", newline="") as handle:
        writer = csv.DictWriter(handle, ["step", "proxy", "golden", "note"])
        writer.writeheader()
        writer.writerows(row | {"note": "text is left out"} for row in rows)
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    class Frame:
        def to_dict(self, orient: str) -> list[dict[str, Any]]:
            assert orient == "records"
            return list(rows)

    expected = diagnose(rows)
    assert diagnose(tmp_path / "log.csv") == expected
    assert diagnose(tmp_path / "log.jsonl") == expected
    assert diagnose(Frame()) == expected


def test_rows_with_prompt_ids_are_paired_and_keep_their_splits() -> None:
    rows = [
        {"step": step, "prompt_id": f"p{p}", "split": split, "proxy": 2.0, "golden": p + completion}
        for step in (0, 5)
        for p, split in enumerate(["train", "selection", "test"])
        for completion in (0, 1)
    ]
    golden = read_curves(rows)["golden"]
    assert golden.paired
    assert golden.prompt_ids.tolist() == ["p1", "p2"]
    assert golden.splits.tolist() == ["selection", "test"]
    assert golden.sums.tolist() == [[1.5, 2.5], [1.5, 2.5]]


def test_a_table_without_golden_says_which_columns_it_needs() -> None:
    with pytest.raises(ValueError, match=r"(?s)lacks \['golden'\].*Rename the columns"):
        diagnose([{"step": 0, "proxy": 1.0, "gold": 2.0}])


def test_a_table_of_means_with_two_rows_for_a_step_is_refused() -> None:
    row = {"step": 5, "proxy": 1.0, "golden": 2.0}
    with pytest.raises(ValueError, match="2 times for step 5"):
        diagnose([row, row])


def test_a_path_that_is_no_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text("loss 3")
    with pytest.raises(ValueError, match=r"expected a run directory, \.csv"):
        diagnose(tmp_path / "log.txt")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        diagnose(tmp_path / "nothing.csv")


# -- remedies -----------------------------------------------------------------


def test_hacking_is_answered_with_more_completions_first_and_a_plan_that_follows_the_present_one() -> None:
    verdict = judge(run(TURNING, LEVELLED), "oracle")
    plan = DataPlan(3, 0, {"teacher": 1.0}, 1, 100, "start")
    answers = remedies(verdict, plan, at_step=300)
    assert answers[0].action == "more_completions_per_prompt"
    first_plan = answers[0].plan
    assert first_plan is not None
    assert (first_plan.version, first_plan.from_step, first_plan.fractions) == (4, 300, {"teacher": 1.0})
    assert first_plan.completions_per_prompt == 1 + 5 and first_plan.answers == "hacking"
    online = next(answer.plan for answer in answers if answer.action == "online_mixture")
    assert online is not None and online.fractions == {"teacher": 0.9, "online_student": 0.1}
    assert answers[-1].training == {"export_step": verdict.best_step}
    assert all(answer.plan is None for answer in remedies(verdict))


def test_overfitting_is_answered_and_a_calm_run_is_left_alone() -> None:
    overfitted = judge(run(TURNING, TURNING - 6), "oracle")
    actions = [answer.action for answer in remedies(overfitted)]
    assert actions[:5] == ["stop", "fewer_epochs", "lower_learning_rate", "weight_decay", "more_prompts"]
    assert sorted(actions[5:]) == ["human_text", "more_completions_per_prompt", "online_mixture"]
    assert remedies(judge(run(LEVELLED + 6, LEVELLED), "oracle")) == []
    assert remedies(judge({}))[0].action == "measure_more"


def test_what_a_remedy_costs_is_counted_before_it_is_taken() -> None:
    verdict, plan = judge(run(TURNING, LEVELLED), "oracle"), DataPlan(1, 0, {"teacher": 1.0}, 2, 100, "start")
    found = {answer.action: answer for answer in remedies(verdict, plan, 300, Amounts(3, 0.25, 0.1, 40))}
    assert cost(found["more_completions_per_prompt"], plan, 1000) == 3 * 100
    assert cost(found["more_prompts"], plan, 1000) == 2 * 40
    assert cost(found["online_mixture"], plan, 1001) == 251  # a quarter of the rows that are left, rounded up
    assert cost(found["human_text"], plan, 1000) == cost(found["stop"], plan, 1000) == 0
    online = DataPlan(1, 0, {"teacher": 0.8, "online_student": 0.2}, 2, 100, "start")
    more = {answer.action: answer for answer in remedies(verdict, online, 300, Amounts(3, 0.25))}
    assert cost(more["online_mixture"], online, 1000) == 50  # what comes on top
    assert more["online_mixture"].plan is not None
    assert more["online_mixture"].plan.fractions == pytest.approx({"teacher": 0.75, "online_student": 0.25})


def test_the_first_remedy_that_lacks_nothing_is_chosen() -> None:
    verdict = judge(run(TURNING, LEVELLED), "oracle")
    offered, wanted = remedies(verdict), ["human_text", "online_mixture", "stop"]
    lacking = {"human_text": "no references", "online_mixture": "no teacher"}
    chosen, refused = choose(offered, wanted, lambda one: lacking.get(one.action))
    assert chosen is not None and chosen.action == "stop"
    assert [(one.action, one.why) for one in refused] == list(lacking.items())
    assert choose(offered, wanted[:2], lambda one: lacking.get(one.action))[0] is None


# -- imports ------------------------------------------------------------------


def test_diagnosis_never_imports_torch() -> None:
    code = "import sys, potstill.diagnosis; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
