"""Models that somebody else loaded, wrapped and trains.

How to see through to the Transformers model, to name it by its weights, and to use it
without leaving a trace: whoever trains it must get the very numbers that they would
get without us.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from torch import nn
from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DataParallel, DistributedDataParallel

from potstill.models.load import Loaded, ModelError

EDGE = 512  # elements of each end of a tensor that name it


def plain_model(model: Any, role: str) -> Any:
    """The Transformers model inside the wrappers of DDP, the compiler and PEFT; LoRA stays in its layers.

    Raises ModelError: sharded or spread over devices, prompt learning, no language-model head.
    """
    if isinstance(model, nn.Module):
        _refuse_split(model, role)
    if isinstance(model, (DistributedDataParallel, DataParallel)):
        model = model.module
    model = getattr(model, "_orig_mod", model)
    if isinstance(model, PeftModel):
        if model.active_peft_config.is_prompt_learning:
            raise ModelError(
                f"the {role} learns a prompt ({model.active_peft_config.peft_type}), which lies outside of the model "
                "that Potstill scores. Use adapters that lie in its layers, such as LoRA."
            )
        model = model.get_base_model()
    head = getattr(model, "get_output_embeddings", lambda: None)()
    if head is None or not hasattr(model, "get_decoder"):
        raise ModelError(
            f"expected the {role} to be a loaded Transformers model with a language-model head, found "
            f"{type(model).__name__}. Load it with AutoModelForCausalLM or AutoModelForSeq2SeqLM."
        )
    return model


def _refuse_split(model: nn.Module, role: str) -> None:
    parameters = list(model.parameters())
    whole = not any(isinstance(p, DTensor) or hasattr(p, "ds_id") for p in parameters)
    if not whole or any(isinstance(m, (FSDPModule, FullyShardedDataParallel)) for m in model.modules()):
        raise ModelError(
            f"the {role}'s weights are sharded over processes (FSDP, tensor parallelism or DeepSpeed ZeRO 3), and "
            "the callback needs them whole on one. Train on one process or with DDP, or leave the callback out."
        )
    places = {str(p.device) for p in parameters}
    if len(places) > 1:
        raise ModelError(
            f"the {role}'s weights lie on several devices ({', '.join(sorted(places))}); the callback needs them on "
            "one. Load it without device_map."
        )


def refuse_shared(frozen: Any, student: Any, role: str) -> None:
    """A judge that moves with the student would call every student perfect. Raises ModelError."""
    trained = {id(p) for p in student.parameters() if p.requires_grad}
    if frozen is student or any(id(p) in trained for p in frozen.parameters()):
        raise ModelError(
            f"{role} and student are one model, or share weights that are trained, so the {role} would change with "
            "the student. Load it a second time, or pass copy.deepcopy(model) made before training."
        )


def as_loaded(model: Any, tokenizer: Any) -> Loaded:
    """A plain model with its name, and with a fingerprint that a restart finds again."""
    revision = getattr(model.config, "_commit_hash", None)
    return Loaded(model, tokenizer, weights_fingerprint(model), revision, model_name(model))


def model_name(model: Any) -> str:
    """For people: the hub's id, the folder's name, or the class of a model that was never saved."""
    said = str(getattr(model.config, "_name_or_path", "") or type(model).__name__)
    return Path(said).name if Path(said).is_dir() else said


def weights_fingerprint(model: nn.Module) -> str:
    """16 hex digits from each parameter's name, shape, type and both ends: all of it would take minutes."""
    state = hashlib.sha256()
    for name, parameter in model.named_parameters():
        flat = parameter.detach().flatten()
        ends = torch.cat([flat[:EDGE], flat[-EDGE:]]).cpu().contiguous()
        state.update(f"{name}:{tuple(parameter.shape)}:{parameter.dtype}".encode())
        state.update(ends.view(torch.uint8).numpy().tobytes())
    return state.hexdigest()[:16]


@contextmanager
def undisturbed(device: torch.device, *models: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients; afterwards every module's mode and all random numbers are as before.

    Gradient checkpointing works in training mode only, so it rests meanwhile too.
    """
    # The flags themselves: a model's own train() and eval() may do more than can be undone.
    modes = {module: module.training for model in models for module in model.modules()}
    words, numbers = random.getstate(), np.random.get_state()
    devices = [device] if device.type == "cuda" else []
    try:
        for module in modes:
            module.training = False
        with torch.random.fork_rng(devices=devices), torch.no_grad():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        random.setstate(words)
        np.random.set_state(numbers)
