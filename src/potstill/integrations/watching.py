"""Potstill's monitor beside a training loop that is not ours: set up, evaluate, judge.

The run directory is an ordinary one without checkpoints and student, so that
`potstill diagnose` and `potstill report` read it. Only one process does this work.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from potstill.config.data import Sampling
from potstill.config.monitor import MonitorConfig
from potstill.config.objective import ObjectiveConfig
from potstill.config.terms import ForwardKL
from potstill.data.collate import layout_of
from potstill.data.encode import encode_prompt
from potstill.data.rows import check_room
from potstill.diagnosis import diagnose
from potstill.integrations.foreign import as_loaded, model_name, plain_model, refuse_shared, undisturbed
from potstill.losses.objective import Objective
from potstill.models.load import Loaded, ModelError
from potstill.models.scored import ScoredModel
from potstill.records import Completion, Prompt, Verdict
from potstill.run_dir import RunDir, RunDirError, append_lines, digest
from potstill.training.completions import Asker, answers
from potstill.training.hardware import environment
from potstill.training.monitor import EVERYWHERE, Monitor
from potstill.training.opening import refuse_another
from potstill.training.parallel import World
from potstill.training.session import losses_since_last_evaluation
from potstill.training.show import Show
from potstill.training.stages import Models, Prompts, align_judge
from potstill.training.texts import SampleTexts
from potstill.training.watch import ORACLE, TRAINING_LAW, build_monitor

LOGGED = ("loss", "learning_rate", "grad_norm", "epoch")


@dataclass(frozen=True)
class Settings:
    """What the user chose. A run directory belongs to these, to the judges and to the prompts."""

    output: Path
    monitor: MonitorConfig
    sampling: Sampling
    seed: int


@dataclass(frozen=True)
class Place:
    """Where the student computes, and in what precision the trainer has it compute."""

    device: torch.device
    autocast: torch.dtype | None  # None: in the weights' own

    def precision(self) -> AbstractContextManager[Any]:
        return nullcontext() if self.autocast is None else torch.autocast(self.device.type, dtype=self.autocast)


@dataclass
class Watch:
    """The monitor at work on one student."""

    run: RunDir
    settings: Settings
    place: Place
    trained: Any  # the student as the trainer holds it, PEFT's wrapper and all
    student: ScoredModel
    monitor: Monitor
    texts: SampleTexts

    def log(self, step: int, logs: Mapping[str, Any]) -> None:
        """The trainer's line of `step` into metrics.jsonl; what is not finite becomes null."""
        found = {name: float(logs[name]) for name in LOGGED if logs.get(name) is not None}
        finite = {name: value if math.isfinite(value) else None for name, value in found.items()}
        self.run.append("metrics.jsonl", {"step": step} | finite)

    def evaluate(self, step: int) -> dict[str, float]:
        """One evaluation, on disk when it returns: proxy, golden, teacher_golden in nats per token."""
        started = time.perf_counter()
        losses = losses_since_last_evaluation(self.run)
        scalars = {"training_loss": sum(losses) / len(losses)} if losses else {}
        monitor = self.settings.monitor
        with undisturbed(self.place.device, self.trained), self.place.precision():
            # Each time: an adapter on the head may be one that we cannot honour, and is 0 at the start.
            self.student.verify_head()
            record = self.monitor.evaluate(self.student, step, scalars)
            texts = self.texts.answer(self.trained, self.student.model, monitor, self.settings.seed, bf16=False)
        append_lines(self.run.file("samples.jsonl"), [{"step": step} | line for line in texts])
        self.run.write_evaluation(record)
        self.run.append("timing.jsonl", {"evaluation": step, "seconds": time.perf_counter() - started})
        return {name: record.series[name].per_token() for name in ("proxy", "golden", "teacher_golden")}

    def stops_early(self, step: int, looks: int) -> str | None:
        """The verdict of `monitor.stop_on` that stands after this step's evaluation, if one does."""
        found = diagnose(self.run.path, looks=looks).verdict
        if ("hacking" if found == "suspected_hacking" else found) not in self.settings.monitor.stop_on:
            return None
        self.run.append(
            "events.jsonl", {"event": "stopped by verdict", "time": time.time(), "step": step, "verdict": found}
        )
        return found

    def finish(self, step: int) -> Verdict:
        """Judge what was measured; writes verdict.json."""
        verdict = diagnose(self.run.path)
        self.run.write_json("verdict.json", asdict(verdict))
        self.run.append("events.jsonl", {"event": "finished", "time": time.time(), "step": step})
        return verdict


def start_watch(
    settings: Settings, prompts: Sequence[Prompt], trained: Any, student_tokenizer: Any, teacher: Any, oracle: Any,
    tokenizer: Any, place: Place, step: int, show: Show,
) -> Watch:  # fmt: skip
    """Check everything, take up the directory, let the frozen models answer, set the monitor up.

    `step` is where training (re)starts; evaluations later than it are dropped. Raises
    ModelError, EncodeError, RunDirError before anything is sampled.
    """
    student = plain_model(trained, "student")
    frozen = [
        plain_model(model, role) for model, role in ((teacher, "teacher"), (oracle, "oracle")) if model is not None
    ]
    with undisturbed(place.device, trained, *frozen), place.precision():
        models = _fit(student, frozen, tokenizer, student_tokenizer, place.device)
        encoded = {p.id: encode_prompt(models.tokenizer, p, "last", {}) for p in prompts}
        check_room(encoded, settings.sampling.max_new_tokens, models.context, models.teacher.is_encoder_decoder)
        run = _open(settings, models, prompts, place.device, step)
        held_out_set = Prompts([], list(prompts), [], encoded)
        held_out = _sample(run, settings, models, held_out_set, place.device, show)
        objective = Objective(ObjectiveConfig(terms=(ForwardKL(kind="forward_kl", weight=1.0, on=EVERYWHERE),)))
        monitor = build_monitor(
            settings.monitor.batch_rows, models, held_out_set, held_out, objective,
            ScoredModel(models.teacher.model), World(0, 1, place.device), models.context,
        )  # fmt: skip
    texts = SampleTexts.choose(settings.monitor, held_out_set, held_out, models.tokenizer)
    return Watch(run, settings, place, trained, ScoredModel(student), monitor, texts)


