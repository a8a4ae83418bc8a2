"""Divergences and the objective against hand-computed and float64 values."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from potstill.batch import Dense, TokenBatch
from potstill.config.objective import ObjectiveConfig
from potstill.config.terms import CrossEntropy, ForwardKL
from potstill.losses.divergences import cross_entropy, forward_kl
from potstill.losses.head import Head, weighted_sums
from potstill.losses.objective import Objective


def logits(rows: int, columns: int, seed: int, scale: float = 3.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(rows, columns, generator=generator, dtype=torch.float64)


def log_softmax(values: Tensor) -> Tensor:
    return torch.log_softmax(values, -1)


def soft_objective(temperature: float, weight: float = 1.0, chunk: int = 512) -> Objective:
    term = ForwardKL(kind="forward_kl", weight=weight, on=("teacher",), divergence_temperature=temperature)
    return Objective(ObjectiveConfig(terms=(term,), chunk_positions=chunk))


def softened(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 KL at T, summed, through the objective's own code."""
    ids = torch.zeros(len(student), dtype=torch.long)
    values = soft_objective(temperature).values(student, ids, Dense(log_softmax(teacher), "t"), 0, len(student))
    return next(iter(values.values())).sum()


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


def test_dense_targets_can_be_softened_after_the_fact() -> None:
    z = logits(3, 8, 10)
    dense = Dense(log_softmax(z), "t")
    torch.testing.assert_close(dense.log_probs(0, 3, 2.5), log_softmax(z / 2.5).float(), rtol=1e-5, atol=1e-5)


def problem(rows: int = 37) -> tuple[Tensor, Head, Tensor, dict[str, Tensor], Dense, ObjectiveConfig]:
    generator = torch.Generator().manual_seed(11)
    hidden = torch.randn(rows, 8, generator=generator, dtype=torch.float64).float()
    weight = torch.randn(23, 8, generator=generator).requires_grad_()
    ids = torch.randint(0, 23, (rows,), generator=generator)
    terms = (
        ForwardKL(kind="forward_kl", weight=0.6, on=("teacher",), divergence_temperature=2.0),
        CrossEntropy(kind="cross_entropy", weight=0.4, on=("teacher",)),
    )
    weights = {term.name: torch.rand(rows, generator=generator) for term in terms}
    targets = Dense(log_softmax(logits(rows, 23, 12)).float(), "t")
    return hidden.requires_grad_(), Head(weight), ids, weights, targets, ObjectiveConfig(terms=terms)


def gradients(chunk: int) -> tuple[float, Tensor, Tensor]:
    hidden, head, ids, weights, targets, config = problem()
    objective = Objective(config.model_copy(update={"chunk_positions": chunk}))
    sums, _ = weighted_sums(hidden, head, ids, weights, targets, objective)
    loss = objective.total(sums, objective.weights())
    loss.backward()
    assert hidden.grad is not None and head.weight.grad is not None
    return loss.item(), hidden.grad, head.weight.grad


def test_chunks_change_neither_value_nor_gradient() -> None:
    whole = gradients(1000)
    for chunk in (1, 5, 36, 37):
        cut = gradients(chunk)
        assert cut[0] == pytest.approx(whole[0], rel=1e-6)
        torch.testing.assert_close(cut[1], whole[1], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(cut[2], whole[2], rtol=1e-5, atol=1e-5)


def test_the_head_matches_a_slow_float64_twin() -> None:
    hidden, head, ids, weights, targets, config = problem()
    z = hidden.detach().double() @ head.weight.detach().double().T
    p = torch.softmax(targets.values.double() / 2, -1)
    soft = 4 * (p * (p.log() - torch.log_softmax(z / 2, -1))).sum(-1)
    hard = -torch.log_softmax(z, -1)[torch.arange(len(ids)), ids]
    expected = 0.6 * (soft * weights["forward_kl_T2"]).sum() + 0.4 * (hard * weights["cross_entropy"]).sum()
    objective = Objective(config)
    sums, values = weighted_sums(hidden, head, ids, weights, targets, objective)
    assert objective.total(sums, objective.weights()).item() == pytest.approx(float(expected), rel=1e-5)
    torch.testing.assert_close(values["forward_kl_T2"].double(), soft, rtol=1e-4, atol=1e-5)


def test_memory_of_the_head_is_bounded_by_the_chunk() -> None:
    """No tensor of [N, V] is ever made: the largest output of any operation is [chunk, V]."""
    from torch.utils._python_dispatch import TorchDispatchMode

    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            nonlocal largest
            result = func(*args, **(kwargs or {}))
            if isinstance(result, Tensor) and result.ndim == 2 and result.shape[1] == 23:
                largest = max(largest, result.shape[0])
            return result

    hidden, head, ids, weights, targets, config = problem(rows=200)
    objective = Objective(config.model_copy(update={"chunk_positions": 25}))
    with Watch():
        sums, _ = weighted_sums(hidden, head, ids, weights, targets, objective)
        objective.total(sums, objective.weights()).backward()
    assert largest == 25


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
        soft_objective(1.0).values(torch.zeros(1, 3), torch.zeros(1, dtype=torch.long), None, 0, 1)
