"""Conducts the pretraining experiment: what needs no result first, then other sizes at the best weights."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from potstill.config.corpus import FilesText
from potstill.config.pretraining import PretrainingLab
from potstill.data.corpus_reading import files_of
from potstill.lab.pretraining import Grid, Model
from potstill.lab.pretraining_reading import made_models
from potstill.lab.pretraining_results import best_weights, write_results
from potstill.lab.steps import Step, in_order, run_steps
from potstill.report.pretraining import write_pretraining_report
from potstill.run_dir import write_atomic
from potstill.training.parallel import start_world
from potstill.training.show import Show

#: Results are written again after so many measured models; every cell would cost more than it shows.
WRITE_EVERY = 6


def conduct_pretraining(lab: PretrainingLab, preset: str, output: Path, workers: int, show: Show) -> Path:
    """Run what is not done yet, and return the path of results.json; report.html lies beside it."""
    start_world(lab.device)  # raises ValueError where the device is not there, before anything is made
    if not (output / "lab.json").exists():
        check_text(lab)
    output.mkdir(parents=True, exist_ok=True)
    described = {"preset": preset, **lab.model_dump(mode="json")}
    write_atomic(output / "lab.json", json.dumps(described, indent=1).encode())
    grid = Grid(lab)
    models = grid.main()
    _perform(lab, preset, output, workers, show, models, models)
    if lab.completing:
        weights = best_weights(made_models(grid, output, models), lab.students[0])
        further = [model for size in lab.completing for model in grid.students(size, weights)]
        _perform(lab, preset, output, workers, show, further, [*models, *further])
        models = [*models, *further]
    path = write_results(lab, preset, output, made_models(grid, output, models), law=True)
    write_pretraining_report(path)
    return path


def check_text(lab: PretrainingLab) -> None:
    """Raises CorpusError where the files of a text are not there."""
    others = [variant.teacher_corpus for variant in lab.variants.values()]
    for corpus in [lab.corpus, *(other for other in others if other is not None)]:
        for source in corpus.sources():
            if isinstance(source, FilesText):
                files_of(source)


def _perform(
    lab: PretrainingLab, preset: str, output: Path, workers: int, show: Show, wanted: Sequence[Model],
    every: Sequence[Model],
) -> None:  # fmt: skip
    grid = Grid(lab)
    steps = [grid.measured(model) for model in wanted]
    total, done, measured, spent = len(in_order(steps)), 0, 0, [0.0, 0.0]

    def notice(step: Step, seconds: float | None) -> None:
        nonlocal done, measured
        done += 1
        if seconds is None:
            return
        spent[0] += seconds
        spent[1] += 1
        left = spent[0] / spent[1] * (total - done) / workers
        show.say(f"{done:>4}/{total}  {step.name:<46} {seconds:>6.0f} s   {_left(left):<12}{_summary(output, step)}")
        measured += step.name.startswith("measure-")
        if step.name.startswith("measure-") and measured % WRITE_EVERY == 0:
            write_results(lab, preset, output, made_models(grid, output, every), law=False)

    run_steps(output, steps, workers, notice)


def _summary(output: Path, step: Step) -> str:
    """What came out, in a few numbers."""
    path = step.folder(output) / "measures.json"
    if not path.is_file():
        return ""
    found = json.loads(path.read_text())
    sets = "  ".join(f"{name} {facts['nats_per_token']:.3f}" for name, facts in found["perplexity"].items())
    choices = "  ".join(f"{name} {facts['accuracy']:.3f}" for name, facts in found["choices"].items())
    return f"   {sets}  {choices}"


def _left(seconds: float) -> str:
    return f"{seconds / 60:.0f} min left" if seconds > 90 else f"{seconds:.0f} s left"
