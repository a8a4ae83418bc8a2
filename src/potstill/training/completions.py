"""Completions for a run, and rows from them: sampled, asked for in other words, verified, or read from files."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from potstill.config.asking import Asking
from potstill.config.data import FileCompletions, SampledCompletions, Sampling, StoreCompletions
from potstill.config.run import Run
from potstill.data.collate import Row
from potstill.data.encode import EncodedPrompt, encode_prompt
from potstill.data.rows import check_room, check_rows, completion_rows, reference_rows
from potstill.data.store import CompletionStore, StoreError, read_completion_file
from potstill.data.traces import mark_traces
from potstill.generation.asking import as_asked, asked, criticised, from_asked, strategy_of
from potstill.generation.base import Generator, Request, sample_all
from potstill.generation.local import LocalSampler
from potstill.models.load import Loaded
from potstill.records import Completion, DataPlan, Message, Prompt
from potstill.run_dir import RunDir
from potstill.sources.catalog import Catalog, Known
from potstill.training.rejecting import keep_verified
from potstill.training.stages import Models, Prompts
from potstill.verifiers.base import VerifierError

Progress = Callable[[str, int, int, int], bool]  # (what, total rows, rows, tokens) -> stop?
#: File of the teacher's offline completions, and stream of their random numbers.
TRAINING = "train-teacher"


@dataclass(frozen=True)
class Asker:
    """Turns prompts into requests; knows the tokenizer and how the generator is to be asked."""

    tokenizer: Any
    template: dict[str, Any]
    encoded: dict[str, EncodedPrompt]
    asking: Asking | None
    seed: int
    erased: bool = True  # the student sees the prompt, whatever the generator was shown

    @classmethod
    def of(cls, config: Run, models: Models, prompts: Prompts) -> Asker:
        how = config.data.completions
        asking = how.asking if isinstance(how, SampledCompletions) else None
        sees = (
            how.student_sees
            if isinstance(how, StoreCompletions)
            else "prompt"
            if asking is None
            else asking.student_sees
        )
        template = dict(config.data.chat_template_kwargs)
        return cls(models.tokenizer, template, prompts.encoded, asking, config.seed, sees == "prompt")

    def request(self, prompt: Prompt, index: int) -> Request:
        """What the generator is shown for completion `index` of a prompt."""
        if self.asking is None:
            return Request(prompt.id, index, self.encoded[prompt.id].ids, prompt.messages, prompt.text)
        strategy = strategy_of(prompt, index, self.asking, self.seed)
        return self._shown(asked(prompt, strategy), index, strategy.name)

    def second_turn(self, prompt: Prompt, draft: Completion) -> Request:
        """The request for a corrected answer after `draft`."""
        assert self.asking is not None and self.asking.critique is not None
        shown = from_asked(prompt, draft.history.asked or as_asked(prompt))
        return self._shown(criticised(shown, draft, self.asking.critique), draft.index, draft.history.strategy)

    def _shown(self, shown: Prompt, index: int, strategy: str | None) -> Request:
        ids = encode_prompt(self.tokenizer, shown, "last", self.template).ids
        return Request(
            shown.id, index, ids, shown.messages, shown.text, strategy=strategy, asked=as_asked(shown)
        )  # fmt: skip

    def encode(self, prompt: Prompt, completion: Completion) -> tuple[int, ...] | None:
        """Token ids of what the generator was shown, where that was not the prompt itself."""
        if completion.history.asked is None:
            return None
        shown = from_asked(prompt, completion.history.asked)
        return encode_prompt(self.tokenizer, shown, "last", self.template).ids


def local_sampler(
    loaded: Loaded, device: torch.device, sampling: Sampling, seed: int, stream: str, slots: int
) -> LocalSampler:
    """A sampler of a frozen model in this process."""
    loaded.model.to(device)
    return LocalSampler(
        loaded.model, loaded.tokenizer, loaded.fingerprint, loaded.revision, "teacher", sampling, seed, stream,
        slots=slots, terms=loaded.terms,
    )  # fmt: skip


def sample(
    run: RunDir, name: str, generator: Generator, requests: Sequence[Request], progress: Progress
) -> list[Completion] | None:
    """Completions of `requests`, in `completions/<name>.jsonl`; None when asked to stop."""
    store = CompletionStore(run.file("completions") / f"{name}.jsonl")
    return sample_all(
        requests, generator, store, lambda rows, tokens: progress(f"sampling {name}", len(requests), rows, tokens)
    )


def answers(
    run: RunDir, name: str, loaded: Loaded, device: torch.device, asker: Asker, prompts: Sequence[Prompt],
    per_prompt: int, sampling: Sampling, batch_rows: int, progress: Progress,
) -> list[Completion] | None:  # fmt: skip
    """A frozen model's answers to prompts, in `completions/<name>.jsonl`; None when asked to stop."""
    requests = [asker.request(p, index) for p in prompts for index in range(per_prompt)]
    sampler = local_sampler(loaded, device, sampling, asker.seed, name, batch_rows)
    return sample(run, name, sampler, requests, progress)


