"""A T5 with random weights and a tokenizer trained on the spot: to see a recipe go round without a download.

    python examples/random_t5.py FOLDER PROMPTS.jsonl

It says nothing sensible and never will; it has the shape and the files of a real one,
so whatever runs with it runs with flan-t5.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoModelForSeq2SeqLM, PreTrainedTokenizerFast, T5Config


def train_tokenizer(texts: Sequence[str], size: int) -> PreTrainedTokenizerFast:
    """Unigram pieces with T5's specials: every text ends with </s>, and decoding starts from <pad>."""
    core = Tokenizer(models.Unigram())
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    core.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=size, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    core.train_from_iterator(texts, trainer)
    core.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


def main(arguments: Sequence[str]) -> None:
    """Write model and tokenizer to a folder."""
    folder, prompts = Path(arguments[0]), Path(arguments[1])
    rows = [json.loads(line) for line in prompts.read_text().splitlines()]
    texts = [str(value) for row in rows for value in row.values()]
    tokenizer = train_tokenizer(texts, 2000)
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=len(tokenizer), d_model=64, d_kv=16, d_ff=128, num_layers=8, num_decoder_layers=8, num_heads=4,
        pad_token_id=0, eos_token_id=1, decoder_start_token_id=0, dropout_rate=0.0, initializer_factor=2.0,
    )  # fmt: skip
    AutoModelForSeq2SeqLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    print(f"{folder}: {len(tokenizer)} tokens, 8 + 8 layers of width 64, random weights")


if __name__ == "__main__":
    main(sys.argv[1:])
