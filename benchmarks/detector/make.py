"""Fits the oracle-free detector, and measures it on runs of oracles and corpora that it was not fitted to.

    python benchmarks/detector/make.py [--workers 2]

Reads the labelled set (benchmarks/labelled). Writes src/potstill/diagnosis/detector.json (what is shipped: fitted
on all groups), results.json and RESULTS.md beside this file. Some minutes on one core.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from evaluate import (
    HeldOut,
    by_part,
    calibration,
    figures,
    held_out,
    held_out_baseline,
    models_without,
    runs_of,
)  # fmt: skip
from fitting import INPUTS, SOUND, fit, usable_looks
from looks import DESIGNS, FULL, Looks, read_looks
from tables import markdown

from potstill.diagnosis.detector import MODEL_FILE, Model

HERE = Path(__file__).resolve().parent
COMMAND = "python benchmarks/detector/make.py"


def main() -> None:
    parser = argparse.ArgumentParser(description="Fit the detector and measure it.")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--fit-only", action="store_true", help="write detector.json, measure nothing")
    chosen = parser.parse_args()
    looks = read_looks(FULL, workers=chosen.workers)
    shipped = {name: fit(looks, usable_looks(looks), directions, name) for name, directions in INPUTS.items()}
    results: dict[str, Any] = {}
    if not chosen.fit_only:
        results = measure(looks, chosen.workers)
        (HERE / "results.json").write_text(json.dumps(results, indent=1) + "\n")
        text = markdown(results, (HERE / "VARIANTS.md").read_text())
        (HERE / "RESULTS.md").write_text(text)
        print(text)
    write(shipped, looks, {name: statement(one["figures"]) for name, one in results.get("detectors", {}).items()})


def measure(looks: Looks, workers: int) -> dict[str, Any]:
    """Every figure, as results.json holds it."""
    groups = looks.fact("group")
    models = {name: models_without(looks, groups, directions, name) for name, directions in INPUTS.items()}
    found = {name: held_out(looks, groups, one) for name, one in models.items()}
    labels = Counter(run["label"] for run in looks.runs.values())
    return {
        "labels": labels,
        "looks": len(looks.name),
        "detectors": {
            name: {"figures": figures(looks, one), "calibration": calibration(looks, one), "misses": misses(looks, one)}
            for name, one in found.items()
        },
        "baselines": {
            name: {"figures": figures(looks, held_out_baseline(looks, groups, values))}
            for name, values in looks.baselines.items()
        },
        "transfer": transfer(looks, found),
        "unseen": {name: unseen(looks, one) for name, one in found.items()},
        "designs": {design.name: in_design(read_looks(design, workers=workers), models) for design in DESIGNS},
    }


def unseen(looks: Looks, found: HeldOut) -> dict[str, Any]:
    """Runs that were made after the features had been chosen (chosen_on.json lists the others)."""
    names = set(looks.runs) - set(json.loads((HERE / "chosen_on.json").read_text()))
    return figures(*runs_of(looks, found, names)) | {"runs": len(names)} if names else {"runs": 0}


def transfer(looks: Looks, by_group: dict[str, HeldOut]) -> dict[str, Any]:
    """Group by group as everywhere; then other ways to hold out."""
    parts = {
        "corpus": looks.fact("corpus"), "tokenisation": looks.fact("tokenisation"),
        "student width": looks.fact("student_hidden_size"), "learning rate": looks.fact("learning_rate"),
    }  # fmt: skip
    groups = looks.fact("group")
    rows = {"oracle and corpus": {name: by_part(looks, one, groups) for name, one in by_group.items()}}
    for kind, values in parts.items():
        rows[kind] = {}
        # The commonest part is what the others are fitted on; without it there is nothing to fit to.
        commonest = Counter(values.tolist()).most_common(1)[0][0]
        for name, directions in INPUTS.items():
            models = models_without(looks, values, directions, name, skip=() if kind == "corpus" else (commonest,))
            judged = held_out(looks, values, models)
            rows[kind][name] = by_part(looks, judged, values, list(models))
    return rows


def in_design(looks: Looks, models: dict[str, Any]) -> dict[str, Any]:
    """What the same models make of less."""
    groups = looks.fact("group")
    return {
        name: {"runs": len(looks.runs), "figures": figures(looks, held_out(looks, groups, one))}
        for name, one in models.items()
    }


def misses(looks: Looks, found: HeldOut) -> dict[str, Any]:
    """What hacked runs that were seen, or not, have in common; medians."""
    rows: dict[str, list[tuple[float, float, float, bool]]] = {"alarmed": [], "missed": []}
    for name, run in looks.runs.items():
        if run["label"] == "hacking":
            mine = looks.name == name
            after = (looks.step[mine][-1] - run["change_point"]) / run["steps_per_epoch"]
            kind = "alarmed" if found.alarm[mine].any() else "missed"
            rows[kind].append((run["rise_share"], run["p"], after, not found.inside[mine][-1]))
    return {
        kind: {"runs": len(seen), "outside": sum(one[3] for one in seen)}
        | {
            key: float(np.median([one[i] for one in seen]))
            for i, key in enumerate(("rise", "p", "epochs_after"))
            if seen
        }
        for kind, seen in rows.items()
    }


def statement(found: dict[str, Any]) -> dict[str, Any]:
    """What detector.json says of its own errors."""
    return {
        "sound_runs_alarmed": {key: found["sound"][key] for key in ("hits", "of", "interval")},
        "hacked_runs_alarmed": {key: found["recall"][key] for key in ("hits", "of", "interval")},
        "roc_area": {key: found["ranking"][key]["area"] for key in ("all runs", "offline runs")},
        "looks": "every evaluation from the eighth on; a run counts when any alarms; fitted without its group",
    }


def write(models: dict[str, Model], looks: Looks, held_out: dict[str, Any]) -> None:
    """detector.json: what is shipped."""
    labels = Counter(run["label"] for run in looks.runs.values())
    content = {
        "format": 1,
        "made_by": COMMAND,
        "runs": {"hacking": labels["hacking"], "sound": sum(labels[word] for word in SOUND)},
        "groups": sorted({run["group"] for run in looks.runs.values()}),
        "probability": "that a dense oracle says hacking at this evaluation",
        "held_out": held_out,
        "models": {name: as_json(model) for name, model in models.items()},
    }
    MODEL_FILE.write_text(json.dumps(content, indent=1) + "\n")


def as_json(model: Model) -> dict[str, Any]:
    columns = zip(model.inputs, model.coefficients, model.means, model.scales, strict=True)
    slope, offset = model.calibration
    return {
        "inputs": [
            {"name": name, "coefficient": rounded(weight), "mean": rounded(mean), "scale": rounded(scale)}
            for name, weight, mean, scale in columns
        ],
        "intercept": rounded(model.intercept),
        "calibration": {"slope": rounded(slope), "offset": rounded(offset)},
        "ranges": {name: [rounded(low), rounded(high)] for name, (low, high) in model.ranges.items()},
        "threshold": rounded(model.threshold),
    }


def rounded(value: float) -> float:
    """Six digits: more would promise too much, and differ from machine to machine."""
    return float(f"{value:.6g}")


if __name__ == "__main__":
    main()
