"""A run that answers an alarm: overfitting for real, a remedy, its reason on disk first, the same after any kill."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console
from test_early_stop import TURNING
from test_parallel import launch
from test_resume import contents

from potstill.config import ConfigError, Run
from potstill.data.store import CompletionStore
from potstill.run_dir import RunDir
from potstill.training import checkpoint
from potstill.training.distil import distil
from potstill.training.show import Show

Make = Callable[..., Run]
QUIET = Show(quiet=True)
ALARM = {"alarms": ["overfitting"]}
#: The same run with room for its logits: the other's chunks of a few tokens take three times as long.
ROOMY = TURNING | {"objective__head_memory_mb": 8, "training__micro_batch_rows": 8, "monitor__sample_texts": 1}
#: Checkpoints lie between the evaluations, so that a kill after an alarm throws the run back behind it.
SPARSE = ROOMY | {"checkpoints__every_steps": 25}


def events(run: RunDir, *names: str) -> list[dict[str, Any]]:
    return [line for line in run.lines("events.jsonl") if line["event"] in names]


def mended(make_run: Make, **how: Any) -> RunDir:
    changes = {**ROOMY, **how.pop("changes", {})}
    return distil(make_run(**changes, monitor__on_alarm=ALARM | how), QUIET)


def test_more_completions_are_sampled_and_fed_from_the_next_step_on(make_run: Make) -> None:
    run = mended(make_run, more_completions=3)
    alarm, remedy, plan = events(run, "alarm", "remedy", "data plan")[1:]
    assert [line["event"] for line in (alarm, remedy, plan)] == ["alarm", "remedy", "data plan"]
    step = alarm["step"]
    assert alarm["verdict"] == "overfitting" and remedy["action"] == "more_completions_per_prompt"
    assert plan["from_step"] == step and plan["completions_per_prompt"] == 2 + 3 and plan["answers"] == "overfitting"
    assert plan["reason"] == f"overfitting at step {step}: more_completions_per_prompt"
    first_metrics_after = next(line for line in run.lines("metrics.jsonl") if line["step"] == step + 1)
    assert first_metrics_after["rows/teacher"] == 4
    found = CompletionStore(run.file("completions") / "train-teacher.jsonl").read()
    assert len(found) == 8 * 5 and remedy["completions"] == 8 * 3  # 8 of 24 prompts train
    assert {c.index for c in found} == set(range(5))
    # Epochs go slower from then on: 40 rows instead of 16.
    rates = {line["step"]: line["epoch"] for line in run.lines("metrics.jsonl")}
    before, after = rates[step] - rates[step - 1], rates[step + 2] - rates[step + 1]
    assert after < before
    kept = checkpoint.read_state(run.checkpoint_path(run.checkpoint_steps()[-1]))["plans"]
    assert [one["version"] for one in kept] == [1, 2] and len(events(run, "alarm")) == 1, "one remedy is the default"
    assert run.evaluation_steps()[-1] == 120
    exported, text = events(run, "finished")[0]["exported_step"], (run.file("student") / "README.md").read_text()
    followed = exported >= step
    assert ("completions of each prompt: 2 \N{RIGHTWARDS ARROW} 5" in text) == followed, (
        "the card tells what it was fed with"
    )


@pytest.mark.parametrize(
    ("remedy", "changes", "plan"),
    [
        (
            {"remedies": ["online_mixture"], "online_share": 0.25, "online": {"steps_at_once": 3}},
            {"data__completions__per_prompt": 1},
            {"fractions": {"teacher": 0.375, "reference": 0.375, "online_student": 0.25}},
        ),
        ({"remedies": ["more_prompts"]}, {}, {"num_prompts": 8 + 5}),
    ],
)
def test_other_rows_feed_the_run_from_then_on(
    make_run: Make, tmp_path: Path, remedy: dict[str, Any], changes: dict[str, Any], plan: dict[str, Any]
) -> None:
    terms = [dict(term) for term in TURNING["objective__terms"]]
    if "online_mixture" in remedy["remedies"]:
        terms[0]["on"] = ["teacher", "student"]
    else:
        spare = tmp_path / "spare.jsonl"
        rows = [{"id": f"new-{i}", "prompt": f"why do people draw tea {i}", "reference": "with care"} for i in range(5)]
        spare.write_text("".join(json.dumps(row) + "\n" for row in rows))
        remedy = remedy | {"spare_prompts": {"path": str(spare), "reference": "reference", "id": "id"}}
    run = mended(make_run, changes=changes | {"objective__terms": terms}, **remedy)
    found = events(run, "data plan")[-1]
    assert found["version"] == 2 and {name: found[name] for name in plan} == plan
    after = [line for line in run.lines("metrics.jsonl") if line["step"] > found["from_step"]]
    if "online_mixture" in remedy["remedies"]:
        assert sum(line["rows/online_student"] for line in after) == 2 * len(after)
        fresh = CompletionStore(run.file("completions") / "online-student.0.jsonl").read()
        assert len(fresh) == 2 * len(after) == events(run, "remedy")[0]["completions"]
    else:
        asked = {c.prompt_id for c in CompletionStore(run.file("completions") / "train-teacher.jsonl").read()}
        assert {f"new-{i}" for i in range(5)} < asked


def test_references_can_be_the_remedy(make_run: Make) -> None:
    """The teacher's own text overfits here: few rows, many visits; references were never fed before."""
    terms = [
        {"kind": "cross_entropy", "weight": 1.0, "on": ["teacher", "reference"]},
        {"kind": "forward_kl", "weight": 0.001, "on": ["teacher"]},  # the teacher is asked of every row then
    ]
    changes = {
        "source__fractions": {"teacher": 1.0}, "objective__terms": terms, "data__completions__per_prompt": 1,
        "training__optimiser": {"learning_rate": 5e-3, "schedule": {"kind": "constant"}},
    }  # fmt: skip
    run = mended(make_run, changes=changes, remedies=["human_text"], human_share=0.5)
    remedy = events(run, "remedy")
    assert len(remedy) == 1 and remedy[0]["plan"]["fractions"] == {"teacher": 0.5, "reference": 0.5}
    last = list(run.lines("metrics.jsonl"))[-1]
    assert last["rows/reference"] == 4 and remedy[0]["completions"] == 0


