"""Divergences between the laws of whole completions: every completion of tiny models is enumerated.

An estimator's expectation is a sum over all completions, of probability times value: that it
equals the exact divergence is then shown without any sampling error.
"""

from __future__ import annotations

import copy
import itertools
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import make_llama, make_t5
from tokenizers import Tokenizer, models
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from potstill.data.collate import Row, layout_of
from potstill.evaluation.sequence import Party, Rules, compare, log_probs, per_prompt_means, sequence_divergences
from potstill.losses.divergences import forward_kl
from potstill.losses.divergences import jensen_shannon as token_jensen_shannon
from potstill.metrics.estimators import k1, k3, mixture_term
from potstill.models.load import Loaded, ModelError
from potstill.models.scored import ScoredModel
from potstill.models.vocabulary import Alignment

VOCABULARY, END, LONGEST = 5, 2, 3
PROMPTS = {"short": (3,), "middle": (1, 4, 3), "long": (4, 4, 1, 3, 1, 1)}
Law = dict[tuple[int, ...], Tensor]  # completion -> [T, V] log-probs at each of its positions


@pytest.fixture(scope="module")
def words() -> PreTrainedTokenizerFast:
    """Five tokens; the padding token is an ordinary one to the models, and sampled like any other."""
    core = Tokenizer(models.WordLevel({"<pad>": 0, "a": 1, "</s>": 2, "b": 3, "c": 4}, unk_token="<pad>"))
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="</s>")


def loaded(model: Any, words: Any, name: str) -> Loaded:
    return Loaded(model, words, name, None, name)


def pair(family: str, words: Any) -> tuple[Loaded, Loaded]:
    make = make_llama if family == "llama" else make_t5
    # Made warmer, so that no completion is next to certain.
    found = [make(VOCABULARY, seed=seed, layers=layers, tie=False) for seed, layers in ((1, 2), (2, 1))]
    for model in found:
        with torch.no_grad():
            model.get_output_embeddings().weight.mul_(0.6)
    return loaded(found[0], words, "first"), loaded(found[1], words, "second")


def completions(longest: int = LONGEST) -> list[tuple[int, ...]]:
    """All that can be sampled: ended by the end token, or cut at `longest`."""
    others = [token for token in range(VOCABULARY) if token != END]
    ended = [(*start, END) for n in range(longest) for start in itertools.product(others, repeat=n)]
    return ended + list(itertools.product(others, repeat=longest))


def enumerated(model: Any, prompt: tuple[int, ...], longest: int = LONGEST) -> Law:
    """Each completion with the model's distributions along it, by its plain forward pass in fp64."""
    wide = copy.deepcopy(model).double()
    found = {}
    for length in range(1, longest + 1):
        answers = [answer for answer in completions(longest) if len(answer) == length]
        ids = torch.tensor(answers)
        start = torch.tensor([prompt] * len(answers))
        with torch.no_grad():
            if wide.config.is_encoder_decoder:
                first = torch.full((len(answers), 1), wide.config.decoder_start_token_id)
                logits = wide(input_ids=start, decoder_input_ids=torch.cat([first, ids[:, :-1]], 1)).logits
            else:
                logits = wide(input_ids=torch.cat([start, ids[:, :-1]], 1)).logits[:, len(prompt) - 1 :]
        found |= dict(zip(answers, torch.log_softmax(logits, -1), strict=True))
    return found


@dataclass
class Exact:
    """Two laws over the same completions: [S] log-probs, and the tokens that make them up."""

    first: Law
    second: Law

    def totals(self, law: Law) -> Tensor:
        return torch.stack([self.observed(law, y).sum() for y in law])

    @staticmethod
    def observed(law: Law, answer: tuple[int, ...]) -> Tensor:
        """[T] log-probs of the tokens that were taken."""
        return law[answer].gather(1, torch.tensor(answer)[:, None])[:, 0]

    @property
    def forward_kl(self) -> float:
        a, b = self.totals(self.first), self.totals(self.second)
        return float((a.exp() * (a - b)).sum())

    @property
    def jensen_shannon(self) -> float:
        a, b = self.totals(self.first), self.totals(self.second)
        mean = torch.logaddexp(a, b) - math.log(2)
        return float((a.exp() * (a - mean)).sum() + (b.exp() * (b - mean)).sum()) / 2

    def estimates(self) -> dict[str, Tensor]:
        """[S] value of each estimator of KL(first || second) on each completion."""
        a, b = self.totals(self.first), self.totals(self.second)
        steps, tokens = [], []
        for y in self.first:
            steps.append(forward_kl(self.first[y], self.second[y]).sum())
            tokens.append(k3(self.observed(self.first, y), self.observed(self.second, y)).sum())
        return {"steps": torch.stack(steps), "k1": k1(a, b), "k3": k3(a, b), "k3_tokens": torch.stack(tokens)}

    def moments(self, values: Tensor) -> tuple[float, float]:
        """Mean and variance under the first law."""
        weight = self.totals(self.first).exp()
        mean = float((weight * values).sum())
        return mean, float((weight * (values - mean) ** 2).sum())

    def swapped(self) -> Exact:
        return Exact(self.second, self.first)


