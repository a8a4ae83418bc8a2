"""The oracle-free detector: features by hand, the same answer live and replayed, no answer where it has none."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT

from potstill.diagnosis import choose_step, judge
from potstill.diagnosis.detector import MODEL_FILE, Model, models, suspect
from potstill.diagnosis.features import Log, grid, measure, paired, read_log, training_since, why_not
from potstill.lab.labelled import LabelledRun, load
from potstill.records import Curve

LABELLED = ROOT / "benchmarks" / "labelled"
STEPS = np.arange(1.0, 9.0) * 10
HACKED, SOUND = "technical-prompts-fifth-s0", "pydoc-online-teacher-s3"


def labelled(name: str) -> LabelledRun:
    facts = next(one for one in json.loads((LABELLED / "index.json").read_text()) if one["name"] == name)
    return load(LABELLED / "runs" / f"{name}.npz", facts)


def means(name: str, steps: Any, values: Any) -> Curve:
    """A curve without prompts."""
    sums = np.asarray(values, dtype=float)[:, None]
    return Curve(
        name, np.asarray(steps), sums, np.ones_like(sums), np.array(["mean"]), np.array(["test"]), paired=False
    )


def first(curves: Mapping[str, Curve], step: int) -> dict[str, Curve]:
    """The log as it was at `step`."""
    return {name: with_rows(curve, curve.steps <= step) for name, curve in curves.items()}


def with_rows(curve: Curve, kept: np.ndarray) -> Curve:
    return replace(curve, steps=curve.steps[kept], sums=curve.sums[kept], tokens=curve.tokens[kept])


def powers(training: float, proxy: float, late_proxy: float | None = None) -> Log:
    """Power laws; proxy may take another after half of the run."""
    relative = STEPS / STEPS[-1]
    late = proxy if late_proxy is None else late_proxy
    bent = np.where(relative <= 0.5, relative**proxy, 0.5**proxy * (relative / 0.5) ** late)
    return Log(STEPS, 3 * relative**training, 5 * bent)


# -- features -----------------------------------------------------------------


def test_two_power_laws_have_the_ratio_of_their_exponents_and_no_bend() -> None:
    found = measure(powers(-0.5, -0.25))
    assert found["follow"] == pytest.approx(0.5)
    assert found["training_slope"] == pytest.approx(-0.5)
    assert found["proxy_bend"] == pytest.approx(0, abs=1e-9)
    assert found["training_gain"] == pytest.approx(8**0.5 - 1)
    assert found["proxy_gain"] == pytest.approx(8**0.25 - 1)


def test_a_proxy_that_leaves_its_power_law_after_half_of_the_run_is_bent() -> None:
    found = measure(powers(-0.5, -0.25, late_proxy=0.0))
    assert found["proxy_bend"] == pytest.approx(0.25)
    assert found["follow"] == pytest.approx(0, abs=1e-9)
    assert found["proxy_change"] == pytest.approx(0, abs=1e-9)


def test_proxy_change_is_its_fall_in_half_a_run_over_its_gain() -> None:
    # Falls from 7.5 at step 10 to 4 at step 80, by 2 in each half.
    found = measure(Log(STEPS, 1 / STEPS, 8 - 4 * STEPS / 80))
    assert found["proxy_change"] == pytest.approx(-2 / 3.5)


def test_the_rise_of_references_is_paired_and_has_its_error_taken_off() -> None:
    level = np.array([5.0, 4, 3, 2, 3, 4, 4, 4])  # smoothed minimum (3 + 2 + 3) / 3 at step 40, end 4
    apart = np.array([-1.0, 1.0, -1.0, 1.0])
    growth = np.where(np.arange(8) >= 5, 1.0, 0.0)  # two prompts rise by 1 more, two by 1 less
    sums = level[:, None] + np.outer(growth, apart) + 100 * np.arange(4)
    log = replace(powers(-0.5, -0.25), reference_sums=sums, reference_tokens=np.ones_like(sums))
    gain = 5 * (8**0.25 - 1)
    found = measure(log)
    error = np.sqrt(4 * 4 / 3) / 4  # deviations of 1 over 4 prompts
    assert found["rise"] == pytest.approx((4 - 8 / 3 - error) / gain)
    assert found["rise_t"] == pytest.approx((4 - 8 / 3) / error)
    assert found["agreement"] == pytest.approx((5 - 2) / gain)


def test_the_paired_error_ignores_what_all_evaluations_share() -> None:
    sums = np.array([[1.0, 50.0, 300.0], [2.0, 51.0, 301.0]])
    value, error = paired(sums, np.ones_like(sums), np.array([-1.0, 1.0]))
    assert (value, error) == (pytest.approx(1.0), pytest.approx(0.0, abs=1e-12))


def test_a_training_loss_of_every_step_is_averaged_since_the_evaluation_before() -> None:
    training = means("training_loss", [1, 2, 3, 4], [1.0, 3.0, 5.0, 9.0])
    assert training_since(training, np.array([2, 4])).tolist() == [2.0, 7.0]
    assert np.isnan(training_since(training, np.array([2, 4, 6]))[-1])


def test_dense_logs_are_averaged_to_at_most_16_evaluations_of_four_octaves() -> None:
    steps = np.arange(1.0, 101.0)
    seen = grid(Log(steps, 1 / steps, steps))
    assert len(seen.steps) <= 16
    assert seen.steps[-1] == 100 and seen.steps[0] > 100 / 16
    assert seen.proxy[-1] == pytest.approx(np.arange(95, 101).mean())


# -- what the features do not depend on --------------------------------------


def features_of(curves: Mapping[str, Curve]) -> Mapping[str, float]:
    return suspect(curves, "reference_nll").features


@pytest.mark.parametrize("name", [HACKED, SOUND])
def test_steps_may_be_counted_otherwise(name: str) -> None:
    seen = labelled(name).seen
    tenfold = {key: replace(curve, steps=10 * curve.steps) for key, curve in seen.items()}
    assert features_of(tenfold) == pytest.approx(features_of(seen))


@pytest.mark.parametrize("name", [HACKED, SOUND])
def test_losses_may_be_in_another_unit(name: str) -> None:
    seen = labelled(name).seen
    bits = {key: replace(curve, sums=curve.sums / np.log(2)) for key, curve in seen.items()}
    assert features_of(bits) == pytest.approx(features_of(seen))
    apart = seen | {"training_loss": replace(seen["training_loss"], sums=24 * seen["training_loss"].sums)}
    assert features_of(apart) == pytest.approx(features_of(seen))


def test_a_constant_on_every_reference_changes_nothing() -> None:
    seen = labelled(HACKED).seen
    shifted = seen["reference_nll"]
    shifted = replace(shifted, sums=shifted.sums + 7 * shifted.tokens)
    assert features_of(seen | {"reference_nll": shifted}) == pytest.approx(features_of(seen))


# -- live and replayed --------------------------------------------------------


@pytest.mark.parametrize("name", [HACKED, SOUND, "pydoc-offline-s3"])
def test_the_first_alarm_live_is_the_first_alarm_replayed(name: str) -> None:
    seen = labelled(name).seen
    live = [(int(step), suspect(first(seen, int(step)), "reference_nll")) for step in seen["proxy"].steps]
    replayed = suspect(seen, "reference_nll")
    alarms = [step for step, said in live if said.alarm]
    assert replayed.first_alarm_step == (alarms[0] if alarms else None)
    assert live[-1][1] == replayed
    for step, said in live:
        known = [alarm for alarm in alarms if alarm <= step]
        assert said.first_alarm_step == (known[0] if known else None)


def test_what_comes_later_does_not_change_what_was_said() -> None:
    seen = labelled(HACKED).seen
    step = int(seen["proxy"].steps[-3])
    spoiled = {
        key: replace(curve, sums=np.where(curve.steps[:, None] > step, 9.0, curve.sums)) for key, curve in seen.items()
    }
    assert suspect(first(spoiled, step), "reference_nll") == suspect(first(seen, step), "reference_nll")


# -- no answer ----------------------------------------------------------------


def test_seven_evaluations_are_too_few() -> None:
    seen = labelled(HACKED).seen
    said = suspect(first(seen, int(seen["proxy"].steps[7])), "reference_nll")
    assert (said.probability, said.alarm, said.in_range) == (None, False, False)
    assert said.reasons == ("7 common evaluations after step 0, at least 8 are needed",)


def test_a_log_without_training_loss_is_told_to_log_it() -> None:
    seen = dict(labelled(HACKED).seen)
    del seen["training_loss"]
    assert suspect(seen, "reference_nll").reasons == ("log the training loss at every evaluation",)
    assert "proxy" in suspect({}, "reference_nll").reasons[0]


def test_outside_the_range_there_is_no_probability_and_no_alarm() -> None:
    seen = dict(labelled(HACKED).seen)
    assert suspect(seen, "reference_nll").alarm
    flat = replace(seen["training_loss"], sums=np.full_like(seen["training_loss"].sums, 0.3))
    said = suspect(seen | {"training_loss": flat}, "reference_nll")
    assert (said.probability, said.alarm, said.in_range) == (None, False, False)
    assert any("training_slope is" in reason and "calibrated on" in reason for reason in said.reasons)


def test_cross_entropies_are_outside_their_entropy_is_no_distance() -> None:
    """Training loss and proxy as NLL of the teacher's texts: two nats of entropy under both."""
    seen = labelled(HACKED).seen
    lifted = {
        key: replace(curve, sums=curve.sums + (2 * curve.tokens if key != "reference_nll" else 0))
        for key, curve in seen.items()
    }
    assert not suspect(lifted, "reference_nll").in_range