def test_what_cannot_be_had_is_refused_with_its_reason_and_the_next_is_taken(make_run: Make) -> None:
    run = mended(make_run, remedies=["more_completions_per_prompt", "stop"], more_completions=3, most_completions=20)
    refused, remedy = events(run, "remedy refused", "remedy")
    assert refused["why"] == "it needs 24 completions, and on_alarm.most_completions allows 20"
    assert remedy["action"] == "stop" and remedy["plan"] is None
    assert run.evaluation_steps()[-1] == remedy["step"] < 120
    finished = events(run, "finished")[0]
    assert finished["exported_step"] == run.read_json("verdict.json")["best_step"] < remedy["step"]


def test_when_nothing_can_be_had_the_run_goes_on_as_it_is(make_run: Make) -> None:
    run = mended(make_run, more_completions=3, most_completions=1)
    assert events(run, "remedy refused") and not events(run, "remedy")
    assert run.evaluation_steps()[-1] == 120 and len(events(run, "data plan")) == 1


@pytest.mark.parametrize(
    ("place", "share"),
    [
        ("after", 0.25),
        pytest.param("before", None, marks=pytest.mark.slow),
        pytest.param("after", None, marks=pytest.mark.slow),
        pytest.param("before", 0.25, marks=pytest.mark.slow),
    ],
)
def test_sigkill_around_the_change_ends_with_the_same_bytes(
    make_run: Make, tmp_path: Path, place: str, share: float | None
) -> None:
    """Between alarm and change, and between change and next checkpoint."""
    how = ALARM | {"more_completions": 2}
    changes = dict(SPARSE)
    if share is not None:
        terms = [dict(term) for term in TURNING["objective__terms"]]
        terms[0]["on"] = ["teacher", "student"]
        online = {"online_share": share, "online": {"steps_at_once": 4}}
        how, changes = ALARM | {"remedies": ["online_mixture"], **online}, changes | {"objective__terms": terms}
    unbroken = distil(make_run(output="unbroken", **changes, monitor__on_alarm=how), QUIET)
    config = make_run(output="killed", **changes, monitor__on_alarm=how)
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(config.dump()))
    program = [sys.executable, str(Path(__file__).with_name("killed_run.py")), str(file), place]
    died = subprocess.run(program, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, timeout=300)
    assert died.returncode == -signal.SIGKILL
    run = RunDir(config.output)
    step = events(unbroken, "alarm")[0]["step"]
    assert events(run, "alarm") and run.checkpoint_steps()[-1] < step
    assert bool(events(run, "data plan")[1:]) == (place == "after")
    distil(config, QUIET)
    assert [line["step"] for line in events(run, "alarm")] == [step, step], "decided again, and the same"
    assert contents(run) == contents(unbroken)


