"""Tokenizers and models of the tiny labs.

GPT-2's layers and not Llama's: its norms, activation and positions are single kernels,
which for models this small is half of the time.
"""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from potstill.config.lab import Bpe, Characters, TinyModel

PAD, END, UNKNOWN = "<pad>", "<end>", "<unknown>"
SPECIAL = [PAD, END, UNKNOWN]
#: GPT-2's own 0.02 is made for wide models; at a width of 64 it costs these half of their epochs.
INITIAL_SPREAD = 0.08


def make_tokenizer(how: Characters | Bpe, text: str) -> PreTrainedTokenizerFast:
    """A tokenizer learned from `text`; its end token is id 1."""
    if isinstance(how, Bpe):
        core = Tokenizer(models.BPE())
        core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        core.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=how.vocabulary,
            special_tokens=SPECIAL,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        core.train_from_iterator([text], trainer)
    else:
        names = [*SPECIAL, *sorted(set(text))]
        core = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token=UNKNOWN))
        core.pre_tokenizer = pre_tokenizers.Split("", "isolated")
        core.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token=PAD, eos_token=END, unk_token=UNKNOWN)


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
