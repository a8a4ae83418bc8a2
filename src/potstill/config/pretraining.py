"""The tree of `potstill lab pretraining`: which teachers, students and mixtures are compared, and of one run in it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from potstill.config.base import Frozen
from potstill.config.corpus import CorpusConfig
from potstill.config.lab import TinyModel
from potstill.config.model import ModelSource
from potstill.config.objective import ObjectiveConfig
from potstill.config.schedule import WeightSchedule
from potstill.config.training import Optimiser


class LlamaModel(Frozen):
    """A Llama with random weights."""

    kind: Literal["llama"]
    hidden_size: int = Field(ge=8)
    num_layers: int = Field(ge=1)
    num_heads: int = Field(ge=1)
    num_kv_heads: int | None = Field(default=None, ge=1)
    """Heads of keys and values; null: as many as heads."""
    ffn_size: int = Field(ge=8)
    """Width of the feed-forward layer."""
    tie_embeddings: bool = False
    """Whether the head is the embedding's transpose."""

    @model_validator(mode="after")
    def _heads_divide(self) -> LlamaModel:
        kv = self.num_kv_heads or self.num_heads
        if self.hidden_size % self.num_heads or self.num_heads % kv:
            raise ValueError(
                f"hidden_size {self.hidden_size} must divide by num_heads {self.num_heads}, and that by "
                f"num_kv_heads {kv}"
            )
        return self


Shape = Annotated[TinyModel | LlamaModel, Field(discriminator="kind")]


class PretrainingRun(Frozen):
    """One model, from random weights, on a corpus."""

    shape: Shape
    seed: int
    """Of the first weights and of the order of the blocks."""
    block_tokens: int = Field(ge=2)
    documents: Literal["together", "apart"] = "together"
    """together: a block reads on over the end of a document, as most pretraining does. apart: it does not."""
    blocks: int | None = Field(default=None, ge=1)
    """So many blocks of the corpus, the same for every seed; null: all, in the seed's order."""
    steps: int = Field(ge=1)
    batch_blocks: int = Field(ge=1)
    micro_batch_blocks: int | None = Field(default=None, ge=1)
    """Blocks of one forward and backward; null: all at once."""
    optimiser: Optimiser
    objective: ObjectiveConfig
    precision: Literal["fp32", "bf16"] = "fp32"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    parallel: Literal["ddp", "fsdp"] = "ddp"
    checkpoint_every: int = Field(default=1000, ge=1)
    """Steps between checkpoints; the last step always has one until the model is written."""

    @model_validator(mode="after")
    def _on_corpus(self) -> PretrainingRun:
        for term in self.objective.terms:
            if not term.applies_to("corpus"):
                raise ValueError(f"a term of a pretraining run must be `on` corpus, found {list(term.on)}")
        if self.documents == "apart" and self.micro_batch_blocks is not None:
            raise ValueError("micro_batch_blocks cuts whole blocks, and documents: apart cuts them elsewhere; drop one")
        return self


class Pretraining(Frozen):
    """What `potstill pretrain` does: one model on a corpus, with a teacher or without."""

    output: str
    """Folder of the run; the model lies in `model/` in it."""
    corpus: str
    """Folder that `potstill corpus` made."""
    teacher: ModelSource | None = None
    """Reads every batch along with the student; null: plain training. It needs the corpus's own tokenizer."""
    run: PretrainingRun

    @model_validator(mode="after")
    def _teacher_is_asked(self) -> Pretraining:
        if (self.teacher is not None) != self.run.objective.needs_teacher_targets:
            raise ValueError(
                "a teacher and a divergence among run.objective.terms belong together: give both, or neither for the "
                "twin without a teacher"
            )
        return self


class Variant(Frozen):
    """An ablation: one thing of the main grid changed. Every field that is not null is that thing."""

    divergence_temperature: float | None = Field(default=None, gt=0)
    top_k: int | None = Field(default=None, ge=1)
    """The teacher's largest entries, renormalised: the biased cache."""
    draws: int | None = Field(default=None, ge=1)
    """So many draws from the teacher's distribution: the unbiased cache."""
    uniform_teacher: bool = False
    """No teacher: every token is as likely as any. The control for `is it just smoothing?`."""
    weight_schedule: WeightSchedule | None = None
    """The divergence's weight over the run, instead of a constant; cross-entropy keeps the rest."""
    full_cross_entropy: bool = False
    """Cross-entropy keeps weight 1 beside the divergence's."""
    teacher_corpus: CorpusConfig | None = None
    """The teacher learned from other text (with the tokenizer of the main corpus)."""

    @model_validator(mode="after")
    def _one_thing(self) -> Variant:
        changed = [name for name, field in type(self).model_fields.items() if getattr(self, name) != field.default]
        if len(changed) != 1:
            raise ValueError(f"a variant changes one thing, found {changed or 'nothing'}")
        return self


class Teachers(Frozen):
    """Every size with every budget."""

    sizes: tuple[str, ...] = Field(min_length=1)
    tokens: tuple[int, ...] = Field(min_length=1)
    """Tokens of each teacher's own training, a full schedule each."""
    seed: int = 42
    """Of their first weights and order: never a student's."""


class AblationCells(Frozen):
    """Where in the grid the variants are tried."""

    students: tuple[str, ...] = ()
    """Sizes; none: the first of `students`."""
    teachers: tuple[str, ...] = ()
    """Names such as `0.9M@1.0M`; none: all."""
    weights: tuple[float, ...] = ()
    """None: all of the grid's."""


