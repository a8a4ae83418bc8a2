"""What can be done about a verdict: data, acted on by whoever asked.

The order is the order of what worked in a first trial (one seed, tiny models):
more completions per prompt recovered 91 % of the distance between an offline and
an online student's golden, a tenth of the rows online about 35 %.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from potstill.records import DataPlan, Remedy, Verdict

MORE_COMPLETIONS = 5
ONLINE_SHARE = 0.1
HUMAN_SHARE = 0.1


def remedies(verdict: Verdict, plan: DataPlan | None = None, at_step: int | None = None) -> list[Remedy]:
    """Answers to `verdict`, most promising first; none for a calm one.

    With the plan that feeds the run now, each change of data comes as the plan
    that would follow it from `at_step` on; without one, as words.
    """
    if verdict.verdict in ("hacking", "suspected_hacking"):
        return against_hacking(verdict, plan, at_step)
    if verdict.verdict == "overfitting":
        return against_overfitting(verdict, plan, at_step)
    if verdict.verdict == "still_improving":
        why = "the curve has not levelled out"
        return [Remedy(verdict.verdict, "more_steps", why, training={"steps": "x1.5"})]
    if verdict.verdict == "inconclusive":
        advice = verdict.evidence.get("log_instead") or "evaluate more often, on more prompts"
        return [Remedy(verdict.verdict, "measure_more", str(advice))]
    return []


def against_hacking(verdict: Verdict, plan: DataPlan | None, at_step: int | None) -> list[Remedy]:
    def change(action: str, why: str, edit: Callable[[DataPlan], DataPlan]) -> Remedy:
        return Remedy(verdict.verdict, action, why, next_plan(plan, at_step, action, edit))

    return [
        change(
            "more_completions_per_prompt",
            "several answers to a prompt show the teacher's distribution; one shows its accidents",
            lambda old: replace(old, completions_per_prompt=old.completions_per_prompt + MORE_COMPLETIONS),
        ),
        change(
            "online_mixture",
            "the teacher corrects what the student says now; needs the teacher while training",
            lambda old: replace(old, fractions=mixed(old.fractions, "online_student", ONLINE_SHARE)),
        ),
        change(
            "human_text",
            "references do not carry the teacher's mistakes; needs references for the training prompts",
            lambda old: replace(old, fractions=mixed(old.fractions, "reference", HUMAN_SHARE)),
        ),
        more_prompts(verdict, plan, at_step),
        stop(verdict),
    ]


def against_overfitting(verdict: Verdict, plan: DataPlan | None, at_step: int | None) -> list[Remedy]:
    def change(action: str, why: str, setting: str, value: object) -> Remedy:
        return Remedy(verdict.verdict, action, why, training={setting: value})

    return [
        stop(verdict),
        change("fewer_epochs", "each pass over the same rows adds less", "steps", verdict.best_step),
        change("lower_learning_rate", "smaller steps memorise later", "learning_rate", "x0.5"),
        change("weight_decay", "it takes back what single rows ask for", "weight_decay", 0.1),
        more_prompts(verdict, plan, at_step),
    ]


def more_prompts(verdict: Verdict, plan: DataPlan | None, at_step: int | None) -> Remedy:
    def double(old: DataPlan) -> DataPlan:
        return replace(old, num_prompts=2 * old.num_prompts)

    why = "new prompts cannot have been memorised; needs prompts that the run has not used"
    return Remedy(verdict.verdict, "more_prompts", why, next_plan(plan, at_step, "more_prompts", double))


def stop(verdict: Verdict) -> Remedy:
    why = f"the student was best at step {verdict.best_step}; export that checkpoint"
    return Remedy(verdict.verdict, "stop", why, training={"export_step": verdict.best_step})


def next_plan(
    plan: DataPlan | None, at_step: int | None, reason: str, edit: Callable[[DataPlan], DataPlan]
) -> DataPlan | None:
    """The plan after `plan`, from `at_step` on."""
    if plan is None or at_step is None:
        return None
    return replace(edit(plan), version=plan.version + 1, from_step=at_step, reason=reason)


def mixed(fractions: Mapping[str, float], source: str, amount: float) -> dict[str, float]:
    """The fractions with at least `amount` of the rows from `source`; the others shrink alike."""
    amount = max(amount, fractions.get(source, 0.0))
    others = {name: part for name, part in fractions.items() if name != source}
    total = sum(others.values())
    return {name: part / total * (1 - amount) for name, part in others.items()} | {source: amount}
