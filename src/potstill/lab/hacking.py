"""The teacher-hacking experiment: oracle, oracle's data, fine-tuned teacher and student, distillation in many arms.

    oracle -> its completions of the pool `oracle` -> teacher, student (each at its own golden minimum)
           -> one run for each arm and seed on the pool `train` -> cells -> findings -> report

A seed redraws prompts, the oracle's samples, teacher, student and order; the oracle itself
stays. Source: Tiapkin et al. 2025 (arXiv 2502.02671), sections 3 and 4; the control
`oracle_as_teacher` is ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from potstill.config.lab import Arm, HackingLab
from potstill.lab.arms import PLANS
from potstill.lab.steps import Step

MAKING = "potstill.lab.making"
ORACLE_SEED = 0  # of its first weights and its windows of text
#: Settings that no fact of a step depends on.
UNIMPORTANT = {"arms", "seeds"}
#: What only distillation depends on: changing it leaves oracle, teacher and student as they are.
DISTILLATION_ONLY = {
    "epochs", "batch_rows", "learning_rate", "weight_decay", "evaluate_every_epochs",
    "online_epochs_at_once", "student_steps_at_once", "large_pool_factor",
}  # fmt: skip
#: What only fine-tuning and distillation depend on, and the oracle does not.
AFTER_ORACLE = DISTILLATION_ONLY | {
    "teacher", "student", "small_teacher", "small_student", "teacher_tuning", "student_tuning", "oracle_prompts",
    "distillation_prompts", "held_out_prompts", "proxy_prompts", "completions_per_held_out_prompt",
    "max_new_tokens", "micro_batch_rows", "warmup_steps", "monitor_batch_rows", "slots", "precision", "device",
}  # fmt: skip
MEMBERS = {"teacher", "student", "small_teacher", "small_student", "teacher_tuning", "student_tuning"}


def settings(lab: HackingLab, without: set[str]) -> dict[str, Any]:
    """The lab as plain values, what does not matter for a step set to one value for all."""
    tree = lab.model_dump(mode="json")
    # Left-out settings must still validate when a step reads them back: they get fixed stand-ins.
    stand_ins: dict[str, Any] = {
        "arms": ["offline"], "seeds": [0], "epochs": 1, "batch_rows": 1, "learning_rate": 1.0, "weight_decay": 0.0,
        "evaluate_every_epochs": 1, "online_epochs_at_once": 1.0, "student_steps_at_once": 1, "large_pool_factor": 2,
        "small_teacher": None, "small_student": None, "oracle_prompts": 8, "distillation_prompts": 8,
        "held_out_prompts": 16, "proxy_prompts": 16, "completions_per_held_out_prompt": 1, "max_new_tokens": 1,
        "micro_batch_rows": None, "warmup_steps": 0, "monitor_batch_rows": 1, "slots": 1, "precision": "fp32",
        "device": "cpu", "teacher_tuning": {"epochs": 1, "learning_rate": 1.0},
        "student_tuning": {"epochs": 1, "learning_rate": 1.0},
    }  # fmt: skip
    for name in without | UNIMPORTANT:
        tree[name] = tree["oracle"] if name in ("teacher", "student") else stand_ins[name]
        if name in ("teacher", "student") and tree["oracle"]["kind"] != "tiny":
            tree[name] = {"kind": "load", "model": tree["oracle"]}
    return tree


class Experiment:
    """All steps of a lab, made from its settings; holds no state beyond them."""

    def __init__(self, lab: HackingLab):
        self.lab = lab

    def oracle(self) -> dict[str, Step]:
        """The step that trains a tiny oracle; nothing where the oracle exists."""
        if self.lab.oracle.kind != "tiny":
            return {}
        facts = {"lab": settings(self.lab, AFTER_ORACLE), "seed": ORACLE_SEED}
        return {"oracle": Step("oracle", f"{MAKING}:make_oracle", facts)}

    def pools(self, seed: int, large: bool = False) -> Step:
        facts = {"lab": settings(self.lab, (DISTILLATION_ONLY - {"large_pool_factor"}) | MEMBERS), "seed": seed}
        return Step(f"prompts-s{seed}", f"{MAKING}:make_pools", facts | {"large": large})

    def tuned(self, role: str, seed: int) -> Step:
        """Teacher or student, small or not, after fine-tuning."""
        member = getattr(self.lab, role)
        tuning = self.lab.teacher_tuning if role.endswith("teacher") else self.lab.student_tuning
        facts = {
            "lab": settings(self.lab, DISTILLATION_ONLY | MEMBERS),
            "seed": seed,
            "role": role,
            "member": member.model_dump(mode="json"),
            "tuning": tuning.model_dump(mode="json"),
            "first_seed": 1000 * seed + sorted(["teacher", "student", "small_teacher", "small_student"]).index(role),
        }
        needs = {"pools": self.pools(seed), **self.oracle()}
        return Step(f"{role.replace('_', '-')}-s{seed}", f"{MAKING}:make_tuned", facts, needs)

    def held_out(self, teacher: str, seed: int) -> Step:
        """The frozen models' answers to the held-out prompts."""
        facts = {
            "lab": settings(self.lab, DISTILLATION_ONLY | MEMBERS),
            "seed": seed,
            "arm": "offline",
            "teacher": teacher,
        }
        needs = {"student": self.tuned("student", seed), **self._judges(teacher, seed, facts)}
        if teacher != "teacher":
            needs["same_oracle"] = self.held_out("teacher", seed)
        return Step(f"held-out-{teacher.replace('_', '-')}-s{seed}", f"{MAKING}:make_held_out", facts, needs)

    def references(self, seed: int) -> Step:
        """The oracle's answers to the prompts of distillation: what stands for human text."""
        held_out = self.held_out("teacher", seed)
        return Step(f"references-s{seed}", f"{MAKING}:make_references", held_out.facts, held_out.needs)

    def cell(self, arm: Arm, seed: int) -> Step:
        """One run."""
        plan = PLANS[arm]
        facts = {"lab": settings(self.lab, MEMBERS), "seed": seed, "arm": arm}
        needs = {
            "student": self.tuned(plan.student, seed),
            "held_out": self.held_out(plan.teacher, seed),
            **self._judges(plan.teacher, seed, facts),
        }
        if plan.pool == 0 or plan.remedy == "more_prompts":
            needs["pools"] = self.pools(seed, large=True)
        if plan.remedy == "human_text":
            needs["references"] = self.references(seed)
        return Step(f"distil-{arm.replace('_', '-')}-s{seed}", f"{MAKING}:make_cell", facts, needs)

    def cells(self) -> list[Step]:
        """Arms of a seed stand together, so that a stopped experiment has whole seeds."""
        return [self.cell(arm, seed) for seed in self.lab.seeds for arm in self.lab.arms]

    def _judges(self, teacher: str, seed: int, facts: dict[str, Any]) -> Mapping[str, Step]:
        """Pools, oracle and teacher; says in `facts` which state of the teacher is meant."""
        needs: dict[str, Step] = {"pools": self.pools(seed), **self.oracle()}
        if teacher == "overtrained_teacher":
            facts["teacher_state"] = "last"
            needs["teacher"] = self.tuned("teacher", seed)
        elif teacher != "oracle":
            needs["teacher"] = self.tuned(teacher, seed)
        return needs
