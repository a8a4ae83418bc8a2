"""Run every toolkit's losses over the cases, compare with float64, write results.json and TABLE.md.

    python benchmarks/correctness/run.py [--venvs DIR] [--only NAME ...]

Each toolkit runs in its own environment (make_venvs.sh builds them); Potstill in this one.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import cases  # noqa: E402
from answers import Answers, Inputs  # noqa: E402
from checks import CHECKS, TOLERANCE, run_check  # noqa: E402
from table import write_table  # noqa: E402

#: adapter -> what its process needs in its environment
ADAPTERS: dict[str, dict[str, str]] = {
    "potstill": {},
    "trl": {"TRL_EXPERIMENTAL_SILENCE": "1"},
    "liger": {"TRITON_INTERPRET": "1"},
    "torchtune": {},
    "modelopt": {},
    "msswift": {},
    "axolotl": {},
    "torchdistill": {},
}


def run_adapter(name: str, python: str, inputs: Path, output: Path) -> str:
    """One adapter in its own process; the reason where it could not run, else nothing."""
    quiet = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [python, str(HERE / "adapters" / f"{name}_losses.py"), str(inputs), str(output)],
        env=os.environ | quiet | ADAPTERS[name], capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode == 0:
        return ""
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    return lines[-1] if lines else f"exit code {done.returncode}"


def compare(output: Path, inputs: Inputs) -> dict[str, Any]:
    """Every check of every entry of one adapter, each divergence and seed apart, and the verdict of all."""
    about: dict[str, Any] = json.loads((output / "entries.json").read_text())
    for number, entry in enumerate(about["entries"]):
        with np.load(output / f"{number}.npz") as file:
            stored = dict(file)
        answers = {
            kind: [Answers(entry, kind, seed, stored, inputs) for seed in cases.SEEDS] for kind in entry["divergences"]
        }
        entry["checks"] = {check: _all_seeds(check, answers) for check in CHECKS}
    return about


def _all_seeds(check: str, answers: dict[str, list[Answers]]) -> dict[str, Any]:
    each = {kind: [run_check(check, one) for one in seeds] for kind, seeds in answers.items()}
    return {"verdict": overall(each), "each": each}


def overall(each: dict[str, list[dict[str, Any]]]) -> str:
    """fail where some divergence fails with every seed, `differs` where only with one."""
    found = {kind: {one["verdict"] for one in seeds} for kind, seeds in each.items()}
    if any(verdicts == {"fail"} for verdicts in found.values()):
        return "fail"
    if any("fail" in verdicts for verdicts in found.values()):
        return "differs between seeds"
    return "pass" if any("pass" in verdicts for verdicts in found.values()) else "not offered"


def run_all(names: list[str], venvs: Path, folder: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """(adapter -> comparison, adapter -> why it could not run)."""
    cases.write(folder / "cases")
    inputs, toolkits, missing = Inputs(folder / "cases"), {}, {}
    for name in names:
        python = sys.executable if name == "potstill" else str(venvs / name / "bin" / "python")
        if not Path(python).exists():
            missing[name] = "no environment: run make_venvs.sh"
            continue
        reason = run_adapter(name, python, folder / "cases", folder / name)
        if reason:
            missing[name] = reason
        else:
            toolkits[name] = compare(folder / name, inputs)
        print(f"{name}: {reason or 'done'}", flush=True)
    return toolkits, missing


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--venvs", type=Path, default=HERE / ".venvs", help="where make_venvs.sh put them")
    parser.add_argument("--only", nargs="+", choices=list(ADAPTERS), help="these adapters; others keep their results")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    from potstill.training.hardware import environment

    path = HERE / "results.json"
    kept = json.loads(path.read_text()) if arguments.only and path.exists() else {"toolkits": {}, "missing": {}}
    with tempfile.TemporaryDirectory() as folder:
        toolkits, missing = run_all(arguments.only or list(ADAPTERS), arguments.venvs, Path(folder))
    order = [name for name in ADAPTERS if name in kept["toolkits"] or name in toolkits]
    results = {
        "hardware": environment(torch.device("cpu")),
        "tolerances": TOLERANCE,
        "seeds": list(cases.SEEDS),
        "toolkits": {name: toolkits.get(name) or kept["toolkits"][name] for name in order},
        "missing": {n: why for n, why in (kept["missing"] | missing).items() if n not in toolkits},
    }
    path.write_text(json.dumps(results, indent=1, allow_nan=False) + "\n")
    write_table(results, HERE / "TABLE.md", HERE / "explanations.json")


if __name__ == "__main__":
    main()
