"""Reference entries of made-up functions, with examples that were worked out by running them.

A function is a chain of small steps, each with words for it and a meaning. So the entries are as many as there are
chains, and what an entry says is what its examples do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from potstill.lab.text.draw import Dice

Numbers = list[int]


@dataclass(frozen=True, slots=True)
class Step:
    """A part of a function's name, what is said of it, and what it does."""

    name: str
    says: str
    does: Callable[[Numbers], Numbers]


def _unique(values: Numbers) -> Numbers:
    return list(dict.fromkeys(values))


def _running(values: Numbers) -> Numbers:
    totals: Numbers = []
    for value in values:
        totals.append(value + (totals[-1] if totals else 0))
    return totals


def _steps(k: int) -> list[Step]:
    return [
        Step("above", f"keeps the values above {k}", lambda v: [x for x in v if x > k]),
        Step("below", f"keeps the values below {k * 3}", lambda v: [x for x in v if x < k * 3]),
        Step("multiples", f"keeps the values divisible by {k}", lambda v: [x for x in v if x % k == 0]),
        Step("even", "keeps the even values", lambda v: [x for x in v if x % 2 == 0]),
        Step("odd", "keeps the odd values", lambda v: [x for x in v if x % 2 == 1]),
        Step("shift", f"adds {k} to every value", lambda v: [x + k for x in v]),
        Step("scale", f"multiplies every value by {k}", lambda v: [x * k for x in v]),
        Step("less", f"subtracts {k} from every value", lambda v: [x - k for x in v]),
        Step("mod", f"replaces every value by its remainder after division by {k}", lambda v: [x % k for x in v]),
        Step("square", "squares every value", lambda v: [x * x for x in v]),
        Step("capped", f"replaces values above {k * 2} by {k * 2}", lambda v: [min(x, k * 2) for x in v]),
        Step("sorted", "sorts the values from small to large", sorted),
        Step("falling", "sorts the values from large to small", lambda v: sorted(v, reverse=True)),
        Step("reverse", "reverses the order", lambda v: v[::-1]),
        Step("unique", "drops values that came before", _unique),
        Step("head", "keeps the first three values", lambda v: v[:3]),
        Step("tail", "drops the first value", lambda v: v[1:]),
        Step("running", "replaces every value by the total so far", _running),
        Step("gaps", "takes the differences of neighbours", lambda v: [b - a for a, b in pairwise(v)]),
        Step("ends", "keeps the first and the last value", lambda v: v if len(v) < 2 else [v[0], v[-1]]),
    ]


_LAST: tuple[tuple[str, str, Callable[[Numbers], int]], ...] = (
    ("sum", "returns their sum", sum),
    ("count", "returns how many there are", len),
    ("largest", "returns the largest, or 0 if there is none", lambda v: max(v, default=0)),
    ("smallest", "returns the smallest, or 0 if there is none", lambda v: min(v, default=0)),
    ("spread", "returns the largest less the smallest, or 0 if there is none", lambda v: max(v) - min(v) if v else 0),
)
_OPENINGS = ("It", "The function", "This one", "First it", "{name}")
_REMARKS = (
    "The list that is given is not changed.",
    "An empty list is allowed.",
    "The order of the values matters.",
    "Values may be negative.",
    "It takes {count} steps whatever the list.",
    "Text instead of numbers is an error.",
    "It is called once for every {noun}.",
    "Used by {other} and by the {noun} report.",
    "New in version {version}.",
    "See {other} for a variant that works on one {noun} at a time.",
    "Faster than {other} on long lists.",
    "Do not confuse it with {other}, which returns a {noun}.",
    "A list of a single value is fine.",
)


def entry(dice: Dice, nouns: list[str], version: str) -> tuple[str, str]:
    """The name of a new function, and its entry: signature, description, one to four worked examples, remarks."""
    chain = [dice.pick(_steps(dice.whole(2, 9))) for _ in range(dice.pick((1, 2, 2, 3)))]
    last = dice.pick(_LAST) if dice.chance(0.6) else None
    parts = [step.name for step in chain] + ([last[0]] if last else ["list"])
    name = "_".join([nouns[0], *parts])
    says = [step.says for step in chain] + [last[1] if last else "returns the list"]
    opening = dice.pick(_OPENINGS).format(name=name)
    description = f"{opening} {', then '.join(says) if dice.chance(0.5) else _in_a_row(says)}."
    lines = [f"{name}(values)", "    " + description]
    lines += ["    " + _example(name, chain, last, dice) for _ in range(dice.whole(1, 4))]
    slots = {"count": str(len(says)), "noun": nouns[1], "other": f"{nouns[2]}_{dice.pick(parts)}", "version": version}
    lines += ["    " + remark.format(**slots) for remark in dice.some(_REMARKS, dice.whole(0, 2))]
    return name, "\n".join(lines)


def _example(name: str, chain: list[Step], last: tuple[str, str, Callable[[Numbers], int]] | None, dice: Dice) -> str:
    given = [dice.whole(1, 30) for _ in range(dice.whole(2, 7))]
    values = given
    for step in chain:
        values = step.does(values)
    result = last[2](values) if last else values
    joined = dice.pick(("{call} returns {result}", "{call} == {result}", ">>> {call}\n    {result}"))
    return joined.format(call=f"{name}({given})", result=result)


def _in_a_row(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
