"""Distil or train plainly? The answer for one student's budget, from the laws of a pretraining lab.

Two comparisons. At *equal tokens* the twin reads what the student reads; this is about
data. At *equal FLOPs* the plain student reads on for what the teacher's forward passes
cost (with `train_teacher`, for its training too), as far as there is text; this is about
compute. Both come as the probability that distilling ends better. Held-out text, text of
other domains and benchmarks are answered apart, because they answer differently
(Lu and Liu 2026, arXiv 2605.23857); one of them decides.

From 0.9 on the answer is to distil, up to 0.1 to train plainly, and between them nobody
knows. The best of several teachers and weights is a little luckier than it is good; the
probability does not correct for that, nor for how far a law is stretched, which is said
beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from potstill.lab.amounts import amount_of, short
from potstill.lab.laws import VERSION, fit_laws
from potstill.lab.ledger import Ledger, Size, Sizes, ledger_of
from potstill.lab.plan_models import Known, Teacher, teachers_of
from potstill.lab.plan_reach import reach
from potstill.lab.predictions import Doubtful, Law, difference, draws_in, misses, supervised_loss

SURE = 0.9
WEIGHT_STEP = 0.05
Objective = Literal["held_out", "out-of-domain", "downstream"]
Decision = Literal["distil", "train plainly", "undecided"]


@dataclass(frozen=True, slots=True)
class Question:
    """What somebody has: a student's size and tokens, teachers, text."""

    student: str  # a size of the lab, or a number of parameters: 0.9M
    tokens: str  # 20M
    teachers: tuple[str, ...] = ()  # NAME=PARAMS,TOKENS[,LOSS], or an id in the results; none: all of the results
    by: str = "held_out"
    train_teacher: bool = False
    unique_tokens: str | None = None


@dataclass(frozen=True, slots=True)
class Case:
    """The question, read, with what answers it."""

    known: Known
    student: Size
    tokens: float
    unique: float | None
    train_teacher: bool


def plan(results: Mapping[str, Any], question: Question) -> dict[str, Any]:
    """The answer as plain JSON values: `answer`, `objectives` (all three), `student`, `teachers`, `notes`.

    `results` is results.json of the pretraining lab (its laws are fitted here if it has none), or only
    {"laws": ...}, and sizes. Raises ValueError in words where there is nothing to answer from.
    """
    if question.by not in get_args(Objective):
        raise ValueError(f"--by is {', '.join(get_args(Objective))}; found {question.by!r}")
    laws = results.get("laws") or {}
    if laws.get("version") != VERSION:
        laws = fit_laws(results)
    known = Known(results, laws)
    sizes = Sizes(results)
    student = sizes.of(question.student, "--student")
    tokens = amount_of(question.tokens, "--tokens")
    unique = None if question.unique_tokens is None else amount_of(question.unique_tokens, "--unique-tokens")
    case = Case(known, student, tokens, unique, question.train_teacher)
    teachers = teachers_of(question.teachers, known, sizes)
    ledgers = {teacher.name: ledger(case, teacher) for teacher in teachers}
    objectives = {name: judged(case, name, teachers, ledgers) for name in get_args(Objective)}
    chosen = objectives[question.by]
    if chosen["status"] == "none":
        raise ValueError(f"no answer by {question.by}: {chosen['why']}")
    return {
        "answer": {"by": question.by, **{key: chosen[key] for key in ANSWER}},
        "student": {
            "size": student.name, "body_parameters": student.body, "counted_parameters": student.counted,
            "words": student.words, "tokens": tokens, "unique_tokens": unique,
        },
        "train_teacher": question.train_teacher,
        "objectives": objectives,
        "teachers": [teacher_json(teacher, ledgers[teacher.name]) for teacher in teachers],
        "notes": notes_of(case),
    }  # fmt: skip


ANSWER = ("decision", "sentence", "teacher", "weight", "tokens", "probability", "extrapolates")


