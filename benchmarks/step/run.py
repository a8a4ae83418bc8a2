"""Whole training steps on the quickstart's pair: Potstill beside TRL's GKD, on the same batches.

    python benchmarks/step/run.py [--rounds 3] [--steps 6] [--folder FOLDER]

Offline forward KL, fp32, same start, same batches, same optimiser. Processes take turns, one at a
time; the first step of each is left out of the times, and a rate is counted tokens of all other
steps over their seconds. What one round says is compared within the round. The floor is the
matrix products of a step (student forward and backward, teacher forward, heads on counted
positions only), timed alone.

    python -m pip install trl==1.16.0
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from potstill.training.hardware import environment

HERE = Path(__file__).resolve().parent
RATE = "3e-4"
RUNS = {
    "potstill": ["ours.py", "kept"],
    "potstill, teacher at every step": ["ours.py", "every-step"],
    "potstill, cache of 50 draws": ["ours.py", "sampled"],
    "potstill, cache of hidden states": ["ours.py", "final_hidden"],
    "potstill, packed": ["ours.py", "every-step", "512"],
    "TRL GKD": ["trl_gkd.py"],
    "TRL GKD, checkpointing": ["trl_gkd.py", "--checkpointing"],
}


def one(folder: Path, steps: int, script: str, *extra: str) -> dict[str, Any]:
    """A process's losses, rate and peak memory."""
    command = [sys.executable, str(HERE / script), str(folder), str(steps), RATE, *extra]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"')]
    made = [line for line in lines if "loss" in line]
    timed = made[1:]
    return {
        "losses": [line["loss"] for line in made],
        "tokens_per_second": sum(line["counted"] for line in timed) / sum(line["seconds"] for line in timed),
        "seconds": statistics.median(line["seconds"] for line in timed),
        "peak_mb": lines[-1]["peak_mb"],
        **{name: line[name] for line in lines for name in line if name == "teacher_seconds"},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--folder", type=Path, help="where pair.py has written; a fresh one otherwise")
    parser.add_argument("--only", nargs="*", choices=list(RUNS))
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp())
    if not (folder / "batches.json").exists():
        subprocess.run([sys.executable, str(HERE / "pair.py"), str(folder)], check=True)
    names = options.only or list(RUNS)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for turn in range(options.rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            found[name].append(one(folder, options.steps, *RUNS[name]))
            last = found[name][-1]
            print(
                f"round {turn + 1}  {name:<34}{last['tokens_per_second']:7.0f} counted tokens/s "
                f"{last['seconds']:6.2f} s a step  {last['peak_mb']:6.0f} MB  loss {last['losses'][-1]:.5f}", flush=True
            )  # fmt: skip
    figures = {}
    for name in names:
        ratio = [
            a["tokens_per_second"] / b["tokens_per_second"] for a, b in zip(found[name], found["TRL GKD"], strict=True)
        ]
        curves = [abs(a - b) for a, b in zip(found[name][0]["losses"], found["TRL GKD"][0]["losses"], strict=True)]
        figures[name] = {
            "tokens_per_second": statistics.median(f["tokens_per_second"] for f in found[name]),
            "times_trl": statistics.median(ratio),
            "seconds_a_step": statistics.median(f["seconds"] for f in found[name]),
            "peak_mb": statistics.median(f["peak_mb"] for f in found[name]),
            "largest_loss_difference": max(curves),
            "losses": found[name][0]["losses"],
            **({"teacher_seconds": found[name][0]["teacher_seconds"]} if "teacher_seconds" in found[name][0] else {}),
        }
        print(
            f"{name:<34}{figures[name]['tokens_per_second']:7.0f} tokens/s, {figures[name]['times_trl']:.2f} x TRL, "
            f"{figures[name]['peak_mb']:.0f} MB, losses within {max(curves):.1e}"
        )
    kept = {"rounds": options.rounds, "steps": options.steps, "learning_rate": RATE, "figures": figures,
            "environment": environment(torch.device("cpu"))}  # fmt: skip
    (HERE / "results.json").write_text(json.dumps(kept, indent=2) + "\n")


if __name__ == "__main__":
    main()
