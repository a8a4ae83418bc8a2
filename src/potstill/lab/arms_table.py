"""The table of an experiment: one line per arm, each number with its interval over seeds."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from potstill.lab.arms import PLANS
from potstill.lab.cells import Cell
from potstill.lab.effects import Arms, Measure
from potstill.lab.measures import gain, golden_rise, last, minus_teacher, rise_value, smoothed_lowest
from potstill.lab.stats import NoFit, PowerLaw, paired, power_law

#: As the arms are listed where they are planned; any others follow by name.
ORDER = tuple(PLANS)

COLUMNS: Mapping[str, Measure] = {
    "golden_last": partial(last, name="golden"),
    "golden_lowest": partial(smoothed_lowest, name="golden"),
    "golden_rise": rise_value,
    "proxy_last": partial(last, name="proxy"),
    "proxy_gain": partial(gain, name="proxy"),
    "proxy_fkl_last": partial(last, name="proxy_fkl"),
    "training_loss_last": partial(last, name="training_loss"),
    "minus_teacher": minus_teacher,
}


def arms_table(cells: Iterable[Cell]) -> list[dict[str, Any]]:
    """One line per arm: [mean, low, high] of each column, nats per sequence, and counts of verdicts.

    A column is None where no seed has it; low and high are None with one seed.
    `rises_fitted` counts the seeds whose golden rise is the U test's line (in the others it
    is the last value minus the smoothed minimum), `rises_passed` those that passed. `laws`
    holds the power law of the mean over seeds, `laws_by_seed` what became of each seed's own.
    """
    arms = Arms(cells)
    names = sorted(arms.names(), key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name))
    return [arm_line(arms, name) for name in names]


def arm_line(arms: Arms, arm: str) -> dict[str, Any]:
    cells = list(arms.cells(arm).values())
    rises = [golden_rise(cell) for cell in cells]
    return {
        "arm": arm,
        "seeds": len(cells),
        **{name: over_seeds(list(arms.values(arm, measure).values())) for name, measure in COLUMNS.items()},
        "verdicts": dict(sorted(Counter(cell.verdict for cell in cells).items())),
        "rises_fitted": sum(rise is not None and rise.kind == "fitted" for rise in rises),
        "rises_passed": sum(cell.rose() is True for cell in cells),
        "laws": {name: mean_law(cells, name) for name in LAWS},
        "laws_by_seed": {name: seeds_laws([cell_power_law(cell, name) for cell in cells]) for name in LAWS},
    }


def over_seeds(values: list[float]) -> list[float | None] | None:
    return paired(values).as_list() if values else None


# -- the power law ----------------------------------------------------------------

LAWS = ("training_loss", "proxy")


def cell_power_law(cell: Cell, series: str) -> PowerLaw | NoFit:
    """The power law of one series of a cell, over epochs."""
    return power_law([step / cell.steps_per_epoch for step in cell.steps], getattr(cell, series))


def mean_law(cells: list[Cell], series: str) -> dict[str, float | None] | None:
    """The law of the mean over seeds, where all of them measured the series; None where nothing could be fitted.

    value = C * epochs ** exponent; `from` and `to` are epochs, `band` is the relative
    distance beyond which the last evaluation counts as off the law.
    """
    measured = [dict(zip(*cell.measured(series), strict=True)) for cell in cells]
    steps = sorted(set.intersection(*map(set, measured)))
    epochs = [step / cells[0].steps_per_epoch for step in steps]
    law = power_law(epochs, [sum(found[step] for found in measured) / len(cells) for step in steps])
    if isinstance(law, NoFit):
        return None
    return {
        "C": law.constant,
        "exponent": -law.exponent,
        "from": float(law.epochs[0]),
        "to": law.fitted_until,
        "break_epoch": law.break_epoch,
        "band": math.expm1(float(law.band[-1])),
    }


def seeds_laws(laws: list[PowerLaw | NoFit]) -> dict[str, Any]:
    """Over the seeds that could be fitted: the exponent, how many left their law, and at which epochs."""
    fitted = [law for law in laws if isinstance(law, PowerLaw)]
    breaks = [law.break_epoch for law in fitted if law.break_epoch is not None]
    return {
        "fitted": len(fitted),
        "exponent": over_seeds([-law.exponent for law in fitted]),
        "broke": len(breaks),
        "break_epochs": breaks,
        "reasons": sorted({law.reason for law in laws if isinstance(law, NoFit)}),
    }
