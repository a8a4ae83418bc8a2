"""The monitor: how far the student is from the teacher, and from what is not the teacher.

Frozen models' answers to the held-out prompts are sampled once and kept with their
last hidden states, so that an evaluation costs one student pass over each set:

    teacher's samples    -> proxy (the run's objective), proxy_fkl (forward KL at temperature 1)
    oracle's samples     -> golden, forward KL to the oracle
    or the references    -> golden, negative log-likelihood of the reference

The teacher's own golden is measured once, as the line that perfect imitation ends at.
Reverse KL and Jensen-Shannon need the student's own samples, and have a slower clock: `sequences.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from potstill.batch import TokenBatch
from potstill.config.objective import ObjectiveConfig
from potstill.config.terms import CrossEntropy, ForwardKL, RowKind
from potstill.data.collate import Layout, Row, collate, cut_by_length
from potstill.losses.objective import Objective
from potstill.metrics.sequence import measured, row_counts, row_sums
from potstill.models.scored import ScoredModel
from potstill.models.vocabulary import Alignment
from potstill.records import EvaluationRecord, Measured, Split
from potstill.training.parallel import World, in_turns
from potstill.training.sequences import Sequences

EVERYWHERE: tuple[RowKind, ...] = ("reference", "teacher", "corpus")


@dataclass(frozen=True)
class Judge:
    """A frozen model whose samples, or whose opinion of them, the student is held against."""

    scored: ScoredModel
    alignment: Alignment
    fingerprint: str


@dataclass
class FrozenSet:
    """Rows that never change, in batches, with what a frozen model says about them."""

    batches: list[TokenBatch]
    rows: int

    @classmethod
    def of(cls, rows: Sequence[Row], layout: Layout, batch_rows: int, judge: Judge | None,
           device: torch.device) -> FrozenSet:  # fmt: skip
        """Collate `rows` by length and keep `judge`'s hidden states on them."""
        cuts = cut_by_length(rows, batch_rows)
        batches = [collate(cut, layout) for cut in cuts]
        if judge is not None:
            for batch, cut in zip(batches, cuts, strict=True):
                seen = collate([row.as_teacher_saw_it for row in cut], layout).to(device)
                said = judge.scored.targets(seen, judge.alignment, judge.fingerprint)
                batch.targets = said.to(torch.device("cpu"))
        return cls(batches, len(rows))


