"""What a cache costs and what it loses: bytes a token, and its losses and gradients beside the teacher's own.

Measured on some of the cached rows, read back from the disk, with the student of the
run. The method is that of `benchmarks/sparse.py`, and the yardstick is the teacher's
whole distribution.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from potstill.batch import TokenBatch
from potstill.config.objective import ObjectiveConfig
from potstill.config.terms import ForwardKL
from potstill.data.cache_index import row_keys
from potstill.data.collate import Layout, Row, collate
from potstill.data.targets_cache import TargetsCache
from potstill.head import Head
from potstill.losses.fused import weighted_sums
from potstill.losses.objective import Objective
from potstill.models.scored import ScoredModel
from potstill.targets import FinalHidden, Kept, Sampled, TeacherTargets
from potstill.training.caching import in_form

#: What DistillKit's documentation states for its own caches: k = 50 and k = 128.
DISTILLKIT_BYTES = (114.0, 300.0)
#: For the test of bias: rows until there are so many positions, and how often their targets are drawn anew.
BIAS_POSITIONS, REDRAWS = 64, 40


@dataclass(frozen=True)
class Probe:
    """Some cached rows, what the teacher says of them in full, and what the cache says."""

    rows: list[Row]
    batch: TokenBatch
    whole: FinalHidden
    cached: TeacherTargets

    @property
    def counts(self) -> list[int]:
        return [int(count) for count in self.batch.counted.sum(1)]


@torch.no_grad()
def probe(
    cache: TargetsCache, teacher: ScoredModel, rows: Sequence[Row], layout: Layout, wanted: int, device: torch.device
) -> Probe:  # fmt: skip
    """`wanted` of the rows, chosen by their keys."""
    keys = row_keys(rows)
    order = np.lexsort((keys["low"], keys["high"]))
    chosen = [rows[i] for i in order[:wanted]]
    batch = collate([row.as_teacher_saw_it for row in chosen], layout).to(device)
    header = cache.header
    hidden = teacher.hidden(batch)
    whole = FinalHidden(hidden, teacher.head(), header.fingerprint, header.width, header.shared)
    asked = collate(chosen, layout).to(device)  # the student reads its own prompt
    return Probe(chosen, asked, whole, cache.targets(cache.places(chosen)))


def report(cache: TargetsCache, student: ScoredModel, found: Probe, config: ObjectiveConfig) -> dict[str, Any]:
    """All figures, plain values."""
    compared = comparing(config)
    exact, cached = (gradients(student, found, targets, compared) for targets in (found.whole, found.cached))
    return cost(cache, found) | {
        "terms": compared.names,
        "forward_kl": value_error(student, found, cache.header.temperature or 1.0),
        "gradient": gradient_error(exact, cached),
        "gradient_bias": gradient_bias(cache, student, found, compared),
    }


def cost(cache: TargetsCache, found: Probe) -> dict[str, Any]:
    """What the cache is and what it takes."""
    made: dict[str, Any] = {
        "format": cache.header.format,
        "settings": cache.header.settings,
        "temperature": cache.header.temperature,
        "rows": cache.num_rows,
        "positions": cache.num_positions,
        "bytes_per_token": cache.num_bytes / max(1, cache.num_positions),
        "bytes_of_the_head_once": cache.head_bytes,
        "distillkit_bytes_per_token": list(DISTILLKIT_BYTES),
        "probe": {"rows": len(found.rows), "positions": found.batch.num_counted},
    }
    if isinstance(found.cached, Kept):
        made["kept_mass"] = float((1 - found.cached.tail_mass).mean())
    if isinstance(found.cached, Kept | Sampled):
        made["entries_per_position"] = sum(s.facts.entries for s in cache.shards) / max(1, cache.num_positions)
    return made


def comparing(config: ObjectiveConfig) -> Objective:
    """The objective's comparisons with the teacher alone, on all rows, each at its largest weight."""
    terms = [
        term.model_copy(update={"weight": term.largest_weight, "on": ("any",), "token_weighting": None})
        for term in config.active
        if term.compares_with_teacher
    ]
    terms = terms or [ForwardKL(kind="forward_kl", weight=1.0, on=("any",))]
    return Objective(config.model_copy(update={"terms": tuple(terms), "normalise": "token"}))