def test_a_checkpoint_after_the_change_brings_its_rows_back(make_run: Make) -> None:
    """A run whose later checkpoint is its only memory of the remedy."""
    changes = ROOMY | {"monitor__on_alarm": ALARM | {"more_completions": 2}}
    unbroken = distil(make_run(output="unbroken", **changes), QUIET)
    run = distil(make_run(output="again", **changes), QUIET)
    step = events(run, "alarm")[0]["step"]
    run.file("verdict.json").unlink()
    last = run.checkpoint_steps()[-1]
    assert last > step
    shutil.rmtree(run.checkpoint_path(last))
    assert run.checkpoint_steps()[-1] > step
    distil(make_run(output="again", **changes), QUIET)
    assert len(events(run, "alarm")) == 1, "what was answered is not answered again"
    assert contents(run) == contents(unbroken)


@pytest.mark.slow
@pytest.mark.parametrize("remedy", ["more_completions_per_prompt", "online_mixture"])
def test_two_processes_are_mended_as_one(make_run: Make, tmp_path: Path, remedy: str) -> None:
    terms = [dict(term) for term in TURNING["objective__terms"]]
    if remedy == "online_mixture":
        terms[0]["on"] = ["teacher", "student"]
    changes = ROOMY | {"objective__terms": terms, "monitor__on_alarm": ALARM | {"remedies": [remedy]}}
    one = distil(make_run(output="one", **changes), QUIET)
    config = make_run(output="two", **changes)
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(config.dump()))
    launch(["-m", "potstill.cli.main", "run", str(file)], 2)
    two = RunDir(config.output)
    found = [{k: v for k, v in line.items() if k != "time"} for line in events(two, "data plan", "remedy")]
    assert found == [{k: v for k, v in line.items() if k != "time"} for line in events(one, "data plan", "remedy")]
    for ours, theirs in zip(one.lines("metrics.jsonl"), two.lines("metrics.jsonl"), strict=True):
        assert ours["counted_tokens"] == theirs["counted_tokens"] and ours["epoch"] == theirs["epoch"]
        assert theirs["loss"] == pytest.approx(ours["loss"], rel=1e-3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"on_alarm": {"more_completions": 2, "remedies": ["stop"]}}, "more_completions has no effect"),
        ({"on_alarm": {"remedies": ["more_prompts"]}}, "needs on_alarm.spare_prompts"),
        ({"on_alarm": {"remedies": ["human_text"]}}, "feeds them already"),
        ({"on_alarm": {"remedies": ["online_mixture"]}}, "feeds .'student'. rows, but no term"),
        ({"on_alarm": {"remedies": ["stop", "stop"]}}, "names one twice"),
        ({"on_alarm": {"without_oracle": True}}, "there is no oracle"),
        ({"on_alarm": {"alarms": ["overfitting"]}, "stop_on": ["overfitting"]}, "a run cannot end and be mended"),
        ({"on_alarm": {"remedies": ["online_mixture"], "online_share": None}}, "give one of the two"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(make_run: Make, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_run(**{f"monitor__{name}": value for name, value in changes.items()})


def test_plans_known_beforehand_and_remedies_exclude_each_other(make_run: Make) -> None:
    with pytest.raises(ConfigError, match="would take that back"):
        make_run(source__changes=[{"from_step": 3, "completions_per_prompt": 1}], monitor__on_alarm={})
    with pytest.raises(ConfigError, match="kind sample that feed"):
        make_run(
            data__completions={"kind": "none"}, source__fractions={"reference": 1.0},
            objective__terms=[{"kind": "forward_kl", "weight": 1.0, "on": ["reference"]}], monitor__on_alarm={},
        )  # fmt: skip


def test_bars_of_a_remedy_stand_inside_the_bar_of_training() -> None:
    """A terminal has room for one live line; older versions of Rich refuse a second one."""
    shown = io.StringIO()
    show = Show(Console(file=shown, force_terminal=True, width=100))
    with show.bar("training", 10) as bar:
        bar.advance(3, 10)
        with show.bars(lambda: False) as progress:
            progress("sampling train-teacher", 4, 0, 0)
            assert len(show.live) == 2 and not show.live[0].live.is_started
            progress("sampling train-teacher", 4, 4, 50)
        assert show.live[0].live.is_started
        bar.advance(7, 10)
    assert show.live == []
    text = shown.getvalue()
    assert text.index("sampling train-teacher") < text.rindex("10/10")
