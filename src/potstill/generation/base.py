"""Asking a model for completions, many at a time, so that a kill costs little.

A generator takes requests and hands back each completion as soon as it is whole. It is
written down before the generator is asked for the next one, so a kill repeats at most
what was in flight.

Random numbers are keyed by (seed, stream, prompt, completion, position): what is
drawn for a token depends neither on the requests it runs beside nor on what ran before.
So an interrupted sampling ends with the completions of an unbroken one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from potstill.data.store import CompletionStore, missing
from potstill.records import Asked, Completion, Message
from potstill.run_dir import digest


@dataclass(frozen=True, slots=True)
class Request:
    """One completion to be sampled: completion `index` of a prompt, given in token ids, in messages or as text.

    A generator in this process reads `prompt`; one behind a wire reads `messages` or, without them, `text`.
    """

    prompt_id: str
    index: int
    prompt: tuple[int, ...]
    messages: tuple[Message, ...] | None = None
    text: str | None = None
    max_new_tokens: int | None = None  # where it is less than the sampling's
    strategy: str | None = None  # for the completion's history, see `History`
    asked: Asked | None = None  # likewise

    @property
    def key(self) -> str:
        """Names what is asked: another prompt has another key, whatever its id."""
        turns = [(message.role, message.content) for message in self.messages or ()]
        return digest([list(self.prompt), turns, self.text])


class Generator(Protocol):
    """Whatever answers requests."""

    @property
    def fingerprint(self) -> str:
        """Names the model; the completions' `history.generator`."""
        ...

    def generate(self, requests: Sequence[Request]) -> Iterator[Completion]:
        """Each completion as soon as it is whole, in any order.

        Nothing new is begun between two completions: a slot asks for another only once
        the caller comes back for more, having written down what it got.
        """
        ...


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
    generator: Generator,
    store: CompletionStore,
    on_completion: Callable[[int, int], bool],
) -> list[Completion] | None:
    """Sample what is not on disk yet; completions in the order of `requests`.

    `on_completion(completions, tokens)` is told what is on disk already (with 0 tokens) and then of each
    completion, and may return True to stop: then None is returned, and the next call goes on from there.
    """
    stored = store.read_keyed(generator.fingerprint)
    keys = {(r.prompt_id, r.index): r.key for r in requests}
    wanted = missing(keys, stored)
    by_name = {(c.prompt_id, c.index): c for c, _ in stored}
    if wanted:
        on_completion(len(requests) - len(wanted), 0)
        with store.writing():
            for completion in generator.generate([r for r in requests if (r.prompt_id, r.index) in wanted]):
                name = (completion.prompt_id, completion.index)
                store.append([completion], [keys[name]])
                by_name[name] = completion
                if on_completion(1, len(completion.token_ids)):
                    return None
    return [by_name[name] for name in keys]
