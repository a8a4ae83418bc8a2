"""The checks: what an adapter's numbers say against the float64 truth. No verdict is written by hand.

Every check returns a Finding. `fail` has the figure that failed; `not offered` says why.
All tolerances are here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import cases
import numpy as np
from answers import Answers, distance, factor

TOLERANCE = {
    "value": 1e-5,  # relative, fp32
    "itself": 1e-6,  # nats: a distribution's divergence from itself
    "gradient": 1e-4,  # relative norm of the difference, fp32
    "factor": 1e-3,  # relative, of a factor that is compared with 1 or T squared
    "yardstick": 5.0,  # times the error of plain fp32 torch on the same inputs ...
    "floor": 1e-4,  # ... or this, whichever is larger
}


@dataclass
class Finding:
    """The verdict of one check for one function, divergence and seed."""

    verdict: str  # pass, fail, not offered
    figure: str = ""
    numbers: dict[str, float] = field(default_factory=dict)


def passes(condition: bool, figure: str, **numbers: float) -> Finding:
    """pass or fail, by a number."""
    return Finding("pass" if condition else "fail", figure, {k: float(v) for k, v in numbers.items()})


def shown(error: float) -> str:
    """Two digits; what rounding leaves has no interest beyond its size."""
    return f"{error:.1e}" if error < 1e-3 else f"{error:.3g}"


def value(found: Answers) -> Finding:
    """The loss against float64, and a distribution's divergence from itself, which is 0."""
    one, itself = found.loss("plain"), found.loss("itself")
    expected = found.truth("plain").value
    error = abs(one - expected) / expected
    ok = error < TOLERANCE["value"] and abs(itself) < TOLERANCE["itself"]
    text = f"{shown(error)} off" if error >= TOLERANCE["value"] else shown(error)
    if not ok:
        text = f"{one:.4g} for {expected:.4g} nats; from itself {itself:.3g}"
    return passes(ok, text, error=error, found=one, expected=expected, itself=itself)


def gradient(found: Answers) -> Finding:
    """At what the function is differentiated by: the student's logits, or hidden states and head."""
    got, expected = found.gradient("plain"), found.expected("plain")
    itself = float(np.linalg.norm(found.gradient("itself")) / np.linalg.norm(expected))
    finding = compared(got, expected)
    finding.numbers["itself"] = itself
    if itself >= TOLERANCE["gradient"]:
        return Finding("fail", f"{finding.figure}; from itself {itself:.3g}", finding.numbers)
    return finding


def compared(got: np.ndarray, expected: np.ndarray, tolerance: float | None = None) -> Finding:
    """A gradient against the truth; where it fails, also whether only its scale is off."""
    error = distance(got, expected)
    scale, rest = factor(got, expected)
    ok = error < (TOLERANCE["gradient"] if tolerance is None else tolerance)
    figure = shown(error)
    if not ok:
        kept = "direction kept" if rest < TOLERANCE["gradient"] else f"{rest:.2g} off after rescaling"
        figure = f"{error:.3g} off; times {scale:.4g}, {kept}"
    if not np.isfinite(error):
        ok, figure = False, "not finite"
    return passes(ok, figure, error=error, factor=scale, rest=rest)


def temperature(found: Answers) -> Finding:
    """Gradients at T = 2 and 4 have the direction of the softened divergence; the factor is the next check's."""
    if not found.entry["temperature"]:
        return Finding("not offered", found.why("temperature"))
    worst = 0.0
    for name in ("warm", "hot"):
        _, rest = factor(found.gradient(name), found.expected(name))
        worst = max(worst, rest)
    same = distance(found.gradient("hot"), found.gradient("plain"))
    figure = shown(worst)
    if same == 0 and "temperature" in found.entry["notes"]:
        return Finding("not offered", "no effect on the loss", {"change_from_1": same})
    if worst >= TOLERANCE["gradient"]:
        figure = "no effect on the loss" if same == 0 else f"{worst:.3g} off"
    return passes(worst < TOLERANCE["gradient"], figure, error=worst, change_from_1=same)


