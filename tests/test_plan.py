"""Plans from laws made by hand: FLOPs, answers, what is refused; and one from a fitted grid through the command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytest
import typer
from pretraining_results import simulated
from typer.testing import CliRunner

from potstill.cli.plan import plan_verb, read_results
from potstill.lab.amounts import amount_of, short
from potstill.lab.laws import fit_laws
from potstill.lab.ledger import Size, Sizes, ledger_of
from potstill.lab.planning import Question, decided, plan

STUDENT = Size("s", 80.0, 100.0, "")
TEACHER = Size("t", 250.0, 300.0, "")


def law(theta: list[float], scatter: float, **more: Any) -> dict[str, Any]:
    """A law whose draws scatter normally around theta, and that missed nothing."""
    rng = np.random.default_rng(0)
    draws = [[value + scatter * float(rng.normal()) for value in theta] for _ in range(200)]
    return {"status": "fitted", "why": "", "theta": theta, "draws": draws, "left_out": [0.0], "cells": []} | more


def by_hand(effect: float, slope: float = 0.0, scatter: float = 0.005, exponent: float = 0.1) -> dict[str, Any]:
    """d = w (effect + slope x), L = 40 / (N^0.1 D^exponent); sizes 1M to 4M, tokens 1M to 10M."""
    spans = {"body_parameters": [1e6, 1e6], "tokens": [1e6, 1e6], "weight": [0.2, 1.0], "x": [-0.5, 0.5]}
    difference = law([effect, slope], scatter, form="line", range=spans)
    centre, spans = {"size": 1.0, "tokens": 1.0}, {"body_parameters": [1e6, 4e6], "tokens": [1e6, 1e7]}
    theta = [np.log(40.0), np.log(0.1), np.log(exponent)]
    supervised = law(theta, 0.0, form="power", range=spans, centre=centre)
    entry = {"domain": "in", "unit": "nats per token", "better": "lower", "set_of_gap": "held_out"}
    return {
        "laws": {"version": 1, "measures": {"held_out": entry | {"supervised": supervised, "difference": difference}}}
    }


def ask(results: dict[str, Any], **more: Any) -> dict[str, Any]:
    asked = {"student": "1M", "tokens": "1M", "teachers": ("big=4M,4M",)} | more
    return plan(results, Question(**asked))


# -- numbers --------------------------------------------------------------------


def test_amounts_are_read_and_written() -> None:
    assert amount_of("0.9M", "x") == pytest.approx(9e5) and amount_of("20m", "x") == 2e7
    assert amount_of("3.4", "x") == 3.4 and amount_of("1_000", "x") == 1000
    assert [short(n) for n in (2.04e7, 9e5, 999_900, 1.5e9, 12.0)] == ["20.4M", "900K", "1M", "1.5B", "12"]
    for wrong in ("0.9X", "M", "-3M", "nan", "", "0", "1e999"):
        with pytest.raises(ValueError, match="--tokens: expected"):
            amount_of(wrong, "--tokens")


def test_the_ledger_by_hand() -> None:
    """6 x 100 x 50 for the student, 2 x 300 x 50 for the teacher's forward: as much again, so twice the tokens."""
    there = ledger_of(STUDENT, 50, TEACHER, None, None)
    assert (there.student_training, there.teacher_forward, there.teacher_training) == (30_000, 30_000, None)
    assert there.total == 60_000 and there.plain_tokens == 100 and not there.capped
    trained = ledger_of(STUDENT, 50, TEACHER, 200, None)
    assert trained.teacher_training == 360_000 and trained.plain_tokens == 50 + 390_000 / 600
    assert ledger_of(STUDENT, 50, TEACHER, 200, 80).plain_tokens == 80
    assert ledger_of(STUDENT, 50, TEACHER, 200, 80).capped
    assert ledger_of(STUDENT, 50, TEACHER, 200, 20).plain_tokens == 50


