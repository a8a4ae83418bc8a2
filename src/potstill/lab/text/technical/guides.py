"""Error messages with their remedies, procedures in steps, and sheets of sums and conversions."""

from __future__ import annotations

from potstill.lab.text.draw import Dice
from potstill.lab.text.inflect import plural
from potstill.lab.text.technical.manuals import WRITER, equality, file_name, note, remark, version
from potstill.lab.text.technical.quantities import quantity
from potstill.lab.text.technical.words import WORDS
from potstill.lab.text.templates import sentence, with_articles

_ERRORS = (
    (
        "cannot open {file}: [permission denied|no such file|it is locked by another program]",
        "[Check the spelling of the name|See who owns the file|Close the other program], and #verb# the {noun} again.",
    ),
    (
        "not enough room in {file}: {need} MiB needed, {have} MiB free",
        "{short} MiB are missing. #verb# [#adjective#|old] {nouns} or move the {folder} to another disk.",
    ),
    (
        "{noun} {id} is #state#, expected #state#",
        "[Wait until|See whether] it is #state#, or ask #person# to #verb# it #manner#.",
    ),
    (
        "line {line} of {file}: expected {cols} columns, found {found}",
        "{lack} [A~ separator is missing|The line was cut off|The export stopped early]. Correct line {line}.",
    ),
    (
        "time ran out after {limit} s while waiting for the #adjective# {noun}",
        "[Raise|Double] the limit to {double} s, or find out why the {noun} is #state#.",
    ),
    (
        "checksum of {noun} {id} is {sum}, expected {other}",
        "The {noun} was damaged [in {folder}|on the way|#when#]. Fetch it again; do not #verb# it.",
    ),
    ("{many} {nouns} given, at most {most} allowed", "Leave out {over}, or #verb# them in {parts} parts."),
    ("unknown {noun} '{name}'", "Did you mean '{meant}'? The list of {nouns} is in {file}."),
    (
        "version {version} of the {noun} is too old",
        "[Bring it up to date|Install a newer one], then #verb# every #adjective# {noun} once.",
    ),
    ("{noun} {id} and {noun} {line} use the same #noun#", "Give one of them its own, #reason#."),
    ("the {noun} in #place# does not answer", "Look at its #noun#. If it is #state#, [replace|restart|unplug] it."),
)
_STEP = (
    "[Make sure that|Check whether] the {noun} is #state#[.|; if not, go back to step {back}.|; otherwise stop here.]",
    "#verb# the #adjective# #noun# [#manner#|with {tool}|in #place#].",
    "[Close|Open|Unlock] the #adjective# #noun#.",
    "Wait {wait}[| or until the #noun# is #state#].",
    "[Write down|Note|Photograph] the [number|state] of the #noun#.",
    "[Ask|Tell] #person# to #verb# the {noun}[.|, #reason#.]",
    "Disconnect the #noun# [from|in] #place#.",
    "[Turn|Set] the #noun# to {set}.",
    "[Remove|Clean|Replace] the #adjective# #noun# [with care|of the {noun}].",
    "Copy {file} to #place#[.|, #reason#.]",
    "Repeat steps {back} to {here} for every #adjective# {noun}.",
    "Type {tool} --#adjective# and [press the key|wait].",
    "Put the #adjective# #noun# back [into|behind] the {noun}.",
)


def _starts(text: str) -> str:
    """Every sentence of the text with a capital."""
    return ". ".join(sentence(part) for part in text.split(". "))


def troubles(dice: Dice) -> str:
    """Error messages of one program, each with cause and remedy."""
    program, noun = dice.pick(WORDS["noun"]), dice.pick(WORDS["noun"])
    lines = [f"Messages of {program}ctl {version(dice)}", ""]
    for message, remedy in dice.some(_ERRORS, dice.whole(3, 7)):
        slots = _error_slots(dice, noun if dice.chance(0.5) else dice.pick(WORDS["noun"]))
        code = f"{program[:2].upper()}{dice.whole(100, 4999)}"
        lines.append(f"{code}: {WRITER.write(message, dice, slots)}")
        more = note(dice) if dice.chance(0.4) else ""
        remedy = with_articles(f"{WRITER.write(remedy, dice, slots)} {more}".strip())
        lines.append("    " + _starts(remedy))
    return "\n".join(lines)