def exact(family: str, words: Any, name: str = "middle", longest: int = LONGEST) -> Exact:
    sides = pair(family, words)
    return Exact(*(enumerated(side.model, PROMPTS[name], longest) for side in sides))


@pytest.mark.parametrize(("family", "longest"), [("llama", 1), ("llama", 3), ("llama", 4), ("t5", 3)])
def test_every_estimator_has_the_exact_divergence_as_its_expectation(words: Any, family: str, longest: int) -> None:
    """Cut completions included: without an end token their probabilities sum to 1 with the ended ones."""
    laws = exact(family, words, longest=longest)
    for side in (laws, laws.swapped()):
        assert float(side.totals(side.first).exp().sum()) == pytest.approx(1, abs=1e-12)
        assert side.forward_kl > 0.05
        for name, values in side.estimates().items():
            assert side.moments(values)[0] == pytest.approx(side.forward_kl, abs=1e-9), name


def test_the_mixtures_terms_have_jensen_shannon_as_their_mean(words: Any) -> None:
    laws = exact("llama", words)
    a, b = laws.totals(laws.first), laws.totals(laws.second)
    halves = [laws.moments(mixture_term(a, b))[0], laws.swapped().moments(mixture_term(b, a))[0]]
    assert sum(halves) / 2 == pytest.approx(laws.jensen_shannon, abs=1e-9)
    assert laws.swapped().jensen_shannon == pytest.approx(laws.jensen_shannon, abs=1e-12)
    assert 0 < laws.jensen_shannon < math.log(2)


def test_jensen_shannon_of_single_tokens_is_another_number(words: Any) -> None:
    """Summed over tokens, under either law or half of each, it is not the divergence of whole completions."""
    laws = exact("llama", words)
    both = []
    for side in (laws, laws.swapped()):
        steps = [token_jensen_shannon(side.first[y], side.second[y], 0.5, normalised=False).sum() for y in side.first]
        both.append(side.moments(torch.stack(steps))[0])
    for summed in (*both, sum(both) / 2):
        assert abs(summed - laws.jensen_shannon) > 0.02 * laws.jensen_shannon
    one = exact("llama", words, longest=1)  # of a single token it is the same
    (step,) = {round(float(token_jensen_shannon(one.first[y], one.second[y], 0.5, False)), 12) for y in one.first}
    assert step == pytest.approx(one.jensen_shannon, abs=1e-9)


def test_exact_steps_are_the_least_noisy(words: Any) -> None:
    for side in (laws := exact("llama", words, longest=4), laws.swapped()):
        variance = {name: side.moments(values)[1] for name, values in side.estimates().items()}
        assert variance["steps"] < 0.5 * variance["k1"]
        assert variance["steps"] < variance["k3_tokens"] < variance["k3"]


def test_terms_stay_within_their_bounds() -> None:
    own = torch.tensor([0.0, -3.0, -700.0, -1.0, -2.0], dtype=torch.float64)
    other = torch.tensor([0.0, -900.0, -3.0, -torch.inf, -2.5], dtype=torch.float64)
    terms = mixture_term(own, other)
    assert terms[0] == 0 and terms.max() <= math.log(2)
    assert terms[3] == pytest.approx(math.log(2), abs=1e-15)  # only one of the laws knows it
    assert terms[2] == pytest.approx(-697 + math.log(2), abs=1e-9)  # where exp(r) alone would overflow
    assert terms[4] == pytest.approx(-2.0 - math.log((math.exp(-2.0) + math.exp(-2.5)) / 2), abs=1e-12)
    assert k3(own, other)[4] == pytest.approx(math.exp(-0.5) - 1 + 0.5, abs=1e-12)
    assert (k3(own[[0, 1, 4]], other[[0, 1, 4]]) >= 0).all() and k1(own, other)[4] == pytest.approx(0.5)
    assert torch.isinf(k3(own, other)[3])


