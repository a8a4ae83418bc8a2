"""The shipped detector on simulated runs: logs denser than the labelled ones, and jitter that they did not have.

    python benchmarks/detector/simulated.py

The training loss falls as a power, proxy levels out, the NLL on references falls and then stands, or rises by 0.6
nats a sequence after two fifths of the run. 256 prompts, 60 runs a row. Writes simulated.json; a minute on one core.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from potstill.diagnosis.detector import Suspicion, suspect
from potstill.records import Curve

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent / "tests"))
from curve_simulator import TOKENS, simulate  # noqa: E402

RUNS = 60


def main() -> None:
    rows = []
    for rise in (0.0, 0.6):
        for jitter in (0.02, 0.1, 0.2):
            for evaluations in (12, 16, 24, 40):
                said = [one_run(evaluations, jitter, rise, seed) for seed in range(RUNS)]
                rows.append({
                    "rise": rise, "jitter": jitter, "evaluations": evaluations, "runs": RUNS,
                    "ever_alarmed": sum(one.first_alarm_step is not None for one in said),
                    "alarmed_at_the_end": sum(one.alarm for one in said),
                    "outside_at_the_end": sum(not one.in_range for one in said),
                })  # fmt: skip
                print(rows[-1], flush=True)
    (HERE / "simulated.json").write_text(json.dumps(rows, indent=1) + "\n")


def one_run(evaluations: int, jitter: float, rise: float, seed: int) -> Suspicion:
    """One simulated log, judged."""
    time = np.linspace(0, 1, evaluations + 1)
    loss = (2.4 * time[1:] ** -0.45 / TOKENS)[:, None]
    mean, test = np.array(["mean"]), np.array(["test"])
    steps = 10 * np.arange(1, evaluations + 1)
    golden = 60 + 1.5 * np.maximum(0, 1 - time / 0.4) ** 2 + rise * np.maximum(0, time - 0.4) / 0.6
    curves = {
        "training_loss": Curve("training_loss", steps, loss, np.ones_like(loss), mean, test, paired=False),
        "proxy": simulate(6 + 3 * (1 - time) ** 3, seed, name="proxy", jitter=jitter),
        "golden": simulate(golden, seed, name="golden", jitter=jitter),
    }
    return suspect(curves, "reference_nll")


if __name__ == "__main__":
    main()
