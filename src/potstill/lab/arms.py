"""The arms of the teacher-hacking experiment, each as an ordinary run.

All arms of a seed share prompts, oracle samples, teacher, first student and order; they
differ in what feeds the student, or in whose token laws it is taught, and in nothing else.
Every arm takes as many optimiser steps as `offline`, but for `few_epochs` and `stopped_early`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from potstill.config.lab import Arm, HackingLab

FEW_EPOCHS = 3
EVALUATIONS_OF_AN_EPOCH = 2  # in few_epochs
STOPPED_EARLY_SHARE = 0.5
#: Further completions of each prompt that a remedy may cost: the budget of all remedies alike.
REMEDY_COMPLETIONS = 5
#: The alarm of a run that mends itself sees what a run without oracle would have measured, on so many prompts.
ALARM_PROMPTS = 256


@dataclass(frozen=True)
class Plan:
    """How an arm differs from `offline`."""

    source: str = "offline"  # or online_teacher, online_student, or the percentage of online_student rows
    teacher: str = "teacher"  # which step: teacher, oracle, small_teacher, overtrained_teacher
    student: str = "student"  # or small_student
    divergence: str = "forward_kl"
    completions: int = 1
    prompt_divisor: int = 1
    pool: int = 1  # times the prompts; 0: the large pool
    remedy: str = ""  # what the run does to itself on an alarm


PLANS: dict[Arm, Plan] = {
    "offline": Plan(),
    "oracle_as_teacher": Plan(teacher="oracle"),
    "online_teacher": Plan("online_teacher"),
    "online_student": Plan("online_student"),
    "mixture_1": Plan("1"),
    "mixture_5": Plan("5"),
    "mixture_10": Plan("10"),
    "mixture_25": Plan("25"),
    "mixture_50": Plan("50"),
    "prompts_half": Plan(prompt_divisor=2),
    "prompts_fifth": Plan(prompt_divisor=5),
    "completions_2": Plan(completions=2),
    "completions_4": Plan(completions=4),
    "completions_5": Plan(completions=5),
    "few_epochs": Plan(),
    "stopped_early": Plan(),
    "large_pool": Plan(pool=0),
    "reverse_kl": Plan(divergence="reverse_kl"),
    "jensen_shannon": Plan(divergence="jensen_shannon"),
    "reverse_kl_online": Plan("online_teacher", divergence="reverse_kl"),
    "jensen_shannon_online": Plan("online_teacher", divergence="jensen_shannon"),
    "small_teacher": Plan(teacher="small_teacher"),
    "small_student": Plan(student="small_student"),
    "overtrained_teacher": Plan(teacher="overtrained_teacher"),
    "mended_completions": Plan(remedy="more_completions_per_prompt"),
    "mended_mixture_10": Plan(remedy="online_mixture"),
    "mended_mixture": Plan(remedy="online_mixture to budget"),
    "mended_human": Plan(remedy="human_text"),
    "mended_prompts": Plan(remedy="more_prompts"),
}


def steps_per_epoch(lab: HackingLab) -> int:
    """Optimiser steps of one visit of every distillation prompt."""
    return lab.distillation_prompts // lab.batch_rows


def length_of(lab: HackingLab, arm: Arm) -> tuple[float, int]:
    """(epochs of `offline`, steps between evaluations)."""
    if arm == "few_epochs":
        return FEW_EPOCHS, max(1, steps_per_epoch(lab) // EVALUATIONS_OF_AN_EPOCH)
    every = lab.evaluate_every_epochs * steps_per_epoch(lab)
    if arm == "stopped_early":
        wanted = max(1, round(lab.epochs * STOPPED_EARLY_SHARE / lab.evaluate_every_epochs))
        return wanted * lab.evaluate_every_epochs, every
    return lab.epochs, every


def run_tree(
    lab: HackingLab, arm: Arm, seed: int, output: Path, models: dict[str, Path | dict[str, Any]], pools: Path,
    references: Path | None = None,
) -> dict[str, Any]:  # fmt: skip
    """The arm's configuration as `potstill run` reads it; `models` by role: oracle, teacher, student.

    `references`: the prompts of distillation with the oracle's answers, for the remedy human_text.
    """
    plan = PLANS[arm]
    epochs, every = length_of(lab, arm)
    steps = round(epochs * steps_per_epoch(lab))
    monitor: dict[str, Any] = {
        "every_steps": every,
        "max_prompts": lab.held_out_prompts,
        "proxy_prompts": lab.proxy_prompts,
        "completions_per_prompt": lab.completions_per_held_out_prompt,
        "batch_rows": lab.monitor_batch_rows,
        "sample_texts": 0,
    }
    if plan.remedy:
        monitor["on_alarm"] = on_alarm(plan.remedy, lab, pools)
    return {
        "output": str(output),
        "seed": seed,
        "oracle": source(models["oracle"]),
        "teacher": source(models["teacher"]),
        "student": {"kind": "load", "model": source(models["student"])},
        "data": data_tree(plan, lab, pools, references),
        "source": fed_by(plan.source, lab, steps),
        "objective": {"terms": terms_of(plan)},
        "training": {
            "steps": steps,
            "batch_rows": lab.batch_rows,
            "micro_batch_rows": lab.micro_batch_rows,
            "precision": lab.precision,
            "device": lab.device,
            "optimiser": {
                "learning_rate": lab.learning_rate,
                "warmup_steps": lab.warmup_steps,
                "weight_decay": lab.weight_decay,
                "schedule": {"kind": "constant"},
            },
        },
        "monitor": monitor,
        # A tiny run is over in a minute: taking it up in the middle would save less than checkpoints cost.
        "checkpoints": {"every_steps": steps if lab.oracle.kind == "tiny" else every, "keep_last": 1},
    }


def data_tree(plan: Plan, lab: HackingLab, pools: Path, references: Path | None) -> dict[str, Any]:
    """The arm's prompts and completions."""
    train = prompt_file(pools / f"train{'-large' if plan.pool == 0 else ''}.jsonl", lab)
    if plan.remedy == "human_text":
        assert references is not None
        train = prompt_file(references, lab) | {"reference": "reference"}
    completions: dict[str, Any] = {
        "kind": "sample",
        "sampling": {"max_new_tokens": lab.max_new_tokens},
        "batch_rows": lab.slots,
    }
    if plan.completions > 1:
        completions["per_prompt"] = plan.completions
    data: dict[str, Any] = {
        "prompts": train,
        "held_out": {"kind": "prompts", "prompts": prompt_file(pools / "held_out.jsonl", lab)},
        "near_duplicates": {"threshold": 1.0, "on_found": "drop"},
        "completions": completions,
        "max_length": lab.max_length,
        "prompt_divisor": plan.prompt_divisor,
    }
    if lab.prompts.kind == "file":
        data["too_long"] = "drop"
    return data


