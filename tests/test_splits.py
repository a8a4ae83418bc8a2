"""Who is held out is decided by hashes, and nothing that training has seen is held out."""

import json
import random
from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest

from potstill.config.data import HeldOutFraction, HeldOutGroups, HeldOutPrompts, NearDuplicates, Prompts
from potstill.data.duplicates import jaccard, near_duplicates, normalised_words, word_grams
from potstill.data.prompts import PromptError, read_prompts
from potstill.data.splits import split_prompts
from potstill.records import Message, Prompt

EVERYDAY = Path(__file__).parents[1] / "recipes" / "prompts" / "everyday.jsonl"
REFUSE = NearDuplicates()
DROP = NearDuplicates(on_found="drop")
WORDS = [first + last for first in "bdfgklmnprst" for last in ("ade", "ime", "oke", "una", "ess", "ilt")]


def prompt(name, text, group="", system=None):
    before = () if system is None else (Message("system", system),)
    return Prompt(name, messages=(*before, Message("user", text)), group=group)


def made_up(num, seed=0, num_words=12, groups=("",)):
    """Prompts of random words, which are never near duplicates."""
    draw = random.Random(seed)
    return [
        prompt(f"p{seed}-{n}", " ".join(draw.choices(WORDS, k=num_words)), group=groups[n % len(groups)])
        for n in range(num)
    ]


def fraction(share, by_group=False):
    return HeldOutFraction(kind="fraction", fraction=share, by_group=by_group)


def groups(*names):
    return HeldOutGroups(kind="groups", groups=names)


def prompts_file(path, texts, **settings):
    path.write_text("".join(json.dumps({"id": name, "prompt": text}) + "\n" for name, text in texts.items()))
    return HeldOutPrompts(kind="prompts", prompts=Prompts(path=str(path), id="id", **settings))


def ids(prompts):
    return [one.id for one in prompts]


def refusal(*arguments):
    with pytest.raises(PromptError) as caught:
        split_prompts(*arguments)
    return str(caught.value)


# -- a fraction ----------------------------------------------------------------------


def test_a_fraction_is_held_out_in_two_halves_and_the_rest_trains():
    prompts = made_up(500)
    training, held_out, notes = split_prompts(prompts, fraction(0.2), REFUSE, seed=3)
    assert sorted(ids(training) + ids(held_out)) == sorted(ids(prompts))
    assert abs(len(held_out) - 100) < 4 * (500 * 0.2 * 0.8) ** 0.5
    assert {one.split for one in training} == {"train"}
    halves = Counter(one.split for one in held_out)
    assert set(halves) == {"selection", "test"} and abs(halves["selection"] - halves["test"]) <= 1
    assert notes == []


def test_both_lists_keep_the_order_they_came_in():
    prompts = made_up(200)
    order = {one.id: at for at, one in enumerate(prompts)}
    for part in split_prompts(prompts, fraction(0.3), REFUSE, seed=0)[:2]:
        places = [order[one.id] for one in part]
        assert places == sorted(places)


def test_the_split_depends_on_ids_and_seed_alone():
    prompts = made_up(300)
    shuffled = random.Random(1).sample(prompts, len(prompts))
    _, one, _ = split_prompts(prompts, fraction(0.2), REFUSE, seed=0)
    _, same, _ = split_prompts(shuffled, fraction(0.2), REFUSE, seed=0)
    _, other, _ = split_prompts(prompts, fraction(0.2), REFUSE, seed=1)
    assert {(p.id, p.split) for p in one} == {(p.id, p.split) for p in same}
    assert set(ids(one)) != set(ids(other))


def test_prompts_added_later_do_not_move_the_others():
    early, late = made_up(300), made_up(200, seed=1)
    training, held_out, _ = split_prompts(early, fraction(0.2), REFUSE, seed=0)
    more_training, more_held_out, _ = split_prompts([*late, *early], fraction(0.2), REFUSE, seed=0)
    assert set(ids(training)) <= set(ids(more_training))
    assert set(ids(held_out)) <= set(ids(more_held_out))


def test_one_more_held_out_prompt_moves_at_most_one_between_selection_and_test():
    prompts = made_up(200)
    _, held_out, _ = split_prompts(prompts, fraction(0.3), REFUSE, seed=0)
    before = {one.id: one.split for one in held_out}
    for left_out in held_out:
        rest = [one for one in prompts if one.id != left_out.id]
        _, fewer, _ = split_prompts(rest, fraction(0.3), REFUSE, seed=0)
        assert sum(before[one.id] != one.split for one in fewer) <= 1


def test_a_larger_fraction_only_adds_held_out_prompts():
    prompts = made_up(300)
    _, few, _ = split_prompts(prompts, fraction(0.1), REFUSE, seed=0)
    _, many, _ = split_prompts(prompts, fraction(0.3), REFUSE, seed=0)
    assert set(ids(few)) < set(ids(many))


# -- groups --------------------------------------------------------------------------------