def t_squared(found: Answers) -> Finding:
    """The factor on the softened divergence at T = 4, of value and of gradient: 16, or 1 where there is none."""
    if not found.entry["temperature"]:
        return Finding("not offered", found.why("t_squared"))
    t = cases.scenario("hot")["temperature"]
    scale, rest = factor(found.gradient("hot"), found.expected("hot"))
    base, _ = factor(found.gradient("plain"), found.expected("plain"))
    if rest >= TOLERANCE["gradient"]:
        return Finding("not offered", "temperature has no effect", {})
    of_gradient = scale / base
    of_value = _value_factor(found)
    numbers = {"gradient": of_gradient, "value": of_value}
    agree = np.isnan(of_value) or abs(of_value / of_gradient - 1) < TOLERANCE["factor"]
    if not agree:
        return Finding("fail", f"value times {of_value:.3g}, gradient times {of_gradient:.3g}", numbers)
    if abs(of_gradient / t**2 - 1) < TOLERANCE["factor"]:
        return Finding("pass", f"times {of_gradient:.3g}", numbers)
    if abs(of_gradient - 1) < TOLERANCE["factor"]:
        return Finding("not offered", "absent (times 1)", numbers)
    return Finding("fail", f"times {of_gradient:.3g}", numbers)


def _value_factor(found: Answers) -> float:
    """Of the loss, where its value means the divergence; else unknown."""
    base = found.loss("plain") / found.truth("plain").value
    if abs(found.loss("itself")) > TOLERANCE["itself"]:
        return float("nan")
    return found.loss("hot") / found.truth("hot").value / base


def accumulation(found: Answers) -> Finding:
    """Four micro-batches of one row (5, 40, 12 and 3 tokens) against the four rows at once."""
    if why := found.why("accumulation"):
        return Finding("not offered", why)
    return compared(found.gradient("micro_batches"), found.expected("micro_batches"))


def two_ranks(found: Answers) -> Finding:
    """Two simulated processes (45 and 15 tokens), gradients averaged as DDP does, against one process."""
    if why := found.why("two_ranks"):
        return Finding("not offered", why)
    return compared(found.gradient("two_ranks"), found.expected("two_ranks"))


def padding(found: Answers) -> Finding:
    """Padding on the left, or more of it on the right, changes nothing; nothing leaks to what is not counted."""
    if why := found.why("padding"):
        return Finding("not offered", why)
    change = max(distance(found.gradient(name), found.gradient("plain")) for name in ("left", "wide"))
    leak = max(found.leak(name) for name in ("plain", "left", "wide"))
    ok = change < TOLERANCE["gradient"] and leak == 0
    if not np.isfinite(change):
        return Finding("fail", "gradient not finite")
    return passes(ok, f"{shown(change)}, leak {leak:.3g}" if leak else shown(change), change=change, leak=leak)


def masked(found: Answers) -> Finding:
    """A row without labels, and a micro-batch of nothing else: finite, and without any effect."""
    if why := found.why("masked"):
        return Finding("not offered", why)
    for name, what in (("masked_row", "row"), ("masked_micro_batch", "micro-batch")):
        error = found.error(name)
        if error:
            return Finding("fail", f"{what}: {error}")
        losses, grads = found.losses(name), found.gradient(name)
        if not (np.isfinite(losses).all() and np.isfinite(grads).all()):
            return Finding("fail", f"{what}: not finite", {"not_finite": float((~np.isfinite(grads)).sum())})
    row = compared(found.gradient("masked_row"), found.expected("masked_row"))
    own = float(np.abs(found.of_row("masked_micro_batch", cases.MASKED)).max())
    last = float(found.losses("masked_micro_batch")[-1])
    scale, _ = factor(found.gradient("plain"), found.expected("plain"))
    if row.verdict == "fail" and not abs(row.numbers["factor"] / scale - 1) < TOLERANCE["factor"]:
        return Finding("fail", f"row: {row.figure}", row.numbers)
    ok = own == 0 and last == 0
    return passes(ok, "0" if ok else f"micro-batch: loss {last:.3g}, gradient {own:.3g}", gradient=own, loss=last)


def vocabulary(found: Answers) -> Finding:
    """The teacher's head 6 columns wider, then narrower: which reading of the missing columns fits."""
    if why := found.why("vocabulary"):
        return Finding("not offered", why)
    parts, verdicts, numbers = [], [], {}
    for name in ("teacher_wider", "teacher_narrower"):
        verdict, text, figures = _one_vocabulary(found, name)
        verdicts.append(verdict)
        parts.append(f"{name.removeprefix('teacher_')}: {text}")
        numbers |= {f"{name}/{key}": figure for key, figure in figures.items()}
    verdict = "fail" if "fail" in verdicts else "pass" if "pass" in verdicts else "not offered"
    return Finding(verdict, "; ".join(parts), numbers)


