"""Sampling in slots: the same tokens as one request at a time, whatever the slots, the order and the family."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from conftest import make_llama, make_t5
from scipy.stats import chi2
from slow_generate import plain_draw, slow_generate
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    Gemma2Config,
    GPT2Config,
    GPTNeoConfig,
    MistralConfig,
    PretrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

from potstill.config.data import Sampling
from potstill.generation import forward, slots, weights
from potstill.generation.attention import NAME, UnknownAttention, attending, grouped_attention
from potstill.generation.base import Request
from potstill.generation.draw import BLOCK, draw
from potstill.generation.local import LocalSampler, end_ids
from potstill.generation.weights import working_weights
from potstill.records import Completion

VOCABULARY = 320
SMALL: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 256,
    "initializer_range": 0.2, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
GPT: dict[str, Any] = {
    "vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256, "initializer_range": 0.2,
    "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
#: Seven prompts that begin alike, two completions each, with limits of their own.
BEGINNING = tuple(range(20, 32))
REQUESTS = [
    Request(f"p{i}", index, (*BEGINNING, *range(40, 41 + 3 * i)), max_new_tokens=(6, 17, 30)[(i + index) % 3])
    for i in range(7)
    for index in range(2)
]
FEW = REQUESTS[1::3]


def make(config: PretrainedConfig) -> nn.Module:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).eval()


def family(name: str) -> nn.Module:
    window = {"sliding_window": 11, "layer_types": ["full_attention", "sliding_attention"]}
    neo = {"hidden_size": 32, "num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]]}
    ids = {"vocab_size": VOCABULARY, "bos_token_id": 1, "eos_token_id": 2}
    configs = {
        "llama": lambda: make_llama(VOCABULARY),
        "gpt2": lambda: make(GPT2Config(**GPT)),
        "qwen2": lambda: make(Qwen2Config(**SMALL)),
        "qwen2 window": lambda: make(Qwen2Config(**SMALL, **window, use_sliding_window=True)),
        "qwen3": lambda: make(Qwen3Config(**SMALL)),
        "mistral window": lambda: make(MistralConfig(**SMALL, sliding_window=9)),
        "gemma2 softcap": lambda: make(Gemma2Config(**SMALL, query_pre_attn_scalar=8)),
        "bloom alibi": lambda: make(BloomConfig(hidden_size=32, n_layer=2, n_head=4, **ids)),
        "gpt neo": lambda: make(GPTNeoConfig(**neo, window_size=16, max_position_embeddings=128, **ids)),
        "dynamic": lambda: make_llama(VOCABULARY, rope_parameters={"rope_type": "dynamic", "factor": 2.0}),
    }
    model = configs[name]()
    model.generation_config.eos_token_id = [2, *range(200, 215)]  # several, so that some completions end
    return model


def sampler(model: nn.Module, tokenizer: Any, slots: int = 4, law: Sampling | None = None, **more: Any) -> LocalSampler:
    law = law or Sampling(max_new_tokens=24)
    return LocalSampler(model, tokenizer, "finger", None, "teacher", law, 5, "train", slots=slots, **more)


def by_key(completions: Iterator[Completion]) -> dict[tuple[str, int], Completion]:
    return {(c.prompt_id, c.index): c for c in completions}


def agree(model: nn.Module, tokenizer: Any, found: dict[tuple[str, int], Completion], law: Sampling) -> bool:
    """Whether ids and log-probs are the twin's."""
    requests = [r for r in REQUESTS if (r.prompt_id, r.index) in found]
    expected = slow_generate(model, requests, law, end_ids(model, tokenizer), 5, "train")
    same_ids = {key: c.token_ids for key, c in found.items()} == {key: ids for key, (ids, _) in expected.items()}
    return same_ids and all(found[k].logprobs == pytest.approx(p, abs=1e-4) for k, (_, p) in expected.items())


Reference = dict[tuple[str, int], tuple[tuple[int, ...], list[float]]]


@pytest.fixture(scope="module")
def reference(tokenizer: Any) -> Reference:
    """The twin's completions of all requests by the small Llama."""
    model = family("llama")
    return slow_generate(model, REQUESTS, Sampling(max_new_tokens=24), end_ids(model, tokenizer), 5, "train")