def test_a_fraction_by_group_holds_out_whole_groups():
    prompts = made_up(400, groups=[f"topic {n}" for n in range(20)])
    training, held_out, _ = split_prompts(prompts, fraction(0.25, by_group=True), REFUSE, seed=0)
    assert len({one.group for one in held_out}) == 5
    assert not {one.group for one in held_out} & {one.group for one in training}
    assert {one.split for one in held_out if one.group == held_out[0].group} == {"selection", "test"}


def test_prompts_added_to_known_groups_move_nothing():
    names = [f"topic {n}" for n in range(20)]
    early, late = made_up(100, groups=names), made_up(70, seed=1, groups=names[:7])
    _, held_out, _ = split_prompts(early, fraction(0.25, by_group=True), REFUSE, seed=0)
    _, more, _ = split_prompts(early + late, fraction(0.25, by_group=True), REFUSE, seed=0)
    assert {one.group for one in held_out} == {one.group for one in more}


def test_named_groups_are_held_out():
    prompts = made_up(60, groups=["a", "b", "c"])
    training, held_out, _ = split_prompts(prompts, groups("c", "a"), REFUSE, seed=0)
    assert {one.group for one in held_out} == {"a", "c"} and {one.group for one in training} == {"b"}


def test_an_unknown_group_lists_those_found():
    message = refusal(made_up(60, groups=["weather", "games"]), groups("wether"), REFUSE, 0)
    assert "held-out group 'wether'. Did you mean 'weather'?" in message
    assert "Groups found (prompts): 'games' (30), 'weather' (30). Correct `held_out.groups`" in message


@pytest.mark.parametrize("held_out", [fraction(0.2, by_group=True), groups("a")])
def test_groups_without_a_group_column_are_refused(held_out):
    message = refusal(made_up(50), held_out, REFUSE, 0)
    assert "found 50 of 50 without. Name the column that holds it (`prompts.group`)" in message


# -- prompts from a file of their own --------------------------------------------------------


def test_held_out_prompts_come_from_their_own_file(tmp_path):
    prompts = made_up(20)
    held_out = prompts_file(tmp_path / "test.jsonl", {one.id: one.flat_text() for one in made_up(7, seed=1)})
    training, aside, _ = split_prompts(prompts, held_out, REFUSE, seed=0)
    assert training == prompts
    assert ids(aside) == ids(made_up(7, seed=1))
    assert Counter(one.split for one in aside) == {"selection": 3, "test": 4}


def test_one_id_for_two_different_prompts_is_refused(tmp_path):
    held_out = prompts_file(
        tmp_path / "test.jsonl", {f"p0-{n}": one.flat_text() for n, one in enumerate(made_up(6, seed=1))}
    )
    message = refusal(made_up(3), held_out, REFUSE, 0)
    assert "3 ids name both a training and a held-out prompt" in message
    assert "p0-0, p0-1, p0-2. Make ids unique over both files" in message


# -- too few -------------------------------------------------------------------------------------


def test_fewer_than_four_held_out_prompts_are_refused():
    message = refusal(made_up(12, groups=["a", "b", "b", "b"]), groups("a"), REFUSE, 0)
    assert "expected at least 4 held-out prompts" in message
    assert "found 3 beside 9 for training. Name more groups" in message
    assert "Raise held_out.fraction, or add prompts" in refusal(made_up(20), fraction(0.01), REFUSE, 0)


def test_nothing_left_for_training_is_refused():
    message = refusal(made_up(12, groups=["a", "b"]), groups("a", "b"), REFUSE, 0)
    assert "no prompt is left for training: all 12 are held out. Name fewer groups" in message


# -- near duplicates -----------------------------------------------------------------------------------


TRAINING = "Name three animals that sleep through the winter and say why they do it."


@pytest.mark.parametrize(
    "copy",
    [
        TRAINING,
        TRAINING.upper(),
        "  name three   animals\nthat sleep through the winter, and say: why they do it?!",
    ],
)
@pytest.mark.parametrize("threshold", [0.01, 0.8, 1.0])
def test_a_copy_up_to_case_spacing_and_punctuation_is_found_at_every_threshold(copy, threshold):
    found = near_duplicates([prompt("a", TRAINING)], [prompt("b", copy)], threshold)
    assert [(one.training.id, one.held_out.id, one.similarity) for one in found] == [("a", "b", 1.0)]


def test_the_similarity_is_that_of_word_3_grams():
    changed = TRAINING.replace("do it", "sleep")  # 12 and 11 grams, 10 shared
    (found,) = near_duplicates([prompt("a", TRAINING)], [prompt("b", changed)], 10 / 13)
    assert found.similarity == 10 / 13
    assert near_duplicates([prompt("a", TRAINING)], [prompt("b", changed)], 0.78) == []


def test_short_prompts_are_compared_by_their_words():
    found = near_duplicates([prompt("a", "Purple cats?")], [prompt("b", "purple cats"), prompt("c", "purple")], 0.5)
    assert [(one.held_out.id, one.similarity) for one in found] == [("b", 1.0), ("c", 0.5)]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is 3 + 4?", "What is 3 - 4?"),
        ("What is 3*4?", "What is 3/4?"),
        ("Round 3.5 up.", "Round 35 up."),
        ("Is x < y true?", "Is x > y true?"),
        ("???", "!!!"),
    ],
)
def test_signs_that_are_part_of_the_question_are_not_punctuation(one, other):
    assert near_duplicates([prompt("a", one)], [prompt("b", other)], 1.0) == []


