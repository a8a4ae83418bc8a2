"""How a student comes to be: loaded, cut from the teacher's layers, or from nothing.

Cutting copies embeddings, head and norms whole and some of the layers, the first
and the last always among them unless the layers are listed: those two do work
that no other layer can take over (they leave and enter the embedding's space).
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, LlamaConfig, T5Config

from potstill.config.model import LayersStudent, LoadedStudent, ScratchStudent
from potstill.models.adapt import is_tied
from potstill.models.load import Loaded, ModelError, load_model

#: Where the blocks hang in the decoder or encoder of most models of the Transformers library.
BLOCK_LISTS = ("layers", "block", "h", "blocks")


def build_student(
    config: LayersStudent | LoadedStudent | ScratchStudent, teacher: Loaded | None, seed: int
) -> tuple[Any, Any, dict[str, Any]]:
    """The student in fp32 on the CPU, its tokenizer, and its lineage.

    Only a loaded student can do without a `teacher`.
    Lineage is plain data: for a cut student, which of its layers came from where.
    Raises ModelError where the description does not fit the teacher.
    """
    if isinstance(config, LoadedStudent):
        loaded = load_model(config.model, torch.float32)
        return loaded.model, loaded.tokenizer, {"from": loaded.name, "fingerprint": loaded.fingerprint}
    if teacher is None:
        raise ValueError(f"a student of kind {config.kind} is made from its teacher, and none is given")
    if isinstance(config, ScratchStudent):
        student = from_scratch(config, teacher, seed)
        return student, teacher.tokenizer, {"from": "random weights", "seed": seed}
    student, layer_map = from_layers(teacher.model, config)
    lineage = {"from": teacher.name, "fingerprint": teacher.fingerprint, "layers": layer_map}
    return student, teacher.tokenizer, lineage


def spread(total: int, keep: int) -> tuple[int, ...]:
    """`keep` of `total` layers, evenly spaced, first and last among them; keep 1 gives the first."""
    if keep > total:
        raise ModelError(f"a student of {keep} layers cannot be cut from a teacher of {total}")
    if keep == 1:
        return (0,)
    return tuple(round(i * (total - 1) / (keep - 1)) for i in range(keep))


def from_layers(teacher: Any, config: LayersStudent) -> tuple[Any, dict[str, list[int]]]:
    """A copy of the teacher in fp32 with only the chosen layers.

    The map says for each stack, layer by layer, which layer of the teacher it was.
    """
    stacks = _stacks(teacher)
    chosen = {name: _choose(config, name, len(blocks)) for name, blocks in stacks.items()}
    student_config = copy.deepcopy(teacher.config)
    _set_depth(student_config, {name: len(kept) for name, kept in chosen.items()})
    for name in ("layer_types", "no_rope_layers"):  # per-layer facts that some configs carry
        facts = getattr(student_config, name, None)
        if facts is not None:
            setattr(student_config, name, [facts[i] for i in chosen["decoder"]])
    student = empty_twin(teacher, student_config)
    wanted = {key: value.to(torch.float32) for key, value in _renamed(teacher, chosen).items()}
    missing, unexpected = student.load_state_dict(wanted, strict=False)
    left = [key for key in missing if key in dict(student.named_parameters(remove_duplicate=True))]
    if left or unexpected:
        raise ModelError(
            f"{type(teacher).__name__} cannot be cut by layers: weights without a source {left[:4]}, without "
            f"a place {unexpected[:4]}. Build the student yourself and use `kind: load`."
        )
    student.generation_config = copy.deepcopy(teacher.generation_config)
    return student.eval(), {name: list(kept) for name, kept in chosen.items()}


def empty_twin(model: Any, config: Any) -> Any:
    """A new fp32 model of `config`, of the same class, its head tied or not as `model`'s is.

    T5's class ties its head whatever its configuration says; a T5 whose head is its own
    (flan-t5) got it when its file was read.
    """
    twin = type(model)(config).to(torch.float32)
    head, embedding = twin.get_output_embeddings(), twin.get_input_embeddings()
    if head.weight is embedding.weight and not is_tied(model):
        head.weight = nn.Parameter(head.weight.detach().clone())
    return twin


def from_scratch(config: ScratchStudent, teacher: Loaded, seed: int) -> Any:
    """Random weights, drawn from `seed`, over the teacher's vocabulary."""
    tokenizer = teacher.tokenizer
    ids = {
        "vocab_size": teacher.model.config.vocab_size,
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "tie_word_embeddings": config.tie_embeddings,
    }
    head_size = config.hidden_size // config.num_heads
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if config.architecture == "llama":
            llama = LlamaConfig(
                hidden_size=config.hidden_size,
                intermediate_size=config.ffn_size,
                num_hidden_layers=config.num_layers,
                num_attention_heads=config.num_heads,
                num_key_value_heads=config.num_heads,
                max_position_embeddings=config.max_length,
                **ids,
            )
            return AutoModelForCausalLM.from_config(llama).to(torch.float32).eval()
        t5 = T5Config(
            d_model=config.hidden_size,
            d_kv=head_size,
            d_ff=config.ffn_size,
            num_layers=config.num_layers,
            num_decoder_layers=config.num_layers,
            num_heads=config.num_heads,
            decoder_start_token_id=ids["pad_token_id"] or 0,
            dropout_rate=0.0,
            **ids,
        )
        return AutoModelForSeq2SeqLM.from_config(t5).to(torch.float32).eval()


