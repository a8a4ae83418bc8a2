"""Reverse KL and Jensen-Shannon in a run's monitor: when, of what, resumed, shared between processes, shown."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import make_llama
from test_parallel import launch

from potstill.config import ConfigError, Run
from potstill.diagnosis import diagnose, read_curves
from potstill.records import EvaluationRecord
from potstill.report import write_report
from potstill.run_dir import RunDir
from potstill.training.distil import distil
from potstill.training.sequences import Clock, Sequences
from potstill.training.show import Show

Make = Callable[..., Run]
QUIET = Show(quiet=True)
PROXY, GOLDEN = {"proxy_rkl", "proxy_js"}, {"golden_rkl", "golden_js"}


@pytest.fixture(scope="module")
def oracle(tmp_path_factory: pytest.TempPathFactory, tokenizer, vocabulary: int) -> dict[str, str]:  # type: ignore[no-untyped-def]
    folder = tmp_path_factory.mktemp("oracle")
    make_llama(vocabulary, seed=11).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return {"kind": "folder", "path": str(folder)}


def named(record: EvaluationRecord) -> set[str]:
    return set(record.series) & (PROXY | GOLDEN)


def test_the_slow_clock_strikes_first_last_and_between() -> None:
    clock = Clock(every_steps=5, every=3, last_step=42)
    assert [step for step in (0, 5, 10, 15, 20, 25, 30, 35, 40, 42) if clock.due(step)] == [0, 15, 30, 42]


def test_a_run_measures_them_on_their_own_clock_and_is_read(make_run: Make, oracle: dict[str, str]) -> None:
    config = make_run(
        oracle=oracle, monitor__every_steps=1, monitor__sequence_every=2, monitor__completions_per_prompt=2,
        monitor__sample_texts=0, training__steps=5,
    )  # fmt: skip
    run = distil(config, QUIET)
    records = {record.step: record for record in run.evaluations()}
    assert [step for step, record in records.items() if named(record)] == [0, 2, 4, 5]
    for step in (0, 2, 4, 5):
        series = records[step].series
        assert named(records[step]) == PROXY | GOLDEN
        held_out = set(series["proxy"].prompt_ids.tolist())
        for name in PROXY | GOLDEN:
            rows = 2 if name.endswith("rkl") else 4  # of the student alone, or of both models
            ids, counts = np.unique(series[name].prompt_ids, return_counts=True)
            assert set(ids.tolist()) == held_out and set(counts.tolist()) == {rows}, name
            assert series[name].tokens.min() >= 1 and series[name].tokens.max() <= 12
        for name in ("proxy_rkl", "golden_rkl"):
            assert series[name].sums.min() >= 0 and series[name].per_sequence() > 0
        for name in ("proxy_js", "golden_js"):
            assert series[name].sums.max() <= math.log(2) and 0 < series[name].per_sequence() < math.log(2)
    # The student comes nearer to its teacher, not to the oracle, which has other weights altogether.
    assert records[5].series["proxy_js"].per_sequence() < records[5].series["golden_js"].per_sequence()
    curves = read_curves(run.path)
    assert curves["proxy_rkl"].steps.tolist() == [0, 2, 4, 5] and curves["proxy"].steps.tolist() == list(range(6))
    assert curves["proxy_rkl"].paired
    assert diagnose(run.path).verdict
    page = Path(write_report(run.path)).read_text()
    for words in ("Reverse KL", "Jensen-Shannon", "sequence-rkl", "sequence-js", "Golden, reverse KL"):
        assert words in page


def test_without_an_oracle_only_the_teacher_is_compared_with(make_run: Make, t5_folder: Path) -> None:
    config = make_run(
        teacher=t5_folder, data__prompts__chat=False, monitor__sequence_every=1, training__steps=2,
        student={"kind": "layers", "num_layers": 3},
    )  # fmt: skip
    first, last = distil(config, QUIET).evaluations()
    assert named(first) == named(last) == PROXY
    # At first the student is its teacher.
    assert abs(first.series["proxy_rkl"].sums).max() == 0
    assert abs(first.series["proxy_js"].sums).max() < 1e-5
    assert first.series["proxy_js"].prompt_ids.size == 2 * first.series["proxy"].prompt_ids.size
    assert last.series["proxy_rkl"].per_sequence() > 0


def test_an_interrupted_run_ends_with_the_same_bytes(make_run: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"monitor__sequence_every": 1, "training__steps": 4, "monitor__sample_texts": 0}
    whole = distil(make_run(output="whole", **settings), QUIET)
    config, measure = make_run(output="broken", **settings), Sequences.measure

    def dies_at_four(self: Sequences, wrapped: torch.nn.Module, step: int):  # type: ignore[no-untyped-def]
        if step == 4:
            raise KeyboardInterrupt
        return measure(self, wrapped, step)

    monkeypatch.setattr(Sequences, "measure", dies_at_four)
    with pytest.raises(KeyboardInterrupt):
        distil(config, QUIET)
    monkeypatch.undo()
    assert RunDir(config.output).evaluation_steps() == [0, 2]
    again = distil(config, QUIET)
    for name in ("metrics.jsonl", *(f"evaluations/step-0000000{step}.npz" for step in (0, 2, 4))):
        assert again.file(name).read_bytes() == whole.file(name).read_bytes(), name
    plain = distil(make_run(output="plain", **settings | {"monitor__sequence_every": None}), QUIET)
    for ours, theirs in zip(plain.evaluations(), whole.evaluations(), strict=True):
        assert named(ours) == set() and named(theirs) == PROXY
        for name, series in ours.series.items():  # what else is measured does not change by it
            assert theirs.series[name].sums.tolist() == series.sums.tolist(), name


ASKED = {"kind": "sample", "per_prompt": 1, "sampling": {"max_new_tokens": 12}}


@pytest.mark.parametrize(("sees", "alike"), [("what_was_asked", True), ("prompt", False)])
def test_the_teacher_judges_after_what_it_was_shown(make_run: Make, sees: str, alike: bool) -> None:
    """Student and teacher have equal weights: they differ exactly where they were shown different prompts."""
    asking = {"strategies": [{"name": "careful", "system": "answer with care"}], "student_sees": sees}
    config = make_run(
        data__completions={**ASKED, "asking": asking}, student={"kind": "layers", "num_layers": 4},
        monitor__sequence_every=1, training__steps=1,
    )  # fmt: skip
    series = distil(config, QUIET).evaluations()[0].series["proxy_rkl"]
    assert bool(abs(series.sums).max() == 0) is alike


def test_samples_after_two_prompts_are_not_compared(make_run: Make, oracle: dict[str, str]) -> None:
    asking = {"strategies": [{"name": "careful", "system": "answer with care"}], "student_sees": "what_was_asked"}
    with pytest.raises(ConfigError, match=r"sequence_every compares the student with the oracle.*different prompts"):
        make_run(oracle=oracle, data__completions={**ASKED, "asking": asking}, monitor__sequence_every=2)


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
@pytest.mark.parametrize("family", ["llama", "t5"])
def test_two_processes_measure_what_one_does(
    make_run: Make, t5_folder: Path, tmp_path: Path, parallel: str, family: str
) -> None:
    found = {}
    for processes in (1, 2):
        config = make_run(
            teacher=t5_folder if family == "t5" else None, data__prompts__chat=False, output=f"on-{processes}",
            training__parallel=parallel if processes == 2 else "ddp", training__steps=2, monitor__sequence_every=1,
        )  # fmt: skip
        path = tmp_path / "run.yaml"
        path.write_text(yaml.safe_dump(config.dump()))
        launch(["-m", "potstill.cli.main", "run", str(path)], processes)
        found[processes] = RunDir(config.output).evaluations()
    for ours, theirs in zip(found[1], found[2], strict=True):
        for name in PROXY:
            for record in (ours, theirs):
                assert record.series[name].tokens.size == (16 if name.endswith("js") else 8)
            order = [np.lexsort((r.series[name].sums, r.series[name].prompt_ids)) for r in (ours, theirs)]
            first, second = ours.series[name].sums[order[0]], theirs.series[name].sums[order[1]]
            np.testing.assert_allclose(second, first, rtol=2e-3, atol=1e-4, err_msg=name)
