"""What of a student is trained: all of it, all but some parts, or adapters on top of it.

Adapters are PEFT's, put into the student in place, so that everything else goes on
seeing an ordinary model. One trap is ours to avoid: the loss takes the head's weight
out of the model and multiplies by itself, so an adapter on the head would be trained
for nothing. `head_weight` therefore gives the weight with its adapter in it, and what
it cannot honour is refused.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from potstill.config.adapter import Adapter
from potstill.models.load import ModelError

if TYPE_CHECKING:  # PEFT takes more than a second to import, and most runs have no adapter
    from peft import PeftModel


def is_tied(model: Any) -> bool:
    """Whether the head is the embedding's transpose, one tensor for both."""
    return model.get_input_embeddings().weight is model.get_output_embeddings().weight


def freeze(model: Any, parts: tuple[str, ...]) -> None:
    """Take `parts` (embeddings, head) out of training.

    Raises ModelError where they are tied and only one is named.
    """
    _refuse_half_of_a_tie(model, parts, "training.freeze")
    for weight in _weights(model, parts):
        weight.requires_grad_(False)


def adapt(model: Any, config: Adapter, seed: int) -> PeftModel:
    """Freeze `model`, put adapters into it in place, and return PEFT's view of it.

    The adapters' product is 0 at the start: the student begins as it was. Their random
    half is drawn from `seed`. Raises ModelError where a name matches nothing, and for
    adapters that could not be honoured or not be merged.
    """
    from peft import LoraConfig, get_peft_model

    _refuse_half_of_a_tie(model, config.train_whole, "training.adapter.train_whole")
    _refuse_what_cannot_be_honoured(model, config)
    names = "all-linear" if config.modules == "all_linear" else list(config.modules)
    alpha: Any = config.scaling * config.rank  # PEFT divides it by r again; it need not be whole
    described = LoraConfig(
        r=config.rank,
        lora_alpha=alpha,
        target_modules=names,
        use_dora=config.kind == "dora",
        lora_dropout=0.0,
        bias="none",
    )
    with torch.random.fork_rng(), warnings.catch_warnings():
        torch.manual_seed(seed)
        # PEFT asks Transformers a question whose name has changed since, and warns of ties that it cannot
        # see through; those that matter were refused above.
        warnings.filterwarnings("ignore", message=".*ensure_weight_tying.*", category=UserWarning)
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
        try:
            adapted = get_peft_model(model, described)
        except ValueError as error:
            raise ModelError(f"training.adapter.modules {names} does not fit the student: {error}") from error
    for weight in _weights(model, config.train_whole):
        weight.requires_grad_(True)
    return adapted


def head_weight(layer: Any) -> Tensor:
    """[V, D] the head's weight as the model uses it, with a LoRA on it added."""
    if not hasattr(layer, "get_delta_weight"):  # PEFT's LoRA layers have it, no others
        return layer.weight  # type: ignore[no-any-return]
    weight: Tensor = layer.get_base_layer().weight
    for name in layer.active_adapters:
        weight = weight + layer.get_delta_weight(name).to(weight.dtype)
    return weight


def merged(adapted: PeftModel) -> Any:
    """The plain model with the adapters added into its weights; `adapted` is used up."""
    said = adapted.get_base_model().config.tie_word_embeddings
    with warnings.catch_warnings():
        # PEFT warns of T5's class, which says it is tied where it is not, and rewrites its configuration.
        warnings.filterwarnings("ignore", message=".*tied.*", category=UserWarning)
        model: Any = adapted.merge_and_unload()
    model.config.tie_word_embeddings = said
    return model


def save_adapter(adapted: PeftModel, folder: Any, config: Adapter) -> None:
    """Write the adapter as PEFT reads it; parts trained whole go with it."""
    adapted.save_pretrained(str(folder), save_embedding_layers=bool(config.train_whole))


def trains_all(model: nn.Module) -> bool:
    """Whether no parameter is frozen."""
    return all(parameter.requires_grad for parameter in model.parameters())


def _weights(model: Any, parts: tuple[str, ...]) -> list[nn.Parameter]:
    found: dict[str, Any] = {"embeddings": model.get_input_embeddings(), "head": model.get_output_embeddings()}
    chosen: list[Any] = [part for name, part in found.items() if name in parts]
    return [getattr(part, "base_layer", part).weight for part in chosen]


def _refuse_half_of_a_tie(model: Any, parts: tuple[str, ...], setting: str) -> None:
    if len(parts) == 1 and is_tied(model):
        raise ModelError(
            f"{setting} names {parts[0]} alone, but this student's head is its embeddings' transpose, one tensor; "
            "name both, or neither"
        )


def _refuse_what_cannot_be_honoured(model: Any, config: Adapter) -> None:
    if config.modules == "all_linear":
        return
    if _is_named(model, model.get_input_embeddings(), config.modules):
        raise ModelError(
            "training.adapter.modules puts an adapter on the embeddings, which is not supported; train them whole "
            "with training.adapter.train_whole"
        )
    if not _is_named(model, model.get_output_embeddings(), config.modules):
        return
    if is_tied(model):
        raise ModelError(
            "training.adapter.modules names the head, which is the embeddings' transpose in this student: an "
            "adapter on one could not be merged without changing the other. Leave it out, or train both whole "
            "with training.adapter.train_whole: [embeddings, head]"
        )
    if config.kind == "dora" or "head" in config.train_whole:
        raise ModelError(
            "the head cannot have a DoRA adapter, nor be adapted and trained whole at once; use kind: lora for it, "
            "leave it out of modules, or out of train_whole"
        )


def _is_named(model: nn.Module, part: nn.Module, names: tuple[str, ...]) -> bool:
    """Whether one of `names` ends the name of `part`, as PEFT matches them."""
    full = next(name for name, module in model.named_modules() if module is part)
    return any(full == name or full.endswith(f".{name}") for name in names)
