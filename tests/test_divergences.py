"""Every divergence and temperature against plain float64 sums: value, gradient, zero, limits."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from slow_head import slow_values
from torch import Tensor

from potstill.config.objective import ObjectiveConfig
from potstill.config.terms import AnyTerm
from potstill.head import Head
from potstill.losses import divergences as d
from potstill.losses.fused import weighted_sums
from potstill.losses.objective import Objective
from potstill.targets import Dense

TERM = TypeAdapter(AnyTerm)
Plain = Callable[[list[float], list[float]], float]


def kl(a: list[float], b: list[float]) -> float:
    return sum(x * (math.log(x) - math.log(y)) for x, y in zip(a, b, strict=True))


def mix(w: float, a: list[float], b: list[float]) -> list[float]:
    return [w * x + (1 - w) * y for x, y in zip(a, b, strict=True)]


def jsd(w: float, p: list[float], q: list[float]) -> float:
    m = mix(w, p, q)
    return w * kl(p, m) + (1 - w) * kl(q, m)


def centred_mse(p: list[float], q: list[float]) -> float:
    gaps = [math.log(x) - math.log(y) for x, y in zip(p, q, strict=True)]
    mean = sum(gaps) / len(gaps)
    return sum((g - mean) ** 2 for g in gaps) / len(gaps)


#: settings -> the formula in plain Python on probabilities, and the power of T that multiplies it.
CASES: dict[str, tuple[dict[str, Any], Plain, int]] = {
    "forward_kl": ({}, kl, 2),
    "reverse_kl": ({}, lambda p, q: kl(q, p), 2),
    "jensen_shannon 0.5": ({"teacher_weight": 0.5}, lambda p, q: jsd(0.5, p, q), 2),
    "jensen_shannon 0.1": ({"teacher_weight": 0.1}, lambda p, q: jsd(0.1, p, q), 2),
    "jensen_shannon 0.9 normalised": (
        {"teacher_weight": 0.9, "normalised": True},
        lambda p, q: jsd(0.9, p, q) / 0.09,
        2,
    ),
    "jensen_shannon 0 normalised": ({"teacher_weight": 0.0, "normalised": True}, kl, 2),
    "jensen_shannon 1 normalised": ({"teacher_weight": 1.0, "normalised": True}, lambda p, q: kl(q, p), 2),
    "skew_forward_kl": ({"teacher_share": 0.1}, lambda p, q: kl(p, mix(0.1, p, q)), 2),
    "skew_reverse_kl": ({"student_share": 0.1}, lambda p, q: kl(q, mix(0.1, q, p)), 2),
    "total_variation": ({}, lambda p, q: 0.5 * sum(abs(x - y) for x, y in zip(p, q, strict=True)), 1),
}
TEMPERATURES = [0.5, 1.0, 2.0, 7.0]


def term(case: str, temperature: float = 1.0) -> AnyTerm:
    settings = {"kind": case.split()[0], "weight": 1.0, "on": ["teacher"]}
    if case != "logit_mse":
        settings |= {**CASES[case][0], "divergence_temperature": temperature}
    return TERM.validate_python(settings)


def logits(rows: int, columns: int, seed: int, scale: float = 2.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(rows, columns, generator=generator, dtype=torch.float64)


def by_definition(case: str, teacher: Tensor, student: Tensor, temperature: float = 1.0) -> Tensor:
    """[N] through `divergences.py` and autograd."""
    ids = torch.zeros(len(student), dtype=torch.long)
    return slow_values(term(case, temperature), student, ids, Dense(teacher, "t"))


def by_the_head(case: str, teacher: Tensor, student: Tensor, temperature: float = 1.0) -> Tensor:
    """[N] through the fused head with a matrix that hands logits on; the gradient is the sum's."""
    objective = Objective(ObjectiveConfig(terms=(term(case, temperature),)))
    head = Head(torch.eye(student.shape[1], dtype=student.dtype))
    ids, ones = torch.zeros(len(student), dtype=torch.long), torch.ones(len(student), dtype=student.dtype)
    name = objective.names[0]
    scored = weighted_sums(student, head, ids, {name: ones}, Dense(teacher, "t"), objective)
    return scored.values[name] + (scored.total - scored.total.detach()) / len(student)


