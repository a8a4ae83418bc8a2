"""Manuals of command line tools and tables of settings."""

from __future__ import annotations

from fractions import Fraction

from potstill.lab.text.draw import Dice
from potstill.lab.text.inflect import gerund, plural, third
from potstill.lab.text.technical.functions import entry
from potstill.lab.text.technical.quantities import FAMILIES, Quantity, converted, decimal, quantity
from potstill.lab.text.technical.words import WORDS
from potstill.lab.text.templates import Writer, sentence, with_articles

WRITER = Writer(WORDS)
_TABLE = "{key} | {unit} | {default} | {low} to {high}"


def version(dice: Dice) -> str:
    """A version number."""
    return f"{dice.whole(0, 9)}.{dice.whole(0, 24)}"


def file_name(dice: Dice) -> str:
    """A path such as logs/pump7.csv."""
    return f"{dice.pick(WORDS['folder'])}/{dice.pick(WORDS['noun'])}{dice.whole(1, 99)}.{dice.pick(WORDS['suffix'])}"


def note(dice: Dice) -> str:
    """A remark about what was just named."""
    return with_articles(WRITER.write("#note#", dice, {"version": version(dice)}))


def remark(dice: Dice) -> str:
    """A remark that stands by itself."""
    return sentence(with_articles(WRITER.write("#remark#", dice, {"version": version(dice)})))


def equality(dice: Dice, given: Quantity) -> str:
    """A sentence that says a quantity in two units; a remark where it has but one good unit."""
    other = converted(given, dice)
    if other == given:
        return note(dice)
    frame = dice.pick(("{a} is {b}.", "Note that {a} = {b}.", "The value {a} means {b}.", "({a} = {b})"))
    return frame.format(a=given.text(), b=other.text())


def command(dice: Dice) -> str:
    """The manual of one tool: purpose, synopsis, options, a worked example, exit codes."""
    noun, verb = dice.pick(WORDS["noun"]), dice.pick(WORDS["verb"])
    tool = dice.pick((f"{verb}-{noun}", f"{noun}{verb}", f"{verb}{noun}s", f"{noun}ctl"))
    slots = {"noun": noun, "nouns": plural(noun), "verb": verb, "verbs": third(verb), "tool": tool}
    purpose = WRITER.write("#purpose#", dice, slots)
    names = dice.some([*WORDS["adjective"], *WORDS["noun"], *WORDS["verb"]], dice.whole(3, 8))
    lines = [f"{tool} - {with_articles(purpose)}", "", f"Usage: {tool} [options] {noun.upper()}...", ""]
    for at, name in enumerate(names):
        lines.append(_option(dice, name, names[at - 1], noun))
    lines += ["", _worked(dice, slots), "", _exits(dice, slots)]
    return "\n".join(lines)


def _option(dice: Dice, name: str, other: str, noun: str) -> str:
    if dice.chance(0.35):
        value = quantity(dice)
        limit = Quantity(value.amount * dice.whole(2, 9), value.unit, value.family)
        about = ("how long to wait for", "the pause after", "the age of", "the time given to")
        about = about if value.family == "time" else ("the limit of", "the step of", "the reserve of", "the margin of")
        what = f"{dice.pick(about)} {dice.pick(('the', 'each', 'every'))} {noun} ({value.unit})"
        rest = f"Default {value.text()}, at most {limit.text()}. {equality(dice, limit)}"
        return f"  --{name} {value.family.upper()}\n      {sentence(what)}. {rest}"
    slots = {"noun": noun, "nouns": plural(noun), "other": other}
    says = WRITER.write("#option#", dice, slots)
    effect = WRITER.write("[#effect#|#effect#|#effect# #effect#]", dice, slots)
    return f"  --{name}\n      {with_articles(f'{sentence(says)}. {effect}')}"


def _worked(dice: Dice, slots: dict[str, str]) -> str:
    """A run whose numbers add up."""
    batches, each = dice.whole(2, 24), dice.whole(2, 60)
    left = dice.whole(0, each - 1)
    total = batches * each + left
    rate = dice.pick((2, 4, 5, 8, 10))
    seconds = decimal(Fraction(total, rate))
    path = file_name(dice)
    lines = [f"Example. {path} holds {total} {slots['nouns']}, and the batch is set to {each}:"]
    lines.append(f"  $ {slots['tool']} --batch {each} {path}")
    lines.append(f"  {batches} full batches, {left} left over ({batches} x {each} + {left} = {total})")
    if printable_rate(total, rate):
        lines.append(f"At {rate} {slots['nouns']} a second this takes {seconds} s ({total} / {rate} = {seconds}).")
    passed = dice.whole(0, total)
    lines.append(f"{sentence(gerund(slots['verb']))} failed for {passed} of them, so {total - passed} are done.")
    return "\n".join(lines)


def printable_rate(total: int, rate: int) -> bool:
    """Whether the quotient has at most four decimals."""
    return (total * 10_000) % rate == 0


def _exits(dice: Dice, slots: dict[str, str]) -> str:
    lines = ["Exit codes: 0 if all went well;"]
    codes = sorted(dice.some(range(1, 100), dice.whole(1, 4)))
    ends = "if a~ #noun# was #adjective#|if the #noun# is #state#|if --{name} was given without a~ #noun#"
    for code in codes:
        end = WRITER.write(
            f"[{ends}|if no #adjective# #noun# was found]", dice, {"name": dice.pick(WORDS["adjective"])}
        )
        lines.append(f"  {code} {with_articles(end)}" + ("." if code == codes[-1] else ";"))
    return "\n".join(lines)


def settings(dice: Dice) -> str:
    """A table of settings with units, and what to know about each."""
    group = dice.pick(WORDS["noun"])
    lines = [f"Settings of the {group} ({file_name(dice)})", "", "name | unit | default | range"]
    told = []
    for name in dice.some(WORDS["noun"], dice.whole(3, 8)):
        key = f"{group}.{name}_{dice.pick(('limit', 'delay', 'size', 'step', 'margin', 'rate', 'reserve', 'floor'))}"
        default = quantity(dice, dice.pick(tuple(FAMILIES)))
        low, high = default.amount / dice.pick((1, 2, 4)), default.amount * dice.whole(2, 12)
        low = low if (low * 10_000).denominator == 1 else default.amount
        row = {"key": key, "unit": default.unit, "default": decimal(default.amount)}
        lines.append(_TABLE.format(**row, low=decimal(low), high=decimal(high)))
        if dice.chance(0.75):
            top = Quantity(high, default.unit, default.family)
            told.append(f"{key}: {equality(dice, dice.pick((default, top)))} {note(dice)}")
    return "\n".join([*lines, "", *told])


def functions(dice: Dice) -> str:
    """Reference entries of a module."""
    module = dice.pick(WORDS["noun"])
    about = WRITER.write(
        "Functions of the module {m}[, version {v}|]. #note#",
        dice,
        {"m": module, "v": version(dice), "version": version(dice)},
    )
    entries: dict[str, str] = {}
    for _ in range(dice.whole(2, 5)):
        name, text = entry(dice, [module, *dice.some(WORDS["noun"], 2)], version(dice))
        entries[name] = text
    return "\n\n".join([with_articles(about), *entries.values()]).replace("\n\n", "\n")
