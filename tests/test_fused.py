"""The fused head against its slow twin: every kind of targets, odd shapes, types, and what heads do to logits."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, get_args

import pytest
import torch
from slow_head import slow_weighted_sums
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from potstill import head as head_module
from potstill.config.objective import ObjectiveConfig
from potstill.config.terms import AnyTerm
from potstill.head import Arithmetic, Head, arithmetic
from potstill.losses import Objective
from potstill.losses.fused import chunk_positions, weighted_sums
from potstill.losses.kernels import torch_rows
from potstill.losses.sparse import UNDEFINED, draw, form, keep_top
from potstill.targets import Dense, FinalHidden, TeacherTargets

Terms = list[dict[str, Any]]


def term(kind: str, **settings: Any) -> dict[str, Any]:
    return {"kind": kind, "weight": 0.7, "on": ["teacher"], **settings}


#: One term each, and one objective with all that can stand together.
OBJECTIVES: dict[str, Terms] = {
    "cross-entropy": [term("cross_entropy")],
    "forward": [term("forward_kl")],
    "reverse": [term("reverse_kl")],
    "js": [term("jensen_shannon", teacher_weight=0.3)],
    "js ends": [term("jensen_shannon", teacher_weight=0.0, normalised=True)],
    "js normalised": [term("jensen_shannon", teacher_weight=0.6, normalised=True)],
    "skew forward": [term("skew_forward_kl", teacher_share=0.1)],
    "skew reverse": [term("skew_reverse_kl", student_share=0.2)],
    "tv": [term("total_variation")],
    "mse": [term("logit_mse")],
    "hot": [term("forward_kl", divergence_temperature=2.0), term("reverse_kl", divergence_temperature=0.5)],
    "many": [
        term("forward_kl", weight=0.3),
        term("cross_entropy", weight=0.2),
        term("reverse_kl", divergence_temperature=2.0),
        term("skew_forward_kl", divergence_temperature=2.0, weight=0.1),
        term("total_variation", token_weighting={"kind": "teacher_entropy", "half_at_nats": 1.0}),
        term("logit_mse", weight=0.05),
    ],
}
SAID = ["dense", "hidden", "narrower teacher", "wider teacher", "tail", "renormalised", "sampled"]


def said(name: str, n: int, width: int, generator: torch.Generator, dtype: torch.dtype) -> TeacherTargets:
    """Targets of one form for n positions."""
    log_probs = torch.log_softmax(2 * torch.randn(n, width, generator=generator, dtype=torch.float64), -1).to(dtype)
    hidden = torch.randn(n, 6, generator=generator, dtype=torch.float64).to(dtype)
    matrix = torch.randn(width + 3, 6, generator=generator, dtype=torch.float64).to(dtype)
    observed = torch.randint(0, width, (n,), generator=generator)
    match name:
        case "dense":
            return Dense(log_probs, "t")
        case "hidden":
            return FinalHidden(hidden, Head(matrix[:width], None, 0.5, 1.3, 4.0), "t")
        case "narrower teacher":
            return FinalHidden(hidden, Head(matrix[: width - 2]), "t", width, width - 3)
        case "wider teacher":
            return FinalHidden(hidden, Head(matrix), "t", width, width - 1)
        case "tail":
            return keep_top(log_probs, 4, "tail", "t", observed)
        case "renormalised":
            return keep_top(log_probs, 4, "renormalised", "t", observed)
    return draw(log_probs, torch.rand(n, 20, generator=generator, dtype=torch.float64), "t")


class Problem:
    """One case with its inputs, which may be run through either head."""

    def __init__(self, terms: Terms, targets: str, n: int, width: int, dtype: torch.dtype, seed: int = 0, **meta: Any):
        generator = torch.Generator().manual_seed(1000 * seed + n + width)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

        self.hidden, self.weight, self.bias = normal(n, 8), normal(width, 8), normal(width)
        self.meta, self.terms = meta, terms
        self.ids = torch.randint(0, width, (n,), generator=generator)
        self.targets = said(targets, n, width, generator, dtype)
        self.objective = self.with_memory(1e-3)
        wide = torch.promote_types(dtype, torch.float32)
        self.weights = {name: torch.rand(n, generator=generator).to(wide) for name in self.objective.names}

    def widened(self) -> Problem:
        """The very same numbers in float64."""
        wide = copy.copy(self)
        wide.hidden, wide.weight, wide.bias = (x.double() for x in (self.hidden, self.weight, self.bias))
        wide.weights = {name: w.double() for name, w in self.weights.items()}
        if isinstance(self.targets, FinalHidden):
            head = self.targets.head
            wide.targets = replace(
                self.targets, hidden=self.targets.hidden.double(), head=replace(head, weight=head.weight.double())
            )
        if isinstance(self.targets, Dense):
            wide.targets = replace(self.targets, values=self.targets.values.double())
        return wide

    def with_memory(self, megabytes: float, **settings: Any) -> Objective:
        return Objective(ObjectiveConfig.model_validate({"terms": self.terms, "head_memory_mb": megabytes, **settings}))

    def results(self, function: Callable[..., Any], objective: Objective | None = None) -> list[Tensor]:
        """Total, values of every term, gradients with respect to hidden states, matrix and bias."""
        inputs = [x.clone().requires_grad_() for x in (self.hidden, self.weight, self.bias)]
        head = Head(inputs[1], inputs[2], **self.meta)
        arguments = (inputs[0], head, self.ids, self.weights, self.targets, objective or self.objective)
        found = function(*arguments)
        total, _, values = found
        (total / 7).backward()
        gradients = [x.grad for x in inputs if x.grad is not None]
        assert len(gradients) == 3
        return [total.detach(), *(v.detach() for v in values.values()), *gradients]


def defined(terms: Terms, targets: str) -> bool:
    """Whether the table allows it, for what the tests below combine."""
    names = {"tail": "kept with a tail", "renormalised": "kept, renormalised", "sampled": "sampled"}
    undefined = UNDEFINED[names.get(targets, "whole")]
    if any(t["kind"] in undefined or (t.get("token_weighting") and "teacher_entropy" in undefined) for t in terms):
        return False
    if targets in ("tail", "sampled") and any(t.get("divergence_temperature", 1) != 1 for t in terms):
        return False
    short = targets in ("narrower teacher", "wider teacher")  # both exclude columns of the student
    return not (short and any(t["kind"] in ("reverse_kl", "logit_mse") for t in terms))


PAIRS = [(o, t) for o, t in itertools.product(OBJECTIVES, SAID) if defined(OBJECTIVES[o], t)]


@pytest.mark.parametrize(("name", "targets"), PAIRS)
def test_equal_to_the_slow_twin_in_float64(name: str, targets: str) -> None:
    for meta in ({}, {"hidden_scale": 0.5, "logit_scale": 1.3, "soft_cap": 5.0}):
        problem = Problem(OBJECTIVES[name], targets, 37, 53, torch.float64, **meta)
        for fast, slow in zip(problem.results(weighted_sums), problem.results(slow_weighted_sums), strict=True):
            torch.testing.assert_close(fast, slow, rtol=1e-10, atol=1e-10)


#: Every kind of term that there is.
KINDS = [get_args(kind.model_fields["kind"].annotation)[0] for kind in get_args(get_args(AnyTerm)[0])]


@pytest.mark.parametrize(("kind", "targets"), [(k, t) for k in KINDS for t in SAID if defined([term(k)], t)])
def test_two_terms_of_one_kind_do_not_disturb_each_other(kind: str, targets: str) -> None:
    """Beside a third one of another kind, so that the buffers of all three are in use at once."""
    for third in ([], [term("forward_kl", called="third", weight=0.2)]):
        terms = [term(kind), *third, term(kind, called="other", weight=0.3)]
        problem = Problem(terms, targets, 7, 53, torch.float64, soft_cap=5.0)
        for fast, slow in zip(problem.results(weighted_sums), problem.results(slow_weighted_sums), strict=True):
            torch.testing.assert_close(fast, slow, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("n", "width"), [(1, 5), (2, 7), (16, 64), (31, 129), (64, 1000), (3, 20011)])
@pytest.mark.parametrize("name", ["forward", "many", "js"])
def test_fp32_errs_no_more_than_the_slow_twin(name: str, n: int, width: int) -> None:
    """Against float64, over shapes that are multiples of nothing; errors of eight problems together.

    A third more is allowed, and five units in the last place: of so few numbers the error is a draw.
    """
    squared = torch.zeros(3, 0)
    for seed in range(8):
        single = Problem(OBJECTIVES[name], "dense", n, width, torch.float32, seed)
        truth = single.widened().results(slow_weighted_sums)
        # Not one position at a time: products of a single row sum in another order, and worse.
        fast = single.results(weighted_sums, single.with_memory(0.5))
        slow = single.results(slow_weighted_sums)
        found = torch.stack([torch.stack([x.double().norm() ** 2 for x in part]) for part in (
            [f - t for f, t in zip(fast, truth, strict=True)], [s - t for s, t in zip(slow, truth, strict=True)], truth
        )])  # fmt: skip
        squared = found if seed == 0 else squared + found
    fast_error, slow_error, size = squared.sqrt()
    assert (fast_error <= 1.33 * slow_error + 5 * 2**-24 * size).all(), (fast_error / size, slow_error / size)


def test_memory_setting_changes_nothing_but_rounding() -> None:
    problem = Problem(OBJECTIVES["many"], "hidden", 29, 53, torch.float64)
    whole = problem.results(weighted_sums, problem.with_memory(64.0))
    for megabytes in (1e-6, 2e-3, 9e-3):
        for cut, expected in zip(problem.results(weighted_sums, problem.with_memory(megabytes)), whole, strict=True):
            torch.testing.assert_close(cut, expected, rtol=1e-11, atol=1e-11)


def test_the_size_of_a_block_changes_nothing_but_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = Problem(OBJECTIVES["many"], "dense", 29, 53, torch.float64)
    whole = problem.results(weighted_sums)
    monkeypatch.setattr(torch_rows, "BLOCK_LOGITS", {"cpu": 53 * 4})
    for cut, expected in zip(problem.results(weighted_sums), whole, strict=True):
        torch.testing.assert_close(cut, expected, rtol=1e-11, atol=1e-11)


@pytest.fixture(params=[True, False], ids=["units for bf16", "none"])
def hardware(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[bool]:
    """Both ways that a CPU may take through bf16, whatever this one is."""
    monkeypatch.setattr(head_module, "multiplies_bf16", lambda: request.param)
    monkeypatch.setattr(head_module, "BLOCK_COLUMNS", 50)
    yield request.param


@pytest.mark.parametrize("logits", ["as_computed", "fp32"])
@pytest.mark.parametrize(("n", "width"), [(7, 131), (40, 1009)])
@pytest.mark.parametrize("targets", ["hidden", "dense", "tail", "sampled"])
def test_bf16_errs_no_more_than_the_slow_twin(hardware: bool, targets: str, n: int, width: int, logits: str) -> None:
    """bf16 states and matrices; the twin's logits are rounded to bf16, then everything is fp32."""
    single = Problem(OBJECTIVES["forward"], targets, n, width, torch.bfloat16)
    truth = single.widened().results(slow_weighted_sums)
    fast = single.results(weighted_sums, single.with_memory(0.02, logits=logits))
    slow = single.results(slow_weighted_sums)
    assert [x.dtype for x in fast] == [torch.float32, torch.float32, *[torch.bfloat16] * 3]
    for t, f, s in zip(truth, fast, slow, strict=True):
        # Not a single worst number, which is a lottery in bf16, but the error as a whole.
        assert float((f - t).norm()) <= 1.3 * float((s - t).norm()) + 1e-3 * float(t.norm())


