"""The tree of `potstill lab hacking`: who is oracle, teacher and student, and which arms are compared."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator

from potstill.config.base import Frozen
from potstill.config.data import Prompts
from potstill.config.model import FolderModel, GgufModel, HubModel, LayersStudent, LoadedStudent

Corpus = Literal["pydoc", "prose", "technical", "grammar", "docstrings"]

Arm = Literal[
    "offline", "oracle_as_teacher", "online_teacher", "online_student",
    "mixture_1", "mixture_5", "mixture_10", "mixture_25", "mixture_50",
    "prompts_half", "prompts_fifth", "completions_2", "completions_4", "completions_5", "few_epochs",
    "reverse_kl", "jensen_shannon", "reverse_kl_online", "jensen_shannon_online",
    "small_teacher", "small_student", "overtrained_teacher", "large_pool", "stopped_early",
    "mended_completions", "mended_mixture_10", "mended_mixture", "mended_human", "mended_prompts",
]  # fmt: skip
ARMS: tuple[Arm, ...] = get_args(Arm)


class TinyModel(Frozen):
    """A small GPT-2 with random weights: the cheapest decoder per token that Transformers has."""

    kind: Literal["tiny"]
    hidden_size: int = Field(ge=8)
    num_layers: int = Field(ge=1)
    num_heads: int = Field(default=4, ge=1)
    ffn_size: int = Field(ge=8)
    """Width of the feed-forward layer."""

    @model_validator(mode="after")
    def _heads_divide(self) -> TinyModel:
        if self.hidden_size % self.num_heads:
            raise ValueError(f"hidden_size {self.hidden_size} must divide by num_heads {self.num_heads}")
        return self


OracleModel = Annotated[TinyModel | HubModel | FolderModel | GgufModel, Field(discriminator="kind")]
Member = Annotated[TinyModel | LayersStudent | LoadedStudent, Field(discriminator="kind")]


class WindowPrompts(Frozen):
    """Prompts cut from a corpus: a few words at a random place each, to be continued."""

    kind: Literal["windows"]
    corpus: Corpus | None = "pydoc"
    """Text that the package generates, or that Python brings (pydoc)."""
    path: str | None = None
    """A text file of your own instead."""
    chars: int = Field(default=400_000, ge=1000)
    """How much of the text is used."""
    prompt_chars: int = Field(default=12, ge=4)
    """Length of a prompt; it begins at a word."""

    @model_validator(mode="after")
    def _one_text(self) -> WindowPrompts:
        if (self.corpus is None) == (self.path is None):
            raise ValueError("prompts need exactly one of corpus and path; set the other to null")
        return self


class FilePrompts(Frozen):
    """Prompts of a task, shared out between fine-tuning, distillation and measuring."""

    kind: Literal["file"]
    prompts: Prompts


class Characters(Frozen):
    """A token for each character."""

    kind: Literal["characters"]


class Bpe(Frozen):
    """Byte pairs, learned from the corpus."""

    kind: Literal["bpe"]
    vocabulary: int = Field(ge=300)
    """Tokens, the 256 bytes and three special ones among them."""


class OracleTraining(Frozen):
    """How a tiny oracle is trained on the corpus. It need not be good: it is the truth, whatever it says."""

    steps: int = Field(ge=1)
    batch_rows: int = Field(default=32, ge=1)
    window_tokens: int = Field(default=64, ge=8)
    learning_rate: float = Field(default=2e-3, gt=0)


class FineTuning(Frozen):
    """How teacher or student are fitted to the oracle's completions; the epoch of lowest golden is taken."""

    epochs: int = Field(ge=1)
    evaluations: int = Field(default=10, ge=2)
    """Evenly spread; one of them is the lowest."""
    batch_rows: int = Field(default=32, ge=1)
    learning_rate: float = Field(gt=0)


