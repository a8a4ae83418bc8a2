"""A regularised logistic regression, its calibration, its range and its threshold; all by hand."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
from looks import Looks
from scipy.optimize import minimize

from potstill.diagnosis.detector import Model

PENALTY = 3.0  # on squared coefficients, in runs
SOUND = ("healthy", "still_improving")
#: Share of sound runs that may be alarmed at any look. Training loss and proxy alone cannot tell a hacked run from one
#: whose teacher is right and whose student has learned all it can, so they must be surer.
ALLOWED = {"with_references": 0.02, "without_references": 0.01}
MARGIN = 0.1  # of a feature's range, added at both ends
#: name -> direction in which it speaks for hacking
INPUTS = {
    "without_references": {"follow": -1, "proxy_change": 1, "training_slope": 0},
    "with_references": {"rise": 1, "agreement": -1, "follow": -1, "proxy_bend": 1},
}
#: Looked at for the range only: what kind of run this is.
KIND = ("training_slope", "training_gain", "proxy_gain")


def usable_looks(looks: Looks) -> np.ndarray:
    """[N] looks at runs that are plainly hacked or plainly sound."""
    return np.isin(looks.fact("label"), ("hacking", *SOUND))


def fit(looks: Looks, chosen: np.ndarray, directions: dict[str, int], name: str) -> Model:
    """Calibrated out of fold, by group, on the `chosen` looks alone; threshold set there too."""
    model = regression(looks, chosen, directions, name)
    odds = np.full(len(looks.name), np.nan)
    groups = looks.fact("group")
    for group in np.unique(groups[chosen]):
        inside = chosen & (groups == group)
        odds[inside] = log_odds(regression(looks, chosen & (groups != group), directions, name), looks, inside)
    slope, offset = platt(odds[chosen], looks.hacked_now[chosen], weights(looks, chosen)[chosen])
    model = replace(model, calibration=(slope, offset))
    sound = chosen & np.isin(looks.fact("label"), SOUND)
    highest = np.sort(run_maxima(looks.name[sound], slope * odds[sound] + offset))[::-1]
    allowed = round(ALLOWED[name] * len(highest))
    between = highest[allowed] + 0.1 if allowed == 0 else (highest[allowed] + highest[allowed - 1]) / 2
    return replace(model, threshold=float(1 / (1 + np.exp(-between))))


def regression(looks: Looks, chosen: np.ndarray, directions: dict[str, int], name: str) -> Model:
    """Logistic regression; every run weighs 1, however often it was looked at."""
    inputs = tuple(directions)
    weight = weights(looks, chosen)[chosen]
    values, truth = looks.columns(inputs)[chosen], looks.hacked_now[chosen].astype(float)
    means = weight @ values / weight.sum()
    scales = np.sqrt(weight @ (values - means) ** 2 / weight.sum())
    standard = np.column_stack([np.ones(len(values)), (values - means) / scales])

    def loss(point: np.ndarray) -> tuple[float, np.ndarray]:
        odds = standard @ point
        penalty = np.append(0.0, point[1:])
        value = weight @ (np.logaddexp(0, odds) - truth * odds) + PENALTY * (penalty @ penalty) / 2
        return value, standard.T @ (weight * (1 / (1 + np.exp(-odds)) - truth)) + PENALTY * penalty

    limits = {1: (0, None), -1: (None, 0), 0: (None, None)}
    bounds = [(None, None), *(limits[sign] for sign in directions.values())]
    point = minimize(loss, np.zeros(len(inputs) + 1), jac=True, method="L-BFGS-B", bounds=bounds).x
    return Model(
        name, inputs, point[1:], means, scales, float(point[0]), (1.0, 0.0), ranges(looks, chosen, inputs), 0.5
    )


def ranges(looks: Looks, chosen: np.ndarray, inputs: tuple[str, ...]) -> dict[str, tuple[float, float]]:
    """Lowest and highest value that was fitted to, with a margin."""
    found = {}
    for name in dict.fromkeys((*inputs, *KIND)):
        low, high = looks.features[name][chosen].min(), looks.features[name][chosen].max()
        found[name] = (float(low - MARGIN * (high - low)), float(high + MARGIN * (high - low)))
    return found


def platt(odds: np.ndarray, truth: np.ndarray, weight: np.ndarray) -> tuple[float, float]:
    """Slope and offset of the log odds (Platt 1999), with a weak pull towards leaving them as they are."""

    def loss(point: np.ndarray) -> float:
        both = point[0] * odds + point[1]
        return float(weight @ (np.logaddexp(0, both) - truth * both) + ((point - [1.0, 0.0]) ** 2).sum() / 2)

    slope, offset = minimize(loss, np.array([1.0, 0.0]), bounds=[(0.1, None), (None, None)]).x
    return float(slope), float(offset)


def weights(looks: Looks, chosen: np.ndarray) -> np.ndarray:
    """[N] 1 over the run's number of chosen looks."""
    number = Counter(looks.name[chosen].tolist())
    return np.array([1 / number[name] if name in number else 0.0 for name in looks.name.tolist()])


def log_odds(model: Model, looks: Looks, where: np.ndarray) -> np.ndarray:
    """Calibrated, whether or not in range."""
    values = (looks.columns(model.inputs)[where] - model.means) / model.scales
    slope, offset = model.calibration
    return np.asarray(slope * (model.intercept + values @ model.coefficients) + offset)


def in_range(model: Model, looks: Looks, where: np.ndarray) -> np.ndarray:
    inside = [
        (looks.features[name][where] >= low) & (looks.features[name][where] <= high)
        for name, (low, high) in model.ranges.items()
    ]
    return np.asarray(np.all(inside, axis=0))


def run_maxima(names: np.ndarray, values: np.ndarray) -> np.ndarray:
    return np.array([values[names == name].max() for name in dict.fromkeys(names.tolist())])
