"""The sums in a solution, each worked out again.

Every equals sign is looked at: what stands before it must end in a sum, what stands behind it must begin
with a number or a sum, and neither may touch anything that cannot be read (a variable, a function, a
remainder of algebra). Everything else is left alone: "x = 5", "1 hour = 60 minutes" and dates are no
steps. A chain "2 + 3 = 5 * 2 = 10" is wrong as mathematics and common as a way to write; its links
hold if the next one starts from the result.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from potstill.verifiers.agreement import holds, singular
from potstill.verifiers.arithmetic import (
    Binary,
    Expression,
    Number,
    Parser,
    Prefixed,
    Unreadable,
    evaluate,
    normal_form,
    numbers,
)
from potstill.verifiers.reading import Token, plain, tokens

DEFAULT_RELATIVE = Fraction(1, 1000)
#: How far a result may be off behind one of these signs.
ABOUT = Fraction(1, 100)
_ABOUT_SIGNS = ("≈", "≅", "≃", "~=")
_NOTE = re.compile(r"<<([^<>]*)>>")
_LONGEST_SIDE = 80  # tokens at one side of an equals sign that may belong to its sum


@dataclass(frozen=True, slots=True)
class Step:
    """One sum of a text, and what the text says it comes to."""

    text: str
    value: Fraction | None  # None where the sum divides by zero
    claimed: Fraction
    holds: bool
    form: str  # the sum in normal form, equal for all orders of operands


@dataclass(frozen=True, slots=True)
class _Side:
    """A sum at one side of an equals sign, and where it stands."""

    expression: Expression
    tight: Expression  # the same with 1/2 as one number
    start: int
    end: int


def find_steps(text: str, relative: Fraction = DEFAULT_RELATIVE) -> list[Step]:
    """All sums that can be read in the text: those in `<<...>>` annotations first, then those of the prose.

    `relative` is how far a result may be off where the sum has operands with decimals, which may have been rounded
    (RFT allows 1e-3, Yuan et al. 2023); results rounded or cut at the places they show always hold.
    """
    noted = [step for note in _NOTE.findall(text) for step in _read(note, relative)]
    known = {(step.form, step.claimed) for step in noted}
    prose = _read(_NOTE.sub("", text), relative)
    return noted + [step for step in prose if (step.form, step.claimed) not in known]


def equations(text: str) -> tuple[str, ...]:
    """The text's sums in normal form with their results, in order: the shape of a solution (RFT, section 3.2)."""
    return tuple(f"{step.form}={step.claimed}" for step in find_steps(text))


def _read(text: str, relative: Fraction) -> list[Step]:
    source = plain(text)
    found = []
    for segments, signs in _chains(tokens(source)):
        sides = [(_leading(segment), _trailing(segment)) for segment in segments]
        for (_, before), (after, _), sign in zip(sides, sides[1:], signs, strict=False):
            if before is None or after is None:
                continue
            step = _step(source, before, after, ABOUT if sign in _ABOUT_SIGNS else relative)
            if step is not None:
                found.append(step)
    return found


def _chains(found: list[Token]) -> Iterator[tuple[list[list[Token]], list[str]]]:
    """The tokens between equals signs, and those signs; a line's end ends a chain."""
    segments: list[list[Token]] = [[]]
    signs: list[str] = []
    for token in found:
        if token.text == "\n":
            yield segments, signs
            segments, signs = [[]], []
        elif token.kind == "equals":
            segments.append([])
            signs.append(token.text)
        else:
            segments[-1].append(token)
    yield segments, signs


def _leading(segment: Sequence[Token]) -> _Side | None:
    """The sum that the segment begins with."""
    if not segment or segment[0].kind not in ("number", "open", "operator"):
        return None
    within = segment[:_LONGEST_SIDE]
    parser = Parser(within, 0)
    try:
        expression = parser.sum()
    except Unreadable:
        return None
    if parser.at == len(within) < len(segment):
        return None
    if parser.at < len(segment) and not _may_follow(segment, parser.at):
        return None
    return _Side(expression, _tight(within, 0, expression), segment[0].start, segment[parser.at - 1].end)


def _tight(segment: Sequence[Token], start: int, loose: Expression) -> Expression:
    try:
        return Parser(segment, start, tight=True).sum()
    except Unreadable:
        return loose


