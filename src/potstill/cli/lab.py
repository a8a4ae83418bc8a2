"""`potstill lab`: controlled experiments, where the truth is known."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from potstill.config.load import load_hacking_lab
from potstill.config.pretraining import PretrainingLab
from potstill.lab.conducting import conduct, preset_path
from potstill.training.quiet import quiet_libraries
from potstill.training.show import Show

CHARACTERS = 128  # of plain text, roughly: a vocabulary of characters is known only after the corpus is read


def hacking_verb(
    preset: str, config: Path | None, output: Path | None, workers: int | None, changes: Sequence[str]
) -> None:
    """Conduct the teacher-hacking experiment and say what it showed."""
    name = preset if config is None else config.stem
    lab = load_hacking_lab(preset_path(preset) if config is None else config, changes)
    quiet_libraries()
    show = Show()
    at_once = workers if workers is not None else default_workers(lab.device)
    folder = output if output is not None else Path("runs") / f"lab-hacking-{name}"
    cells = len(lab.arms) * len(lab.seeds)
    show.say(f"{cells} runs, {at_once} at a time, in {folder}")
    show.say(f"   arms  {', '.join(lab.arms)}\n  seeds  {', '.join(map(str, lab.seeds))}")
    results = conduct(lab, name, folder, at_once, show)
    found = json.loads(results.read_text())
    say_claims(found["findings"], show)
    show.say(
        f"\n[bold]{'results':>15}[/bold]  {results}\n[bold]{'report':>15}[/bold]  {results.parent / 'report.html'}"
    )


def default_workers(device: str) -> int:
    """One a core, up to eight (each holds a torch of its own); one where there is a GPU to share."""
    return min(8, os.cpu_count() or 1) if device == "cpu" else 1


def pretraining_verb(
    preset: str, config: Path | None, output: Path | None, workers: int | None, dry_run: bool, changes: Sequence[str]
) -> None:
    """Conduct the pretraining experiment, or say what it would cost."""
    from potstill.config.load import load_pretraining_lab
    from potstill.lab.pretraining_conducting import conduct_pretraining

    name = preset if config is None else config.stem
    lab = load_pretraining_lab(preset_path(preset, "pretraining") if config is None else config, changes)
    quiet_libraries()
    show = Show()
    at_once = workers if workers is not None else default_workers(lab.device)
    if dry_run:
        show_price(lab, at_once, show)
        return
    # tiny-full goes on where tiny ended: their steps are the same.
    folder = output if output is not None else Path("runs") / f"lab-pretraining-{name.removesuffix('-full')}"
    show.say(f"{at_once} steps at a time, in {folder}")
    results = conduct_pretraining(lab, name, folder, at_once, show)
    say_claims(json.loads(results.read_text())["claims"], show)
    show.say(
        f"\n[bold]{'results':>15}[/bold]  {results}\n[bold]{'report':>15}[/bold]  {results.parent / 'report.html'}"
    )


def show_price(lab: PretrainingLab, workers: int, show: Show) -> None:
    """FLOPs, hours and bytes, before anything is spent."""
    from potstill.lab.pricing import bill_lines, price
    from potstill.lab.steps import threads_each

    how = lab.corpus.tokenizer
    if how.kind == "bpe":
        vocabulary = how.vocabulary
    else:
        from potstill.data.corpus_checking import load_tokenizer

        vocabulary = len(load_tokenizer(Path(how.path))) if how.kind == "folder" else CHARACTERS
    show.say(f"what it will cost, {workers} {'step' if workers == 1 else 'steps'} at a time on this machine:\n")
    for line in bill_lines(price(lab, vocabulary, threads_each(workers)), workers):
        show.say(f"  {line}")


def say_claims(found: Sequence[dict[str, str]], show: Show) -> None:
    """Each claim with what became of it."""
    for finding in found:
        colour = {"reproduced": "green", "not reproduced": "red"}.get(finding["status"], "yellow")
        show.say(f"\n[{colour}]{finding['status']:>15}[/{colour}]  {finding['number']}. {finding['statement']}")
        show.say(f"{'':>15}  {finding['why']}")
