"""Sets the monitor up: which samples of whom on which held-out prompts, and who judges them."""

from __future__ import annotations

from dataclasses import replace

import torch

from potstill.config.data import Sampling
from potstill.config.run import Run
from potstill.data.collate import Row
from potstill.data.rows import check_rows, completion_rows, reference_rows
from potstill.losses.objective import Objective
from potstill.models.scored import ScoredModel
from potstill.records import Completion
from potstill.run_dir import RunDir
from potstill.training.completions import Asker, Progress, answers
from potstill.training.monitor import FrozenSet, Judge, Monitor
from potstill.training.parallel import World
from potstill.training.sequences import Sequences, build_sequences
from potstill.training.stages import Models, Prompts, held_out_sampling, shorten

TRAINING_LAW, PLAIN_LAW, ORACLE = "held-out-teacher", "held-out-teacher-t1", "held-out-oracle"


def plain(sampling: Sampling) -> Sampling:
    """Temperature 1 over everything: the law under which forward KL between sequences is unbiased."""
    return Sampling(max_new_tokens=sampling.max_new_tokens)


def sample_held_out(
    run: RunDir, config: Run, models: Models, prompts: Prompts, device: torch.device, progress: Progress
) -> dict[str, list[Completion]] | None:
    """Held-out completions by purpose; None when asked to stop.

    The training law's samples serve forward KL too where that law is plain.
    """
    law = held_out_sampling(config)
    wanted = [(TRAINING_LAW, models.teacher, law)]
    if law != plain(law):
        wanted.append((PLAIN_LAW, models.teacher, plain(law)))
    if models.oracle is not None:
        wanted.append((ORACLE, models.oracle, plain(law)))
    found: dict[str, list[Completion]] = {}
    for name, loaded, sampling in wanted:
        asker = Asker.of(config, models, prompts)
        asked = shorten(prompts.held_out, config.monitor.proxy_prompts or len(prompts.held_out))
        if name == ORACLE:
            asker, asked = replace(asker, asking=None), prompts.held_out
        completions = answers(
            run, name, loaded, device, asker, asked, config.monitor.completions_per_prompt, sampling,
            config.monitor.batch_rows, progress,
        )  # fmt: skip
        if completions is None:
            return None
        found[name] = completions
    return found


def build_monitor(
    batch_rows: int, models: Models, prompts: Prompts, held_out: dict[str, list[Completion]], objective: Objective,
    teacher_root: ScoredModel, world: World, limit: int, asker: Asker | None = None,
) -> Monitor:  # fmt: skip
    """Frozen sets with the judges' hidden states, and the teacher's own values.

    `asker` knows what the teacher was shown where that was not the prompt; it judges its answers after that.
    """
    teacher = Judge(teacher_root, models.alignment, models.teacher.fingerprint)

    def frozen(rows: list[Row], judge: Judge | None) -> FrozenSet:
        check_rows(rows, limit, models.teacher.is_encoder_decoder)
        return FrozenSet.of(rows, models.layout, batch_rows, judge, world.device)

    references = reference_rows(models.tokenizer, prompts.held_out, prompts.encoded)
    proxy_set = frozen(held_out_rows(TRAINING_LAW, prompts, held_out, asker), teacher)
    fkl_set = proxy_set
    if PLAIN_LAW in held_out:
        fkl_set = frozen(held_out_rows(PLAIN_LAW, prompts, held_out, asker), teacher)
    if models.oracle is not None:
        assert models.oracle_alignment is not None
        root = ScoredModel(models.oracle.model, teacher_root.pack_tokens).to(world.device)
        judge = Judge(root, models.oracle_alignment, models.oracle.fingerprint)
        golden_set = frozen(held_out_rows(ORACLE, prompts, held_out, asker), judge)
    else:
        golden_set = frozen(references, None)
    splits = {p.id: p.split for p in prompts.held_out}
    monitor = Monitor(objective, proxy_set, fkl_set, golden_set, models.oracle is not None, splits, world)
    monitor.measure_teacher(teacher_root)
    return monitor


def held_out_rows(
    name: str, prompts: Prompts, held_out: dict[str, list[Completion]], asker: Asker | None
) -> list[Row]:  # fmt: skip
    """A row for each held-out completion of this purpose, with what its generator was shown."""
    by_id = {p.id: p for p in prompts.held_out}
    shown = [asker.encode(by_id[c.prompt_id], c) for c in held_out[name]] if asker is not None else ()
    erased = asker is None or asker.erased
    return completion_rows(held_out[name], prompts.encoded, shown, erased=erased)


def watch_sequences(
    config: Run, models: Models, prompts: Prompts, held_out: dict[str, list[Completion]], world: World, limit: int,
    asker: Asker,
) -> Sequences | None:  # fmt: skip
    """Reverse KL and Jensen-Shannon on their slower clock, where the configuration asks for them."""
    if config.monitor.sequence_every is None:
        return None
    stream = PLAIN_LAW if PLAIN_LAW in held_out else TRAINING_LAW
    sampled = {"proxy": (stream, held_out_rows(stream, prompts, held_out, asker))}
    if models.oracle is not None:
        sampled["golden"] = (ORACLE, held_out_rows(ORACLE, prompts, held_out, asker))
    return build_sequences(config, models, prompts, sampled, world, limit, asker)