def _one_vocabulary(found: Answers, name: str) -> tuple[str, str, dict[str, float]]:
    if error := found.error(name):
        return "not offered", f"raises {error.split(':')[0]}", {}
    got, readings = found.gradient(name), found.readings(name)
    if not np.isfinite(got).all():
        if found.kind == "reverse_kl" and name == "teacher_narrower":
            return "not offered", "infinite, as the divergence is", {}
        return "fail", "not finite", {}
    scale, _ = factor(found.gradient("plain"), found.expected("plain"))
    errors = {reading: distance(got, scale * expected) for reading, expected in readings.items()}
    best = min(errors, key=lambda reading: errors[reading])
    if errors[best] >= TOLERANCE["gradient"]:
        return "fail", f"no known reading, nearest {errors[best]:.3g} off", errors
    if best in found.sound:
        return "pass", best, errors
    sound = min(error for reading, error in errors.items() if reading in found.sound)
    mass = found.invented_mass(name, best)
    text = f"{best}: {sound:.3g} off, {mass:.2g} of the probability on them"
    return "fail", text, errors | {"mass": mass}


def large(found: Answers) -> Finding:
    """Gradient and value at logits of scale 50, fp32, beside plain fp32 torch."""
    return _precision(found, "large")


def bf16(found: Answers) -> Finding:
    """The same with bf16 inputs; the truth starts from the rounded ones."""
    if why := found.why("bf16"):
        return Finding("not offered", why)
    return _precision(found, "bf16")


def _precision(found: Answers, name: str) -> Finding:
    if error := found.error(name):
        return Finding("not offered", f"raises {error}")
    scale, _ = factor(found.gradient("plain"), found.expected("plain"))
    got = found.gradient(name)
    if not np.isfinite(got).all():
        return Finding("fail", "gradient not finite", {"not_finite": float((~np.isfinite(got)).sum())})
    error = distance(got / scale, found.expected(name))
    plain = found.yardstick(name)
    of_value = _value_error(found, name)
    numbers = {"error": error, "yardstick": plain, "value": of_value}
    limit = max(TOLERANCE["yardstick"] * plain, TOLERANCE["floor"])
    ok = error <= limit and not of_value > limit
    figure = f"{shown(error)} ({error / plain:.2g} times plain torch)"
    if of_value > limit:
        figure += f", value {of_value:.2g} off"
    return passes(ok, figure, **numbers)


def _value_error(found: Answers, name: str) -> float:
    """Relative, where the value means the divergence at all; else unknown."""
    one, expected = found.loss("plain"), found.truth("plain").value
    if abs(found.loss("itself")) > TOLERANCE["itself"]:
        return float("nan")
    there = found.loss(name) * expected / one
    return abs(there / found.truth(name).value - 1) if np.isfinite(there) else float("inf")


CHECKS: dict[str, tuple[str, Callable[[Answers], Finding]]] = {
    "value": ("value", value),
    "gradient": ("gradient", gradient),
    "temperature": ("temperature", temperature),
    "t_squared": ("T² at T = 4", t_squared),
    "accumulation": ("accumulation", accumulation),
    "padding": ("padding", padding),
    "vocabulary": ("padded vocabulary", vocabulary),
    "masked": ("nothing counted", masked),
    "two_ranks": ("two ranks (simulated)", two_ranks),
    "large": ("logits of scale 50", large),
    "bf16": ("bf16 inputs", bf16),
}


def run_check(check: str, found: Answers) -> dict[str, Any]:
    """One check as JSON."""
    finding = CHECKS[check][1](found)
    if finding.verdict == "fail" and check in found.entry["excluded"]:
        finding = Finding(
            "not offered", f"{found.entry['excluded'][check]}; measured: {finding.figure}", finding.numbers
        )
    numbers = {name: number if np.isfinite(number) else None for name, number in finding.numbers.items()}
    return {"verdict": finding.verdict, "figure": finding.figure, "numbers": numbers}
