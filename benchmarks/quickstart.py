"""The quickstart's figures: is the student any good, and better than cross-entropy alone?

Reads finished runs and prints, for each, held-out forward KL per token, golden, time, and
what 20 greedy answers to held-out prompts look like: how many repeat some 4-gram three
times, how many end by themselves within 96 tokens. The student is loaded as any user
would, with `from_pretrained`.

    make demo
    potstill run recipes/quickstart_cross_entropy.yaml
    python benchmarks/quickstart.py runs/quickstart runs/quickstart_cross_entropy

Details go to a .json file beside this one, or to the one named by --output FILE.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import torch

import potstill
from potstill.run_dir import RunDir
from potstill.training.stages import load_prompts

ANSWERS, LONGEST = 20, 96


def repeats(ids: list[int]) -> bool:
    """Whether some 4-gram of tokens stands three times."""
    grams = Counter(tuple(ids[i : i + 4]) for i in range(len(ids) - 3))
    return any(count >= 3 for count in grams.values())


@torch.no_grad()
def greedy_answers(path: Path) -> list[dict[str, Any]]:
    """Spread over the held-out prompts, one at a time, plain `generate`."""
    run = potstill.open_run(path)
    model, tokenizer = run.student()
    is_pair = bool(model.config.is_encoder_decoder)
    prompts = load_prompts(run.config, tokenizer, is_pair)
    held_out = prompts.held_out
    answers = []
    for prompt in [held_out[i * len(held_out) // ANSWERS] for i in range(ANSWERS)]:
        ids = torch.tensor([prompts.encoded[prompt.id].ids])
        output = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=LONGEST)[0]
        answer = output[1 if is_pair else ids.shape[1] :].tolist()
        answers.append(
            {
                "prompt": prompt.flat_text(),
                "answer": tokenizer.decode(answer, skip_special_tokens=True),
                "ended": answer[-1] == tokenizer.eos_token_id,
                "repeats": repeats(answer),
            }
        )
    return answers


def figures(path: Path) -> dict[str, Any]:
    """One run's figures."""
    run = RunDir(path)
    first, last = run.evaluations()[0], run.evaluations()[-1]
    answers = greedy_answers(path)
    finished = [line for line in run.lines("events.jsonl") if line["event"] == "finished"]
    return {
        "run": path.name,
        "steps": last.step,
        "held_out_prompts": len(last.splits),
        "forward_kl_per_token": [first.series["proxy_fkl"].per_token(), last.series["proxy_fkl"].per_token()],
        "golden_per_token": [first.series["golden"].per_token(), last.series["golden"].per_token()],
        "teacher_golden_per_token": last.series["teacher_golden"].per_token(),
        "verdict": run.read_json("verdict.json")["verdict"],
        "seconds": finished[-1]["seconds"],
        "answers_that_repeat": sum(a["repeats"] for a in answers),
        "answers_that_end": sum(a["ended"] for a in answers),
        "answers": answers,
        "environment": run.read_json("environment.json"),
    }


def main() -> None:
    """Print a table, keep the details beside this file."""
    arguments = sys.argv[1:]
    output = Path(__file__).with_suffix(".json")
    if "--output" in arguments:
        place = arguments.index("--output")
        output = Path(arguments[place + 1])
        del arguments[place : place + 2]
    found = [figures(Path(argument)) for argument in arguments]
    for each in found:
        kl, golden = each["forward_kl_per_token"], each["golden_per_token"]
        print(f"{each['run']}: {each['steps']} steps, {each['held_out_prompts']} held-out prompts")
        print(f"  forward KL per token {kl[0]:.2f} -> {kl[1]:.2f} nats; verdict {each['verdict']}")
        print(f"  golden {golden[0]:.2f} -> {golden[1]:.2f} (teacher {each['teacher_golden_per_token']:.2f})")
        print(f"  of {ANSWERS} greedy answers {each['answers_that_repeat']} repeat, {each['answers_that_end']} end")
        print(f"  seconds: { {name: round(s) for name, s in each['seconds'].items()} }")
    output.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
