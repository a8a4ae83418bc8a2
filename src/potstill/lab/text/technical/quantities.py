"""Quantities with units, and conversions that are exact.

Everything is a fraction until it is printed, and only numbers that end after a few decimals are printed.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from potstill.lab.text.draw import Dice

#: Units of one kind from small to large, each with its size in the smallest.
FAMILIES: dict[str, tuple[tuple[str, int], ...]] = {
    "time": (("ms", 1), ("s", 1000), ("min", 60_000), ("h", 3_600_000)),
    "size": (("bytes", 1), ("KiB", 1024), ("MiB", 1024**2), ("GiB", 1024**3)),
    "length": (("mm", 1), ("cm", 10), ("m", 1000), ("km", 1_000_000)),
    "mass": (("mg", 1), ("g", 1000), ("kg", 1_000_000)),
    "volume": (("ml", 1), ("l", 1000)),
    "frequency": (("Hz", 1), ("kHz", 1000), ("MHz", 1_000_000)),
    "voltage": (("mV", 1), ("V", 1000), ("kV", 1_000_000)),
    "pressure": (("Pa", 1), ("kPa", 1000), ("MPa", 1_000_000)),
    "power": (("W", 1), ("kW", 1000), ("MW", 1_000_000)),
    "current": (("mA", 1), ("A", 1000)),
    "angle": (("arcsec", 1), ("arcmin", 60), ("deg", 3600)),
}
_MAX_DECIMALS = 4


@dataclass(frozen=True, slots=True)
class Quantity:
    """An amount of a unit."""

    amount: Fraction
    unit: str
    family: str

    def text(self) -> str:
        """As it is printed: `1.5 min`."""
        return f"{decimal(self.amount)} {self.unit}"

    def in_unit(self, unit: str) -> Quantity:
        """The same in another unit of its family."""
        sizes = dict(FAMILIES[self.family])
        return Quantity(self.amount * sizes[self.unit] / sizes[unit], unit, self.family)


def decimal(number: Fraction) -> str:
    """The number in full. Raises ValueError where it has more than four decimals."""
    scaled = number * 10**_MAX_DECIMALS
    if scaled.denominator != 1:
        raise ValueError(f"expected a number of at most {_MAX_DECIMALS} decimals, found {number}")
    whole, rest = divmod(abs(int(scaled)), 10**_MAX_DECIMALS)
    digits = f"{rest:0{_MAX_DECIMALS}d}".rstrip("0")
    return ("-" if number < 0 else "") + str(whole) + (f".{digits}" if digits else "")


def printable(number: Fraction) -> bool:
    """Whether `decimal` can print it."""
    rest: int = 10**_MAX_DECIMALS % number.denominator
    return rest == 0


def round_number(dice: Dice, low: int = 1) -> Fraction:
    """A number as people set it: 4, 15, 250, 0.5, 7.25."""
    kind = dice.random()
    if kind < 0.55:
        return Fraction(dice.whole(low, 40))
    if kind < 0.8:
        return Fraction(dice.whole(1, 39) * 5)
    return Fraction(dice.whole(1, 79), dice.pick((2, 4, 5, 10)))


def quantity(dice: Dice, family: str | None = None) -> Quantity:
    """A quantity with an amount that is easy to read."""
    chosen = family or dice.pick(tuple(FAMILIES))
    units = FAMILIES[chosen]
    unit = dice.pick(units)[0]
    amount = round_number(dice)
    whole_only = unit in ("bytes", "ms", "mm", "mg")
    return Quantity(Fraction(max(1, int(amount * (8 if whole_only else 1)))) if whole_only else amount, unit, chosen)


def converted(given: Quantity, dice: Dice) -> Quantity:
    """The same quantity in another unit of its family that can be printed and is neither huge nor tiny.

    The quantity itself where no other unit will do.
    """
    others = [given.in_unit(unit) for unit, _ in FAMILIES[given.family] if unit != given.unit]
    fit = [other for other in others if printable(other.amount) and Fraction(1, 100) <= other.amount < 10**9]
    return dice.pick(fit) if fit else given
