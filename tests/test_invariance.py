"""How a batch is cut, padded or shared changes nothing; prompt and padding get no gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from conftest import make_llama, make_t5
from torch import Tensor, nn

from potstill.config.objective import ObjectiveConfig
from potstill.config.terms import CrossEntropy, ForwardKL
from potstill.config.training import Optimiser, Training
from potstill.data.collate import Layout, Row, collate
from potstill.losses.objective import Objective
from potstill.models.scored import ScoredModel
from potstill.models.vocabulary import Alignment
from potstill.sources import Planned
from potstill.teachers import LocalTeacher
from potstill.training.loop import Trainer
from potstill.training.parallel import World

VOCABULARY = 61
WORLD = World(0, 1, torch.device("cpu"))
LENGTHS = [(3, 9), (5, 2), (1, 14), (8, 4), (2, 7), (6, 1), (4, 11), (7, 5)]


def rows(seed: int = 0) -> list[Row]:
    generator = torch.Generator().manual_seed(seed)
    made = []
    for i, (prompt, answer) in enumerate(LENGTHS):
        ids = torch.randint(3, VOCABULARY, (prompt + answer,), generator=generator).tolist()
        who = "reference" if i % 3 == 0 else "teacher"
        flags = (False,) * prompt
        made.append(Row(f"p{i}", 0, who, tuple(ids[:prompt]), flags, tuple(ids[prompt:])))  # type: ignore[arg-type]
    return made


def objective(normalise: str = "token") -> Objective:
    terms = (
        ForwardKL(kind="forward_kl", weight=0.7, on=("teacher", "reference"), divergence_temperature=2.0),
        CrossEntropy(kind="cross_entropy", weight=0.3, on=("reference",)),
    )
    return Objective(ObjectiveConfig(terms=terms, normalise=normalise, head_memory_mb=0.005))  # type: ignore[arg-type]


class AllRows:
    """A source whose every step is all rows."""

    plans: Sequence[Any] = ()

    def planned(self, step: int) -> list[Planned]:
        return [Planned("teacher", i) for i in range(len(LENGTHS))]

    def epoch(self, step: int) -> float:
        return float(step)

    def replan(self, plan: object) -> None:
        raise AssertionError


def make(family: str, tie: bool = True) -> tuple[nn.Module, nn.Module, Layout]:
    if family == "llama":
        return make_llama(VOCABULARY, 0, 3, tie), make_llama(VOCABULARY, 1, 2, tie), Layout(0)
    return make_t5(VOCABULARY, 0, 2, tie), make_t5(VOCABULARY, 1, 1, tie), Layout(0, 0)


def trainer(family: str, layout: Layout | None = None, micro: int | None = None, normalise: str = "token",
            keep_mb: float = 64.0, tie: bool = True) -> Trainer:  # fmt: skip
    teacher, student, plain = make(family, tie)
    layout = layout or plain
    config = Training(
        steps=9,
        batch_rows=8,
        micro_batch_rows=micro,
        precision="fp32",
        optimiser=Optimiser(learning_rate=1e-3),
    )
    said = LocalTeacher(
        ScoredModel(teacher),
        rows(),
        layout,
        Alignment(None, VOCABULARY),
        "t",
        keep_mb,
        torch.device("cpu"),
        range(len(LENGTHS)),
    )
    scored = ScoredModel(student)
    optimiser = torch.optim.AdamW(scored.parameters(), lr=1e-3)
    return Trainer(scored, optimiser, objective(normalise), AllRows(), rows(), layout, said, config, WORLD)


def gradient(made: Trainer) -> Tensor:
    """The whole gradient of one optimiser step, flat."""
    parts = made.micro_batches()
    denominator = made.objective.denominator(batch for _, batch in parts)
    for ids, batch in parts:
        made.backward(ids, batch, made.objective.weights(), denominator)
    return torch.cat([p.grad.flatten() for p in made.student.parameters() if p.grad is not None])


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("normalise", ["token", "sequence"])
@pytest.mark.parametrize("family", ["llama", "t5"])
def test_the_gradient_does_not_depend_on_how_the_batch_is_cut(family: str, normalise: str) -> None:
    whole = gradient(trainer(family, normalise=normalise))
    assert whole.norm() > 0
    for micro in (1, 2, 4, 8):
        assert relative(gradient(trainer(family, micro=micro, normalise=normalise)), whole) < 2e-6, micro


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_padding_left_or_right_gives_the_same_gradient(family: str) -> None:
    right = gradient(trainer(family))
    start = None if family == "llama" else 0
    left = gradient(trainer(family, layout=Layout(0, start, "left")))
    assert relative(left, right) < 2e-6


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_the_pad_tokens_id_is_never_seen(family: str) -> None:
    start = None if family == "llama" else 0
    assert torch.equal(gradient(trainer(family)), gradient(trainer(family, layout=Layout(7, start))))


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_kept_hidden_states_and_a_teacher_pass_agree(family: str) -> None:
    assert relative(gradient(trainer(family, keep_mb=0.0)), gradient(trainer(family))) < 2e-6


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_prompt_and_pad_positions_get_exactly_no_gradient(family: str) -> None:
    """The gradient with respect to the decoder's last hidden states is 0 wherever nothing counts."""
    made = trainer(family)
    student: Any = made.student
    kept: list[Tensor] = []

    def keep(module: nn.Module, inputs: object, output: Any) -> None:
        output.last_hidden_state.retain_grad()
        kept.append(output.last_hidden_state)

    student.model.get_decoder().register_forward_hook(keep)
    (ids, batch), *_ = made.micro_batches()
    made.backward(ids, batch, made.objective.weights(), 1.0)
    grad = kept[-1].grad
    assert grad is not None
    assert grad[~batch.counted].abs().max() == 0 if (~batch.counted).any() else True
    assert (grad[batch.counted].abs().sum(-1) > 0).all()


def test_the_shift_is_right() -> None:
    """Output t predicts input t + 1: recomputed without collate."""
    model = make_llama(VOCABULARY)
    row = rows()[0]
    batch = collate([row], Layout(0))
    ids = torch.tensor([row.prompt + row.answer])
    logits = torch.log_softmax(model(input_ids=ids).logits[0].double(), -1)
    where = range(len(row.prompt), len(row.prompt) + len(row.answer))
    expected = -torch.stack([logits[t - 1, ids[0, t]] for t in where]).sum()
    only = ObjectiveConfig(terms=(CrossEntropy(kind="cross_entropy", weight=1.0, on=("reference",)),))
    found = ScoredModel(model)(Objective(only).weigh(batch), Objective(only)).sums
    assert found["cross_entropy"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_student_that_is_the_teacher_has_loss_zero_and_gradient_zero() -> None:
    teacher, _, layout = make("llama")
    said = LocalTeacher(
        ScoredModel(teacher), rows(), layout, Alignment(None, VOCABULARY), "t", 0.0, torch.device("cpu")
    )
    only = ObjectiveConfig(terms=(ForwardKL(kind="forward_kl", weight=1.0, on=("teacher", "reference")),))
    config = Training(steps=1, batch_rows=8, precision="fp32", optimiser=Optimiser(learning_rate=1e-3))
    scored = ScoredModel(teacher)
    made = Trainer(scored, torch.optim.SGD(scored.parameters()), Objective(only), AllRows(), rows(), layout, said,
                   config, WORLD)  # fmt: skip
    flat = gradient(made)
    # p and q come from two passes of the same tensor; softmax's backward leaves rounding.
    assert flat.norm() < 1e-5