def ledger(case: Case, teacher: Teacher) -> Ledger:
    trained = teacher.tokens if case.train_teacher else None
    return ledger_of(case.student, case.tokens, teacher.size, trained, case.unique)


def teacher_json(teacher: Teacher, costs: Ledger) -> dict[str, Any]:
    """A teacher with its FLOPs."""
    return {
        "name": teacher.name,
        "counted_parameters": teacher.size.counted,
        "words": teacher.size.words,
        "tokens": teacher.tokens,
        "given_loss": teacher.loss,
        "flops": {
            "student_training": costs.student_training,
            "teacher_forward": costs.teacher_forward,
            "teacher_training": costs.teacher_training,
            "total": costs.total,
        },
        "plain_tokens_at_equal_flops": costs.plain_tokens,
        "capped_by_unique_tokens": costs.capped,
    }


def notes_of(case: Case) -> list[str]:
    """What a reader has to know beside the answer."""
    found = []
    if case.unique is not None and case.tokens > case.unique:
        found.append(
            f"{short(case.tokens)} tokens from {short(case.unique)} unique ones means reading text again; "
            "the laws know only fresh text"
        )
    if case.unique is None:
        found.append(
            "no --unique-tokens: the plain student at equal FLOPs is taken to find as much fresh text as it likes"
        )
    return found


# -- one objective --------------------------------------------------------------


def judged(case: Case, name: str, teachers: Sequence[Teacher], ledgers: Mapping[str, Ledger]) -> dict[str, Any]:
    """Every teacher at its best weight, and the decision for the best of them."""
    measures, why = case.known.measures_of(name)
    if not measures:
        return {"status": "none", "why": why}
    rows = [one_teacher(case, measures, teacher, ledgers[teacher.name]) for teacher in teachers]
    usable = sorted((row for row in rows if row["status"] == "fitted"), key=preferred)
    if not usable:
        return {"status": "none", "why": rows[0]["why"]}
    best = usable[0]
    decision = decided(best["probability"])
    return {
        "status": "fitted",
        "why": why,
        "measures": list(measures),
        "decision": decision,
        "sentence": sentence(case, best, decision),
        "teacher": best["teacher"] if decision != "train plainly" else None,
        "weight": best["weight"] if decision != "train plainly" else 0.0,
        "tokens": best["plain_tokens"] if decision == "train plainly" and best["plain_tokens"] else case.tokens,
        "probability": best["probability"],
        "extrapolates": best["extrapolates"],
        "teachers": usable + [row for row in rows if row["status"] != "fitted"],
    }


def preferred(row: Mapping[str, Any]) -> tuple[int, float]:
    """Surer of distilling first (a smaller teacher may be worth its FLOPs where the best one is not), then better."""
    order: list[Decision] = ["distil", "undecided", "train plainly"]
    return order.index(decided(row["probability"])), row["change"]["value"]


def one_teacher(case: Case, measures: Sequence[str], teacher: Teacher, costs: Ledger) -> dict[str, Any]:
    """The best weight of one teacher: change (lower is better; benchmarks with their sign turned), probabilities."""
    laws = [case.known.law(name, "difference") for name in measures]
    try:
        gaps = [case.known.gap(name, case.student, case.tokens, teacher) for name in measures]
    except ValueError as error:
        return {"status": "none", "teacher": teacher.name, "why": str(error)}
    missed = [misses(law, np.random.default_rng([7, index])) for index, law in enumerate(laws)]
    signs = [case.known.sign(name) for name in measures]

    def changes(weight: float) -> list[Doubtful]:
        together = zip(laws, gaps, missed, strict=True)
        return [difference(law, gap, weight, case.student.body, miss) for law, gap, miss in together]

    weights = weights_in(laws)
    means = [float(np.mean([s * d.value for s, d in zip(signs, changes(w), strict=True)])) for w in weights]
    weight = weights[int(np.argmin(means))]
    each = changes(weight)
    change = averaged([Doubtful(s * d.value, s * d.draws) for s, d in zip(signs, each, strict=True)])
    more = longer(case, measures, costs)
    equal_flops = None if more is None else (change - more).below_zero()
    further = case.tokens if more is None else costs.plain_tokens
    return {
        "status": "fitted",
        "teacher": teacher.name,
        "weight": weight,
        "change": change.interval(),
        "by_measure": {
            name: one.interval() | {"gap": gap.value} for name, one, gap in zip(measures, each, gaps, strict=True)
        },
        "plain_change": None if more is None else more.interval(),
        "plain_tokens": None if more is None else costs.plain_tokens,
        "probability": {"equal_tokens": change.below_zero(), "equal_flops": equal_flops},
        "measured": case.known.measured(measures, case.student, case.tokens, teacher),
        "extrapolates": reach(case.known, measures, case.student, case.tokens, teacher, gaps, further),
    }