def terms_of(plan: Plan) -> list[dict[str, Any]]:
    """The arm's loss, on whatever rows may ever feed it."""
    written_by = {"online_student": ["student"]}.get(plan.source, ["teacher"])
    if plan.source.isdigit() or plan.remedy.startswith("online_mixture"):
        written_by = ["teacher", "student"]
    terms: list[dict[str, Any]] = [{"kind": plan.divergence, "weight": 1.0, "on": written_by}]
    if plan.remedy == "human_text":
        terms.append({"kind": "cross_entropy", "weight": 1.0, "on": ["reference"]})
    return terms


def fed_by(kind: str, lab: HackingLab, steps: int) -> dict[str, Any]:
    """The arm's source. Fresh rows are sampled for several steps at once, to fill the slots."""
    if kind == "offline":
        return {"kind": "offline"}
    if kind == "online_teacher":
        at_once = min(steps, max(1, round(lab.online_epochs_at_once * steps_per_epoch(lab))))
        return {"kind": "online_teacher", "online": {"steps_at_once": at_once, "slots": lab.slots}}
    online = {"steps_at_once": lab.student_steps_at_once, "slots": lab.slots}
    if kind == "online_student":
        return {"kind": "online_student", "online": online}
    share = int(kind) / 100
    # A small share needs more steps together before its few rows fill a batch of the sampler.
    online["steps_at_once"] = lab.student_steps_at_once * (2 if share <= 0.25 else 1)
    return {"kind": "mixture", "fractions": {"teacher": 1 - share, "online_student": share}, "online": online}


def on_alarm(remedy: str, lab: HackingLab, pools: Path) -> dict[str, Any]:
    """The run mends itself on an alarm that needs no oracle; every remedy may cost as many completions."""
    name = remedy.split()[0]
    tree: dict[str, Any] = {
        "remedies": [name],
        "without_oracle": True,
        "alarm_prompts": ALARM_PROMPTS,
        "most_completions": REMEDY_COMPLETIONS * lab.distillation_prompts,
    }
    if name == "online_mixture":
        # Its few rows fill a batch of the sampler only when some steps are sampled together.
        tree["online"] = {"steps_at_once": 2 * lab.student_steps_at_once, "slots": lab.slots}
        if remedy.endswith("to budget"):
            tree["online_share"] = None
    if name == "more_completions_per_prompt":
        tree["more_completions"] = REMEDY_COMPLETIONS
    if name == "more_prompts":
        tree["spare_prompts"] = prompt_file(pools / "train-large.jsonl", lab)
        tree["more_prompts"] = REMEDY_COMPLETIONS * lab.distillation_prompts
    return tree


def source(where: Path | dict[str, Any]) -> dict[str, Any]:
    return {"kind": "folder", "path": str(where)} if isinstance(where, Path) else where


def prompt_file(path: Path, lab: HackingLab) -> dict[str, Any]:
    """A pool's file. Windows of text are continued, tasks are asked as their own settings say."""
    columns: dict[str, Any] = {"path": str(path), "id": "id", "chat": False}
    if lab.prompts.kind == "file":
        given = lab.prompts.prompts
        columns["chat"] = given.chat
        columns |= {name: value for name in ("prefix", "system") if (value := getattr(given, name)) is not None}
        if given.messages is not None:
            columns["messages"] = "messages"
    return columns
