"""Completions on disk, a JSON line each, with their history.

A line is fsynced before anything else is asked for, so that what was paid for is
never lost; a line that a kill tore is cut and sampled again. A store is written by one
process at a time. A completion has its place by prompt, number and whatever decides how it
was sampled, and stands there once, however often it was asked for.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from potstill.data.encode import encode_answer
from potstill.records import Completion, History, Provenance
from potstill.run_dir import append_lines, read_lines, to_json, write_atomic


class StoreError(ValueError):
    """The stored completions do not fit the run; the message says how to mend it."""


class CompletionStore:
    """One append-only file of completions."""

    def __init__(self, path: Path):
        self.path = path

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Nobody else writes meanwhile; a killed process's hold ends with it. Raises StoreError."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.path.with_name(f".{self.path.name}.lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise StoreError(
                f"another process is writing completions to {self.path}. Wait until it has ended, stop it, or use "
                "another output directory."
            ) from error
        try:
            yield
        finally:
            lock.release()

    def append(self, completions: Sequence[Completion], keys: Sequence[str] | None = None) -> None:
        """`keys` say what each one's prompt was, in full: see `Request.key`."""
        named: Sequence[str | None] = keys or [None] * len(completions)
        append_lines(self.path, [_to_record(c) | {"key": key} for c, key in zip(completions, named, strict=True)])

    def replace(self, completions: Sequence[Completion]) -> None:
        """Hold these and no others; a reader sees all of the old or all of the new."""
        lines = "".join(to_json(_to_record(completion)) + "\n" for completion in completions)
        write_atomic(self.path, lines.encode())

    def read(self, generator: str | None = None) -> list[Completion]:
        """All completions; refuses those of another model than `generator`, where one is named."""
        return [completion for completion, _ in self.read_keyed(generator)]

    def read_keyed(self, generator: str | None = None) -> list[tuple[Completion, str | None]]:
        """All completions, each with its prompt's key."""
        found = [(_from_record(record), record.get("key")) for record in read_lines(self.path)]
        strangers = {c.history.generator for c, _ in found} - {generator}
        if generator is not None and strangers:
            raise StoreError(
                f"{self.path} holds completions of the model {sorted(strangers)[0]}, the run's is {generator}. "
                "The model's files changed; use a new output directory, or put the old files back."
            )
        return found

    def as_dataset(self) -> Any:
        """A `datasets.Dataset`, a row for each completion; sampling and verifiers are JSON text."""
        import datasets

        rows = [asdict(completion) for completion in self.read()]
        for row in rows:
            row |= row.pop("history")
            for name in ("sampling", "verifiers", "asked"):
                row[name] = json.dumps(row[name], sort_keys=True)
        return datasets.Dataset.from_list(rows)


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
    record = {name: value for name, value in record.items() if name != "key"}
    history = dict(record["history"])
    if history.get("asked") is not None:
        history["asked"] = tuple((role, content) for role, content in history["asked"])
    record["history"] = History(**history)
    record["token_ids"] = tuple(record["token_ids"])
    if record["logprobs"] is not None:
        record["logprobs"] = tuple(record["logprobs"])
    for name in ("top_ids", "top_logprobs"):
        if record.get(name) is not None:
            record[name] = tuple(tuple(entries) for entries in record[name])
    return Completion(**record)


def missing(
    wanted: Mapping[tuple[str, int], str], stored: Iterable[tuple[Completion, str | None]]
) -> set[tuple[str, int]]:
    """Which (prompt id, index) have no completion yet; `wanted` says what each one's prompt is, by its key.

    Raises StoreError where a completion is there that answers another prompt of the same name.
    """
    there: set[tuple[str, int]] = set()
    for completion, key in stored:
        name = (completion.prompt_id, completion.index)
        if key is not None and name in wanted and wanted[name] != key:
            raise StoreError(
                f"the stored completion {completion.index} of prompt {completion.prompt_id!r} answers other words than "
                "that prompt has now. Use a new output directory, or give the changed prompts ids of their own."
            )
        there.add(name)
    return set(wanted) - there
