"""The model card that lies beside an exported student: lineage, terms of the objective, verdict.

It repeats what the run directory knows, in the words of the hub's cards, so that
whoever gets the folder without the run can still tell how the student came to be.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import Any

import yaml

from potstill.config.adapter import Adapter
from potstill.config.run import Run
from potstill.config.terms import AnyTerm
from potstill.diagnosis.plans import plan_changes
from potstill.records import DataPlan, Verdict


def card(
    step: int, config: Run, provenance: Mapping[str, Any], verdict: Verdict, plans: Sequence[DataPlan]
) -> str:  # fmt: skip
    """The text of README.md; `provenance` is the run's provenance.json, `plans` those that its checkpoint followed."""
    teacher, student = provenance["teacher"], provenance["student"]
    front: dict[str, Any] = {"library_name": "transformers", "tags": ["distillation", "potstill"]}
    if config.teacher.kind == "hub":  # only a hub id means anything to a reader elsewhere
        front |= {"base_model": config.teacher.id, "base_model_relation": "finetune"}
    objective = "\n".join(f"- {line}" for line in map(_term, config.objective.active))
    return (
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n\n"
        f"# Distilled from {teacher['name']}\n\n"
        f"**Verdict: {verdict.verdict.replace('_', ' ')}** (confidence {verdict.confidence:.2f}). "
        f"{verdict.sentence}\n\n"
        f"This is the checkpoint of step {step} of {config.training.steps}"
        f"{_whether_best(step, verdict)}.\n\n"
        f"## Lineage\n\n{_lineage(teacher, student, config)}\n\n"
        f"## Objective\n\n{objective}\n\nDivided by the number of "
        f"{'rows' if config.objective.normalise == 'sequence' else 'counted tokens'} of the step.\n\n"
        f"## Data\n\n{_data(provenance, plans)}\n\n"
        f"## Terms\n\n{_terms(provenance)}\n\n"
        f"## Training\n\n{_training(config)}\n"
    )


def _whether_best(step: int, verdict: Verdict) -> str:
    if verdict.best_step is None or verdict.best_step == step:
        return ""
    return f"; the verdict names step {verdict.best_step} as the best"


def _lineage(teacher: Mapping[str, Any], student: Mapping[str, Any], config: Run) -> str:
    lines = [f"teacher: {teacher['name']}, fingerprint {teacher['fingerprint']}, revision {teacher['revision']}"]
    lines.append(f"student: {student['from']}")
    for stack, kept in (student.get("layers") or {}).items():
        lines.append(f"{stack} layers, as the teacher counts them: {', '.join(map(str, kept))}")
    if config.training.adapter is not None:
        lines.append(f"{_adapter(config.training.adapter)}; merged here, and beside in `adapter/`")
    if config.training.freeze:
        lines.append(f"frozen: {', '.join(config.training.freeze)}")
    return "\n".join(f"- {line}" for line in lines)


def _adapter(adapter: Adapter) -> str:
    where = "all linear layers" if adapter.modules == "all_linear" else ", ".join(adapter.modules)
    whole = f", {' and '.join(adapter.train_whole)} trained whole" if adapter.train_whole else ""
    name = {"lora": "LoRA", "dora": "DoRA"}[adapter.kind]
    return f"{name} of rank {adapter.rank}, scaling {adapter.scaling:g}, on {where}{whole}"


def _term(term: AnyTerm) -> str:
    if isinstance(term.weight, float):
        weight = f"{term.weight:g}"
    else:
        ends = f"{term.weight_at(0):g} to {term.weight_at(1):g}"
        weight = f"{term.weight.kind} weight ({ends}, at most {term.largest_weight:g})"
    rule = "" if term.token_weighting is None else f", tokens weighed by {term.token_weighting.kind}"
    return f"{weight} x {term.name} on rows of {' and '.join(term.on)}{rule}"


def _data(provenance: Mapping[str, Any], plans: Sequence[DataPlan]) -> str:
    rows = ", ".join(f"{count} {name}" for name, count in sorted(provenance["rows"].items()))
    prompts = provenance["prompts"]
    lines = [f"{prompts['train']} training prompts, {prompts['held_out']} held out", f"rows: {rows}"]
    lines.append(f"share of every batch: {_shares(plans[0])}")
    for before, plan in pairwise(plans):
        changed = plan_changes(asdict(before), asdict(plan))
        lines.append(f"from step {plan.from_step} on ({plan.reason}): {'; '.join(changed) or 'nothing else'}")
    return "\n".join(f"- {line}" for line in lines)


def _shares(plan: DataPlan) -> str:
    return ", ".join(f"{name} {share:g}" for name, share in plan.fractions.items())


def _terms(provenance: Mapping[str, Any]) -> str:
    """Under which terms stand those whose words or judgement this student was made from, and what they ask for."""
    found = provenance.get("terms")
    if found is None:
        return "Not recorded by this run."
    lines = []
    for who, terms in found["generators"].items():
        if terms["verdict"] == "unknown":
            lines.append(f"- {who}: {terms['id'] or 'terms not known'}; not in the list of known terms")
            continue
        lines.append(
            f"- {who}: {terms['name']} (`{terms['id']}`, looked up {terms['checked']}"
            f"{'' if terms['confirmed'] else ', its text not read'}). {terms['summary']} <{terms['source']}>"
        )
        lines += [f"    - {obligation}" for obligation in terms["obligations"]]
    if found["acknowledged"]:
        lines.append(f"- acknowledged by who made it: {', '.join(found['acknowledged'])}")
    lines.append(f"\nSummaries as of {found['version']}, for information; they are not legal advice.")
    return "\n".join(lines)


def _training(config: Run) -> str:
    training, optimiser = config.training, config.training.optimiser
    return (
        f"- {training.steps} steps of {training.batch_rows} rows, {training.precision}, seed {config.seed}\n"
        f"- AdamW, learning rate {optimiser.learning_rate:g}, {optimiser.schedule.kind} after "
        f"{optimiser.warmup_steps} steps of warm-up"
    )