def rows_of(prompts: dict[str, tuple[int, ...]]) -> list[Row]:
    return [
        Row(name, i, "teacher", prompt, (False,) * len(prompt), answer)
        for name, prompt in prompts.items()
        for i, answer in enumerate(completions())
    ]


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_models_padding_and_batches_give_the_enumerated_values(words: Any, family: str) -> None:
    """Every completion of prompts of three lengths through the models, in batches that mix and pad them."""
    first, second = pair(family, words)
    found = {}
    for size in (7, 1000):
        rules = Rules(layout_of(first.model, words), size, torch.device("cpu"))
        sides = [Party(ScoredModel(side.model), side.fingerprint) for side in (first, second)]
        said = compare(rows_of(PROMPTS), sides[0], sides[1], Alignment(None, VOCABULARY), rules)
        alone = log_probs(rows_of(PROMPTS), sides[1], rules)
        torch.testing.assert_close(alone, said.other, rtol=0, atol=1e-5)
        where = np.array(said.prompt_ids)
        found[size] = {
            (name, what): sorted(getattr(said, what)[torch.from_numpy(where == name)].tolist())
            for name in PROMPTS
            for what in ("own", "other", "steps", "k3_tokens")
        }
    for name in PROMPTS:
        laws = exact(family, words, name)
        expected = laws.estimates() | {"own": laws.totals(laws.first), "other": laws.totals(laws.second)}
        for what in ("own", "other", "steps", "k3_tokens"):
            for values in found.values():
                assert values[(name, what)] == pytest.approx(sorted(expected[what].tolist()), rel=2e-5, abs=2e-5)


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_sampled_divergences_agree_with_the_exact_ones(words: Any, family: str) -> None:
    """Through the whole function: each estimate within 4 of its own standard errors of the enumerated value."""
    first, second = pair(family, words)
    prompts = {f"{name}-{i}": ids for name, ids in PROMPTS.items() for i in range(100)}
    found = sequence_divergences(first, second, prompts, LONGEST, per_prompt=2, seed=5, batch_rows=100)
    laws = [exact(family, words, name) for name in PROMPTS]
    truth = {
        "forward_kl": np.mean([law.forward_kl for law in laws]),
        "reverse_kl": np.mean([law.swapped().forward_kl for law in laws]),
        "jensen_shannon": np.mean([law.jensen_shannon for law in laws]),
    }
    assert set(found) == {
        *truth,
        *(f"{n}_{k}" for n in ("forward_kl", "reverse_kl") for k in ("k1", "k3", "k3_tokens")),
    }
    errors = {}
    for name, series in found.items():
        means = per_prompt_means(series)
        errors[name] = float(means.std(ddof=1) / math.sqrt(means.size))
        plain = name.removesuffix("_tokens").removesuffix("_k1").removesuffix("_k3")
        assert abs(series.per_sequence() - truth[plain]) < 4 * errors[name], (name, series.per_sequence(), truth[plain])
        assert means.size == 300 and series.tokens.min() >= 1 and series.tokens.max() == LONGEST
    assert found["forward_kl"].sums.size == 600 and found["jensen_shannon"].sums.size == 1200
    assert errors["forward_kl"] < errors["forward_kl_k1"]
    assert found["jensen_shannon"].sums.max() <= math.log(2)


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_a_model_is_at_distance_zero_from_itself(words: Any, family: str) -> None:
    first, _ = pair(family, words)
    again = loaded(copy.deepcopy(first.model), words, "again")
    found = sequence_divergences(first, again, PROMPTS, LONGEST, per_prompt=5)
    for name, series in found.items():
        assert abs(series.sums).max() == 0, name


def test_swapping_the_models_swaps_the_divergences(words: Any) -> None:
    first, second = pair("llama", words)
    one = sequence_divergences(first, second, PROMPTS, LONGEST, per_prompt=4, batch_rows=3)
    other = sequence_divergences(second, first, PROMPTS, LONGEST, per_prompt=4, batch_rows=16)
    assert one["forward_kl"].per_sequence() == pytest.approx(other["reverse_kl"].per_sequence(), abs=1e-6)
    assert one["reverse_kl_k1"].per_sequence() == pytest.approx(other["forward_kl_k1"].per_sequence(), abs=1e-6)
    assert one["jensen_shannon"].per_sequence() == pytest.approx(other["jensen_shannon"].per_sequence(), abs=1e-6)


