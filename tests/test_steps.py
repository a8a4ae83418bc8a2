"""The step checker: what it reads, what it leaves alone, and that it tells right sums from wrong ones."""

from __future__ import annotations

import random
from fractions import Fraction

import pytest

from potstill.config.verify import Exact, Steps
from potstill.records import Completion, History, Prompt
from potstill.verifiers.build import build_verifier
from potstill.verifiers.steps import equations, find_steps

RIGHT = [
    "48 / 2 = 24",
    "$3 x 4 = $12",
    "12 + 5 - 3 = 14",
    "She sold 48/2 = <<48/2=24>>24 clips in May.",
    "3 apples * 2 = 6 apples",
    "3 (apples) * 2 = 6 (apples)",
    "20% of 50 = 10",
    "1/4 of the 20 birds = 5 birds",
    "1,200 ÷ 3 = 400",
    "5 \u00d7 3 \u2212 2 = 13",
    r"\frac{1}{2} \times 10 = 5",
    r"$\dfrac{3}{4} + \frac{1}{4} = 1$",
    r"2\frac{1}{2} \cdot 4 = 10",
    "3 1/2 * 2 = 7",
    "½ * 10 = 5",
    "5/20 = 25%",
    "5/20 * 100 = 25%",
    "100% - 20% = 80%",
    "50 + 10% = 55",
    "10/3 = 3.33",
    "20/3 = 6.66",
    "20/3 = 6.67",
    "10/3 ≈ 3.3",
    "7/2 = 3 R 1",
    "17 / 5 = 3 remainder 2",
    "16 + 12 = $28 million",
    "2.5 million / 1000 = 2500",
    "3 * 50 cents = $1.50",
    "2 weeks + 3 days = 17 days",
    "28 / 1/5 = 140",
    "((2 + 3) * (4 - 1)) = 15",
    "2(3 + 4) = 14",
    "2^10 = 1024",
    "5² = 25",
    "3 - 5 = -2",
    "12 = 3 * 4",
    "**5 * 3 = 15**",
    "- 3 + 4 = 7",
    "1. 3 + 4 = 7",
    "5 plus 3 equals 8",
    "3 + 4\n= 7",
    "a total of 3 + 4 = 7 cats",
    "99999999999999999999 + 1 = 100000000000000000000",
    "2 + 3 = 5 * 2 = 10",
]
WRONG = [
    "48 / 2 = 25",
    "$3 x 4 = $13",
    "<<48/2=25>>",
    "3 apples * 2 = 7 apples",
    "20% of 50 = 11",
    r"\frac{1}{2} \times 10 = 6",
    "10/3 = 3.34",
    "0.20 x 32000 = 6399",
    "2 weeks + 3 days = 18 days",
    "5/20 = 20%",
    "20/100 = 60%",
    "2 + 3 = 6 * 2",
    "12 = 3 * 5",
    "a total of 10 + 8 = $81",
    "4 / 12 = 48",
    "5 / 0 = 0",
    "1234567 * 10 = 12345671",
]
ALONE = [
    "",
    "42",
    "x = 5",
    "2x + 3 = 7",
    "5ab + 3 = 18",
    "100 + 100x = 120",
    "1 hour = 60 minutes",
    "1/2 hour = 30 minutes",
    "1/4 of the day = 6 hours",
    "3/8 is equal to $375",
    "half of 10 + 2 = 7",
    "twice 5 + 3 = 13",
    "log 8 + 2 = 5",
    "f(3) + 1 = 9",
    "a(-4) + 6(-3) = 0",
    r"\sqrt{16} + 2 = 6",
    r"\binom{4}{2} = 6",
    "5! + 1 = 121",
    "12/25/2020",
    "Day 2 = 3 * 4 pages",
    "10 = 12 - x",
    "3:30 + 1 = 4:30",
    "25% of the price = (25/100)*price = 3",
    "4^(1/2) = 2",
    "9^9^9^9 = 1",
    "gcd(12, 8) = 4",
    "(" * 3000 + "1 + 2" + ")" * 3000 + " = 4",
    "5 = " + "(" * 3000 + "1 + 2" + ")" * 3000,
    "5 = " + "-" * 3000 + "1",
    "1 + " * 3000 + "1 = 4",
    "P2 + 3 = 7",
]


@pytest.mark.parametrize("text", RIGHT)
def test_right_sums_are_read_and_hold(text: str) -> None:
    steps = find_steps(text)
    assert steps and all(step.holds for step in steps), steps


@pytest.mark.parametrize("text", WRONG)
def test_wrong_sums_are_found(text: str) -> None:
    assert [step for step in find_steps(text) if not step.holds]


@pytest.mark.parametrize("text", ALONE)
def test_what_cannot_be_checked_is_left_alone(text: str) -> None:
    assert not [step for step in find_steps(text) if not step.holds]


def test_values_are_exact() -> None:
    (step,) = find_steps("He pays 7 / 3 = 2.33 dollars.")
    assert (step.value, step.claimed, step.holds) == (Fraction(7, 3), Fraction(233, 100), True)
    assert step.text.startswith("7 / 3 = 2.33")
    assert find_steps("5 / 0 = 0")[0].value is None


