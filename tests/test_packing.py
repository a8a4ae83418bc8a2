"""Rows laid end to end give what padded rows give: values, gradients, whole runs; what cannot is refused."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from conftest import make_llama, make_t5
from test_invariance import LENGTHS, VOCABULARY, gradient, objective, rows, trainer
from torch import Tensor
from transformers import AutoModelForCausalLM, GPT2Config, MambaConfig, MistralConfig

from potstill.batch import TokenBatch
from potstill.config import ConfigError, Run
from potstill.config.adapter import Lora
from potstill.data.collate import Layout, collate
from potstill.models.adapt import adapt
from potstill.models.load import ModelError
from potstill.models.packing import fill_bins, pack, verify_packing
from potstill.models.recompute import recompute_blocks
from potstill.models.scored import ScoredModel
from potstill.run_dir import RunDir
from potstill.targets import Dense
from potstill.training.distil import distil
from potstill.training.show import Show
from potstill.training.stages import load_models

Make = Callable[..., Run]
QUIET = Show(quiet=True)
#: The longest row has 14 input tokens: below it, just it, some rows to a bin, all in one.
CAPACITIES = (1, 14, 30, 1000)


def make(family: str, attention: str = "sdpa", seed: int = 0) -> Any:
    if family == "llama":
        return make_llama(VOCABULARY, seed, 2, attn_implementation=attention)
    torch.manual_seed(seed)
    if family == "mistral":  # sees three tokens back
        config: Any = MistralConfig(
            vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=128, sliding_window=3, initializer_range=0.2,
        )  # fmt: skip
    else:
        config = GPT2Config(
            vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=128, initializer_range=0.2,
            bos_token_id=1, eos_token_id=2,
        )  # fmt: skip
    config._attn_implementation = attention
    return AutoModelForCausalLM.from_config(config).eval()


def doubled(model: Any) -> Any:
    """The model in double precision throughout; Llama's own norms and eager softmax compute in fp32 always."""
    for name, module in list(model.named_modules()):
        if type(module).__name__ == "LlamaRMSNorm":
            parent, _, attribute = name.rpartition(".")
            norm = torch.nn.RMSNorm(module.weight.shape, module.variance_epsilon)
            norm.weight = module.weight
            setattr(model.get_submodule(parent), attribute, norm)
    return model.double()


def batch(side: Literal["left", "right"] = "right", dtype: torch.dtype = torch.float32) -> TokenBatch:
    """All rows of `test_invariance`, with a teacher that says something of each counted position."""
    made = collate(rows(), Layout(0, side=side))
    said = torch.randn((made.num_counted, VOCABULARY), generator=torch.Generator().manual_seed(5), dtype=dtype)
    return objective().weigh(replace(made, targets=Dense(said.log_softmax(-1), "t")))


