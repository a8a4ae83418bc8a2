"""The four claims on cells whose gains are known: reproduced, not reproduced, and when nobody can say."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from pretraining_cells import PAIRS, TWIN, answers, cell, made, teacher

from potstill.lab.pretraining import Model
from potstill.lab.pretraining_claims import best_cells, bound, counted, judge_claims
from potstill.lab.pretraining_reading import OUTSIDE, Cell, cells_of

WEAK, STRONG = teacher("S", 50, 0.5), teacher("L", 100, -0.5)
LOUD = (0.3, -0.2, 0.1)  # a gain that nobody can be sure of
YES, NO, UNKNOWN = "reproduced", "not reproduced", "not decidable"


def status(number: int, cells: Sequence[Cell]) -> str:
    return str(claim(number, cells)["status"])


def claim(number: int, cells: Sequence[Cell]) -> dict[str, Any]:
    found = judge_claims(cells)
    assert [one["number"] for one in found] == [1, 2, 3, 4]
    json.dumps(found, allow_nan=False)
    return found[number - 1]


def test_intervals_are_students_t_wider_for_more_looks() -> None:
    """Of 0.04, 0.05, 0.06: mean 0.05, error 0.01 / sqrt 3; t with 2 degrees is 4.303 at 95 % and 7.649 at 98.33 %."""
    one, three = bound([0.04, 0.05, 0.06]), bound([0.04, 0.05, 0.06], 3)
    error = 0.01 / 3**0.5
    assert one.low == pytest.approx(0.05 - 4.302653 * error, abs=1e-6)
    assert three.high == pytest.approx(0.05 + 7.648913 * error, abs=1e-5)


def test_without_cells_there_are_no_claims() -> None:
    assert judge_claims([]) == []
    assert judge_claims([replace(cell(WEAK, 0.5, 0.1), variant="temperature 2")]) == [], "variants are another question"


# -- 1: weak teachers help ------------------------------------------------------------


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ([cell(WEAK, 0.5, 0.2)], YES),
        ([cell(WEAK, 0.5, 0.0, outside=0.2)], YES),  # out of domain is enough
        ([cell(WEAK, 0.5, -0.2, outside=-0.2)], NO),
        ([cell(WEAK, 0.5, -0.2, outside=LOUD)], UNKNOWN),
        ([cell(WEAK, 0.5, LOUD)], UNKNOWN),
        ([cell(WEAK, 0.5, [0.2], outside=[0.2], seeds=[1])], UNKNOWN),
        ([cell(STRONG, 0.5, 0.2)], UNKNOWN),
        ([cell(WEAK, 1.0, 0.2)], UNKNOWN),  # not mixed
        ([cell(WEAK, 0.5, -0.2, outside=None)], NO),
        ([cell(WEAK, 0.5, -0.2, outside=-0.2, hits=(70, 90))], NO),
        ([cell(WEAK, 0.5, -0.2, outside=-0.2, hits=(90, 70))], YES),  # downstream is enough
    ],
)
def test_weak_teachers_help(cells: list[Cell], expected: str) -> None:
    assert status(1, cells) == expected


def test_a_teacher_as_good_as_the_twin_counts_as_weak_and_one_seed_says_so() -> None:
    even = teacher("S", 100, 0.0)
    assert status(1, [cell(even, 0.5, 0.2)]) == YES
    found = claim(1, [cell(even, 0.5, [0.2], outside=[0.2], seeds=[1])])
    assert "+0.200 (one seed)" in found["why"] and "sure in 0 of 1" in found["why"]


def test_the_cells_that_are_sure_are_named() -> None:
    """The best by its mean is not always the sure one."""
    loud = cell(teacher("M", 100, 0.4), 0.5, [1.0, -0.2, 0.8], outside=None)
    found = claim(1, [loud, cell(WEAK, 0.5, [0.1, 0.1, 0.1], outside=None)])
    assert found["status"] == YES and "best M@100 at 0.5" in found["why"]
    assert re.search(r"sure in 1 of 2 \(\w+@\d+ at 0\.5, \+0\.100", found["why"])


def test_a_gain_too_small_to_train_a_teacher_for_is_none() -> None:
    """-0.0015 to 0.0035 nats: open whether above 0, and sure to be below 0.005."""
    assert status(1, [cell(WEAK, 0.5, [0.000, 0.001, 0.002], outside=None)]) == NO
    assert status(1, [cell(WEAK, 0.5, [0.002, 0.003, 0.004], outside=None)]) == YES, "small and sure"
    assert status(1, [cell(WEAK, 0.5, [0.002, 0.004, 0.000], outside=None)]) == UNKNOWN


def test_a_lucky_one_among_many_is_not_enough() -> None:
    lucky = [0.04, 0.05, 0.06]
    assert status(1, [cell(WEAK, 0.5, lucky, outside=LOUD)]) == YES
    others = [cell(teacher("S", 10 + i, 0.5), 0.5, LOUD, outside=LOUD) for i in range(12)]
    found = claim(1, [cell(WEAK, 0.5, lucky, outside=LOUD), *others])
    assert found["status"] == UNKNOWN
    assert "corrected for 26 looks" in found["why"]


# -- 2: stronger is not always better ---------------------------------------------------


def pushed(low: float | Sequence[float], high: float | Sequence[float], **more: Any) -> list[Cell]:
    """One push by size: S to L, both on 100 tokens."""
    return [cell(teacher("S", 100, 0.2), 0.5, low, **more), cell(STRONG, 0.5, high, **more)]


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (pushed(0.3, [0.1, 0.1, 0.1]), YES),
        (pushed(0.1, [0.3, 0.3, 0.3]), NO),
        (pushed(0.1, LOUD), UNKNOWN),
        (pushed([0.3], [0.1], outside=[0.0], seeds=[1]), UNKNOWN),
        ([cell(STRONG, 0.5, 0.3)], UNKNOWN),
        ([cell(WEAK, 0.5, 0.3), cell(STRONG, 0.5, 0.1)], UNKNOWN),  # size and tokens at once are no push
        ([cell(WEAK, 0.5, 0.3), cell(teacher("S", 100, 0.2), 0.5, [0.1, 0.1, 0.1])], YES),  # by tokens
    ],
)
def test_stronger_is_not_always_better(cells: list[Cell], expected: str) -> None:
    assert status(2, cells) == expected


def test_a_push_that_made_the_teacher_itself_worse_is_told_as_one() -> None:
    said = claim(2, pushed(0.3, [0.1, 0.1, 0.1]))["why"]
    assert "1 hurt (0 of these made the teacher's own loss worse), of 1." in said
    low = cell(teacher("S", 100, -0.2), 0.5, 0.3)
    found = claim(2, [low, cell(teacher("L", 100, 0.4), 0.5, [0.1, 0.1, 0.1])])
    assert found["status"] == YES and "1 hurt (1 of these made the teacher's own loss worse)" in found["why"]


def test_each_teacher_is_judged_at_its_best_weight() -> None:
    cells = [*pushed(0.3, [0.1, 0.1, 0.1]), cell(STRONG, 0.2, [0.5, 0.5, 0.5])]
    assert status(2, cells) == NO
    assert "L@100 at 0.2" in claim(2, cells)["why"]


def test_the_best_teacher_is_picked_among_all_so_its_lead_is_corrected() -> None:
    """Lead 0.04 with an error of 0.00577: sure with one look (0.0248), not with three (0.0442)."""
    strongest = cell(teacher("M", 300, -0.9), 0.5, [0.0, 0.0, 0.0])
    ahead = cell(teacher("L", 200, -0.3), 0.5, [0.03, 0.04, 0.05])
    push = pushed([-0.3, -0.4, -0.2], [-0.2, -0.6, -0.1])
    few = [strongest, ahead, push[0], replace(push[1], teacher=teacher("L", 100, -0.2))]
    assert status(2, few) == UNKNOWN
    surer = cell(teacher("L", 200, -0.3), 0.5, [0.035, 0.04, 0.045])
    assert status(2, [strongest, surer, *few[2:]]) == YES


# -- 3: pure distillation loses ---------------------------------------------------------


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ([cell(WEAK, 0.5, 0.1), cell(WEAK, 1.0, [-0.2, -0.2, -0.2])], YES),
        ([cell(WEAK, 0.5, 0.1), cell(WEAK, 1.0, [0.4, 0.4, 0.4])], NO),
        ([cell(WEAK, 0.5, 0.1), cell(WEAK, 1.0, LOUD)], UNKNOWN),
        ([cell(WEAK, 0.5, [0.1], seeds=[1]), cell(WEAK, 1.0, [-0.2], seeds=[1])], UNKNOWN),
        ([cell(WEAK, 0.5, 0.1)], UNKNOWN),
        ([cell(STRONG, 0.5, 0.1), cell(STRONG, 1.0, [-0.2, -0.2, -0.2])], UNKNOWN),
    ],
)
def test_pure_distillation_loses(cells: list[Cell], expected: str) -> None:
    assert status(3, cells) == expected


def test_one_weak_teacher_for_whom_it_is_open_leaves_the_claim_open() -> None:
    other = teacher("S", 20, 0.9)
    lost = [cell(WEAK, 0.5, 0.1), cell(WEAK, 1.0, [-0.9, -0.9, -0.9])]
    assert status(3, [*lost, cell(other, 0.5, 0.1), cell(other, 1.0, LOUD)]) == UNKNOWN


def test_the_best_of_several_mixtures_has_to_win_by_more() -> None:
    pure, best = cell(WEAK, 1.0, [0.0, 0.0, 0.0]), cell(WEAK, 0.5, [0.03, 0.04, 0.05])
    assert status(3, [pure, best]) == YES
    assert status(3, [pure, best, cell(WEAK, 0.2, -0.1), cell(WEAK, 0.8, -0.1)]) == UNKNOWN


# -- 4: generalisation gains first --------------------------------------------------------


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ([cell(WEAK, 0.5, 0.1, outside=[0.3, 0.3, 0.3])], YES),
        ([cell(WEAK, 0.5, 0.1, outside=[0.0, 0.0, 0.0])], NO),
        ([cell(WEAK, 0.5, 0.1, outside=LOUD)], UNKNOWN),
        ([cell(WEAK, 0.5, [0.1], outside=[0.3], seeds=[1])], UNKNOWN),
        ([cell(WEAK, 0.5, 0.1, outside=None)], UNKNOWN),
        (
            [cell(WEAK, 0.5, 0.1, outside=[0.3, 0.3, 0.3]), cell(WEAK, 1.0, 0.1, outside=[-2, -2, -2])],
            YES,
        ),  # pure apart
    ],
)
def test_generalisation_gains_first(cells: list[Cell], expected: str) -> None:
    assert status(4, cells) == expected


def test_several_outside_sets_are_one_mean() -> None:
    twin = made(Model("twin", "S", 100, 1), 4.0, 5.0)
    twin.measures["perplexity"]["stories"] = {"nats_per_token": 6.0, "tokens": 10}
    assert twin.values[OUTSIDE] == 5.5
    assert made(Model("twin", "S", 100, 2), 4.0, 5.0).values == {"held_out": 4.0, "technical": 5.0}


# -- what counts ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hits", "measure"),
    [(61, "accuracy"), (60, "margin"), (50, "margin"), (30, "margin")],
)
def test_accuracy_counts_only_two_standard_errors_above_chance(hits: int, measure: str) -> None:
    """Guessing has an error of 0.05 on 100 pairs."""
    assert counted([cell(WEAK, 0.5, 0.1, hits=(99, hits))]) == [f"{PAIRS} {measure}"]


def test_accuracy_counts_only_where_every_twin_of_every_cell_beats_chance() -> None:
    good = cell(WEAK, 0.5, 0.1, hits=(70, 90))
    assert counted([good]) == [f"{PAIRS} accuracy"]
    bad = made(Model("twin", "S", 100, 3), TWIN, TWIN + 1, {PAIRS: answers(52)})
    one_fails = replace(good, pairs=(*good.pairs[:2], (good.pairs[2][0], bad)))
    assert counted([one_fails]) == [f"{PAIRS} margin"]
    assert counted([replace(good, pairs=good.pairs[:2]), one_fails]) == [f"{PAIRS} margin"], (
        "not the first cell's alone"
    )


def test_a_set_without_wrong_choices_counts_by_surprise() -> None:
    single = answers(10) | {"margin": None}
    found = cell(WEAK, 0.5, 0.1, hits=(10, 10))
    for pair in found.pairs:
        for one in pair:
            one.measures["choices"][PAIRS] = single
    assert counted([found]) == [f"{PAIRS} surprise"]


def test_gains_point_up_whichever_direction_is_better() -> None:
    found = cell(WEAK, 0.5, [0.1, 0.2, 0.3], hits=(60, 90))
    assert found.gains("held_out") == pytest.approx([0.1, 0.2, 0.3])
    assert found.differences("held_out") == pytest.approx([-0.1, -0.2, -0.3])
    assert found.gains(f"{PAIRS} accuracy") == pytest.approx([-0.3] * 3)
    assert found.gains(f"{PAIRS} surprise") == pytest.approx([-0.3] * 3)


# -- grids that are not whole -----------------------------------------------------------------


def test_a_grid_stopped_between_seeds_is_judged_on_the_seeds_that_all_have() -> None:
    whole = [cell(WEAK, 0.5, 0.2), cell(WEAK, 1.0, -0.2), cell(STRONG, 0.5, 0.3), cell(teacher("L", 50, 0.1), 1.0, 0.2)]
    stopped = [whole[0], *(replace(one, pairs=one.pairs[:2]) for one in whole[1:3]), whole[3]]
    expected = judge_claims([replace(one, pairs=one.pairs[:2]) for one in whole])
    assert judge_claims(stopped) == expected
    alone = [replace(whole[0], pairs=whole[0].pairs[:1]), replace(whole[1], pairs=whole[1].pairs[1:]), whole[2]]
    assert len(judge_claims(alone)) == 4, "no seed in common: the seed of most"


def test_cells_pair_by_size_tokens_and_seed_and_leave_out_who_has_no_twin() -> None:
    full = cell(WEAK, 0.5, 0.2)
    every = [WEAK, STRONG, *(one for pair in full.pairs for one in pair)]
    assert [c.seeds for c in cells_of(every)] == [[1, 2, 3]]
    without = [one for one in every if one.model != Model("twin", "S", 100, 2)]
    assert [c.seeds for c in cells_of(without)] == [[1, 3]]
    assert cells_of([one for one in every if one is not WEAK]) == []
    assert cells_of([]) == []


def test_best_cells_have_the_largest_mean_gain_each_teacher_by_itself() -> None:
    cells = [cell(WEAK, w, g) for w, g in ((0.2, 0.1), (0.5, 0.3), (1.0, -0.1))] + [cell(STRONG, 0.2, 0.05)]
    assert [(c.teacher.id, c.weight) for c in best_cells(cells, "held_out")] == [(WEAK.id, 0.5), (STRONG.id, 0.2)]
