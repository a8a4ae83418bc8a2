"""Weights of terms over time, weights of tokens within a term, and divergences by who wrote the row."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from test_invariance import LENGTHS, VOCABULARY, WORLD, AllRows, make

from potstill.batch import TokenBatch
from potstill.config import ConfigError, Run
from potstill.config.objective import ObjectiveConfig
from potstill.config.training import Optimiser, Training
from potstill.data.collate import Layout, Row, collate
from potstill.data.traces import mark_traces, trace_length
from potstill.head import Head
from potstill.losses.fused import weighted_sums
from potstill.losses.objective import Objective
from potstill.models.scored import ScoredModel
from potstill.models.vocabulary import Alignment
from potstill.targets import Dense
from potstill.teachers import LocalTeacher
from potstill.training.distil import distil
from potstill.training.loop import Trainer
from potstill.training.monitor import proxy_objective
from potstill.training.show import Show

Make = Callable[..., Run]


def objective(*terms: dict[str, Any], **settings: Any) -> Objective:
    base: dict[str, Any] = {"kind": "forward_kl", "weight": 1.0, "on": ["teacher"]}
    return Objective(ObjectiveConfig.model_validate({"terms": [base | term for term in terms], **settings}))


def weights(schedule: dict[str, Any], steps: int) -> list[float]:
    made = objective({"weight": schedule})
    return [made.weights(step, steps)["forward_kl"] for step in range(steps)]


def test_schedules_of_a_terms_weight_by_hand() -> None:
    assert weights({"kind": "linear", "start": 1.0, "end": 0.0}, 5) == pytest.approx([1, 0.75, 0.5, 0.25, 0])
    middle = 0.2 + 0.8 * 0.5 * (1 + math.cos(math.pi / 4))
    assert weights({"kind": "cosine", "start": 1.0, "end": 0.2}, 5)[:3] == pytest.approx([1.0, middle, 0.6])
    wsd = {"kind": "wsd", "start": 0.1, "peak": 0.9, "end": 0.3, "rise_share": 0.2, "fall_share": 0.4}
    assert weights(wsd, 11) == pytest.approx([0.1, 0.5] + [0.9] * 5 + [0.75, 0.6, 0.45, 0.3])
    assert objective({"weight": 0.4}).weights(7, 9) == {"forward_kl": 0.4}


def test_a_term_that_ever_weighs_anything_stays_and_one_that_never_does_goes() -> None:
    made = objective({"weight": {"kind": "linear", "start": 0.0, "end": 1.0}}, {"kind": "reverse_kl", "weight": 0.0})
    assert made.names == ["forward_kl"]
    assert made.weights(0, 5) == {"forward_kl": 0.0}


def test_the_schedules_weight_is_the_one_that_training_uses(make_run: Make) -> None:
    terms = [
        {"kind": "forward_kl", "weight": {"kind": "linear", "start": 1.0, "end": 0.0}, "on": ["teacher", "reference"]},
        {"kind": "reverse_kl", "weight": {"kind": "linear", "start": 0.0, "end": 1.0}, "on": ["teacher", "reference"]},
    ]
    run = distil(make_run(objective={"terms": terms}), Show(quiet=True))
    lines = list(run.lines("metrics.jsonl"))
    assert [line["weight/forward_kl"] for line in lines] == pytest.approx([1.0, 0.8, 0.6, 0.4, 0.2, 0.0])
    for line in lines:
        forward, reverse = line["term/forward_kl"], line["term/reverse_kl"]
        expected = line["weight/forward_kl"] * forward + line["weight/reverse_kl"] * reverse
        assert line["loss"] == pytest.approx(expected, rel=1e-6)


def test_the_proxy_is_one_ruler_for_the_whole_run() -> None:
    made = objective(
        {"weight": {"kind": "linear", "start": 1.0, "end": 0.0}, "token_weighting": {"kind": "teacher_entropy"}},
        {"kind": "logit_mse", "weight": 3.0},
        {"kind": "cross_entropy", "weight": 0.5, "on": ["reference"]},
    )
    ruler = proxy_objective(made.config)
    assert ruler.weights() == {"forward_kl": pytest.approx(0.5)}
    assert ruler.terms[0].token_weighting is None
    assert proxy_objective(objective({"kind": "logit_mse"}).config).names == ["forward_kl"]


def batch(*rows: tuple[str, int, int]) -> TokenBatch:
    """Rows of (who, answer length, of which trace)."""
    made = [Row(f"p{i}", 0, who, (5,), (False,), (7,) * n, k) for i, (who, n, k) in enumerate(rows)]  # type: ignore[arg-type]
    return collate(made, Layout(0))


def test_weighting_by_position() -> None:
    early = objective({"token_weighting": {"kind": "position", "half_life_tokens": 2.0}})
    found = early.weigh(batch(("teacher", 4, 0), ("teacher", 2, 0))).token_weights["forward_kl"]
    torch.testing.assert_close(found, torch.tensor([[1.0, 2**-0.5, 0.5, 2**-1.5], [1.0, 2**-0.5, 0, 0]]))
    late = objective({"token_weighting": {"kind": "position", "half_life_tokens": 2.0, "favours": "late"}})
    found = late.weigh(batch(("teacher", 3, 0))).token_weights["forward_kl"]
    torch.testing.assert_close(found, torch.tensor([[0.0, 1 - 2**-0.5, 0.5]]))


def test_weighting_by_part_in_decoders_and_encoder_decoders() -> None:
    rule = objective({"token_weighting": {"kind": "part", "trace": 0.25, "answer": 1.0}})
    found = rule.weigh(batch(("teacher", 4, 3), ("teacher", 2, 0))).token_weights["forward_kl"]
    assert found.tolist() == [[0.25, 0.25, 0.25, 1.0], [1.0, 1.0, 0.0, 0.0]]
    row = Row("p", 0, "teacher", (5, 6), (False, False), (7, 8, 9), 2)
    found = rule.weigh(collate([row], Layout(0, 0))).token_weights["forward_kl"]
    assert found.tolist() == [[0.25, 0.25, 1.0]]


@pytest.mark.parametrize("head_memory_mb", [1e-4, 1.0])
def test_weighting_by_the_teachers_entropy_against_float64(head_memory_mb: float) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(7, 4, generator=generator)
    head = Head(torch.randn(9, 4, generator=generator))
    teacher = torch.log_softmax(3 * torch.randn(7, 9, generator=generator), -1)
    rule = {"kind": "teacher_entropy", "half_at_nats": 0.7, "favours": "low"}
    made = objective({"token_weighting": rule, "divergence_temperature": 2.0}, head_memory_mb=head_memory_mb)
    given = {"forward_kl_T2": torch.rand(7, generator=generator)}
    scored = weighted_sums(hidden, head, torch.zeros(7, dtype=torch.long), given, Dense(teacher, "t"), made)
    p = teacher.double().exp()
    entropies = -(p * p.log()).sum(-1)
    hot, q = (
        torch.softmax(teacher.double() / 2, -1),
        torch.log_softmax(hidden.double() @ head.weight.T.double() / 2, -1),
    )
    expected = 4 * (hot * (hot.log() - q)).sum(-1)
    torch.testing.assert_close(scored.values["forward_kl_T2"].double(), expected, rtol=1e-4, atol=1e-5)
    weighed = (expected * given["forward_kl_T2"] * 0.7 / (entropies + 0.7)).sum()
    assert float(scored.sums["forward_kl_T2"]) == pytest.approx(float(weighed), rel=1e-5)


def test_cross_entropy_weighed_by_entropy_asks_the_teacher() -> None:
    made = objective({"kind": "cross_entropy", "token_weighting": {"kind": "teacher_entropy"}})
    assert made.needs_teacher
    with pytest.raises(ValueError, match="needs the teacher's targets"):
        weighted_sums(
            torch.zeros(1, 4), Head(torch.zeros(9, 4)), torch.tensor([0]), {"cross_entropy": torch.ones(1)}, None, made
        )


def test_rows_of_different_provenance_have_divergences_of_their_own() -> None:
    """DistiLLM-2: skew forward KL on the teacher's answers, skew reverse KL on the student's."""
    made = objective({"kind": "skew_forward_kl"}, {"kind": "skew_reverse_kl", "on": ["student"]})
    weighed = made.weigh(batch(("teacher", 2, 0), ("student", 3, 0))).token_weights
    assert weighed["skew_forward_kl_0.1"].tolist() == [[1, 1, 0], [0, 0, 0]]
    assert weighed["skew_reverse_kl_0.1"].tolist() == [[0, 0, 0], [1, 1, 1]]


def test_one_kind_may_stand_twice_under_two_names() -> None:
    made = objective({"on": ["teacher"]}, {"on": ["student"], "weight": 0.3, "called": "forward_on_student"})
    assert made.weights() == {"forward_kl": 1.0, "forward_on_student": 0.3}
    with pytest.raises(ValueError, match="another one's name"):
        objective({"kind": "reverse_kl", "called": "forward_kl"})


RULES: list[dict[str, Any]] = [
    {"kind": "teacher_entropy"},
    {"kind": "position", "half_life_tokens": 3.0},
    {"kind": "part", "trace": 0.3, "answer": 1.0},
]


@pytest.mark.parametrize("family", ["llama", "t5"])
@pytest.mark.parametrize("normalise", ["token", "sequence"])
def test_weighed_gradients_do_not_depend_on_how_the_batch_is_cut(family: str, normalise: str) -> None:
    def gradient(micro: int | None, side: str) -> torch.Tensor:
        teacher, student, layout = make(family)
        layout = Layout(layout.pad_id, layout.decoder_start_id, side)  # type: ignore[arg-type]
        generator = torch.Generator().manual_seed(1)
        rows = []
        for i, (prompt, answer) in enumerate(LENGTHS):
            ids = torch.randint(3, VOCABULARY, (prompt + answer,), generator=generator).tolist()
            flags = (False,) * prompt
            rows.append(Row(f"p{i}", 0, "teacher", tuple(ids[:prompt]), flags, tuple(ids[prompt:]), answer // 2))
        kinds = ("forward_kl", "reverse_kl", "jensen_shannon")
        terms = [{"kind": kind, "token_weighting": rule} for kind, rule in zip(kinds, RULES, strict=True)]
        made = objective(*terms, normalise=normalise, head_memory_mb=0.005)
        config = Training(steps=9, batch_rows=8, micro_batch_rows=micro, optimiser=Optimiser(learning_rate=1.0))
        said = LocalTeacher(
            ScoredModel(teacher),
            rows,
            layout,
            Alignment(None, VOCABULARY),
            "t",
            64.0,
            torch.device("cpu"),
            range(len(rows)),
        )
        config = config.model_copy(update={"precision": "fp32"})
        trainer = Trainer(
            ScoredModel(student), torch.optim.SGD(student.parameters()), made, AllRows(), rows, layout, said, config,
            WORLD,
        )  # fmt: skip
        parts = trainer.micro_batches()
        for ids, part in parts:
            trainer.backward(ids, part, made.weights(), made.denominator(b for _, b in parts))
        return torch.cat([p.grad.flatten() for p in student.parameters() if p.grad is not None])

    whole = gradient(None, "right")
    for micro, side in ((1, "right"), (3, "left"), (8, "left")):
        assert float((gradient(micro, side) - whole).norm() / whole.norm()) < 2e-6


def test_the_end_of_a_trace_is_found_in_tokens(tokenizer: Any) -> None:
    ids = tokenizer("people make tea with care", add_special_tokens=False).input_ids
    for marker in ("make", "tea with", "people", "care"):
        count = trace_length(tokenizer, ids, marker)
        assert marker in tokenizer.decode(ids[:count]) and marker not in tokenizer.decode(ids[: count - 1])
    assert trace_length(tokenizer, ids, "nothing of this") == 0
    rows = [Row("p", 0, "teacher", (1,), (False,), tuple(ids))]
    assert 0 < mark_traces(rows, tokenizer, "make")[0].num_trace < len(ids)
    with pytest.raises(ValueError, match="none of 1 answers contains it"):
        mark_traces(rows, tokenizer, "</think>")


def test_a_run_weighs_traces_and_refuses_half_of_the_setting(make_run: Make) -> None:
    rule = {"kind": "part", "trace": 0.5, "answer": 1.0}
    term = {"kind": "forward_kl", "weight": 1.0, "on": ["teacher", "reference"], "token_weighting": rule}
    config = make_run(objective={"terms": [term]}, data__trace_ends_with="with", training__steps=2)
    plain = make_run(objective={"terms": [term | {"token_weighting": None}]}, output="plain", training__steps=2)
    weighed, whole = (
        [line["loss"] for line in distil(c, Show(quiet=True)).lines("metrics.jsonl")] for c in (config, plain)
    )
    assert 0 < weighed[0] < whole[0]
    with pytest.raises(ConfigError, match="which text ends a trace"):
        make_run(objective={"terms": [term]})
    with pytest.raises(ConfigError, match="trace_ends_with has no effect"):
        make_run(data__trace_ends_with="</think>")
