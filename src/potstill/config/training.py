"""Steps, batches, optimiser, precision, checkpoints."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from potstill.config.adapter import Adapter
from potstill.config.base import Frozen
from potstill.config.schedule import CosineRate, RateSchedule


class Optimiser(Frozen):
    """AdamW with warm-up and then a schedule."""

    learning_rate: float = Field(gt=0)
    """Peak, reached after warm-up."""
    warmup_steps: int = Field(default=0, ge=0)
    """Optimiser steps of linear rise."""
    schedule: RateSchedule = CosineRate(kind="cosine")
    """What the rate does after warm-up: constant, linear, cosine or wsd."""
    adam_beta1: float = Field(default=0.9, ge=0, lt=1)
    adam_beta2: float = Field(default=0.95, ge=0, lt=1)
    adam_epsilon: float = Field(default=1e-8, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    """Decoupled; on matrices only, never on norms and biases."""
    clip_norm: float | None = Field(default=1.0, gt=0)
    """Largest global gradient norm; null for none."""


class Training(Frozen):
    """The loop."""

    steps: int = Field(ge=1)
    """Optimiser steps."""
    batch_rows: int = Field(ge=1)
    """Rows of an optimiser step, over all processes."""
    micro_batch_rows: int | None = Field(default=None, ge=1)
    """Rows of one forward and backward; changes memory, not the gradient. Null: all at once."""
    optimiser: Optimiser
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Precision of the computation; weights and optimiser stay in fp32 always. auto is settled when
    the run starts (bf16 where the hardware multiplies it, else fp32) and written to config.yaml."""
    adapter: Adapter | None = None
    """Train low-rank adapters (LoRA, DoRA) instead of the student's own weights."""
    freeze: tuple[Literal["embeddings", "head"], ...] = ()
    """Parts of the student that stay as they are. Tied, they are one tensor: name both or neither."""
    gradient_checkpointing: bool = False
    """Keep only each block's input and compute the rest once more in the backward pass: about a third
    more work, and memory for activations that no longer grows with what is inside a block."""
    pack_tokens: int | None = Field(default=None, ge=1)
    """Lay rows of a micro-batch end to end in bins of so many tokens, or as the longest row needs. Null: pad them."""
    compile: bool = False
    """Compile the student's blocks with torch.compile. Pays on a GPU and on long runs; the first steps
    take minutes."""
    teacher_weights: Literal["as_computed", "bf16", "int8"] = "as_computed"
    """How the teacher lies in memory: in the precision of the computation, in bf16, or in int8 with one
    scale a row (torchao, its head excepted). Both change what the teacher says a little."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """How several processes share the work; without torchrun it must stay at its default."""
    keep_teacher_hidden_mb: float = Field(default=512.0, ge=0)
    """Memory for the teacher's last hidden states, so that later epochs need no teacher pass. When
    the rows do not fit, the teacher runs at every step instead. 0 turns it off."""
    teacher_targets: str | None = None
    """Folder of a cache that `potstill cache` wrote: the teacher's targets for training rows are read from
    there, and the teacher itself only measures. `served`: what an endpoint told of its own completions
    (generator.top_logprobs). Null: the teacher says them."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto takes a GPU where there is one."""

    @model_validator(mode="after")
    def _hidden_states_are_kept_once(self) -> Training:
        usual = Training.model_fields["keep_teacher_hidden_mb"].default
        if self.teacher_targets is not None and self.keep_teacher_hidden_mb != usual:
            raise ValueError(
                "training.keep_teacher_hidden_mb has no effect beside training.teacher_targets, which holds what "
                "the teacher says on disk; leave one of them out"
            )
        return self

    @model_validator(mode="after")
    def _freezing_means_something(self) -> Training:
        if self.freeze and self.adapter is not None:
            raise ValueError(
                "training.freeze has no effect beside an adapter, which freezes all but itself; what else shall be "
                "trained goes into training.adapter.train_whole"
            )
        if len(set(self.freeze)) != len(self.freeze):
            raise ValueError(f"training.freeze names a part twice: {list(self.freeze)}")
        return self


class Checkpoints(Frozen):
    """What can be resumed and exported."""

    every_steps: int = Field(ge=1)
    """Steps between checkpoints; the last step always has one."""
    keep_last: int = Field(default=2, ge=1)
    """How many recent ones stay, beside the best."""