@dataclass(frozen=True)
class Answers:
    """What feeds the run beside fresh rows."""

    completions: list[Completion]
    references: frozenset[str] | None = None  # prompts whose reference feeds it; None: of all
    lines: tuple[str, ...] = ()  # what rejection kept and lost


def training_completions(
    run: RunDir, config: Run, models: Models, prompts: Prompts, device: torch.device, progress: Progress
) -> Answers | None:
    """Sampled, verified and read; None when asked to stop."""
    how = config.data.completions
    if isinstance(how, FileCompletions):
        ids = {p.id for p in prompts.train}
        read = read_completion_file(how.path, ids, models.tokenizer, how.provenance, how.generator, how.terms)
        return Answers(read)
    if isinstance(how, StoreCompletions):
        return from_store(how.path, prompts.train)
    if not isinstance(how, SampledCompletions) or "teacher" not in config.source.fed:
        return Answers([])
    plans = data_plans(config, prompts)
    chosen = set(prompts.in_order(config.seed)[: max(plan.num_prompts for plan in plans)])
    asked_for = [p for p in prompts.train if p.id in chosen]
    per_prompt = max(plan.completions_per_prompt for plan in plans)
    asker = Asker.of(config, models, prompts)
    found = offline_answers(run, config, how, models.teacher, device, asker, asked_for, per_prompt, progress)
    if found is None or how.rejection is None:
        return None if found is None else Answers(found)
    judge = partial(local_judge, models.teacher, device, asker, how.batch_rows)

    progress("verifying", len(found), 0, 0)

    def verified(_: int) -> None:
        progress("verifying", len(found), 1, 0)

    survivors = keep_verified(run.file("completions"), asked_for, found, how.rejection, judge, verified)
    if not survivors.completions:
        raise VerifierError(
            f"rejection kept none of {len(found)} completions; {run.file('completions') / 'rejection.json'} says what "
            "the verifiers found. Ask for more per prompt, show the teacher a worked example (asking), or check the "
            "verifier's `answer` rules against some completions."
        )
    return Answers(survivors.completions, survivors.references, tuple(survivors.lines))


def offline_answers(
    run: RunDir, config: Run, how: SampledCompletions, teacher: Loaded, device: torch.device, asker: Asker,
    prompts: Sequence[Prompt], per_prompt: int, progress: Progress,
) -> list[Completion] | None:  # fmt: skip
    """The teacher's offline completions of these prompts, what is on disk read and the rest sampled; None: stopped."""

    def sampler(stream: str) -> LocalSampler:
        return local_sampler(teacher, device, how.sampling, config.seed, stream, how.batch_rows)

    def keep(name: str, generator: Generator, requests: Sequence[Request]) -> list[Completion] | None:
        return sample(run, name, generator, requests, progress)

    return in_turns(TRAINING, asker, prompts, per_prompt, sampler, keep)


def in_turns(
    name: str, asker: Asker, prompts: Sequence[Prompt], per_prompt: int, sampler: Callable[[str], Generator],
    keep: Callable[[str, Generator, Sequence[Request]], list[Completion] | None],
) -> list[Completion] | None:  # fmt: skip
    """First answers, and with a critique the second ones after them; `keep` samples and stores what is open."""
    requests = [asker.request(p, i) for p in prompts for i in range(per_prompt)]
    if asker.asking is None or asker.asking.critique is None:
        return keep(name, sampler(name), requests)
    drafts = keep(f"{name}-drafts", sampler(f"{name}-drafts"), requests)
    if drafts is None:
        return None
    by_id = {p.id: p for p in prompts}
    return keep(name, sampler(name), [asker.second_turn(by_id[draft.prompt_id], draft) for draft in drafts])