def _error_slots(dice: Dice, noun: str) -> dict[str, str]:
    have, most, cols, limit = dice.whole(1, 400), dice.whole(4, 60), dice.whole(4, 12), dice.whole(2, 90)
    short, over, lack = dice.whole(1, 300), dice.whole(1, 90), dice.whole(1, 3)
    numbers = {
        "have": have,
        "short": short,
        "need": have + short,
        "most": most,
        "over": over,
        "many": most + over,
        "parts": -(-(most + over) // most),
        "cols": cols,
        "found": cols - lack,
        "limit": limit,
        "double": 2 * limit,
        "id": dice.whole(1, 99),
        "line": dice.whole(100, 999),
    }
    name = dice.pick(WORDS["noun"]) + dice.pick(WORDS["noun"])
    at = dice.whole(1, len(name) - 2)
    return {
        **{key: str(number) for key, number in numbers.items()},
        "lack": "One column is missing." if lack == 1 else f"{lack} columns are missing.",
        "noun": noun,
        "nouns": plural(noun),
        "file": file_name(dice),
        "folder": dice.pick(WORDS["folder"]),
        "sum": f"{dice.whole(0, 65535):04x}",
        "other": f"{dice.whole(0, 65535):04x}",
        "version": version(dice),
        "name": name[:at] + name[at + 1 :],
        "meant": name,
    }


def procedure(dice: Dice) -> str:
    """Numbered steps with waiting times, and how long they take together."""
    noun, verb = dice.pick(WORDS["noun"]), dice.pick(WORDS["verb"])
    slots = {"noun": noun, "tool": f"{dice.pick(WORDS['verb'])}-{noun}", "version": version(dice)}
    title = WRITER.write("How to {v} a~ #adjective# {noun}[| in #place#| #when#]", dice, {**slots, "v": verb})
    lines = [with_articles(title), ""]
    waits: list[int] = []
    for number in range(1, dice.whole(5, 11)):
        step = dice.pick(_STEP if number > 2 else _STEP[1:6])
        minutes = dice.whole(1, 30)
        more = {
            "back": str(dice.whole(1, max(1, number - 2))),
            "here": str(max(1, number - 1)),
            "file": file_name(dice),
        }
        more |= {"wait": f"{minutes} min", "set": quantity(dice).text()}
        waits += [minutes] if step.startswith("Wait") else []
        text = with_articles(WRITER.write(step, dice, {**slots, **more}))
        lines.append(f"{number}. {sentence(text)}")
    if len(waits) > 1:
        lines += ["", f"Waiting takes {' + '.join(map(str, waits))} = {sum(waits)} min in all."]
    lines += ["", remark(dice)]
    return "\n".join(lines)


def sums(dice: Dice) -> str:
    """A sheet of conversions and small sums about one device."""
    device = dice.pick(WORDS["noun"])
    lines = [f"Figures for the {device} in {dice.pick(WORDS['place'])}", ""]
    for _ in range(dice.whole(4, 9)):
        kind = dice.random()
        if kind < 0.45:
            lines.append(with_articles(equality(dice, quantity(dice))))
        elif kind < 0.65:
            lines.append(_rate(dice))
        elif kind < 0.85:
            lines.append(_share(dice))
        else:
            lines.append(remark(dice))
    return "\n".join(lines)


def _rate(dice: Dice) -> str:
    nouns, verb = plural(dice.pick(WORDS["noun"])), dice.pick(WORDS["verb"])
    a_minute, minutes = dice.whole(2, 90), dice.whole(2, 60)
    frame = dice.pick(
        (
            "To {v} {a} {n} a minute for {m} min gives {t}",
            "At {a} {n} a minute, {m} min are enough to {v} {t}",
            "Whoever can {v} {a} {n} a minute will {v} {t} in {m} min",
            "In {m} min, at {a} a minute, {t} {n} arrive",
        )
    )
    text = frame.format(v=verb, a=a_minute, n=nouns, m=minutes, t=a_minute * minutes)
    return f"{text} ({a_minute} x {minutes} = {a_minute * minutes})."


def _share(dice: Dice) -> str:
    percent, whole = dice.whole(1, 19) * 5, dice.whole(1, 45) * 20
    part = percent * whole // 100
    nouns = plural(dice.pick(WORDS["noun"]))
    first = f"Of {whole} {nouns}, {percent} % are {dice.pick(WORDS['adjective'])}: that is {part}"
    return f"{first}, and {whole - part} are not ({whole} - {part} = {whole - part})."
