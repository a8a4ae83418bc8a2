"""The shipped detector on labelled runs that were made when it stood: nothing was fitted to them, or chosen by them.

    python benchmarks/labelled/make.py --root runs/remedies --only pydoc-long prose-bpe
    python benchmarks/detector/fresh.py

Reads detector.json as it lies in the package and the worlds marked test_only. Writes fresh.json beside this file.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from evaluate import figures, held_out
from looks import FULL, LABELLED, read_looks

from potstill.diagnosis.detector import models

HERE = Path(__file__).resolve().parent


def main() -> None:
    index = json.loads((LABELLED / "index.json").read_text())
    names = {run["name"] for run in index if run.get("test_only")}
    looks = read_looks(FULL, names, workers=2)
    everything = looks.fact("test_only")  # one part: one model judges all
    found: dict[str, Any] = {
        "runs": {world: Counter(run["label"] for run in looks.runs.values() if run["world"] == world)
                 for world in sorted({run["world"] for run in looks.runs.values()})},
        "detectors": {},
    }  # fmt: skip
    for name, model in models().items():
        judged = held_out(looks, everything, {True: model})
        alarmed = sorted(set(looks.name[judged.alarm].tolist()))
        found["detectors"][name] = figures(looks, judged) | {
            "alarmed": {run: looks.runs[run]["label"] for run in alarmed}
        }
    (HERE / "fresh.json").write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