Value = Callable[..., Tensor]


@pytest.fixture(params=[by_definition, by_the_head])
def value(request: pytest.FixtureRequest) -> Value:
    """The reference and the fast path, held to the same numbers."""
    return request.param  # type: ignore[no-any-return]


def by_hand(case: str, teacher: Tensor, student: Tensor, temperature: float) -> list[float]:
    _, formula, power = CASES[case]
    p, q = (torch.softmax(z / temperature, -1).tolist() for z in (teacher, student))
    return [temperature**power * formula(a, b) for a, b in zip(p, q, strict=True)]


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("case", CASES)
def test_value(value: Value, case: str, temperature: float) -> None:
    teacher, student = logits(5, 11, 0), logits(5, 11, 1)
    expected = by_hand(case, teacher, student, temperature)
    assert value(case, teacher, student, temperature).tolist() == pytest.approx(expected, rel=1e-10)
    single = value(case, teacher.float(), student.float(), temperature)
    assert single.dtype == torch.float32
    assert single.tolist() == pytest.approx(expected, rel=2e-5, abs=1e-6)


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("case", CASES)
def test_gradient_by_central_differences_of_the_plain_formula(value: Value, case: str, temperature: float) -> None:
    teacher, student = logits(2, 7, 2), logits(2, 7, 3).requires_grad_()
    value(case, teacher, student, temperature).sum().backward()
    assert student.grad is not None
    step = 1e-5
    for row in range(2):
        for column in range(7):
            ends = []
            for sign in (1, -1):
                moved = student.detach().clone()
                moved[row, column] += sign * step
                ends.append(sum(by_hand(case, teacher, moved, temperature)))
            expected = (ends[0] - ends[1]) / (2 * step)
            assert float(student.grad[row, column]) == pytest.approx(expected, rel=1e-5, abs=1e-8)


def analytic(case: str, p: Tensor, q: Tensor) -> Tensor:
    """Closed forms of the gradient with respect to the student's logits, temperature 1."""
    if case == "forward_kl":
        return q - p
    ratio = q.log() - p.log()
    if case == "reverse_kl":
        return q * (ratio - (q * ratio).sum(-1, keepdim=True))
    m = 0.1 * p + 0.9 * q
    return 0.9 * (q * (p / m * q).sum(-1, keepdim=True) - q * p / m)