def test_a_log_that_begins_late_is_not_judged() -> None:
    log = Log(STEPS + 100, 1 / STEPS, 1 / STEPS)
    assert "begins at step 110" in (why_not(log) or "")


def test_differences_that_fall_below_zero_are_no_distance() -> None:
    assert "positive" in (why_not(Log(STEPS, 1 / STEPS, 1 - STEPS / 40)) or "")


def test_references_that_cannot_be_paired_are_left_out_and_that_is_said() -> None:
    seen = labelled(HACKED).seen
    curve = seen["reference_nll"]
    golden = means("golden", curve.steps, curve.per_token)
    said = suspect({**{key: seen[key] for key in ("proxy", "training_loss")}, "golden": golden}, "reference_nll")
    assert said.model == "without_references"
    assert any("log it per prompt" in reason for reason in said.reasons)
    few = replace(curve, sums=curve.sums[:, :20], tokens=curve.tokens[:, :20], prompt_ids=curve.prompt_ids[:20])
    said = suspect(dict(seen) | {"reference_nll": few}, "reference_nll")
    assert said.model == "without_references"
    assert any("20 references" in reason for reason in said.reasons)


def test_an_oracles_golden_is_not_looked_at() -> None:
    run = labelled(HACKED)
    curves = {key: run.seen[key] for key in ("proxy", "training_loss")}
    assert suspect(curves | {"golden": run.label["golden"]}, "oracle") == suspect(curves, "oracle")