def _stacks(model: Any) -> dict[str, nn.ModuleList]:
    """The model's lists of blocks, by stack: `decoder`, and `encoder` where there is one."""
    found = {"decoder": _blocks(model.get_decoder())}
    if model.config.is_encoder_decoder:
        found["encoder"] = _blocks(model.get_encoder())
    return found


def _blocks(stack: nn.Module) -> nn.ModuleList:
    for name in BLOCK_LISTS:
        blocks = getattr(stack, name, None)
        if isinstance(blocks, nn.ModuleList):
            return blocks
    raise ModelError(
        f"{type(stack).__name__} keeps its layers under none of {', '.join(BLOCK_LISTS)}; a student cannot be "
        "cut from it. Build the student yourself and use `kind: load`."
    )


def _choose(config: LayersStudent, stack: str, total: int) -> tuple[int, ...]:
    if config.layers is not None:
        if max(config.layers) >= total:
            raise ModelError(f"student.layers names layer {max(config.layers)}, the teacher's {stack} has {total}")
        return config.layers
    keep = config.num_layers
    if stack == "decoder" and config.num_decoder_layers is not None:
        keep = config.num_decoder_layers
    assert keep is not None
    return spread(total, keep)


def _set_depth(config: Any, depth: dict[str, int]) -> None:
    """Each family names its depth in its own way; the config must agree with the weights."""
    if not config.is_encoder_decoder:
        config.num_hidden_layers = depth["decoder"]
    elif hasattr(config, "encoder_layers"):  # BART's family
        config.encoder_layers, config.decoder_layers = depth["encoder"], depth["decoder"]
    else:  # T5's family
        config.num_layers, config.num_decoder_layers = depth["encoder"], depth["decoder"]


def _renamed(teacher: Any, chosen: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """The teacher's weights under the student's names."""
    prefixes = {
        name: next(path for path, module in teacher.named_modules() if module is blocks)
        for name, blocks in _stacks(teacher).items()
    }
    state = teacher.state_dict()
    kept = {k: v for k, v in state.items() if not any(k.startswith(p + ".") for p in prefixes.values())}
    for name, sources in chosen.items():
        prefix = prefixes[name]
        for new, old in enumerate(sources):
            start = f"{prefix}.{old}."
            kept |= {f"{prefix}.{new}.{k[len(start) :]}": v for k, v in state.items() if k.startswith(start)}
    # T5 computes relative positions in its first block only, whichever block that was.
    for key in [k for k in state if "relative_attention_bias" in k]:
        kept[key] = state[key]
    return kept
