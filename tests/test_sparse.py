"""Kept and sampled targets: what they are made of, what is refused, and which of them are unbiased."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT
from scipy.stats import ttest_1samp
from torch import Tensor

from potstill.config.objective import ObjectiveConfig
from potstill.head import Head
from potstill.losses import Objective
from potstill.losses.fused import weighted_sums
from potstill.losses.sparse import UNDEFINED, draw, form, keep_top
from potstill.targets import Dense, Kept, Sampled, TeacherTargets

N, V = 24, 60
KINDS = (
    "forward_kl", "reverse_kl", "jensen_shannon", "skew_forward_kl", "skew_reverse_kl", "total_variation", "logit_mse",
)  # fmt: skip


def distributions(seed: int, scale: float = 2.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.log_softmax(scale * torch.randn(N, V, generator=generator, dtype=torch.float64), -1)


def uniforms(seed: int, draws: int) -> Tensor:
    return torch.rand(N, draws, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def objective(kind: str = "forward_kl", **settings: Any) -> Objective:
    term = {"kind": kind, "weight": 1.0, "on": ["teacher"], **settings}
    return Objective(ObjectiveConfig.model_validate({"terms": [term]}))


def through(targets: TeacherTargets, student: Tensor, made: Objective | None = None) -> tuple[Tensor, Tensor]:
    """([N] values, [N, V] gradient of their sum with respect to the student's logits)."""
    made = made or objective()
    logits = student.clone().requires_grad_()
    head, name = Head(torch.eye(V, dtype=student.dtype)), made.names[0]
    ones = {name: torch.ones(N, dtype=student.dtype)}
    scored = weighted_sums(logits, head, torch.zeros(N, dtype=torch.long), ones, targets, made)
    scored.total.backward()
    assert logits.grad is not None
    return scored.values[name], logits.grad


def every_form() -> dict[str, TeacherTargets]:
    p = distributions(0)
    made: list[TeacherTargets] = [
        Dense(p, "t"), keep_top(p, 5, "tail", "t"), keep_top(p, 5, "renormalised", "t"), draw(p, uniforms(1, 9), "t"),
    ]  # fmt: skip
    return {form(targets): targets for targets in made}


@pytest.mark.parametrize("name", UNDEFINED)
@pytest.mark.parametrize("kind", KINDS)
def test_the_table_is_what_happens(name: str, kind: str) -> None:
    targets, student = every_form()[name], distributions(2)
    if kind in UNDEFINED[name]:
        with pytest.raises(ValueError, match=f"{kind}.* is not defined for targets that are {name}"):
            through(targets, student, objective(kind))
    else:
        values, gradient = through(targets, student, objective(kind))
        assert torch.isfinite(values).all() and torch.isfinite(gradient).all() and float(gradient.norm()) > 0


@pytest.mark.parametrize("name", UNDEFINED)
def test_weighting_by_entropy_needs_the_entropy(name: str) -> None:
    weighed = objective(token_weighting={"kind": "teacher_entropy", "half_at_nats": 1.0})
    if "teacher_entropy" in UNDEFINED[name]:
        with pytest.raises(ValueError, match="do not tell the entropy"):
            through(every_form()[name], distributions(2), weighed)
    else:
        assert torch.isfinite(through(every_form()[name], distributions(2), weighed)[1]).all()


def test_the_table_of_the_guide_is_the_table_of_the_code() -> None:
    page = (ROOT / "docs" / "guide" / "objectives.md").read_text()
    for name, reasons in UNDEFINED.items():
        row = next(line for line in page.splitlines() if line.startswith(f"| {name} |"))
        cells = [cell.strip() for cell in row.split("|")[2:-1]]
        assert cells == ["no" if kind in reasons else "yes" for kind in (*KINDS, "teacher_entropy")], name


def test_a_parametrised_divergence_at_its_end_is_refused_like_the_plain_one() -> None:
    kept = every_form()["kept, renormalised"]
    ends: list[tuple[str, dict[str, Any]]] = [
        ("jensen_shannon", {"teacher_weight": 1.0, "normalised": True}), ("skew_reverse_kl", {"student_share": 0.0}),
    ]  # fmt: skip
    for kind, settings in ends:
        with pytest.raises(ValueError, match="infinite; keep a tail"):
            through(kept, distributions(2), objective(kind, **settings))


def test_temperatures_that_cannot_be_moved_are_refused() -> None:
    forms, hot = every_form(), objective(divergence_temperature=2.0)
    for name in ("kept with a tail", "sampled"):
        with pytest.raises(ValueError, match="wants temperature 2, and these targets were made at 1"):
            through(forms[name], distributions(2), hot)
    assert torch.isfinite(through(forms["kept, renormalised"], distributions(2), hot)[0]).all()
    p = distributions(0)
    at_two = torch.log_softmax(p / 2, -1)
    found = through(keep_top(at_two, V, "tail", "t", temperature=2.0), distributions(2), hot)
    for fast, whole in zip(found, through(Dense(p, "t"), distributions(2), hot), strict=True):
        torch.testing.assert_close(fast, whole, rtol=1e-9, atol=1e-12)
    weighed = objective(divergence_temperature=2.0, token_weighting={"kind": "teacher_entropy", "half_at_nats": 1.0})
    with pytest.raises(ValueError, match="drawn at 2"):
        through(draw(at_two, uniforms(1, 9), "t", 2.0), distributions(2), weighed)


def test_what_was_kept() -> None:
    p = distributions(0)
    observed = torch.arange(N) % V
    kept = keep_top(p, 3, "tail", "t", observed)
    assert kept.ids.shape == (N, 4)
    for i in range(N):
        ids = kept.ids[i][kept.valid[i]].tolist()
        assert len(set(ids)) == len(ids) and int(observed[i]) in ids
        assert float(kept.log_probs[i][kept.valid[i]].exp().sum() + kept.tail_mass[i]) == pytest.approx(1, abs=1e-12)
    assert not kept.valid.all()  # some observed tokens are among the largest


def test_everything_kept_is_the_whole_distribution() -> None:
    p, student = distributions(0), distributions(2)
    for kind in KINDS[:-1]:
        whole = through(Dense(p, "t"), student, objective(kind))
        for missing in ("tail", "renormalised"):
            if missing == "renormalised" and kind == "reverse_kl":
                continue
            found = through(keep_top(p, V, missing, "t"), student, objective(kind))
            for fast, slow in zip(found, whole, strict=True):
                torch.testing.assert_close(fast, slow, rtol=1e-9, atol=1e-12)


def test_a_tail_bucket_is_a_lower_bound_that_grows_with_what_is_kept() -> None:
    p, student = distributions(0), distributions(2)
    for kind in KINDS[:-1]:
        bounds = [through(keep_top(p, k, "tail", "t"), student, objective(kind))[0] for k in (1, 4, 16, V)]
        for smaller, larger in itertools.pairwise(bounds):
            assert (smaller <= larger + 1e-12).all()


def test_where_each_form_comes_to_rest() -> None:
    """A student that is the teacher: no pull from a tail bucket, an upward one from renormalised targets.

    Renormalised top-k wants probabilities that are too large by 1 / kept mass.
    """
    p = distributions(0)
    value, gradient = through(keep_top(p, 5, "tail", "t"), p)
    assert float(value.abs().max()) < 1e-12 and float(gradient.abs().max()) < 1e-12
    kept = keep_top(p, 5, "renormalised", "t")
    value, gradient = through(kept, p)
    mass = 1 - kept.tail_mass
    torch.testing.assert_close(value, -mass.log(), rtol=1e-10, atol=1e-12)
    pull = gradient.gather(-1, kept.ids)
    torch.testing.assert_close(pull, kept.log_probs.exp() * (1 - 1 / mass)[:, None], rtol=1e-9, atol=1e-12)
    assert (pull < 0).all()


def test_draws_are_the_inverse_of_the_cumulative_distribution() -> None:
    p = torch.tensor([[0.5, 0.25, 0.25]], dtype=torch.float64).log()
    found = draw(p, torch.tensor([[0.0, 0.49, 0.5, 0.74, 0.75, 0.9999]]), "t")
    assert found.ids.tolist() == [[0, 1, 2]] and found.counts.tolist() == [[2, 2, 2]] and found.draws == 6
    assert found.entropy.item() == pytest.approx(1.5 * np.log(2))


def test_draws_do_not_depend_on_the_rest_of_the_batch() -> None:
    p, u = distributions(0), uniforms(1, 30)
    whole, part = draw(p, u, "t"), draw(p[5:7], u[5:7], "t")
    for i in range(2):
        there = part.counts[i] > 0
        assert part.ids[i][there].tolist() == whole.ids[5 + i][whole.counts[5 + i] > 0].tolist()
        assert part.counts[i][there].tolist() == whole.counts[5 + i][whole.counts[5 + i] > 0].tolist()


def holm(p_values: np.ndarray) -> float:
    """The smallest of several p-values, corrected for being the smallest (Holm 1979)."""
    ordered = np.sort(p_values)
    return float(np.maximum.accumulate(ordered * np.arange(len(ordered), 0, -1)).clip(max=1)[0])


def bias(estimate: Callable[[int], tuple[Tensor, Tensor]], repeats: int) -> tuple[float, float]:
    """Corrected p-values that the mean gradient, along 20 fixed directions, and the mean value are the exact ones."""
    p, student = distributions(0), distributions(2)
    value, gradient = through(Dense(p, "t"), student)
    directions = torch.randn(20, N * V, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    found = [estimate(seed) for seed in range(repeats)]
    along = torch.stack([directions @ (g - gradient).flatten() for _, g in found]).numpy()
    values = torch.stack([(v - value).mean() for v, _ in found]).numpy()
    return holm(ttest_1samp(along, 0).pvalue), float(ttest_1samp(values, 0).pvalue)


def test_sampled_targets_are_unbiased_in_value_and_gradient() -> None:
    p, student = distributions(0), distributions(2)
    smallest, of_value = bias(lambda seed: through(draw(p, uniforms(seed, 12), "t"), student), 1000)
    assert smallest > 0.05 and of_value > 0.05


def test_the_test_of_bias_sees_a_bias() -> None:
    """Counting every different token once, instead of as often as it was drawn: a plausible fault."""
    p, student = distributions(0), distributions(2)

    def once(seed: int) -> tuple[Tensor, Tensor]:
        drawn = draw(p, uniforms(seed, 12), "t")
        share = (drawn.counts > 0).double() / (drawn.counts > 0).sum(-1, keepdim=True)
        wrong = torch.zeros_like(p).scatter_add_(-1, drawn.ids, share)
        return through(Dense(wrong.log(), "t"), student)

    smallest, of_value = bias(once, 200)
    assert smallest < 1e-6 and of_value < 1e-6


def test_the_value_without_the_teachers_entropy_would_be_biased() -> None:
    """sum of c/n log(c/n / q), the obvious estimate, is too large by about (different tokens - 1) / 2n."""
    p, student = distributions(0), distributions(2)

    def obvious(seed: int) -> tuple[Tensor, Tensor]:
        drawn = draw(p, uniforms(seed, 12), "t")
        share = drawn.counts.double() / drawn.draws
        own = -(share * share.clamp(min=1e-300).log()).sum(-1)
        value, gradient = through(drawn, student)
        return value + drawn.entropy - own, gradient

    smallest, of_value = bias(obvious, 200)
    assert smallest > 0.05 and of_value < 1e-6


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Kept(torch.zeros(1, 1).long(), torch.zeros(1, 1), torch.zeros(1), "x", "t"), "no default"),  # type: ignore[arg-type]
        (lambda: Kept(torch.zeros(1, 1).long(), torch.full((1, 1), -torch.inf), torch.ones(1), "tail", "t"),
         "at least one entry"),
        (lambda: Kept(torch.zeros(1, 1).long(), torch.ones(1, 1), torch.ones(1), "tail", "t"), "at most 0"),
        (lambda: Sampled(torch.zeros(1, 1).long(), torch.full((1, 1), 3), 5, torch.ones(1), "t"),
         "must sum to 5 draws, found 3"),
    ],
)  # fmt: skip
def test_targets_that_cannot_be_right_are_refused(make: Callable[[], object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()
