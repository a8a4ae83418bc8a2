"""Sums as trees: parsed by hand from tokens, worked out in exact fractions, never run as code.

The grammar is that of a calculator: + and -, then * and / and "of", then signs, then powers. Units may
stand behind any number ("3 apples", "5 miles / hour"); they are kept, since they tell conversions from
mistakes. Two sums that differ only in the order of what is added or multiplied have the same normal
form, which is how duplicates among solutions are found (RFT: Yuan et al. 2023, section 3.2).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal

from potstill.verifiers.reading import Token

#: How a percent sign counts: 20% is 0.2; or just 20; or, after + and -, that share of what stands before.
PercentAs = Literal["hundredth", "plain", "share"]
MOST_UNIT_WORDS = 10
_NO_UNITS = frozenset("because since so then if but or is are was were thus hence therefore".split())  # noqa: SIM905
_MOST_POWER, _MOST_BITS = 64, 4096
_DEEPEST = 200  # operands of one sum, however they are nested


class Unreadable(ValueError):
    """The tokens are no sum, or none that is worked out here; nothing is said about their truth."""


@dataclass(frozen=True, slots=True)
class Number:
    """A number as written: value, size of its last place, units in lower case."""

    value: Fraction
    place: Fraction | None
    units: tuple[str, ...] = ()
    scale: int = 1  # what a word such as million has multiplied the value with


@dataclass(frozen=True, slots=True)
class Binary:
    """Two operands; the operator is one of + - * / ^."""

    operator: str
    left: Expression
    right: Expression


@dataclass(frozen=True, slots=True)
class Prefixed:
    """A minus before, or a percent sign behind."""

    sign: Literal["-", "%"]
    inner: Expression


Expression = Number | Binary | Prefixed


class Parser:
    """Reads the longest sum that begins at a token.

    With `tight`, a fraction written without spaces is one number: 6 / 1/2 is 12, and not 3.
    """

    def __init__(self, found: Sequence[Token], start: int, tight: bool = False):
        self.tokens = found
        self.at = start
        self.tight = tight
        self.operands = 0

    def sum(self) -> Expression:
        """Terms, added and subtracted. Raises Unreadable, also where an operator has no operand behind it."""
        left = self._term()
        while self._is("operator", "+-"):
            operator = self._next().text
            left = Binary(operator, left, self._term())
        return left

    def _term(self) -> Expression:
        left = self._signed()
        while True:
            if self._is("operator", "*/"):
                operator = self._next().text
                left = Binary(operator, left, self._signed())
            elif self._is("of") and self.tokens[self.at - 1].kind != "word" and _is_share(left):
                self._next()
                left = Binary("*", left, self._signed())
            elif self._is("open") and self.tokens[self.at].glued and self.tokens[self.at - 1].kind in (
                "number", "close"
            ):  # fmt: skip
                left = Binary("*", left, self._signed())
            else:
                return left

    def _signed(self) -> Expression:
        self.operands += 1
        if self.operands > _DEEPEST:
            raise Unreadable("too many operands")
        if self._is("operator", "+-"):
            minus = self._next().text == "-"
            inner = self._signed()
            return Prefixed("-", inner) if minus else inner
        base = self._atom()
        if self._is("operator", "^"):
            self._next()
            return Binary("^", base, self._signed())
        return base

    def _atom(self) -> Expression:
        if self._is("open"):
            self._next()
            inner = self.sum()
            if not self._is("close"):
                raise Unreadable("a bracket is not closed")
            self._next()
            return self._with_units(inner)
        if not self._is("number"):
            raise Unreadable("expected a number")
        token = self._next()
        number = Number(token.value, token.place, (token.unit,) if token.unit else (), token.scale)
        mixed = self._mixed(number)
        return self._with_units(self._fraction(mixed) if self.tight and mixed is number else mixed)

    def _mixed(self, whole: Number) -> Number:
        """3 1/2 as one number."""
        if whole.place != 1 or not self._is("number"):
            return whole
        upper = self._next()
        part = self._fraction(Number(upper.value, upper.place, (upper.unit,) if upper.unit else ()))
        if part.place is not None or part.units or not 0 < part.value < 1:
            self.at -= 1 if part.place is not None else 3
            return whole
        return replace(whole, value=whole.value + part.value, place=None)

    def _fraction(self, upper: Number) -> Number:
        """1/2, written tightly, as one number."""
        here = self.tokens[self.at : self.at + 2]
        if upper.place != 1 or [token.kind for token in here] != ["operator", "number"]:
            return upper
        slash, lower = here
        tight = slash.text == "/" and slash.glued and lower.glued and lower.place == 1 and not lower.unit
        if not tight or lower.value == 0:
            return upper
        self.at += 2
        return replace(upper, value=upper.value / lower.value, place=None)

    def _with_units(self, inner: Expression) -> Expression:
        if self._is("percent"):
            self._next()
            inner = Prefixed("%", inner)
        units: list[str] = []
        while len(units) < MOST_UNIT_WORDS:
            if self._is("word") and self.tokens[self.at].text.casefold() not in _NO_UNITS:
                units.append(self._next().text.casefold())
            elif self._is("operator", "/") and self.at + 1 < len(self.tokens) and (
                self.tokens[self.at + 1].kind == "word"
            ):  # fmt: skip
                self._next()
            else:
                break
        if not units or not isinstance(inner, Number):
            return inner
        return replace(inner, units=(*inner.units, *units))

    def _is(self, kind: str, texts: str | None = None) -> bool:
        if self.at >= len(self.tokens):
            return False
        token = self.tokens[self.at]
        return token.kind == kind and (texts is None or token.text in texts)

    def _next(self) -> Token:
        self.at += 1
        return self.tokens[self.at - 1]


def _is_share(expression: Expression) -> bool:
    """What may stand before "of": 20%, 1/4, 0.3."""
    match expression:
        case Prefixed("%", _):
            return True
        case Binary("/", Number(), Number()):
            return True
        case Number(value):
            return 0 < value < 1
        case Binary("*", _, right):
            return _is_share(right)
    return False


def evaluate(
    expression: Expression, percent: PercentAs = "hundredth", size: Callable[[Number], Fraction] | None = None
) -> Fraction:
    """The exact value; `size` may scale each number by its unit.

    Raises ZeroDivisionError, and Unreadable where a power is not whole or a number would grow too long.
    """

    def of(node: Expression) -> Fraction:
        match node:
            case Number():
                return node.value if size is None else node.value * size(node)
            case Prefixed("-", inner):
                return -of(inner)
            case Prefixed(_, inner):
                return of(inner) if percent == "plain" else of(inner) / 100
            case Binary("^", left, right):
                return _power(of(left), of(right))
            case Binary(operator, left, Prefixed("%", inner)) if operator in "+-" and percent == "share":
                whole = of(left)
                return whole + (of(inner) if operator == "+" else -of(inner)) / 100 * whole
            case Binary(operator, left, right):
                one, other = of(left), of(right)
                if operator == "+":
                    return one + other
                if operator == "-":
                    return one - other
                return one * other if operator == "*" else one / other
        raise Unreadable(f"unknown node {node!r}")

    try:
        return of(expression)
    except RecursionError as error:
        raise Unreadable("brackets too deep") from error


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    if exponent.denominator != 1 or abs(exponent) > _MOST_POWER:
        raise Unreadable("a power that is not a small whole number")
    if max(base.numerator.bit_length(), base.denominator.bit_length()) * abs(exponent) > _MOST_BITS:
        raise Unreadable("a power too large")
    return base ** int(exponent)


def numbers(expression: Expression) -> list[Number]:
    """All numbers in it, from the left."""
    match expression:
        case Number():
            return [expression]
        case Prefixed(_, inner):
            return numbers(inner)
        case Binary(_, left, right):
            return numbers(left) + numbers(right)


def normal_form(expression: Expression) -> str:
    """One text for all orders of what is added or multiplied; units and spelling do not count."""
    match expression:
        case Number(value):
            return str(value)
        case Prefixed(sign, inner):
            return f"{sign}({normal_form(inner)})"
        case Binary(operator, _, _) if operator in "+*":
            return "(" + operator.join(sorted(_flat(expression, operator))) + ")"
        case Binary(operator, left, right):
            return f"({normal_form(left)}{operator}{normal_form(right)})"


def _flat(expression: Expression, operator: str) -> list[str]:
    if isinstance(expression, Binary) and expression.operator == operator:
        return _flat(expression.left, operator) + _flat(expression.right, operator)
    return [normal_form(expression)]
