"""Models of the tiny labs.

GPT-2's layers and not Llama's: its norms, activation and positions are single kernels,
which for models this small is half of the time.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from potstill.config.lab import TinyModel
from potstill.data.train_tokenizer import END, PAD, SPECIAL

#: GPT-2's own 0.02 is made for wide models; at a width of 64 it costs these half of their epochs.
INITIAL_SPREAD = 0.08


def make_model(how: TinyModel, vocabulary: int, positions: int, seed: int) -> Any:
    """Random weights drawn from `seed`, fp32, on the CPU, without dropout."""
    config = GPT2Config(
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
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return GPT2LMHeadModel(config).eval()
