"""Divergences between the laws of any two models over whole completions, on prompts of your choice.

Each model answers the prompts at temperature 1 over its whole vocabulary, and both say
what they think of every answer. Where single tokens suffice (k1, k3, Jensen-Shannon),
only their log-probs are kept; the KLs take both whole distributions, a few positions at
a time, so that no tensor of rows, positions and vocabulary ever exists. The estimators
and what is proven of them are in `metrics/estimators.py`.

Random numbers are keyed by seed, stream, prompt, completion and position. Every
checkpoint of a student is sampled with the same numbers, so its curves are paired between
steps; and both models are sampled with the same ones, so that models that nearly agree
write nearly the same completions, which takes noise out of Jensen-Shannon.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from potstill.config.data import Sampling
from potstill.config.objective import ObjectiveConfig
from potstill.config.terms import CrossEntropy, ForwardKL
from potstill.data.collate import Layout, Row, collate, cut_by_length, layout_of
from potstill.generation.base import Request
from potstill.generation.local import LocalSampler, end_ids
from potstill.losses.fused import weighted_sums
from potstill.losses.objective import Objective
from potstill.metrics.estimators import k1, k3, mixture_term
from potstill.metrics.sequence import measured, row_counts, row_sums
from potstill.models.load import Loaded, ModelError
from potstill.models.scored import ScoredModel
from potstill.models.vocabulary import Alignment, align
from potstill.records import Measured

#: (how many, what to do with the i-th) -> results in order; several processes may share the work.
Share = Callable[[int, Callable[[int], dict[str, list[float]]]], list[dict[str, list[float]]]]

TEXT = CrossEntropy(kind="cross_entropy", weight=1.0, on=("any",))
WHOLE = ForwardKL(kind="forward_kl", weight=1.0, on=("any",))


def itself(row: Row) -> Row:
    """The row as it is."""
    return row


def alone(count: int, work: Callable[[int], dict[str, list[float]]]) -> list[dict[str, list[float]]]:
    """One process does all of it."""
    return [work(i) for i in range(count)]


@dataclass(frozen=True)
class Party:
    """One side of a comparison. `sees`: a row as this model is shown it, the answer untouched."""

    scored: ScoredModel
    fingerprint: str
    sees: Callable[[Row], Row] = itself


@dataclass(frozen=True)
class Rules:
    """How rows are put through models: layout, rows of a pass, who computes what, and in which arithmetic."""

    layout: Layout
    batch_rows: int
    device: torch.device
    share: Share = alone
    config: ObjectiveConfig | None = None  # whose head_memory_mb and logits hold; None: the defaults

    def objective(self, *terms: CrossEntropy | ForwardKL) -> Objective:
        """These terms, every counted token of every row weighing 1."""
        base = self.config or ObjectiveConfig(terms=terms)
        return Objective(base.model_copy(update={"terms": terms, "normalise": "token"}))


@dataclass(frozen=True)
class Said:
    """What two models say about completions that one of them wrote; a row each, in the order of `cut_by_length`."""

    prompt_ids: list[str]
    tokens: list[int]
    own: Tensor  # [R] log-prob of the whole completion by the model that wrote it, nats
    other: Tensor  # [R] by the other one
    steps: Tensor  # [R] sum over tokens of KL(own || other) over the vocabulary
    k3_tokens: Tensor  # [R] sum over tokens of k3

    def series(self, values: Tensor) -> Measured:
        """[R] nats per completion, for a record."""
        return measured(self.prompt_ids, values.tolist(), self.tokens)

    def divergences(self, name: str) -> dict[str, Measured]:
        """KL(own || other) by all four estimators, the best under the plain `name`."""
        return {
            name: self.series(self.steps),
            f"{name}_k1": self.series(k1(self.own, self.other)),
            f"{name}_k3": self.series(k3(self.own, self.other)),
            f"{name}_k3_tokens": self.series(self.k3_tokens),
        }


def sequence_divergences(
    first: Loaded, second: Loaded, prompts: Mapping[str, Sequence[int]], max_new_tokens: int, *, per_prompt: int = 1,
    seed: int = 0, stream: str = "sequence-divergences", batch_rows: int = 16, head_memory_mb: float | None = None,
) -> dict[str, Measured]:  # fmt: skip
    """KL(first || second) as `forward_kl`, KL(second || first) as `reverse_kl`, and `jensen_shannon`, nats.

    `prompts`: id -> token ids. Both models answer each `per_prompt` times, in at most
    `max_new_tokens` tokens; what is compared is the laws of answers cut there. `..._k1`,
    `..._k3` and `..._k3_tokens` are other estimators of the KLs. A series has a row for each
    completion (`jensen_shannon` for each of either model), so `Measured.per_sequence()` is the
    estimate. Models decode and score in the type of their weights, where they lie.

    Raises ModelError where the models cannot be compared: other tokens, other ends of a
    completion, an encoder-decoder beside a decoder, different devices, or one in training mode.
    """
    refuse_incomparable(first, second)
    devices = [next(loaded.model.parameters()).device for loaded in (first, second)]
    if devices[0] != devices[1]:
        raise ModelError(f"the models must be on one device, found {devices[0]} and {devices[1]}; move one of them")
    sides = [Party(ScoredModel(loaded.model), loaded.fingerprint) for loaded in (first, second)]
    widths = [side.scored.vocabulary_width for side in sides]
    config = ObjectiveConfig(terms=(TEXT,), head_memory_mb=head_memory_mb)
    rules = Rules(layout_of(first.model, first.tokenizer), batch_rows, devices[0], config=config)
    law = Sampling(max_new_tokens=max_new_tokens)
    requests = [Request(name, i, tuple(ids)) for name, ids in prompts.items() for i in range(per_prompt)]
    halves = []
    for writer, other, loaded, judge in ((0, 1, first, second), (1, 0, second, first)):
        sides[writer].scored.verify_head()
        sampler = LocalSampler(
            loaded.model, loaded.tokenizer, loaded.fingerprint, loaded.revision, "teacher", law, seed, stream,
            slots=batch_rows,
        )  # fmt: skip
        over = align(loaded.tokenizer, judge.tokenizer, widths[writer], widths[other])
        halves.append(compare(sampled_rows(sampler, requests), sides[writer], sides[other], over, rules))
    found = halves[0].divergences("forward_kl") | halves[1].divergences("reverse_kl")
    return found | {"jensen_shannon": jensen_shannon(*halves)}


def jensen_shannon(first: Said, second: Said) -> Measured:
    """Both halves one after the other. Their mean is the divergence where both wrote as many completions of each."""
    terms = torch.cat([mixture_term(half.own, half.other) for half in (first, second)])
    return measured([*first.prompt_ids, *second.prompt_ids], terms.tolist(), [*first.tokens, *second.tokens])


def sampled_rows(
    sampler: LocalSampler, requests: Iterable[Request], asked: Mapping[tuple[str, int], tuple[int, ...]] | None = None
) -> list[Row]:
    """What the sampler's model answers. `asked`: what another model is shown instead, where that is not the prompt."""
    by_name = {(r.prompt_id, r.index): r for r in requests}
    rows = []
    for c in sampler.generate(list(by_name.values())):
        prompt = by_name[(c.prompt_id, c.index)].prompt
        shown = (asked or {}).get((c.prompt_id, c.index))
        rows.append(Row(c.prompt_id, c.index, sampler.provenance, prompt, (False,) * len(prompt), c.token_ids,
                        asked=shown))  # fmt: skip
    return rows


