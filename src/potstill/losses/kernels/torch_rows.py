"""The torch back end: a few rows of logits at a time, small enough to stay in the cache.

Between two matrix products a chunk of logits is read and written as seldom as
possible. So a block of rows is taken through everything (both softmaxes, values,
gradient) before the next one is touched, and the gradient overwrites the logits.
What two terms share is computed once.
"""

from __future__ import annotations

import torch
from torch import Tensor

from potstill.config.terms import AnyTerm, CrossEntropy, Divergence, LogitMSE
from potstill.losses.distribution import Distribution, distribution
from potstill.losses.kernels.chunk import Chunk
from potstill.losses.slopes import EXCLUDED, Slope, slope
from potstill.losses.sparse import SparseSlope, sparse_slope, text_slope
from potstill.losses.weighting import entropy_weights
from potstill.targets import Kept, Sampled

#: Logits in a block: 2 MiB in fp32 on a CPU, so that it lives in the cache; more where launching costs.
BLOCK_LOGITS = {"cpu": 2**19}
ELSEWHERE = 2**25


def through_rows(chunk: Chunk, gradient: bool) -> tuple[Tensor, Tensor]:
    """Values and final token weights, [terms, n] each; with `gradient`, `chunk.raw` holds it afterwards.

    The gradient is that of sum over terms and positions of term weight, token weight
    and value, with respect to the raw logits.

    Raises ValueError for logit MSE to a teacher that excludes tokens.
    """
    if chunk.excludes and any(isinstance(term, LogitMSE) for term in chunk.terms):
        raise ValueError(
            "logit MSE needs a logit for every token from both models, and the teacher excludes some (its head "
            "is narrower, or its logits are masked); use a divergence between probabilities"
        )
    n, width = chunk.raw.shape
    size = -(-BLOCK_LOGITS.get(chunk.raw.device.type, ELSEWHERE) // width)
    # Reductions share out whole rows among threads: three rows keep one of two waiting.
    size = -(-size // torch.get_num_threads()) * torch.get_num_threads()
    values = torch.empty_like(chunk.token_weights)
    weights = chunk.token_weights.clone()
    memory = _Memory()
    for start in range(0, n, size):
        block = _Block(chunk.rows(start, min(start + size, n)), memory)
        here = slice(start, start + size)
        weights[:, here] = block.token_weights
        values[:, here] = block.all_values(gradient)
    return values, weights


class _Memory:
    """Buffers that every block uses anew: fresh memory costs a page fault every 4 KiB."""

    def __init__(self) -> None:
        self._kept: dict[object, Tensor] = {}

    def like(self, tensor: Tensor, name: object) -> Tensor:
        """Uninitialised, of the same shape and type; the same memory for the same name."""
        if name not in self._kept:
            self._kept[name] = torch.empty_like(tensor)
        return self._kept[name][: len(tensor)]


class _Block:
    """Some rows with what is known of them so far."""

    def __init__(self, chunk: Chunk, memory: _Memory):
        self.chunk, self.said, self.memory = chunk, chunk.said, memory
        self.logits = chunk.head.finish(chunk.raw)  # the raw memory itself for a plain fp32 head
        self._student: dict[float, Distribution] = {}
        self._teacher: dict[float, Distribution] = {}
        self._said_logits: Tensor | None = None
        self.token_weights = torch.stack([self._token_weights(i) for i in range(len(chunk.terms))])
        weights = self.logits.new_tensor(chunk.term_weights)
        self.scaled = self.token_weights.to(self.logits.dtype) * weights[:, None]

    def all_values(self, gradient: bool) -> Tensor:
        """[terms, n]; the gradient goes to the chunk's memory, once no term needs the logits any more."""
        temperatures = dict.fromkeys(_temperature(term) for term in self.chunk.terms)
        found: dict[int, Tensor] = {}
        # With a single temperature nothing reads the logits after the gradient: it goes over them at once.
        over = (
            self.chunk.raw if len(temperatures) == 1 and self.logits.data_ptr() == self.chunk.raw.data_ptr() else None
        )
        parts = [part for t in temperatures if (part := self._at(t, found, gradient, over)) is not None]
        if gradient:
            total = parts[0]
            for part in parts[1:]:
                total += part
            total = self.chunk.head.unfinish(total, self.logits)
            if total.data_ptr() != self.chunk.raw.data_ptr():
                self.chunk.raw.copy_(total)
        return torch.stack([found[i] for i in range(len(self.chunk.terms))])

    def _at(self, temperature: float, found: dict[int, Tensor], gradient: bool, over: Tensor | None) -> Tensor | None:
        """Values of the terms at one temperature, into `found`, and their gradient [n, V], into `over` if given."""
        q = self.student(temperature).p
        dense: Tensor | None = None  # the part of the slope that differs from token to token ...
        coefficient = torch.zeros_like(self.scaled[0])  # ... the part that goes with q ...
        entries: list[tuple[Tensor, Tensor]] = []  # ... and single tokens
        for i, term in enumerate(self.chunk.terms):
            if _temperature(term) != temperature:
                continue
            part = self._slope(i, term, temperature)
            found[i] = part.value * term.scale
            if isinstance(part, SparseSlope):
                entries.append((part.ids, part.entries))
                coefficient += part.rest - part.total
            else:
                dense = part.slope if dense is None else dense.add_(part.slope)
                coefficient -= part.total
        if not gradient:
            return None
        if dense is None:
            total = torch.mul(q, coefficient[:, None], out=q if over is None else over)
        else:
            total = torch.addcmul(dense, q, coefficient[:, None], out=dense if over is None else over)
        for ids, values in entries:
            total.scatter_add_(-1, ids, values)
        return total if temperature == 1 else total.div_(temperature)

    def _slope(self, i: int, term: AnyTerm, temperature: float) -> Slope | SparseSlope:
        """Of term `i`, scaled by all that the gradient is multiplied with."""
        student, scaled = self.student(temperature), self.scaled[i] * term.scale
        if isinstance(term, CrossEntropy):
            return text_slope(self.chunk.target_ids, student, scaled)
        if isinstance(term, Divergence) and isinstance(self.said, Kept | Sampled):
            return sparse_slope(term, self.said, student, scaled)
        return slope(term, self.teacher(temperature).p, student.p, self.gap(temperature, i), scaled)

    def student(self, temperature: float) -> Distribution:
        if temperature not in self._student:
            self._student[temperature] = distribution(
                self.logits, temperature, self.memory.like(self.logits, ("q", temperature))
            )
        return self._student[temperature]

    def teacher(self, temperature: float) -> Distribution:
        """Where it says something about every token."""
        if temperature not in self._teacher:
            if self._said_logits is None:
                assert self.said is not None and not isinstance(self.said, Kept | Sampled)
                logits = self.said.logits().to(self.logits.dtype)
                self._said_logits = logits.clamp(min=EXCLUDED) if self.chunk.excludes else logits
            self._teacher[temperature] = distribution(
                self._said_logits, temperature, self.memory.like(self.logits, ("p", temperature))
            )
        return self._teacher[temperature]

    def gap(self, temperature: float, i: int) -> Tensor:
        """log p - log q, [n, V], in memory that is term `i`'s alone: its slope is left there."""
        teacher, student = self.teacher(temperature), self.student(temperature)
        gap = torch.sub(teacher.logits, student.logits, out=self.memory.like(self.logits, ("gap", i)))
        if temperature != 1:
            gap /= temperature
        return gap.add_(student.log_sum - teacher.log_sum)

    def _token_weights(self, i: int) -> Tensor:
        rule, weights = self.chunk.terms[i].token_weighting, self.chunk.token_weights[i]
        if rule is None or rule.kind != "teacher_entropy":
            return weights
        return weights * entropy_weights(rule, self._entropy())

    def _entropy(self) -> Tensor:
        """[n] nats, the teacher's at temperature 1."""
        if isinstance(self.said, Sampled):
            return self.said.entropy
        said = self.teacher(1.0)
        unsure: Tensor = said.log_sum[:, 0] - torch.linalg.vecdot(said.p, said.logits)
        return unsure


def _temperature(term: AnyTerm) -> float:
    return 1.0 if isinstance(term, CrossEntropy | LogitMSE) else term.divergence_temperature
