"""Whether a claimed result is the value of a sum: rounding, percent signs and changes of unit.

A sum holds if any sensible reading of it does. "5 / 20 = 25%" and "5 / 20 * 100 = 25%" both hold, and so
do "3 * 50 cents = $1.50" and "2 weeks + 3 days = 17 days". Rounding is measured at the last place that
the result shows: 2/3 is 0.67, 0.66 (cut) and 1, but not 0.68. Whole numbers added, subtracted or multiplied
leave nothing to round: there only the exact result holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction

from potstill.verifiers.arithmetic import (
    Expression,
    Number,
    PercentAs,
    Prefixed,
    evaluate,
    numbers,
)

_READINGS: tuple[PercentAs, ...] = ("hundredth", "plain", "share")
#: Units of one kind and their sizes. Months and years stand apart from days, whose number in them varies.
_KINDS: tuple[dict[str, Fraction], ...] = tuple(
    {name: Fraction(size) for name, size in kind.items()}
    for kind in (
        {"cent": "0.01", "¢": "0.01", "penny": "0.01", "pennie": "0.01", "nickel": "0.05", "dime": "0.1",
         "quarter": "0.25", "dollar": "1", "buck": "1"},
        {"second": "1", "sec": "1", "minute": "60", "min": "60", "hour": "3600", "hr": "3600", "day": "86400",
         "week": "604800", "month": "2592000", "year": "31536000"},
        {"week": "1", "month": "4", "year": "52"},
        {"month": "1", "year": "12", "decade": "120", "centurie": "1200", "century": "1200"},
        {"inch": "1", "inche": "1", "foot": "12", "feet": "12", "ft": "12", "yard": "36", "mile": "63360"},
        {"mm": "0.001", "millimeter": "0.001", "cm": "0.01", "centimeter": "0.01", "m": "1", "meter": "1", "metre": "1",
         "km": "1000", "kilometer": "1000", "kilometre": "1000"},
        {"milligram": "0.001", "mg": "0.001", "g": "1", "gram": "1", "kg": "1000", "kilogram": "1000", "kilo": "1000",
         "ton": "1000000", "tonne": "1000000"},
        {"ounce": "1", "oz": "1", "pound": "16", "lb": "16", "ton": "32000"},
        {"teaspoon": "1", "tablespoon": "3"},
        {"ml": "1", "milliliter": "1", "liter": "1000", "litre": "1000", "l": "1000"},
        {"ounce": "1", "oz": "1", "cup": "8", "pint": "16", "quart": "32", "gallon": "128"},
        {"each": "1", "piece": "1", "egg": "1", "pair": "2", "dozen": "12"},
    )
)  # fmt: skip


def agrees(value: Fraction, claimed: Fraction, place: Fraction | None, whole: bool, relative: Fraction) -> bool:
    """Whether `claimed`, whose last digit is worth `place`, is `value` rounded or cut there.

    `whole`: the sum is over whole numbers. Otherwise an operand was itself written with decimals, maybe rounded,
    and a relative difference of at most `relative` holds too.
    """
    if value == claimed:
        return True
    if place is not None and value % place == 0:
        return False  # the result could have been written out, so nothing was rounded
    if place is not None:
        cut = abs(value) // place * place
        if abs(value - claimed) <= place / 2 or (abs(claimed) == cut and value * claimed >= 0):
            return True
    return not whole and abs(value - claimed) <= relative * max(abs(value), abs(claimed))


def holds(left: Expression, claim: Expression, relative: Fraction) -> bool:
    """Whether some reading of `left` has the value that some reading of `claim` has.

    Raises Unreadable where either cannot be worked out; a division by zero holds with nothing.
    """
    whole = all(number.value.denominator == 1 for number in numbers(left))
    claims = set(_claims(claim))
    compared = [(value, *claimed) for value in _values(left) for claimed in claims]
    return any(
        agrees(value, claimed, place, whole, relative)
        for value, claimed, place in (*compared, *_converted(left, claim, _place(claim)))
    )


def _claims(claim: Expression) -> Iterator[tuple[Fraction, Fraction | None]]:
    """What is claimed, with the worth of its last digit, which shrinks with a percent sign."""
    place = _place(claim)
    hundredth = isinstance(claim, Prefixed) and claim.sign == "%"
    for percent, value in zip(_READINGS, _values(claim), strict=False):
        yield value, place / 100 if hundredth and place is not None and percent != "plain" else place
    if isinstance(claim, Number) and claim.scale > 1:  # 16 + 12 = 28 million, all in millions
        yield claim.value / claim.scale, None if place is None else place / claim.scale


def _place(claim: Expression) -> Fraction | None:
    match claim:
        case Number(_, place):
            return place
        case Prefixed(_, inner):
            return _place(inner)
    return None


def _values(expression: Expression) -> Iterator[Fraction]:
    for percent in _READINGS:
        try:
            yield evaluate(expression, percent)
        except ZeroDivisionError:
            return


def _converted(
    left: Expression, claim: Expression, place: Fraction | None
) -> Iterator[tuple[Fraction, Fraction, Fraction | None]]:
    """What else to compare where units of one kind but of different sizes stand on both sides."""
    ours, theirs = _units(left), _units(claim)
    for sizes in _KINDS:
        mine, goal = ours & sizes.keys(), theirs & sizes.keys()
        if len(mine | goal) < 2:
            continue
        try:
            value, claimed = evaluate(left), evaluate(claim)
            for one in sorted(mine | goal):
                for other in sorted(mine | goal):
                    yield value * sizes[one] / sizes[other], claimed, place
            for unit in sorted(goal or mine):
                yield evaluate(left, size=_scaled(sizes, unit)), claimed, place
        except ZeroDivisionError:
            return


def _scaled(sizes: dict[str, Fraction], unit: str) -> Callable[[Number], Fraction]:
    def size(number: Number) -> Fraction:
        own = next((sizes[name] for name in map(singular, number.units) if name in sizes), None)
        return Fraction(1) if own is None else own / sizes[unit]

    return size


def _units(expression: Expression) -> set[str]:
    return {singular(unit) for number in numbers(expression) for unit in number.units}


def singular(unit: str) -> str:
    """apples -> apple; for comparing units, not for reading them out."""
    return unit[:-1] if len(unit) > 2 and unit.endswith("s") and not unit.endswith("ss") else unit
