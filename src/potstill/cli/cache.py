"""`potstill cache`: write the teacher's targets of a run's rows to disk, and say what they cost and lose."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from potstill.cli.run import program
from potstill.config import Run
from potstill.training.cache_run import cache_targets
from potstill.training.quiet import quiet_libraries
from potstill.training.show import Show


def cache_verb(path: Path, config: Run) -> None:
    """Write, report."""
    quiet_libraries()
    show = Show()
    folder = cache_targets(config, show)
    summarise(json.loads((folder / "report.json").read_text()), folder, show)
    if config.training.teacher_targets is None:
        show.say(f"\n train from it  {program()} run {path} training.teacher_targets={folder}")


def summarise(found: dict[str, Any], folder: Path, show: Show) -> None:
    """The report in a few lines."""
    value, slope, bias = found["forward_kl"], found["gradient"], found["gradient_bias"]
    low, high = found["distillkit_bytes_per_token"]
    lines = [
        ("cache", f"{folder}: {found['rows']:,} rows, {found['positions']:,} tokens, {found['format']}"),
        ("size", f"{found['bytes_per_token']:.1f} bytes a token with index (DistillKit states {low:g} to {high:g})"),
    ]
    if found["bytes_of_the_head_once"]:
        lines.append(("head", f"{found['bytes_of_the_head_once'] / 2**20:.0f} MiB, once"))
    if "entries_per_position" in found:
        mass = "" if "kept_mass" not in found else f", {100 * found['kept_mass']:.1f} % of the probability"
        lines.append(("entries", f"{found['entries_per_position']:.1f} a token{mass}"))
    lines += [
        (
            "forward KL",
            f"{value['exact']:.4f} exact; error {value['mean_absolute_error']:.2g} a token, "
            f"{value['bias']:+.2g} on average (standard error {value['standard_error']:.2g}) nats",
        ),
        ("gradient", f"{slope['degrees']:.1f} degrees from the exact one, length {slope['length_ratio']:.3f} of it"),
        ("its bias", _bias(bias)),
        ("measured on", f"{found['probe']['rows']} rows, {found['probe']['positions']} tokens, with the run's student"),
    ]
    for name, text in lines:
        show.say(f"[bold]{name:>14}[/bold]  {text}")


def _bias(bias: dict[str, Any]) -> str:
    """In percent of the exact gradient's length."""
    if bias["redraws"] == 1:
        return f"{100 * bias['distance']:.2g} % of its length, the same at every visit"
    return (
        f"mean of {bias['redraws']} redraws lies {100 * bias['distance']:.2g} % of its length away, "
        f"where chance alone gives {100 * bias['noise']:.2g} %"
    )