def local_judge(
    loaded: Loaded, device: torch.device, asker: Asker, slots: int, max_new_tokens: int
) -> tuple[Generator, Callable[[tuple[Message, ...]], tuple[int, ...]]]:
    """A model in this process as judge, and what renders its messages."""
    law = Sampling(sampling_temperature=0.0, max_new_tokens=max_new_tokens)
    judge = local_sampler(loaded, device, law, asker.seed, "judge", slots)
    return judge, lambda turns: encode_prompt(asker.tokenizer, Prompt("judge", turns), "last", asker.template).ids


def from_store(path: str, prompts: Sequence[Prompt]) -> Answers:
    """What `potstill generate` left: the kept completions where it rejected any, else all, of these prompts.

    Raises StoreError: no store there, no completion of any of the prompts.
    """
    folder, ids = Path(path), {p.id for p in prompts}
    file = next((folder / f for f in ("kept.jsonl", "completions.jsonl") if (folder / f).is_file()), None)
    if file is None:
        raise StoreError(f"no store at {folder}: expected a directory that `potstill generate` wrote")
    found = [c for c in CompletionStore(file).read() if c.prompt_id in ids]
    if not found:
        raise StoreError(
            f"{file} has no completion of any of the {len(ids)} training prompts: check that data.prompts is the "
            "same in both configurations (ids come from the prompts' content unless `id` names a column)"
        )
    references = None
    if file.name == "kept.jsonl":
        references = frozenset(json.loads((folder / "rejection.json").read_text())["references_of"])
    return Answers(found, references)


def data_plans(config: Run, prompts: Prompts) -> list[DataPlan]:
    """The first plan, and the changes that are known beforehand."""
    how, divisor = config.data.completions, config.data.prompt_divisor
    per_prompt = how.per_prompt if isinstance(how, SampledCompletions) else 10**6
    fractions = {str(name): share for name, share in config.source.fractions.items()}
    plans = [DataPlan(1, 0, fractions, per_prompt * divisor, prompts.in_use // divisor, "as configured")]
    for change in config.source.changes:
        old = plans[-1]
        plans.append(
            DataPlan(
                old.version + 1,
                change.from_step,
                {str(name): share for name, share in (change.fractions or old.fractions).items()},
                change.completions_per_prompt or old.completions_per_prompt,
                change.num_prompts or old.num_prompts,
                change.reason,
            )
        )
    return plans


def training_rows(
    config: Run, models: Models, prompts: Prompts, answers: Answers, limit: int
) -> tuple[list[Row], Catalog]:
    """Rows that exist before training, and the catalog of them."""
    rows = rows_of(config, models, prompts, answers.completions, limit)
    if "reference" in config.may_feed and not any(r.provenance == "reference" for r in rows):
        used = [p for p in prompts.train if answers.references is None or p.id in answers.references]
        rows += reference_rows(models.tokenizer, used, prompts.encoded)
    if config.data.trace_ends_with is not None and rows:
        rows = mark_traces(rows, models.tokenizer, config.data.trace_ends_with)
    check_rows(rows, limit, models.teacher.is_encoder_decoder)
    known: dict[str, list[Known]] = {}
    for i, row in enumerate(rows):
        known.setdefault(row.provenance, []).append(Known(i, row.prompt_id, row.index))
    return rows, Catalog(known, prompts.in_order(config.seed))


def rows_of(config: Run, models: Models, prompts: Prompts, completions: Sequence[Completion], limit: int) -> list[Row]:
    """A row for each completion; the teacher judges it after the prompt that it was shown."""
    asker = Asker.of(config, models, prompts)
    by_id = {p.id: p for p in prompts.train}
    shown = [asker.encode(by_id[c.prompt_id], c) for c in completions]
    pairs = zip(completions, shown, strict=True)
    in_other_words = {f"{c.prompt_id} as asked": EncodedPrompt(ids, ()) for c, ids in pairs if ids}
    check_room(in_other_words, 1, limit, models.teacher.is_encoder_decoder)
    return completion_rows(completions, prompts.encoded, shown, erased=asker.erased)