class HackingLab(Frozen):
    """A setting of the teacher-hacking experiment (Tiapkin et al. 2025)."""

    prompts: Annotated[WindowPrompts | FilePrompts, Field(discriminator="kind")]
    tokenisation: Annotated[Characters | Bpe, Field(discriminator="kind")] | None = None
    """For a tiny oracle; others bring their own."""
    oracle: OracleModel
    oracle_training: OracleTraining | None = None
    """For a tiny oracle."""
    teacher: Member
    student: Member
    small_teacher: Member | None = None
    """For the arm of that name."""
    small_student: Member | None = None
    """For the arm of that name."""
    teacher_tuning: FineTuning
    student_tuning: FineTuning
    oracle_prompts: int = Field(ge=8)
    """Prompts that the oracle answers for fine-tuning teacher and student."""
    distillation_prompts: int = Field(ge=8)
    """Prompts of distillation, none of them among the former."""
    large_pool_factor: int = Field(default=8, ge=2)
    """The arm large_pool has so many times the prompts, and as many steps."""
    held_out_prompts: int = Field(ge=4)
    """Prompts on which golden is measured."""
    proxy_prompts: int = Field(ge=4)
    """So many of them also measure proxy."""
    completions_per_held_out_prompt: int = Field(default=1, ge=1)
    max_new_tokens: int = Field(ge=1)
    max_length: int = Field(ge=8)
    """Longest prompt and completion together, in tokens."""
    epochs: int = Field(ge=1)
    """Visits of each offline row."""
    batch_rows: int = Field(ge=1)
    micro_batch_rows: int | None = Field(default=None, ge=1)
    """Rows of one forward and backward; null: all at once."""
    learning_rate: float = Field(gt=0)
    """Constant, after a few steps of warm-up: every epoch then stands for a run that ended there."""
    warmup_steps: int = Field(default=10, ge=0)
    weight_decay: float = Field(default=0.0, ge=0)
    evaluate_every_epochs: int = Field(ge=1)
    monitor_batch_rows: int = Field(default=256, ge=1)
    """Rows of one forward pass of the monitor."""
    online_epochs_at_once: float = Field(default=1.0, gt=0)
    """Epochs whose fresh completions of the teacher are sampled together; the law is the same, slots are fuller."""
    student_steps_at_once: int = Field(default=2, ge=1)
    """Steps whose fresh completions of the student are sampled together: their staleness is less than that."""
    slots: int = Field(default=256, ge=1)
    """Completions at work at once."""
    precision: Literal["fp32", "bf16", "auto"] = "fp32"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    arms: tuple[Arm, ...] = Field(min_length=1)
    seeds: tuple[int, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _tiny_is_whole(self) -> HackingLab:
        tiny = self.oracle.kind == "tiny"
        if tiny != (self.oracle_training is not None) or tiny != (self.tokenisation is not None):
            raise ValueError("oracle_training and tokenisation belong to an oracle of kind tiny, and it needs both")
        if tiny and self.prompts.kind != "windows":
            raise ValueError("an oracle of kind tiny is trained on the prompts' corpus; use prompts of kind windows")
        members = [self.teacher, self.student, self.small_teacher, self.small_student]
        if not tiny and any(m is not None and m.kind == "tiny" for m in members):
            raise ValueError(
                "teacher and student of kind tiny use a tiny oracle's tokenizer; cut them (layers) or load"
            )
        return self

    @model_validator(mode="after")
    def _arms_have_members(self) -> HackingLab:
        for name in ("small_teacher", "small_student"):
            if name in self.arms and getattr(self, name) is None:
                raise ValueError(f"the arm {name} needs the setting {name}")
        if len(set(self.arms)) < len(self.arms) or len(set(self.seeds)) < len(self.seeds):
            raise ValueError("arms and seeds must stand once each")
        return self

    @model_validator(mode="after")
    def _numbers_fit(self) -> HackingLab:
        if self.distillation_prompts % self.batch_rows:
            raise ValueError(
                f"distillation_prompts {self.distillation_prompts} must be a multiple of batch_rows {self.batch_rows}, "
                "so that an epoch is a whole number of steps"
            )
        if self.proxy_prompts > self.held_out_prompts:
            raise ValueError(f"proxy_prompts {self.proxy_prompts} exceed held_out_prompts {self.held_out_prompts}")
        if self.epochs % self.evaluate_every_epochs:
            raise ValueError(f"epochs {self.epochs} must be a multiple of evaluate_every_epochs")
        return self


__all__ = ["ARMS", "Arm", "Bpe", "Characters", "FilePrompts", "FineTuning", "HackingLab", "Member", "OracleModel",
           "OracleTraining", "TinyModel", "WindowPrompts"]  # fmt: skip
