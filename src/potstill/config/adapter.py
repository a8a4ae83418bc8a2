"""Low-rank adapters on the student (LoRA, Hu et al. 2021; DoRA, Liu et al. 2024), through PEFT."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from potstill.config.base import Frozen


class _LowRank(Frozen):
    rank: int = Field(default=16, ge=1)
    """Width of the two thin matrices."""
    scaling: float = Field(default=2.0, gt=0)
    """Factor of their product. PEFT's lora_alpha is scaling x rank."""
    modules: Literal["all_linear"] | tuple[str, ...] = "all_linear"
    """Which linear layers get one, by the end of their names (q_proj, v_proj). all_linear: every one but
    the head. Name lm_head to adapt the head as well."""
    train_whole: tuple[Literal["embeddings", "head"], ...] = ()
    """Parts trained in full beside the adapters. Tied, they are one tensor: name both."""


class Lora(_LowRank):
    """W + scaling B A."""

    kind: Literal["lora"]


class Dora(_LowRank):
    """The same, with the length of each row of weights trained apart from its direction."""

    kind: Literal["dora"]


Adapter = Annotated[Lora | Dora, Field(discriminator="kind")]
