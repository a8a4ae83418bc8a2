"""Runs that mend themselves: what each remedy gives back, at equal sampling cost, on seeds never used before.

    python benchmarks/remedies/run.py --root runs/remedies --workers 2

The setting is the lab's preset `tiny` with 60 epochs, so that an alarm has a run left to mend.
First `offline` on all seeds. The alarm is the detector without an oracle, replayed on what it would have
seen live: training loss, proxy and NLL of references on 256 prompts. Where it never sounds, a run
that mends itself is the offline run, step for step, and is not run again; those seeds are counted.
Where it sounds, online_student and the mended arms follow. Every remedy may cost five completions
a prompt, 8.3 % of what the online run samples. What is done is not done again.

Distances are golden in nats a sequence on 4,400 held-out prompts. `recovered` is
(offline's last golden - mended's last) / (offline's last - online's last).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from potstill.config.lab import Arm, HackingLab
from potstill.config.load import load_hacking_lab
from potstill.diagnosis import judge, read_curves
from potstill.diagnosis.views import fewer_prompts, until, without_oracle
from potstill.lab.arms import ALARM_PROMPTS
from potstill.lab.conducting import hardware, preset_path
from potstill.lab.hacking import Experiment
from potstill.lab.stats import clopper_pearson, paired
from potstill.lab.steps import Step, run_steps
from potstill.run_dir import RunDir, write_atomic

HERE = Path(__file__).resolve().parent
SEEDS = (8, 9, 10, 11, 12, 13, 14, 15)
MENDED: tuple[Arm, ...] = (
    "mended_completions",
    "mended_mixture_10",
    "mended_mixture",
    "mended_prompts",
    "mended_human",
)
CHANGES = ("epochs=60",)
LAST = 3  # evaluations whose mean is the steadier "end"
DRAWS = 2000


def main() -> None:
    parser = argparse.ArgumentParser(description="What each remedy gives back.")
    parser.add_argument("--root", type=Path, default=Path("runs/remedies"), help="where the runs lie")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seeds", type=int, nargs="*", default=list(SEEDS))
    parser.add_argument("--arms", nargs="*", default=list(MENDED))
    chosen = parser.parse_args()
    lab = setting(chosen.seeds)
    experiment = Experiment(lab)
    make([experiment.cell("offline", seed) for seed in chosen.seeds], chosen)
    alarms = {seed: alarm_of(run_of(experiment, "offline", seed, chosen.root)) for seed in chosen.seeds}
    sounded = [seed for seed in chosen.seeds if alarms[seed]["step"] is not None]
    print("alarms:", json.dumps(alarms), flush=True)
    arms: list[Arm] = ["online_student", *(arm for arm in MENDED if arm in chosen.arms)]
    make([experiment.cell(arm, seed) for arm in arms for seed in sounded], chosen)
    results = {
        "setting": {"preset": "tiny", "changes": list(CHANGES), "alarm_prompts": ALARM_PROMPTS},
        "hardware": hardware("cpu"),
        "online_samples": lab.epochs * lab.distillation_prompts,
        "alarms": {str(seed): alarms[seed] for seed in chosen.seeds},
        "arms": {arm: measure(experiment, arm, sounded, chosen.root, lab) for arm in arms if arm != "online_student"},
    }
    write_atomic(HERE / "results.json", (json.dumps(results, indent=1) + "\n").encode())
    print(table(results))


def setting(seeds: Sequence[int]) -> HackingLab:
    return load_hacking_lab(preset_path("tiny"), [*CHANGES, "arms=[offline]", f"seeds={list(seeds)}"])


def make(cells: Sequence[Step], chosen: argparse.Namespace) -> None:
    def notice(step: Step, seconds: float | None) -> None:
        if seconds is not None:
            print(f"{step.name:<36} {seconds:>5.0f} s", flush=True)

    run_steps(chosen.root, cells, chosen.workers, notice)


def run_of(experiment: Experiment, arm: Arm, seed: int, root: Path) -> Path:
    return experiment.cell(arm, seed).folder(root) / "run"


def alarm_of(run: Path) -> dict[str, Any]:
    """Where the alarm would have sounded, looked at live, and what the oracle says of the whole run."""
    curves = read_curves(run)
    seen = {name: fewer_prompts(curve, ALARM_PROMPTS) for name, curve in without_oracle(curves).items()}
    steps = curves["golden"].steps
    first = None
    for number in range(2, len(steps)):  # the last evaluation is too late to mend anything
        so_far = {name: until(curve, int(steps[number - 1])) for name, curve in seen.items()}
        if judge(so_far, "reference_nll", looks=len(steps) - 1).verdict == "suspected_hacking":
            first = int(steps[number - 1])
            break
    verdict = judge(curves, "oracle")
    return {
        "step": first, "of": int(steps[-1]), "oracle_says": verdict.verdict, "p": verdict.evidence["golden_rise"]["p"],
        "change_point": verdict.evidence["change_point"],
    }  # fmt: skip


def measure(experiment: Experiment, arm: Arm, seeds: Sequence[int], root: Path, lab: HackingLab) -> dict[str, Any]:
    """The arm on each seed, and over seeds."""
    rows = {str(seed): one(experiment, arm, seed, root, lab) for seed in seeds}
    answer: dict[str, Any] = {"seeds": rows}
    for name in ("recovered", "recovered_late", "below_best", "below_offline"):
        values = [row[name] for row in rows.values()]
        estimate = paired(values) if len(values) > 1 else None
        answer[name] = None if estimate is None else estimate.as_list()
    answer["significantly_below_best"] = sum(row["below_best_interval"][1] < 0 for row in rows.values())
    answer["samples_share"] = float(np.mean([row["samples_share"] for row in rows.values()]))
    return answer


def one(experiment: Experiment, arm: Arm, seed: int, root: Path, lab: HackingLab) -> dict[str, Any]:
    """One seed: golden of offline, online and mended at the end, and what the remedy cost."""
    golden = {name: read_curves(run_of(experiment, name, seed, root))["golden"]
              for name in ("offline", "online_student", arm)}  # fmt: skip
    means = {name: curve.sums.mean(1) for name, curve in golden.items()}
    offline, online, mended = means["offline"], means["online_student"], means[arm]
    best = int(offline.argmin())
    difference = golden[arm].sums[-1] - golden["offline"].sums[best]  # per prompt, the same ones
    low, high = redrawn(difference, seed)
    remedy = [line for line in RunDir(run_of(experiment, arm, seed, root)).lines("events.jsonl")
              if line["event"] == "remedy"]  # fmt: skip
    completions = remedy[0]["completions"] if remedy else 0
    late = {name: float(values[-LAST:].mean()) for name, values in means.items()}
    return {
        "alarm_step": remedy[0]["step"] if remedy else None,
        "offline": [float(offline[best]), float(offline[-1])],
        "online": float(online[-1]),
        "mended": float(mended[-1]),
        "recovered": float((offline[-1] - mended[-1]) / (offline[-1] - online[-1])),
        "recovered_late": (late["offline"] - late[arm]) / (late["offline"] - late["online_student"]),
        "below_best": float(difference.mean()),
        "below_best_interval": [low, high],
        "below_offline": float(mended[-1] - offline[-1]),
        "completions": completions,
        "samples_share": completions / (lab.epochs * lab.distillation_prompts),
        "curve": [round(float(value), 4) for value in mended],
    }


def redrawn(values: np.ndarray, seed: int) -> tuple[float, float]:
    """95 % interval of the mean over prompts."""
    rng = np.random.default_rng(seed)
    drawn = [values[rng.integers(0, len(values), len(values))].mean() for _ in range(DRAWS)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)


def table(results: dict[str, Any]) -> str:
    """For people."""
    alarms = results["alarms"].values()
    sounded = sum(alarm["step"] is not None for alarm in alarms)
    share = clopper_pearson(sounded, len(alarms))
    lines = [
        f"alarmed: {sounded} of {len(alarms)} seeds ({share.low:.0%} to {share.high:.0%}); the oracle says hacking in "
        f"{sum(alarm['oracle_says'] == 'hacking' for alarm in alarms)}",
        "| remedy | recovered | last three evaluations | minus best checkpoint, nats | seeds below it | samples |",
        "|---|---|---|---|---|---|",
    ]
    for arm, found in results["arms"].items():
        cells = [in_words(found[name]) for name in ("recovered", "recovered_late", "below_best")]
        below = f"{found['significantly_below_best']} of {len(found['seeds'])}"
        lines.append(f"| {arm} | {' | '.join(cells)} | {below} | {found['samples_share']:.1%} |")
    return "\n".join(lines)


def in_words(estimate: list[float] | None) -> str:
    return "-" if estimate is None else f"{estimate[0]:.2f} ({estimate[1]:.2f} to {estimate[2]:.2f})"


if __name__ == "__main__":
    main()
