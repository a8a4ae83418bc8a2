"""A Transformers trainer without its constructor: the parts that decide how a loss is divided.

The object is made with `__new__` and given the few attributes that `training_step`,
`compute_loss` and `_get_num_items_in_batch` read; those methods are the toolkit's own.
The models are tables: they answer with the logits, or hidden states, of the case.
"""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import torch
from protocol import Batch, World
from torch import Tensor, nn


class Table(nn.Module):
    """A model whose answer is known beforehand; `forward` takes keyword arguments as a Llama's does.

    It answers in fp32, as accelerate makes models answer under mixed precision, which is on by default.
    """

    def __init__(self, answer: Tensor):
        super().__init__()
        self.answer = answer

    def forward(self, **inputs: Any) -> SimpleNamespace:
        return SimpleNamespace(logits=self.answer.float())


def accelerator(count_of_ranks: list[int], processes: int) -> SimpleNamespace:
    """Answers as accelerate does in a job of `processes`; `gather` gives every rank's count."""
    return SimpleNamespace(
        num_processes=processes,
        distributed_type="NO" if processes == 1 else "MULTI_GPU",
        gather=lambda value: torch.tensor(count_of_ranks),
        gather_for_metrics=lambda value: value,
        backward=lambda loss, **kwargs: loss.backward(),
        unwrap_model=lambda model: model,
    )


def trainer(kind: type, counts: list[int], micro_batches: int, **extra: Any) -> Any:
    """A trainer of class `kind` for one rank of `len(counts)`, whose step has `micro_batches`."""
    made = kind.__new__(kind)
    made.accelerator = accelerator(counts, len(counts))
    made.args = SimpleNamespace(
        average_tokens_across_devices=True, world_size=len(counts), n_gpu=1, device=torch.device("cpu"),
        gradient_accumulation_steps=micro_batches, torch_empty_cache_steps=None, optim="adamw_torch",
        process_index=0, parallelism_config=None,
    )  # fmt: skip
    made.current_gradient_accumulation_steps = micro_batches
    # What the constructor finds for a Llama: its forward takes **kwargs, its loss shifts labels.
    made.model_accepts_loss_kwargs, made._loss_shifts_labels, made.compute_loss_func = True, True, None
    made.optimizer = SimpleNamespace()
    made.state = SimpleNamespace(global_step=0)
    made.get_tp_size = made.get_cp_size = made.get_sp_size = lambda: 1
    made._prepare_context_parallel_inputs = lambda model, inputs: (nullcontext, inputs)
    made._prepare_inputs = lambda inputs: inputs
    made.compute_loss_context_manager = nullcontext
    for name, value in extra.items():
        setattr(made, name, value)
    return made


def inputs(batch: Batch) -> dict[str, Tensor]:
    """What a collator hands to a trainer."""
    return {"input_ids": batch.ids, "attention_mask": batch.mask, "labels": batch.labels}


def counts(world: World) -> list[int]:
    """Counted tokens of each rank."""
    return [sum(int(batch.counted.sum()) for batch in rank) for rank in world]
