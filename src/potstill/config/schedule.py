"""Numbers that change over a run: the learning rate's shape, and weights of terms.

Both are functions of the step alone, so a resumed run needs nothing stored. They
are apart from each other on purpose: a term's weight may rise while the learning
rate falls (Peng et al. 2024 found the two together worth more than either).
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from potstill.config.base import Frozen


def linear(start: float, end: float, progress: float) -> float:
    """From start to end in a straight line; `progress` 0 to 1."""
    return start + (end - start) * progress


def cosine(start: float, end: float, progress: float) -> float:
    """From start to end along half a cosine: flat at both ends; `progress` 0 to 1."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * progress))


class ConstantRate(Frozen):
    """The peak, to the last step."""

    kind: Literal["constant"]

    def fraction(self, progress: float) -> float:
        """Share of the peak; `progress` is 0 after warm-up and 1 at the last step."""
        return 1.0


class LinearRate(Frozen):
    """A straight line from the peak down to a share of it at the last step."""

    kind: Literal["linear"]
    final_fraction: float = Field(default=0.0, ge=0, le=1)
    """Share of the peak at the last step."""

    def fraction(self, progress: float) -> float:
        """Share of the peak; `progress` is 0 after warm-up and 1 at the last step."""
        return linear(1.0, self.final_fraction, progress)


class CosineRate(Frozen):
    """Half a cosine from the peak down to a share of it at the last step."""

    kind: Literal["cosine"]
    final_fraction: float = Field(default=0.1, ge=0, le=1)
    """Share of the peak at the last step."""

    def fraction(self, progress: float) -> float:
        """Share of the peak; `progress` is 0 after warm-up and 1 at the last step."""
        return cosine(1.0, self.final_fraction, progress)


class WsdRate(Frozen):
    """Warm-up, stable, decay (MiniCPM, Hu et al. 2024): the peak is held, then a straight line falls."""

    kind: Literal["wsd"]
    decay_share: float = Field(default=0.2, gt=0, le=1)
    """Share of the steps after warm-up in which the rate falls; they are the last ones."""
    final_fraction: float = Field(default=0.0, ge=0, le=1)
    """Share of the peak at the last step."""

    def fraction(self, progress: float) -> float:
        """Share of the peak; `progress` is 0 after warm-up and 1 at the last step."""
        fallen = max(0.0, (progress - (1 - self.decay_share)) / self.decay_share)
        return linear(1.0, self.final_fraction, fallen)


RateSchedule = Annotated[ConstantRate | LinearRate | CosineRate | WsdRate, Field(discriminator="kind")]


class MovingWeight(Frozen):
    """A weight that goes from `start` at the first step to `end` at the last."""

    kind: Literal["linear", "cosine"]
    start: float = Field(ge=0)
    """Weight at the first step."""
    end: float = Field(ge=0)
    """Weight at the last step."""

    @property
    def largest(self) -> float:
        return max(self.start, self.end)

    def at(self, progress: float) -> float:
        """`progress` is 0 at the first step and 1 at the last."""
        shape = linear if self.kind == "linear" else cosine
        return shape(self.start, self.end, progress)


class WsdWeight(Frozen):
    """A weight that rises from `start` to `peak`, stays, and falls to `end` (Peng et al. 2024)."""

    kind: Literal["wsd"]
    start: float = Field(default=0.0, ge=0)
    """Weight at the first step."""
    peak: float = Field(ge=0)
    """Weight between rise and fall."""
    end: float = Field(default=0.0, ge=0)
    """Weight at the last step."""
    rise_share: float = Field(default=0.1, ge=0, le=1)
    """Share of the steps in which it rises, the first ones."""
    fall_share: float = Field(default=0.2, ge=0, le=1)
    """Share of the steps in which it falls, the last ones."""

    @model_validator(mode="after")
    def _fits(self) -> WsdWeight:
        if self.rise_share + self.fall_share > 1:
            raise ValueError(f"rise_share {self.rise_share} and fall_share {self.fall_share} together exceed the run")
        return self

    @property
    def largest(self) -> float:
        return max(self.start, self.peak, self.end)

    def at(self, progress: float) -> float:
        """`progress` is 0 at the first step and 1 at the last."""
        if progress < self.rise_share:
            return linear(self.start, self.peak, progress / self.rise_share)
        falls_from = 1 - self.fall_share
        if self.fall_share and progress > falls_from:
            return linear(self.peak, self.end, (progress - falls_from) / self.fall_share)
        return self.peak


WeightSchedule = Annotated[MovingWeight | WsdWeight, Field(discriminator="kind")]
