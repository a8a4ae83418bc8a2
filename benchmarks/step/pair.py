"""The quickstart's teacher and student as plain folders, and the batches that both toolkits are fed.

    python benchmarks/step/pair.py FOLDER

Rows are the recipe's prompts with their reference answers, twelve a batch in the file's order, in
token ids, so that nobody tokenizes or shuffles anything.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from potstill.config import load_run
from potstill.models.load import load_model
from potstill.models.student import build_student

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "quickstart.yaml"
BATCH_ROWS = 12


def main(folder: Path) -> None:
    """Write teacher/, student/ and batches.json into `folder`."""
    config = load_run(RECIPE)
    teacher = load_model(config.teacher, torch.float32)
    student, _, _ = build_student(config.student, teacher, config.seed)
    for name, model in (("teacher", teacher.model), ("student", student)):
        model.save_pretrained(folder / name)
        teacher.tokenizer.save_pretrained(folder / name)
    rows = []
    for line in (RECIPE.parent / "prompts" / "everyday.jsonl").read_text().splitlines():
        example = json.loads(line)
        chat = [{"role": "user", "content": example["prompt"]}]
        text = teacher.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        prompt = teacher.tokenizer(text, add_special_tokens=False).input_ids
        answer = teacher.tokenizer(example["reference"], add_special_tokens=False).input_ids
        rows.append({"prompt": prompt, "answer": [*answer, teacher.tokenizer.eos_token_id]})
    batches = [rows[i : i + BATCH_ROWS] for i in range(0, len(rows) - BATCH_ROWS + 1, BATCH_ROWS)]
    (folder / "batches.json").write_text(json.dumps(batches))
    longest = [max(len(r["prompt"]) + len(r["answer"]) for r in batch) for batch in batches]
    print(f"{len(batches)} batches of {BATCH_ROWS} rows, padded to {min(longest)} to {max(longest)} positions")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
