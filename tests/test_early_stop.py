"""A run that its verdict ends: really overfitting, the best checkpoint exported, the same again after a kill."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from potstill.config import ConfigError, Run
from potstill.run_dir import RunDir
from potstill.training import distil as module
from potstill.training.distil import distil
from potstill.training.show import Show

Make = Callable[..., Run]
QUIET = Show(quiet=True)
#: First the teacher is learned, then references drive the student away from it: proxy falls and rises.
TURNING = {
    "objective__terms": [
        {"kind": "forward_kl", "weight": {"kind": "linear", "start": 1.0, "end": 0.0}, "on": ["teacher"]},
        {"kind": "cross_entropy", "weight": {"kind": "linear", "start": 0.0, "end": 3.0}, "on": ["reference"]},
    ],
    "source__fractions": {"teacher": 0.5, "reference": 0.5},
    "training__steps": 120,
    "training__optimiser": {"learning_rate": 2e-3, "schedule": {"kind": "constant"}},
    "monitor__every_steps": 10,
    "monitor__sample_texts": 0,
    "monitor__completions_per_prompt": 4,
    "data__held_out": {"kind": "groups", "groups": ["tea", "rain", "stars", "birds"]},
    "checkpoints__every_steps": 10,
}


def test_a_run_that_overfits_is_stopped_and_its_best_checkpoint_exported(make_run: Make) -> None:
    run = distil(make_run(**TURNING, monitor__stop_on=["overfitting"]), QUIET)
    stops = [line for line in run.lines("events.jsonl") if line["event"] == "stopped by verdict"]
    assert len(stops) == 1 and stops[0]["verdict"] == "overfitting"
    last = run.evaluation_steps()[-1]
    assert last == stops[0]["step"] < 120
    verdict = run.read_json("verdict.json")
    assert verdict["verdict"] == "overfitting"
    finished = next(line for line in run.lines("events.jsonl") if line["event"] == "finished")
    assert finished["exported_step"] == verdict["best_step"] < last
    assert run.file("student").is_dir()


def test_a_kill_between_decision_and_end_decides_the_same(make_run: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_run(**TURNING, monitor__stop_on=["overfitting"])

    def die(session: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "finish", die)
        with pytest.raises(KeyboardInterrupt):
            distil(config, QUIET)
    run = RunDir(config.output)
    steps = len(list(run.lines("metrics.jsonl")))
    distil(config, QUIET)
    assert len(list(run.lines("metrics.jsonl"))) == steps
    assert run.read_json("verdict.json")["verdict"] == "overfitting"


@pytest.mark.slow
def test_without_the_setting_the_same_run_goes_to_its_end(make_run: Make) -> None:
    run = distil(make_run(**TURNING), QUIET)
    assert run.evaluation_steps()[-1] == 120


def test_settings_that_could_not_stop_anything_are_refused(make_run: Make) -> None:
    with pytest.raises(ConfigError, match="names a verdict twice"):
        make_run(monitor__stop_on=["hacking", "hacking"])
    config = make_run(training__steps=100, monitor__every_steps=1, monitor__stop_on=["overfitting"])
    with pytest.raises(ValueError, match=r"judges the run 100 times.*every_steps to"):
        distil(config, QUIET)