@pytest.mark.parametrize("slots", [1, 3, 8, 32])
def test_the_number_of_slots_changes_nothing(slots: int, tokenizer: Any, reference: Reference) -> None:
    found = by_key(sampler(family("llama"), tokenizer, slots).generate(REQUESTS))
    assert {key: c.token_ids for key, c in found.items()} == {key: ids for key, (ids, _) in reference.items()}
    for key, (_, log_probs) in reference.items():
        assert found[key].logprobs == pytest.approx(log_probs, abs=1e-4)


@pytest.mark.parametrize("name", ["gpt2", "qwen2", "qwen2 window", "qwen3", "mistral window"])
def test_other_families_go_through_the_slots_too(name: str, tokenizer: Any) -> None:
    model, said = family(name), list[str]()
    found = by_key(sampler(model, tokenizer, note=said.append).generate(FEW))
    assert agree(model, tokenizer, found, Sampling(max_new_tokens=24))
    assert said == []


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("gemma2 softcap", "softcap"),
        ("bloom alibi", "batches"),
        ("gpt neo", "batches"),
        ("dynamic", "scaled by dynamic"),
    ],
)
def test_what_the_slots_do_not_know_goes_in_batches_and_is_said_once(name: str, why: str, tokenizer: Any) -> None:
    model, said = family(name), list[str]()
    attention = model.config._attn_implementation
    for _ in range(2):
        found = by_key(sampler(model, tokenizer, note=said.append).generate(FEW))
    assert agree(model, tokenizer, found, Sampling(max_new_tokens=24))
    (note,) = said
    assert why in note and "slower" in note
    assert model.config._attn_implementation == attention


@pytest.mark.parametrize("law", [Sampling(sampling_temperature=0, max_new_tokens=9), Sampling(top_p=0.6)])
def test_greedy_and_top_p_are_the_twins(law: Sampling, tokenizer: Any) -> None:
    model = family("llama")
    assert agree(model, tokenizer, by_key(sampler(model, tokenizer, law=law).generate(FEW)), law)


def test_the_order_changes_nothing_and_limits_are_kept(tokenizer: Any) -> None:
    model = family("llama")
    found = by_key(sampler(model, tokenizer).generate(REQUESTS))
    assert by_key(sampler(model, tokenizer).generate(REQUESTS[::-1])) == found
    for key, completion in by_key(sampler(model, tokenizer).generate(REQUESTS[5:9])).items():
        assert completion.token_ids == found[key].token_ids and completion.text == found[key].text
        assert completion.logprobs == pytest.approx(found[key].logprobs, abs=2e-5)  # fp32, in another company
    for request in REQUESTS:
        completion, limit = found[(request.prompt_id, request.index)], min(24, request.max_new_tokens or 24)
        assert len(completion.token_ids) <= limit
        assert (completion.finish == "length") == (completion.token_ids[-1] not in end_ids(model, tokenizer))
        assert completion.history.sampling["max_new_tokens"] == limit
    assert {c.finish for c in found.values()} == {"length", "stop"}


def test_the_cache_grows_and_prompts_are_read_in_parts(
    tokenizer: Any, reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots, "FIRST_ROOM", 1)
    monkeypatch.setattr(slots, "PROMPT_TOKENS", 20)
    found = by_key(sampler(family("llama"), tokenizer, 8).generate(REQUESTS))
    assert {key: c.token_ids for key, c in found.items()} == {key: ids for key, (ids, _) in reference.items()}


