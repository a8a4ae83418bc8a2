r"""From prose to the tokens of sums: numbers, operators, brackets, units, and what cannot be read.

Models write one sum in a hundred ways: "48 / 2 = 24", "$3 x 4 = $12", "3 apples × 2 = 6 apples",
"\frac{1}{2} \times 10 = 5", "20% of 50 equals 10". Here all of them become the same tokens. What has
no meaning to a calculator becomes a *stop* (algebra, a function's name, a time of day): nothing next
to one is ever checked. Plain words, full stops and line ends only bound a sum.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal

Kind = Literal["number", "operator", "of", "equals", "percent", "open", "close", "word", "stop", "bound"]

#: A number with more digits than this is not read: nobody meant to compute with it.
MOST_DIGITS = 40
_SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_CURRENCIES = {"$": "dollar", "€": "euro", "£": "pound_sterling", "¥": "yen", "₹": "rupee"}
_VULGAR = {"½": "1/2", "⅓": "1/3", "⅔": "2/3", "¼": "1/4", "¾": "3/4", "⅕": "1/5", "⅖": "2/5", "⅗": "3/5",
           "⅘": "4/5", "⅙": "1/6", "⅚": "5/6", "⅛": "1/8", "⅜": "3/8", "⅝": "5/8", "⅞": "7/8"}  # fmt: skip
#: Words that change the number after them, so that a sum may not begin behind them.
_STOP_WORDS_TEXT = (
    "half third thirds quarter quarters fourth fourths fifth fifths sixth tenth twice double triple thrice "
    "two three four five six seven eight nine ten eleven twelve fifteen twenty thirty fifty mod modulo sqrt root "
    "squared cubed log ln sin cos tan max min gcd lcm floor ceil choose sum product square cube average"
)
_STOP_WORDS = frozenset(_STOP_WORDS_TEXT.split())
_LETTERS_AS_UNITS = frozenset("g")
#: A short word right behind a number is a product of variables, as in 2ab, unless it is one of these.
_SHORT_UNITS_TEXT = (
    "kg mg gm cm mm km ml cl mi ft in yd oz lb lbs hr hrs min mins sec secs am pm mph kph gb mb kb tb rs pts yr yrs wk "
    "kwh cal cup day men pcs usd eur"
)
_SHORT_UNITS = frozenset(_SHORT_UNITS_TEXT.split())
_LETTERS_AS_WORDS = frozenset("aAI")

_TOKEN = re.compile(
    r"""(?P<space>[ \t]+)
      | (?P<ratio>\d+(?::\d+)+)
      | (?P<ordinal>\d+(?:st|nd|rd|th)\b)
      | (?P<number>(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)
      | (?P<times>[xX](?=\s*[$€£¥₹]?\s*(?:\d|\.\d|\()))
      | (?P<spoken>(?:multiplied\ by|divided\ by|times|plus|minus)(?=\s+[$€£¥₹(]?\s*\.?\d))
      | (?P<equals>=+|≈|≅|≃|~=|\bequals\b|\b(?:is|are)\ equal\ to\b)
      | (?P<of>of(?:\s+(?:the|his|her|their|its|those|these))?(?=\s+[$€£¥₹(]?\s*\.?\d))
      | (?P<percent>%|percent\b|per\ cent\b)
      | (?P<power>\*\*|\^)
      | (?P<operator>[-+*/])
      | (?P<open>[(\[{]) | (?P<close>[)\]}])
      | (?P<currency>[$€£¥₹])
      | (?P<word>[^\W\d_]+(?:['\u2019-][^\W\d_]+)*(?:\^[23](?!\d))?)
      | (?P<bound>[\n,;:.?"“”&<>])
      | (?P<stop>.)
    """,
    re.VERBOSE,
)
#: In this order; what is left of LaTeX in the end cannot be read, and nothing next to it is checked.
_COMMANDS = (
    (r"\\(?:times|cdot|ast)(?![a-zA-Z])", " * "),
    (r"\\div(?![a-zA-Z])", " / "),
    (r"\\approx(?![a-zA-Z])", " ≈ "),
    (r"\\(?:left|right)(?![a-zA-Z])\s*", ""),
    (r"\\(?:displaystyle|\(|\)|\[|\])(?![a-zA-Z])", " "),
    (r"\\q?quad(?![a-zA-Z])", "\n"),
    (r"\\[,;:! ]", " "),
    (r"\\([%$])", r"\1"),
    (r"\\[a-zA-Z]+", " § "),
)
_SPOKEN = {"multiplied by": "*", "times": "*", "divided by": "/", "plus": "+", "minus": "-"}


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of the text; numbers carry their value and the size of their last place."""

    kind: Kind
    text: str
    start: int
    end: int
    glued: bool  # no space before it
    value: Fraction = Fraction(0)
    place: Fraction | None = None  # 1/100 for 3.25; of numbers only
    unit: str = ""  # a currency before the number
    scale: int = 1  # what a word such as million has multiplied the value with


def plain(text: str) -> str:
    """The text with one spelling for each sign, without LaTeX and emphasis."""
    text = _without_latex(text)
    for sign, fraction in _VULGAR.items():
        text = re.sub(rf"(?<=\d){sign}", f" {fraction}", text).replace(sign, fraction)
    text = re.sub("[\u00d7\u2219\u22c5·✕✖]", "*", text).replace("÷", "/").replace("\u2044", "/").replace("—", "\n")
    text = re.sub("[\u2212\u2013\u2012]", "-", text)
    text = text.replace("²", "^2").replace("³", "^3").replace("\u00a0", " ").replace("\u202f", " ")
    text = re.sub(r"(?<=[\d)])\*\*(?=[\d(])", "^", text)
    text = re.sub(r"(?<=[\d)]) \*\* (?=[\d(])", "^", text)
    text = re.sub(r"\*\*|__|`", "", text)
    text = re.sub(r"(?<=\d)(?:\.\.\.|…)", "", text)
    text = re.sub(r"(?m)^[ \t]*(?:[-*•+][ \t]+|\d+[.)][ \t]+)+", "\n", text)  # bullets and numbers of lists
    text = re.sub(r"(?<=\d),\ (?=000\b)", ",", text)  # 16, 000
    text = re.sub(r"(?<=\d)-(?=[^\W\d_]{2,})", " ", text)  # 5-day
    text = re.sub(r"\(((?:\s*[^\W\d_]{2,}(?:\s*/\s*[^\W\d_]{2,})*\b){1,6}\s*)\)", r" \1 ", text)  # 9 (apples)
    return re.sub(r"[ \t]*\n\s*&?[ \t]*=", " =", re.sub(r"=[ \t]*\n\s*", "= ", text))


def _without_latex(text: str) -> str:
    if "\\" not in text:
        return text
    text = re.sub(r"\\(?:begin|end)\{[^}]*\}", "\n", text).replace("\\\\", "\n")
    text = text.replace("{,}", ",").replace(",\\!", ",").replace("^\\circ", " degrees")
    text = re.sub(r"(?<=\d)\\,(?=\d{3}(?!\d))", ",", text)
    text = re.sub(r"(?<=\d)\\[dt]?frac\s*(?:\{(\d+)\}\{(\d+)\}|(\d)(\d))", _mixed_fraction, text)
    text = re.sub(r"\\[dt]?frac\s*(\d)(\d)", r"(\1/\2)", text)
    for _ in range(4):  # fractions inside fractions
        text = re.sub(r"\^\s*\{([^{}]*)\}", r"^(\1)", text)
        text = re.sub(r"\\(?:text|mathrm|mbox|textbf|mathbf|boxed)\s*\{([^{}]*)\}", r" \1 ", text)
        text = re.sub(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}", r"((\1)/(\2))", text)
    for pattern, sign in _COMMANDS:
        text = re.sub(pattern, sign, text)
    return text


def _mixed_fraction(match: re.Match[str]) -> str:
    upper, lower = (part for part in match.groups() if part is not None)
    return f" {upper}/{lower}"


def tokens(text: str) -> list[Token]:
    """The tokens of `plain` text, in order; spaces are dropped, positions are kept."""
    found: list[Token] = []
    spaced, currency = True, ""
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup or "stop"
        if kind == "space":
            spaced = True
            continue
        if kind == "currency":
            currency = _CURRENCIES[match.group()]
            continue
        token = _token(kind, match, not spaced, currency)
        if token.kind == "number" and found and _runs_together(found, token):
            continue
        found.append(token)
        spaced = False
        currency = currency if token.text in "-(" else ""
    return _with_scales(found)


def _runs_together(found: list[Token], token: Token) -> bool:
    """Numbers that run into each other or into a word, such as 1.2.3, 12,34 or H2: not a number at all."""
    before = found[-1]
    if before.kind in ("number", "stop", "word") and token.glued and before.end == token.start:
        found[-1] = Token("stop", before.text + token.text, before.start, token.end, before.glued)
        return True
    return False


def _token(kind: str, match: re.Match[str], glued: bool, currency: str) -> Token:
    text, start, end = match.group(), match.start(), match.end()
    if kind == "number":
        digits = text.replace(",", "")
        if len(digits) > MOST_DIGITS or re.match(r"0\d", digits):  # 0730 is a time or a code
            return Token("stop", text, start, end, glued)
        decimals = len(digits.partition(".")[2])
        return Token("number", text, start, end, glued, Fraction(digits), Fraction(1, 10**decimals), currency)
    if kind == "word":
        return Token(_kind_of_word(text, glued, match), text, start, end, glued)
    if kind in ("times", "operator", "power", "spoken"):
        sign = {"times": "*", "power": "^"}.get(kind) or _SPOKEN.get(text, text)
        return Token("operator", sign, start, end, glued)
    kinds: dict[str, Kind] = {"ratio": "stop", "ordinal": "word", "equals": "equals", "of": "of", "percent": "percent",
                              "open": "open", "close": "close", "bound": "bound"}  # fmt: skip
    return Token(kinds.get(kind, _sign(text)), text, start, end, glued)


def _sign(text: str) -> Kind:
    return "word" if text in "¢°" else "bound" if text in "#'\u2019\u2018*" else "stop"


def _kind_of_word(text: str, glued: bool, match: re.Match[str]) -> Kind:
    before = match.string[match.start() - 1] if glued and match.start() else ""
    word = text.partition("^")[0]
    if len(word) == 1:
        unit = word in _LETTERS_AS_UNITS and before.isdigit()
        return "word" if unit or (text in _LETTERS_AS_WORDS and not before.isdigit()) else "stop"
    short = len(word) <= 3 and (before.isdigit() or word.isupper()) and word.casefold() not in _SHORT_UNITS
    return "stop" if short or word.casefold() in _STOP_WORDS else "word"


def _with_scales(found: list[Token]) -> list[Token]:
    """3 million as one number."""
    joined: list[Token] = []
    for token in found:
        power = _SCALES.get(token.text.casefold()) if token.kind == "word" else None
        number = joined[-1] if joined else token
        if power is None or number.kind != "number" or number.place is None:
            joined.append(token)
            continue
        scale = 10**power
        joined[-1] = replace(
            number,
            text=f"{number.text} {token.text}",
            end=token.end,
            value=number.value * scale,
            place=number.place * scale,
            scale=number.scale * scale,
        )
    return joined
