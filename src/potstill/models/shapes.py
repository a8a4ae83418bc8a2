"""Decoders with random weights, from a few numbers: GPT-2's layers or Llama's.

Tiny labs take GPT-2's: its norms, activation and positions are single kernels, which for
models this small is half of the time.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from potstill.config.lab import TinyModel
from potstill.config.pretraining import LlamaModel
from potstill.data.train_tokenizer import END, PAD, SPECIAL

#: GPT-2's own 0.02 is made for wide models; at a width of 64 it costs these half of their epochs.
INITIAL_SPREAD = 0.08


def make_model(how: TinyModel | LlamaModel, vocabulary: int, positions: int, seed: int) -> Any:
    """Random weights drawn from `seed`, fp32, on the CPU, without dropout."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return (_llama if isinstance(how, LlamaModel) else _gpt2)(how, vocabulary, positions).eval()


def _gpt2(how: Any, vocabulary: int, positions: int) -> Any:
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=vocabulary,
            n_positions=positions,
            n_embd=how.hidden_size,
            n_layer=how.num_layers,
            n_head=how.num_heads,
            n_inner=how.ffn_size,
            activation_function="gelu",
            initializer_range=INITIAL_SPREAD,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=None,
            eos_token_id=SPECIAL.index(END),
            pad_token_id=SPECIAL.index(PAD),
        )
    )


def _llama(how: Any, vocabulary: int, positions: int) -> Any:
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            max_position_embeddings=positions,
            hidden_size=how.hidden_size,
            num_hidden_layers=how.num_layers,
            num_attention_heads=how.num_heads,
            num_key_value_heads=how.num_kv_heads or how.num_heads,
            intermediate_size=how.ffn_size,
            tie_word_embeddings=how.tie_embeddings,
            bos_token_id=None,
            eos_token_id=SPECIAL.index(END),
            pad_token_id=SPECIAL.index(PAD),
        )
    )


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """(all parameters, those of the body: without embeddings, positions and head). A tied one counts once."""
    outside = {id(p) for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
    head = model.get_output_embeddings()  # type: ignore[operator]
    outside |= {id(p) for p in head.parameters()}
    every = list(model.parameters())
    return sum(p.numel() for p in every), sum(p.numel() for p in every if id(p) not in outside)


def shape_parameters(how: TinyModel | LlamaModel, vocabulary: int, positions: int) -> tuple[int, int, int]:
    """(all, body, computing) parameters; those of body and head multiply at every token. Nothing is allocated."""
    with torch.device("meta"):
        model = (_llama if isinstance(how, LlamaModel) else _gpt2)(how, vocabulary, positions)
    every, body = count_parameters(model)
    return every, body, body + vocabulary * how.hidden_size
