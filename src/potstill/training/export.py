"""A student as an ordinary Hugging Face folder, with a card that says where it comes from.

Any checkpoint can be exported, not only the one that the verdict chose. Adapters are
merged into the weights, so that whoever loads the folder needs nothing but
Transformers, and lie beside them (`adapter/`) as PEFT reads them.
"""

from __future__ import annotations

import copy
from pathlib import Path

from potstill.config import parse_run
from potstill.config.run import Run
from potstill.diagnosis import diagnose
from potstill.models.adapt import merged, save_adapter, trains_all
from potstill.models.student import empty_twin
from potstill.records import DataPlan, Verdict
from potstill.run_dir import RunDir, RunDirError
from potstill.training.card import card
from potstill.training.checkpoint import load
from potstill.training.stages import Models, computing_dtype, fresh_student


def export_step(run: RunDir, step: int, output: Path | None = None) -> Path:
    """Write the student of `step` to `output` (default: exports/ in the run) and return the folder.

    Raises RunDirError where that step has no checkpoint, or `output` is in use.
    """
    available = run.checkpoint_steps()
    if step not in available:
        kept = ", ".join(map(str, available)) or "none"
        raise RunDirError(
            f"{run.path} keeps no checkpoint of step {step}; there are: {kept}. A run keeps the last "
            "checkpoints.keep_last and the best."
        )
    folder = output or run.file("exports") / run.checkpoint_path(step).name
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RunDirError(f"{folder} exists and is not empty; choose another with --output, or remove it")
    export_student(run, step, parse_run(run.read_config()), None, diagnose(run.path), folder)
    return folder


def export_student(
    run: RunDir, step: int, config: Run, models: Models | None, verdict: Verdict, folder: Path
) -> None:  # fmt: skip
    """Write `folder` from the checkpoint of `step`; what is already there is replaced whole.

    `models` are those of the run where they are still in memory: their student gives
    the architecture, its weights are not used. Without them, and where some of the
    student was frozen (and is in no checkpoint), the student is built again. The
    folder holds weights in the precision that the run computed in.
    """
    adapted = None
    if models is not None and trains_all(models.student):
        student, tokenizer = empty_twin(models.student, copy.deepcopy(models.student.config)), models.tokenizer
        student.generation_config = copy.deepcopy(models.student.generation_config)
    else:
        student, tokenizer, adapted = fresh_student(config)
    plans = [DataPlan(**plan) for plan in load(run, step, student, None)["plans"]]
    with run.building(folder) as building:
        if adapted is not None and config.training.adapter is not None:
            save_adapter(adapted, building / "adapter", config.training.adapter)
            student = merged(adapted)
        dtype = computing_dtype(config)
        student.to(dtype).eval()
        student.config.dtype = dtype
        student.save_pretrained(building)
        tokenizer.save_pretrained(building)
        text = card(step, config, run.read_json("provenance.json"), verdict, plans)
        (building / "README.md").write_text(text)
