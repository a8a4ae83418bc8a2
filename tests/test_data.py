"""Encoding, collating, rows, run directory, source, optimiser: the small parts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from potstill.config.training import Optimiser
from potstill.data.collate import Layout, Row, collate
from potstill.data.encode import EncodedPrompt, EncodeError, encode_answer, encode_prompt
from potstill.data.rows import check_room, check_rows
from potstill.records import EvaluationRecord, Measured, Message, Prompt
from potstill.run_dir import RunDir, RunDirError
from potstill.training.optim import learning_rate, make_optimiser

CHAT = Prompt(
    "c",
    messages=(
        Message("user", "tea"), Message("assistant", "rain"), Message("user", "boats"), Message("assistant", "bread"),
        Message("user", "stars"),
    ),
)  # fmt: skip


def test_decoder_rows_are_shifted_once_and_only_answers_count() -> None:
    row = Row("p", 0, "teacher", (5, 6, 7), (False,) * 3, (8, 9, 2))
    short = Row("q", 0, "reference", (5,), (False,), (8,))
    batch = collate([row, short], Layout(0))
    assert batch.input_ids.tolist() == [[5, 6, 7, 8, 9], [5, 0, 0, 0, 0]]
    assert batch.target_ids.tolist() == [[0, 0, 8, 9, 2], [8, 0, 0, 0, 0]]
    assert batch.counted.tolist() == [[False, False, True, True, True], [True, False, False, False, False]]
    assert batch.num_counted == row.num_counted + short.num_counted == 4


def test_encoder_decoder_rows_are_shifted_from_the_start_token() -> None:
    batch = collate([Row("p", 0, "teacher", (5, 6), (False,) * 2, (8, 9, 2))], Layout(0, 3))
    assert batch.encoder_ids is not None and batch.encoder_ids.tolist() == [[5, 6]]
    assert batch.input_ids.tolist() == [[3, 8, 9]]
    assert batch.target_ids.tolist() == [[8, 9, 2]]
    assert batch.counted.all()


def test_earlier_assistant_turns_count_when_asked(tokenizer: Any) -> None:
    last = encode_prompt(tokenizer, CHAT, "last", {})
    every = encode_prompt(tokenizer, CHAT, "all", {})
    assert last.ids == every.ids and not any(last.counted)
    counted = tokenizer.decode([i for i, c in zip(every.ids, every.counted, strict=True) if c])
    assert counted.replace(" ", "") == "rain</s>bread</s>"


def test_a_chat_without_template_says_what_to_do(tokenizer: Any) -> None:
    import copy

    bare = copy.deepcopy(tokenizer)
    bare.chat_template = None
    with pytest.raises(EncodeError, match="chat: false"):
        encode_prompt(bare, CHAT, "last", {})


def test_written_answers_end(tokenizer: Any) -> None:
    assert encode_answer(tokenizer, "tea")[-1] == tokenizer.eos_token_id


def test_long_prompts_and_rows_are_refused_not_cut() -> None:
    encoded = {"long": EncodedPrompt((1,) * 30, (False,) * 30)}
    with pytest.raises(EncodeError, match=r"'long' \(30\)"):
        check_room(encoded, room=8, limit=32, is_encoder_decoder=False)
    check_room(encoded, room=8, limit=32, is_encoder_decoder=True)
    row = Row("r", 0, "teacher", (1,) * 20, (False,) * 20, (1,) * 20)
    with pytest.raises(EncodeError, match=r"prompt 'r', has 40"):
        check_rows([row], 32, is_encoder_decoder=False)


def record(step: int) -> EvaluationRecord:
    measured = Measured(np.array(["a", "b", "b"]), np.array([1.0, 2.0, 4.0]), np.array([2, 3, 5]))
    return EvaluationRecord(step, {"proxy": measured}, {"a": "selection", "b": "test"}, {"training_loss": 0.5})


def test_means_over_tokens_and_over_prompts() -> None:
    measured = record(1).series["proxy"]
    assert measured.per_token() == pytest.approx(0.7)
    assert measured.per_sequence() == pytest.approx((1.0 + 3.0) / 2)


def test_evaluations_round_trip_and_their_bytes_depend_on_nothing_else(tmp_path: Path) -> None:
    one, two = RunDir(tmp_path / "one"), RunDir(tmp_path / "two")
    first = one.write_evaluation(record(3)).read_bytes()
    assert two.write_evaluation(record(3)).read_bytes() == first
    (back,) = one.evaluations()
    assert back.step == 3 and back.scalars == {"training_loss": 0.5} and back.splits["b"] == "test"
    assert back.series["proxy"].sums.tolist() == [1.0, 2.0, 4.0]


def test_a_torn_last_line_is_forgiven_and_nothing_else(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.append("metrics.jsonl", {"step": 1})
    with open(run.file("metrics.jsonl"), "ab") as handle:
        handle.write(b'{"step": 2, "lo')
    assert [line["step"] for line in run.lines("metrics.jsonl")] == [1]
    run.append("metrics.jsonl", {"step": 2})
    assert [line["step"] for line in run.lines("metrics.jsonl")] == [1, 2]
    run.file("metrics.jsonl").write_bytes(b'{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(RunDirError, match="line 2: not JSON"):
        list(run.lines("metrics.jsonl"))


def test_rewinding_cuts_growing_files_and_later_evaluations(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.append("metrics.jsonl", {"step": 1})
    lengths = run.lengths()
    run.append("metrics.jsonl", {"step": 2})
    for step in (0, 1, 2):
        run.write_evaluation(record(step))
    run.rewind(lengths, 1)
    assert [line["step"] for line in run.lines("metrics.jsonl")] == [1]
    assert run.evaluation_steps() == [0, 1]
    run.file("metrics.jsonl").write_bytes(b"")
    with pytest.raises(RunDirError, match="it was cut since"):
        run.rewind(lengths, 1)


def test_numbers_that_are_not_numbers_are_never_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        RunDir(tmp_path).append("metrics.jsonl", {"loss": float("nan")})


def rates(kind: str, steps: int = 14, warmup: int = 4, **settings: float) -> list[float]:
    schedule = {"kind": kind, **settings}
    config = Optimiser.model_validate({"learning_rate": 2.0, "warmup_steps": warmup, "schedule": schedule})
    return [learning_rate(config, step, steps) for step in range(steps)]


def test_the_learning_rate_warms_up_and_follows_a_cosine() -> None:
    found = rates("cosine", final_fraction=0.1)
    assert found[:5] == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.0])
    assert found[-1] == pytest.approx(0.2)
    assert found[3:] == sorted(found[3:], reverse=True)
    assert rates("cosine", 11, 0, final_fraction=0.0)[5] == pytest.approx(1.0)
    assert Optimiser(learning_rate=1.0).schedule.kind == "cosine"


def test_the_other_schedules_by_hand() -> None:
    assert rates("constant", 6, 2) == pytest.approx([1.0, 2.0, 2.0, 2.0, 2.0, 2.0])
    assert rates("linear", 6, 1) == pytest.approx([2.0, 2.0, 1.5, 1.0, 0.5, 0.0])
    # Held for the first 60 % of the ten intervals, then down to a tenth in four of them.
    wsd = rates("wsd", 11, 0, decay_share=0.4, final_fraction=0.1)
    assert wsd == pytest.approx([2.0] * 7 + [1.55, 1.1, 0.65, 0.2])


def test_a_run_of_one_step_has_a_rate() -> None:
    for kind in ("constant", "linear", "cosine", "wsd"):
        assert rates(kind, 1, 0) == [2.0]


def test_weight_decay_is_on_matrices_only() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.LayerNorm(2))
    groups = make_optimiser(model, Optimiser(learning_rate=1.0, weight_decay=0.3)).param_groups
    assert {(p.ndim, g["weight_decay"]) for g in groups for p in g["params"]} == {(2, 0.3), (1, 0.0)}


def test_growing_files_are_plain_json_lines(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.append("events.jsonl", {"b": 1, "a": [1.5]})
    assert json.loads(run.file("events.jsonl").read_text()) == {"a": [1.5], "b": 1}
