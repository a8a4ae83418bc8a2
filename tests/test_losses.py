"""Divergences and the objective against hand-computed and float64 values."""

from __future__ import annotations

import math

import pytest
import torch
from slow_head import slow_values
from torch import Tensor

from potstill.batch import TokenBatch
from potstill.config.objective import ObjectiveConfig
from potstill.config.terms import CrossEntropy, ForwardKL
from potstill.head import Head
from potstill.losses.divergences import cross_entropy, forward_kl
from potstill.losses.fused import weighted_sums
from potstill.losses.objective import Objective
from potstill.targets import Dense


def logits(rows: int, columns: int, seed: int, scale: float = 3.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(rows, columns, generator=generator, dtype=torch.float64)


def log_softmax(values: Tensor) -> Tensor:
    return torch.log_softmax(values, -1)


def soft_objective(temperature: float, weight: float = 1.0) -> Objective:
    term = ForwardKL(kind="forward_kl", weight=weight, on=("teacher",), divergence_temperature=temperature)
    return Objective(ObjectiveConfig(terms=(term,)))


def softened(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 KL at T, summed, through the objective's own code."""
    ids = torch.zeros(len(student), dtype=torch.long)
    (term,) = soft_objective(temperature).terms
    return slow_values(term, student, ids, Dense(log_softmax(teacher), "t")).sum()


def test_forward_kl_by_hand() -> None:
    teacher = torch.tensor([[0.5, 0.25, 0.25]]).log()
    student = torch.tensor([[0.25, 0.5, 0.25]]).log()
    # 0.5 log 2 + 0.25 log 0.5 + 0 = 0.25 log 2
    assert forward_kl(teacher, student).item() == pytest.approx(0.25 * math.log(2), abs=1e-7)


def test_forward_kl_against_a_plain_float64_loop() -> None:
    p, q = log_softmax(logits(5, 11, 0)), log_softmax(logits(5, 11, 1))
    expected = [sum(math.exp(p[i, v]) * (float(p[i, v]) - float(q[i, v])) for v in range(11)) for i in range(5)]
    assert forward_kl(p.float(), q.float()).tolist() == pytest.approx(expected, rel=1e-5)


def test_a_distribution_is_at_distance_exactly_zero_from_itself() -> None:
    for scale in (0.1, 3.0, 40.0):
        p = log_softmax(logits(7, 33, 2, scale).float())
        assert forward_kl(p, p).tolist() == [0.0] * 7


def test_columns_without_teacher_probability_add_nothing_and_have_finite_gradient() -> None:
    teacher = log_softmax(torch.tensor([[1.0, 2.0, -torch.inf]]))
    student = torch.tensor([[1.0, 2.0, 0.5]], requires_grad=True)
    value = forward_kl(teacher, log_softmax(student))
    value.sum().backward()
    # p and q agree on the first two up to q's mass elsewhere: KL is -log of that mass.
    q = log_softmax(student.detach())
    assert value.item() == pytest.approx(-math.log(float(q[0, :2].exp().sum())), abs=1e-6)
    assert student.grad is not None and torch.isfinite(student.grad).all()
    assert float(student.grad[0, 2]) == pytest.approx(float(q[0, 2].exp()), abs=1e-6)


def test_student_without_probability_where_the_teacher_has_some_is_infinite() -> None:
    teacher = log_softmax(torch.tensor([[0.0, 0.0]]))
    student = log_softmax(torch.tensor([[0.0, -torch.inf]]))
    assert forward_kl(teacher, student).item() == math.inf


def test_forward_kl_gradient_is_q_minus_p() -> None:
    teacher = log_softmax(logits(4, 9, 3))
    student = logits(4, 9, 4).requires_grad_()
    forward_kl(teacher, log_softmax(student)).sum().backward()
    expected = log_softmax(student.detach()).exp() - teacher.exp()
    torch.testing.assert_close(student.grad, expected, rtol=0, atol=1e-14)


def test_cross_entropy_value_and_gradient() -> None:
    student = logits(3, 6, 5).requires_grad_()
    ids = torch.tensor([5, 0, 2])
    value = cross_entropy(log_softmax(student), ids)
    value.sum().backward()
    q = torch.softmax(student.detach(), -1)
    assert value.tolist() == pytest.approx([-math.log(float(q[i, t])) for i, t in enumerate(ids)])
    torch.testing.assert_close(student.grad, q - torch.nn.functional.one_hot(ids, 6), rtol=0, atol=1e-14)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 7.0])
def test_softened_kl_has_gradient_t_times_difference(temperature: float) -> None:
    teacher, student = logits(4, 9, 6), logits(4, 9, 7).requires_grad_()
    softened(student, teacher, temperature).backward()
    q = torch.softmax(student.detach() / temperature, -1)
    p = torch.softmax(teacher / temperature, -1)
    # Targets are fp32 by design, hence the tolerance.
    torch.testing.assert_close(student.grad, temperature * (q - p), rtol=1e-5, atol=1e-6)


def test_softened_kl_tends_to_logit_matching() -> None:
    """At high temperature the gradient is (z_S - z_T) / V for centred logits: within 1 % at T = 100."""
    teacher, student = logits(4, 9, 8, 1.0), logits(4, 9, 9, 1.0)
    teacher = teacher - teacher.mean(-1, keepdim=True)
    student = (student - student.mean(-1, keepdim=True)).requires_grad_()
    softened(student, teacher, 100.0).backward()
    expected = (student.detach() - teacher) / 9
    assert student.grad is not None
    error = (student.grad - expected).norm() / expected.norm()
    assert 0 < float(error) < 0.01


def batch(provenance: tuple[str, ...], lengths: tuple[int, ...]) -> TokenBatch:
    longest = max(lengths)
    counted = torch.tensor([[t < n for t in range(longest)] for n in lengths])
    zeros = torch.zeros(len(lengths), longest, dtype=torch.long)
    return TokenBatch(zeros, counted.long(), zeros, counted, provenance, provenance)


def test_terms_apply_only_to_the_rows_they_name() -> None:
    terms = (
        ForwardKL(kind="forward_kl", weight=1.0, on=("teacher", "reference")),
        CrossEntropy(kind="cross_entropy", weight=1.0, on=("reference",)),
    )
    weighed = Objective(ObjectiveConfig(terms=terms)).weigh(batch(("teacher", "reference"), (3, 2)))
    assert weighed.token_weights["forward_kl"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert weighed.token_weights["cross_entropy"].tolist() == [[0, 0, 0], [1, 1, 0]]


def test_normalising_by_sequence_is_weights_of_one_over_length() -> None:
    config = soft_objective(1.0).config.model_copy(update={"normalise": "sequence"})
    objective = Objective(config)
    weighed = objective.weigh(batch(("teacher", "teacher"), (4, 2)))
    assert weighed.token_weights["forward_kl"].tolist() == [[0.25] * 4, [0.5, 0.5, 0, 0]]
    assert objective.denominator([weighed]) == 2
    assert soft_objective(1.0).denominator([weighed]) == 6


def test_a_divergence_without_targets_says_so() -> None:
    with pytest.raises(ValueError, match="needs the teacher's targets"):
        weighted_sums(
            torch.zeros(1, 3), Head(torch.eye(3)), torch.tensor([0]), {"forward_kl": torch.ones(1)}, None,
            soft_objective(1.0),
        )  # fmt: skip