def _fit(student: Any, frozen: list[Any], tokenizer: Any, student_tokenizer: Any, device: torch.device) -> Models:
    """The models on one device, seen to fit together."""
    if tokenizer.eos_token_id is None:
        raise ModelError("the tokenizer names no end-of-sequence token, so no answer could end; set its eos_token")
    for model, role in zip(frozen, ("teacher", "oracle"), strict=False):
        refuse_shared(model, student, role)
        if bool(model.config.is_encoder_decoder) != bool(student.config.is_encoder_decoder):
            raise ModelError(f"one of {role} and student is an encoder-decoder and the other is not")
        if next(model.parameters()).device != device:
            model.to(device)
    ScoredModel(student).verify_head()
    judges = [as_loaded(model, tokenizer) for model in frozen]
    aligned = [align_judge(judge, student, student_tokenizer) for judge in judges]
    layout = layout_of(student, student_tokenizer)
    oracle, over = (judges[1], aligned[1]) if len(judges) > 1 else (None, None)
    return Models(judges[0], student, student_tokenizer, {}, aligned[0], oracle, over, layout)


def _open(settings: Settings, models: Models, prompts: Sequence[Prompt], device: torch.device, step: int) -> RunDir:
    """Create the directory, or take up the run in it where it stood at `step`."""
    run, wanted = RunDir(settings.output), _config(settings, models, prompts)
    if run.file("config.yaml").is_file():
        refuse_another(run, run.read_config(), wanted)
        if step == 0 and run.file("verdict.json").is_file():
            raise RunDirError(
                f"{run.path} holds a finished run, and training starts again at step 0. Set `output` to a new "
                "directory, remove that one, or resume the trainer from a checkpoint to go on."
            )
    elif run.path.exists() and (not run.path.is_dir() or any(run.path.iterdir())):
        raise RunDirError(
            f"{run.path} exists and is no run directory (it has no config.yaml). Choose another `output`, or empty it."
        )
    else:
        run.write_json("environment.json", environment(device))
        run.write_text("config.yaml", yaml.safe_dump(wanted, sort_keys=False))
    run.drop_unfinished()
    run.rewind_to_step(step if step > 0 else -1)
    run.file("verdict.json").unlink(missing_ok=True)  # of a run that now goes on
    run.write_json("provenance.json", _provenance(models, prompts))
    run.append("events.jsonl", {"event": "resumed" if step else "started", "time": time.time(), "step": step})
    return run


def _config(settings: Settings, models: Models, prompts: Sequence[Prompt]) -> dict[str, Any]:
    """What config.yaml says; the trainer's own settings are not known here."""
    return {
        "kind": "monitor_callback",
        "seed": settings.seed,
        "monitor": settings.monitor.model_dump(mode="json", include={"every_steps", "batch_rows", "sample_texts"}),
        "sampling": settings.sampling.model_dump(mode="json"),
        "teacher": _named(models.teacher),
        "oracle": None if models.oracle is None else _named(models.oracle),
        "prompts": {"held_out": len(prompts), "digest": digest([asdict(prompt) for prompt in prompts])},
    }


def _provenance(models: Models, prompts: Sequence[Prompt]) -> dict[str, Any]:
    student = models.student
    facts: dict[str, Any] = {
        "golden": "reference_nll" if models.oracle is None else "oracle",
        "teacher": _named(models.teacher) | {"revision": models.teacher.revision},
        "student": {
            "name": model_name(student),
            "class": type(student).__name__,
            "parameters": sum(p.numel() for p in student.parameters()),
            "trained_by": "another trainer, watched by potstill's MonitorCallback",
        },
        "prompts": {"held_out": len(prompts)},
    }
    if models.oracle is not None:
        facts["oracle"] = _named(models.oracle)
    return facts


def _named(loaded: Loaded) -> dict[str, Any]:
    return {"name": loaded.name, "fingerprint": loaded.fingerprint}


def _sample(
    run: RunDir, settings: Settings, models: Models, prompts: Prompts, device: torch.device, show: Show
) -> dict[str, list[Completion]]:
    """The frozen models' answers by purpose; those on disk are not asked for again."""
    wanted = [(TRAINING_LAW, models.teacher)]
    if models.oracle is not None:
        wanted.append((ORACLE, models.oracle))
    found = {}
    for name, loaded in wanted:
        with show.bar(f"sampling {name}", len(prompts.held_out)) as bar:

            def progress(_: str, total: int, rows: int, tokens: int, bar: Any = bar) -> bool:
                bar.advance(rows, tokens)
                return False

            asker = Asker(models.tokenizer, {}, prompts.encoded, None, settings.seed)
            completions = answers(
                run, name, loaded, device, asker, prompts.held_out, 1, settings.sampling,
                settings.monitor.batch_rows, progress,
            )  # fmt: skip
        assert completions is not None, "nobody asks to stop"
        found[name] = completions
    return found