class Measuring(Frozen):
    """The evaluation triplet: perplexity in and out of domain is always measured."""

    minimal_pairs: int = Field(default=1600, ge=0)
    """Pairs of the made-up language; 0 where the corpus does not teach it."""
    tasks: str | None = None
    """Folder with choice tasks for lm-eval (see docs/guide/evaluation.md); null: none."""
    task_names: tuple[str, ...] = ()
    """Which of them, such as blimp_100, arc_easy, piqa."""
    scorer: Literal["own", "lm_eval"] = "own"
    """Who counts the choices: our scorer, or lm-eval (extra `eval`), which gives the same and takes longer."""
    batch_tokens: int = Field(default=2048, ge=128)
    """Tokens of one forward pass."""
    difficulty_bins: int = Field(default=5, ge=2)
    """Tokens by the twin's entropy, as many in each bin."""
    position_bins: int = Field(default=8, ge=2)

    @model_validator(mode="after")
    def _tasks_are_named(self) -> Measuring:
        if (self.tasks is None) != (not self.task_names):
            raise ValueError("tasks names a folder and task_names what to take from it; give both or neither")
        return self


class PretrainingLab(Frozen):
    """A setting of the experiment (Lu and Liu 2026): what varies is teachers, weights, students, seeds; the rest is
    held."""

    corpus: CorpusConfig
    block_tokens: int = Field(ge=8)
    documents: Literal["together", "apart"] = "together"
    sizes: dict[str, Shape]
    """Name -> shape of a model."""
    teachers: Teachers
    students: tuple[str, ...] = Field(min_length=1)
    """Sizes that get every teacher at every weight."""
    completing: tuple[str, ...] = ()
    """Sizes that get every teacher at the weight that was best for the first of `students`."""
    student_tokens: int = Field(ge=1)
    weights: tuple[float, ...] = Field(min_length=1)
    """Of the divergence; cross-entropy has the rest. The twin, at 0, comes by itself."""
    seeds: tuple[int, ...] = Field(min_length=1)
    batch_blocks: int = Field(ge=1)
    micro_batch_blocks: int | None = Field(default=None, ge=1)
    learning_rate: float = Field(gt=0)
    """Peak, for all sizes."""
    warmup_share: float = Field(default=0.05, ge=0, lt=1)
    """Share of the steps; a cosine down to a tenth follows."""
    weight_decay: float = Field(default=0.1, ge=0)
    targets: Literal["kept", "online"] = "kept"
    """kept: the teacher's hidden states of the students' blocks are computed once and lie on disk. online: the
    teacher runs in every step."""
    variants: dict[str, Variant] = Field(default={})
    """Ablations, by name."""
    ablation: AblationCells = AblationCells()
    measuring: Measuring = Measuring()
    precision: Literal["fp32", "bf16"] = "fp32"
    device: Literal["auto", "cpu", "cuda"] = "auto"

    @model_validator(mode="after")
    def _names_are_known(self) -> PretrainingLab:
        for place, names in (
            ("teachers.sizes", self.teachers.sizes), ("students", self.students), ("completing", self.completing),
        ):  # fmt: skip
            strange = sorted(set(names) - set(self.sizes))
            if strange or len(set(names)) < len(names):
                raise ValueError(f"{place} names sizes, each once: {', '.join(self.sizes)}; found {', '.join(names)}")
        if set(self.completing) & set(self.students):
            raise ValueError("completing and students both name a size; its cells would be made twice")
        if self.teachers.seed in self.seeds:
            raise ValueError(
                f"teachers.seed {self.teachers.seed} is a student's too: with one size they would be the same model"
            )
        return self

    @model_validator(mode="after")
    def _ablations_are_in_the_grid(self) -> PretrainingLab:
        cells = self.ablation
        if not self.variants and cells != AblationCells():
            raise ValueError("ablation has no effect: there are no variants")
        strange = sorted(set(cells.students) - set(self.students))
        if strange:
            raise ValueError(f"ablation.students are among students ({', '.join(self.students)}), found {strange}")
        other = sorted(set(cells.weights) - set(self.weights))
        if other:
            raise ValueError(f"ablation.weights are among weights {list(self.weights)}, found {other}")
        if len(set(self.teachers.tokens)) < len(self.teachers.tokens):
            raise ValueError(f"teachers.tokens must stand once each, found {list(self.teachers.tokens)}")
        return self

    @model_validator(mode="after")
    def _weights_mean_something(self) -> PretrainingLab:
        if not all(0 < weight <= 1 for weight in self.weights) or len(set(self.weights)) < len(self.weights):
            raise ValueError(f"weights lie above 0 and up to 1, each once (0 comes by itself), found {self.weights}")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds must stand once each")
        return self

    @model_validator(mode="after")
    def _whole_steps(self) -> PretrainingLab:
        per_step = self.batch_blocks * self.block_tokens
        for tokens in (self.student_tokens, *self.teachers.tokens):
            if tokens % per_step:
                raise ValueError(
                    f"{tokens:,} tokens are no whole number of steps of {per_step:,} ({self.batch_blocks} blocks of "
                    f"{self.block_tokens}); use a multiple"
                )
        return self


__all__ = [
    "AblationCells", "LlamaModel", "Measuring", "Pretraining", "PretrainingLab", "PretrainingRun", "Shape", "Teachers",
    "Variant",
]  # fmt: skip
