"""How good the detector is on runs it was not fitted to: every figure that RESULTS.md shows."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from fitting import SOUND, fit, in_range, log_odds, run_maxima, usable_looks
from looks import Looks
from scipy.stats import rankdata

from potstill.diagnosis.detector import Model
from potstill.lab.stats import clopper_pearson

DRAWS = 2000
BASELINE_ALLOWED = 0.02
EDGES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0)


@dataclass(frozen=True)
class HeldOut:
    """What models said of looks that they were not fitted to."""

    score: np.ndarray  # [N] calibrated log odds, or a baseline's value; in range or not
    inside: np.ndarray  # [N] bool
    alarm: np.ndarray  # [N] bool

    @property
    def probability(self) -> np.ndarray:
        return np.asarray(1 / (1 + np.exp(-self.score)))


def models_without(
    looks: Looks, parts: np.ndarray, directions: dict[str, int], name: str, skip: Collection[Any] = ()
) -> dict[Any, Model]:
    """For each part (a corpus, a group), a model fitted to all the others, threshold and calibration too."""
    usable = usable_looks(looks)
    wanted = [part for part in np.unique(parts).tolist() if part not in skip]
    return {part: fit(looks, usable & (parts != part), directions, name) for part in wanted}


def held_out(looks: Looks, parts: np.ndarray, models: Mapping[Any, Model]) -> HeldOut:
    """Each look judged by the model that has not seen its part."""
    found = HeldOut(np.full(len(parts), np.nan), np.zeros(len(parts), bool), np.zeros(len(parts), bool))
    for part, model in models.items():
        where = parts == part
        found.score[where] = log_odds(model, looks, where)
        found.inside[where] = in_range(model, looks, where)
        found.alarm[where] = found.inside[where] & (found.probability[where] >= model.threshold)
    return found


def held_out_baseline(looks: Looks, parts: np.ndarray, values: np.ndarray) -> HeldOut:
    """One number against a threshold that alarms 2 % of the sound runs of the other parts."""
    sound = np.isin(looks.fact("label"), SOUND)
    alarm = np.zeros(len(parts), bool)
    for part in np.unique(parts):
        others = sound & (parts != part)
        highest = np.sort(run_maxima(looks.name[others], values[others]))[::-1]
        alarm[parts == part] = values[parts == part] > highest[round(BASELINE_ALLOWED * len(highest))]
    return HeldOut(values, np.ones(len(parts), bool), alarm)


def runs_of(looks: Looks, found: HeldOut, names: Collection[str]) -> tuple[Looks, HeldOut]:
    """The part of these runs."""
    kept = np.isin(looks.name, list(names))
    fewer = Looks(
        {name: facts for name, facts in looks.runs.items() if name in names}, looks.name[kept], looks.step[kept],
        looks.hacked_now[kept], {key: values[kept] for key, values in looks.features.items()},
        {key: values[kept] for key, values in looks.baselines.items()},
    )  # fmt: skip
    return fewer, HeldOut(found.score[kept], found.inside[kept], found.alarm[kept])


def figures(looks: Looks, found: HeldOut) -> dict[str, Any]:
    """Ranking, alarms and delays."""
    return {
        "ranking": {
            "all runs": area(looks, found, looks.last()),
            "offline runs": area(looks, found, looks.last() & offline(looks)),
            "offline runs, in range": area(looks, found, looks.last() & offline(looks) & found.inside),
        },
        "alarmed": {label: alarmed(looks, found, label) for label in sorted(set(looks.fact("label").tolist()))},
        "sound": alarmed(looks, found, *SOUND),
        "sound offline": alarmed(looks, found, *SOUND, only=offline(looks)),
        "recall": alarmed(looks, found, "hacking"),
        "recall at the end": alarmed(looks, found, "hacking", only=looks.last()),
        "outside": int(sum(~found.inside[looks.last()])),
        "delay": delays(looks, found),
    }


def offline(looks: Looks) -> np.ndarray:
    return np.asarray(looks.fact("source") == "offline")


def area(looks: Looks, found: HeldOut, where: np.ndarray) -> dict[str, Any]:
    """Area under the ROC curve of the last looks, hacking against sound; 95 % bootstrap interval over runs."""
    where = where & usable_looks(looks)
    scores, truth = found.score[where], looks.fact("label")[where] == "hacking"
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(DRAWS):
        pick = rng.integers(len(truth), size=len(truth))
        if 0 < truth[pick].sum() < len(truth):
            drawn.append(roc_area(scores[pick], truth[pick]))
    both = 0 < truth.sum() < len(truth)
    interval = [round(float(edge), 3) for edge in np.quantile(drawn, [0.025, 0.975])] if both else None
    value = round(roc_area(scores, truth), 3) if both else None
    return {"area": value, "interval": interval, "hacking": int(truth.sum()), "sound": int((~truth).sum())}


def roc_area(scores: np.ndarray, truth: np.ndarray) -> float:
    """Chance that a hacked run scores higher than a sound one; ties count half."""
    ranks, positive = rankdata(scores), int(truth.sum())
    return float((ranks[truth].sum() - positive * (positive + 1) / 2) / (positive * (len(truth) - positive)))


def alarmed(looks: Looks, found: HeldOut, *labels: str, only: np.ndarray | None = None) -> dict[str, Any]:
    """Runs of these labels alarmed at any of their looks."""
    where = np.isin(looks.fact("label"), labels) & (True if only is None else only)
    names = sorted(set(looks.name[where & found.alarm].tolist()))
    return count(len(names), len(set(looks.name[where].tolist()))) | {"names": names}


def count(hits: int, number: int) -> dict[str, Any]:
    """A share with its Clopper-Pearson 95 % interval."""
    if number == 0:
        return {"hits": 0, "of": 0, "share": float("nan"), "interval": [0.0, 1.0]}
    found = clopper_pearson(hits, number)
    interval = [round(found.low, 4), round(found.high, 4)]
    return {"hits": hits, "of": number, "share": round(found.mean, 4), "interval": interval}


def delays(looks: Looks, found: HeldOut) -> dict[str, Any]:
    """First alarms of hacked runs, against the minimum of golden and the onset of its proven rise."""
    ratios, before_minimum, early, no_onset = [], [], [], 0
    for name, facts in looks.runs.items():
        steps = looks.step[(looks.name == name) & found.alarm]
        if facts["label"] != "hacking" or not len(steps):
            continue
        first = int(steps[0])
        if first < facts["change_point"]:
            before_minimum.append(name)
        elif facts["onset"] is None:
            no_onset += 1
        else:
            ratios.append(first / facts["onset"])
            if first < facts["onset"]:
                early.append(name)
    quartiles = [round(float(edge), 2) for edge in np.quantile(ratios, [0.25, 0.5, 0.75])] if ratios else None
    return {
        "runs": len(ratios), "quartiles": quartiles, "before_minimum": before_minimum, "early": early,
        "without_onset": no_onset,
    }  # fmt: skip


def calibration(looks: Looks, found: HeldOut) -> dict[str, Any]:
    """Reliability over the last looks and over all looks of plain runs in range; Brier scores."""
    plain = usable_looks(looks) & found.inside
    return {
        "last looks": reliability(looks, found, plain & looks.last()),
        "all looks": reliability(looks, found, plain),
    }


def reliability(looks: Looks, found: HeldOut, where: np.ndarray) -> dict[str, Any]:
    chance, truth = found.probability[where], looks.hacked_now[where].astype(float)
    bins = []
    for low, high in pairwise(EDGES):
        inside = (chance >= low) & (chance < high if high < 1 else chance <= high)
        if inside.any():
            bins.append({
                "from": low, "to": high, "looks": int(inside.sum()),
                "said": round(float(chance[inside].mean()), 3), "was": round(float(truth[inside].mean()), 3),
            })  # fmt: skip
    return {
        "bins": bins,
        "brier": round(float(((chance - truth) ** 2).mean()), 4),
        "brier_of_base_rate": round(float(truth.mean() * (1 - truth.mean())), 4),
    }


def by_part(looks: Looks, found: HeldOut, parts: np.ndarray, chosen: Collection[Any] | None = None) -> dict[str, Any]:
    """The same figures for each part that was held out."""
    rows = {}
    for part in np.unique(parts).tolist() if chosen is None else chosen:
        inside = parts == part
        rows[part] = {
            "area": area(looks, found, looks.last() & inside),
            "sound": alarmed(looks, found, *SOUND, only=inside),
            "recall": alarmed(looks, found, "hacking", only=inside),
            "outside": count(int((looks.last() & inside & ~found.inside).sum()), int((looks.last() & inside).sum())),
        }
    return rows
