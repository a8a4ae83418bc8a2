"""The held-out test of a run: teacher and student before the first step, the exported student after the last."""

from __future__ import annotations

from typing import Any

from torch import nn

from potstill.config.data import Sampling
from potstill.config.model import FolderModel
from potstill.config.run import Run
from potstill.evaluation.pass_rate import PassRate, better_by_chance, pass_rate
from potstill.generation.base import Generator, Request
from potstill.generation.local import LocalSampler
from potstill.models.load import load_model
from potstill.records import Prompt
from potstill.run_dir import RunDir, RunDirError
from potstill.training.completions import local_sampler
from potstill.training.parallel import World
from potstill.training.speaking import speaking
from potstill.training.stages import Models, Prompts, computing_dtype
from potstill.verifiers.build import build_verifiers

FILE = "benchmark.json"


def measure_start(
    run: RunDir, config: Run, world: World, models: Models, prompts: Prompts, wrapped: nn.Module, step: int
) -> list[str]:
    """Teacher and untrained student; nothing where it was measured before. Every process must call it.

    Raises RunDirError where the run stands after its first step and nothing was measured.
    """
    if config.benchmark is None or run.file(FILE).is_file():
        return []
    if step > 0:
        raise RunDirError(f"{run.file(FILE)} is gone, and the untrained student with it. Restore the file.")
    law = _law(config)
    teacher = local_sampler(models.teacher, world.device, law, config.seed, "benchmark", config.monitor.batch_rows)
    found = {"teacher": _rate(config, prompts, teacher)}
    with speaking(wrapped, models.student):
        found["start"] = _rate(config, prompts, _student(config, models, models.student))
    if world.leads:
        run.write_json(FILE, {name: _stored(rate) for name, rate in found.items()})
    return [
        f"held-out answers that pass: teacher {_words(found['teacher'])}, untrained student {_words(found['start'])}"
    ]


def measure_end(run: RunDir, config: Run, models: Models, prompts: Prompts) -> list[str]:
    """The exported student, beside what was measured at the start."""
    if config.benchmark is None:
        return []
    stored = run.read_json(FILE)
    exported = load_model(FolderModel(kind="folder", path=str(run.file("student"))), computing_dtype(config))
    rate = _rate(config, prompts, _student(config, models, exported.model))
    start = PassRate(stored["start"]["by_prompt"], {}, {})
    chance = better_by_chance(start, rate)
    run.write_json(FILE, stored | {"student": _stored(rate), "p_no_change": chance})
    teacher = PassRate(stored["teacher"]["by_prompt"], {}, {})
    return [
        f"held-out answers that pass: student {_words(rate)}, before {_words(start)} (p of no change {chance:.2g}), "
        f"teacher {_words(teacher)}"
    ]


def chosen(config: Run, prompts: Prompts) -> list[Prompt]:
    """The prompts of the test: those of the split that chose nothing."""
    assert config.benchmark is not None
    found = [p for p in prompts.held_out if p.split == "test" and p.reference is not None]
    if not found:
        raise ValueError("benchmark needs held-out prompts with references, and there are none in the split test")
    return found[: config.benchmark.max_prompts]


def _rate(config: Run, prompts: Prompts, generator: Generator) -> PassRate:
    assert config.benchmark is not None
    asked = chosen(config, prompts)
    requests = [Request(p.id, 0, prompts.encoded[p.id].ids) for p in asked]
    return pass_rate(asked, requests, generator, build_verifiers(config.benchmark.verifiers))[0]


def _student(config: Run, models: Models, student: Any) -> LocalSampler:
    return LocalSampler(
        student, models.tokenizer, "student", None, "student", _law(config), config.seed, "benchmark",
        bf16=config.training.precision == "bf16", slots=config.monitor.batch_rows,
    )  # fmt: skip


def _law(config: Run) -> Sampling:
    assert config.benchmark is not None
    return Sampling(sampling_temperature=0.0, max_new_tokens=config.benchmark.max_new_tokens)


def _stored(rate: PassRate) -> dict[str, Any]:
    return rate.as_dict() | {"by_prompt": rate.passed}


def _words(rate: PassRate) -> str:
    return f"{sum(rate.passed.values())} of {len(rate.passed)} ({100 * rate.rate:.0f} %)"
