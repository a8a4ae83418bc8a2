"""How the run is watched on held-out prompts."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from potstill.config.base import Frozen
from potstill.config.remedy import OnAlarm


class MonitorConfig(Frozen):
    """Evaluations on held-out prompts, from step 0 to the last."""

    every_steps: int = Field(ge=1)
    """Optimiser steps between evaluations."""
    max_prompts: int = Field(default=256, ge=4)
    """Held-out prompts used; more narrow the error bands and cost time."""
    proxy_prompts: int | None = Field(default=None, ge=4)
    """Of these, so many measure proxy, the first by hash; null: all. Golden is worth more prompts where an oracle
    gives it for any."""
    completions_per_prompt: int = Field(default=1, ge=1)
    """The teacher's (and oracle's) answers to each."""
    batch_rows: int = Field(default=16, ge=1)
    """Rows of one forward pass."""
    sequence_every: int | None = Field(default=None, ge=1)
    """At every so many evaluations, the first and the last planned one among them, the student answers the
    prompts of proxy itself: reverse KL and Jensen-Shannon to the teacher (proxy_rkl, proxy_js), and to the oracle
    where there is one (golden_rkl, golden_js). All frozen models stay in memory for it. Null: never."""
    sample_texts: int = Field(default=4, ge=0)
    """Prompts that the student answers greedily at every evaluation, for people to read."""
    sample_tokens: int = Field(default=96, ge=1)
    """Longest such answer in tokens."""
    stop_on: tuple[Literal["hacking", "overfitting"], ...] = ()
    """Verdicts that end the run early, with the best checkpoint exported; suspected hacking counts as hacking. The
    run is judged at every evaluation and the test is made stricter for it, so that the chance of a false stop stays."""
    on_alarm: OnAlarm | None = None
    """What the run does about hacking or overfitting while it goes on; null: nothing."""

    @model_validator(mode="after")
    def _fewer_for_proxy(self) -> MonitorConfig:
        if self.proxy_prompts is not None and self.proxy_prompts > self.max_prompts:
            raise ValueError(f"proxy_prompts {self.proxy_prompts} exceed max_prompts {self.max_prompts}")
        return self

    @model_validator(mode="after")
    def _each_once(self) -> MonitorConfig:
        if len(set(self.stop_on)) != len(self.stop_on):
            raise ValueError(f"stop_on names a verdict twice: {list(self.stop_on)}")
        both = sorted(set(self.stop_on) & set(self.on_alarm.alarms if self.on_alarm else ()))
        if both:
            raise ValueError(f"stop_on and on_alarm.alarms both name {both}: a run cannot end and be mended")
        return self