def test_an_evaluation_that_is_not_finite_is_left_out() -> None:
    seen = labelled(SOUND).seen
    spoiled = replace(seen["proxy"], sums=seen["proxy"].sums.copy())
    spoiled.sums[5, 0] = np.nan
    log = read_log(seen["training_loss"], spoiled, seen["reference_nll"])
    assert int(seen["proxy"].steps[5]) not in log.steps.tolist()
    assert len(log.steps) == len(seen["proxy"].steps) - 2


# -- the model ----------------------------------------------------------------


def test_the_probability_is_a_calibrated_logistic_of_standardised_features() -> None:
    model = Model(
        "x", ("a", "b"), np.array([2.0, -1.0]), np.array([1.0, 0.0]), np.array([2.0, 4.0]), 0.5, (2.0, -1.0),
        {"a": (0.0, 5.0)}, 0.5,
    )  # fmt: skip
    features = {"a": 3.0, "b": 4.0}  # 0.5 + 2 * 1 - 1 * 1 = 1.5; 2 * 1.5 - 1 = 2
    assert model.probability(features) == pytest.approx(1 / (1 + np.exp(-2)))
    assert model.outside(features) == []
    assert "a is 6, the detector was calibrated on 0 to 5" in model.outside({"a": 6.0, "b": 0.0})


