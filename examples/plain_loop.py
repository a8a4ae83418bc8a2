"""Distillation in one flat file: what `potstill run` does, without its abstractions.

A teacher, a student made of some of its layers, prompts, the teacher's answers, and
forward KL on the answers' tokens. Read it from top to bottom; it is the tutorial,
and a test holds the real loop to the losses that this one prints.

    python examples/plain_loop.py TEACHER_FOLDER PROMPTS.jsonl --steps 6

TEACHER_FOLDER is a decoder-only model as `save_pretrained` writes it; PROMPTS.jsonl
has a key `prompt` in every line. Letters: B rows, T positions, N counted positions,
V vocabulary, D hidden width.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from potstill.generation.base import uniforms
from potstill.sources.base import permutation

Example = tuple[list[int], list[int]]  # prompt ids, answer ids

parser = argparse.ArgumentParser()
parser.add_argument("teacher", type=Path)
parser.add_argument("prompts", type=Path)
parser.add_argument("--layers", type=int, default=2, help="layers of the student")
parser.add_argument("--steps", type=int, default=6)
parser.add_argument("--batch-rows", type=int, default=8)
parser.add_argument("--micro-batch-rows", type=int, default=3)
parser.add_argument("--learning-rate", type=float, default=1e-3)
parser.add_argument("--warmup-steps", type=int, default=2)
parser.add_argument("--max-new-tokens", type=int, default=12)
parser.add_argument("--divergence-temperature", type=float, default=1.0)
parser.add_argument("--seed", type=int, default=3)


def cut_student(teacher: Any, num_layers: int) -> Any:
    """Keep evenly spaced layers, the first and the last among them; all else is copied."""
    total = len(teacher.model.layers)
    keep = [round(i * (total - 1) / (num_layers - 1)) for i in range(num_layers)]
    student = copy.deepcopy(teacher)
    student.model.layers = torch.nn.ModuleList(student.model.layers[i] for i in keep)
    for new, layer in enumerate(student.model.layers):
        layer.self_attn.layer_idx = new
    student.config.num_hidden_layers = num_layers
    return student


@torch.no_grad()
def sample(teacher: Any, prompt: list[int], name: str, options: argparse.Namespace, end: int) -> list[int]:
    """One answer, token by token: draw u, take the token at which the cumulated probability passes u."""
    numbers = uniforms(options.seed, "train-teacher", name, 0, options.max_new_tokens)
    ids = list(prompt)
    for u in numbers:
        probabilities = torch.softmax(teacher(torch.tensor([ids])).logits[0, -1].double(), -1)
        cumulative = probabilities.cumsum(-1)
        token = int(torch.searchsorted(cumulative, float(u) * cumulative[-1], right=True))
        ids.append(token)
        if token == end:
            break
    return ids[len(prompt) :]


def collate(rows: list[Example]) -> tuple[Tensor, Tensor, Tensor]:
    """Right-padded inputs [B, T], attention mask [B, T], counted [B, T]: output t predicts token t + 1."""
    longest = max(len(prompt) + len(answer) for prompt, answer in rows) - 1
    inputs = torch.zeros(len(rows), longest, dtype=torch.long)
    mask, counted = torch.zeros_like(inputs), torch.zeros_like(inputs, dtype=torch.bool)
    for i, (prompt, answer) in enumerate(rows):
        ids = (prompt + answer)[:-1]
        inputs[i, : len(ids)] = torch.tensor(ids)
        mask[i, : len(ids)] = 1
        counted[i, len(prompt) - 1 : len(ids)] = True
    return inputs, mask, counted


def learning_rate(step: int, options: argparse.Namespace) -> float:
    """Linear warm-up, then half a cosine down to a tenth."""
    if step < options.warmup_steps:
        return float(options.learning_rate * (step + 1) / options.warmup_steps)
    progress = (step - options.warmup_steps) / max(1, options.steps - 1 - options.warmup_steps)
    return float(options.learning_rate * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * progress))))


def rows_of_step(step: int, num_rows: int, options: argparse.Namespace) -> list[int]:
    """Every epoch visits each row once, in an order keyed by seed and epoch."""
    places = np.arange(step * options.batch_rows, (step + 1) * options.batch_rows)
    return [int(permutation(options.seed, "teacher", p // num_rows, num_rows)[p % num_rows]) for p in places]


def main(arguments: list[str] | None = None) -> list[float]:
    """Distil, print a line a step, return the losses."""
    options = parser.parse_args(arguments)
    tokenizer = AutoTokenizer.from_pretrained(options.teacher)
    teacher = AutoModelForCausalLM.from_pretrained(options.teacher, dtype=torch.float32).eval()
    student = cut_student(teacher, options.layers)
    prompts = [json.loads(line) for line in options.prompts.read_text().splitlines()]

    rows: list[Example] = []
    for i, line in enumerate(prompts):
        chat = [{"role": "user", "content": line["prompt"]}]
        text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        prompt = tokenizer(text, add_special_tokens=False).input_ids
        answer = sample(teacher, prompt, str(line.get("id", i)), options, tokenizer.eos_token_id)
        rows.append((prompt, answer))

    matrices = [p for p in student.parameters() if p.ndim >= 2]
    vectors = [p for p in student.parameters() if p.ndim < 2]
    groups = [{"params": matrices}, {"params": vectors}]
    optimiser = torch.optim.AdamW(groups, lr=1.0, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.0)
    temperature = options.divergence_temperature
    losses = []
    for step in range(options.steps):
        chosen = [rows[i] for i in rows_of_step(step, len(rows), options)]
        # What counts is known before the first backward: every answer token, in all micro-batches.
        denominator = sum(len(answer) for _, answer in chosen)
        loss_of_step = 0.0
        for start in range(0, len(chosen), options.micro_batch_rows):
            inputs, mask, counted = collate(chosen[start : start + options.micro_batch_rows])
            with torch.no_grad():
                logits = teacher(inputs, attention_mask=mask).logits[counted]  # [N, V]
                p = torch.log_softmax(logits / temperature, -1)
            q = torch.log_softmax(student(inputs, attention_mask=mask).logits[counted] / temperature, -1)
            divergence = (p.exp() * (p - q)).sum(-1)  # [N] nats
            loss = temperature**2 * divergence.sum() / denominator
            loss.backward()
            loss_of_step += loss.item()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, options)
        optimiser.step()
        optimiser.zero_grad()
        losses.append(loss_of_step)
        print(f"step {step + 1:>4}  loss {loss_of_step:.6f} nats per token, {denominator} tokens")
    return losses


if __name__ == "__main__":
    main()
