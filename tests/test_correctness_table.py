"""The correctness table of benchmarks/correctness: Potstill passes every check, and the checks can fail."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT
from torch import Tensor

HERE = ROOT / "benchmarks" / "correctness"
sys.path[:0] = [str(HERE), str(HERE / "adapters")]

import cases  # noqa: E402
import protocol  # noqa: E402
import reference  # noqa: E402
import run  # noqa: E402
from answers import Answers, Inputs  # noqa: E402
from checks import CHECKS, run_check  # noqa: E402

Loss = Callable[[Tensor, Tensor], Tensor]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    folder = tmp_path_factory.mktemp("cases")
    cases.write(folder)
    return Inputs(folder)


def test_potstill_passes_every_check(inputs: Inputs, tmp_path: Path) -> None:
    assert run.run_adapter("potstill", sys.executable, inputs.folder, tmp_path) == ""
    about = run.compare(tmp_path, inputs)
    found = {
        f"{entry['name']}/{check}": answer["verdict"]
        for entry in about["entries"]
        for check, answer in entry["checks"].items()
    }
    assert len(found) == 2 * len(CHECKS)
    assert {name: verdict for name, verdict in found.items() if verdict != "pass"} == {}


def forward_kl(teacher: Tensor, student: Tensor) -> Tensor:
    """Per token, as it should be."""
    teacher, student = teacher.float(), student.float()
    p, q = torch.log_softmax(teacher, -1), torch.log_softmax(student, -1)
    return (p.exp() * (p - q)).sum(-1)


def step(world: protocol.World, loss: Loss, temperature: float, local_mean: bool) -> list[list[float]]:
    """A sound trainer of a loss of its own, but for `local_mean`: each micro-batch divided by its own tokens."""
    total = sum(int(batch.counted.sum()) for rank in world for batch in rank)
    losses: list[list[float]] = []
    for rank in world:
        losses.append([])
        for batch in rank:
            here = batch.counted
            values = loss(batch.teacher[:, :-1][here] / temperature, batch.student[:, :-1][here] / temperature)
            count = max(1, int(here.sum())) * len(rank) * len(world) if local_mean else total
            losses[-1].append(protocol.backward(temperature**2 * values.sum() / count))
    return losses


def verdicts(
    loss: Loss, inputs: Inputs, local_mean: bool = False, kind: str = "forward_kl"
) -> dict[str, dict[str, Any]]:
    """What the checks say of a loss written here, by check."""
    entry = protocol.Entry(
        "broken", "here", {kind: loss}, lambda world, what, t: step(world, what, t, local_mean),
        sums_over_ranks=True,
    )  # fmt: skip
    scenarios = {name: cases.scenario(name) for name in cases.SCENARIOS}
    stored = protocol.run_entry(entry, inputs.folder, scenarios, [0])
    about = {
        name: getattr(entry, name)
        for name in ("name", "differentiates", "temperature", "not_offered", "notes", "excluded")
    }
    return {check: run_check(check, Answers(about, kind, 0, stored, inputs)) for check in CHECKS}


def failed(found: dict[str, dict[str, Any]]) -> set[str]:
    return {check for check, answer in found.items() if answer["verdict"] == "fail"}


def test_a_sound_loss_fails_nothing(inputs: Inputs) -> None:
    assert failed(verdicts(forward_kl, inputs)) == set()


def test_a_missing_teacher_entropy_fails_by_value_alone(inputs: Inputs) -> None:
    def cross_entropy(teacher: Tensor, student: Tensor) -> Tensor:
        return -(torch.softmax(teacher.float(), -1) * torch.log_softmax(student.float(), -1)).sum(-1)

    assert failed(verdicts(cross_entropy, inputs)) == {"value"}


def test_a_mean_of_local_means_fails_accumulation_and_two_ranks(inputs: Inputs) -> None:
    found = verdicts(forward_kl, inputs, local_mean=True)
    assert failed(found) == {"accumulation", "two_ranks"}
    assert found["accumulation"]["numbers"]["error"] > 0.1


def test_reverse_kl_computed_in_bf16_fails_on_bf16_inputs_alone(inputs: Inputs) -> None:
    def rounded(teacher: Tensor, student: Tensor) -> Tensor:
        p, q = torch.log_softmax(teacher, -1), torch.log_softmax(student, -1)
        return (q.exp() * (q - p)).sum(-1).float()

    assert failed(verdicts(rounded, inputs, kind="reverse_kl")) == {"bf16"}


def test_zeros_in_missing_columns_fail_with_the_mass_they_take(inputs: Inputs) -> None:
    def padded(teacher: Tensor, student: Tensor) -> Tensor:
        missing = teacher.shape[-1] - student.shape[-1]
        widen = torch.nn.functional.pad
        return forward_kl(widen(teacher, (0, max(0, -missing))), widen(student, (0, max(0, missing))))

    found = verdicts(padded, inputs)
    assert failed(found) == {"vocabulary"}
    assert found["vocabulary"]["numbers"]["teacher_wider/mass"] > 1e-3


def test_the_reference_agrees_with_finite_differences() -> None:
    generator = torch.Generator().manual_seed(3)
    teacher, student = (torch.randn(4, 7, generator=generator, dtype=torch.float64).numpy() for _ in range(2))
    for kind in ("forward_kl", "reverse_kl", "jsd", "symmetric_kl"):
        _, grad = reference.per_token(kind, teacher, student)
        for column in range(7):
            nudge = 1e-6 * (torch.arange(7) == column).double().numpy()
            up, down = (reference.per_token(kind, teacher, student + sign * nudge)[0] for sign in (1, -1))
            assert grad[:, column] == pytest.approx((up - down) / 2e-6, abs=1e-8)
