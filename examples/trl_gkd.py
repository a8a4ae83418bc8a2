"""Potstill's monitor in TRL's GKDTrainer: is the student learning the task, or its teacher's mistakes?

Everything is made on the spot: sentences of a small grammar, a teacher that has seen a
few hundred of them, and a student half its size. TRL trains the student (GKD, Agarwal et
al. 2024, arXiv 2306.13649); MonitorCallback measures it on prompts that neither model was
trained on, and says at the end what the curves mean. About a minute on one core.

    pip install potstill trl tensorboard
    python examples/trl_gkd.py runs/trl-gkd
    potstill diagnose runs/trl-gkd/potstill
    potstill diagnose runs/trl-gkd/trainer
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast
from trl.experimental.gkd import GKDConfig, GKDTrainer  # type: ignore[import-not-found]

from potstill import MonitorCallback

TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}> {{ m['content'] }} {% if m['role'] == 'assistant' %}</s>{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<assistant> {% endif %}"
)
WHO = ["people", "children", "sailors", "bakers", "poets", "farmers", "doctors", "singers"]
VERBS = ["make", "find", "draw", "buy", "share", "watch", "count", "paint"]
THINGS = ["tea", "rain", "boats", "bread", "stars", "birds", "songs", "lamps"]
HOW = ["with care", "every day", "in the rain", "for a friend", "by the sea", "at night"]
HELD_OUT = 96


def rows(seed: int) -> list[dict[str, Any]]:
    """A prompt for each who, verb and thing; how it is done depends on all three, and a little on chance."""
    chance, made = random.Random(seed), []
    for i, (who, verb, thing) in enumerate(itertools.product(WHO, VERBS, THINGS)):
        usual = (WHO.index(who) + 2 * VERBS.index(verb) + 3 * THINGS.index(thing)) % len(HOW)
        how = HOW[usual] if chance.random() < 0.7 else chance.choice(HOW)
        answer = f"{who} {verb} {thing} {how}"
        if chance.random() < 0.3:
            answer += f" and {chance.choice(VERBS)} {thing} {chance.choice(HOW)}"
        made.append({"id": f"row-{i:03d}", "prompt": f"how do {who} {verb} {thing}", "reference": answer})
    chance.shuffle(made)
    return made


def word_tokenizer(texts: list[str]) -> Any:
    words = sorted({word for text in texts for word in text.split()})
    names = ["<pad>", "<s>", "</s>", "<unk>", "<system>", "<user>", "<assistant>", *words]
    core = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>",
        chat_template=TEMPLATE, model_max_length=64,
    )  # fmt: skip


def small_gpt2(tokenizer: Any, seed: int, width: int, layers: int) -> Any:
    torch.manual_seed(seed)
    return GPT2LMHeadModel(GPT2Config(
        vocab_size=len(tokenizer), n_positions=64, n_embd=width, n_layer=layers, n_head=4,
        bos_token_id=1, eos_token_id=2, pad_token_id=0, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    ))  # fmt: skip


def conversation(row: dict[str, Any], answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": answer}]


def teach(teacher: Any, tokenizer: Any, examples: list[dict[str, Any]], epochs: int = 12) -> None:
    """Plain fine-tuning on references: the teacher knows the task, and has its mistakes."""
    optimizer = torch.optim.AdamW(teacher.parameters(), lr=2e-3, weight_decay=0.1)
    for _ in range(epochs):
        random.Random(epochs).shuffle(examples)
        for start in range(0, len(examples), 16):
            texts = [conversation(row, row["reference"]) for row in examples[start : start + 16]]
            batch = tokenizer.apply_chat_template(texts, padding=True, return_tensors="pt", return_dict=True)
            labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
            teacher(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    teacher.eval()


def main() -> None:
    """Teach the teacher, distil with TRL, print the verdict."""
    parser = argparse.ArgumentParser()
    parser.add_argument("output", type=Path)
    parser.add_argument("--steps", type=int, default=600)
    options = parser.parse_args()

    everything = rows(seed=0)
    held_out, train = everything[:HELD_OUT], everything[HELD_OUT:]
    tokenizer = word_tokenizer([row[key] for row in everything for key in ("prompt", "reference")])
    teacher = small_gpt2(tokenizer, seed=0, width=64, layers=3)
    teach(teacher, tokenizer, train[:300])
    student = small_gpt2(tokenizer, seed=1, width=48, layers=2)

    callback = MonitorCallback(
        teacher=teacher,
        tokenizer=tokenizer,
        prompts=[{**row, "prompt": conversation(row, "")[:1]} for row in held_out],  # chat, as the trainer's rows
        output=options.output / "potstill",
        every_steps=30,
        max_new_tokens=16,
        batch_rows=32,
        stop_on=["overfitting"],
    )
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(options.output / "tensorboard")
    arguments = GKDConfig(
        str(options.output / "trainer"), max_steps=options.steps, per_device_train_batch_size=16, learning_rate=3e-3,
        lr_scheduler_type="constant", lmbda=0.25, beta=0.5, temperature=1.0, max_new_tokens=16, logging_steps=5,
        save_steps=30, save_total_limit=2, report_to="tensorboard", use_cpu=True, bf16=False,
        gradient_checkpointing=False, disable_tqdm=True, seed=0,
    )  # fmt: skip
    dataset = Dataset.from_list([{"messages": conversation(row, row["reference"])} for row in train])
    trainer = GKDTrainer(
        model=student, teacher_model=teacher, args=arguments, train_dataset=dataset, processing_class=tokenizer,
        callbacks=[callback],
    )  # fmt: skip
    callback.feed_trackers(trainer)  # TensorBoard gets potstill's curves too
    trainer.train()
    trainer.save_state()  # trainer_state.json with the last evaluation, which comes after the last checkpoint
    assert callback.verdict is not None
    print(callback.verdict.verdict, "-", callback.verdict.sentence)


if __name__ == "__main__":
    main()
