"""Sampling: keyed draws, batching, interruption, histories."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import make_llama, make_t5
from slow_generate import tempered
from torch import nn

from potstill.config.data import Sampling
from potstill.data.store import CompletionStore, StoreError, read_completion_file
from potstill.generation.base import Request, plan_batches, sample_all, uniforms
from potstill.generation.draw import draw
from potstill.generation.local import LocalSampler

REQUESTS = [Request(f"p{i}", index, tuple(range(6, 9 + i))) for i in range(5) for index in range(2)]


def sampler(model: nn.Module, tokenizer: Any, temperature: float = 1.0, tokens: int = 10) -> LocalSampler:
    law = Sampling(sampling_temperature=temperature, max_new_tokens=tokens)
    return LocalSampler(model, tokenizer, "finger", None, "teacher", law, 5, "train")


def never(*_: int) -> bool:
    return False


def test_draws_follow_the_distribution() -> None:
    """100,000 draws of three tokens: frequencies within five standard errors."""
    p = torch.tensor([0.6, 0.3, 0.1])
    count = 100_000
    numbers = torch.from_numpy(uniforms(0, "s", "p", 0, count))
    picked, _ = draw(p.log().repeat(count, 1), numbers, Sampling())
    found = torch.bincount(picked, minlength=3) / count
    assert ((found - p).abs() < 5 * (p * (1 - p) / count).sqrt()).all()


def test_numbers_are_keyed_by_seed_stream_prompt_and_completion() -> None:
    base = uniforms(0, "s", "p", 0, 4)
    assert np.array_equal(base, uniforms(0, "s", "p", 0, 9)[:4])
    for other in (uniforms(1, "s", "p", 0, 4), uniforms(0, "t", "p", 0, 4), uniforms(0, "s", "q", 0, 4),
                  uniforms(0, "s", "p", 1, 4)):  # fmt: skip
        assert not np.array_equal(base, other)


def test_top_p_keeps_the_smallest_set_with_enough_mass() -> None:
    p = tempered(torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log(), Sampling(top_p=0.8))
    torch.testing.assert_close(p, torch.tensor([[0.625, 0.375, 0, 0]], dtype=torch.float64), atol=1e-6, rtol=0)


def test_temperature_zero_is_greedy() -> None:
    p = tempered(torch.tensor([[1.0, 3.0, 2.0]]), Sampling(sampling_temperature=0))
    assert p.tolist() == [[0, 1, 0]]


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_a_completion_does_not_depend_on_its_batch(family: str, tokenizer: Any, vocabulary: int) -> None:
    model = make_llama(vocabulary) if family == "llama" else make_t5(vocabulary)
    together = {(c.prompt_id, c.index): c.token_ids for c in sampler(model, tokenizer).generate(REQUESTS)}
    for request in REQUESTS:
        (alone,) = sampler(model, tokenizer).generate([request])
        assert alone.token_ids == together[(request.prompt_id, request.index)]


def test_log_probs_are_the_samplers_own(tokenizer: Any, vocabulary: int) -> None:
    model = make_llama(vocabulary)
    request = REQUESTS[0]
    (completion,) = sampler(model, tokenizer, temperature=0.7).generate([request])
    ids = torch.tensor([request.prompt + completion.token_ids])
    with torch.no_grad():
        logits = model(ids).logits[0].double()
    law = torch.log_softmax(logits / 0.7, -1)
    start = len(request.prompt)
    expected = [law[start + i - 1, token].item() for i, token in enumerate(completion.token_ids)]
    assert completion.logprobs == pytest.approx(expected, abs=1e-4)


def test_what_ends_is_told_from_what_was_cut(tokenizer: Any, vocabulary: int) -> None:
    completions = list(sampler(make_llama(vocabulary), tokenizer, temperature=3.0, tokens=40).generate(REQUESTS * 4))
    assert {c.finish for c in completions} == {"stop", "length"}
    for c in completions:
        assert (c.token_ids[-1] == tokenizer.eos_token_id) == (c.finish == "stop")
        assert tokenizer.eos_token_id not in c.token_ids[:-1]
        assert len(c.token_ids) == len(c.logprobs or ())


def test_an_interrupted_sampling_ends_with_the_same_completions(
    tmp_path: Path, tokenizer: Any, vocabulary: int
) -> None:
    model = make_llama(vocabulary)
    whole, broken = CompletionStore(tmp_path / "whole.jsonl"), CompletionStore(tmp_path / "broken.jsonl")
    expected = sample_all(REQUESTS, sampler(model, tokenizer), whole, never)
    calls: list[int] = []

    def after_four(rows: int, tokens: int) -> bool:
        calls.append(rows)
        return len(calls) > 4  # the first call tells what is on disk already

    assert sample_all(REQUESTS, sampler(model, tokenizer), broken, after_four) is None
    lines = broken.path.read_bytes().splitlines(keepends=True)
    assert len(lines) == 4
    broken.path.write_bytes(b"".join(lines[:2]) + lines[2][:25])  # a kill tore the third line
    found = sample_all(REQUESTS, sampler(model, tokenizer), broken, never)
    assert expected is not None and found is not None
    assert len(broken.path.read_bytes().splitlines()) == len(REQUESTS)  # nothing twice, nothing torn
    for old, new in zip(expected, found, strict=True):
        assert replace(new, logprobs=old.logprobs) == old
        assert new.logprobs == pytest.approx(old.logprobs, abs=2e-5)  # fp32, beside other rows


def test_completions_of_another_model_are_refused(tmp_path: Path, tokenizer: Any, vocabulary: int) -> None:
    store = CompletionStore(tmp_path / "c.jsonl")
    sample_all(REQUESTS[:2], sampler(make_llama(vocabulary), tokenizer), store, never)
    with pytest.raises(StoreError, match="holds completions of the model finger, the run's is other"):
        store.read("other")


def test_batches_group_prompts_of_like_length_whatever_the_order() -> None:
    assert plan_batches(REQUESTS, 3) == plan_batches(REQUESTS[::-1], 3)
    lengths = [len(r.prompt) for batch in plan_batches(REQUESTS, 3) for r in batch]
    assert lengths == sorted(lengths)


def test_answers_from_a_file_get_their_end_unless_cut(tmp_path: Path, tokenizer: Any) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text('{"prompt_id": "a", "text": "tea"}\n{"prompt_id": "a", "text": "te", "finish": "length"}\n')
    whole, cut = read_completion_file(path, {"a"}, tokenizer, "teacher", "api-model", "research only")
    assert whole.token_ids[-1] == tokenizer.eos_token_id and cut.token_ids[-1] != tokenizer.eos_token_id
    assert (whole.index, cut.index) == (0, 1)
    assert whole.history.terms == "research only" and whole.history.generator == "api-model"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"prompt_id": "a"}\n', "line 1: needs prompt_id and text"),
        ('{"prompt_id": "z", "text": "t"}\n', "none of"),
    ],
)
def test_bad_completion_files_are_refused(tmp_path: Path, tokenizer: Any, text: str, message: str) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text(text)
    with pytest.raises(StoreError, match=message):
        read_completion_file(path, {"a"}, tokenizer, "teacher", "m", None)
    with pytest.raises(StoreError, match="no completions at"):
        read_completion_file(tmp_path / "none", {"a"}, tokenizer, "teacher", "m", None)
