"""Sources: what feeds which step is a function of (seed, plans, step) and keeps to its shares."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from potstill.records import DataPlan
from potstill.sources import Catalog, MixtureSource, ReplayRule
from potstill.sources.base import FRESH
from potstill.sources.catalog import Known, prompt_order
from potstill.sources.mixture import next_in_turn

PROMPTS = [f"p{i}" for i in range(10)]


def plan(
    version: int = 1, from_step: int = 0, completions: int = 1, prompts: int = 10**6, **fractions: float
) -> DataPlan:
    return DataPlan(version, from_step, fractions, completions, prompts, "test")


def offline(streams: dict[str, range], seed: int, batch_rows: int, first: DataPlan) -> MixtureSource:
    return MixtureSource(Catalog.of(streams), seed, batch_rows, first)


def rows(source: MixtureSource, step: int) -> list[int]:
    return [planned.row for planned in source.planned(step)]


def test_an_epoch_visits_every_row_once() -> None:
    source = offline({"teacher": range(12)}, 0, 4, plan(teacher=1.0))
    first = [row for step in range(3) for row in rows(source, step)]
    second = [row for step in range(3, 6) for row in rows(source, step)]
    assert sorted(first) == sorted(second) == list(range(12)) and first != second
    assert source.epoch(6) == 2.0


def test_rows_depend_on_the_step_alone_not_on_what_was_asked_before() -> None:
    def fresh() -> MixtureSource:
        return offline({"teacher": range(7), "reference": range(7, 12)}, 3, 5, plan(teacher=0.7, reference=0.3))

    source = fresh()
    forward = [rows(source, step) for step in range(20)]
    assert [rows(fresh(), step) for step in reversed(range(20))][::-1] == forward
    assert rows(source, 4) == forward[4]


def test_shares_hold_over_any_stretch() -> None:
    source = offline({"teacher": range(100), "reference": range(100, 150)}, 0, 3, plan(teacher=0.75, reference=0.25))
    for start in (0, 100, 313):
        found = [row for step in range(start, start + 100) for row in rows(source, step)]
        assert len(found) == 300
        assert abs(sum(row >= 100 for row in found) - 75) <= 2


def test_streams_are_visited_evenly() -> None:
    source = offline({"teacher": range(9), "reference": range(9, 13)}, 0, 4, plan(teacher=0.5, reference=0.5))
    counts = Counter(row for step in range(90) for row in rows(source, step))
    assert max(counts[i] for i in range(9)) - min(counts[i] for i in range(9)) <= 1


def test_a_new_plan_changes_what_comes_and_not_what_came() -> None:
    streams = {"teacher": range(20), "reference": range(20, 30)}
    source = offline(streams, 0, 4, plan(teacher=1.0))
    before = [rows(source, step) for step in range(5)]
    source.replan(plan(2, 5, reference=1.0))
    assert [rows(source, step) for step in range(5)] == before
    assert all(row >= 20 for step in range(5, 10) for row in rows(source, step))


def test_a_plan_for_rows_that_are_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match=r"wants reference rows and there are none.*data\.prompts\.reference"):
        offline({"teacher": range(1)}, 0, 1, plan(teacher=0.5, reference=0.5))


@pytest.mark.parametrize("streams", [1, 2, 3, 5])
def test_no_stream_is_ever_a_whole_row_off_its_share(streams: int) -> None:
    """Random shares, 3,000 rows, every prefix."""
    numbers = random.Random(streams)
    for _ in range(5):
        parts = [numbers.random() ** 3 + 0.01 for _ in range(streams)]
        shares = {f"s{i}": part / sum(parts) for i, part in enumerate(parts)}
        counts = dict.fromkeys(shares, 0)
        for row in range(1, 3001):
            counts[next_in_turn(shares, counts)] += 1
            assert max(abs(counts[name] - shares[name] * row) for name in shares) < 1


def test_a_tenth_online_is_a_tenth_of_every_ten_rows() -> None:
    source = MixtureSource(Catalog.of({"teacher": range(40)}), 0, 10, plan(teacher=0.9, online_student=0.1))
    for step in range(50):
        assert Counter(p.stream for p in source.planned(step)) == {"teacher": 9, "online_student": 1}


def test_fresh_rows_are_new_every_time_and_go_round_the_prompts() -> None:
    source = MixtureSource(Catalog({}, PROMPTS), 0, 5, plan(online_teacher=0.6, online_student=0.4))
    found = [p for step in range(10) for p in source.planned(step)]
    assert len({p.row for p in found}) == 50 and all(p.row >= FRESH for p in found)
    asked = Counter(source.prompt_of(p.row) for p in found if p.stream == "online_teacher")
    assert set(asked.values()) == {3} and len(asked) == 10
    assert source.epoch(10) == pytest.approx((3 + 2) / 2)


def known(prompts: int, completions: int) -> list[Known]:
    return [Known(p * completions + c, f"p{p}", c) for p in range(prompts) for c in range(completions)]


def test_a_plan_chooses_prompts_and_completions() -> None:
    catalog = Catalog({"teacher": known(10, 5)}, PROMPTS)
    source = MixtureSource(catalog, 0, 4, plan(completions=5, prompts=2, teacher=1.0))
    seen = Counter(row for step in range(10) for row in rows(source, step))
    assert set(seen) == set(range(10)) and set(seen.values()) == {4}  # 2 prompts x 5 completions, four epochs
    source.replan(plan(2, 10, completions=1, prompts=10, teacher=1.0))
    assert {row for step in range(10, 15) for row in rows(source, step)} == set(range(0, 50, 5))


def test_changing_shares_alone_does_not_begin_the_epoch_again() -> None:
    source = MixtureSource(Catalog({"teacher": known(10, 1)}, PROMPTS), 0, 2, plan(teacher=1.0))
    source.replan(plan(2, 2, teacher=0.5, online_student=0.5))
    first = [row for step in range(8) for row in rows(source, step) if row < FRESH]
    assert sorted(first[:10]) == list(range(10))


def test_replay_draws_what_was_there_and_is_not_too_old() -> None:
    source = MixtureSource(
        Catalog({}, PROMPTS), 0, 4, plan(online_student=0.5, replay=0.5), ReplayRule(6, max_staleness_steps=4)
    )
    assert Counter(p.stream for p in source.planned(0)) == {"online_student": 4}  # nothing to draw yet
    first_seen: dict[int, int] = {}
    for step in range(40):
        for stream, row in source.planned(step):
            if stream == "online_student":
                first_seen.setdefault(row, step)
        latest = sorted(row for row, at in first_seen.items() if at < step)[-6:]
        for stream, row in source.planned(step):
            if stream == "replay":
                assert row in latest and 1 <= step - first_seen[row] <= 4
    assert Counter(p.stream for p in source.planned(39)) == {"online_student": 2, "replay": 2}


def test_the_order_of_prompts_depends_on_the_seed_alone() -> None:
    assert prompt_order(PROMPTS, 1) == prompt_order(PROMPTS[::-1], 1) != prompt_order(PROMPTS, 2)