@torch.no_grad()
def compare(rows: Sequence[Row], writer: Party, other: Party, over: Alignment, rules: Rules) -> Said:
    """What `writer`, whose answers the rows hold, and `other` say about them.

    `over`: how the writer's columns lie over the other's. Raises ModelError for a token that
    only one of the models has, ValueError for rows whose prompts count: nobody sampled them.
    """
    _refuse_counted_prompts(rows)
    _refuse_padding(rows, over)
    cuts = cut_by_length(rows, rules.batch_rows)
    parts = rules.share(len(cuts), lambda i: _both(cuts[i], writer, other, over, rules))
    found = {name: [x for part in parts for x in part[name]] for name in ("own", "other", "steps", "k3_tokens")}
    tensors = {name: torch.tensor(values, dtype=torch.float64) for name, values in found.items()}
    ordered = [row for cut in cuts for row in cut]
    return Said([r.prompt_id for r in ordered], [len(r.answer) for r in ordered], **tensors)


@torch.no_grad()
def log_probs(rows: Sequence[Row], party: Party, rules: Rules) -> Tensor:
    """[R] log-prob of each row's whole answer by one model, nats, fp64, in the order of `cut_by_length`."""
    _refuse_counted_prompts(rows)
    cuts, objective = cut_by_length(rows, rules.batch_rows), rules.objective(TEXT)

    def work(i: int) -> dict[str, list[float]]:
        batch = objective.weigh(collate([party.sees(row) for row in cuts[i]], rules.layout).to(rules.device))
        return {"own": row_sums(-party.scored(batch, objective).values[TEXT.name], batch).tolist()}

    values = [x for part in rules.share(len(cuts), work) for x in part["own"]]
    return torch.tensor(values, dtype=torch.float64)


