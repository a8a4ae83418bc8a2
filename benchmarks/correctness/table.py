"""TABLE.md from results: one row a function, one column a check, and a note below for what is not a pass."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from checks import CHECKS

TITLES = {
    "potstill": "Potstill", "trl": "TRL", "liger": "Liger Kernel", "torchtune": "torchtune",
    "modelopt": "NVIDIA Model Optimizer", "msswift": "ms-swift", "axolotl": "Axolotl", "torchdistill": "torchdistill",
}  # fmt: skip
NAMES = {
    "forward_kl": "forward KL", "reverse_kl": "reverse KL", "jsd": "JSD", "symmetric_kl": "symmetric KL",
}  # fmt: skip
MARK = {"pass": "pass", "fail": "**fail**", "not offered": "not offered", "differs between seeds": "**differs**"}


def write_table(results: dict[str, Any], path: Path, explanations: Path) -> None:
    """All of TABLE.md."""
    told = json.loads(explanations.read_text()) if explanations.exists() else {}
    lines = [*_opening(results), *_rows(results), "", *_how_called(results), *_notes(results, told)]
    path.write_text("\n".join([*lines, *_could_not(results, told), *_again(results)]) + "\n")


def _opening(results: dict[str, Any]) -> list[str]:
    limits = results["tolerances"]
    text = f"""# Distillation losses against float64

Written by `benchmarks/correctness/run.py`; every verdict is computed. Each function is called as its own
trainer calls it, on the same four rows (5, 40, 12 and 3 counted tokens, 53 columns), in fp32 on a CPU.

- **pass**: in every divergence that the function offers. **fail**: in some, with both of two seeds.
- **not offered**: by the function, or refused by it, or ruled out by its documentation; the notes say which.
- **value**, **gradient**: against float64, relative, below {limits["value"]:g} and {limits["gradient"]:g}; a
  distribution is at 0 from itself (below {limits["itself"]:g} nats).
- **temperature**: the gradients at T = 2 and T = 4 have the direction of the softened divergence's.
- **T²**: the factor on value and gradient at T = 4 is 16 in both.
- **accumulation**: one row a micro-batch gives the gradient of the four rows at once.
- **padding**: left, and more of it, changes nothing; prompt and padding get exactly no gradient.
- **padded vocabulary**: the teacher's head has 6 more columns, then 6 fewer, that stand for no token. Sound is
  to leave them out, or to give them no teacher probability.
- **nothing counted**: a row, and a micro-batch, without any counted token add exactly 0.
- **two ranks**: two processes with 45 and 15 tokens, one after the other in one process (simulated); their
  gradients are averaged as DDP does, or summed where the toolkit's own hook sums them.
- **logits of scale 50**, **bf16 inputs**: gradient error at most {limits["yardstick"]:g} times that of plain torch,
  which computes in fp32 from the same inputs, or {limits["floor"]:g}, whichever is larger; the cell has the ratio.
  Functions are called without autocast; models under a Transformers trainer answer in fp32, as accelerate
  makes them under mixed precision.
"""
    return text.split("\n")


def _rows(results: dict[str, Any]) -> list[str]:
    heads = [title for title, _ in CHECKS.values()]
    lines = ["| toolkit | function | " + " | ".join(heads) + " |", "| --- " * (len(heads) + 2) + "|"]
    for name, about in results["toolkits"].items():
        for entry in about["entries"]:
            cells = [_cell(name, entry, check) for check in CHECKS]
            lines.append(f"| {TITLES[name]} | {entry['name']} | " + " | ".join(cells) + " |")
    return lines


def _cell(name: str, entry: dict[str, Any], check: str) -> str:
    found = entry["checks"][check]
    mark = MARK[found["verdict"]]
    ratios = [_ratio(one["numbers"]) for seeds in found["each"].values() for one in seeds]
    if any(ratios):
        mark += f", {max(ratios):.2g}"
    if found["verdict"] == "pass":
        return mark
    return f"[{mark}](#{anchor(name, entry['name'])})"


def _ratio(numbers: dict[str, float | None]) -> float:
    error, plain = numbers.get("error"), numbers.get("yardstick")
    return error / plain if error and plain else 0.0


def anchor(name: str, entry: str) -> str:
    """Of the notes on a function, as a Markdown heading makes it."""
    text = f"{TITLES[name]} {entry}".lower()
    return "".join(c if c.isalnum() or c in "-_" else "-" if c == " " else "" for c in text)


def _how_called(results: dict[str, Any]) -> list[str]:
    lines = ["## Versions and calls", ""]
    for name, about in results["toolkits"].items():
        versions = ", ".join(f"{package} {version}" for package, version in about["versions"].items())
        under = f"; {about['ran_under']}" if about["ran_under"] else ""
        lines.append(f"- **{TITLES[name]}** ({versions}{under})")
        for entry in about["entries"]:
            kinds = ", ".join(NAMES[kind] for kind in entry["divergences"])
            lines.append(f"  - {entry['name']}: `{entry['function']}`; {kinds}. {entry['called_as']}")
    return [*lines, ""]


def _notes(results: dict[str, Any], told: dict[str, Any]) -> list[str]:
    lines = ["## Notes", ""]
    for name, about in results["toolkits"].items():
        for entry in about["entries"]:
            said = [_note(name, entry, check, told) for check in CHECKS]
            said = [line for line in said if line]
            if said:
                lines += [f"### {TITLES[name]} {entry['name']}", "", *said, ""]
    return lines


def _note(name: str, entry: dict[str, Any], check: str, told: dict[str, Any]) -> str:
    found = entry["checks"][check]
    if found["verdict"] == "pass" and not _mixed(found):
        return ""
    figures: dict[str, list[str]] = {}
    for kind, seeds in found["each"].items():
        worst = next((one for one in seeds if one["verdict"] == "fail"), seeds[0])
        figures.setdefault(f"{_word(worst['verdict'])}{worst['figure']}", []).append(NAMES[kind])
    all_kinds = len(found["each"])
    parts = [text if len(kinds) == all_kinds else f"{' and '.join(kinds)}: {text}" for text, kinds in figures.items()]
    why = told.get(f"{name}/{entry['name']}/{check}", "")
    documented = entry["notes"].get(check, "")
    extra = [why.rstrip("."), f"Documented: {documented}" if documented else ""]
    return f"- {CHECKS[check][0]}: {found['verdict']}. " + ". ".join([" / ".join(parts), *filter(None, extra)]) + "."


def _word(verdict: str) -> str:
    return "pass, " if verdict == "pass" else ""


def _mixed(found: dict[str, Any]) -> bool:
    every = [one for seeds in found["each"].values() for one in seeds]
    return any(one["verdict"] == "not offered" or "raises" in one["figure"] for one in every)


def _could_not(results: dict[str, Any], told: dict[str, Any]) -> list[str]:
    lines = ["## Could not be run here", ""]
    lines += [f"- {TITLES[name]}: {why}" for name, why in results["missing"].items()]
    lines += [f"- {line}" for line in told.get("could not be run", [])]
    return [*lines, ""] if len(lines) > 2 else []


def _again(results: dict[str, Any]) -> list[str]:
    here = results["hardware"]
    return [
        "## Again",
        "",
        "```",
        "bash benchmarks/correctness/make_venvs.sh          # environments in benchmarks/correctness/.venvs",
        "python benchmarks/correctness/run.py               # all; --only trl liger for some, --venvs DIR for others",
        "```",
        "",
        f"{here['device']}, {here['system']}, Python {here['python']}, numpy {here['packages']['numpy']}.",
    ]
