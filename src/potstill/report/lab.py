"""The lab's page: what an experiment on teacher hacking came to, finding by finding.

`lab_reading.py` reads and checks `results.json`, `lab_findings.py` puts the effects
into rows, `lab_arms.py` knows the arms and which of them stand side by side, and
`lab_figures.py` draws. The lab computes and this draws: no verdict is made here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import potstill.report.lab_figures as figures
from potstill.report.lab_arms import STATEMENTS, Comparison, comparisons, looks
from potstill.report.lab_findings import headline, read_findings
from potstill.report.lab_lines import Drawing
from potstill.report.lab_reading import Results, read_results
from potstill.report.numbers import Estimate
from potstill.report.panels import Figure, framed
from potstill.report.template import fill
from potstill.run_dir import write_atomic

#: Columns of the table of arms: key in results.json, heading.
COLUMNS = {
    "golden_last": "golden, last",
    "golden_lowest": "golden, lowest",
    "golden_rise": "golden's rise",
    "minus_teacher": "golden, last less teacher's",
    "proxy_last": "proxy, last",
    "proxy_gain": "proxy's gain",
    "proxy_fkl_last": "forward KL, last",
    "training_loss_last": "training loss, last",
}
VERDICTS = ("healthy", "still_improving", "overfitting", "suspected_hacking", "hacking", "inconclusive")


@dataclass(frozen=True, slots=True)
class Section:
    """One comparison with its figures."""

    comparison: Comparison
    left: list[Figure]
    right: list[Figure]


def write_lab_report(results_path: Path, output: Path | None = None) -> Path:
    """Write the page on a `results.json` to `output`, or to `report.html` beside it.

    Values on it are nats per sequence. Raises LabResultsError where the file is not what `potstill lab` writes.
    """
    page = results_path.with_name("report.html") if output is None else output
    if page.is_dir():
        raise IsADirectoryError(f"{page} is a folder; expected the name of a file to write, such as report.html")
    return write_atomic(page, render(read_results(results_path, page)).encode())


def render(results: Results) -> str:
    """The page as text."""
    raw, findings = results.raw, read_findings(results.raw.get("findings"))
    sections = [draw(one, results) for one in comparisons(results.names)] if results.cells else []
    seeds = sorted({cell.seed for cell in results.cells})
    facts = {
        "title": headline(findings),
        "facts": [(key, raw[key]) for key in ("preset", "corpus", "tokenisation") if raw.get(key) is not None],
        "seeds": seeds,
        "hardware": raw.get("hardware"),
        "time": duration(raw.get("seconds")),
        "setting": raw.get("setting"),
        "findings": findings,
        "placed": placed([section.comparison for section in sections]),
        "overview": draw_ends(results),
        "sections": sections,
        "results": results,
        "looks": looks(results.names),
        "columns": {key: label for key, label in COLUMNS.items() if any(arm.estimates[key] for arm in results.arms)},
        "verdicts": VERDICTS,
        "has_laws": any(arm.laws for arm in results.arms),
        "number": number,
        "measure": measure,
        "probability": probability,
        "duration": duration,
        "confidence": confidence,
    }
    return fill("lab.html.j2", facts)


def placed(shown: list[Comparison]) -> dict[int, list[Comparison]]:
    """Where the figures to each finding stand."""
    return {number: [one for one in shown if number in one.findings] for number in STATEMENTS}


def draw_ends(results: Results) -> Figure | None:
    """All arms in one plane, where there are enough of them for that to say more than the first comparison does."""
    drawn = Drawing(results, results.names, looks(results.names))
    figure = figures.ends(drawn) if len(results.names) > 1 else None
    caption = (
        "Every arm from the lowest golden it had (open) to its end (filled), means over seeds. Lower left is better. "
        "A line that climbs to the left is hacking: closer to the teacher, further from the oracle. "
        "Dashed: the golden of the teacher that most arms share. Click an arm in the legend to hide or show it; few "
        "epochs and the oracle as teacher end far away and are hidden at first."
    )
    return None if figure is None else framed("ends", "", caption, figure)


def draw(one: Comparison, results: Results) -> Section:
    """The figures of one comparison: planes and laws to the left, curves to the right."""
    drawn = Drawing(results, one.arms, looks(results.names))
    few = [cell.epochs[-1] for cell in results.of("few_epochs") if cell.epochs.size]
    until = float(max(few)) if one.id == "first-epochs" and few else None
    words = CURVES if one.one_proxy else f"{CURVES} Each arm's proxy and training loss are its own objective here."
    right = [framed(f"curves-{one.id}", "Over the epochs", words, figures.curves(drawn, until))]
    plots: list[Figure] = []
    opened = figures.plane(drawn, whole=False)
    if opened is not None:
        cropped = opened.layout.xaxis.range is not None
        if cropped and one.findings == (1, 2):
            plots.append(framed(f"plane-whole-{one.id}", "Proxy against golden", PLANE, figures.plane(drawn, True)))
        title = "The same without the first epochs" if plots else "Proxy against golden"
        words = (f"{PLANE} " if not plots else "") + (CROPPED if cropped else "")
        plots.append(framed(f"plane-{one.id}", title, words.strip(), opened))
    fitted = figures.laws(drawn)
    if fitted is not None:
        has = any(results.laws(arm) for arm in one.arms)
        words = LAWS if has else "Means over seeds on log axes. No law was fitted."
        (plots if len(plots) < 2 else right).append(framed(f"laws-{one.id}", "On log axes", words, fitted))
    return Section(one, plots, right)


PLANE = (
    "One path an arm, the thick line the mean over seeds with a marker at every evaluation that grows with time, thin "
    "lines the seeds. Lower left is better. Left is closer to the teacher, down is closer to the oracle."
)
CROPPED = "The first epochs, and the control where it is far below, lie outside; double-click for all of it."
LAWS = (
    "Points are means over seeds. A straight line is the power law that was fitted there, dotted where it is only "
    "carried on; a cross marks where the curve leaves it."
)
CURVES = (
    "Thick: mean over seeds. Thin: the seeds. Dashed grey: the teacher's own golden, its shade from the lowest seed "
    "to the highest. Each axis opens on what comes after the first epochs; double-click for all of it."
)


def measure(estimate: Estimate) -> tuple[str, str, str]:
    """Value and both ends of its interval, with the same number of decimals."""
    found = (estimate.value, estimate.low, estimate.high)
    largest = max(abs(value) for value in found if value is not None)
    low, middle, high = (number(value, largest) for value in (estimate.low, estimate.value, estimate.high))
    return middle, low, high


def number(value: float | None, largest: float | None = None) -> str:
    """Four digits or so of the `largest` number in its company, a dash for what is not there."""
    if value is None:
        return "\N{EN DASH}"
    size = abs(value if largest is None else largest)
    text = f"{value:.{1 if size >= 100 else 2 if size >= 10 else 3}f}"
    if not text.strip("-0."):
        text = "0" if value == 0 else f"{value:.1g}"
    return text.replace("-", "\N{MINUS SIGN}")


def probability(value: float | None) -> str:
    """A p value."""
    if value is None:
        return "\N{EN DASH}"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def confidence(value: float | None) -> str:
    """A verdict's confidence, as a run's own page gives it."""
    if value is None:
        return "\N{EN DASH}"
    return "> 0.99" if value > 0.995 else f"{value:.2f}"


def duration(seconds: Any) -> str:
    """A time for people."""
    if seconds is None:
        return "\N{EN DASH}"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