def test_sizes_come_from_the_lab_and_between_its_sizes_by_share() -> None:
    sizes = Sizes(simulated(choices=False))
    named = sizes.of("0.9M", "--student")
    assert (named.body, named.counted) == (790_000, 890_000)
    between = sizes.of("1.4M", "--student")
    assert 790 / 940 < between.body / 1.4e6 < 190 / 210
    assert Sizes({}).of("5M", "--student").body == 5e6


# -- answers --------------------------------------------------------------------


def test_a_teacher_that_helps_is_taken_at_its_best_weight() -> None:
    found = ask(by_hand(-0.5), unique_tokens="1M")
    assert found["answer"]["decision"] == "distil"
    assert (found["answer"]["teacher"], found["answer"]["weight"]) == ("big", 1.0)
    assert found["answer"]["probability"] == {"equal_tokens": 1.0, "equal_flops": 1.0}
    row = found["objectives"]["held_out"]["teachers"][0]
    assert row["change"]["value"] == pytest.approx(-0.5)
    loss = 40 / (4e6**0.1 * 4e6**0.1) - 40 / (1e6**0.1 * 1e6**0.1)
    assert row["by_measure"]["held_out"]["gap"] == pytest.approx(loss)


def test_a_teacher_that_hurts_is_left_and_nothing_is_sure_of_noise() -> None:
    found = ask(by_hand(+0.5))
    assert found["answer"]["decision"] == "train plainly" and found["answer"]["teacher"] is None
    assert "under 1 %" in found["answer"]["sentence"]
    found = ask(by_hand(0.0, scatter=0.05), unique_tokens="1M")
    assert found["answer"]["decision"] == "undecided"
    assert 0.3 < found["answer"]["probability"]["equal_tokens"] < 0.7


def test_equal_flops_can_turn_the_answer_and_scarce_text_turns_it_back() -> None:
    """The teacher's forward buys 2 x 4 / 6 as many tokens again: L falls by 1 - (7/3)^-0.1, 0.20 of 2.52 nats."""
    results = by_hand(-0.1)
    found = ask(results)
    row = found["objectives"]["held_out"]["teachers"][0]
    assert row["plain_tokens"] == pytest.approx(1e6 * 7 / 3)
    before = 40 / (1e6**0.1 * 1e6**0.1)
    assert row["plain_change"]["value"] == pytest.approx(before * ((7 / 3) ** -0.1 - 1))
    assert found["answer"]["probability"] == {"equal_tokens": 1.0, "equal_flops": 0.0}
    assert found["answer"]["decision"] == "train plainly" and found["answer"]["tokens"] == pytest.approx(7e6 / 3)
    assert "Where text is what is scarce, distil from big at weight 1" in found["answer"]["sentence"]
    assert ask(results, unique_tokens="1M")["answer"]["decision"] == "distil"
    trained = ask(results, train_teacher=True)
    assert trained["teachers"][0]["flops"]["teacher_training"] == 6 * 4e6 * 4e6


def test_a_smaller_teacher_is_taken_where_the_better_one_is_not_worth_its_flops() -> None:
    """d = w (-0.1 + 0.2 x), known losses: the strong one gains 0.20 and costs 30 M, the cheap one 0.16 and 0.1 M."""
    teachers = ("strong=30M,4M,2.0", "cheap=0.1M,4M,2.2")
    found = ask(by_hand(-0.1, 0.2, exponent=0.1), teachers=teachers)
    rows = {row["teacher"]: row for row in found["objectives"]["held_out"]["teachers"]}
    assert rows["strong"]["change"]["value"] < rows["cheap"]["change"]["value"]
    assert found["answer"]["teacher"] == "cheap" and found["answer"]["decision"] == "distil"


def test_decisions() -> None:
    assert decided({"equal_tokens": 0.95, "equal_flops": None}) == "distil"
    assert decided({"equal_tokens": 0.95, "equal_flops": 0.5}) == "undecided"
    assert decided({"equal_tokens": 0.95, "equal_flops": 0.05}) == "train plainly"


