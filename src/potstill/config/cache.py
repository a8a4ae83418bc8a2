"""What a cache of the teacher's targets holds; `potstill cache` writes it, `training.teacher_targets` reads it.

Three formats. `final_hidden` says everything, in D numbers a token. `sampled` says a
little, without bias, for forward KL. `kept` says a little for other divergences too,
and what it leaves out stays out. `docs/guide/cache.md` has the figures.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from potstill.config.base import Frozen


class CacheSettings(Frozen):
    """What all formats share."""

    path: str | None = None
    """The cache's folder. Null: targets/ in the run directory."""
    probe_rows: int = Field(default=8, ge=1)
    """Rows on which the cache is compared with the teacher, for the report."""
    shard_mb: float = Field(default=128.0, gt=0)
    """MiB of one shard; also about what writing holds in memory. A shard counts once it is whole."""

    @property
    def form(self) -> str:
        """The key of `losses.sparse.UNDEFINED` that says what cannot be computed from it."""
        return "whole"


class FinalHiddenCache(CacheSettings):
    """The teacher's last hidden states, and its head once."""

    format: Literal["final_hidden"]
    dtype: Literal["fp32", "fp16", "bf16"] = "fp16"
    """How a number is stored. fp32 gives a run the very numbers that a teacher in memory gives in fp32."""


class KeptCache(CacheSettings):
    """The largest entries of each distribution, the observed token, and the mass of the rest."""

    format: Literal["kept"]
    top_k: int = Field(default=50, ge=1)
    """Most entries a position, beside the observed token."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Fewer than top_k where fewer hold so much of the probability. 1: never fewer."""
    missing: Literal["tail", "renormalised"] = "tail"
    """What the rest is for the losses: one more outcome, or scaled away, which is biased."""
    log_prob_bits: int = Field(default=12, ge=8, le=16)
    """Bits of a log-prob, in equal steps from 0 to -32 nats: 12 bits are steps of 0.008."""

    @property
    def form(self) -> str:
        return "kept with a tail" if self.missing == "tail" else "kept, renormalised"


class SampledCache(CacheSettings):
    """Tokens drawn from each distribution with how often, and its exact entropy."""

    format: Literal["sampled"]
    draws: int = Field(default=50, ge=1, le=65536)
    """Draws a position, with replacement."""
    spread: Literal["stratified", "independent"] = "stratified"
    """stratified: one draw from each of `draws` equal parts of the distribution, which has less noise.
    independent: as in the paper. Neither is biased."""

    @property
    def form(self) -> str:
        return "sampled"


Cache = Annotated[FinalHiddenCache | KeptCache | SampledCache, Field(discriminator="format")]
