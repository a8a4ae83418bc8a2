"""Asking a model for completions, many at a time, so that a kill costs little.

What is to be sampled is planned first, in batches that depend only on the list of
requests. A batch that is wholly on disk is skipped; one that is partly there is
sampled again whole and only what was missing is written. So an interrupted
sampling ends with the very bytes of an unbroken one.

Random numbers are keyed by (seed, stream, prompt, completion, position): what is
drawn for a token depends neither on the batch it shares nor on what ran before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from potstill.data.store import CompletionStore, missing
from potstill.records import Completion


@dataclass(frozen=True, slots=True)
class Request:
    """One completion to be sampled."""

    prompt_id: str
    index: int
    prompt: tuple[int, ...]


class Sampler(Protocol):
    """Answers a batch of requests."""

    @property
    def fingerprint(self) -> str: ...

    def sample(self, requests: Sequence[Request]) -> list[Completion]: ...


def uniforms(seed: int, stream: str, prompt_id: str, index: int, count: int) -> np.ndarray:
    """[count] numbers in [0, 1), one for each position of one completion."""
    key = hashlib.sha256(f"{seed}|{stream}|{prompt_id}|{index}".encode()).digest()[:16]
    return np.random.Generator(np.random.Philox(key=int.from_bytes(key, "little"))).random(count)


def plan_batches(requests: Sequence[Request], batch_rows: int) -> list[list[Request]]:
    """Batches of prompts of like length; a function of the requests alone."""
    order = sorted(requests, key=lambda r: (len(r.prompt), r.prompt_id, r.index))
    return [order[i : i + batch_rows] for i in range(0, len(order), batch_rows)]


def sample_all(
    requests: Sequence[Request],
    sampler: Sampler,
    store: CompletionStore,
    batch_rows: int,
    on_batch: Callable[[int, int], bool],
) -> list[Completion] | None:
    """Sample what is not on disk yet; completions in the order of `requests`.

    `on_batch(completions, tokens)` is told what is on disk already (with 0 tokens) and then of each
    batch, and may return True to stop: then None is returned, and the next call goes on from there.
    """
    done = store.read(sampler.fingerprint)
    if len(done) < len(requests):
        on_batch(len(done), 0)
    open_requests = missing([(r.prompt_id, r.index) for r in requests], done)
    for batch in plan_batches(requests, batch_rows):
        wanted = [r for r in batch if (r.prompt_id, r.index) in open_requests]
        if not wanted:
            continue
        keep = {(r.prompt_id, r.index) for r in wanted}
        fresh = [c for c in sampler.sample(batch) if (c.prompt_id, c.index) in keep]
        store.append(fresh)
        done += fresh
        if on_batch(len(fresh), sum(len(c.token_ids) for c in fresh)):
            return None
    by_key = {(c.prompt_id, c.index): c for c in done}
    return [by_key[(r.prompt_id, r.index)] for r in requests]
