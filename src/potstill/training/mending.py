"""After every evaluation of a run: does a verdict stand that the run was told to answer, and with what?

    evaluation -> verdict on all evaluations so far -> an alarm? -> the first remedy whose needs are met
        -> its rows are there -> the plan is on disk -> the next step follows it

Nothing here remembers anything: which remedies were taken is in the source's plans, which
are in every checkpoint, and a verdict reads evaluations up to its own step only. So a run
that was killed anywhere in between decides the same again.
"""

from __future__ import annotations

from dataclasses import asdict

from potstill.config.remedy import OnAlarm
from potstill.diagnosis import judge, read_curves
from potstill.diagnosis.readers import read_golden_kind
from potstill.diagnosis.remedies import Amounts, Refusal, choose, cost, remedies
from potstill.diagnosis.views import fewer_prompts, later, without_oracle
from potstill.records import DataPlan, Remedy, Verdict
from potstill.training.parallel import from_lead
from potstill.training.session import Session, note_event, planned_looks
from potstill.training.supply import supply


def answer_alarm(session: Session) -> bool:
    """Judge the run after this step's evaluation and act as configured; True where the run shall end here.

    Raises Stopped when asked to leave while completions for a remedy are sampled.
    """
    trainer, config = session.trainer, session.config.monitor
    if trainer.step == 0 or trainer.step % config.every_steps:
        return False
    if config.stop_on and (found := standing(session, config.stop_on, None, 0)) is not None:
        return end(session, found)
    taken = [plan for plan in trainer.source.plans if plan.answers is not None]
    on_alarm = config.on_alarm
    if on_alarm is None or len(taken) >= on_alarm.max_remedies or trainer.step >= session.config.training.steps:
        return False
    since = taken[-1].from_step if taken else 0
    found = standing(session, on_alarm.alarms, on_alarm, since)
    return found is not None and mend(session, found, on_alarm)


def standing(session: Session, words: tuple[str, ...], on_alarm: OnAlarm | None, since: int) -> Verdict | None:
    """The verdict on the evaluations from `since` on, if it is one of `words`; the same on every process."""
    found = None
    if session.world.leads and session.trainer.step in session.run.evaluation_steps():
        curves, kind = read_curves(session.run.path), read_golden_kind(session.run.path)
        curves = {name: later(curve, since) for name, curve in curves.items()}
        if on_alarm is not None and on_alarm.without_oracle:
            curves, kind = without_oracle(curves), "reference_nll"
        if on_alarm is not None and on_alarm.alarm_prompts is not None:
            curves = {name: fewer_prompts(curve, on_alarm.alarm_prompts) for name, curve in curves.items()}
        verdict = judge(curves, kind, looks=planned_looks(session.config))
        found = verdict if verdict.verdict.removeprefix("suspected_") in words else None
    answer: Verdict | None = from_lead(found, session.world)
    return answer


def end(session: Session, found: Verdict) -> bool:
    """Leave the loop; what is exported is the verdict's best step."""
    step = session.trainer.step
    note_event(session.run, session.world, "stopped by verdict", step=step, verdict=found.verdict)
    session.show.say(f"stopped after step {step}: {found.verdict.replace('_', ' ')}")
    return True


def mend(session: Session, found: Verdict, on_alarm: OnAlarm) -> bool:
    """Take the first remedy that can be had; True where that is an end."""
    trainer, step = session.trainer, session.trainer.step
    plan = trainer.source.plans[-1]
    rows_left = (session.config.training.steps - step) * session.config.training.batch_rows
    unused = len(session.feeder.prompts.train) - plan.num_prompts
    offered = remedies(found, plan, step, amounts_of(on_alarm, unused, rows_left))
    chosen, refused = choose(offered, on_alarm.remedies, lambda one: lack(one, plan, on_alarm, session, rows_left))
    note_event(
        session.run, session.world, "alarm", step=step, verdict=found.verdict, confidence=found.confidence,
        sentence=found.sentence, best_step=found.best_step, without_oracle=on_alarm.without_oracle,
    )  # fmt: skip
    session.show.say(f"[bold]{'alarm':>16}[/bold]  after step {step}: {found.sentence}")
    _note_refused(session, refused)
    if chosen is None:
        return False
    note_event(
        session.run, session.world, "remedy", step=step, action=chosen.action, why=chosen.why,
        plan=None if chosen.plan is None else asdict(chosen.plan), completions=cost(chosen, plan, rows_left),
    )  # fmt: skip
    session.show.say(f"[bold]{'remedy':>16}[/bold]  {chosen.action}: {chosen.why}")
    if chosen.plan is None:
        return end(session, found)
    follow(session, chosen.plan)
    return False


def follow(session: Session, plan: DataPlan) -> None:
    """Have the plan's rows, then change to it. A resumed run comes here with the plans of its checkpoint."""
    supply(session.feeder, plan, session.trainer.teacher, session.show, session.stop)
    session.feeder.follow(plan)
    session.clock.lap("sampling")


def amounts_of(on_alarm: OnAlarm, unused: int, rows_left: int) -> Amounts:
    """As configured; a share that is left to the budget is as large as the budget allows."""
    prompts = unused if on_alarm.more_prompts is None else min(unused, on_alarm.more_prompts)
    share = on_alarm.online_share
    if share is None:
        assert on_alarm.most_completions is not None
        share = min(1.0, on_alarm.most_completions / max(1, rows_left))
    return Amounts(on_alarm.more_completions, share, on_alarm.human_share, prompts or None)


def lack(remedy: Remedy, plan: DataPlan, on_alarm: OnAlarm, session: Session, rows_left: int) -> str | None:
    """What this run lacks for a remedy, or None. What the configuration shows was refused before the run."""
    after = remedy.plan
    if after is None:
        return None
    if dict(after.fractions) == dict(plan.fractions) and remedy.action in ("online_mixture", "human_text"):
        return f"the data plan has that share already: {dict(plan.fractions)}"
    if remedy.action == "more_prompts" and after.num_prompts > len(session.feeder.prompts.train):
        return "every prompt is in use already; give more in on_alarm.spare_prompts"
    if remedy.action == "human_text" and not session.feeder.source.catalog.rows.get("reference"):
        return "no training prompt has a reference; name a column in data.prompts.reference"
    needed = cost(remedy, plan, rows_left)
    if on_alarm.most_completions is not None and needed > on_alarm.most_completions:
        return f"it needs {needed:,} completions, and on_alarm.most_completions allows {on_alarm.most_completions:,}"
    return None


def _note_refused(session: Session, refused: list[Refusal]) -> None:
    for one in refused:
        note_event(
            session.run, session.world, "remedy refused", step=session.trainer.step, action=one.action, why=one.why
        )
        session.show.say(f"[bold]{'refused':>16}[/bold]  {one.action}: {one.why}")
