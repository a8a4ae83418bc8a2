"""Writes arithmetic.jsonl beside this file: word problems with worked answers, the same every time.

    python recipes/prompts/make_arithmetic.py

Twelve kinds, from plain sums to two steps, with small numbers, so that a small model gets some of
them right and a verifier can tell which.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

NAMES = ("Ada", "Ben", "Clara", "David", "Elsa", "Farid", "Grace", "Hugo", "Ines", "Jonas", "Kira", "Liam")
THINGS = ("apples", "pencils", "stamps", "marbles", "shells", "cards", "cookies", "stickers", "coins", "books")
EACH = 32
Problem = tuple[str, list[str], int]  # question, worked lines, answer


def adding(r: random.Random) -> Problem:
    a, b = r.randint(2, 19), r.randint(2, 19)
    return f"What is {a} + {b}?", [f"{a} + {b} = {a + b}."], a + b


def subtracting(r: random.Random) -> Problem:
    a, b = r.randint(2, 12), r.randint(2, 12)
    return f"What is {a + b} - {b}?", [f"{a + b} - {b} = {a}."], a


def multiplying(r: random.Random) -> Problem:
    a, b = r.randint(2, 10), r.randint(2, 10)
    return f"What is {a} times {b}?", [f"{a} * {b} = {a * b}."], a * b


def weeks(r: random.Random) -> Problem:
    unit, size, parts = r.choice((("weeks", 7, "days"), ("years", 12, "months"), ("hours", 60, "minutes"),
                                  ("days", 24, "hours"), ("dozens", 12, "eggs")))  # fmt: skip
    count = r.randint(2, 12)
    verb = "are there" if parts == "eggs" else "are"
    return (
        f"How many {parts} {verb} in {count} {unit}?",
        [f"{count} {unit} are {count} * {size} = {count * size} {parts}."],
        count * size,
    )


def collecting(r: random.Random) -> Problem:
    name, thing, a, b = r.choice(NAMES), r.choice(THINGS), r.randint(3, 40), r.randint(2, 30)
    return (
        f"{name} has {a} {thing} and finds {b} more. How many {thing} does {name} have now?",
        [f"{name} has {a} + {b} = {a + b} {thing}."],
        a + b,
    )


def giving(r: random.Random) -> Problem:
    name, thing, a = r.choice(NAMES), r.choice(THINGS), r.randint(12, 60)
    b = r.randint(2, a - 2)
    return (
        f"{name} had {a} {thing} and gave {b} of them away. How many {thing} are left?",
        [f"There are {a} - {b} = {a - b} {thing} left."],
        a - b,
    )


def boxes(r: random.Random) -> Problem:
    thing, a, b = r.choice(THINGS), r.randint(2, 12), r.randint(2, 12)
    return (
        f"There are {a} boxes with {b} {thing} in each. How many {thing} are there in all?",
        [f"{a} boxes hold {a} * {b} = {a * b} {thing}."],
        a * b,
    )


def sharing(r: random.Random) -> Problem:
    thing, a, b = r.choice(THINGS), r.randint(2, 9), r.randint(2, 12)
    return (
        f"{a * b} {thing} are shared equally among {a} children. How many {thing} does each child get?",
        [f"Each child gets {a * b} / {a} = {b} {thing}."],
        b,
    )


def shopping(r: random.Random) -> Problem:
    name, thing, price, count = r.choice(NAMES), r.choice(THINGS), r.randint(2, 9), r.randint(2, 9)
    paid = price * count + r.randint(1, 20)
    return (
        f"{name} buys {count} {thing} for {price} euros each and pays with {paid} euros. "
        f"How much change does {name} get?",
        [f"The {thing} cost {count} * {price} = {count * price} euros.",
         f"The change is {paid} - {count * price} = {paid - count * price} euros."],
        paid - count * price,
    )  # fmt: skip


def saving(r: random.Random) -> Problem:
    name, start, week, weeks = r.choice(NAMES), r.randint(5, 40), r.randint(2, 9), r.randint(2, 8)
    return (
        f"{name} has {start} euros and saves {week} euros every week. "
        f"How many euros does {name} have after {weeks} weeks?",
        [f"In {weeks} weeks {name} saves {weeks} * {week} = {weeks * week} euros.",
         f"Then {name} has {start} + {weeks * week} = {start + weeks * week} euros."],
        start + weeks * week,
    )  # fmt: skip


def reading(r: random.Random) -> Problem:
    name, pages, days = r.choice(NAMES), r.randint(4, 15), r.randint(2, 9)
    total = pages * days + r.randint(5, 40)
    return (
        f"A book has {total} pages. {name} reads {pages} pages a day for {days} days. How many pages are left?",
        [f"{name} reads {pages} * {days} = {pages * days} pages.",
         f"There are {total} - {pages * days} = {total - pages * days} pages left."],
        total - pages * days,
    )  # fmt: skip


def teams(r: random.Random) -> Problem:
    girls, boys, team = r.randint(4, 20), r.randint(4, 20), r.choice((2, 3, 4, 5))
    boys += -(girls + boys) % team
    return (
        f"{girls} girls and {boys} boys form teams of {team} players. How many teams are there?",
        [f"There are {girls} + {boys} = {girls + boys} players.",
         f"They form {girls + boys} / {team} = {(girls + boys) // team} teams."],
        (girls + boys) // team,
    )  # fmt: skip


KINDS: tuple[Callable[[random.Random], Problem], ...] = (
    adding, subtracting, multiplying, weeks, collecting, giving, boxes, sharing, shopping, saving, reading, teams,
)  # fmt: skip


def main() -> None:
    """Write the file; questions are all different."""
    numbers, seen, lines = random.Random(17), set(), []
    for kind in KINDS:
        while sum(line["kind"] == kind.__name__ for line in lines) < EACH:
            question, worked, answer = kind(numbers)
            if question in seen:
                continue
            seen.add(question)
            reference = " ".join([*worked, f"The answer is {answer}."])
            lines.append({"kind": kind.__name__, "question": question, "reference": reference})
    path = Path(__file__).with_name("arithmetic.jsonl")
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    print(f"{len(lines)} problems in {path}")


if __name__ == "__main__":
    main()