def test_a_short_completion_does_not_wait_for_a_long_one(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted in passes: two slots, one completion of 24 tokens beside four of 6."""
    passes = []
    tokens = forward.Forward.tokens

    def counted(self: forward.Forward, ids: list[int], lengths: list[int]) -> Tensor:
        passes.append(len(ids))
        return tokens(self, ids, lengths)

    model = make_llama(VOCABULARY)
    list(sampler(model, tokenizer).generate(REQUESTS[:1]))  # the trial of the model is behind us
    monkeypatch.setattr(forward.Forward, "tokens", counted)
    requests = [Request(f"q{i}", 0, (9, 10, 11 + i), max_new_tokens=24 if i == 0 else 6) for i in range(5)]
    law = Sampling(max_new_tokens=24, sampling_temperature=0)
    found = list(sampler(model, tokenizer, 2, law).generate(requests))
    assert sorted(len(c.token_ids) for c in found) == [6, 6, 6, 6, 24]
    assert [c.prompt_id for c in found][-1] in {"q0", "q4"}
    assert len(passes) == 23  # not 23 + 5 + 5: the four short ones went through the other slot meanwhile


def test_nothing_new_is_begun_before_the_caller_comes_back(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[int] = []
    prompts = forward.Forward.prompts

    def counted(self: forward.Forward, first: int, rest: list[tuple[int, ...]], start: int) -> Tensor:
        begun.append(len(rest))
        return prompts(self, first, rest, start)

    model = family("llama")
    list(sampler(model, tokenizer, 1).generate(REQUESTS[:1]))  # the trial of the model is behind us
    monkeypatch.setattr(forward.Forward, "prompts", counted)
    requests = [Request(f"q{i}", 0, (9, 10 + i)) for i in range(6)]
    each = sampler(model, tokenizer, 1).generate(requests)
    for i in range(6):
        next(each)
        assert len(begun) == i + 1


def test_between_completions_the_model_is_as_it_was(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "multiplies_bf16", lambda: False)
    model = family("llama").bfloat16()
    own = {name: (p.dtype, p.data_ptr()) for name, p in model.named_parameters()}
    logits = model(torch.tensor([[5, 6, 7]])).logits
    said: list[str] = []
    each = sampler(model, tokenizer, note=said.append).generate(REQUESTS)
    for _ in range(3):
        next(each)
        assert model.config._attn_implementation == "sdpa"
        assert {name: (p.dtype, p.data_ptr()) for name, p in model.named_parameters()} == own
        assert torch.equal(model(torch.tensor([[5, 6, 7]])).logits, logits)
    each.close()
    assert model.config._attn_implementation == "sdpa"
    assert len(said) == 1 and "fp32 copy of the weights, 0 MB" in said[0]


def test_a_bf16_model_without_units_says_what_its_fp32_twin_says(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "multiplies_bf16", lambda: False)
    model = family("llama").bfloat16()
    found = by_key(sampler(model, tokenizer).generate(FEW))
    assert agree(model.float(), tokenizer, found, Sampling(max_new_tokens=24))


def test_without_room_for_a_copy_the_weights_stay(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "multiplies_bf16", lambda: False)
    monkeypatch.setattr(weights, "free_memory", lambda: 1000)
    model, said = family("llama").bfloat16(), list[str]()
    assert working_weights(model, False, said.append).copies == []
    assert "of 0 MB free" in said[0]
    assert len(list(sampler(model, tokenizer).generate(REQUESTS))) == len(REQUESTS)


def test_a_student_in_fp32_is_used_in_place_and_one_under_autocast_gets_narrow_copies(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = family("llama")
    assert working_weights(model, False, pytest.fail).copies == []
    monkeypatch.setattr(weights, "multiplies_bf16", lambda: False)
    assert not working_weights(model, True, pytest.fail).autocast
    monkeypatch.setattr(weights, "multiplies_bf16", lambda: True)
    working = working_weights(model, True, pytest.fail)
    assert working.autocast and {copy.dtype for _, copy in working.copies} == {torch.bfloat16}
    assert len(working.copies) == 4 * 7  # seven products a layer; embedding and norms stay
    ids = torch.arange(5, 25)[None]
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        plain = model(ids).logits
    with torch.no_grad(), working.computing():
        assert torch.equal(model(ids).logits, plain)
    assert len(list(sampler(model, tokenizer, bf16=True, note=pytest.fail).generate(REQUESTS))) == len(REQUESTS)


def test_strategy_and_what_was_asked_are_in_the_history(tokenizer: Any) -> None:
    request = Request("p", 0, (9, 10), strategy="step_by_step", asked="digest")
    for model in (family("llama"), make_t5(VOCABULARY)):
        (completion,) = sampler(model, tokenizer).generate([request])
        assert (completion.history.strategy, completion.history.asked) == ("step_by_step", "digest")


def test_no_requests_no_completions(tokenizer: Any) -> None:
    assert list(sampler(family("llama"), tokenizer).generate([])) == []


@pytest.mark.parametrize("window", [None, 3])
def test_attention_by_hand(window: int | None) -> None:
    """Four query heads on two key heads, rows of two lengths, against a loop."""
    torch.manual_seed(1)
    query, key, value = torch.randn(2, 4, 1, 8), torch.randn(2, 2, 6, 8), torch.randn(2, 2, 6, 8)
    lengths = [4, 6]
    mask = (torch.arange(6) < torch.tensor(lengths)[:, None])[:, None, None]
    found, _ = grouped_attention(nn.Module(), query, key, value, mask, scaling=0.3, sliding_window=window)
    for row, length in enumerate(lengths):
        start = 0 if window is None else max(0, length - window)
        for head in range(4):
            keys, values = key[row, head // 2, start:length], value[row, head // 2, start:length]
            expected = torch.softmax(0.3 * keys @ query[row, head, 0], 0) @ values
            torch.testing.assert_close(found[row, 0, head], expected)


def test_attention_refuses_what_it_does_not_know() -> None:
    states = torch.randn(1, 2, 3, 4)
    with pytest.raises(UnknownAttention, match="s_aux, softcap"):
        grouped_attention(nn.Module(), states, states, states, None, softcap=50.0, s_aux=states)
    with pytest.raises(UnknownAttention, match="dropout"):
        grouped_attention(nn.Module(), states, states, states, None, dropout=0.1)


def test_the_attention_comes_back_after_a_fault() -> None:
    model = family("llama")
    with pytest.raises(RuntimeError, match="fault"), attending(model):
        assert model.config._attn_implementation == NAME
        raise RuntimeError("fault")
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("width", [3, BLOCK, BLOCK + 1, 5 * BLOCK - 7])
@pytest.mark.parametrize("law", [Sampling(sampling_temperature=0.7), Sampling(top_p=0.5), Sampling()])
def test_two_levels_draw_what_one_cumulative_sum_draws(width: int, law: Sampling) -> None:
    generator = torch.Generator().manual_seed(3)
    scores = 2 * torch.randn(400, width, generator=generator)
    scores[:, ::3] = -torch.inf
    numbers = torch.rand(400, generator=generator, dtype=torch.float64)
    numbers[:2] = torch.tensor([0.0, 1 - 2.0**-53])
    ids, log_probs = draw(scores.clone(), numbers, law)
    expected_ids, expected = plain_draw(scores, numbers, law)
    # A number within rounding of a boundary may fall on either side of it; one in 400 is already rare.
    same = ids == expected_ids
    assert same[2:].float().mean() >= 0.9975 and torch.isfinite(log_probs).all()
    torch.testing.assert_close(log_probs[same], expected[same], atol=1e-5, rtol=0)


def test_top_p_looks_further_where_the_likeliest_do_not_suffice() -> None:
    scores = torch.zeros(1, 3000).index_fill_(1, torch.arange(5), 0.001)
    ids, log_probs = draw(scores.repeat(50, 1), torch.linspace(0, 0.999, 50, dtype=torch.float64), Sampling(top_p=0.9))
    assert log_probs.exp().mean() == pytest.approx(1 / 2700, rel=0.01)
    assert len(set(ids.tolist())) == 50


def test_first_and_second_tokens_follow_the_models_law(tokenizer: Any) -> None:
    """Chi-square of 6,000 draws of the first token, and of the second after the likeliest first."""
    model, count = family("llama"), 6000
    prompt = (9, 10, 11)
    requests = [Request("p", i, prompt) for i in range(count)]
    law = Sampling(max_new_tokens=2)
    drawn = [c.token_ids for c in sampler(model, tokenizer, 512, law).generate(requests)]
    first = torch.tensor([ids[0] for ids in drawn])
    assert chi_square(first, model, prompt) > 1e-3
    top = int(first.mode().values)
    assert top not in end_ids(model, tokenizer)
    second = torch.tensor([ids[1] for ids in drawn if ids[0] == top])
    assert len(second) > 100 and chi_square(second, model, (*prompt, top)) > 1e-3
    # The test can fail: the same draws do not follow the law at another temperature.
    assert chi_square(first, model, prompt, temperature=1.2) < 1e-3


def chi_square(drawn: Tensor, model: Any, context: tuple[int, ...], temperature: float = 1.0) -> float:
    """p-value of the counts under softmax(logits / temperature), in groups of likely to unlikely tokens."""
    with torch.no_grad():
        law = torch.softmax(model(torch.tensor([context])).logits[0, -1].double() / temperature, -1).numpy()
    counts = np.bincount(drawn.numpy(), minlength=len(law))
    order = np.argsort(-law)
    group = np.floor((law[order].cumsum() - law[order]) * min(40, len(drawn) / 10)).astype(int)
    _, group = np.unique(group, return_inverse=True)
    seen, wanted = np.bincount(group, counts[order]), np.bincount(group, law[order] * len(drawn))
    assert len(seen) > 5
    return float(chi2.sf(((seen - wanted) ** 2 / wanted).sum(), len(seen) - 1))
