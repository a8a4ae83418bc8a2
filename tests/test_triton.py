"""The Triton back end against the torch back end, run by Triton's interpreter on the CPU."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch
from test_fused import KINDS, OBJECTIVES, Problem, term
from torch import Tensor

from potstill.config.objective import ObjectiveConfig
from potstill.head import Head
from potstill.losses import Objective
from potstill.losses.kernels import torch_rows
from potstill.losses.kernels.choose import back_end
from potstill.losses.kernels.chunk import Chunk
from potstill.targets import Dense, FinalHidden

pytestmark = pytest.mark.triton

ONES = ("cross-entropy", "forward", "reverse", "js", "js ends", "js normalised", "skew forward", "skew reverse", "tv")
TWO = {
    "both": [term("cross_entropy", weight=0.3), term("forward_kl")],
    "hot": [term("forward_kl", divergence_temperature=2.0)],
    "hot both": [term("reverse_kl", divergence_temperature=0.5), term("cross_entropy", weight=0.3)],
    "hot mixed": [term("jensen_shannon", teacher_weight=0.4, divergence_temperature=3.0)],
}


@pytest.fixture(scope="module")
def rows() -> Any:
    """The back end; needs `triton` and TRITON_INTERPRET=1, which `make test-triton` sees to."""
    assert os.environ.get("TRITON_INTERPRET") == "1" or torch.cuda.is_available(), "set TRITON_INTERPRET=1"
    from potstill.losses.kernels import triton_rows

    return triton_rows


def through(
    function: Any, problem: Problem, gradient: bool, dtype: torch.dtype, meta: dict[str, Any]
) -> tuple[Tensor, Tensor]:
    head = Head(problem.weight, None, **meta)
    raw = (problem.hidden @ problem.weight.T).to(dtype)
    said = problem.targets
    if isinstance(said, FinalHidden):
        said = said.project(torch.empty(len(raw), said.head.width, dtype=dtype), torch.float32)
    assert not isinstance(said, FinalHidden)
    chunk = Chunk(
        raw, head, said, problem.targets.excludes, problem.ids, problem.objective.terms,  # type: ignore[union-attr]
        tuple(problem.objective.weights().values()), torch.stack(list(problem.weights.values())),
    )  # fmt: skip
    values, _ = function(chunk, gradient)
    return values, chunk.raw


def compare(
    rows: Any, terms: list[dict[str, Any]], targets: str, n: int, width: int, **meta: Any
) -> dict[tuple[str, torch.dtype, bool], float]:
    """(what, type of the logits, whether a gradient was asked for) -> largest difference between the back ends.

    As a multiple of what is allowed: rounding of fp32 in values; in gradients, of the type they are stored in.
    """
    found = {}
    for dtype, tolerance in ((torch.float32, 3e-5), (torch.bfloat16, 8e-3)):
        problem = Problem(terms, targets, n, width, torch.float32)
        for gradient in (True, False):
            fast = through(rows.through_rows, problem, gradient, dtype, meta)
            slow = through(torch_rows.through_rows, problem, gradient, dtype, meta)
            found["values", dtype, gradient] = difference(fast[0], slow[0], 3e-5, 3e-6)
            found["logits' memory", dtype, gradient] = difference(fast[1], slow[1], tolerance, tolerance / 10)
    return found


def difference(fast: Tensor, slow: Tensor, relative: float, absolute: float) -> float:
    """The largest, as a multiple of `absolute` + `relative` times `slow`; NaN where either is."""
    return float(((fast.double() - slow.double()).abs() / (absolute + relative * slow.double().abs())).max())


#: Reverse KL is infinite with columns that the teacher lacks.
PAIRS = [
    (name, targets)
    for name in (*ONES, *TWO)
    for targets in ("dense", "hidden", "narrower teacher", "wider teacher")
    if targets in ("dense", "hidden") or name not in ("reverse", "hot both")
]


@pytest.mark.parametrize(("name", "targets"), PAIRS)
def test_equal_to_the_torch_back_end(rows: Any, name: str, targets: str) -> None:
    terms = TWO.get(name) or OBJECTIVES[name]
    for found, share in compare(rows, terms, targets, 5, 53).items():
        assert share <= 1, found


@pytest.mark.parametrize(("n", "width"), [(1, 5), (3, 4096), (2, 4097), (2, 9001)])
def test_shapes_that_are_multiples_of_nothing(rows: Any, n: int, width: int) -> None:
    for terms in (TWO["both"], OBJECTIVES["js"]):
        for found, share in compare(rows, terms, "dense", n, width).items():
            assert share <= 1, found


def test_what_models_do_to_their_logits(rows: Any) -> None:
    for targets in ("dense", "hidden"):
        for found, share in compare(rows, TWO["hot both"], targets, 6, 130, logit_scale=1.3, soft_cap=5.0).items():
            assert share <= 1, found


def test_equality_is_exactly_zero(rows: Any) -> None:
    for name in ("forward", "reverse", "js", "skew forward", "skew reverse", "tv"):
        problem = Problem(OBJECTIVES[name], "dense", 4, 53, torch.float32)
        problem.targets = Dense(problem.hidden @ problem.weight.T, "t")
        values, gradient = through(rows.through_rows, problem, True, torch.float32, {})
        assert values.abs().max() == 0 and float(gradient.abs().max()) < 1e-6


def test_reverse_kl_to_a_teacher_that_excludes_is_infinite(rows: Any) -> None:
    problem = Problem(OBJECTIVES["reverse"], "narrower teacher", 3, 53, torch.float32)
    values, _ = through(rows.through_rows, problem, True, torch.float32, {})
    assert torch.isinf(values).all()


def test_what_it_does_not_know_goes_to_torch(rows: Any) -> None:
    for name, known in (("forward", True), ("js", True), ("many", False), ("mse", False)):
        terms = Objective(ObjectiveConfig.model_validate({"terms": OBJECTIVES[name]})).terms
        assert rows.knows(terms, True) == known
        assert back_end("cpu", terms, True)[0] == "torch"
    for kind in KINDS:  # two of one kind would share what a program keeps of its row
        twice = [term(kind), term(kind, called="other", weight=0.3)]
        assert not rows.knows(Objective(ObjectiveConfig.model_validate({"terms": twice})).terms, True)
    weighed = [term("forward_kl", token_weighting={"kind": "teacher_entropy", "half_at_nats": 1.0})]
    assert not rows.knows(Objective(ObjectiveConfig.model_validate({"terms": weighed})).terms, True)