def test_reaching_beyond_the_grid_is_said_in_factors() -> None:
    found = ask(by_hand(-0.5, 0.0), tokens="20M", teachers=("huge=40M,10M",))
    lines = "\n".join(found["answer"]["extrapolates"])
    assert "the student's tokens, 20M: 20 times the most of the measured students with a teacher (1M)" in lines
    assert "the teacher's body, 40M: 10 times the most of the measured plain models (4M)" in lines
    assert ask(by_hand(-0.5), unique_tokens="1M", teachers=("big=4M,1M,2.4",))["answer"]["extrapolates"] == []
    weak = ask(by_hand(-0.5), teachers=("weak=4M,1M,9",))["answer"]["extrapolates"]
    assert any("nats weaker beside the twin than any measured one" in line for line in weak)


# -- refusals and the command ---------------------------------------------------

app = typer.Typer()


@app.command()
def command(
    results: Path,
    student: Annotated[str, typer.Option()],
    tokens: Annotated[str, typer.Option()],
    teacher: Annotated[list[str] | None, typer.Option()] = None,
    by: Annotated[str, typer.Option()] = "held_out",
    train_teacher: Annotated[bool, typer.Option("--train-teacher")] = False,
    unique_tokens: Annotated[str | None, typer.Option()] = None,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    plan_verb(results, student, tokens, teacher or [], by, train_teacher, unique_tokens, as_json)


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = simulated(choices=False, other_set=False)
    results["laws"] = fit_laws(results)
    folder = tmp_path_factory.mktemp("lab")
    (folder / "results.json").write_text(json.dumps(results, allow_nan=False))
    return folder


def run(*arguments: object) -> str:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_the_command_answers_from_a_fitted_grid(grid: Path) -> None:
    out = run(grid, "--student", "0.9M", "--tokens", "1M", "--unique-tokens", "1M")
    assert out.startswith("distil (by held_out)\nDistil from teacher-2M-3M at weight")
    assert "no answer: it was not measured" in out and "790K in the body, 890K with its head" in out
    found = json.loads(run(grid, "--student", "0.9M", "--tokens", "1M", "--teacher", "teacher-0.2M-0.3M", "--json"))
    assert found["answer"]["decision"] == "train plainly"
    row = found["objectives"]["held_out"]["teachers"][0]
    assert {one["weight"] for one in row["measured"]} == {0.5, 1.0}
    assert row["change"]["value"] == pytest.approx(min(one["difference"] for one in row["measured"]), abs=0.02)
    assert found["objectives"]["downstream"] == {"status": "none", "why": "it was not measured"}
    assert found["teachers"][0]["flops"]["student_training"] == 6 * 890_000 * 1_000_000


def test_laws_alone_are_enough(grid: Path, tmp_path: Path) -> None:
    laws = json.loads((grid / "results.json").read_text())["laws"]
    (tmp_path / "laws.json").write_text(json.dumps(laws))
    out = run(tmp_path / "laws.json", "--student", "0.8M", "--tokens", "1M", "--teacher", "mine=2M,3M")
    assert "the head's cost is not counted" in out


def test_nonsense_is_refused_in_words(grid: Path, tmp_path: Path) -> None:
    results = read_results(grid)
    for asked, words in (
        ({"tokens": "0.9X"}, "--tokens: expected a number with K, M, B or T"),
        ({"teachers": ("big=2M",)}, r"NAME=PARAMS,TOKENS\[,LOSS\], such as"),
        ({"teachers": ("nobody",)}, "a teacher of the results"),
        ({"teachers": ("a=2M,3M", "a=1M,3M")}, "names one twice"),
        ({"by": "taste"}, "--by is held_out"),
        ({"by": "downstream"}, "no answer by downstream: it was not measured"),
    ):
        with pytest.raises(ValueError, match=words):
            ask(results, **asked)
    with pytest.raises(ValueError, match="found no file"):
        read_results(tmp_path)
    (tmp_path / "results.json").write_text('{"lab": "hacking", "models": []}')
    with pytest.raises(ValueError, match="of the lab 'hacking'"):
        read_results(tmp_path)
    with pytest.raises(ValueError, match="no measured model of the main grid"):
        ask({"lab": "pretraining", "models": []})
    with pytest.raises(ValueError, match="no teachers"):
        ask(by_hand(0.1), teachers=())
