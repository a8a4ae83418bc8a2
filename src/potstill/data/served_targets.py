"""Sparse targets from what a server told about its own completions.

A server that returns the likeliest tokens of each position says a little of its
distribution; the rest of the probability is the tail.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from potstill.records import Completion
from potstill.targets import Kept


def kept_targets(completions: Sequence[Completion], fingerprint: str, width: int) -> Kept:
    """One position for each token of each completion in turn: its served entries and the observed token.

    `width` is the number of the student's columns; served entries beyond it go to the tail. A token whose
    probability was not served (an end token that was appended) stands as the one draw that it is: log-prob 0,
    no tail. Log-probs are taken to be at temperature 1, as vLLM and OpenAI serve them.

    Returns Kept with [N, K] entries, likeliest first, N tokens in all. Raises ValueError: a completion without
    log-probs, an observed token beyond `width`, entries with more than probability 1.
    """
    rows = [entries for completion in completions for entries in _positions(completion, width)]
    entries = max((len(row) for row in rows), default=1)
    ids = torch.zeros((len(rows), entries), dtype=torch.long)
    log_probs = torch.full((len(rows), entries), -torch.inf)
    tail = torch.zeros(len(rows))
    for n, row in enumerate(rows):
        ids[n, : len(row)] = torch.tensor([token for token, _ in row])
        log_probs[n, : len(row)] = torch.tensor([value for _, value in row])
        tail[n] = max(0.0, 1.0 - math.fsum(math.exp(value) for _, value in row))
    return Kept(ids, log_probs, tail, "tail", fingerprint)


def _positions(completion: Completion, width: int) -> list[list[tuple[int, float]]]:
    name = f"completion {completion.index} of prompt {completion.prompt_id!r}"
    if completion.logprobs is None:
        raise ValueError(
            f"{name} has no log-probs: its tokens could not be matched with the tokenizer's, or the server sent none. "
            "Set top_logprobs at the endpoint and use the teacher's own tokenizer, or train on the text alone."
        )
    nothing = ((),) * len(completion.token_ids)
    top_ids, top_logprobs = completion.top_ids or nothing, completion.top_logprobs or nothing
    rows = []
    for position, (token, value) in enumerate(zip(completion.token_ids, completion.logprobs, strict=True)):
        if token >= width:
            raise ValueError(f"{name}: token {token} is beyond the student's {width} columns")
        served = zip(top_ids[position], top_logprobs[position], strict=True)
        entries = {i: p for i, p in served if i < width}
        entries.setdefault(token, value)
        mass = math.fsum(math.exp(p) for p in entries.values())
        if mass > 1.01:
            raise ValueError(
                f"{name}, token {position}: the served entries have probability {mass:.4f} together, more than 1; "
                "they are no log-probabilities of one distribution"
            )
        rows.append(sorted(entries.items(), key=lambda pair: (-pair[1], pair[0])))
    return rows
