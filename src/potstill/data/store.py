"""Completions on disk, a JSON line each, with their history.

A line is fsynced before anything else is asked for, so that what was paid for is
never lost; a line that a kill tore is cut and sampled again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from potstill.data.encode import encode_answer
from potstill.records import Completion, History, Provenance
from potstill.run_dir import append_lines, read_lines


class StoreError(ValueError):
    """The stored completions do not fit the run; the message says how to mend it."""


class CompletionStore:
    """One append-only file of completions."""

    def __init__(self, path: Path):
        self.path = path

    def append(self, completions: Sequence[Completion]) -> None:
        append_lines(self.path, [_to_record(completion) for completion in completions])

    def read(self, generator: str) -> list[Completion]:
        """All completions; refuses those of another model than `generator`."""
        completions = [_from_record(record) for record in read_lines(self.path)]
        strangers = {c.history.generator for c in completions} - {generator}
        if strangers:
            raise StoreError(
                f"{self.path} holds completions of the model {sorted(strangers)[0]}, the run's is {generator}. "
                "The model's files changed; use a new output directory, or put the old files back."
            )
        return completions


def read_completion_file(
    path: str | Path,
    prompt_ids: set[str],
    tokenizer: Any,
    provenance: Provenance,
    generator: str,
    terms: str | None,
) -> list[Completion]:
    """Somebody else's answers: JSON lines with `prompt_id` and `text` or `token_ids`.

    Optional keys: `logprobs`, `finish` ("length" for an answer that was cut, which then
    gets no end token), `sampling`, `revision`. Lines for unknown prompts are left out.
    """
    path = Path(path)
    if not path.is_file():
        raise StoreError(f"no completions at {path}: expected JSON lines with prompt_id and text (or token_ids)")
    counts: dict[str, int] = {}
    found = []
    for number, line in enumerate(read_lines(path), start=1):
        if "prompt_id" not in line or ("text" not in line and "token_ids" not in line):
            raise StoreError(f"{path}, line {number}: needs prompt_id and text (or token_ids), found {sorted(line)}")
        name = str(line["prompt_id"])
        if name not in prompt_ids:
            continue
        ids = tuple(line["token_ids"]) if "token_ids" in line else encode_answer(tokenizer, line["text"])
        cut = line.get("finish") == "length"
        if cut and "token_ids" not in line:
            ids = ids[:-1]
        if not ids:
            raise StoreError(f"{path}, line {number}: the completion of {name!r} is empty")
        history = History(provenance, generator, line.get("revision"), line.get("sampling", {}), 1, terms)
        text = line.get("text", tokenizer.decode(ids, skip_special_tokens=True))
        logprobs = tuple(line["logprobs"]) if line.get("logprobs") else None
        index = counts[name] = counts.get(name, -1) + 1
        found.append(Completion(name, index, ids, text, "length" if cut else "given", history, logprobs))
    if not found:
        raise StoreError(f"none of the completions in {path} belongs to a training prompt: check prompt_id")
    return found


def _to_record(completion: Completion) -> dict[str, Any]:
    return asdict(completion)


def _from_record(record: dict[str, Any]) -> Completion:
    record = dict(record)
    record["history"] = History(**record["history"])
    record["token_ids"] = tuple(record["token_ids"])
    if record["logprobs"] is not None:
        record["logprobs"] = tuple(record["logprobs"])
    return Completion(**record)


def missing(wanted: Iterable[tuple[str, int]], completions: Iterable[Completion]) -> set[tuple[str, int]]:
    """Which (prompt id, index) have no completion yet."""
    return set(wanted) - {(completion.prompt_id, completion.index) for completion in completions}
