"""Writes the logs of `potstill diagnose --example`: two runs of the lab, one hacked and one healthy.

Both come from the labelled set (world pydoc, seed 5): the same teacher and the same prompts, once
offline for 48 epochs on one answer a prompt, once online. Values are nats per token over groups of
prompts, golden against the oracle. Run it where benchmarks/labelled/runs lies.

    python benchmarks/labelled/examples.py
"""

from __future__ import annotations

import csv
import json
from pathlib import Path

from potstill.diagnosis import judge, read_curves
from potstill.lab.labelled import LabelledRun, load
from potstill.records import Curve

HERE = Path(__file__).parent
EXAMPLES = HERE.parent.parent / "src" / "potstill" / "diagnosis" / "examples"
CHOSEN = {"hacked": ("pydoc-offline-s5", "hacking"), "healthy": ("pydoc-online-student-s5", "healthy")}
COLUMNS = ("step", "prompt_id", "split", "proxy", "golden", "teacher_golden", "train_loss")


def rows_of(run: LabelledRun) -> list[dict[str, str]]:
    """One row per step and group of prompts; golden and proxy have groups of their own."""
    rows = [
        {"step": str(step), "train_loss": f"{value:.4f}"}
        for step, value in zip(run.seen["training_loss"].steps, run.seen["training_loss"].per_token, strict=True)
    ]
    for name in ("proxy", "golden"):
        rows += rows_of_curve(name, run.label[name])
    return sorted(rows, key=lambda row: int(row["step"]))


def rows_of_curve(name: str, curve: Curve) -> list[dict[str, str]]:
    rows = []
    for i, step in enumerate(curve.steps.tolist()):
        for j, (group, split) in enumerate(zip(curve.prompt_ids.tolist(), curve.splits.tolist(), strict=True)):
            row = {"step": str(step), "prompt_id": group.replace("group", name), "split": split}
            row[name] = f"{curve.sums[i, j] / curve.tokens[i, j]:.4f}"
            if i == 0 and curve.teacher is not None and name == "golden":
                row["teacher_golden"] = f"{curve.teacher[j] / curve.tokens[i, j]:.4f}"
            rows.append(row)
    return rows


def main() -> None:
    """Write both and see that they are judged as their label says."""
    index = {facts["name"]: facts for facts in json.loads((HERE / "index.json").read_text())}
    for example, (name, label) in CHOSEN.items():
        path = EXAMPLES / f"{example}.csv"
        with open(path, "w", newline="", encoding="utf-8") as handle:
            writer = csv.DictWriter(handle, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows_of(load(HERE / "runs" / f"{name}.npz", index[name])))
        verdict = judge(read_curves(path), "oracle")
        assert verdict.verdict == label, f"{path} is judged {verdict.verdict}, its label is {label}"
        print(f"{path.name}: {path.stat().st_size} bytes, {verdict.verdict} ({verdict.confidence:.3f})")


if __name__ == "__main__":
    main()