def test_which_arithmetic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_module, "multiplies_bf16", lambda: True)
    single, half = torch.zeros(2, 2), torch.zeros(2, 2, dtype=torch.bfloat16)
    assert arithmetic(single, False) == Arithmetic(torch.float32, torch.float32)
    assert arithmetic(half, False) == Arithmetic(torch.bfloat16, torch.bfloat16)
    assert arithmetic(half, True) == Arithmetic(torch.bfloat16, torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert arithmetic(single, False) == Arithmetic(torch.bfloat16, torch.bfloat16)
    monkeypatch.setattr(head_module, "multiplies_bf16", lambda: False)
    assert arithmetic(half, False) == Arithmetic(torch.float32, torch.float32)


#: (types of the student and the teacher, autocast, setting of the logits) -> (products, logits) of both heads
TOGETHER = {
    "both fp32, autocast": ("fp32", "fp32", True, "as_computed", ("bf16", "bf16"), ("bf16", "bf16")),
    "both fp32, autocast, wide logits": ("fp32", "fp32", True, "fp32", ("bf16", "fp32"), ("bf16", "fp32")),
    "teacher bf16": ("fp32", "bf16", False, "as_computed", ("fp32", "fp32"), ("bf16", "fp32")),
    "student bf16": ("bf16", "fp32", False, "as_computed", ("bf16", "bf16"), ("fp32", "fp32")),
}


@pytest.mark.parametrize("case", TOGETHER)
def test_which_arithmetic_the_teacher_computes_in(monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    """Autocast is off inside the head's Function, and counts for the teacher's head all the same."""
    types = {"fp32": torch.float32, "bf16": torch.bfloat16}
    ours, theirs, autocast, setting, *expected = TOGETHER[case]
    monkeypatch.setattr(head_module, "multiplies_bf16", lambda: True)
    seen, raw = {}, Head.raw

    def watched(head: Head, hidden: Tensor, out: Tensor, products: torch.dtype) -> Tensor:
        seen[head.weight.shape[1]] = (products, out.dtype, head.weight.dtype)
        return raw(head, hidden, out, products)

    monkeypatch.setattr(Head, "raw", watched)
    problem = Problem(OBJECTIVES["forward"], "hidden", 6, 53, types[ours])
    said = problem.targets
    assert isinstance(said, FinalHidden)
    said_head = replace(said.head, weight=said.head.weight.to(types[theirs]))
    problem.targets = replace(said, hidden=said.hidden.to(types[theirs]), head=said_head)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        problem.results(weighted_sums, problem.with_memory(1.0, logits=setting))
    # The matrix is in the type of its products already: it is not rounded anew for every chunk.
    for width, (products, logits) in zip((problem.hidden.shape[1], said.hidden.shape[1]), expected, strict=True):
        assert seen[width] == (types[products], types[logits], types[products])


def test_memory_counts_the_teachers_logits_in_their_own_type() -> None:
    half, single = Arithmetic(torch.bfloat16, torch.bfloat16), Arithmetic(torch.float32, torch.float32)
    megabytes = 60 * 100 / 2**20  # a student's position takes 10 * 2 bytes, a teacher's 10 * 4
    assert chunk_positions(megabytes, 10, 10, half, "cpu", single) == 100
    assert chunk_positions(megabytes, 10, 10, half) == 150


@pytest.mark.parametrize("targets", ["dense", "hidden"])
def test_autocast_computes_in_bf16_and_leaves_fp32_gradients(hardware: bool, targets: str) -> None:
    problem = Problem(OBJECTIVES["forward"], targets, 20, 301, torch.float32)
    exact = problem.results(weighted_sums)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = problem.results(weighted_sums)
    for near, truth in zip(rounded, exact, strict=True):
        assert near.dtype == torch.float32
        assert float((near - truth).norm()) <= 0.02 * float(truth.norm())
        assert hardware != torch.equal(near, truth)  # without units for bf16, fp32 is both faster and exact


def test_a_frozen_head_gets_no_gradient_and_none_is_computed() -> None:
    problem = Problem(OBJECTIVES["forward"], "dense", 30, 53, torch.float32)
    expected = problem.results(weighted_sums)[-3]
    hidden = problem.hidden.clone().requires_grad_()
    shapes = set()

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            result = func(*args, **(kwargs or {}))
            if "mm" in str(func):
                shapes.add(tuple(result.shape))
            return result

    head = Head(problem.weight, problem.bias)
    with Watch():
        scored = weighted_sums(hidden, head, problem.ids, problem.weights, problem.targets, problem.objective)
        (scored.total / 7).backward()
    assert (53, 8) not in shapes and problem.weight.grad is None
    assert hidden.grad is not None
    torch.testing.assert_close(hidden.grad, expected)


def test_without_grad_only_values_are_computed() -> None:
    problem = Problem(OBJECTIVES["many"], "dense", 30, 53, torch.float32)
    expected = problem.results(weighted_sums)
    weight = problem.weight.clone().requires_grad_()
    with torch.no_grad():
        scored = weighted_sums(
            problem.hidden, Head(weight, problem.bias), problem.ids, problem.weights, problem.targets, problem.objective
        )
    assert not scored.total.requires_grad
    for found, value in zip(scored.values.values(), expected[1:], strict=False):
        torch.testing.assert_close(found, value)


def test_one_matrix_for_embeddings_and_head_gets_both_gradients() -> None:
    def gradient(function: Callable[..., Any]) -> Tensor:
        problem = Problem(OBJECTIVES["forward"], "dense", 30, 53, torch.float64)
        matrix = problem.weight.clone().requires_grad_()
        hidden = torch.tanh(torch.nn.functional.embedding(problem.ids, matrix))
        found = function(hidden, Head(matrix), problem.ids, problem.weights, problem.targets, problem.objective)
        found[0].backward()
        assert matrix.grad is not None
        return matrix.grad

    torch.testing.assert_close(gradient(weighted_sums), gradient(slow_weighted_sums), rtol=1e-10, atol=1e-12)


def test_term_weights_of_the_step_are_the_ones_that_count() -> None:
    problem = Problem(OBJECTIVES["hot"], "dense", 12, 53, torch.float64)
    weight = problem.weight.clone().requires_grad_()
    arguments = (problem.hidden, Head(weight), problem.ids, problem.weights, problem.targets, problem.objective)
    given = {"forward_kl_T2": 0.25, "reverse_kl_T0.5": 0.0}
    scored = weighted_sums(*arguments, given)
    scored.total.backward()
    assert scored.total.item() == pytest.approx(0.25 * float(scored.sums["forward_kl_T2"]), rel=1e-12)
    found, weight.grad = weight.grad, None
    slow_weighted_sums(*arguments, given)[0].backward()
    assert found is not None and weight.grad is not None
    torch.testing.assert_close(found, weight.grad, rtol=1e-10, atol=1e-12)


def test_going_back_twice_is_refused() -> None:
    problem = Problem(OBJECTIVES["forward"], "dense", 4, 53, torch.float32)
    head = Head(problem.weight.requires_grad_())
    scored = weighted_sums(problem.hidden, head, problem.ids, problem.weights, problem.targets, problem.objective)
    scored.total.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="already gone back"):
        scored.total.backward()


def test_an_empty_share_still_reaches_every_parameter() -> None:
    """A process without counted positions takes part in the reduction with zeros."""
    problem = Problem(OBJECTIVES["many"], "dense", 0, 53, torch.float32)
    for found in problem.results(weighted_sums):
        assert float(found.sum()) == 0.0


def test_memory_of_the_head_is_bounded_by_the_setting() -> None:
    """No tensor of [N, V] is ever made: the largest output of any operation is [chunk, V]."""
    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            nonlocal largest
            result = func(*args, **(kwargs or {}))
            if isinstance(result, Tensor) and result.ndim == 2 and result.shape[1] == 53:
                largest = max(largest, result.shape[0])
            return result

    problem = Problem(OBJECTIVES["many"], "hidden", 400, 53, torch.float32)
    setting = 25 * 2 * 53 * 4 / 2**20
    with Watch():
        problem.results(weighted_sums, problem.with_memory(setting))
    assert largest == 25 == chunk_positions(setting, 53, 53, arithmetic(problem.weight, False))


def test_targets_go_through_the_head_in_parts_only() -> None:
    """`rows` of every form gives the same as the whole, and knows its form."""
    for name, key in zip(SAID, ["whole"] * 4 + list(UNDEFINED)[1:], strict=True):
        problem = Problem(OBJECTIVES["cross-entropy"], name, 10, 53, torch.float64)
        assert form(problem.targets.rows(2, 5)) == key == form(problem.targets)