def _both(cut: Sequence[Row], writer: Party, other: Party, over: Alignment, rules: Rules) -> dict[str, list[float]]:
    """One batch: the writer's body and the other's run once each."""
    text, both = rules.objective(TEXT), rules.objective(TEXT, WHOLE)
    seen = text.weigh(collate([writer.sees(row) for row in cut], rules.layout).to(rules.device))
    hidden, counted = writer.scored.hidden(seen), seen.counted
    weights = {name: value[counted] for name, value in seen.token_weights.items()}
    wrote = weighted_sums(hidden, writer.scored.head(), seen.target_ids[counted], weights, None, text)
    batch = both.weigh(collate([other.sees(row) for row in cut], rules.layout).to(rules.device))
    assert row_counts(batch).tolist() == row_counts(seen).tolist(), "an answer counts the same for both"
    batch.targets = writer.scored.as_targets(hidden, over, writer.fingerprint)
    thought = other.scored(batch, both).values
    own, others = -wrote.values[TEXT.name].double(), -thought[TEXT.name].double()
    values = {"own": own, "other": others, "steps": thought[WHOLE.name], "k3_tokens": k3(own, others)}
    return {name: row_sums(value, batch).tolist() for name, value in values.items()}


def refuse_incomparable(first: Loaded, second: Loaded) -> None:
    """Raise ModelError where two models' completions are not the same kind of thing."""
    if first.is_encoder_decoder != second.is_encoder_decoder:
        raise ModelError(f"one of {first.name} and {second.name} is an encoder-decoder and the other is not")
    for loaded in (first, second):
        if loaded.model.training:
            raise ModelError(f"{loaded.name} is in training mode, where dropout changes its law; call model.eval()")
    refuse_other_ends(first.model, first.tokenizer, second.model, second.tokenizer)


def refuse_other_ends(model: Any, tokenizer: Any, other: Any, other_tokenizer: Any) -> None:
    """Raise ModelError where two models end their completions with different tokens: their laws never meet then."""
    ends, others = sorted(end_ids(model, tokenizer)), sorted(end_ids(other, other_tokenizer))
    if ends != others:
        raise ModelError(
            f"the models end a completion with different tokens ({ends} and {others}), so their whole completions "
            "cannot be compared. Set generation_config.eos_token_id of both to the same ids."
        )


def _refuse_counted_prompts(rows: Sequence[Row]) -> None:
    counted = [row.prompt_id for row in rows if any(row.prompt_counted)]
    if counted:
        raise ValueError(
            f"expected rows where the answer alone counts, found {len(counted)} whose prompt does too (first: "
            f"{counted[0]!r}): a law of completions knows no prompt. Clear their prompt_counted."
        )


def _refuse_padding(rows: Sequence[Row], over: Alignment) -> None:
    if over.shared is None:
        return
    beyond = sorted({token for row in rows for token in row.answer if token >= over.shared})
    if beyond:
        raise ModelError(
            f"a model wrote the token ids {beyond[:5]}, which are padding beyond the {over.shared} tokens that both "
            "models have: the other one gives them no probability, and divergences on whole completions are "
            "infinite. Resize its head with model.resize_token_embeddings(len(tokenizer))."
        )


def per_prompt_means(found: Measured) -> np.ndarray:
    """[P] mean over each prompt's rows, nats per completion: what to take a standard error over."""
    _, where = np.unique(found.prompt_ids, return_inverse=True)
    means: np.ndarray = np.bincount(where, found.sums) / np.bincount(where)
    return means