@pytest.mark.parametrize("case", ["forward_kl", "reverse_kl", "skew_forward_kl"])
def test_gradient_in_closed_form(value: Value, case: str) -> None:
    teacher, student = logits(4, 9, 4), logits(4, 9, 5).requires_grad_()
    value(case, teacher, student).sum().backward()
    expected = analytic(case, torch.softmax(teacher, -1), torch.softmax(student.detach(), -1))
    torch.testing.assert_close(student.grad, expected, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("scale", [0.1, 3.0, 40.0])
@pytest.mark.parametrize("case", CASES)
def test_equality_is_exactly_zero_with_no_gradient(value: Value, case: str, scale: float) -> None:
    teacher = logits(6, 33, 6, scale).float()
    student = teacher.clone().requires_grad_()
    found = value(case, teacher, student)
    assert found.tolist() == [0.0] * 6
    found.sum().backward()
    assert student.grad is not None
    assert float(student.grad.abs().max()) < 1e-6


@pytest.mark.parametrize("case", CASES)
def test_near_equality_the_error_is_that_of_fp32_log_probs(value: Value, case: str) -> None:
    """Logits that differ by 1e-4: values of 1e-9, which rounding of the inputs (1e-7) may hide but not enlarge."""
    teacher = logits(8, 50, 7).float()
    student = teacher + 1e-4 * logits(8, 50, 8).float()
    expected = by_hand(case, teacher.double(), student.double(), 1.0)
    assert value(case, teacher, student).tolist() == pytest.approx(expected, abs=1e-6)


def test_jensen_shannon_tends_to_both_kls() -> None:
    p, q = (torch.log_softmax(logits(4, 9, seed), -1) for seed in (9, 10))
    forward, reverse = d.forward_kl(p, q), d.reverse_kl(p, q)
    for w in (1e-3, 1e-6, 1e-9):
        torch.testing.assert_close(d.jensen_shannon(p, q, w, False) / w, forward, rtol=30 * w**0.9, atol=1e-7)
        torch.testing.assert_close(d.jensen_shannon(p, q, 1 - w, False) / w, reverse, rtol=30 * w**0.9, atol=1e-7)
        torch.testing.assert_close(d.jensen_shannon(p, q, w, True), forward, rtol=30 * w**0.9, atol=1e-7)
        torch.testing.assert_close(d.jensen_shannon(p, q, 1 - w, True), reverse, rtol=30 * w**0.9, atol=1e-7)


def test_jensen_shannon_gradients_tend_to_those_of_both_kls() -> None:
    teacher = torch.log_softmax(logits(4, 9, 9), -1)

    def gradient(of: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        student = logits(4, 9, 10).requires_grad_()
        of(teacher, torch.log_softmax(student, -1)).sum().backward()
        assert student.grad is not None
        return student.grad

    for w, limit in ((1e-7, d.forward_kl), (1 - 1e-7, d.reverse_kl)):
        near = gradient(lambda p, q, w=w: d.jensen_shannon(p, q, w, True))
        torch.testing.assert_close(near, gradient(limit), rtol=1e-5, atol=1e-6)


def test_every_normalised_jensen_shannon_has_the_scale_of_a_kl_near_equality() -> None:
    teacher = logits(4, 9, 11)
    p, q = torch.log_softmax(teacher, -1), torch.log_softmax(teacher + 1e-3 * logits(4, 9, 12), -1)
    for w in (0.0, 0.1, 0.5, 0.9, 1.0):
        torch.testing.assert_close(d.jensen_shannon(p, q, w, True), d.forward_kl(p, q), rtol=5e-3, atol=0)


def test_raw_jensen_shannon_of_disjoint_distributions_is_the_entropy_of_the_mixing() -> None:
    p = torch.tensor([[1.0, 0.0]]).log()
    q = torch.tensor([[0.0, 1.0]]).log()
    for w in (0.1, 0.5):
        expected = -w * math.log(w) - (1 - w) * math.log(1 - w)
        assert d.jensen_shannon(p, q, w, False).item() == pytest.approx(expected, rel=1e-6)
    assert d.total_variation(p, q).item() == 1.0
    assert d.skew_forward_kl(p, q, 0.1).item() == pytest.approx(-math.log(0.1), rel=1e-6)
    assert d.skew_reverse_kl(p, q, 0.1).item() == pytest.approx(-math.log(0.1), rel=1e-6)
    assert d.forward_kl(p, q).item() == math.inf == d.reverse_kl(p, q).item()


def test_skews_tend_to_the_kls() -> None:
    p, q = (torch.log_softmax(logits(4, 9, seed), -1) for seed in (13, 14))
    torch.testing.assert_close(d.skew_forward_kl(p, q, 1e-9), d.forward_kl(p, q), rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(d.skew_reverse_kl(p, q, 1e-9), d.reverse_kl(p, q), rtol=1e-6, atol=1e-9)
    assert d.skew_forward_kl(p, q, 0.0).tolist() == d.forward_kl(p, q).tolist()
    assert d.skew_reverse_kl(p, q, 0.0).tolist() == d.reverse_kl(p, q).tolist()


def test_logit_mse_by_hand_blind_to_constants_and_the_limit_of_hot_kl(value: Value) -> None:
    teacher, student = logits(4, 9, 15, 1.0), logits(4, 9, 16, 1.0)
    p, q = torch.log_softmax(teacher, -1), torch.log_softmax(student, -1)
    found = d.logit_mse(p, q)
    assert found.tolist() == pytest.approx(
        [centred_mse(a, b) for a, b in zip(p.exp().tolist(), q.exp().tolist(), strict=True)]
    )
    torch.testing.assert_close(d.logit_mse(teacher + 5, student - 3), found)
    assert d.logit_mse(p, p).tolist() == [0.0] * 4
    hot = value("forward_kl", teacher, student, 1000.0)
    torch.testing.assert_close(hot, found / 2, rtol=0.01, atol=0)


def test_columns_that_the_teacher_lacks() -> None:
    """Finite wherever the mathematics is, with a finite gradient, and infinite or refused elsewhere."""
    teacher = torch.log_softmax(torch.tensor([[1.0, 2.0, -torch.inf]], dtype=torch.float64), -1)
    finite: list[Callable[[Tensor, Tensor], Tensor]] = [
        d.forward_kl,
        lambda p, q: d.jensen_shannon(p, q, 0.3, False),
        lambda p, q: d.skew_forward_kl(p, q, 0.1),
        lambda p, q: d.skew_reverse_kl(p, q, 0.1),
        d.total_variation,
    ]
    for divergence in finite:
        student = torch.tensor([[0.3, 1.0, 0.5]], dtype=torch.float64, requires_grad=True)
        found = divergence(teacher, torch.log_softmax(student, -1))
        found.sum().backward()
        assert 0 < found.item() < math.inf
        assert student.grad is not None and torch.isfinite(student.grad).all()
        assert float(student.grad[0, 2]) > 0  # all of them push the column down
    q = torch.log_softmax(torch.tensor([[0.3, 1.0, 0.5]], dtype=torch.float64), -1)
    assert d.reverse_kl(teacher, q).item() == math.inf
    with pytest.raises(ValueError, match="logit for every token"):
        d.logit_mse(teacher, q)
    hidden, ids, one = Head(torch.eye(3, dtype=torch.float64)), torch.tensor([0]), {"reverse_kl": torch.ones(1)}
    objective = Objective(ObjectiveConfig(terms=(term("reverse_kl"),)))
    assert weighted_sums(q, hidden, ids, one, Dense(teacher, "t"), objective).total.item() == math.inf
    assert by_the_head("forward_kl", teacher, q).item() == pytest.approx(d.forward_kl(teacher, q).item(), rel=1e-12)
    with pytest.raises(ValueError, match="logit for every token"):
        by_the_head("logit_mse", teacher, q)


def test_what_has_no_meaning_is_refused() -> None:
    p = torch.log_softmax(logits(1, 3, 17), -1)
    for weight, normalised in ((0.0, False), (1.0, False), (1.5, True), (-0.1, True)):
        with pytest.raises(ValueError, match="between 0 and 1"):
            d.jensen_shannon(p, p, weight, normalised)
    for share in (-0.1, 1.0, math.nan):
        with pytest.raises(ValueError, match="below 1"):
            d.skew_forward_kl(p, p, share)
        with pytest.raises(ValueError, match="below 1"):
            d.skew_reverse_kl(p, p, share)
    with pytest.raises(ValueError, match="0 for every student"):
        TERM.validate_python({"kind": "jensen_shannon", "weight": 1.0, "on": ["teacher"], "teacher_weight": 1.0})


def test_entropy() -> None:
    assert d.entropy(torch.zeros(1, 8).log_softmax(-1)).item() == pytest.approx(math.log(8))
    assert d.entropy(torch.tensor([[0.0, -torch.inf]])).item() == 0.0
