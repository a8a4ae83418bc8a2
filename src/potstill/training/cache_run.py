"""`potstill cache` from start to end: the run's own preparation, then targets of its training rows, then a report."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from potstill.cached_teacher import planned
from potstill.config import build_run
from potstill.config.run import Run
from potstill.data.cache_index import Header
from potstill.data.collate import Row
from potstill.data.targets_cache import CacheWriter, TargetsCache
from potstill.models.scored import ScoredModel
from potstill.run_dir import RunDir, write_atomic
from potstill.training.cache_report import probe, report
from potstill.training.caching import complete, write_targets
from potstill.training.completions import training_completions, training_rows
from potstill.training.hardware import environment, keep_freed_memory
from potstill.training.loop import precision
from potstill.training.opening import open_directory
from potstill.training.parallel import World, start_world
from potstill.training.permission import permitted
from potstill.training.show import Show
from potstill.training.signals import Stop, Stopped, stopping
from potstill.training.stages import (
    Models,
    Prompts,
    check_lengths,
    load_models,
    load_prompts,
)


def cache_targets(config: Run, show: Show | None = None) -> Path:
    """Write, or go on writing, the cache that `config.cache` asks for; returns its folder, with `report.json` in it.

    Raises the errors of the run's own stages, CacheError where the cache there is another one or somebody writes
    to it, Stopped when asked to leave early.
    """
    show = Show() if show is None else show
    planned(config)  # refused before anything is loaded
    permitted(config)
    assert config.cache is not None
    world = start_world(config.training.device)
    if world.size > 1:
        raise ValueError("a cache is written by one process; start potstill cache without torchrun")
    keep_freed_memory()
    folder = Path(config.cache.path or Path(config.output) / "targets")
    run, config = _open(config, folder, world)
    assert config.cache is not None
    models = load_models(config)
    prompts = load_prompts(config, models.tokenizer, models.teacher.is_encoder_decoder)
    with stopping() as stop:
        rows = _rows(run, config, world, models, prompts, show, stop)
        teacher = ScoredModel(models.teacher.model, config.training.pack_tokens).to(world.device)
        header = complete(
            planned(config), teacher, models.teacher.fingerprint, models.teacher.name, models.alignment, models.layout
        )
        _write(folder, header, teacher, rows, config, world, models, show, stop)
    cache = TargetsCache(folder, world.device)
    student = ScoredModel(models.student, config.training.pack_tokens).to(world.device)
    show.say("measuring what the cache loses")
    with precision(config.training, world):
        found = probe(cache, teacher, rows, models.layout, config.cache.probe_rows, world.device)
        figures = report(cache, student, found, config.objective)
    figures["environment"] = environment(world.device)
    write_atomic(folder / "report.json", (json.dumps(figures, indent=2, sort_keys=True) + "\n").encode())
    return folder


def _open(config: Run, folder: Path, world: World) -> tuple[RunDir, Run]:
    """The run directory is that of the run which is trained from the cache, unless a run is there already."""
    there = RunDir(config.output)
    targets: str | None = str(folder)
    if there.file("config.yaml").is_file():
        targets = there.read_config().get("training", {}).get("teacher_targets")
    elif config.training.teacher_targets is not None:
        targets = config.training.teacher_targets
    value = "null" if targets is None else json.dumps(targets)
    return open_directory(build_run(config.dump(), [f"training.teacher_targets={value}"]), world.device)


def _rows(
    run: RunDir, config: Run, world: World, models: Models, prompts: Prompts, show: Show, stop: Stop
) -> list[Row]:  # fmt: skip
    """The rows of the run, sampled now where they are not on disk yet."""
    limit = check_lengths(config, prompts, models)
    with show.bars(lambda: stop.requested) as progress:
        answers = training_completions(run, config, models, prompts, world.device, progress)
    if answers is None:
        raise Stopped("stopped while sampling; what was sampled is kept", stop.signal_number)
    return training_rows(config, models, prompts, answers, limit)[0]


def _write(
    folder: Path, header: Header, teacher: ScoredModel, rows: list[Row], config: Run, world: World, models: Models,
    show: Show, stop: Stop,
) -> None:  # fmt: skip
    assert config.cache is not None
    head = teacher.head() if header.format == "final_hidden" else None
    with (
        CacheWriter(folder, header, head, config.cache.shard_mb) as writer,
        show.bar("teacher's targets", len(rows)) as bar,
        precision(config.training, world),
        torch.no_grad(),
    ):

        def on_group(count: int, tokens: int) -> bool:
            bar.advance(count, tokens)
            return stop.requested

        if not write_targets(writer, teacher, rows, models.layout, models.alignment, world.device, on_group):
            raise Stopped("stopped while writing targets; those of whole groups are kept", stop.signal_number)
