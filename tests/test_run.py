"""Whole runs with small models: what is written, how it resumes, and what bad input meets."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from potstill.config import Run
from potstill.run_dir import RunDir
from potstill.training.distil import distil
from potstill.training.show import Show

Make = Callable[..., Run]
QUIET = Show(quiet=True)


def test_a_run_leaves_all_that_the_layout_promises(make_run: Make) -> None:
    run = distil(make_run(), QUIET)
    for name in ("config.yaml", "environment.json", "provenance.json", "metrics.jsonl", "timing.jsonl",
                 "events.jsonl", "samples.jsonl", "verdict.json", "student/config.json"):  # fmt: skip
        assert run.file(name).is_file(), name
    assert [record.step for record in run.evaluations()] == [0, 2, 4, 6]
    assert {"proxy", "proxy_fkl", "golden", "teacher_golden"} <= set(run.evaluations()[0].series)
    assert [line["step"] for line in run.lines("metrics.jsonl")] == [1, 2, 3, 4, 5, 6]
    student = AutoModelForCausalLM.from_pretrained(run.file("student"))
    assert student.config.num_hidden_layers == 2


def test_an_encoder_decoder_distils_too(make_run: Make, t5_folder: Path) -> None:
    config = make_run(teacher=t5_folder, data__prompts__chat=False, training__steps=2)
    run = distil(config, QUIET)
    student = AutoModelForSeq2SeqLM.from_pretrained(run.file("student"))
    assert (student.config.num_layers, student.config.num_decoder_layers) == (2, 2)
    first, last = run.evaluations()[0], run.evaluations()[-1]
    assert last.series["proxy"].per_token() < first.series["proxy"].per_token()


def test_training_on_the_teachers_text_alone_is_a_run(make_run: Make) -> None:
    terms = [{"kind": "cross_entropy", "weight": 1.0, "on": ["teacher"]}]
    run = distil(make_run(objective__terms=terms, source__fractions={"teacher": 1.0}), QUIET)
    values = [record.series["proxy"].per_token() for record in run.evaluations()]
    assert values[-1] < values[0]


def test_the_proxy_of_the_teacher_itself_is_zero(make_run: Make) -> None:
    config = make_run(student={"kind": "layers", "num_layers": 4}, training__steps=1)
    record = distil(config, QUIET).evaluations()[0]
    assert abs(record.series["proxy_fkl"].sums).max() == 0
    # Its cross-entropy part is the difference of two equal log-probs from two passes.
    assert abs(record.series["proxy"].sums).max() < 1e-4
    golden, teacher = record.series["golden"], record.series["teacher_golden"]
    assert golden.sums.tolist() == teacher.sums.tolist()


def test_an_oracle_replaces_references_as_golden(make_run: Make, llama_folder: Path) -> None:
    config = make_run(oracle={"kind": "folder", "path": str(llama_folder)}, training__steps=1)
    run = distil(config, QUIET)
    assert run.read_json("provenance.json")["golden"] == "oracle"
    assert abs(run.evaluations()[0].series["teacher_golden"].sums).max() == 0  # the oracle is the teacher


def test_nothing_in_a_run_directory_is_pickled(make_run: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("something was unpickled")

    first = make_run(training__steps=4)
    monkeypatch.setattr(pickle, "load", forbidden)
    monkeypatch.setattr(pickle, "loads", forbidden)
    monkeypatch.setattr(pickle, "Unpickler", forbidden)
    run = distil(first, QUIET)
    run.file("verdict.json").unlink()
    distil(first, QUIET)  # resumes from its last checkpoint
    assert run.evaluations()
    endings = {path.suffix for path in run.path.rglob("*") if path.is_file()}
    assert not endings & {".pt", ".pth", ".bin", ".pkl", ".distcp"}, endings


def test_a_finished_run_is_left_alone(make_run: Make) -> None:
    run = distil(make_run(training__steps=2), QUIET)
    before = run.file("events.jsonl").read_bytes()
    distil(make_run(training__steps=2), QUIET)
    assert run.file("events.jsonl").read_bytes() == before


def test_the_data_plan_is_on_disk_before_its_first_batch(make_run: Make) -> None:
    run = distil(make_run(training__steps=2), QUIET)
    events = [line["event"] for line in run.lines("events.jsonl")]
    assert events[:3] == ["started", "head", "data plan"]
    state = json.loads((run.checkpoint_path(2) / "state.json").read_text())
    assert state["plans"][0]["fractions"] == {"teacher": 0.75, "reference": 0.25}


def test_completions_keep_their_history(make_run: Make) -> None:
    run = RunDir(distil(make_run(training__steps=1), QUIET).path)
    lines = list(run.lines("completions/train-teacher.jsonl"))
    assert len(lines) == 16 * 2
    history = lines[0]["history"]
    assert history["provenance"] == "teacher" and history["depth"] == 1
    assert history["sampling"]["sampling_temperature"] == 0.8
    assert all(len(line["logprobs"]) == len(line["token_ids"]) for line in lines)


def test_prompts_that_are_too_long_are_refused_or_dropped_with_a_note(make_run: Make, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in Path(make_run().data.prompts.path).read_text().splitlines()]
    for i in (0, 4):  # one of training, one held out ("stars")
        rows[i]["prompt"] += " every day" * 60
    path = tmp_path / "long.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    prompts = make_run().data.prompts.model_dump() | {"path": str(path)}
    with pytest.raises(ValueError, match=r"2 prompts are too long.*data\.max_length"):
        distil(make_run(data__prompts=prompts), Show(quiet=True))
    config = make_run(data__prompts=prompts, data__too_long="drop", output="dropped", training__steps=2)
    run = distil(config, Show(quiet=True))
    found = run.read_json("provenance.json")
    assert found["prompts"]["train"] == 15 and found["prompts"]["held_out"] == 7
    assert any("1 training prompts, 1 held out" in note for note in found["notes"])