@pytest.mark.parametrize("golden_kind", ["reference_nll", "oracle"])
def test_clear_runs_of_the_labelled_set_are_told_apart(golden_kind: str) -> None:
    assert suspect(labelled(HACKED).seen, golden_kind).alarm
    for name in (SOUND, "pydoc-oracle-as-teacher-s3", "pydoc-large-pool-s3", "prose-small-offline-s0"):
        said = suspect(labelled(name).seen, golden_kind)
        assert said.first_alarm_step is None and said.in_range
        assert said.probability is not None and said.probability < 0.1


def test_labelled_runs_are_judged_from_what_a_detector_sees() -> None:
    verdict = judge(labelled(HACKED).seen)
    assert verdict.verdict == "suspected_hacking"
    assert verdict.confidence == verdict.evidence["detector"]["probability"]
    golden = labelled(HACKED).seen["reference_nll"]
    assert verdict.best_step is not None and verdict.best_step < golden.steps[-1], "the alarm's word is acted on"
    kept = [verdict.best_step, int(golden.steps[-1])]
    curves = {**labelled(HACKED).seen, "golden": golden}
    assert choose_step(curves, kept, suspected=True) in kept[:1]
    assert judge(labelled("pydoc-others-overtrained-teacher-s3").seen).verdict == "overfitting"
    assert judge(labelled(SOUND).seen).verdict == "still_improving"


# -- the file -----------------------------------------------------------------


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    """benchmarks/detector/make.py and its neighbours, imported as when it runs."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks" / "detector")
    import make

    yield make
    for name in ("make", "looks", "fitting", "evaluate", "tables"):
        sys.modules.pop(name, None)


def test_detector_json_is_what_the_script_writes(script: Any) -> None:
    stored = json.loads(MODEL_FILE.read_text())
    assert list(stored["models"]) == list(script.INPUTS)
    for name, model in models().items():
        assert script.as_json(model) == stored["models"][name]
        assert model.inputs == tuple(script.INPUTS[name])
        assert 0 < model.threshold < 1
        for weight, direction in zip(model.coefficients, script.INPUTS[name].values(), strict=True):
            assert weight * direction >= 0
        said = stored["held_out"][name]["sound_runs_alarmed"]
        assert 0 <= said["hits"] <= said["of"]


@pytest.mark.slow
def test_the_script_makes_detector_json_again(script: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stored = json.loads(MODEL_FILE.read_text())
    looks = script.read_looks(script.FULL)
    write: Callable[..., None] = script.write
    monkeypatch.setattr(script, "MODEL_FILE", tmp_path / "detector.json")
    write({n: script.fit(looks, script.usable_looks(looks), d, n) for n, d in script.INPUTS.items()}, looks, {})
    again = json.loads((tmp_path / "detector.json").read_text())
    for name, model in stored["models"].items():
        assert again["models"][name]["threshold"] == pytest.approx(model["threshold"], rel=1e-3)
        for one, other in zip(again["models"][name]["inputs"], model["inputs"], strict=True):
            assert one["coefficient"] == pytest.approx(other["coefficient"], rel=1e-3)
