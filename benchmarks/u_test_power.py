"""How large a rise the U test sees: its power on simulated runs, design by design.

A design is what a user chooses and what the run is like: evaluations, where the curve
turns, held-out prompts, jitter and how alike neighbours are. Golden falls by 7.4 nats
a sequence and then rises in a line by the grid's values. Only rises between 2 and 9
standard errors are simulated, because below and above nothing is open. The smallest
detectable rise is where power crosses 80 %, read off in the logarithm of the rise.
`benchmarks/false_alarms.py --only power` runs this.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from curve_simulator import shape_of, simulate

from potstill.diagnosis.curves import rise_test
from potstill.lab.stats import clopper_pearson

Design = dict[str, Any]
RISES = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0)  # nats a sequence; the fall is 7.4
OPEN = (2.0, 9.0)  # standard errors between which power is not known beforehand
WANTED = 0.8
FIRST_SEED = 300_000
BASE: Design = {"evaluations": 24, "turn": 0.5, "prompts": 256, "jitter": 0.1, "correlation": 0.5}


def designs() -> list[Design]:
    """All evaluations with all turning points, then one thing changed at a time, then a dense golden."""
    rows = [BASE | {"evaluations": num, "turn": turn} for num in (12, 16, 24, 40) for turn in (0.3, 0.5, 0.7)]
    rows += [BASE | {"evaluations": num, "correlation": 0.0} for num in (12, 16, 24, 40)]
    rows += [BASE | {"prompts": num} for num in (64, 1024, 4096)]
    rows += [BASE | {"prompts": num, "jitter": 0.02} for num in (64, 256, 1024)]
    dense = BASE | {"prompts": 4096}
    rows += [dense | {"evaluations": 16, "jitter": jitter} for jitter in (0.02, 0.05, 0.1, 0.2)]
    rows += [dense | {"evaluations": 20, "jitter": jitter} for jitter in (0.02, 0.1)]
    return rows


def power_of(design: Design, runs: int) -> Design:
    """The design with its standard error, its power for each open rise, and its smallest detectable rise."""
    error = standard_error(design)
    runs = runs // 2 if design["prompts"] > 1024 else runs  # these take ten times as long
    cells = []
    for rise in RISES:
        if OPEN[0] * error <= rise <= OPEN[1] * error:
            hits = sum(is_seen(design, rise, FIRST_SEED + seed) for seed in range(runs))
            share = clopper_pearson(hits, runs)
            cells.append({"rise": rise, "runs": runs, "hits": hits, "interval": [share.low, share.high]})
    smallest = detectable([cell["rise"] for cell in cells], [cell["hits"] / cell["runs"] for cell in cells])
    shares = " ".join(f"{cell['rise']:g}:{cell['hits'] / cell['runs']:.0%}" for cell in cells)
    text = ", ".join(f"{key} {value}" for key, value in design.items())
    print(f"{text}: error {error:.3f}, {shares} -> {smallest and round(smallest, 2)}", flush=True)
    return {
        **design,
        "standard_error": error,
        "rule_of_thumb": rule_of_thumb(design),
        "cells": cells,
        "detectable": smallest,
    }


def is_seen(design: Design, rise: float, seed: int) -> bool:
    truth = shape_of("u", design["evaluations"], rise, design["turn"])
    noise = {key: design[key] for key in ("prompts", "jitter", "correlation")}
    return rise_test(simulate(truth, seed, **noise)).passed()


def standard_error(design: Design, *, interaction: float = 1.0, drift: float = 1.0) -> float:
    """Of the fitted rise, nats a sequence, were the turning point and the noise known.

    The line is fitted to the evaluations from the turning point on. Jitter is AR(1); the
    prompts' own noise is `interaction` at each evaluation and `drift` over the run, as in the
    simulator, both divided by the number of prompts. The smallest detectable rise is 3.6 to 7
    of these errors, not a constant: the test does not know how alike neighbours are.
    """
    num = design["evaluations"]
    time = np.linspace(0, 1, num)
    after = np.flatnonzero(time >= design["turn"] - 1e-9)
    centred = time[after] - time[after].mean()
    weights = centred / (centred @ centred) * (1 - time[after[0]])
    lags = np.abs(np.subtract.outer(after, after))
    covariance = design["jitter"] ** 2 * float(design["correlation"]) ** lags
    own = interaction**2 * np.eye(len(after)) + drift**2 * np.outer(time[after], time[after])
    return float(np.sqrt(weights @ (covariance + own / design["prompts"]) @ weights))


def rule_of_thumb(design: Design, *, spread: float = 1.0) -> float:
    """The smallest detectable rise by a formula fitted to these designs, nats a sequence.

    23 times the noise of an evaluation over the root of the evaluations; `spread` is that of
    the prompts, within an evaluation and over the run alike.
    """
    noise = design["jitter"] ** 2 + 2 * spread**2 / design["prompts"]
    return 23 * float(np.sqrt(noise / design["evaluations"]))


def detectable(rises: list[float], powers: list[float]) -> float | None:
    """The rise at which power first crosses 80 %; None where it does not within the grid."""
    for index in range(1, len(rises)):
        low, high = powers[index - 1], powers[index]
        if low < WANTED <= high:
            share = (WANTED - low) / (high - low)
            return float(np.exp(np.log(rises[index - 1]) + share * np.log(rises[index] / rises[index - 1])))
    return None
