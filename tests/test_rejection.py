"""Rejection sampling: what is kept, what is dropped, and whether the summary's numbers are those of the data."""

from __future__ import annotations

import json
import random
from functools import lru_cache

import pytest

from potstill.config.verify import Rejection
from potstill.generation.distinct import classes, edit_distance, furthest_apart, representatives
from potstill.generation.rejection import Kept, Verified, reject, verify_all
from potstill.generation.yields import bin_of, render
from potstill.records import Completion, History, Prompt
from potstill.verifiers.base import VerifierError
from potstill.verifiers.build import build_verifiers

PROMPTS = [
    Prompt("a", text="2 and 3?", reference="2 + 3 = 5\n#### 5", group="sums"),
    Prompt("b", text="6 less 2?", reference="6 - 2 = 4\n#### 4", group="differences"),
    Prompt("c", text="9 less 2?", reference="9 - 2 = 7\n#### 7", group="differences"),
]
TEXTS = {
    "a": [
        "Two and three: 2 + 3 = 5. The answer is 5.",
        "3 + 2 = 5, so the answer is 5",  # the same sums in another order
        "2 * 2 = 4 and 4 + 1 = 5. The answer is 5.",
        "2 + 2 = 5. The answer is 5.",  # right answer, wrong step
        "2 + 3 = 6. The answer is 6.",
    ],
    "b": ["It is 3. The answer is 3.", "nothing"],
    "c": ["9 - 2 = 7\n#### 7", "9 - 2 = 7. The answer is 7."],
}


def completion(prompt_id: str, index: int, text: str) -> Completion:
    return Completion(prompt_id, index, (1, 2), text, "stop", History("teacher", "model"))


ALL = [completion(name, i, text) for name, texts in TEXTS.items() for i, text in enumerate(texts)]


def settings(**extra: object) -> Rejection:
    return Rejection.model_validate({"verifiers": [{"kind": "steps"}], **extra})


def run(completions: list[Completion] = ALL, **extra: object) -> tuple[list[Verified], Kept]:
    config = settings(**extra)
    verified = verify_all(PROMPTS, completions, build_verifiers(config.verifiers))
    return verified, reject(PROMPTS, verified, config)


def names(kept: Kept) -> list[tuple[str, int]]:
    return [(c.prompt_id, c.index) for c in kept.completions]


def test_every_completion_carries_its_outcome_and_progress_is_told() -> None:
    heard: list[int] = []
    verified = verify_all(PROMPTS, ALL, build_verifiers(settings().verifiers), heard.append)
    assert heard == list(range(1, len(ALL) + 1))
    labels = [v.completion.history.verifiers["steps"]["label"] for v in verified]
    assert labels == ["right", "right", "right", "right_answer_wrong_step", "wrong", "wrong", "no_answer",
                      "right", "right"]  # fmt: skip
    assert [v.completion.token_ids for v in verified] == [c.token_ids for c in ALL]


def test_right_and_different_ones_are_kept_with_references() -> None:
    _, kept = run()
    # a/0 and a/1 do the same sums; the longer one is further from a/2 and the reference.
    texts, others = TEXTS["a"], PROMPTS[0].reference
    assert others is not None
    sums = [edit_distance(texts[i], texts[2]) + edit_distance(texts[i], others) for i in (0, 1)]
    best = 0 if sums[0] >= sums[1] else 1
    assert names(kept) == [("a", best), ("a", 2), ("c", 1)]  # c/0 is the reference word for word
    assert [r.prompt_id for r in kept.references] == ["a", "b", "c"]
    assert {(r.history.provenance, r.finish) for r in kept.references} == {("reference", "given")}
    assert kept.dropped == ()


def test_the_summary_counts_what_happened() -> None:
    _, kept = run()
    s = kept.summary
    assert (s.prompts, s.completions, s.passed, s.kept, s.references) == (3, 9, 5, 3, 3)
    assert (s.repeated, s.over_cap, s.unsolved) == (2, 0, 1)
    assert (s.right_answers, s.right_answer_wrong_step) == (6, 1)
    assert s.solve_rates == {"0": 1, "0-20%": 0, "20-40%": 0, "40-60%": 1, "60-80%": 0, "80-100%": 1}
    assert s.kept_by_solve_rate["40-60%"] == 2 and s.kept_by_solve_rate["80-100%"] == 1
    assert s.distinct_paths == (2 + 1) / 2
    assert s.labels["steps"] == {"no_answer": 1, "right": 5, "right_answer_wrong_step": 1, "wrong": 2}
    assert s.groups["differences"] == {"prompts": 2, "completions": 4, "passed": 2, "kept": 1}
    written = json.loads(json.dumps(s.as_dict()))
    assert written["kept_share"] == pytest.approx(3 / 9) and written["wrong_step_share"] == pytest.approx(1 / 6)
    text = "\n".join(render(s))
    assert "1 of 6 (16.7%)" in text and "40-60%: 1" in text and "group sums" in text


