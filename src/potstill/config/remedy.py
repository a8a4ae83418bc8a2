"""What a running job does about an alarm, and how much of it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from potstill.config.base import Frozen
from potstill.config.data import Prompts
from potstill.config.source import Online

RemedyName = Literal["more_completions_per_prompt", "online_mixture", "human_text", "more_prompts", "stop"]


class OnAlarm(Frozen):
    """Mending: a verdict that stands after an evaluation changes the data plan from the next step on, or ends the run.

    The run is judged at every evaluation, and the alarm's level allows for it.
    """

    alarms: tuple[Literal["hacking", "overfitting"], ...] = Field(default=("hacking",), min_length=1)
    """Verdicts that are answered; suspected hacking counts as hacking."""
    remedies: tuple[RemedyName, ...] = Field(default=("more_completions_per_prompt",), min_length=1)
    """The first whose needs are met is taken; what the others lacked goes into the run's events. The default is the
    one that recovered most at equal sampling cost (docs/guide/remedies.md)."""
    max_remedies: int = Field(default=1, ge=1)
    """After so many the run goes on as it is. Each further one needs an alarm of evaluations after the one before."""
    without_oracle: bool = False
    """Where there is an oracle, raise the alarm as if there were none: from training loss, proxy and the NLL of
    references alone. For experiments on the alarm itself."""
    alarm_prompts: int | None = Field(default=None, ge=8)
    """The alarm looks at so many held-out prompts, the first by hash; null: at all. The others then say without bias
    what the remedy did."""
    more_completions: int = Field(default=5, ge=1)
    """more_completions_per_prompt: so many further answers of the teacher to every prompt in use."""
    online_share: float | None = Field(default=0.1, gt=0, le=1)
    """online_mixture: share of every batch's rows that the student writes itself; null: as large as
    `most_completions` allows until the last step."""
    human_share: float = Field(default=0.1, gt=0, le=1)
    """human_text: share of every batch's rows that are references."""
    spare_prompts: Prompts | None = None
    """more_prompts: prompts that the run uses from then on, and not before."""
    more_prompts: int | None = Field(default=None, ge=1)
    """more_prompts: so many of the spare prompts; null: all."""
    most_completions: int | None = Field(default=None, ge=1)
    """Budget of a remedy: completions that it may have sampled, the teacher's and the student's. One that needs
    more is refused; null: no limit."""
    online: Online = Online()
    """online_mixture: how fresh completions are sampled, where `source` does not say it."""

    @model_validator(mode="after")
    def _each_once(self) -> OnAlarm:
        for name in ("alarms", "remedies"):
            given = getattr(self, name)
            if len(set(given)) < len(given):
                raise ValueError(f"on_alarm.{name} names one twice: {list(given)}")
        return self

    @model_validator(mode="after")
    def _everything_is_used(self) -> OnAlarm:
        needed_by = {
            "more_completions": "more_completions_per_prompt", "online_share": "online_mixture",
            "online": "online_mixture", "human_share": "human_text", "spare_prompts": "more_prompts",
            "more_prompts": "more_prompts",
        }  # fmt: skip
        for name, remedy in needed_by.items():
            changed = getattr(self, name) != type(self).model_fields[name].default  # a dump names the defaults too
            if changed and remedy not in self.remedies:
                raise ValueError(f"on_alarm.{name} has no effect: {remedy} is not among the remedies")
        if "more_prompts" in self.remedies and self.spare_prompts is None:
            raise ValueError("the remedy more_prompts needs on_alarm.spare_prompts: prompts that the run has not used")
        if "online_mixture" in self.remedies and self.online_share is None and self.most_completions is None:
            raise ValueError("on_alarm.online_share null takes what most_completions allows; give one of the two")
        return self

    @property
    def streams(self) -> set[str]:
        """Streams of rows that a remedy may begin to feed."""
        feeds = {"online_mixture": "online_student", "human_text": "reference"}
        return {feeds[name] for name in self.remedies if name in feeds}

    @property
    def asks_teacher(self) -> bool:
        """Whether a remedy brings rows that the teacher has not judged: all do that do not end the run."""
        return any(name != "stop" for name in self.remedies)


__all__ = ["OnAlarm", "RemedyName"]
