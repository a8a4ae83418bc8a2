"""What a few entries a position cost, and how far their gradient points from the whole one.

The quickstart's teacher, and a student cut from it that has learned nothing yet or, given a folder,
one that has. Text: the help pages that every Python carries. For each kind of targets: bytes a
token, and over all counted positions together, as an optimiser step sees them, cosine and length
of the gradient of forward KL beside those with the teacher's whole distributions: of the
student's hidden states through the head, of the head's matrix, and of all its parameters.
Then the test for bias: 1,000 draws, 20 fixed random directions, Holm's correction.

    python benchmarks/sparse.py [STUDENT_FOLDER] [--no-bias]

An entry is counted as 17 bits for an id and 7 for a count (Anshumann et al. 2025), or 16 for a
kept log-prob. The exact entropy (value only, never the gradient) would be 2 bytes a token more.
"""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import numpy as np
import torch
from scipy.stats import ttest_1samp
from torch import Tensor
from transformers import AutoModelForCausalLM

from potstill.batch import TokenBatch
from potstill.config import load_run
from potstill.config.objective import ObjectiveConfig
from potstill.data.collate import Layout, Row, collate
from potstill.head import Head
from potstill.losses import Objective
from potstill.losses.fused import weighted_sums
from potstill.losses.sparse import draw, keep_top
from potstill.models.load import load_model
from potstill.models.scored import ScoredModel
from potstill.models.student import build_student
from potstill.models.vocabulary import Alignment
from potstill.targets import Dense, TeacherTargets
from potstill.training.hardware import environment, keep_freed_memory

RECIPE = Path(__file__).parent.parent / "recipes" / "quickstart.yaml"
OBJECTIVE = Objective(
    ObjectiveConfig.model_validate({"terms": [{"kind": "forward_kl", "weight": 1.0, "on": ["reference"]}]})
)
#: Draws that give about 12 different tokens on this text.
DRAWS, ROWS, LENGTH = 32, 12, 82
REPEATS, DIRECTIONS, POSITIONS = 1000, 20, 48


def batch(tokenizer: Any) -> TokenBatch:
    """Rows of prose, the second half of each counted."""
    pages = [text for _, text in sorted(topics.items()) if len(text) > 2000][:ROWS]
    rows = []
    for i, page in enumerate(pages):
        ids = tuple(tokenizer(page[200:], add_special_tokens=False).input_ids[:LENGTH])
        half = len(ids) // 2
        rows.append(Row(f"p{i}", 0, "reference", ids[:half], (False,) * half, ids[half:]))
    return OBJECTIVE.weigh(collate(rows, Layout(0)))


