"""A student as an ordinary Hugging Face folder, with a card that says where it comes from."""

from __future__ import annotations

import copy
from typing import Any

import torch

from potstill.config.run import Run
from potstill.models.load import Loaded
from potstill.records import Verdict
from potstill.run_dir import RunDir
from potstill.training.checkpoint import load


def export_student(
    run: RunDir, step: int, blueprint: Any, tokenizer: Any, config: Run, teacher: Loaded,
    lineage: dict[str, Any], verdict: Verdict,
) -> None:  # fmt: skip
    """Write `student/` from the checkpoint of `step`; a student already there is replaced whole.

    `blueprint` gives the architecture; its weights are not used. The folder holds
    weights in the precision that the run computed in.
    """
    student = type(blueprint)(copy.deepcopy(blueprint.config)).to(torch.float32)
    student.generation_config = copy.deepcopy(blueprint.generation_config)
    load(run, step, student, None)
    dtype = torch.bfloat16 if config.training.precision == "bf16" else torch.float32
    student.to(dtype).eval()
    student.config.dtype = dtype
    with run.building(run.file("student")) as folder:
        student.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        (folder / "README.md").write_text(card(step, config, teacher, lineage, verdict))


def card(step: int, config: Run, teacher: Loaded, lineage: dict[str, Any], verdict: Verdict) -> str:
    """The model card: lineage, objective, verdict."""
    terms = ", ".join(f"{t.weight:g} x {t.name} on {'/'.join(t.on)}" for t in config.objective.terms)
    layers = lineage.get("layers")
    cut = "".join(f"- {name} layers from the teacher's {kept}\n" for name, kept in (layers or {}).items())
    return (
        "---\nlibrary_name: transformers\ntags: [distillation, potstill]\n---\n\n"
        f"# Distilled from {teacher.name}\n\n"
        f"**Verdict: {verdict.verdict}** (confidence {verdict.confidence:.2f}). {verdict.sentence}\n\n"
        "## Lineage\n\n"
        f"- teacher: {teacher.name}, fingerprint {teacher.fingerprint}, revision {teacher.revision}\n"
        f"- student: {lineage['from']}\n{cut}"
        f"- checkpoint of step {step} of {config.training.steps}\n"
        f"- objective: {terms}\n- seed {config.seed}\n"
    )