def test_both_models_drawn_with_the_same_numbers_make_jensen_shannon_less_noisy(words: Any) -> None:
    """Models that nearly agree: with numbers of their own, their halves would not cancel."""
    first, _ = pair("llama", words)
    near = copy.deepcopy(first.model)
    with torch.no_grad():
        torch.manual_seed(0)
        near.lm_head.weight.add_(0.05 * torch.randn_like(near.lm_head.weight))
    prompts = {f"{name}-{i}": ids for name, ids in PROMPTS.items() for i in range(40)}
    shared = sequence_divergences(first, loaded(near, words, "near"), prompts, LONGEST, batch_rows=120)
    half = shared["jensen_shannon"].sums.size // 2
    by_model = [dict(zip(shared["jensen_shannon"].prompt_ids[part], shared["jensen_shannon"].sums[part], strict=True))
                for part in (slice(half), slice(half, None))]  # fmt: skip
    paired = np.array([by_model[0][name] + by_model[1][name] for name in prompts]) / 2
    apart = np.var(list(by_model[0].values())) / 4 + np.var(list(by_model[1].values())) / 4
    assert paired.var() < 0.5 * apart


def test_checkpoints_are_sampled_with_the_same_numbers(words: Any) -> None:
    first, second = pair("llama", words)
    one, again, other = (
        sequence_divergences(first, second, PROMPTS, LONGEST, per_prompt=3, seed=seed, batch_rows=rows)[
            "jensen_shannon"
        ]
        for seed, rows in ((1, 9), (1, 2), (2, 9))
    )
    assert dict(zip(one.prompt_ids, one.tokens, strict=True)).keys() == PROMPTS.keys()
    assert one.per_sequence() == pytest.approx(again.per_sequence(), abs=1e-6)
    assert abs(one.per_sequence() - other.per_sequence()) > 1e-4


def test_heads_of_different_widths_are_aligned_and_padding_tokens_refused(words: Any) -> None:
    first, second = pair("llama", words)
    expected = sequence_divergences(first, second, PROMPTS, LONGEST, per_prompt=4)
    wide = copy.deepcopy(second.model)
    for layer in (wide.lm_head, wide.model.embed_tokens):
        layer.weight = torch.nn.Parameter(torch.nn.functional.pad(layer.weight, (0, 0, 0, 3)))
    wide.lm_head.bias = torch.nn.Parameter(torch.tensor([0.0] * VOCABULARY + [-40.0] * 3))
    found = sequence_divergences(first, loaded(wide, words, "wide"), PROMPTS, LONGEST, per_prompt=4)
    for name, series in expected.items():
        assert found[name].per_sequence() == pytest.approx(series.per_sequence(), abs=1e-5), name
    with torch.no_grad():
        wide.lm_head.bias[-1] = 5.0
    with pytest.raises(ModelError, match=r"wrote the token ids \[7\], which are padding beyond the 5 tokens"):
        sequence_divergences(first, loaded(wide, words, "wide"), PROMPTS, LONGEST, per_prompt=4)


def test_rows_whose_prompts_count_are_refused(words: Any) -> None:
    first, second = pair("llama", words)
    rules = Rules(layout_of(first.model, words), 8, torch.device("cpu"))
    sides = [Party(ScoredModel(side.model), side.fingerprint) for side in (first, second)]
    rows = [replace(row, prompt_counted=(True,) * len(row.prompt)) for row in rows_of(PROMPTS)]
    with pytest.raises(ValueError, match=r"found 255 whose prompt does too \(first: 'short'\)"):
        compare(rows, sides[0], sides[1], Alignment(None, VOCABULARY), rules)
    with pytest.raises(ValueError, match="the answer alone counts"):
        log_probs(rows, sides[0], rules)


def test_models_that_cannot_be_compared_are_refused(words: Any) -> None:
    first, second = pair("llama", words)
    with pytest.raises(ModelError, match="one of first and second is an encoder-decoder"):
        sequence_divergences(first, pair("t5", words)[1], PROMPTS, LONGEST)
    second.model.generation_config.eos_token_id = [END, 4]
    with pytest.raises(ModelError, match=r"end a completion with different tokens \(\[2\] and \[2, 4\]\)"):
        sequence_divergences(first, second, PROMPTS, LONGEST)
    first.model.train()
    with pytest.raises(ModelError, match="first is in training mode"):
        sequence_divergences(first, second, PROMPTS, LONGEST)
