"""Sees to it that every row exists before its step: follows data plans, and samples fresh completions.

Fresh rows are sampled for a few steps at once (`source.online.steps_at_once`), where the
source plans them, by the teacher or by the student as it is at that moment. They are on
disk before they are trained on, with the step of the weights that sampled them; a run that
is killed and goes on finds them there and does not sample them again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from torch import nn

from potstill.config.remedy import OnAlarm
from potstill.config.run import Run
from potstill.config.source import ONLINE, Online, online_of
from potstill.data.collate import Row
from potstill.data.rows import check_rows
from potstill.data.store import CompletionStore
from potstill.data.traces import trace_length
from potstill.generation.base import Generator, Request
from potstill.generation.local import LocalSampler
from potstill.records import Completion, DataPlan, Prompt
from potstill.run_dir import RunDir
from potstill.sources.base import FRESH
from potstill.sources.mixture import MixtureSource
from potstill.training.completions import Asker, local_sampler, rows_of
from potstill.training.parallel import World, gather
from potstill.training.speaking import speaking
from potstill.training.stages import Models, Prompts, held_out_sampling

Note = Callable[[str, dict[str, Any]], None]  # writes one event: its name, its facts


def online_of_remedy(on_alarm: OnAlarm | None) -> Online | None:
    """How a remedy has fresh rows sampled; None where none has."""
    return on_alarm.online if on_alarm is not None and "online_mixture" in on_alarm.remedies else None


@dataclass
class Feeder:
    """What changes while a run is fed: its rows, and the plans still to come."""

    run: RunDir
    config: Run
    world: World
    models: Models
    prompts: Prompts
    limit: int
    source: MixtureSource
    rows: dict[int, Row]
    changes: list[DataPlan]  # known beforehand, still to come
    note: Note

    def __post_init__(self) -> None:
        self.by_id: dict[str, Prompt] = {p.id: p for p in self.prompts.train}
        self.asker = Asker.of(self.config, self.models, self.prompts)
        self.online: Online | None = online_of(self.config.source) or online_of_remedy(self.config.monitor.on_alarm)
        self.on_disk: dict[tuple[str, int], Completion] = {}
        if self.online is not None:
            for path in sorted(self.run.file("completions").glob("online-*.jsonl")):
                stream = path.name.removeprefix("online-").split(".")[0]
                for completion in CompletionStore(path).read():
                    self.on_disk[(stream, completion.index)] = completion

    def prepare(self, step: int, wrapped: nn.Module) -> int:
        """Have all rows of `step`; returns how many completions were sampled. Every process must call it."""
        while self.changes and self.changes[0].from_step <= step:
            self.follow(self.changes.pop(0))
        if self.online is None:
            return 0
        until = (step // self.online.steps_at_once + 1) * self.online.steps_at_once
        until = min(until, self.config.training.steps, *(change.from_step for change in self.changes))
        planned = [row for s in range(step, until) for _, row in self.source.planned(s) if row >= FRESH]
        missing = [row for row in dict.fromkeys(planned) if row not in self.rows]
        if not missing:
            return 0
        self._forget(planned)
        sampled = 0
        for number, stream in enumerate(ONLINE, start=1):
            wanted = [row for row in missing if row // FRESH == number]
            if wanted:
                sampled += self._add(stream, wanted, step, wrapped)
        return sampled

    def follow(self, plan: DataPlan) -> None:
        """Change to another plan at its step; it is on disk before its first batch."""
        self.source.replan(plan)
        taken = self.source.taken(plan.from_step)
        for row in [r for r in self.rows if r >= FRESH]:
            number, position = divmod(row, FRESH)
            # Sampled ahead for a prompt that the new plan does not ask there: a resumed run would not find it.
            ahead = position >= taken[ONLINE[number - 1]]
            if ahead and self.rows[row].prompt_id != self.source.prompt_of(row):
                del self.rows[row]
        self.note("data plan", asdict(plan))

    def rows_of(self, completions: Sequence[Completion]) -> list[Row]:
        """Checked rows of completions that came during the run."""
        rows = rows_of(self.config, self.models, self.prompts, completions, self.limit)
        check_rows(rows, self.limit, self.models.teacher.is_encoder_decoder)
        marker = self.config.data.trace_ends_with
        if marker is None:
            return rows
        return [replace(row, num_trace=trace_length(self.models.tokenizer, row.answer, marker)) for row in rows]

    def _add(self, stream: str, wanted: Sequence[int], step: int, wrapped: nn.Module) -> int:
        """Rows for fresh ids: from disk where they are there, else sampled now and shared between processes."""
        name = stream.removeprefix("online_")
        found = {row: self.on_disk.get((name, row % FRESH)) for row in wanted}
        open_ids = [row for row, c in found.items() if c is None or c.prompt_id != self.source.prompt_of(row)]
        share = open_ids
        if name == "student" and self.config.training.parallel == "fsdp":
            share = open_ids  # sharded weights need all processes to do the same
        elif self.world.size > 1:
            share = open_ids[self.world.rank :: self.world.size]
        mine = self._sample(name, share, step, wrapped)
        for part in gather(mine, self.world):
            for completion in part:
                found[wanted[0] // FRESH * FRESH + completion.index] = completion
        for row, completion in found.items():
            assert completion is not None
            self.rows[row] = self._row(completion)
        return len(open_ids)

    def _sample(self, name: str, ids: Sequence[int], step: int, wrapped: nn.Module) -> list[Completion]:
        requests = []
        for row in ids:
            prompt = self.by_id[self.source.prompt_of(row)]
            requests.append(self._request(prompt, row % FRESH, name))
        if name == "teacher":
            return self._collect(self._teacher(), requests, name)
        with speaking(wrapped, self.models.student):
            return self._collect(self._student(step), requests, name)

    def _collect(self, generator: Generator, requests: Sequence[Request], name: str) -> list[Completion]:
        store = CompletionStore(self.run.file("completions") / f"online-{name}.{self.world.rank}.jsonl")
        found = []
        with store.writing():
            for completion in generator.generate(requests):
                store.append([completion])
                found.append(completion)
        return found

    def _request(self, prompt: Prompt, index: int, name: str) -> Request:
        if name == "teacher":
            return self.asker.request(prompt, index)
        return replace(self.asker, asking=None).request(prompt, index)

    def _teacher(self) -> LocalSampler:
        assert self.online is not None
        sampling = self.online.sampling or held_out_sampling(self.config)
        return local_sampler(
            self.models.teacher, self.world.device, sampling, self.config.seed, "online-teacher", self.online.slots
        )

    def _student(self, step: int) -> LocalSampler:
        assert self.online is not None
        sampling = self.online.sampling or held_out_sampling(self.config)
        return LocalSampler(
            self.models.student, self.models.tokenizer, "student", f"step {step}", "student", sampling,
            self.config.seed, "online-student", bf16=self.config.training.precision == "bf16",
            slots=self.online.slots, depth=2,
        )  # fmt: skip

    def _row(self, completion: Completion) -> Row:
        (row,) = self.rows_of([completion])
        if completion.history.provenance == "student":
            row = replace(row, sampled_at=int(str(completion.history.revision).removeprefix("step ")))
        return row

    def _forget(self, planned: Sequence[int]) -> None:
        """Drop fresh rows that can never come again: older than what a replay may draw."""
        reach = 0 if self.source.replay is None else self.source.replay.capacity_rows
        oldest = {number: min((r for r in planned if r // FRESH == number), default=None) for number in (1, 2)}
        for row in [r for r in self.rows if r >= FRESH]:
            first = oldest[row // FRESH]
            if first is not None and row < first - reach:
                del self.rows[row]
