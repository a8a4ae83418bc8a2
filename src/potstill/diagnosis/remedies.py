"""What can be done about a verdict: data, acted on by whoever asked.

    against hacking        the student has learned all that these rows say of the teacher, and now learns
                           their accidents: other rows, or an end
    against overfitting    the student moves away even from its teacher: an end, or less of the same

The order is the order of what worked (docs/guide/remedies.md). A remedy that changes the data comes
as the plan that follows on the one in force; what it costs in completions is known before it is taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from potstill.records import DataPlan, Remedy, Verdict


@dataclass(frozen=True, slots=True)
class Amounts:
    """How much of each remedy."""

    more_completions: int = 5  # of every prompt in use
    online_share: float = 0.1  # of every batch's rows
    human_share: float = 0.1
    more_prompts: int | None = None  # None: as many again


@dataclass(frozen=True, slots=True)
class Refusal:
    """A remedy that was wanted and cannot be had."""

    action: str
    why: str


def remedies(
    verdict: Verdict, plan: DataPlan | None = None, at_step: int | None = None, amounts: Amounts | None = None
) -> list[Remedy]:
    """Answers to `verdict`, most promising first; none for a calm one.

    With the plan that feeds the run now, each change of data comes as the plan
    that would follow it from `at_step` on; without one, as words.
    """
    how = Amounts() if amounts is None else amounts
    if verdict.verdict in ("hacking", "suspected_hacking"):
        return [*data_changes(verdict, plan, at_step, how), stop(verdict)]
    if verdict.verdict == "overfitting":
        return against_overfitting(verdict, plan, at_step, how)
    if verdict.verdict == "still_improving":
        why = "the curve has not levelled out"
        return [Remedy(verdict.verdict, "more_steps", why, training={"steps": "x1.5"})]
    if verdict.verdict == "inconclusive":
        advice = verdict.evidence.get("log_instead") or "evaluate more often, on more prompts"
        return [Remedy(verdict.verdict, "measure_more", str(advice))]
    return []


def data_changes(verdict: Verdict, plan: DataPlan | None, at_step: int | None, how: Amounts) -> list[Remedy]:
    """Every remedy that feeds the run with other rows."""

    def change(action: str, why: str, edit: Callable[[DataPlan], DataPlan]) -> Remedy:
        after = None
        if plan is not None and at_step is not None:
            said = verdict.verdict.replace("_", " ")
            after = replace(
                edit(plan), version=plan.version + 1, from_step=at_step, answers=verdict.verdict,
                reason=f"{said} at step {at_step}: {action}",
            )  # fmt: skip
        return Remedy(verdict.verdict, action, why, after)

    return [
        change(
            "more_completions_per_prompt",
            "several answers to a prompt show the teacher's distribution; one shows its accidents",
            lambda old: replace(old, completions_per_prompt=old.completions_per_prompt + how.more_completions),
        ),
        change(
            "online_mixture",
            "the teacher corrects what the student says now; needs the teacher while training",
            lambda old: replace(old, fractions=mixed(old.fractions, "online_student", how.online_share)),
        ),
        change(
            "human_text",
            "references do not carry the teacher's mistakes; needs references for the training prompts",
            lambda old: replace(old, fractions=mixed(old.fractions, "reference", how.human_share)),
        ),
        change(
            "more_prompts",
            "new prompts cannot have been memorised; needs prompts that the run has not used",
            lambda old: replace(old, num_prompts=old.num_prompts + (how.more_prompts or old.num_prompts)),
        ),
    ]


def against_overfitting(verdict: Verdict, plan: DataPlan | None, at_step: int | None, how: Amounts) -> list[Remedy]:
    """An end, or less of the same, before other rows."""

    def setting(action: str, why: str, name: str, value: object) -> Remedy:
        return Remedy(verdict.verdict, action, why, training={name: value})

    changes = {remedy.action: remedy for remedy in data_changes(verdict, plan, at_step, how)}
    return [
        stop(verdict),
        setting("fewer_epochs", "each pass over the same rows adds less", "steps", verdict.best_step),
        setting("lower_learning_rate", "smaller steps memorise later", "learning_rate", "x0.5"),
        setting("weight_decay", "it takes back what single rows ask for", "weight_decay", 0.1),
        changes.pop("more_prompts"),
        *changes.values(),
    ]


def stop(verdict: Verdict) -> Remedy:
    """End the run and go back to the best checkpoint."""
    why = f"the student was best at step {verdict.best_step}; export that checkpoint"
    return Remedy(verdict.verdict, "stop", why, training={"export_step": verdict.best_step})


def mixed(fractions: Mapping[str, float], source: str, amount: float) -> dict[str, float]:
    """The fractions with at least `amount` of the rows from `source`; the others shrink alike."""
    amount = max(amount, fractions.get(source, 0.0))
    others = {name: part for name, part in fractions.items() if name != source}
    total = sum(others.values())
    kept = {name: part / total * (1 - amount) for name, part in others.items()} if amount < 1 else {}
    return kept | {source: amount}


def cost(remedy: Remedy, before: DataPlan, rows_left: int) -> int:
    """Completions that somebody must sample for it, over the `rows_left` rows of the run that remain.

    Offline rows: the teacher's new answers. Fresh rows: those that come on top of the plan before.
    """
    if (after := remedy.plan) is None:
        return 0
    offline = 0
    if "teacher" in after.fractions:
        rows = after.completions_per_prompt * after.num_prompts
        offline = max(0, rows - before.completions_per_prompt * before.num_prompts)
    shares = {name: after.fractions.get(name, 0.0) - before.fractions.get(name, 0.0)
              for name in ("online_teacher", "online_student")}  # fmt: skip
    return offline + math.ceil(max(0.0, sum(shares.values())) * rows_left - 1e-9)


def choose(
    offered: Sequence[Remedy], wanted: Sequence[str], lacks: Callable[[Remedy], str | None]
) -> tuple[Remedy | None, list[Refusal]]:
    """The first of `wanted` that lacks nothing, and why those before it were refused."""
    by_name = {remedy.action: remedy for remedy in offered}
    refused: list[Refusal] = []
    for action in wanted:
        if (why := lacks(by_name[action])) is None:
            return by_name[action], refused
        refused.append(Refusal(action, why))
    return None, refused
