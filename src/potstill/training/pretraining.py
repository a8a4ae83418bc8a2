"""One model from random weights on a corpus, with a teacher or without: the same loop as distillation's.

Whoever has the teacher is given from outside; the twin without one differs in nothing else:
same first weights, same blocks in the same order. A killed run goes on from its last
checkpoint with the same next token.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from transformers import AutoTokenizer

from potstill.config.pretraining import PretrainingRun
from potstill.config.training import Training
from potstill.data.collate import Layout
from potstill.data.corpus import Corpus, Pieces
from potstill.losses.objective import Objective
from potstill.models.scored import ScoredModel
from potstill.models.shapes import make_model
from potstill.run_dir import RunDir
from potstill.sources.corpus import CorpusSource
from potstill.teachers import Teacher
from potstill.training import checkpoint
from potstill.training.hardware import keep_freed_memory
from potstill.training.loop import Trainer
from potstill.training.opening import refuse_another
from potstill.training.optim import make_optimiser
from potstill.training.parallel import World, barrier, in_shards, wrap
from potstill.training.show import Show
from potstill.training.signals import Stop, Stopped

SUBSET_SEED = 0  # chooses the blocks that runs of all seeds share
FindTeacher = Callable[[Pieces, Layout], Teacher]


def pieces_of(corpus: Corpus, config: PretrainingRun) -> Pieces:
    """The rows of the training text as this run cuts them."""
    return Pieces(corpus.tokens("train"), config.block_tokens, apart=config.documents == "apart")


def source_of(pieces: Pieces, config: PretrainingRun) -> CorpusSource:
    """Which blocks feed which step."""
    return CorpusSource(pieces, config.seed, config.batch_blocks, config.blocks, SUBSET_SEED)


def pretrain(
    config: PretrainingRun, corpus: Corpus, folder: Path, teacher: FindTeacher | None, world: World, show: Show,
    stop: Stop,
) -> Path:  # fmt: skip
    """Train to the last step, or go on to it; returns the folder of the model, with its tokenizer.

    Raises Stopped at a safe place when asked to, RunDirError where another configuration's run is.
    """
    keep_freed_memory()
    run = _open(folder, config, world)
    finished = run.file("model")
    if finished.is_dir():
        return finished
    trainer, model = _trainer(config, corpus, teacher, world)
    _take_up(run, trainer, model, world)
    with show.bar(folder.name, config.steps, trainer.step) as bar:
        while trainer.step < config.steps:
            start = time.perf_counter()
            metrics = trainer.train_step(stop.requested)
            asked, tokens = metrics.pop("stop"), metrics.pop("tokens")
            if world.leads:
                run.append("metrics.jsonl", metrics)
                seconds = time.perf_counter() - start
                run.append("timing.jsonl", {"step": trainer.step, "seconds": seconds, "tokens": tokens})
            bar.advance(1, tokens, f"loss {metrics['loss']:.3f}")
            last = trainer.step == config.steps
            if last or asked or trainer.step % config.checkpoint_every == 0:
                _save(run, trainer, model, world)
            if asked and not last:
                raise Stopped(f"stopped after step {trainer.step} of {config.steps}", stop.signal_number)
    return _export(run, model, corpus, trainer, world)


def _open(folder: Path, config: PretrainingRun, world: World) -> RunDir:
    run = RunDir(folder)
    wanted = config.model_dump(mode="json")
    path = run.file("config.yaml")
    if path.is_file():
        refuse_another(run, yaml.safe_load(path.read_text()), wanted)
    elif world.leads:
        run.path.mkdir(parents=True, exist_ok=True)
        run.write_text("config.yaml", yaml.safe_dump(wanted, sort_keys=False))
    barrier(world)
    return run


def _trainer(
    config: PretrainingRun, corpus: Corpus, teacher: FindTeacher | None, world: World
) -> tuple[Trainer, ScoredModel]:
    pieces = pieces_of(corpus, config)
    tokenizer = AutoTokenizer.from_pretrained(corpus.tokenizer_path)
    layout = Layout(int(tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id))
    apart = config.documents == "apart"
    model = ScoredModel(
        make_model(config.shape, int(corpus.facts["vocabulary"]), config.block_tokens, config.seed),
        config.block_tokens if apart else None,
    )
    objective = Objective(config.objective)
    if objective.needs_teacher and teacher is None:
        raise ValueError("the objective has a divergence, and no teacher is given")
    wrapped = wrap(model, world, config.parallel)
    training = Training(
        steps=config.steps, batch_rows=config.batch_blocks, micro_batch_rows=config.micro_batch_blocks,
        optimiser=config.optimiser, precision=config.precision, parallel=config.parallel,
    )  # fmt: skip
    wrapped.train()
    asked = teacher(pieces, layout) if teacher is not None and objective.needs_teacher else None
    trainer = Trainer(
        wrapped, make_optimiser(wrapped, config.optimiser), objective, source_of(pieces, config), pieces, layout,
        asked, training, world,
    )  # fmt: skip
    return trainer, model


def _take_up(run: RunDir, trainer: Trainer, model: ScoredModel, world: World) -> None:
    """Go on from the last checkpoint; what was written after it is cut off."""
    if world.leads:
        run.drop_unfinished()
    barrier(world)
    steps = run.checkpoint_steps()
    if not steps:
        lengths: dict[str, int] = {}
    else:
        state = checkpoint.load(run, steps[-1], model, trainer.optimiser)
        trainer.step, lengths = int(state["step"]), state["lengths"]
    if world.leads:
        for name in ("metrics.jsonl", "timing.jsonl"):
            path = run.file(name)
            if path.exists():
                with open(path, "rb+") as handle:
                    handle.truncate(lengths.get(name, 0))
    barrier(world)


def _save(run: RunDir, trainer: Trainer, model: ScoredModel, world: World) -> None:
    in_shards(trainer.student)
    lengths = {name: run.file(name).stat().st_size for name in ("metrics.jsonl", "timing.jsonl") if world.leads}
    facts: dict[str, Any] = {"optimiser_steps": trainer.step, "lengths": lengths, "world_size": world.size}
    checkpoint.save(run, trainer.step, model, trainer.optimiser, facts, world)
    if world.leads:
        checkpoint.prune(run, 1, None)
    barrier(world)


def _export(run: RunDir, model: ScoredModel, corpus: Corpus, trainer: Trainer, world: World) -> Path:
    """The model as an ordinary folder. The checkpoints go: nothing is left to go on to."""
    from potstill.training.parallel import whole

    weights = {name: whole(value).cpu() for name, value in model.model.state_dict().items()}
    target = run.file("model")
    if world.leads:
        with run.building(target) as folder:
            model.model.save_pretrained(folder, state_dict=weights)
            AutoTokenizer.from_pretrained(corpus.tokenizer_path).save_pretrained(folder)
        shutil.rmtree(run.file("checkpoints"), ignore_errors=True)
    barrier(world)
    return target