def scores(model: Any, data: TokenBatch, pack_tokens: int | None) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(sums and values by name, gradients by parameter)."""
    scored = ScoredModel(copy.deepcopy(model), pack_tokens)
    made = scored(data, objective())
    made.total.backward()
    found = {f"sum {name}": value for name, value in made.sums.items()}
    found |= {f"values {name}": value for name, value in made.values.items()}
    return found, {name: p.grad for name, p in scored.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "mistral"])
def test_packed_rows_score_as_padded_ones_do(family: str, attention: str, side: Literal["left", "right"]) -> None:
    model, data = make(family, attention), batch(side)
    expected, gradients = scores(model, data, None)
    for capacity in CAPACITIES:
        found, theirs = scores(model, data, capacity)
        torch.testing.assert_close(found, expected, rtol=2e-5, atol=2e-5)
        assert theirs.keys() == gradients.keys() == dict(ScoredModel(model).named_parameters()).keys()
        for name, value in gradients.items():
            # Of the tensor's size, not of each number's: attention to keys has a bias without gradient in GPT-2.
            assert float((theirs[name] - value).norm()) < 2e-5 * max(1.0, float(value.norm())), (capacity, name)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize(("family", "attention"), [("llama", "sdpa"), ("gpt2", "sdpa"), ("gpt2", "eager")])
def test_in_double_precision_nothing_differs(family: str, attention: str, side: Literal["left", "right"]) -> None:
    model, data = doubled(make(family, attention)), batch(side, torch.float64)
    expected = scores(model, data, None)
    assert all(value.dtype == torch.float64 for value in expected[1].values())
    for capacity in CAPACITIES:
        torch.testing.assert_close(scores(model, data, capacity), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("family", ["llama", "gpt2", "mistral"])
def test_no_row_sees_another(family: str) -> None:
    """Another row's prompt changes: the row's own positions change, those of its neighbours do not."""
    scored, data = ScoredModel(make(family).double(), 1000), batch()
    with torch.no_grad():
        before = scored.hidden(data)
        for row in range(len(LENGTHS)):
            ids = data.input_ids.clone()
            ids[row, 0] = (ids[row, 0] + 7) % VOCABULARY
            moved = (scored.hidden(replace(data, input_ids=ids)) - before).abs().amax(-1)
            mine = data.row_of_counted == row
            assert float(moved[~mine].max()) < 1e-12
            assert float(moved[mine].max()) > 1e-6 or family == "mistral"  # its window may not reach so far


def test_rows_stay_whole_and_in_order() -> None:
    """Each counted place holds the token and the position that the padded batch has there."""
    for side in ("left", "right"):
        data = batch(side)  # type: ignore[arg-type]
        positions = data.attention_mask.cumsum(1) - 1
        for capacity in CAPACITIES:
            packed = pack(data, capacity)
            assert torch.equal(packed.input_ids.flatten()[packed.counted], data.input_ids[data.counted])
            assert torch.equal(packed.position_ids.flatten()[packed.counted], positions[data.counted])
            assert len(packed.counted.unique()) == data.num_counted
            assert packed.input_ids.shape[1] <= max(capacity, data.input_ids.shape[1])
            # As many starts as rows, and one more where the end of a bin is left over.
            left_over = packed.input_ids.numel() - int(data.attention_mask.sum())
            starts = int((packed.position_ids == 0).sum())
            assert len(LENGTHS) <= starts <= len(LENGTHS) + min(left_over, len(packed.input_ids))


def test_bins_are_filled_with_the_longest_first_and_never_overflow() -> None:
    assert fill_bins([3, 7, 2, 5], 9) == [[1, 2], [3, 0]]
    assert fill_bins([4, 4, 4], 8) == [[0, 2], [1]]
    assert fill_bins([6, 5, 4, 3], 12) == [[0, 3], [1, 2]]  # 9 and 9, where first-fit would have 11 and 7
    assert fill_bins([6, 4, 4, 3, 3], 10) == [[0, 1], [2, 3, 4]]  # evenly would be 9 and 11
    assert fill_bins([9, 1, 1], 4) == [[0], [1, 2]]  # the longest row raises the capacity
    assert fill_bins([2, 2], 1) == [[0], [1]]
    assert fill_bins([1], 1) == [[0]]


def test_packing_takes_fewer_positions_than_padding() -> None:
    data = batch()
    tokens, padded = int(data.attention_mask.sum()), data.input_ids.numel()
    assert tokens <= pack(data, 30).input_ids.numel() < 0.85 * padded
    assert pack(data, 1000).input_ids.shape == (1, tokens)


@pytest.mark.parametrize("trained", ["whole", "recomputed", "adapted"])
@pytest.mark.parametrize("micro", [None, 3])
def test_gradients_of_a_step_are_those_of_padded_rows(micro: int | None, trained: str) -> None:
    """Student and teacher packed, micro-batches accumulated, blocks recomputed, LoRA on every layer."""
    found = []
    for capacity in (None, 1, 24, 1000):
        made = trainer("llama", micro=micro)
        scored: Any = made.student
        if trained == "adapted":
            adapt(scored.model, Lora(kind="lora", rank=4), 0)
            # An adapter's second matrix starts at 0, and with it the first one's gradient.
            for i, parameter in enumerate(p for p in scored.parameters() if p.requires_grad):
                torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(i))
        if trained == "recomputed":
            recompute_blocks(scored.model)
        made.student = ScoredModel(scored.model, capacity)
        assert made.teacher is not None
        made.teacher.scored.pack_tokens = capacity
        found.append(gradient(made))
    assert found[0].norm() > 0
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=1e-4, atol=2e-6)


def test_encoder_decoders_are_refused(make_run: Make, t5_folder: Path) -> None:
    for refused in (lambda: ScoredModel(make_t5(VOCABULARY), 64), lambda: verify_packing(make_t5(VOCABULARY))):
        with pytest.raises(ModelError, match=r"encoder-decoder.*training\.pack_tokens to null"):
            refused()
    with pytest.raises(ModelError, match="encoder-decoder"):
        load_models(make_run(teacher=t5_folder, data__prompts__chat=False, training__pack_tokens=64))


@pytest.mark.parametrize("family", ["llama", "gpt2", "mistral"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_models_that_know_restarts_pass_and_are_left_as_they_were(family: str, dtype: torch.dtype) -> None:
    model = make(family).to(dtype)
    model.train()
    model.get_decoder().eval()
    modes = [module.training for module in model.modules()]
    state = torch.get_rng_state()
    verify_packing(model)
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in model.modules()] == modes


@pytest.mark.parametrize("deaf", ["to positions", "to positions in the mask"])
def test_a_model_that_does_not_read_restarts_is_refused(deaf: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make("llama")
    decoder = model.get_decoder()
    forward = decoder.forward

    def ignoring(position_ids: Tensor, attention_mask: Tensor | None = None, **inputs: Any) -> Any:
        if deaf == "to positions":
            return forward(attention_mask=attention_mask, **inputs)
        # Rotated as told, but attending to all that came before, as GPT-OSS does.
        seen = torch.ones_like(position_ids) if attention_mask is None else attention_mask
        return forward(position_ids=position_ids, attention_mask=seen, **inputs)

    monkeypatch.setattr(decoder, "forward", ignoring)
    with pytest.raises(ModelError, match=r"LlamaForCausalLM with 'sdpa' attention.*looks across the start of a row"):
        verify_packing(model)


@pytest.mark.filterwarnings("ignore")
def test_a_model_with_a_state_is_refused() -> None:
    torch.manual_seed(0)
    config = MambaConfig(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, state_size=4, use_mambapy=False)
    model = AutoModelForCausalLM.from_config(config).eval()
    with pytest.raises(ModelError, match="looks across the start of a row"):
        verify_packing(model)


def test_bins_of_no_tokens_are_refused(make_run: Make) -> None:
    with pytest.raises(ConfigError, match=r"training\.pack_tokens"):
        make_run(training__pack_tokens=0)


def test_a_run_goes_the_same_way_packed_and_padded(make_run: Make) -> None:
    runs: list[RunDir] = []
    for name, capacity in (("padded", None), ("packed", 96)):
        runs.append(distil(make_run(output=name, training__pack_tokens=capacity), QUIET))
    steps = [list(run.lines("metrics.jsonl")) for run in runs]
    assert [line["counted_tokens"] for line in steps[0]] == [line["counted_tokens"] for line in steps[1]]
    for key in ("loss", "grad_norm"):
        expected = pytest.approx([line[key] for line in steps[0]], rel=1e-3)
        assert [line[key] for line in steps[1]] == expected
        assert steps[0][0][key] == pytest.approx(steps[1][0][key], rel=1e-5)
    for padded, packed in zip(runs[0].evaluations(), runs[1].evaluations(), strict=True):
        for name, measured in padded.series.items():
            assert packed.series[name].per_token() == pytest.approx(measured.per_token(), rel=1e-3, abs=1e-5), name
