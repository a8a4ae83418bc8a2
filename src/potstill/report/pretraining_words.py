"""What the page of `potstill lab pretraining` says: names, signed numbers, the answer in two sentences, the limits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from potstill.report.drawing import words
from potstill.report.lab import number
from potstill.report.numbers import Estimate
from potstill.report.pretraining_measures import DOWNSTREAM, HELD_OUT, OUTSIDE, TRIPLET, Measure, over_seeds
from potstill.report.pretraining_reading import RELATIONS, Cell, Results, Student, Teacher

DASH, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"
NO_TEACHER = "no teacher"


def in_words(tokens: float | None) -> str:
    """1024000 is 1.02M."""
    if tokens is None:
        return DASH
    for unit, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if tokens >= unit:
            return f"{tokens / unit:.3g}{letter}"
    return f"{tokens:g}"


def teacher_name(teacher: Teacher | None) -> str:
    """A size and the tokens it learned from."""
    return NO_TEACHER if teacher is None else f"{teacher.size}@{in_words(teacher.tokens)}"


def teacher_of(results: Results, cell: Cell) -> str:
    known = results.teacher(cell.teacher)
    return cell.teacher if known is None and cell.teacher is not None else teacher_name(known)


def student_name(student: Student) -> str:
    return f"{student.size} on {in_words(student.tokens)} tokens"


def measure_name(measure: Measure) -> str:
    """As in a list to choose from."""
    if measure.name == HELD_OUT:
        return "in domain: held-out text"
    if measure.name == OUTSIDE:
        return "out of domain: mean over sets"
    if measure.name == DOWNSTREAM:
        return "downstream: mean accuracy"
    return f"{measure_kind(measure)}: {measure.name.replace('_', ' ')}"


def measure_kind(measure: Measure) -> str:
    return {"in": "in domain", "out": "out of domain"}.get(measure.domain, "downstream")


def signed(value: float | None, largest: float | None = None) -> str:
    """A difference: its sign is always written."""
    said = number(value, largest)
    return f"+{said}" if value is not None and value > 0 and said != "0" else said


def ends(estimate: Estimate) -> str:
    """Both ends of the interval, empty where there is none."""
    if estimate.low is None or estimate.high is None:
        return ""
    largest = max(abs(estimate.low), abs(estimate.high), abs(estimate.value))
    return f"{signed(estimate.low, largest)} to {signed(estimate.high, largest)}"


def between(estimate: Estimate) -> str:
    """As `ends`, of an amount and not a difference: no plus sign."""
    return ends(estimate).replace("+", "")


def turned(estimate: Estimate, sign: int) -> tuple[float, float | None, float | None]:
    """Value, low and high of `sign` times the estimate."""
    if estimate.low is None or estimate.high is None:
        return sign * estimate.value, None, None
    low, high = sorted((sign * estimate.low, sign * estimate.high))
    return sign * estimate.value, low, high


def clear(estimate: Estimate) -> bool:
    """Whether the interval leaves out 0."""
    return estimate.low is not None and estimate.high is not None and (estimate.low > 0 or estimate.high < 0)


def helps(cell: Cell, measure: Measure) -> bool:
    """Better than its twin, with an interval that leaves out 0."""
    gain = cell.gain(measure)
    return gain is not None and gain > 0 and clear(cell.found[measure.name].estimate)


def best_cell(cells: Iterable[Cell], measure: Measure | None) -> Cell | None:
    """The one that gains most."""
    measured = [] if measure is None else [(gain, cell) for cell in cells if (gain := cell.gain(measure)) is not None]
    return max(measured, key=lambda pair: pair[0])[1] if measured else None


def about(results: Results, student: Student, cell: Cell, measure: Measure, estimate: Estimate | None = None) -> str:
    """A cell in words, for Plotly's hover: names are escaped. `estimate` where it is not the cell's own."""
    shown, teacher = estimate or cell.found[measure.name].estimate, results.teacher(cell.teacher)
    lines = [
        f"<b>{signed(shown.value)} {words(measure.unit)}</b>, {words(measure_name(measure))}",
        f"95 % interval {ends(shown)}" if ends(shown) else "no interval",
        f"teacher {words(teacher_name(teacher))}, weight {cell.weight:g}, {seeds(cell)}",
        f"student {words(student.size)}, {in_words(student.tokens)} tokens, "
        f"{number(student.tokens_per_parameter)} tokens per parameter",
    ]
    by_seed = cell.found[measure.name].by_seed
    if len(by_seed) > 1:
        lines.insert(2, "seeds " + ", ".join(f"{seed}: {signed(value)}" for seed, value in by_seed.items()))
    return "<br>".join([*lines, words(cell.relation)] if cell.relation else lines)


# -- the answer -------------------------------------------------------------------


def answer(results: Results, student: Student | None) -> list[str]:
    """At most two sentences: what the best teacher does in domain, and what the best ones do elsewhere."""
    cells = [] if student is None else results.of(student)
    if student is None or not cells:
        return ["No student has been compared with its twin yet."]
    sentences = []
    measure = results.triplet.get(HELD_OUT)
    best = best_cell(cells, measure)
    if measure is not None and best is not None:
        sentences.append(_in_domain(results, student, cells, measure, best))
    others = [(name, measure) for name in (OUTSIDE, DOWNSTREAM) if (measure := results.triplet.get(name)) is not None]
    parts = [said for name, one in others if (said := _elsewhere(results, cells, one, TRIPLET[name]))]
    if parts:
        joined = "; ".join(parts)
        sentences.append(joined[0].upper() + joined[1:] + ".")
    return sentences or ["The students have not been measured yet."]


def _in_domain(results: Results, student: Student, cells: Sequence[Cell], measure: Measure, best: Cell) -> str:
    found, gain, many = best.found[measure.name], best.gain(measure) or 0.0, count(len(cells), "cell")
    estimate, corrected = found.estimate, over_seeds(list(found.by_seed.values()), len(cells))
    where = f"{teacher_of(results, best)} at weight {best.weight:g}"
    size = f"{number(abs(estimate.value))} {measure.unit}"
    shown = Estimate(*turned(estimate, measure.sign if gain > 0 else -measure.sign))
    sure = f"95 % interval {between(shown)}, {seeds(best)}" if between(shown) else f"{seeds(best)}, so no interval"
    who = f"a {student.size} student of {in_words(student.tokens)} tokens"
    if gain <= 0:
        return f"No: in domain none of {many} beats its twin; the nearest, {where}, ends {size} worse ({sure})."
    end = f"ends {size} better in domain than its twin without a teacher"
    if not ends(estimate):
        return f"Perhaps: beside {where}, {who} {end} ({sure})."
    if not clear(estimate):
        return f"Not shown: beside {where}, the best of {many}, {who} {end} ({sure})."
    if corrected is None or not clear(corrected):
        return f"Probably: beside {where}, {who} {end} ({sure}; not sure for the best of {many})."
    return f"Yes: beside {where}, {who} {end} ({sure})."


def _elsewhere(results: Results, cells: Sequence[Cell], measure: Measure, kind: str) -> str:
    best = best_cell(cells, measure)
    if best is None:
        return ""
    estimate, gain = best.found[measure.name].estimate, best.gain(measure) or 0.0
    unit = "of mean accuracy" if measure.name == DOWNSTREAM else f"{measure.unit}"
    unit += "" if measure.name in TRIPLET else f" of {measure.name.replace('_', ' ')}"
    unit = unit.removeprefix("share ")
    inside = f"{ends(estimate) or 'no interval'}, {seeds(best)}"
    said = f"{signed(estimate.value)} {unit} ({inside})"
    where = f"{teacher_of(results, best)} at weight {best.weight:g}"
    if gain <= 0:
        return f"{kind} no teacher helps, and {where} is nearest with {said}"
    doubt = "" if clear(estimate) or not ends(estimate) else ", which may be nothing"
    return f"{kind} the best is {where} with {said}{doubt}"


def by_relation(results: Results) -> str:
    """In how many pairs of teacher and student, by their sizes, the teacher helps in domain at some weight."""
    measure = results.triplet.get(HELD_OUT)
    if measure is None:
        return ""
    parts = []
    for relation in RELATIONS:
        mine = [cell for cell in results.cells if cell.relation == relation]
        if mine:
            good = {pair(cell) for cell in mine if helps(cell, measure)}
            parts.append(f"{len(good)} of {len({pair(cell) for cell in mine})} {relation}")
    if not parts:
        return ""
    return (
        f"Pairs whose teacher helps in domain at some weight, with an interval that leaves out 0: {', '.join(parts)}."
    )


def pair(cell: Cell) -> tuple[str, float | None, str | None]:
    """Student and teacher."""
    return cell.size, cell.tokens, cell.teacher


def seeds(cell: Cell) -> str:
    return count(len(cell.seeds), "seed")


def count(many: int, what: str) -> str:
    return f"{many} {what}" if many == 1 else f"{many} {what}s"


# -- what varied, what the reader should not believe --------------------------------


def varied(results: Results) -> list[tuple[str, str]]:
    """Heading and words: what varied, what was held."""
    teachers = {name for cell in results.cells if (name := cell.teacher) is not None}
    weights = ", ".join(f"{weight:g}" for weight in results.weights())
    students = ", ".join(student_name(one) for one in results.students)
    variants = sorted({cell.variant for cell in results.ablations})
    changed = [
        f"{count(len(teachers), 'teacher')} (size and tokens)",
        f"weights {weights or DASH}",
        f"students {students or DASH}",
    ]
    changed += [f"ablations {', '.join(variants)}"] if variants else []
    held = (
        "within a seed a student and its twin share first weights, text and its order, tokens, optimiser and schedule; "
        "all models share the corpus, the tokenizer and the sets they are measured on"
    )
    return [("Varied", "; ".join(changed)), ("Held", held)]


def limits(results: Results) -> list[str]:
    """Plain words on what this experiment cannot say."""
    found = []
    sizes = [one.parameters for one in results.students if one.parameters]
    ratios = [ratio for one in results.students if (ratio := one.tokens_per_parameter) is not None]
    if sizes:
        most, least = in_words(max(sizes)), in_words(min(sizes))
        said = f"{most} parameters" if most == least else f"{least} to {most} parameters"
        found.append(f"The students have {said}. Nothing here says that models of billions behave like that.")
    if ratios:
        low, high = (f"{ratio:.2g}" for ratio in (min(ratios), max(ratios)))
        said = low if low == high else f"{low} to {high}"
        found.append(
            f"They saw {said} tokens per parameter; the work that this follows (Lu and Liu 2026) has about 29."
        )
        if max(ratios) < 29:
            found[-1] += " After so little text there is much left to learn that any teacher knows."
    most_seeds = max((len(cell.seeds) for cell in results.cells), default=0)
    if most_seeds:
        found.append(
            f"Intervals are Student's t over {count(most_seeds, 'seed')} of the student"
            + ("" if most_seeds > 1 else ", that is, there are none")
            + ". They do not hold the luck of a teacher (each was trained once), nor that of the corpus."
        )
    best = len(results.cells)
    if best > 1:
        found.append(
            f"The best of {best} cells is picked on the seeds that measure it, so its gain is flattered; and if no "
            f"teacher changed anything, about one in twenty intervals, {0.05 * best:.1g} of {best}, would leave out 0. "
            "Look for neighbours that agree."
        )
    found.append("One corpus, one tokenizer, one learning rate for all sizes: other ones were not tried.")
    return found
