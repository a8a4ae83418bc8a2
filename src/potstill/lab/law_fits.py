"""Two fitters, both with Huber's loss, both the same for the same input.

`fit_form` searches the coefficients of a curved law: many random starts, the best of them
followed by L-BFGS-B on the residuals of log L, as Hoffmann et al. 2022 (section 3.3) do.
`fit_line` solves a law that is linear in its coefficients. Huber's threshold is theirs
(1e-3) at least, and else 1.345 robust standard deviations of the residuals: small models
scatter more between seeds than large ones, and a threshold far below the scatter would
make a median of it.
"""

from __future__ import annotations

import numpy as np

from potstill.lab.law_forms import Columns, Form

THRESHOLD_FLOOR = 1e-3  # of log L
FIRST_THRESHOLD = 0.05
EFFICIENT = 1.345  # Huber's threshold in standard deviations that keeps 95 % efficiency on normal residuals
MAD_TO_SIGMA = 1.4826
RANDOM_STARTS = 2000
FOLLOWED = 6
STEP = 1e-20  # of the complex-step derivative: exact to machine precision
LINE_STEPS = 30


def fit_form(
    form: Form, at: Columns, losses: np.ndarray, seed: int = 0, start: np.ndarray | None = None
) -> tuple[np.ndarray, float]:
    """theta [P] of the form for losses [n] (nats per token), and its Huber threshold.

    `start` [P] is followed instead of a random search (bootstraps, one point left out).
    """
    bounds, target = form.bounds(losses), np.log(losses)
    if start is None:
        starts = _best_starts(form, at, target, bounds, seed)
        found = [_descend(form, at, target, bounds, one, FIRST_THRESHOLD) for one in starts]
        start = min(found, key=lambda pair: pair[1])[0]
    scatter = form.log_loss(start, at) - target
    threshold = threshold_of(scatter)
    theta, _ = _descend(form, at, target, bounds, np.clip(start, bounds[:, 0], bounds[:, 1]), threshold)
    return theta, threshold


def threshold_of(residuals: np.ndarray, floor: float = THRESHOLD_FLOOR) -> float:
    """Where Huber's loss turns from squares to absolute values."""
    return max(floor, EFFICIENT * MAD_TO_SIGMA * float(np.median(np.abs(residuals))))


def huber(scaled: np.ndarray) -> np.ndarray:
    """Huber's loss of residuals in units of the threshold."""
    size = np.abs(scaled)
    return np.asarray(np.where(size <= 1, 0.5 * scaled**2, size - 0.5))


def _best_starts(form: Form, at: Columns, target: np.ndarray, bounds: np.ndarray, seed: int) -> np.ndarray:
    draws = np.random.default_rng(seed).uniform(bounds[:, 0], bounds[:, 1], (RANDOM_STARTS, len(bounds)))
    scores = huber((form.log_loss(draws, at) - target) / FIRST_THRESHOLD).sum(-1)
    return np.asarray(draws[np.argsort(scores, kind="stable")[:FOLLOWED]])


def _descend(
    form: Form, at: Columns, target: np.ndarray, bounds: np.ndarray, start: np.ndarray, threshold: float
) -> tuple[np.ndarray, float]:
    from scipy.optimize import minimize

    tilt = STEP * 1j * np.eye(len(start))

    def objective(theta: np.ndarray) -> tuple[float, np.ndarray]:
        tilted = form.log_loss(theta + tilt, at)  # [P, n]: values, and derivatives as imaginary parts
        scaled = (tilted[0].real - target) / threshold
        slopes = tilted.imag / (STEP * threshold)
        return float(huber(scaled).sum()), slopes @ np.clip(scaled, -1, 1)

    options = {"maxiter": 400, "ftol": 1e-11, "gtol": 1e-7}
    found = minimize(objective, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    return np.asarray(found.x), float(found.fun)


def fit_line(features: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Coefficients [P] of values [n] on features [n, P]: Huber's loss by reweighted least squares."""
    if features.shape[1] == 0:
        return np.zeros(0)
    weights = np.ones(len(values))
    found = np.zeros(features.shape[1])
    for _ in range(LINE_STEPS):
        root = np.sqrt(weights)
        new = np.linalg.lstsq(features * root[:, None], values * root, rcond=None)[0]
        if np.abs(new - found).max() <= 1e-12 + 1e-9 * np.abs(new).max():
            break
        found = new
        residual = np.abs(values - features @ found)
        threshold = threshold_of(residual, floor=1e-12)
        weights = np.minimum(1.0, threshold / np.maximum(residual, 1e-300))
    return np.asarray(found)
