"""The labs' texts: the same for everybody, right in their facts, and not so uniform that they teach nothing."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import zlib
from collections import Counter
from itertools import islice, pairwise

import pytest

from potstill.lab.text import (
    CORPORA,
    HELD_OUT_SHARE,
    PHENOMENA,
    CorpusName,
    Story,
    corpus,
    documents,
    held_out,
    is_grammatical,
    minimal_pairs,
    stories,
)
from potstill.lab.text.__main__ import main
from potstill.lab.text.draw import Dice
from potstill.lab.text.grammar.sentences import Speaker
from potstill.lab.text.inflect import article, gerund, past, plural, third
from potstill.lab.text.prose.places import BY_NAME, PLACES
from potstill.lab.text.prose.trades import TRADES
from potstill.lab.text.prose.world import Person, Thing, World
from potstill.lab.text.technical.functions import entry
from potstill.lab.text.templates import Writer, parse, with_articles

GENERATED: tuple[CorpusName, ...] = ("prose", "technical", "grammar")
SIZE = 700_000


@pytest.fixture(scope="module")
def texts() -> dict[CorpusName, str]:
    return {name: corpus(name, 0, SIZE) for name in GENERATED}


def test_more_than_two_megabytes_can_be_made(texts: dict[CorpusName, str]) -> None:
    assert all(SIZE <= len(text) < SIZE + 20_000 for text in texts.values())
    assert sum(len(text.encode()) for text in texts.values()) > 2_000_000


@pytest.mark.parametrize("name", CORPORA)
def test_the_same_seed_gives_the_same_text_and_another_gives_another(name: CorpusName) -> None:
    assert corpus(name, 3, 50_000) == corpus(name, 3, 50_000) != corpus(name, 4, 50_000)


def test_text_does_not_depend_on_the_hash_seed_of_the_process() -> None:
    code = (
        "import zlib; from potstill.lab.text import *\n"
        "for name in CORPORA: print(zlib.crc32(corpus(name, 0, 20000).encode()))"
    )
    runs = {
        subprocess.run([sys.executable, "-c", code], env={"PYTHONHASHSEED": s}, capture_output=True, text=True).stdout
        for s in ("1", "2")
    }
    assert len(runs) == 1 and len(runs.pop().split()) == len(CORPORA)


@pytest.mark.parametrize("name", CORPORA)
def test_only_printable_ascii_and_newlines(name: CorpusName) -> None:
    text = corpus(name, 1, 150_000)
    assert set(text) <= {chr(code) for code in range(32, 127)} | {"\n"}
    found = name in ("pydoc", "docstrings")  # text that was found may hold what a gap looks like
    assert found or not re.search(r"a~|#\w+#|\{\w+\}|<\w+\+?>", text), "a gap was left open"


@pytest.mark.parametrize("name", GENERATED)
def test_documents_of_two_seeds_are_different_and_none_comes_twice(name: CorpusName) -> None:
    both = [*islice(documents(name, 0), 800), *islice(documents(name, 1), 800)]
    assert len(both) - len(set(both)) <= len(both) * 0.001


def test_pydoc_ends_and_its_seed_only_shuffles() -> None:
    first, second = list(documents("pydoc", 0)), list(documents("pydoc", 1))
    assert first != second and sorted(first) == sorted(second)
    assert len(set(first)) == len(first) and sum(map(len, first)) > 150_000
    with pytest.raises(ValueError, match=r"pydoc \(part all\) has \d+ characters, 100000000 were asked for"):
        corpus("pydoc", 0, 100_000_000)
    bad = [text for text in first if "::=" in text or ">>>" in text or "+--" in text or "====" in text]
    assert not bad


@pytest.mark.parametrize("name", CORPORA)
def test_train_and_held_out_never_share_a_document(name: CorpusName) -> None:
    train = corpus(name, 0, 60_000, "train")
    test = corpus(name, 1, 15_000, "held_out")
    assert not set(train.split("\n\n")) & {part for part in test.split("\n\n") if len(part) > 200}
    some = list(islice(documents(name, 5), 300 if name == "docstrings" else 1200))  # those are parsed out of files
    share = sum(map(held_out, some)) / len(some)
    assert abs(share - HELD_OUT_SHARE) < 4 * (HELD_OUT_SHARE * (1 - HELD_OUT_SHARE) / len(some)) ** 0.5


def test_wrong_names_are_refused() -> None:
    with pytest.raises(ValueError, match="expected one of pydoc, prose"):
        documents("poetry", 0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected part to be one of"):
        corpus("prose", 0, 10, "test")  # type: ignore[arg-type]


def sentences(text: str) -> list[str]:
    return [part for part in re.split(r'(?<=[.?!])"?\s+', text) if part]


def test_prose_is_rich_and_not_too_uniform(texts: dict[CorpusName, str]) -> None:
    text = texts["prose"]
    assert len(zlib.compress(text.encode(), 9)) / len(text) > 0.2
    assert len(set(re.findall(r"[a-z]+", text.lower()))) > 2000
    said = sentences(text)
    assert len(set(said)) / len(said) > 0.85
    commonest, times = Counter(said).most_common(1)[0]
    assert times / len(said) < 0.01, commonest
    assert not re.search(r" ,| \.|  |\ba [aeio]|\ban [bcdfgjklmnpqrstvwxyz]", text)


@pytest.mark.parametrize("name", ["technical", "grammar"])
def test_the_other_domains_are_not_too_uniform(name: CorpusName, texts: dict[CorpusName, str]) -> None:
    assert len(zlib.compress(texts[name].encode(), 9)) / len(texts[name]) > 0.2


def replay(story: Story) -> tuple[dict[str, str], dict[str, str]]:
    """Read the events without the world that made them: who is where and who holds what at the end."""
    where: dict[str, str] = {}
    holds: dict[str, str] = {}
    for event in story.events:
        assert where.get(event.actor, event.place) == event.place or event.kind == "go"
        where[event.actor] = event.place
        if event.other:
            assert where.setdefault(event.other, event.place) == event.place
        if event.kind in ("give", "use"):
            assert holds.pop(event.thing, event.actor) == event.actor
        if event.kind == "find":
            assert event.thing not in holds
        if event.kind in ("find", "make", "give"):
            holds[event.thing] = event.other or event.actor
    return where, holds


def test_stories_do_not_contradict_themselves() -> None:
    asked = Counter[str]()
    for story in islice(stories(0), 400):
        where, holds = replay(story)
        for question in story.questions:
            asked[question.question.split()[0]] += 1
            if match := re.fullmatch(r"Who had the (.+) at the end\?", question.question):
                assert holds[match[1]] == question.answer
            elif match := re.fullmatch(r"Where was (\w+) at the end\?", question.question):
                assert BY_NAME[where.get(match[1], question.answer.split("the ", 1)[1])].where == question.answer
            assert question.answer.split("the ")[-1].split()[-1] in story.text
        for event in story.events:
            assert event.actor in story.text and event.thing.split(" ")[-1] in story.text
            assert event.kind != "go" or event.place in story.text
    assert set(asked) == {"Who", "Where", "What", "To", "For"}


def test_stories_are_documents_of_the_corpus() -> None:
    pieces = list(islice(documents("prose", 2), 100))
    told = [story.text for story in islice(stories(2), 60)]
    assert told == [piece for piece in pieces if piece in set(told)]


def test_the_world_refuses_what_cannot_be() -> None:
    here, there = PLACES[:2]
    ada, bela = Person("Ada", True, TRADES[0], "shy", here), Person("Bela", False, TRADES[1], "shy", there)
    world = World([ada, bela], [here, there])
    cup = world.add(Thing("cup", "tin", place=there))
    with pytest.raises(ValueError, match="does not lie"):
        world.find(ada, cup)
    world.find(bela, cup)
    with pytest.raises(ValueError, match="cannot give"):
        world.give(bela, ada, cup)
    with pytest.raises(ValueError, match="found two"):
        world.add(Thing("cup", "oak", holder=ada))


def number(text: str) -> float:
    return float(text)


def test_sums_in_the_manuals_are_right(texts: dict[CorpusName, str]) -> None:
    n = r"(-?\d+(?:\.\d+)?)"
    text = texts["technical"]
    products = re.findall(rf"\({n} x {n}(?: \+ {n})? = {n}\)", text)
    assert len(products) > 100
    assert all(int(a) * int(b) + int(c or 0) == int(total) for a, b, c, total in products)
    quotients = re.findall(rf"\({n} / {n} = {n}\)", text)
    assert len(quotients) > 50 and all(number(a) / number(b) == pytest.approx(number(q)) for a, b, q in quotients)
    differences = re.findall(rf"\({n} - {n} = {n}\)", text)
    assert len(differences) > 50 and all(number(a) - number(b) == number(d) for a, b, d in differences)
    totals = re.findall(r"takes ([\d +]+) = (\d+) min in all", text)
    assert len(totals) > 5 and all(sum(map(int, parts.split(" + "))) == int(total) for parts, total in totals)
    short = re.findall(r": (\d+) MiB needed, (\d+) MiB free\n    (\d+) MiB are missing", text)
    assert len(short) > 20 and all(int(need) - int(have) == int(gap) for need, have, gap in short)
    shares = re.findall(r"Of (\d+) \w+, (\d+) % are \S+: that is (\d+), and", text)
    assert len(shares) > 50 and all(int(whole) * int(percent) == 100 * int(part) for whole, percent, part in shares)


#: Written anew here, so that a wrong size in the generator is found.
SIZES = {
    "ms": 1e-3, "s": 1, "min": 60, "h": 3600, "bytes": 1, "KiB": 1024, "MiB": 1048576, "GiB": 1073741824, "mm": 1e-3,
    "cm": 1e-2, "m": 1, "km": 1e3, "mg": 1e-3, "g": 1, "kg": 1e3, "ml": 1e-3, "l": 1, "Hz": 1, "kHz": 1e3, "MHz": 1e6,
    "mV": 1e-3, "V": 1, "kV": 1e3, "Pa": 1, "kPa": 1e3, "MPa": 1e6, "W": 1, "kW": 1e3, "MW": 1e6, "mA": 1e-3, "A": 1,
    "arcsec": 1, "arcmin": 60, "deg": 3600,
}  # fmt: skip


def test_conversions_in_the_manuals_are_right(texts: dict[CorpusName, str]) -> None:
    units = "|".join(sorted(SIZES, key=len, reverse=True))
    found = re.findall(rf"(\d[\d.]*) ({units}) (?:is|=|means) (\d[\d.]*) ({units})\b", texts["technical"])
    assert len(found) > 500 and len({unit for _, a, _, b in found for unit in (a, b)}) == len(SIZES)
    for amount, unit, other, other_unit in found:
        assert number(amount) * SIZES[unit] == pytest.approx(number(other) * SIZES[other_unit], rel=1e-9)


def follow(says: str, values: list[int]) -> list[int] | int:
    """What the words of a function reference ask for, understood apart from the generator."""
    k = int((re.findall(r"\d+", says) or ["0"])[0])
    for pattern, meaning in (
        ("keeps the values above", lambda: [x for x in values if x > k]),
        ("keeps the values below", lambda: [x for x in values if x < k]),
        ("keeps the values divisible", lambda: [x for x in values if x % k == 0]),
        ("keeps the even", lambda: [x for x in values if x % 2 == 0]),
        ("keeps the odd", lambda: [x for x in values if x % 2]),
        ("adds", lambda: [x + k for x in values]),
        ("multiplies", lambda: [x * k for x in values]),
        ("subtracts", lambda: [x - k for x in values]),
        ("replaces every value by its remainder", lambda: [x % k for x in values]),
        ("squares", lambda: [x**2 for x in values]),
        ("replaces values above", lambda: [k if x > k else x for x in values]),
        ("sorts the values from small", lambda: sorted(values)),
        ("sorts the values from large", lambda: sorted(values)[::-1]),
        ("reverses", lambda: list(reversed(values))),
        ("drops values that came", lambda: [x for i, x in enumerate(values) if x not in values[:i]]),
        ("keeps the first three", lambda: values[:3]),
        ("drops the first", lambda: values[1:]),
        ("replaces every value by the total", lambda: [sum(values[: i + 1]) for i in range(len(values))]),
        ("takes the differences", lambda: [b - a for a, b in pairwise(values)]),
        ("keeps the first and the last", lambda: values[:1] + values[1:][-1:]),
        ("returns the list", lambda: values),
        ("returns their sum", lambda: sum(values)),
        ("returns how many", lambda: len(values)),
        ("returns the largest, or", lambda: max(values or [0])),
        ("returns the smallest, or", lambda: min(values or [0])),
        ("returns the largest less", lambda: max(values or [0]) - min(values or [0])),
    ):
        if says.startswith(pattern):
            return meaning()
    raise AssertionError(f"no meaning for {says!r}")


def test_examples_of_functions_do_what_the_words_say() -> None:
    checked = 0
    for index in range(500):
        name, text = entry(Dice("test", 0, index), ["a", "b", "c"], "1.0")
        says = text.split("\n")[1].strip().removesuffix(".")
        steps = re.split(r"(?:, then |, | and )(?=keeps|adds|mult|sub|repl|squ|sorts|rev|drops|takes|returns)", says)
        steps[0] = re.sub(r"^(It|The function|This one|First it|a_\w+) ", "", steps[0])
        for given, result in re.findall(rf"{name}\((\[.*?\])\)(?: returns | == |\n    )(.+)", text):
            value: list[int] | int = ast.literal_eval(given)
            for step in steps:
                assert isinstance(value, list)
                value = follow(step, value)
            assert value == ast.literal_eval(result), text
            checked += 1
    assert checked > 500


def test_every_sentence_of_the_grammar_corpus_is_grammatical() -> None:
    for paragraph in islice(documents("grammar", 0), 60):
        for text in re.findall(r"[^.?]+[.?]", paragraph):
            assert is_grammatical(text.strip()), text


def test_the_checker_refuses_what_is_not_the_language() -> None:
    good = Speaker(Dice("test", 0, 1)).sentence().text()
    words = good[:-1].split(" ")
    assert is_grammatical(good)
    for bad in (
        "",
        ".",
        good[:-1],
        good + good,
        f" {good}",
        good.replace(" ", "  ", 1),
        "the " + good,
        good[:-1] + "!",
    ):
        assert not is_grammatical(bad), bad
    assert not is_grammatical(" ".join(words[::-1]) + ".")
    assert not is_grammatical(" ".join([*words, words[0]]) + ".")


def test_minimal_pairs_differ_in_one_word_and_one_is_wrong() -> None:
    pairs = minimal_pairs(320, 0)
    assert Counter(pair.phenomenon for pair in pairs) == dict.fromkeys(PHENOMENA, 20)
    assert len({pair.good for pair in pairs}) == 320
    for pair in pairs:
        good, bad = pair.good.split(" "), pair.bad.split(" ")
        assert len(good) == len(bad)
        assert [i for i, (a, b) in enumerate(zip(good, bad, strict=True)) if a != b] == [pair.position]
        assert is_grammatical(pair.good) and not is_grammatical(pair.bad)
        assert 1 <= pair.distance < len(good)
    assert sum(pair.distance >= 4 for pair in pairs) > 30
    assert sum(pair.attractors > 0 for pair in pairs) > 12
    assert minimal_pairs(20, 0) == pairs[:20] != minimal_pairs(20, 1)


def test_minimal_pairs_of_one_phenomenon() -> None:
    assert {pair.phenomenon for pair in minimal_pairs(12, 0, "reflexive number")} == {"reflexive number"}
    with pytest.raises(ValueError, match="found 'spelling'"):
        minimal_pairs(1, 0, "spelling")  # type: ignore[arg-type]


def test_a_distance_by_hand() -> None:
    pairs = [pair for pair in minimal_pairs(320, 2) if pair.phenomenon == "determiner-noun number"]
    near = next(pair for pair in pairs if pair.distance == 1)
    words = near.good[:-1].split(" ")
    noun = words[near.position + 1]
    assert (noun[-1] in "nst") == (words[near.position][-1] in "nst"), "plurals end in a consonant"


def test_endings() -> None:
    assert [past(verb) for verb in ("walk", "carry", "stop", "go", "bake")] == [
        "walked",
        "carried",
        "stopped",
        "went",
        "baked",
    ]
    assert [third(verb) for verb in ("walk", "carry", "push", "have", "play")] == [
        "walks",
        "carries",
        "pushes",
        "has",
        "plays",
    ]
    assert [gerund(verb) for verb in ("make", "trim", "lie", "see")] == ["making", "trimming", "lying", "seeing"]
    assert [plural(noun) for noun in ("box", "entry", "key", "oat loaf")] == ["boxes", "entries", "keys", "oat loaves"]
    assert [article(word) for word in ("apple", "hour", "unit", "ewe", "cat")] == ["an", "an", "a", "a", "a"]


def test_templates() -> None:
    writer = Writer({"fruit": ["apple", "[ripe|] pear"]})
    made = {writer.write("{S} <eat> a~ #fruit#[.|!]", Dice("t", 0, i), {"S": "Ada"}) for i in range(60)}
    assert {with_articles(text) for text in made} >= {"Ada ate an apple.", "Ada ate a ripe pear!"}
    assert writer.write("they <be+>", Dice("t", 0, 0), {}, "present") == "they are"
    for broken in ("a ] b", "[a", "a | b", "{a b}"):
        with pytest.raises(ValueError, match="template"):
            parse(broken)


def test_the_command_writes_a_corpus(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prose", "--seed", "5", "--chars", "3000"]) == 0
    assert capsys.readouterr().out == corpus("prose", 5, 3000) + "\n"
    assert main(["pydoc", "--chars", "100000000"]) == 2
    assert "ask for fewer" in capsys.readouterr().err