@torch.no_grad()
def value_error(student: ScoredModel, found: Probe, temperature: float) -> dict[str, float]:
    """Forward KL at each position, from the cache and exact: nats, without the factor T squared."""
    term = ForwardKL(kind="forward_kl", weight=1.0, on=("any",), divergence_temperature=temperature)
    objective = Objective(ObjectiveConfig(terms=(term,)))
    data = objective.weigh(found.batch)
    exact, cached = (
        student(replace(data, targets=said), objective).values[term.name].double() / temperature**2
        for said in (found.whole, found.cached)
    )
    error = cached - exact
    return {
        "exact": float(exact.mean()),
        "mean_absolute_error": float(error.abs().mean()),
        "largest_error": float(error.abs().max()),
        "bias": float(error.mean()),
        "standard_error": float(error.std() / math.sqrt(len(error))),
    }


def gradients(student: ScoredModel, found: Probe, targets: TeacherTargets, objective: Objective) -> list[Tensor]:
    """Of the mean over the probe's positions, with respect to all trained parameters."""
    trained = [p for p in student.parameters() if p.requires_grad]
    data = objective.weigh(found.batch)
    scored = student(replace(data, targets=targets), objective)
    made = torch.autograd.grad(scored.total / data.num_counted, trained, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for g, p in zip(made, trained, strict=True)]


def gradient_error(exact: Sequence[Tensor], cached: Sequence[Tensor]) -> dict[str, float]:
    """Angle, ratio of lengths, and length of the difference relative to the exact one's."""
    inner, whole, other, apart = 0.0, 0.0, 0.0, 0.0
    for a, b in zip(exact, cached, strict=True):  # in float64, one tensor at a time
        a, b = a.double(), b.double()
        inner += float((a * b).sum())
        whole += float(a.square().sum())
        other += float(b.square().sum())
        apart += float((b - a).square().sum())
    cosine = inner / math.sqrt(whole * other)
    return {
        "cosine": cosine,
        "degrees": math.degrees(math.acos(max(-1.0, min(1.0, cosine)))),
        "length_ratio": math.sqrt(other / whole),
        "relative_difference": math.sqrt(apart / whole),
    }


def gradient_bias(
    cache: TargetsCache, student: ScoredModel, found: Probe, objective: Objective, redraws: int = REDRAWS
) -> dict[str, Any]:  # fmt: skip
    """How far the mean gradient lies from the exact one, relative to its length; of hidden states, some rows.

    Sampled targets are drawn anew with other seeds; `noise` is how far their mean would lie if there were no
    bias, so a bias shows as `distance` well above `noise`. The other formats are always the same, and all their
    distance is bias.
    """
    with torch.no_grad():
        states, head = student.hidden(found.batch), student.head()
    head = replace(head, weight=head.weight.detach(), bias=None if head.bias is None else head.bias.detach())
    ids = found.batch.target_ids[found.batch.counted]
    ends = np.cumsum(found.counts)
    few = min(len(ends), int(np.searchsorted(ends, BIAS_POSITIONS)) + 1)
    rows, counts, positions = found.rows[:few], found.counts[:few], int(ends[few - 1])

    def gradient(targets: TeacherTargets) -> Tensor:
        return _of_hidden(states[:positions], head, ids[:positions], targets, objective)

    whole = found.whole.rows(0, positions)
    exact = gradient(whole)
    if not isinstance(found.cached, Sampled):
        distance = float((gradient(found.cached.rows(0, positions)) - exact).norm() / exact.norm())
        return {"positions": positions, "distance": distance, "noise": 0.0, "redraws": 1}
    total, squares = torch.zeros_like(exact), 0.0
    for i in range(redraws):
        drawn = in_form(cache.header, whole, ids[:positions], rows, counts, cache.header.settings["seed"] + 1 + i)
        difference = gradient(drawn) - exact
        total += difference
        squares += float(difference.square().sum())
    mean = total / redraws
    variance = max(0.0, squares / redraws - float(mean.square().sum())) * redraws / (redraws - 1)
    return {
        "positions": positions,
        "distance": float(mean.norm() / exact.norm()),
        "noise": math.sqrt(variance / redraws) / float(exact.norm()),
        "redraws": redraws,
    }


def _of_hidden(states: Tensor, head: Head, ids: Tensor, targets: TeacherTargets, objective: Objective) -> Tensor:
    """Of the undivided total, with respect to hidden states [n, D]; float64."""
    states = states.detach().clone().requires_grad_()
    ones = {name: torch.ones(len(states), device=states.device) for name in objective.names}
    weighted_sums(states, head, ids, ones, targets, objective).total.backward()
    assert states.grad is not None
    return states.grad.double()
