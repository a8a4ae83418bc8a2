"""Who takes part: each turns the same hidden states and matrices into a forward KL and its gradients.

    loss = mean over positions of KL(teacher || student), and then backward

`floor` is no contestant: it is the four matrix products that nobody can do without,
student's logits, teacher's logits, and the gradients of hidden states and matrix.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))
from slow_head import slow_weighted_sums

from potstill.config.objective import ObjectiveConfig
from potstill.head import Head
from potstill.losses import Objective
from potstill.losses.fused import weighted_sums
from potstill.targets import FinalHidden

TERM = {"kind": "forward_kl", "weight": 1.0, "on": ["teacher"]}


@dataclass
class Case:
    """N positions, D wide, V tokens; the student's hidden states and matrix want gradients."""

    hidden: Tensor  # [N, D]
    weight: Tensor  # [V, D]
    teacher_hidden: Tensor  # [N, D]
    teacher_weight: Tensor  # [V, D]

    @classmethod
    def make(cls, n: int, v: int, d: int, dtype: torch.dtype, device: str) -> Case:
        generator = torch.Generator(device).manual_seed(0)

        def normal(*shape: int, scale: float = 1.0) -> Tensor:
            return (scale * torch.randn(*shape, generator=generator, device=device)).to(dtype)

        # Logits of standard deviation 2: distributions of some nats of entropy.
        spread = 2 / d**0.5
        made = cls(normal(n, d), normal(v, d, scale=spread), normal(n, d), normal(v, d, scale=spread))
        made.hidden.requires_grad_()
        made.weight.requires_grad_()
        return made

    def double(self) -> Case:
        """The very same numbers in float64."""
        tensors = [t.detach().double() for t in (self.hidden, self.weight, self.teacher_hidden, self.teacher_weight)]
        return Case(tensors[0].requires_grad_(), tensors[1].requires_grad_(), *tensors[2:])


Contestant = Callable[[Case], Tensor]


def potstill(memory_mb: float | None, logits: str = "as_computed") -> Contestant:
    """The fused head; the targets are the teacher's hidden states."""
    config = ObjectiveConfig.model_validate({"terms": [TERM], "head_memory_mb": memory_mb, "logits": logits})
    objective = Objective(config)

    def run(case: Case) -> Tensor:
        n = len(case.hidden)
        ones = {"forward_kl": torch.ones(n, device=case.hidden.device)}
        ids = torch.zeros(n, dtype=torch.long, device=case.hidden.device)
        said = FinalHidden(case.teacher_hidden, Head(case.teacher_weight), "teacher")
        scored = weighted_sums(case.hidden, Head(case.weight), ids, ones, said, objective)
        loss = scored.total / n
        loss.backward()
        return loss.detach()

    return run


def reference(case: Case) -> Tensor:
    """The slow twin of the tests."""
    n = len(case.hidden)
    ones, ids = {"forward_kl": torch.ones(n)}, torch.zeros(n, dtype=torch.long)
    said = FinalHidden(case.teacher_hidden, Head(case.teacher_weight), "teacher")
    objective = Objective(ObjectiveConfig.model_validate({"terms": [TERM]}))
    loss = slow_weighted_sums(case.hidden, Head(case.weight), ids, ones, said, objective)[0] / n
    loss.backward()
    return loss.detach()


def _loss(hidden: Tensor, weight: Tensor, teacher_hidden: Tensor, teacher_weight: Tensor) -> Tensor:
    """What one writes without thinking of memory: all logits, fp32 log-probs, autograd."""
    student = torch.log_softmax(functional.linear(hidden, weight).float(), -1)
    with torch.no_grad():
        teacher = torch.log_softmax(functional.linear(teacher_hidden, teacher_weight).float(), -1)
    return functional.kl_div(student, teacher, reduction="sum", log_target=True) / len(hidden)


def naive(case: Case) -> Tensor:
    loss = _loss(case.hidden, case.weight, case.teacher_hidden, case.teacher_weight)
    loss.backward()
    return loss.detach()


def compiled() -> Contestant:
    """The naive loss through torch.compile with its defaults."""
    function = torch.compile(_loss)

    def run(case: Case) -> Tensor:
        loss = function(case.hidden, case.weight, case.teacher_hidden, case.teacher_weight)
        loss.backward()
        return loss.detach()

    return run


def trl() -> Contestant:
    """TRL's `ChunkedDivergenceFunction` at beta 0, which is forward KL; Triton on CUDA, torch elsewhere."""
    from trl.kernels.chunked_divergence import ChunkedDivergenceFunction

    def run(case: Case) -> Tensor:
        divergence, _ = ChunkedDivergenceFunction.apply(
            case.hidden, case.weight, None, case.teacher_hidden, case.teacher_weight, None, 0.0
        )
        loss = divergence.sum() / len(case.hidden)
        loss.backward()
        return loss.detach()

    return run


def liger(compiled: bool) -> Contestant:
    """Liger's chunked `LigerFusedLinearJSDLoss` at beta 0, soft loss only; `compiled` is its default."""
    from liger_kernel.chunked_loss import LigerFusedLinearJSDLoss

    head = LigerFusedLinearJSDLoss(0.0, 1.0, beta=0.0, compiled=compiled)

    def run(case: Case) -> Tensor:
        ids = torch.zeros(len(case.hidden), dtype=torch.long, device=case.hidden.device)
        loss = head(case.hidden, case.weight, case.teacher_hidden, case.teacher_weight, ids)
        loss.backward()
        return loss.detach()

    return run


def liger_triton() -> Contestant:
    """Liger's Triton `LigerFusedLinearJSD` at beta 0; CUDA only."""
    from liger_kernel.transformers import LigerFusedLinearJSD

    head = LigerFusedLinearJSD(jsd_beta=0.0)

    def run(case: Case) -> Tensor:
        loss = head(case.hidden, case.weight, case.teacher_hidden, case.teacher_weight)
        loss.backward()
        return loss.detach()

    return run


class Floor:
    """The four products, into memory that is there already."""

    def __init__(self, case: Case):
        n, v, kind = len(case.hidden), len(case.weight), case.hidden.dtype
        self.student, self.teacher = (torch.empty(n, v, dtype=kind, device=case.hidden.device) for _ in range(2))
        self.hidden, self.weight = torch.empty_like(case.hidden), torch.empty_like(case.weight)

    @torch.no_grad()
    def __call__(self, case: Case) -> Tensor:
        torch.mm(case.hidden, case.weight.T, out=self.student)
        torch.mm(case.teacher_hidden, case.teacher_weight.T, out=self.teacher)
        torch.mm(self.student, case.weight, out=self.hidden)
        torch.mm(self.student.T, case.hidden, out=self.weight)
        return self.hidden[0, 0]


def contestants(device: str, memory_mb: dict[str, float | None], dtype: str) -> dict[str, Contestant]:
    """Name -> contestant; those of other packages only where they are installed."""
    found: dict[str, Contestant] = {f"potstill {name}": potstill(mb) for name, mb in memory_mb.items()}
    if dtype != "float32":
        found["potstill fp32 logits"] = potstill(memory_mb["default"], "fp32")
    makers: dict[str, Callable[[], Contestant]] = {
        "naive": lambda: naive,
        "naive compiled": compiled,
        "TRL chunked": trl,
        "Liger chunked": lambda: liger(False),
        "Liger chunked, compiled": lambda: liger(True),
    }
    if device == "cuda":
        makers["Liger Triton"] = liger_triton
    for name, make in makers.items():
        try:
            found[name] = make()
        except ImportError as error:
            print(f"{name}: left out, {error}")
    return found
