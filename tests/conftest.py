"""Small real models for the tests: random Llama and T5 over a word tokenizer trained on the spot."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    LlamaConfig,
    PreTrainedTokenizerFast,
    T5Config,
)

from potstill.config import Run, parse_run

torch.set_num_threads(1)

ROOT = Path(__file__).parent.parent
TOPICS = ("tea", "rain", "boats", "bread", "stars", "birds")
TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% if m['role'] == 'assistant' %}</s>{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)


def tiny_prompts(count: int = 24) -> list[dict[str, str]]:
    """Prompts with references, by topic; every word of them is in the tokenizer's training text."""
    verbs = ("make", "like", "find", "draw", "buy", "share", "watch", "count")
    rows = []
    for i in range(count):
        topic, verb = TOPICS[i % len(TOPICS)], verbs[i // len(TOPICS) % len(verbs)]
        extra = " and why" * (i % 3)
        rows.append(
            {
                "id": f"{topic}-{i:02d}",
                "topic": topic,
                "prompt": f"how do people {verb} {topic}{extra}",
                "reference": f"people {verb} {topic} with care" + " every day" * (i % 2),
            }
        )
    return rows


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE of about 300 tokens with a chat template."""
    text = [value for row in tiny_prompts() for value in (row["prompt"], row["reference"])]
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    from tokenizers import decoders

    core.decoder = decoders.ByteLevel()
    specials = ["<pad>", "<s>", "</s>", "<system>", "<user>", "<assistant>"]
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=specials, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    core.train_from_iterator(text, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", bos_token="<s>", eos_token="</s>", chat_template=TEMPLATE
    )
    return fast


def make_llama(vocabulary: int, seed: int = 0, layers: int = 4, tie: bool = True, **extra: Any) -> torch.nn.Module:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=32, intermediate_size=48, num_hidden_layers=layers,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128, tie_word_embeddings=tie,
        bos_token_id=1, eos_token_id=2, pad_token_id=0, initializer_range=0.2, **extra,
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(config).eval()


def make_t5(vocabulary: int, seed: int = 0, layers: int = 3, tie: bool = True) -> torch.nn.Module:
    torch.manual_seed(seed)
    config = T5Config(
        vocab_size=vocabulary, d_model=32, d_kv=8, d_ff=48, num_layers=layers, num_decoder_layers=layers,
        num_heads=4, decoder_start_token_id=0, eos_token_id=2, pad_token_id=0, tie_word_embeddings=tie,
        dropout_rate=0.0, initializer_factor=2.0,
    )  # fmt: skip
    model = AutoModelForSeq2SeqLM.from_config(config).eval()
    if not tie:  # the class ties whatever its configuration says; real ones get their head when a file is read
        torch.manual_seed(seed + 100)
        model.lm_head.weight = torch.nn.Parameter(0.3 * torch.randn_like(model.shared.weight))
    return model


@pytest.fixture(scope="session")
def vocabulary(tokenizer: PreTrainedTokenizerFast) -> int:
    return len(tokenizer)


@pytest.fixture(scope="session")
def llama_folder(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any, vocabulary: int) -> Path:
    folder = tmp_path_factory.mktemp("llama-teacher")
    make_llama(vocabulary).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def t5_folder(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any, vocabulary: int) -> Path:
    folder = tmp_path_factory.mktemp("t5-teacher")
    make_t5(vocabulary).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def prompt_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("prompts") / "prompts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in tiny_prompts()))
    return path


BASE: dict[str, Any] = {
    "seed": 3,
    "student": {"kind": "layers", "num_layers": 2},
    "data": {
        "held_out": {"kind": "groups", "groups": ["stars", "birds"]},
        "completions": {
            "kind": "sample", "per_prompt": 2, "batch_rows": 8,
            "sampling": {"sampling_temperature": 0.8, "max_new_tokens": 12},
        },
        "max_length": 64,
    },
    "source": {"kind": "offline", "fractions": {"teacher": 0.75, "reference": 0.25}},
    "objective": {
        "terms": [
            {"kind": "forward_kl", "weight": 0.7, "on": ["teacher", "reference"], "divergence_temperature": 2.0},
            {"kind": "cross_entropy", "weight": 0.3, "on": ["teacher"]},
        ],
        "head_memory_mb": 0.01,
    },
    "training": {
        "steps": 6, "batch_rows": 8, "micro_batch_rows": 3, "precision": "fp32", "device": "cpu",
        "optimiser": {"learning_rate": 1e-3, "warmup_steps": 2},
    },
    "monitor": {"every_steps": 2, "sample_texts": 2, "sample_tokens": 8},
    "checkpoints": {"every_steps": 2},
}  # fmt: skip


@pytest.fixture
def make_run(llama_folder: Path, prompt_file: Path, tmp_path: Path) -> Callable[..., Run]:
    """A small run; keyword arguments replace settings by dotted key (dots as double underscores)."""

    def build(teacher: Path | None = None, output: Path | str = "run", **changes: Any) -> Run:
        tree = copy.deepcopy(BASE)
        tree["output"] = str(tmp_path / output)
        tree["teacher"] = {"kind": "folder", "path": str(teacher or llama_folder)}
        tree["data"]["prompts"] = {
            "path": str(prompt_file), "prompt": "prompt", "reference": "reference", "group": "topic", "id": "id",
        }  # fmt: skip
        for key, value in changes.items():
            node = tree
            *path, last = key.split("__")
            for part in path:
                node = node[part]
            node[last] = value
        return parse_run(tree)

    return build