def test_separate_verifiers_find_the_same_right_answers() -> None:
    config = Rejection.model_validate({"verifiers": [{"kind": "math"}, {"kind": "steps", "answer": None}]})
    kept = reject(PROMPTS, verify_all(PROMPTS, ALL, build_verifiers(config.verifiers)), config)
    assert (kept.summary.right_answers, kept.summary.right_answer_wrong_step, kept.summary.passed) == (6, 1, 5)


@pytest.mark.parametrize(
    ("references", "none", "rows", "dropped"),
    [(True, "reference", ["a", "b", "c"], ()), (True, "drop", ["a", "c"], ("b",)), (False, "reference", ["b"], ()),
     (False, "drop", [], ("b",))],
)  # fmt: skip
def test_references_and_unsolved_prompts(
    references: bool, none: str, rows: list[str], dropped: tuple[str, ...]
) -> None:
    _, kept = run(keep_references=references, on_no_kept=none)
    assert [r.prompt_id for r in kept.references] == rows and kept.dropped == dropped


def test_text_duplicates_and_none() -> None:
    copies = [completion("a", i, t) for i, t in enumerate(["5. #### 5", "5.  ####  5", "5 #### 5!", "so it is #### 5"])]
    assert names(run(copies, deduplicate="none")[1]) == [("a", 0), ("a", 1), ("a", 2), ("a", 3)]
    assert len(names(run(copies, deduplicate="text", keep_references=False)[1])) == 2


def test_the_cap_prefers_other_ways_to_the_answer() -> None:
    _, kept = run(max_per_prompt=2, deduplicate="none", keep_references=False)
    chosen = [index for name, index in names(kept) if name == "a"]
    assert len(chosen) == 2 and 2 in chosen
    assert kept.summary.over_cap == 1
    assert names(run(max_per_prompt=1, deduplicate="none", keep_references=False)[1]) == [("a", 0), ("c", 0)]


def test_the_order_of_completions_does_not_matter() -> None:
    shuffled = ALL[:]
    random.Random(3).shuffle(shuffled)
    assert names(run(shuffled)[1]) == names(run()[1])
    assert run(shuffled)[1].summary == run()[1].summary


def test_faults_are_told() -> None:
    verifiers = build_verifiers(settings().verifiers)
    with pytest.raises(VerifierError, match="not given"):
        verify_all(PROMPTS[:1], ALL, verifiers)
    with pytest.raises(VerifierError, match="name each"):
        verify_all(PROMPTS, ALL, [*verifiers, *verifiers])
    bare = [Prompt("z", text="?")]
    with pytest.raises(VerifierError, match="no reference to keep"):
        reject(bare, [], settings())
    assert reject(bare, [], settings(on_no_kept="drop")).dropped == ("z",)


def test_edit_distance_is_levenshteins() -> None:
    def slow(one: str, other: str) -> int:
        @lru_cache(None)
        def go(i: int, j: int) -> int:
            if not i or not j:
                return i + j
            return min(go(i - 1, j) + 1, go(i, j - 1) + 1, go(i - 1, j - 1) + (one[i - 1] != other[j - 1]))

        return go(len(one), len(other))

    draw = random.Random(0)
    assert edit_distance("kitten", "sitting") == 3 and edit_distance("", "abc") == 3 and edit_distance("", "") == 0
    for _ in range(60):
        one, other = ("".join(draw.choices("abc ", k=draw.randint(0, 70))) for _ in range(2))
        assert edit_distance(one, other) == slow(one, other)


def test_near_identical_words_are_one_class_and_other_words_are_not() -> None:
    long = "people who live near the sea like to eat fish on most days of the week and drink tea after it"
    texts = [long, long + " too", "tea is a drink", "Tea is a drink!", "Yes", "no"]
    assert classes(texts, "structure") == [[0, 1], [2, 3], [4], [5]]
    assert classes(texts, "text") == [[0], [1], [2, 3], [4], [5]]
    assert classes(texts, "none") == [[i] for i in range(6)]


def test_of_the_same_the_furthest_from_the_others_stands() -> None:
    texts = ["aaaa", "bbbb", "aaab"]
    assert representatives(texts, [[0, 2], [1]]) == [0, 1]  # aaaa is 4 from bbbb, aaab only 3
    assert representatives(texts, [[2, 0], [1]]) == [0, 1]
    assert furthest_apart(["aa", "ab", "zz"], [0, 0, 0], [0, 1, 2], 2) == [0, 2]
    assert furthest_apart(["aa", "ab", "zz"], [0, 1, 0], [0, 1, 2], 2) == [0, 1]  # a new structure goes first


@pytest.mark.parametrize(
    ("passed", "of", "name"),
    [(0, 5, "0"), (0, 0, "0"), (1, 5, "0-20%"), (2, 5, "20-40%"), (1, 100, "0-20%"), (5, 5, "80-100%"),
     (3, 5, "40-60%"), (81, 100, "80-100%")],
)  # fmt: skip
def test_bins(passed: int, of: int, name: str) -> None:
    assert bin_of(passed, of) == name
