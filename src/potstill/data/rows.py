"""Training and evaluation rows from prompts and completions, with their lengths checked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from potstill.config.data import Data
from potstill.data.collate import Row
from potstill.data.encode import EncodedPrompt, EncodeError, encode_answer, encode_prompt
from potstill.records import Completion, Prompt


def encode_prompts(tokenizer: Any, prompts: Sequence[Prompt], data: Data) -> dict[str, EncodedPrompt]:
    """Prompt id -> token ids, for all prompts of the run."""
    template = dict(data.chat_template_kwargs)
    return {p.id: encode_prompt(tokenizer, p, data.count_turns, template) for p in prompts}


def check_room(encoded: Mapping[str, EncodedPrompt], room: int, limit: int, is_encoder_decoder: bool) -> None:
    """Refuse prompts that leave less than `room` tokens for an answer within `limit`.

    An encoder reads the prompt apart, so only the prompt must fit there.
    """
    need = 0 if is_encoder_decoder else room
    long = sorted((len(e.ids), name) for name, e in encoded.items() if len(e.ids) + need > limit)
    if long:
        shown = ", ".join(f"{name!r} ({length})" for length, name in long[-3:])
        raise EncodeError(
            f"{len(long)} prompts are too long: with {need} tokens for the answer they exceed {limit} tokens "
            f"(data.max_length and the models' context). The longest: {shown}. Shorten or remove them, lower "
            "max_new_tokens, or raise data.max_length if the models allow it."
        )


def completion_rows(
    completions: Sequence[Completion],
    encoded: Mapping[str, EncodedPrompt],
    shown: Sequence[tuple[int, ...] | None] = (),
    *,
    erased: bool = True,
) -> list[Row]:
    """A row for each completion, its ids as sampled.

    `shown`: what each one's generator was shown, where that was not the prompt. `erased`: the student
    sees the prompt all the same; else it sees what was shown.
    """
    rows = []
    for c, ids in zip(completions, shown or [None] * len(completions), strict=True):
        prompt, counted = encoded[c.prompt_id].ids, encoded[c.prompt_id].counted
        if ids is not None and not erased:
            prompt, counted, ids = ids, (False,) * len(ids), None
        rows.append(Row(c.prompt_id, c.index, c.history.provenance, prompt, counted, c.token_ids, asked=ids))
    return rows


def reference_rows(tokenizer: Any, prompts: Iterable[Prompt], encoded: Mapping[str, EncodedPrompt]) -> list[Row]:
    """A row for each prompt that has a reference answer."""
    return [
        Row(
            p.id,
            0,
            "reference",
            encoded[p.id].ids,
            encoded[p.id].counted,
            encode_answer(tokenizer, p.reference),
        )
        for p in prompts
        if p.reference is not None
    ]


def check_rows(rows: Sequence[Row], limit: int, is_encoder_decoder: bool) -> None:
    """Refuse rows longer than `limit` tokens: nothing is ever cut silently."""
    lengths = [(max(len(r.prompt), len(r.answer)) if is_encoder_decoder else r.num_tokens) for r in rows]
    long = [(length, row.prompt_id) for length, row in zip(lengths, rows, strict=True) if length > limit]
    if long:
        length, name = max(long)
        raise EncodeError(
            f"{len(long)} rows exceed {limit} tokens (the longest, of prompt {name!r}, has {length}). "
            "Raise data.max_length if the models allow it, or shorten these answers."
        )