def weights_in(laws: Sequence[Law]) -> list[float]:
    """Weights between the lowest and the highest that were measured, in steps of 0.05."""
    low = max(law["range"]["weight"][0] for law in laws)
    high = min(law["range"]["weight"][1] for law in laws)
    inside = np.arange(round(low / WEIGHT_STEP), round(high / WEIGHT_STEP) + 1) * WEIGHT_STEP
    return sorted({low, high, *(round(float(w), 4) for w in inside if low < w < high)})


def averaged(parts: Sequence[Doubtful]) -> Doubtful:
    """The mean over measures, draw by draw."""
    count = min(len(part.draws) for part in parts)
    draws = np.mean([part.draws[:count] for part in parts], axis=0)
    return Doubtful(float(np.mean([part.value for part in parts])), draws)


def longer(case: Case, measures: Sequence[str], costs: Ledger) -> Doubtful | None:
    """What the plain student gains by the tokens that the teacher would have cost; None where no law says."""
    if costs.plain_tokens <= case.tokens:
        first = case.known.law(measures[0], "difference")
        return Doubtful(0.0, np.zeros(draws_in(first)))
    found = []
    for name in measures:
        law = case.known.law(name, "supervised")
        if law.get("status") != "fitted":
            return None
        after = supervised_loss(law, case.student.body, costs.plain_tokens, None)
        found.append(after - supervised_loss(law, case.student.body, case.tokens, None))
    return averaged(found)


# -- words ----------------------------------------------------------------------


def decided(probability: Mapping[str, float | None]) -> Decision:
    """Distil where both comparisons (or the only one there is) are sure of it; plainly where one is sure of that."""
    there = [value for value in probability.values() if value is not None]
    if all(value >= SURE for value in there):
        return "distil"
    return "train plainly" if any(value <= 1 - SURE for value in there) else "undecided"


def sentence(case: Case, best: Mapping[str, Any], decision: Decision) -> str:
    """The answer as a colleague would say it."""
    tokens, flops = best["probability"]["equal_tokens"], best["probability"]["equal_flops"]
    chances = f"{percent(tokens)} that it ends better than its twin on equal tokens"
    chances += ", and nothing is known of equal FLOPs" if flops is None else f", {percent(flops)} at equal FLOPs"
    with_whom = f"{best['teacher']} at weight {best['weight']:g}"
    if decision == "distil":
        return f"Distil from {with_whom}, for {short(case.tokens)} tokens: {chances}."
    if decision == "undecided":
        return f"Undecided: the best teacher is {with_whom}, {chances}. Measure it: student and twin on three seeds."
    if tokens >= SURE:
        return (
            f"Train plainly, on {short(best['plain_tokens'])} tokens for the same FLOPs. Where text is what is scarce, "
            f"distil from {with_whom}: {chances}."
        )
    return f"Train plainly: even the best, {with_whom}, has a chance of {chances}."


def percent(probability: float) -> str:
    """Never a rounded 0 or 1: there are two hundred draws."""
    if probability > 0.99:
        return "over 99 %"
    return "under 1 %" if probability < 0.01 else f"{100 * probability:.0f} %"
