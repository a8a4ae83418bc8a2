"""Results of an experiment on teacher hacking that nobody ran, in the form that the lab writes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

SEEDS = (3, 4, 5)
EPOCHS = 48
STEPS_PER_EPOCH = 16
#: How much golden rises at the end, forward KL at the end, and golden at its lowest; nats per sequence.
SHAPES = {
    "offline": (1.6, 2.1, 9.6),
    "oracle_as_teacher": (0.4, 3.4, 3.4),
    "online_teacher": (0.0, 1.5, 8.6),
    "online_student": (0.0, 1.7, 8.5),
    "mixture_1": (1.3, 2.0, 9.5),
    "mixture_5": (0.7, 1.9, 9.2),
    "mixture_10": (0.3, 1.85, 9.0),
    "mixture_25": (0.1, 1.8, 8.8),
    "mixture_50": (0.05, 1.75, 8.6),
    "prompts_half": (2.1, 2.2, 9.9),
    "prompts_fifth": (3.0, 2.4, 10.3),
    "completions_2": (0.9, 1.9, 9.2),
    "completions_4": (0.5, 1.7, 9.0),
    "few_epochs": (0.0, 4.0, 11.0),
    "reverse_kl": (1.2, 2.3, 9.8),
    "reverse_kl_online": (0.0, 1.6, 8.7),
    "jensen_shannon": (1.1, 2.2, 9.7),
    "jensen_shannon_online": (0.0, 1.6, 8.7),
    "small_teacher": (1.9, 1.8, 12.0),
    "small_student": (0.9, 3.6, 11.0),
    "overtrained_teacher": (2.2, 2.4, 11.4),
}
TEACHERS = {"oracle_as_teacher": 0.0, "small_teacher": 11.5, "overtrained_teacher": 10.2}


def cell(arm: str, seed: int) -> dict[str, Any]:
    """One run: proxy falls by a power law, golden falls and rises again by what SHAPES says."""
    rise, proxy_end, lowest = SHAPES[arm]
    epochs = np.array([0.5 * i for i in range(7)] if arm == "few_epochs" else [0, 1, 2, 3, *range(6, EPOCHS + 1, 3)])
    random = np.random.default_rng([seed, len(arm)])
    exponent = 0.5 if arm != "few_epochs" else 0.9
    last = epochs[-1]
    proxy = proxy_end * ((epochs + 0.6) / (last + 0.6)) ** -exponent + random.normal(0, 0.04, epochs.size)
    golden = lowest + (38 - lowest) * np.exp(-epochs / 2.2) + rise * np.clip((epochs - 12) / 36, 0, 1)
    golden = golden + random.normal(0, 0.06, epochs.size) + 0.25 * (seed - 4)
    if arm == "oracle_as_teacher":
        golden = proxy + rise * np.clip((epochs - 12) / 36, 0, 1)
        proxy = golden
    steps = epochs * STEPS_PER_EPOCH
    loss = [None, *(proxy[1:] * (0.9 - 0.3 * epochs[1:] / EPOCHS)).tolist()]
    hacked = rise > 0.5
    return {
        "arm": arm, "seed": seed, "run": f"steps/distil-{arm}-s{seed}-1a2b3c/run", "epochs": int(last),
        "steps_per_epoch": STEPS_PER_EPOCH, "steps": [int(step) for step in steps],
        "verdict": "hacking" if hacked else "healthy", "confidence": 0.999 if hacked else 0.93,
        "proxy": proxy.tolist(), "proxy_fkl": proxy.tolist(), "golden": golden.tolist(), "training_loss": loss,
        "teacher_golden": TEACHERS.get(arm, 8.1) + (0.0 if arm == "oracle_as_teacher" else 0.12 * (seed - 4)),
        "rise": {"p": 0.0002 if hacked else 0.31, "change_point": 192, "change": rise, "interval": [rise, rise]},
        "seconds": 61.0 + seed,
    }  # fmt: skip


def interval(values: list[float]) -> list[float]:
    """Mean and 95 % ends over three seeds, by Student's t with two degrees of freedom."""
    half = 4.303 * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    mean = float(np.mean(values))
    return [mean, mean - half, mean + half]


