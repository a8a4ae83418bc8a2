"""Tokenizers learned from text: byte pairs, or a token for each character."""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from potstill.config.lab import Bpe, Characters

PAD, END, UNKNOWN = "<pad>", "<end>", "<unknown>"
SPECIAL = [PAD, END, UNKNOWN]


def train_tokenizer(how: Characters | Bpe, texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """A tokenizer learned from `texts`; its end token is id 1."""
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
        core.train_from_iterator(texts, trainer)
    else:
        names = [*SPECIAL, *sorted(set().union(*map(set, texts)))]
        core = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token=UNKNOWN))
        core.pre_tokenizer = pre_tokenizers.Split("", "isolated")
        core.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token=PAD, eos_token=END, unk_token=UNKNOWN)
