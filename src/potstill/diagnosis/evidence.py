"""The numbers under a verdict, as plain Python for verdict.json.

Levels and changes are nats per token; slopes are nats per token and step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from potstill.diagnosis.curves import Rise, Trend, smooth, usable
from potstill.diagnosis.detector import Suspicion, false_alarms
from potstill.diagnosis.findings import Findings
from potstill.diagnosis.noise import keyed_generator, redraw_prompts
from potstill.records import Curve

WANTED_EVALUATIONS = 20


def basics(curves: Mapping[str, Curve], golden_kind: str) -> dict[str, Any]:
    """What is known before any test; every key that a reader may rely on is here."""
    golden, proxy = curves.get("golden"), curves.get("proxy")
    shown = golden if golden is not None else proxy
    return {
        "golden_kind": golden_kind,
        "evaluations": 0 if shown is None else len(shown.steps),
        "prompts": len(shown.prompt_ids) if shown is not None and shown.paired else 0,
        "paired": shown is not None and shown.paired,
        "not_finite": {name: not_finite(curve) for name, curve in curves.items() if not_finite(curve)},
        "proxy": levels(proxy),
        "golden": levels(golden),
        **against_teacher(golden),
        "change_point": None,
        "golden_rise": None,
        "proxy_change": None,
        "delta": None,
        "style_or_calibration_drift": False,
        "share_not_explained_by_proxy": None,
        "detector": None,
        "suspected_by": None,
        "reasons": [],
        "log_instead": None,
    }


def detector_numbers(suspicion: Suspicion | None) -> dict[str, Any] | None:
    """What the detector made of the log; None where an oracle makes it needless."""
    if suspicion is None:
        return None
    return {
        "probability": suspicion.probability,
        "alarm": suspicion.alarm,
        "threshold": suspicion.threshold,
        "in_range": suspicion.in_range,
        "first_alarm_step": suspicion.first_alarm_step,
        "model": suspicion.model,
        "false_alarms": None if suspicion.model is None else false_alarms(suspicion.model),
        "reasons": list(suspicion.reasons),
        "features": dict(suspicion.features),
    }


def levels(curve: Curve | None) -> dict[str, float | None]:
    """First, last and smoothed lowest value."""
    measured = None if curve is None else usable(curve)
    if measured is None or len(measured.steps) < 2:
        return {"first": None, "last": None, "lowest": None}
    values = measured.per_token
    return {"first": float(values[0]), "last": float(values[-1]), "lowest": float(smooth(values).min())}


def not_finite(curve: Curve) -> int:
    """Evaluations that were left out because a prompt's value is NaN or infinite."""
    return int((~np.isfinite(curve.sums).all(1)).sum())


def against_teacher(golden: Curve | None) -> dict[str, Any]:
    """On which side of the teacher's own golden the student stands at the end."""
    unknown = {"teacher_golden": None, "side_of_teacher": None, "teacher_difference": None}
    if golden is None or golden.teacher is None or not len(end := usable(golden).steps):
        return unknown
    gap = replace(
        golden,
        name="golden minus teacher",
        steps=end[-1:],
        sums=usable(golden).sums[-1:] - golden.teacher,
        tokens=usable(golden).tokens[-1:],
    )
    value, interval = float(gap.per_token[0]), None
    low, high = value, value
    if golden.paired:
        everyone = np.ones(len(golden.prompt_ids), dtype=bool)
        drawn = value + redraw_prompts(gap, everyone, keyed_generator(gap.name, *map(str, gap.prompt_ids)))
        low, high = (float(edge) for edge in np.quantile(drawn, [0.025, 0.975]))
        interval = [low, high]
    side = "worse than teacher" if low > 0 else "better than teacher" if high < 0 else "level with teacher"
    return {
        "teacher_golden": float(golden.teacher.sum() / gap.tokens.sum()),
        "side_of_teacher": side,
        "teacher_difference": {"value": value, "interval": interval},
    }


def measured(found: Findings) -> dict[str, Any]:
    """What the tests said; without a golden curve, of proxy alone."""
    after, delta = found.proxy_after, found.delta
    if not found.has_golden:
        proxy = {"proxy_rise": rise_numbers(found.proxy_rise), "proxy_tail": trend_numbers(found.proxy_tail)}
        return {"delta": delta, **proxy}
    evidence: dict[str, Any] = {
        "delta": delta,
        "change_point": found.golden_rise.change_point,
        "golden_rise": rise_numbers(found.golden_rise),
        "proxy_rise": rise_numbers(found.proxy_rise),
        "proxy_change": {
            **trend_numbers(after),
            "equivalence_p": after.chance_above(found.margin),
            "equivalence_margin": float(found.margin),
            "worse_p": after.chance_below(delta),
        },
        "golden_tail": trend_numbers(found.golden_tail),
        "proxy_tail": trend_numbers(found.proxy_tail),
    }
    if found.verifier_rise is not None:
        evidence["verifier_rise"] = rise_numbers(found.verifier_rise)
    return evidence


def rise_numbers(rise: Rise) -> dict[str, Any]:
    numbers: dict[str, Any] = {"p": rise.p, "slope": None, "interval": None, "change": None}
    if rise.trend is not None and rise.half_slopes is not None:
        numbers |= trend_numbers(rise.trend) | {"half_slopes": list(rise.half_slopes)}
    return numbers


def trend_numbers(trend: Trend) -> dict[str, Any]:
    return {
        "after_step": trend.after_step,
        "slope": float(trend.slope),
        "interval": trend.interval(1 / trend.span),
        "change": float(trend.change),
        "change_interval": trend.interval(),
    }


def unexplained(found: Findings) -> float | None:
    """Share of golden's rise that proxy's change over the same steps does not explain, 0 to 1."""
    trend = found.golden_rise.trend
    if trend is None or trend.change <= 0:
        return None
    return float(np.clip(1 - found.proxy_after.change / trend.change, 0, 1))


def what_to_log(curves: Mapping[str, Curve], *, noisy: bool) -> str:
    """The cheapest change of the monitor that would allow a verdict."""
    missing = [name for name in ("proxy", "golden") if name not in curves]
    if missing and not (missing == ["golden"] and "training_loss" in curves):
        instead = "" if "proxy" in missing else ", or log the training loss: proxy can be judged beside it"
        return f"measure {' and '.join(missing)} on held-out prompts at every evaluation{instead}"
    golden = curves.get("golden", curves["proxy"])
    last = int(golden.steps[-1]) if len(golden.steps) else 0
    every = max(1, last // WANTED_EVALUATIONS)
    advice = [f"monitor.every_steps={every} (about {max(1, last) // every} evaluations in {last} steps)"]
    if not golden.paired:
        advice.append("a prompt_id column with one row per prompt")
    elif noisy or len(golden.prompt_ids) < 64:
        advice.append(f"monitor.max_prompts={max(64, 4 * len(golden.prompt_ids))}")
    return ", ".join(advice)