def test_in_scripts_without_spaces_a_letter_counts_as_a_word():
    assert normalised_words("猫はなぜ鳴く。 AI") == [*"猫はなぜ鳴く", "ai"]
    changed = prompt("b", "なぜ猫は夜になると大きな声で鳴くの")
    assert near_duplicates([prompt("a", "なぜ猫は夜になると大きな声で鳴くのか。")], [changed], 0.8)


def test_accents_and_vowel_signs_belong_to_their_words():
    assert normalised_words("Où est l\u2019été ?") == ["où", "est", "l", "été"]
    assert normalised_words("बिल्ली क्यों सोती है।") == ["बिल्ली", "क्यों", "सोती", "है"]


def test_a_system_message_that_all_share_makes_no_duplicates():
    system = "You are a patient teacher who answers every question of a child in one short and friendly sentence."
    one, other = (
        prompt("a", "Why do cats purr?", system=system),
        prompt("b", "Why does it rain?", system=system),
    )
    assert near_duplicates([one], [other], 0.5) == []


def test_near_duplicates_are_refused_with_both_texts(tmp_path):
    texts = {f"h{n}": f"{one.flat_text()}!" for n, one in enumerate(made_up(7))}
    message = refusal(made_up(10), prompts_file(tmp_path / "test.jsonl", texts), REFUSE, 0)
    assert "7 of 7 held-out prompts are near duplicates" in message and "at least 0.8" in message
    assert f"held out h0: '{texts['h0']}'" in message
    assert f"training p0-0: '{made_up(1)[0].flat_text()}'" in message
    assert message.count("held out h") == 5 and "and 2 more" in message
    assert "set near_duplicates.on_found: drop" in message


def test_near_duplicates_can_be_dropped_and_are_named(tmp_path):
    texts = {f"h{n}": one.flat_text() for n, one in enumerate(made_up(6, seed=1))}
    texts["copy"] = made_up(1)[0].flat_text().title()
    training, held_out, notes = split_prompts(made_up(10), prompts_file(tmp_path / "test.jsonl", texts), DROP, seed=0)
    assert training == made_up(10)
    assert ids(held_out) == [f"h{n}" for n in range(6)]
    assert len(notes) == 1 and "held out copy:" in notes[0] and "training p0-0:" in notes[0]


def test_the_same_id_and_content_in_both_files_is_a_near_duplicate(tmp_path):
    texts = {one.id: one.flat_text() for one in [*made_up(1), *made_up(4, seed=1)]}
    held_out = prompts_file(tmp_path / "test.jsonl", texts)
    assert "1 of 5 held-out prompts are near duplicates" in refusal(made_up(10), held_out, REFUSE, 0)
    assert len(split_prompts(made_up(10), held_out, DROP, seed=0)[1]) == 4


def test_too_few_left_after_dropping_says_so(tmp_path):
    texts = {f"h{n}": one.flat_text() for n, one in enumerate(made_up(5))}
    message = refusal(made_up(10), prompts_file(tmp_path / "test.jsonl", texts), DROP, 0)
    assert "found 0 beside 10 for training after 5 near duplicates were dropped. Add prompts" in message


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.5, 0.7, 0.8, 0.95, 1.0])
def test_the_search_finds_exactly_what_comparing_all_pairs_finds(threshold):
    draw = random.Random(0)
    originals = made_up(40, num_words=14)
    changed = []
    for n, one in enumerate(originals * 3):
        words = one.flat_text().split()[: draw.randint(1, 14)]
        for _ in range(draw.randint(0, 4)):
            words[draw.randrange(len(words))] = draw.choice(WORDS)
        changed.append(prompt(f"c{n}", " ".join(words)))
    expected = {
        held_out.id
        for held_out in changed
        if any(jaccard(word_grams(one), word_grams(held_out)) >= threshold for one in originals)
    }
    assert {one.held_out.id for one in near_duplicates(originals, changed, threshold)} == expected
    assert 0 < len(expected) < len(changed)


# -- the prompts that come with the recipes ----------------------------------------------------------------


def test_the_everyday_prompts_split_by_topic_without_near_duplicates():
    config = Prompts(path=str(EVERYDAY), reference="reference", group="topic", id="id")
    held_out_topics = groups("weather", "clothing", "transport", "nature", "games")
    training, held_out, notes = split_prompts(read_prompts(config), held_out_topics, REFUSE, seed=0)
    assert (len(training), len(held_out), notes) == (272, 80, [])
    assert Counter(one.split for one in held_out) == {"selection": 40, "test": 40}
    assert set(Counter(one.group for one in training + held_out).values()) == {16}
    pairs = combinations([word_grams(one) for one in training], 2)
    assert max(jaccard(one, other) for one, other in pairs) < 0.8
