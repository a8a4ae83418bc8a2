"""What the teacher says about the counted positions of a batch, in one of four forms.

`Dense` and `FinalHidden` say everything: a distribution over all columns of the
student's head. `Kept` and `Sampled` say a little, a few entries a position, because
that is what fits on a disk or comes over a wire. What of it can be computed without
bias is in `losses/sparse.py`.

All hold N counted positions, row by row, on the student's columns, and the
fingerprint of the model that said it. `rows(start, stop)` is a part of them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from potstill.head import Head, arithmetic


@dataclass(frozen=True)
class Dense:
    """Whole distributions: small vocabularies, ensembles, tests."""

    values: Tensor  # [N, V] log-probs at temperature 1, or logits: they differ by a constant a position
    fingerprint: str

    def logits(self) -> Tensor:
        """[N, V] in fp32 or wider; -inf for what the teacher excludes."""
        return self.values.to(torch.promote_types(self.values.dtype, torch.float32))

    @property
    def excludes(self) -> bool:
        """Whether some column has no probability."""
        return len(self.values) > 0 and bool(torch.isneginf(self.values.amin()))

    def rows(self, start: int, stop: int) -> Dense:
        return replace(self, values=self.values[start:stop])

    def to(self, device: torch.device) -> Dense:
        return replace(self, values=self.values.to(device))


@dataclass(frozen=True)
class FinalHidden:
    """The teacher's last hidden states and its head: V/D times smaller than its distributions."""

    hidden: Tensor  # [N, D of the teacher]
    head: Head
    fingerprint: str
    width: int | None = None  # the student's columns, where they are not the teacher's
    shared: int | None = None  # ... then the first so many are the same tokens, all others are excluded

    @property
    def excludes(self) -> bool:
        return self.shared is not None

    def project(self, out: Tensor, products: torch.dtype) -> Projected:
        """Through the head, multiplied in `products`; written to `out` [N, V of the teacher].

        Which types these should be is `head.arithmetic`'s to say, asked where autocast is still in force.
        """
        with torch.no_grad(), torch.autocast(out.device.type, enabled=False):
            self.head.raw(self.hidden, out, products)
        return Projected(out, self.head, self.width, self.shared)

    def logits(self) -> Tensor:
        kinds = arithmetic(self.head.weight, logits_fp32=False)
        out = self.hidden.new_empty((len(self.hidden), self.head.width), dtype=kinds.logits)
        return self.project(out, kinds.products).logits()

    def rows(self, start: int, stop: int) -> FinalHidden:
        return replace(self, hidden=self.hidden[start:stop])

    def to(self, device: torch.device) -> FinalHidden:
        return replace(self, hidden=self.hidden.to(device))


@dataclass(frozen=True)
class Projected:
    """`FinalHidden` once its product is there: raw logits that are finished where they are read."""

    raw: Tensor  # [n, V of the teacher]
    head: Head
    width: int | None
    shared: int | None

    def logits(self) -> Tensor:
        """[n, V] on the student's columns; -inf beyond the shared ones."""
        if self.shared is None:
            return self.head.finish(self.raw)
        kept = self.head.finish(self.raw[:, : self.shared])
        missing = kept.new_full((len(kept), (self.width or 0) - self.shared), -torch.inf)
        return torch.cat([kept, missing], dim=-1)

    def rows(self, start: int, stop: int) -> Projected:
        return replace(self, raw=self.raw[start:stop])


@dataclass(frozen=True)
class Kept:
    """Some entries of each distribution: its largest, the observed token, or both; and the mass of the rest.

    What becomes of the rest has to be said. `tail`: one more outcome, "any other
    token", for teacher and student alike; every divergence is then a lower bound of
    the whole one, and pushes probability out of the tail or into it, but not about
    in it. `renormalised`: the kept entries are scaled up to sum to 1 and the rest gets
    nothing. That is biased: the student learns probabilities that are too large by
    1 / kept mass (Anshumann et al. 2025, section 3).

    Raises ValueError for entries that are not log-probabilities, or a position without any.
    """

    ids: Tensor  # [N, K] int64
    log_probs: Tensor  # [N, K] at `temperature`; -inf where a position has fewer entries, never in the first
    tail_mass: Tensor  # [N] probability of all that is not kept
    missing: Literal["tail", "renormalised"]
    fingerprint: str
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if self.missing not in ("tail", "renormalised"):
            raise ValueError(
                f'missing must be "tail" or "renormalised", found {self.missing!r}: '
                "what becomes of the mass that was not kept decides what is learned, so it has no default"
            )
        if len(self.ids) and not bool((self.log_probs[:, 0] > -torch.inf).all()):
            raise ValueError("every position must keep at least one entry, in its first place, found -inf there")
        if len(self.ids) and bool((self.log_probs > 1e-3).any()):
            raise ValueError(f"kept log-probs must be at most 0, found {float(self.log_probs.max()):.4g}")

    @property
    def valid(self) -> Tensor:
        """[N, K] bool, entries that are there."""
        return self.log_probs > -torch.inf

    def rows(self, start: int, stop: int) -> Kept:
        part = slice(start, stop)
        return replace(self, ids=self.ids[part], log_probs=self.log_probs[part], tail_mass=self.tail_mass[part])

    def to(self, device: torch.device) -> Kept:
        return replace(
            self, ids=self.ids.to(device), log_probs=self.log_probs.to(device), tail_mass=self.tail_mass.to(device)
        )


@dataclass(frozen=True)
class Sampled:
    """Tokens drawn from each distribution, with how often: unbiased for forward KL, value and gradient.

    Random sampling KD (Anshumann et al. 2025, section 4): 50 draws, about 12 different
    tokens a position, are enough. `entropy` is the teacher's own, exact, so that
    the value is unbiased as well as the gradient.
    """

    ids: Tensor  # [N, K] int64
    counts: Tensor  # [N, K] int64, 0 where a position has fewer different tokens; rows sum to `draws`
    draws: int
    entropy: Tensor  # [N] nats, of the distribution that was drawn from
    fingerprint: str
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if len(self.ids) and not bool((self.counts.sum(-1) == self.draws).all()):
            found = self.counts.sum(-1)
            raise ValueError(
                f"every position's counts must sum to {self.draws} draws, found {int(found.min())} to "
                f"{int(found.max())}; a cut cache is biased, draw it anew"
            )

    def rows(self, start: int, stop: int) -> Sampled:
        part = slice(start, stop)
        return replace(self, ids=self.ids[part], counts=self.counts[part], entropy=self.entropy[part])

    def to(self, device: torch.device) -> Sampled:
        return replace(self, ids=self.ids.to(device), counts=self.counts.to(device), entropy=self.entropy.to(device))


WholeTargets = Dense | FinalHidden
TeacherTargets = Dense | FinalHidden | Kept | Sampled
