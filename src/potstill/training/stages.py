"""What a run needs before its first step: prompts, models, completions, rows, monitor.

Each function is one stage; `distil.py` calls them in order. All that can be wrong
with the input is found here, before time is spent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from potstill.config.data import SampledCompletions, Sampling
from potstill.config.model import LoadedStudent
from potstill.config.run import Run
from potstill.data.collate import Layout, layout_of
from potstill.data.encode import EncodedPrompt
from potstill.data.mixing import read_all
from potstill.data.rows import check_room, encode_prompts
from potstill.data.spare import read_spare
from potstill.data.splits import split_prompts
from potstill.models.adapt import adapt, freeze
from potstill.models.load import Loaded, ModelError, load_model
from potstill.models.packing import verify_packing
from potstill.models.recompute import recompute_blocks
from potstill.models.scored import ScoredModel
from potstill.models.shrink import shrink
from potstill.models.student import build_student
from potstill.models.vocabulary import Alignment, align
from potstill.records import Prompt
from potstill.sources.catalog import prompt_order


@dataclass(frozen=True)
class Prompts:
    """Training and held-out prompts, encoded."""

    train: list[Prompt]
    held_out: list[Prompt]
    notes: list[str]
    encoded: dict[str, EncodedPrompt]
    spare: frozenset[str] = frozenset()  # ids among `train` that only the remedy more_prompts brings into use

    def in_order(self, seed: int) -> list[str]:
        """Training prompts in the order in which data plans use them: keyed by the seed, spare ones last."""
        first = prompt_order([p.id for p in self.train if p.id not in self.spare], seed)
        return [*first, *prompt_order(list(self.spare), seed)]

    @property
    def in_use(self) -> int:
        """How many training prompts the run begins with."""
        return len(self.train) - len(self.spare)


@dataclass(frozen=True)
class Models:
    """Teacher, student and (in experiments) oracle."""

    teacher: Loaded
    student: Any
    tokenizer: Any
    lineage: dict[str, Any]
    alignment: Alignment
    oracle: Loaded | None
    oracle_alignment: Alignment | None
    layout: Layout
    adapted: Any = None  # PEFT's view of the student, where it has adapters

    @property
    def context(self) -> int:
        """Longest sequence that all models can read, in tokens."""
        models = [self.teacher.model, self.student]
        if self.oracle is not None:
            models.append(self.oracle.model)
        return min(context_length(model) for model in models)


def context_length(model: Any) -> int:
    """A model's own limit; T5's relative positions have none."""
    limit = getattr(model.config, "max_position_embeddings", None)
    if limit is None:
        limit = getattr(model.config, "n_positions", None) if model.config.model_type not in {"t5", "mt5"} else None
    return int(limit) if limit else 2**31


def load_models(config: Run) -> Models:
    """Load or build all models on the CPU and see that they fit together."""
    teacher = load_model(config.teacher, computing_dtype(config))
    student, tokenizer, lineage = build_student(config.student, teacher, config.seed)
    if bool(student.config.is_encoder_decoder) != teacher.is_encoder_decoder:
        raise ModelError("one of teacher and student is an encoder-decoder and the other is not")
    ScoredModel(student).verify_head()
    alignment = align_judge(teacher, student, tokenizer)
    oracle = None if config.oracle is None else load_model(config.oracle, computing_dtype(config))
    oracle_alignment = None if oracle is None else align_judge(oracle, student, tokenizer)
    layout = layout_of(student, tokenizer)
    _refuse_narrow_teacher(config, alignment)
    if config.training.pack_tokens is not None:
        for packed in [student, teacher.model, *([] if oracle is None else [oracle.model])]:
            verify_packing(packed)
    teacher = shrink(teacher, config.training.teacher_weights)
    adapted = _choose_trained(config, student)
    return Models(teacher, student, tokenizer, lineage, alignment, oracle, oracle_alignment, layout, adapted)


def align_judge(judge: Loaded, student: Any, tokenizer: Any) -> Alignment:
    """How a frozen model's vocabulary lies over the student's. Raises ModelError: they differ, unknown head."""
    scored = ScoredModel(judge.model)
    scored.verify_head()
    return align(judge.tokenizer, tokenizer, scored.vocabulary_width, ScoredModel(student).vocabulary_width)


def computing_dtype(config: Run) -> torch.dtype:
    """What a run computes in, and what its student is exported in."""
    return torch.bfloat16 if config.training.precision == "bf16" else torch.float32


def fresh_student(config: Run) -> tuple[Any, Any, Any]:
    """The student as it was before the first step, its tokenizer, and PEFT's view of it or None."""
    origin = None
    if not isinstance(config.student, LoadedStudent):
        origin = load_model(config.teacher, computing_dtype(config))
    student, tokenizer, _ = build_student(config.student, origin, config.seed)
    return student, tokenizer, _choose_trained(config, student)