def test_the_tolerance_is_for_operands_that_may_have_been_rounded() -> None:
    assert find_steps("0.333 * 3 = 1")[0].holds
    assert find_steps("0.333 * 3 = 1", Fraction(0))[0].holds  # 0.999, rounded
    assert find_steps("33.333 * 30 = 1000.5")[0].holds and not find_steps("33.333 * 30 = 1000.5", Fraction(0))[0].holds


def test_an_annotation_and_its_prose_count_once_and_each_is_looked_at() -> None:
    assert len(find_steps("48/2 = <<48/2=24>>24")) == 1
    assert [s.holds for s in find_steps("48/2 = <<48/2=24>>25")] == [True, False]
    assert [s.holds for s in find_steps("it is <<48/2=25>>24")] == [False]


def test_structure_ignores_the_order_of_operands_and_all_words() -> None:
    assert equations("First 2 + 3 * 4 = 14.") == equations("So we get $ 4 x 3 + 2 = 14 .")
    assert equations("6 - 2 = 4") != equations("2 - 6 = -4")
    assert equations("2 + 3 = 5\n5 * 2 = 10") != equations("5 * 2 = 10\n2 + 3 = 5")


def _expression(draw: random.Random, depth: int = 2) -> tuple[str, Fraction]:
    if depth == 0 or draw.random() < 0.2:
        number = draw.choice([str(draw.randint(1, 999)), f"{draw.randint(1000, 99999):,}", f"{draw.randint(1, 99)}.5"])
        return number, Fraction(number.replace(",", ""))
    sign = draw.choice("+-*/")
    (left, one), (right, other) = _expression(draw, depth - 1), _expression(draw, depth - 1)
    if other == 0 and sign == "/":
        sign = "+"
    value = {"+": one + other, "-": one - other, "*": one * other}.get(sign) if sign != "/" else one / other
    assert value is not None
    return f"({left} {sign} {right})", value


def _printed(value: Fraction, places: int = 4) -> str:
    scaled = round(abs(value) * 10**places)
    digits = f"{scaled // 10**places:,}.{scaled % 10**places:0{places}d}"
    return ("-" if value < 0 else "") + digits


STYLES = [
    lambda s: s,
    lambda s: s.replace("*", "\u00d7").replace("/", "÷").replace("-", "\u2212"),
    lambda s: s.replace("*", r"\times").replace("/", r"\div"),
    lambda s: s.replace(" ", ""),
    lambda s: s.replace(" * ", " x "),
    lambda s: f"So the total is {s} apples in all, as asked.",
    lambda s: f"**Step 3:** {s}",
]


def test_random_sums_in_many_styles_hold_and_perturbed_ones_do_not() -> None:
    draw = random.Random(7)
    for number in range(600):
        text, value = _expression(draw)
        if "(" not in text or abs(value) > 10**12:
            continue
        style = STYLES[number % len(STYLES)]
        shown = find_steps(style(f"{text} = {_printed(value)}"))
        assert [step.holds for step in shown] == [True], (text, style(text), shown)
        off = value + max(abs(value) / 20, Fraction(1, 2)) * draw.choice((-1, 1))
        wrong = find_steps(style(f"{text} = {_printed(off)}"))
        assert [step.holds for step in wrong] == [False], (text, style(text), wrong)


def _answer(text: str) -> Completion:
    return Completion("p", 0, (1,), text, "stop", History("teacher", "model"))


PROMPT = Prompt("p", text="How many?", reference="2 + 3 = <<2+3=5>>5\n#### 5")


@pytest.mark.parametrize(
    ("text", "label", "passed"),
    [
        ("2 + 3 = 5\n#### 5", "right", True),
        ("2 + 2 = 5\n#### 5", "right_answer_wrong_step", False),
        ("2 + 3 = 6\n#### 6", "wrong", False),
        ("no idea", "no_answer", False),
        ("", "no_answer", False),
        ("5", "right", True),
    ],
)
def test_a_right_answer_with_a_wrong_step_has_its_own_label(text: str, label: str, passed: bool) -> None:
    outcome = build_verifier(Steps(kind="steps")).verify(PROMPT, _answer(text))
    assert (outcome.label, outcome.passed) == (label, passed)


def test_steps_can_be_demanded_and_judged_without_an_answer() -> None:
    demanding = build_verifier(Steps(kind="steps", least_steps=1))
    assert demanding.verify(PROMPT, _answer("5")).label == "right_answer_few_steps"
    alone = build_verifier(Steps(kind="steps", answer=None))
    assert alone.verify(PROMPT, _answer("2 + 2 = 5")).label == "wrong_step"
    assert alone.verify(PROMPT, _answer("I like tea")).label == "right_steps"
    exact = build_verifier(Steps(kind="steps", answer=Exact(kind="exact", answer=("marker",))))
    assert exact.verify(PROMPT, _answer("#### 5.")).passed