class Monitor:
    """Evaluates a student on frozen sets; holds no state that a resume would need."""

    def __init__(
        self,
        objective: Objective,
        proxy_set: FrozenSet,
        fkl_set: FrozenSet,
        golden_set: FrozenSet,
        golden_is_divergence: bool,
        splits: dict[str, Split],
        world: World,
    ):
        self.objective, self.world, self.splits = objective, world, splits
        self.proxy_set, self.fkl_set, self.golden_set = proxy_set, fkl_set, golden_set
        self.golden_is_divergence = golden_is_divergence
        self.proxy_objective = proxy_objective(objective.config)
        self.teacher_series: dict[str, Measured] = {}
        self.sequences: Sequences | None = None  # reverse KL and Jensen-Shannon, where they are asked for

    def measure_teacher(self, teacher: ScoredModel) -> None:
        """The teacher's own golden, and its log-probs of its own samples; once."""
        golden = self._score(teacher, self.golden_set, self._golden_objective())
        self.teacher_series |= {f"teacher_{name}": found for name, found in self._golden(golden).items()}
        if _hard_terms(self.proxy_objective):
            likelihood = self._score(teacher, self.proxy_set, simple("cross_entropy", self.objective.config))
            self._own_likelihood = likelihood["cross_entropy"]

    def evaluate(self, student: nn.Module, step: int, scalars: dict[str, float]) -> EvaluationRecord:
        """One EvaluationRecord; every process must call it."""
        shared = self.proxy_set is self.fkl_set
        wanted = self.proxy_objective
        if shared:
            wanted = with_fkl(wanted)
        values = self._score(student, self.proxy_set, wanted)
        series = {"proxy": self._proxy(values)}
        if not shared:
            values = self._score(student, self.fkl_set, simple("forward_kl", self.objective.config))
        series["proxy_fkl"] = values["forward_kl"]
        golden = self._score(student, self.golden_set, self._golden_objective())
        series |= self._golden(golden)
        if self.sequences is not None and self.sequences.due(step):
            series |= self.sequences.measure(student, step)
        return EvaluationRecord(step, series | self.teacher_series, self.splits, scalars)

    def _golden_objective(self) -> Objective:
        likelihood = simple("cross_entropy", self.objective.config)
        return with_fkl(likelihood) if self.golden_is_divergence else likelihood

    def _golden(self, values: dict[str, Measured]) -> dict[str, Measured]:
        """Golden by name; with an oracle its samples are references too, as people without one would have them."""
        if not self.golden_is_divergence:
            return {"golden": values["cross_entropy"]}
        return {"golden": values["forward_kl"], "reference_nll": values["cross_entropy"]}

    def _proxy(self, values: dict[str, Measured]) -> Measured:
        """The weighted objective; the teacher's own log-probs are taken off cross-entropy, so that
        perfect imitation is 0 there too."""
        weights = self.proxy_objective.weights()
        any_term = next(iter(values.values()))
        sums = np.sum([weight * values[name].sums for name, weight in weights.items()], axis=0)
        for name in _hard_terms(self.proxy_objective):
            sums = sums - weights[name] * self._own_likelihood.sums
        return replace(any_term, sums=sums)

    @torch.no_grad()
    def _score(self, model: nn.Module, frozen: FrozenSet, objective: Objective) -> dict[str, Measured]:
        """Term -> nats and tokens per row, in the set's order. Processes share the batches."""

        def work(i: int) -> dict[str, tuple[list[float], list[int]]]:
            batch = objective.weigh(frozen.batches[i].to(self.world.device))
            scored = model(batch, objective)
            counts = row_counts(batch).tolist()
            return {name: (row_sums(v, batch).tolist(), counts) for name, v in scored.values.items()}

        found = in_turns(self.world, len(frozen.batches), work)
        ids = [name for batch in frozen.batches for name in batch.prompt_ids]
        return {
            name: measured(
                ids,
                [x for part in found for x in part[name][0]],
                [x for part in found for x in part[name][1]],
            )
            for name in objective.names
        }


def simple(kind: str, config: ObjectiveConfig) -> Objective:
    """One term at weight 1 and temperature 1 on all rows."""
    term: CrossEntropy | ForwardKL
    if kind == "cross_entropy":
        term = CrossEntropy(kind="cross_entropy", weight=1.0, on=EVERYWHERE)
    else:
        term = ForwardKL(kind="forward_kl", weight=1.0, on=EVERYWHERE)
    return Objective(config.model_copy(update={"terms": (term,), "normalise": "token"}))


def proxy_objective(config: ObjectiveConfig) -> Objective:
    """The ruler of the proxy: what the run minimises against the teacher, and the same at every step.

    The terms that compare with the teacher or learn from its text, on all rows of the
    proxy's set, each at the mean of its weight over the run, every token weighing the
    same. Terms whose unit is not nats cannot be added to those and are left out; forward
    KL stands in where nothing is left.
    """
    plain = {"on": EVERYWHERE, "token_weighting": None}
    terms = tuple(
        t.model_copy(update=plain | {"weight": t.mean_weight()})
        for t in config.active
        if t.in_nats and (t.compares_with_teacher or t.applies_to("teacher"))
    )
    if not terms:
        return simple("forward_kl", config)
    return Objective(config.model_copy(update={"terms": terms, "normalise": "token"}))


def with_fkl(objective: Objective) -> Objective:
    """The same with forward KL at temperature 1 beside it, if it is not there already."""
    if "forward_kl" in objective.names:
        return objective
    extra = ForwardKL(kind="forward_kl", weight=1.0, on=EVERYWHERE)
    return Objective(objective.config.model_copy(update={"terms": (*objective.config.terms, extra)}))


def _hard_terms(objective: Objective) -> list[str]:
    return [term.name for term in objective.terms if isinstance(term, CrossEntropy)]