def _choose_trained(config: Run, student: Any) -> Any:
    """Freeze or adapt the student in place as configured; PEFT's view of it where it has adapters."""
    training = config.training
    freeze(student, training.freeze)
    adapted = None if training.adapter is None else adapt(student, training.adapter, config.seed)
    if training.gradient_checkpointing:
        recompute_blocks(student)
    return adapted


def _refuse_narrow_teacher(config: Run, alignment: Alignment) -> None:
    """Some divergences have no value where the student's head is wider than the teacher's."""
    if alignment.shared is None or alignment.shared == alignment.student_width:
        return
    names = [term.name for term in config.objective.active if term.needs_every_column]
    if names:
        raise ModelError(
            f"{', '.join(names)} compares every column of the student's head, and the heads are padded differently "
            f"({alignment.shared} tokens, {alignment.student_width} columns of the student): where the teacher has "
            "no column it is infinite. Resize the student's head to the teacher's, or use forward_kl, "
            "jensen_shannon or skew_reverse_kl, which stay finite."
        )


def load_prompts(config: Run, tokenizer: Any, is_encoder_decoder: bool) -> Prompts:
    """Read, split and encode; held-out prompts beyond the monitor's limit are left out, by hash order."""
    read, mixed = read_all(config.data, config.seed)
    train, held_out, notes = split_prompts(read, config.data.held_out, config.data.near_duplicates, config.seed)
    notes = [*mixed, *notes]
    spare: list[Prompt] = []
    on_alarm = config.monitor.on_alarm
    if on_alarm is not None and on_alarm.spare_prompts is not None:
        spare, left_out = read_spare(on_alarm.spare_prompts, train, held_out, config.data.near_duplicates.threshold)
        train, notes = [*train, *spare], [*notes, *left_out]
    if config.oracle is None:
        plain = [p.id for p in held_out if p.reference is None]
        if plain:
            raise ValueError(
                f"{len(plain)} of {len(held_out)} held-out prompts have no reference (first: {plain[0]!r}), and no "
                "oracle is given. The student must not be judged by its teacher alone: name a column in "
                "data.prompts.reference, or give an oracle."
            )
    if config.data.too_long == "drop":
        encoded = encode_prompts(tokenizer, [*train, *held_out], config.data)
        room = 0 if is_encoder_decoder else held_out_sampling(config).max_new_tokens
        fits = {name for name, e in encoded.items() if len(e.ids) + room <= config.data.max_length}
        train, held_out, dropped = drop_long(train, held_out, fits)
        notes = [*notes, *dropped]
    held_out = shorten(held_out, config.monitor.max_prompts)
    encoded = encode_prompts(tokenizer, [*train, *held_out], config.data)
    return Prompts(train, held_out, notes, encoded, frozenset(p.id for p in spare) & {p.id for p in train})


def drop_long(
    train: list[Prompt], held_out: list[Prompt], fits: set[str]
) -> tuple[list[Prompt], list[Prompt], list[str]]:
    """Only the prompts that fit, and a note that says how many did not."""
    kept = [[p for p in prompts if p.id in fits] for prompts in (train, held_out)]
    lost = [len(train) - len(kept[0]), len(held_out) - len(kept[1])]
    if not all(kept):
        raise ValueError("data.too_long drops every training or held-out prompt; raise data.max_length")
    note = f"too long for data.max_length and dropped: {lost[0]} training prompts, {lost[1]} held out"
    return kept[0], kept[1], [note] if any(lost) else []


def shorten(prompts: list[Prompt], most: int) -> list[Prompt]:
    """As many of selection as of test, in their order."""
    halves = [[p for p in prompts if p.split == split][: most // 2] for split in ("selection", "test")]
    keep = {p.id for half in halves for p in half}
    return [p for p in prompts if p.id in keep]


def check_lengths(config: Run, prompts: Prompts, models: Models) -> int:
    """Refuse prompts without room for an answer; returns the limit in tokens."""
    limit = min(config.data.max_length, models.context)
    check_room(prompts.encoded, held_out_sampling(config).max_new_tokens, limit, models.teacher.is_encoder_decoder)
    return limit


def held_out_sampling(config: Run) -> Sampling:
    """The law by which the teacher is sampled on held-out prompts: the training law."""
    completions = config.data.completions
    return completions.sampling if isinstance(completions, SampledCompletions) else completions.monitor_sampling