def uniforms(seed: int, rows: int, draws: int = DRAWS) -> Tensor:
    return torch.rand(rows, draws, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gradients(student: ScoredModel, data: TokenBatch, targets: TeacherTargets) -> dict[str, Tensor]:
    """Of the mean over counted positions: hidden states, the head alone, all parameters."""
    student.zero_grad(set_to_none=True)
    scored = student(replace(data, targets=targets), OBJECTIVE)
    (scored.total / data.num_counted).backward()
    everything = torch.cat([p.grad.flatten() for p in student.parameters() if p.grad is not None])
    hidden = student.hidden(data).detach().requires_grad_()
    matrix = student.head().weight.detach().requires_grad_()
    of_head(hidden, matrix, targets).backward()
    assert hidden.grad is not None and matrix.grad is not None
    return {"hidden states": hidden.grad, "head": matrix.grad, "all parameters": everything}


def of_head(hidden: Tensor, matrix: Tensor, targets: TeacherTargets) -> Tensor:
    """The undivided total through the head alone."""
    ids, ones = torch.zeros(len(hidden), dtype=torch.long), {"forward_kl": torch.ones(len(hidden))}
    return weighted_sums(hidden, Head(matrix), ids, ones, targets, OBJECTIVE).total


def compare(found: dict[str, Tensor], whole: dict[str, Tensor]) -> dict[str, dict[str, float]]:
    """Cosine, angle in degrees and ratio of lengths."""
    made = {}
    for name, exact in whole.items():
        a, b = found[name].flatten().double(), exact.flatten().double()
        cosine = float(a @ b / (a.norm() * b.norm()))
        made[name] = {
            "cosine": cosine,
            "degrees": math.degrees(math.acos(min(1.0, cosine))),
            "length": float(a.norm() / b.norm()),
        }
    return made


def holm(p_values: np.ndarray) -> np.ndarray:
    """Corrected p-values (Holm 1979), smallest first."""
    ordered = np.sort(p_values)
    return np.maximum.accumulate(ordered * np.arange(len(ordered), 0, -1)).clip(max=1)


def bias(student: ScoredModel, data: TokenBatch, log_p: Tensor) -> dict[str, Any]:
    """Means over draws, along fixed directions, beside the exact gradient of some positions' hidden states."""
    chosen = torch.linspace(0, len(log_p) - 1, POSITIONS).long()
    hidden, log_p = student.hidden(data).detach()[chosen], log_p[chosen]
    matrix = student.head().weight.detach()

    def one(targets: TeacherTargets) -> tuple[Tensor, float]:
        states = hidden.clone().requires_grad_()
        total = of_head(states, matrix, targets)
        total.backward()
        assert states.grad is not None
        return states.grad.flatten().double(), total.item()

    exact, value = one(Dense(log_p, "t"))
    generator = torch.Generator().manual_seed(7)
    directions = torch.randn(DIRECTIONS, len(exact), generator=generator, dtype=torch.float64)
    along, values = [], []
    for seed in range(REPEATS):
        found, total = one(draw(log_p, uniforms(10_000 + seed, POSITIONS), "t"))
        along.append((directions @ (found - exact)).numpy())
        values.append(total - value)
        if (seed + 1) % 100 == 0:
            print(f"  {seed + 1} of {REPEATS} draws", flush=True)
    corrected = holm(ttest_1samp(np.stack(along), 0).pvalue)
    kept = keep_top(log_p, 12, "renormalised", "t")
    shift = (directions @ (one(kept)[0] - exact)).numpy()
    spread = np.stack(along).std(0) / math.sqrt(REPEATS)
    return {
        "holm_corrected_p_values": corrected.tolist(),
        "p_of_value": float(ttest_1samp(np.array(values), 0).pvalue),
        "renormalised_top_12_in_standard_errors": np.abs(shift / spread).tolist(),
    }


def main() -> None:
    keep_freed_memory()
    config = load_run(RECIPE)
    teacher = load_model(config.teacher, torch.float32)
    folders = [word for word in sys.argv[1:] if not word.startswith("--")]
    if folders:
        model = AutoModelForCausalLM.from_pretrained(folders[0], dtype=torch.float32)
    else:
        model, _, _ = build_student(config.student, teacher, 0)
    student = ScoredModel(model.eval())
    data = batch(teacher.tokenizer)
    scored = ScoredModel(teacher.model)
    said = scored.targets(data, Alignment(None, scored.vocabulary_width), "t")
    log_p = torch.log_softmax(said.logits(), -1)
    whole = gradients(student, data, said)
    made: dict[str, Any] = {}
    drawn = [draw(log_p, uniforms(seed, len(log_p)), "t") for seed in range(5)]
    different = float(np.mean([(d.counts > 0).sum(-1).double().mean().item() for d in drawn]))
    size = different * 24 / 8
    made[f"sampled, {DRAWS} draws, {different:.1f} ids"] = (size, [gradients(student, data, d) for d in drawn])
    for k in (round(size * 8 / 33), 12, 50):
        for missing in ("renormalised", "tail"):
            kept = keep_top(log_p, k, missing, "t")
            made[f"top {k}, {missing}"] = (k * 33 / 8, [gradients(student, data, kept)])
    figures: dict[str, Any] = {}
    for name, (size, found) in made.items():
        each = [compare(g, whole) for g in found]
        figures[name] = {"bytes_per_token": size} | {
            part: {key: float(np.mean([e[part][key] for e in each])) for key in each[0][part]} for part in whole
        }
        line = "; ".join(f"{part} {f['cosine']:.4f} ({f['degrees']:.0f} degrees, length {f['length']:.2f})"
                         for part, f in figures[name].items() if part != "bytes_per_token")  # fmt: skip
        print(f"{name:<28}{size:6.1f} bytes  {line}", flush=True)
    tested = None if "--no-bias" in sys.argv else bias(student, data, log_p)
    if tested is not None:
        off = float(np.median(tested["renormalised_top_12_in_standard_errors"]))
        print(
            f"bias of sampled targets: smallest corrected p {tested['holm_corrected_p_values'][0]:.3f}, "
            f"of the value {tested['p_of_value']:.3f}; top 12 renormalised is off by {off:.0f} standard errors (median)"
        )
    kept_figures = {
        "counted_positions": data.num_counted, "draws": DRAWS, "figures": figures, "bias": tested,
        "student": "trained" if folders else "cut, untrained",
        "environment": environment(torch.device("cpu")),
    }  # fmt: skip
    name = "sparse_trained.json" if folders else "sparse.json"
    Path(__file__).with_name(name).write_text(json.dumps(kept_figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
