"""Diversity of texts, by numbers worked out by hand, and what a run would repeat."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from potstill.config import Run, load_run
from potstill.data.duplicates import jaccard, near_duplicates_within, word_grams
from potstill.metrics.diversity import Repeats, distinct, diversity, keyed_sample, self_bleu
from potstill.records import DataPlan, Message, Prompt
from potstill.training.distil import distil
from potstill.training.show import Show
from potstill.training.variety import visits

Make = Callable[..., Run]


def test_distinct_counts_different_grams_over_all() -> None:
    texts = [["a", "b", "a", "b"], ["a", "b", "c"]]
    assert distinct(texts, 1) == 3 / 7  # a b c over seven words
    assert distinct(texts, 2) == 3 / 5  # ab ba ab, ab bc: ab ba bc over five
    assert distinct(texts, 3) == 3 / 3
    assert distinct(texts, 4) == 1.0
    assert distinct(texts, 5) is None
    assert distinct([(5, 5, 5)], 1) == 1 / 3  # token ids are as good


def test_self_bleu_by_hand() -> None:
    texts = [["the", "cat", "sat", "on", "mats"], ["the", "cat", "sat", "on", "a", "mat"]]
    # First: 1-grams the cat sat on of five, 2-grams 3 of 4, 3-grams 2 of 3, 4-grams 1 of 2; shorter by one than
    # its reference of six. Second: 4 of 6, 3 of 5, 2 of 4, 1 of 3; longer, so no penalty.
    first = (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25 * math.exp(1 - 6 / 5)
    second = (4 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25
    assert self_bleu(texts) == pytest.approx([first, second])


def test_self_bleu_clips_by_the_largest_count_in_one_other_text() -> None:
    texts = [["a", "a", "a", "a"], ["a", "a", "b", "c"], ["a", "d", "e", "f"]]
    # Of four a's two are granted (the second text has two, the third one); a a of three pairs one; none of
    # two a a a and of one a a a a, where 0.1 stands.
    assert self_bleu(texts)[0] == pytest.approx((2 / 4 * 1 / 3 * 0.1 / 2 * 0.1 / 1) ** 0.25)
    # The second's own two a's meet the first's four: both count, and so does a a.
    assert self_bleu(texts)[1] == pytest.approx((2 / 4 * 1 / 3 * 0.1 / 2 * 0.1 / 1) ** 0.25)


def test_self_bleu_of_copies_is_one_and_of_strangers_small() -> None:
    assert self_bleu([(1, 2, 3, 4, 5)] * 3) == pytest.approx([1, 1, 1])
    assert self_bleu([("yes",), ("yes",)]) == pytest.approx([1, 1])  # scored up to its own length
    assert max(self_bleu([(1, 2, 3, 4), (5, 6, 7, 8)])) == pytest.approx((0.1**4 / 24) ** 0.25)
    assert self_bleu([(1, 2)]) == []


def plain_self_bleu(texts: list[tuple[int, ...]]) -> list[float]:
    """The definition, every text against every other."""
    scores = []
    for at, text in enumerate(texts):
        others = texts[:at] + texts[at + 1 :]
        log = 0.0
        orders = range(1, min(4, len(text)) + 1)
        for n in orders:
            mine = [text[i : i + n] for i in range(len(text) - n + 1)]
            theirs = [[o[i : i + n] for i in range(len(o) - n + 1)] for o in others]
            hits = sum(min(mine.count(g), max(t.count(g) for t in theirs)) for g in set(mine))
            log += math.log((hits or 0.1) / len(mine)) / len(orders)
        closest = min((abs(len(o) - len(text)), len(o)) for o in others)[1]
        scores.append(math.exp(log) * min(1.0, math.exp(1 - closest / len(text))))
    return scores


def test_self_bleu_is_its_definition() -> None:
    draw = random.Random(3)
    texts = [tuple(draw.randrange(6) for _ in range(draw.randrange(1, 14))) for _ in range(40)]
    assert self_bleu(texts) == pytest.approx(plain_self_bleu(texts))


def test_near_duplicates_within_a_set_are_all_that_pairs_would_find() -> None:
    draw = random.Random(5)
    words = ["how", "do", "people", "make", "tea", "rain", "boats", "bread", "and", "why"]
    prompts = [Prompt(str(i), text=" ".join(draw.choices(words, k=draw.randrange(1, 9)))) for i in range(120)]
    for threshold in (0.3, 0.6, 0.8, 1.0):
        grams = [word_grams(p) for p in prompts]
        pairs = [(i, j) for i in range(120) for j in range(120) if i != j and jaccard(grams[i], grams[j]) >= threshold]
        assert near_duplicates_within(prompts, threshold) == sorted({i for i, _ in pairs})


def test_a_shared_system_message_makes_no_duplicates() -> None:
    system = Message("system", "you are a helpful assistant that answers in one short sentence")
    prompts = [Prompt(w, messages=(system, Message("user", f"tell me about {w} please"))) for w in ("tea", "rain")]
    assert near_duplicates_within(prompts, 0.8) == []


def test_diversity_puts_it_together() -> None:
    prompts = [
        Prompt("a", text="Tell me about tea."),
        Prompt("b", text="tell me about tea"),
        Prompt("c", text="How do boats float?"),
        Prompt("d", text="Why is bread soft inside?"),
    ]
    found = diversity(
        ["Tea is hot.", "tea is hot", "Boats float."],
        prompts=prompts,
        visits=[("a", 0), ("a", 0), ("a", 1), ("b", 0)],
    )
    assert (found.texts, found.mean_length) == (3, pytest.approx(8 / 3))
    assert found.distinct_1 == 5 / 8
    assert found.near_duplicates == 0.5
    assert found.repeats_per_prompt == Repeats(2.0, 3)
    assert found.repeats_per_completion == Repeats(4 / 3, 2)
    assert found.self_bleu_texts == 3 and found.self_bleu is not None and 0.6 < found.self_bleu < 0.7
    assert found.as_dict()["repeats_per_prompt"] == {"mean": 2.0, "largest": 3}


def test_nothing_measured_is_none_and_not_zero() -> None:
    found = diversity([])
    assert (found.texts, found.mean_length) == (0, 0.0)
    assert found.self_bleu is found.distinct_1 is found.near_duplicates is found.repeats_per_prompt is None
    assert diversity([(), (1, 2)]).self_bleu is None  # an empty text is compared with nothing


def test_the_sample_is_keyed_and_keeps_its_order() -> None:
    texts = list(range(1000))
    chosen = keyed_sample(texts, 100, seed=1)
    assert chosen == sorted(chosen) == keyed_sample(texts, 100, seed=1)
    assert chosen != keyed_sample(texts, 100, seed=2)
    assert keyed_sample(texts[:5], 100, seed=1) == texts[:5]
    assert diversity([(i, i + 1) for i in range(50)], most_bleu_texts=10).self_bleu_texts == 10


# -- in a run ------------------------------------------------------------------------------------------


def test_visits_add_up_over_data_plans(make_run: Make) -> None:
    config = make_run(training__steps=10, training__batch_rows=12)
    plans = [
        DataPlan(1, 0, {"teacher": 0.75, "reference": 0.25}, 2, 8, "as configured"),
        DataPlan(2, 4, {"teacher": 0.5, "online_teacher": 0.5}, 1, 4, "fresh"),
    ]
    sizes = {("teacher", 1): 16, ("reference", 1): 8, ("teacher", 2): 4}
    by_stream, per_prompt = visits(config, plans, lambda stream, plan: sizes[stream, plan.version])
    # 48 rows in the first four steps, 72 in the six that follow.
    assert by_stream == {"teacher": pytest.approx(48 * 0.75 / 16 + 72 * 0.5 / 4), "reference": 48 * 0.25 / 8}
    assert per_prompt == 48 / 8 + 72 / 4


def said_by_check(config: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    from potstill.cli.check import check_verb

    path = tmp_path / "check.yaml"
    path.write_text(yaml.safe_dump(config.dump()))
    check_verb(load_run(path))
    return " ".join(capsys.readouterr().out.split())


def test_check_counts_visits_and_warns_of_many(
    make_run: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # 16 training prompts, two completions of each: 6 steps of 8 rows show a teacher row 48 * 0.75 / 32 times.
    few = said_by_check(make_run(), tmp_path, capsys)
    assert "visits each prompt 3, each reference row 0.75, each teacher row 1.12" in few
    assert "16 prompts of" in few and "near another one, distinct-2 0." in few
    assert "accidents" not in few
    many = said_by_check(make_run(training__steps=24, data__completions__per_prompt=1), tmp_path, capsys)
    assert "each teacher row 9" in many
    assert "each teacher row (one prompt with one completion) would be seen 9 times" in many


def test_a_run_writes_down_what_it_was_fed_with(make_run: Make) -> None:
    run = distil(make_run(training__steps=2), Show(quiet=True))
    found = run.read_json("provenance.json")["diversity"]
    assert found["prompts"]["rows"] == 16 and 0 <= found["prompts"]["near_duplicates"] <= 1
    assert found["completions"]["teacher"]["rows"] == 32
    assert 0 < found["completions"]["teacher"]["mean_length"] <= 12  # max_new_tokens
    assert 0 <= found["completions"]["teacher"]["self_bleu"] <= 1
    assert found["planned_visits"]["per_completion"]["teacher"] == pytest.approx(2 * 8 * 0.75 / 32)
    assert found["planned_visits"]["per_prompt"] == 1.0