def _may_follow(segment: Sequence[Token], at: int) -> bool:
    token = segment[at]
    beyond = segment[at + 1].kind if at + 1 < len(segment) else ""
    remainder = re.fullmatch(r"[rR](\d+)?", token.text) is not None and (len(token.text) > 1 or beyond == "number")
    spoken = (
        token.kind == "stop" and token.text.isalpha() and len(token.text) > 1 and not token.glued
    )  # a number in words
    return token.kind in ("bound", "word", "number", "close") or remainder or spoken


def _trailing(segment: Sequence[Token]) -> _Side | None:
    """The longest sum that the segment ends with, if nothing before it belongs to it."""
    if not segment or segment[-1].text in ("a", "A", "I"):  # variables, right before an equals sign
        return None
    first = max(0, len(segment) - _LONGEST_SIDE)
    for start in range(first, len(segment)):
        if segment[start].kind not in ("number", "open") and segment[start].text != "-":
            continue
        parser = Parser(segment, start)
        try:
            expression = parser.sum()
        except Unreadable:
            continue
        if parser.at == len(segment) and _may_precede(segment, start) and not _goes_on(segment):
            return _Side(expression, _tight(segment, start, expression), segment[start].start, segment[-1].end)
        if parser.at == len(segment):
            return None
    return None


def _goes_on(segment: Sequence[Token]) -> bool:
    """3 * 4 apples and pears = 12: what the equals sign speaks of is not the sum."""
    for token in reversed(segment):
        if token.kind != "word":
            return False
        if token.text == "and":
            return True
    return False


def _may_precede(segment: Sequence[Token], start: int) -> bool:
    if start == 0:
        return True
    before = segment[start - 1]
    if before.text.startswith("of") and before.kind in ("word", "of"):  # a total of 3 + 4, but not half of 3 + 4
        return start == 1 or segment[start - 2].kind in ("word", "bound")
    if before.kind == "word" and segment[start].kind == "open" and segment[start].glued:  # f(3)
        return False
    if segment[start].text == "-":
        return before.kind in ("bound", "open")
    return before.kind in ("bound", "word", "number", "open")


def _step(source: str, before: _Side, after: _Side, relative: Fraction) -> Step | None:
    """The step of two sides, or None where it is no sum, a conversion of units, or cannot be worked out."""
    left, claim = before.expression, after.expression
    text = source[before.start : after.end].strip()
    if not _has_operator(left):
        if not _has_operator(claim) or _is_label(source, before) or _differ_in_unit(left, claim):
            return None
        left, claim = claim, left
    if _is_fraction(left) and _differ_in_unit(left, claim):
        return None
    try:
        claimed, value = evaluate(claim), _value(left)
        right = holds(left, claim, relative) or _runs_on(left, claim, relative)
        right = right or holds(before.tight, after.tight, relative)
    except (Unreadable, ZeroDivisionError):
        return None
    if not right and relative >= ABOUT:
        right = value is not None and abs(value - claimed) <= ABOUT * abs(value)
    if not right and isinstance(before.tight, Number) and value is not None and 0 < value < 1 <= claimed:
        return None  # 3/8 = 15: a share of something, not a sum
    return Step(text, value, claimed, right, normal_form(left))


def _value(expression: Expression) -> Fraction | None:
    try:
        return evaluate(expression)
    except ZeroDivisionError:
        return None


def _runs_on(left: Expression, claim: Expression, relative: Fraction) -> bool:
    """2 + 3 = 5 * 2: the next sum starts from this one's result."""
    while isinstance(claim, Binary):
        claim = claim.left
        if holds(left, claim, relative):
            return True
    return False


def _has_operator(expression: Expression) -> bool:
    match expression:
        case Binary():
            return True
        case Prefixed(_, inner):
            return _has_operator(inner)
    return False


def _is_fraction(expression: Expression) -> bool:
    return isinstance(expression, Binary) and expression.operator == "/" and all(
        isinstance(side, Number) for side in (expression.left, expression.right)
    )  # fmt: skip


def _is_label(source: str, side: _Side) -> bool:
    """Day 2 = 3 * 4: the number names something."""
    return not re.search(r"(?:^|[\n,;:.(])\s*[$€£]?\s*$", source[: side.start])


def _differ_in_unit(one: Expression, other: Expression) -> bool:
    """Whether the first bears a unit that the other lacks: 1/2 hour = 30 minutes."""
    mine, theirs = ({singular(unit) for number in numbers(side) for unit in number.units} for side in (one, other))
    return bool(mine - {"dollar"}) and not mine & theirs
