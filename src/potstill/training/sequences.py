"""Reverse KL and Jensen-Shannon of the student, on a slower clock than the rest of the monitor.

Both need completions that the student writes as it is now. The same uniform numbers are
used at every evaluation, so the curves are paired between steps; and they are those that
the teacher was sampled with, which takes noise out of Jensen-Shannon (evaluation/sequence.py).

    student's samples              -> proxy_rkl, KL(student || teacher); golden_rkl to the oracle
    these and the frozen model's   -> proxy_js, golden_js: at most log 2 a completion

Nothing of it is on disk but the series, and nothing is remembered between evaluations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn

from potstill.config.data import Sampling
from potstill.config.run import Run
from potstill.data.collate import Row, cut_by_length
from potstill.data.encode import EncodedPrompt
from potstill.data.rows import check_room
from potstill.evaluation.sequence import (
    Party,
    Rules,
    Said,
    compare,
    itself,
    jensen_shannon,
    log_probs,
    refuse_other_ends,
    sampled_rows,
)
from potstill.generation.base import Request
from potstill.generation.local import LocalSampler
from potstill.models.load import Loaded
from potstill.models.scored import ScoredModel
from potstill.models.vocabulary import Alignment
from potstill.records import Measured, Prompt
from potstill.training.completions import Asker
from potstill.training.parallel import World, gather, in_turns
from potstill.training.speaking import speaking
from potstill.training.stages import Models, Prompts, held_out_sampling


@dataclass(frozen=True)
class Frozen:
    """A frozen model that the student is held against, with its own completions."""

    name: str  # of the series: proxy, golden
    party: Party
    over: Alignment  # the student's columns over this model's
    rows: list[Row]
    own: Tensor  # [R] its log-probs of them, in the order of `cut_by_length`


@dataclass(frozen=True)
class Clock:
    """At which steps the student is sampled."""

    every_steps: int  # between evaluations
    every: int  # evaluations
    last_step: int

    def due(self, step: int) -> bool:
        return step == self.last_step or step % (self.every_steps * self.every) == 0


@dataclass(frozen=True)
class Sequences:
    """Samples the student and compares; one for a run."""

    clock: Clock
    frozen: list[Frozen]
    requests: list[Request]
    asked: dict[tuple[str, int], tuple[int, ...]]  # what the teacher is shown, where that is not the prompt
    student: Any
    sampler: LocalSampler
    rules: Rules
    world: World
    sharded: bool

    def due(self, step: int) -> bool:
        """Whether the evaluation at `step` measures these."""
        return self.clock.due(step)

    @torch.no_grad()
    def measure(self, wrapped: nn.Module, step: int) -> dict[str, Measured]:
        """All series, nats per completion. Every process must call it."""
        series: dict[str, Measured] = {}
        with speaking(wrapped, self.student):
            rows = self._sampled(step)
            here = Party(ScoredModel(self.student, self._pack_tokens), "student")
            for model in self.frozen:
                said = compare(rows, here, model.party, model.over, self.rules)
                series[f"{model.name}_rkl"] = said.series(said.steps)
                series[f"{model.name}_js"] = jensen_shannon(self._of_frozen(model, here), said)
        return series

    @property
    def _pack_tokens(self) -> int | None:
        return self.frozen[0].party.scored.pack_tokens

    def _sampled(self, step: int) -> list[Row]:
        """The student's completions; each process samples its part, or all of it where weights are sharded."""
        sampler = replace(self.sampler, revision=f"step {step}")
        if self.sharded or self.world.size == 1:
            return sampled_rows(sampler, self.requests, self.asked)
        mine = sampled_rows(sampler, self.requests[self.world.rank :: self.world.size], self.asked)
        return [row for part in gather(mine, self.world) for row in part]

    def _of_frozen(self, model: Frozen, student: Party) -> Said:
        """What both say of the frozen model's completions; single tokens are enough here."""
        other = log_probs(model.rows, student, self.rules)
        rows = [row for cut in cut_by_length(model.rows, self.rules.batch_rows) for row in cut]
        nothing = torch.full_like(other, torch.nan)
        return Said([r.prompt_id for r in rows], [len(r.answer) for r in rows], model.own, other, nothing, nothing)


def build_sequences(
    config: Run, models: Models, prompts: Prompts, sampled: dict[str, tuple[str, list[Row]]], world: World, limit: int,
    asker: Asker,
) -> Sequences:  # fmt: skip
    """Check that the models' completions can be compared, and have the frozen ones score their own.

    `sampled`: `proxy`, and with an oracle `golden` -> (stream of random numbers, plain samples).
    Raises ModelError, EncodeError.
    """
    monitor, training = config.monitor, config.training
    assert monitor.sequence_every is not None
    share = partial(in_turns, world)
    rules = Rules(models.layout, monitor.batch_rows, world.device, share, config.objective)
    stream, rows = sampled["proxy"]
    longest = held_out_sampling(config).max_new_tokens
    measured = {row.prompt_id for row in rows}
    frozen = []
    for name, loaded, alignment, sees in _judges(models):
        refuse_other_ends(models.student, models.tokenizer, loaded.model, loaded.tokenizer)
        scored = ScoredModel(loaded.model, training.pack_tokens).to(world.device)
        party = Party(scored, loaded.fingerprint, sees)
        over = Alignment(alignment.shared, scored.vocabulary_width)
        its = [_answer_only(row) for row in sampled[name][1] if row.prompt_id in measured]
        frozen.append(Frozen(name, party, over, its, log_probs(its, party, rules)))
    shown = [p for p in prompts.held_out if p.id in measured]
    requests, asked = _requests(shown, monitor.completions_per_prompt, prompts, asker)
    apart = {f"{name} as asked": EncodedPrompt(ids, ()) for (name, _), ids in asked.items()}
    check_room(apart, longest, limit, models.teacher.is_encoder_decoder)
    sampler = LocalSampler(
        models.student, models.tokenizer, "student", None, "student", Sampling(max_new_tokens=longest), config.seed,
        stream, bf16=training.precision == "bf16", slots=monitor.batch_rows, depth=2,
    )  # fmt: skip
    clock = Clock(monitor.every_steps, monitor.sequence_every, training.steps)
    sharded = world.size > 1 and training.parallel == "fsdp"
    return Sequences(clock, frozen, requests, asked, models.student, sampler, rules, world, sharded)


def _judges(models: Models) -> Iterator[tuple[str, Loaded, Alignment, Callable[[Row], Row]]]:
    """Name of the series, model, its columns over the student's, and how it is shown a row."""
    yield "proxy", models.teacher, models.alignment, attrgetter("as_teacher_saw_it")
    if models.oracle is not None:
        assert models.oracle_alignment is not None
        yield "golden", models.oracle, models.oracle_alignment, itself


def _answer_only(row: Row) -> Row:
    """Earlier turns that a training row may count were sampled from nobody."""
    return replace(row, prompt_counted=(False,) * len(row.prompt))


def _requests(
    shown: Sequence[Prompt], per_prompt: int, prompts: Prompts, asker: Asker
) -> tuple[list[Request], dict[tuple[str, int], tuple[int, ...]]]:
    """What the student is asked, and what the teacher is shown in its place where that differs."""
    requests, asked = [], {}
    for prompt in shown:
        for index in range(per_prompt):
            its = asker.request(prompt, index).prompt
            own = prompts.encoded[prompt.id].ids if asker.erased else its
            requests.append(Request(prompt.id, index, own))
            if its != own:
                asked[(prompt.id, index)] = its
    return requests, asked