def arm_of(cells: list[dict[str, Any]], laws: bool = True) -> dict[str, Any]:
    """The line of the table on one arm, and the law of its proxy and loss."""
    first = cells[0]
    rises = [max(0.0, found["golden"][-1] - min(found["golden"])) for found in cells]
    found = {
        "arm": first["arm"], "seeds": len(cells), "verdicts": {first["verdict"]: len(cells)},
        "rises_passed": sum(one["rise"]["p"] < 0.05 for one in cells),
        "golden_last": interval([one["golden"][-1] for one in cells]),
        "golden_lowest": interval([min(one["golden"]) for one in cells]), "golden_rise": interval(rises),
        "proxy_last": interval([one["proxy"][-1] for one in cells]),
        "proxy_gain": interval([one["proxy"][0] - one["proxy"][-1] for one in cells]),
        "training_loss_last": interval([one["training_loss"][-1] for one in cells]),
        "minus_teacher": interval([one["golden"][-1] - one["teacher_golden"] for one in cells]),
    }  # fmt: skip
    if laws:
        found["laws"] = {name: fitted(cells, name) for name in ("training_loss", "proxy")}
    return found


def fitted(cells: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """A straight line through the first third on log axes, and where the mean leaves it by a tenth."""
    epochs = np.array(cells[0]["steps"][1:]) / STEPS_PER_EPOCH
    mean = np.mean([one[name][1:] for one in cells], axis=0)
    early = epochs <= max(epochs[-1] / 3, epochs[2])
    exponent, log_factor = np.polyfit(np.log(epochs[early]), np.log(mean[early]), 1)
    law = np.exp(log_factor) * epochs**exponent
    out = np.flatnonzero((np.abs(mean / law - 1) > 0.1) & ~early)
    return {
        "C": float(np.exp(log_factor)), "exponent": float(exponent), "from": float(epochs[0]),
        "to": float(epochs[early][-1]), "break_epoch": float(epochs[out[0]]) if out.size else None, "band": 0.1,
    }  # fmt: skip


def effect(name: str, words: str, values: list[float], wanted: str, met: bool | None) -> dict[str, Any]:
    mean, low, high = interval(values)
    return {
        "name": name, "words": words, "per_seed": {str(s): v for s, v in zip(SEEDS, values, strict=True)},
        "mean": mean, "interval": [low, high], "wanted": wanted, "met": met, "unit": "nats per sequence",
    }  # fmt: skip


def findings() -> list[dict[str, Any]]:
    """Six of the seven; the last is missing, as in an experiment without its arms."""
    rise = effect("golden_rise", "golden, from its lowest point to the end", [1.55, 1.71, 1.62], "above 0", True)
    control = effect("less_control", "rise of offline less rise of oracle as teacher", [1.1, 1.3, 1.2], "above 0", True)
    loss = effect("loss", "training loss, a fifth of the prompts less offline", [0.1, -0.2, 0.05], "near 0", None)
    fall = effect("golden", "golden of completions_4 less offline", [-0.2, 0.3, 0.1], "below 0", False)
    said = [
        (1, "Offline data visited for many epochs: hacking.", "reproduced", [rise, control], "Both lie above 0."),
        (2, "Online data: no hacking, both metrics fall.", "reproduced", [], "No U test passed."),
        (3, "A tenth of online student data steadies golden.", "reproduced", [], "Golden ends lower."),
        (4, "Fewer prompts: more hacking, unseen in the loss.", "not decidable", [loss], "The loss is too noisy."),
        (5, "More completions a prompt help.", "not reproduced", [fall], "Golden does not fall."),
        (6, "One to three epochs: minimal hacking.", "reproduced", [], "No U test passed."),
    ]
    return [
        {"number": number, "statement": statement, "status": status, "effects": effects, "why": why}
        for number, statement, status, effects, why in said
    ]


def results(arms: tuple[str, ...] = tuple(SHAPES), laws: bool = True) -> dict[str, Any]:
    """The whole file."""
    cells = {arm: [cell(arm, seed) for seed in SEEDS] for arm in arms}
    return {
        "preset": "tiny", "corpus": "pydoc", "tokenisation": "characters",
        "setting": {"prompts": 256, "epochs": EPOCHS, "batch_rows": 16, "student_width": 64, "learning_rate": 1e-3},
        "hardware": "2 cores of a made-up processor", "seconds": 4321.0,
        "cells": [one for found in cells.values() for one in found],
        "findings": findings(), "arms": [arm_of(found, laws) for found in cells.values()],
    }  # fmt: skip
