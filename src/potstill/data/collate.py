"""From rows of token ids to a TokenBatch: the one place that shifts anything.

Decoder-only, a row of prompt P1 P2 and answer A1 A2 E becomes

    input_ids    P1  P2  A1  A2
    target_ids    .  A1  A2   E      counted where a target of the answer stands

Encoder-decoder, the prompt goes to the encoder and the decoder reads the answer
shifted right from its start token. Every answer token counts, a sampled
end-of-sequence token too; an answer cut by length has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from potstill.batch import TokenBatch
from potstill.records import Provenance


@dataclass(frozen=True, slots=True)
class Row:
    """One training or evaluation example in token ids."""

    prompt_id: str
    index: int  # which completion of the prompt
    provenance: Provenance
    prompt: tuple[int, ...]
    prompt_counted: tuple[bool, ...]
    answer: tuple[int, ...]
    num_trace: int = 0  # the answer's first so many tokens are its reasoning trace
    asked: tuple[int, ...] | None = None  # the prompt that the teacher was shown, where it was another
    sampled_at: int | None = None  # the student's own: the step of the weights that sampled it

    @property
    def as_teacher_saw_it(self) -> Row:
        """The same answer after the prompt that the teacher was shown; as many positions count."""
        if self.asked is None:
            return self
        return replace(self, prompt=self.asked, prompt_counted=(False,) * len(self.asked), asked=None)

    @property
    def num_tokens(self) -> int:
        return len(self.prompt) + len(self.answer)

    @property
    def num_counted(self) -> int:
        """A decoder's first token has nothing before it and is never predicted."""
        return len(self.answer) + sum(self.prompt_counted[1:])


class Rows(Protocol):
    """Rows by number: a list, a mapping, or pieces of a corpus."""

    def __getitem__(self, number: int, /) -> Row: ...


@dataclass(frozen=True, slots=True)
class Layout:
    """How rows of this model are laid out."""

    pad_id: int
    decoder_start_id: int | None = None  # encoder-decoders only
    side: Literal["left", "right"] = "right"


def layout_of(model: Any, tokenizer: Any) -> Layout:
    """How the rows of this model are laid out."""
    start = model.config.decoder_start_token_id if model.config.is_encoder_decoder else None
    pad = tokenizer.pad_token_id
    return Layout(int(tokenizer.eos_token_id if pad is None else pad), start)


def cut_by_length(rows: Sequence[Row], batch_rows: int) -> list[list[Row]]:
    """Batches of rows of like length, in an order that the rows alone decide."""
    ordered = sorted(rows, key=lambda r: (r.num_tokens, r.prompt_id, r.index))
    return [ordered[i : i + batch_rows] for i in range(0, len(ordered), batch_rows)]


def collate(rows: Sequence[Row], layout: Layout) -> TokenBatch:
    """Pad rows to one length. Token weights and targets are filled in later."""
    if layout.decoder_start_id is not None:
        return _encoder_decoder(rows, layout)
    inputs, targets, counted, trace = [], [], [], []
    for row in rows:
        tokens = row.prompt + row.answer
        flags = row.prompt_counted + (True,) * len(row.answer)
        inputs.append(tokens[:-1])
        counted.append(flags[1:])
        trace.append(((False,) * len(row.prompt) + _trace(row))[1:])
        targets.append(tuple(t if c else 0 for t, c in zip(tokens[1:], flags[1:], strict=True)))
    ids, mask = _pad(inputs, layout.pad_id, layout.side)
    return TokenBatch(
        input_ids=ids,
        attention_mask=mask,
        target_ids=_pad(targets, 0, layout.side)[0],
        counted=_pad(counted, 0, layout.side)[0].bool(),
        in_trace=_pad(trace, 0, layout.side)[0].bool(),
        provenance=tuple(row.provenance for row in rows),
        prompt_ids=tuple(row.prompt_id for row in rows),
    )


def _encoder_decoder(rows: Sequence[Row], layout: Layout) -> TokenBatch:
    assert layout.decoder_start_id is not None
    inputs = [(layout.decoder_start_id, *row.answer[:-1]) for row in rows]
    ids, mask = _pad(inputs, layout.pad_id, "right")
    encoder_ids, encoder_mask = _pad([row.prompt for row in rows], layout.pad_id, layout.side)
    return TokenBatch(
        input_ids=ids,
        attention_mask=mask,
        target_ids=_pad([row.answer for row in rows], 0, "right")[0],
        counted=mask.bool(),
        in_trace=_pad([_trace(row) for row in rows], 0, "right")[0].bool(),
        provenance=tuple(row.provenance for row in rows),
        prompt_ids=tuple(row.prompt_id for row in rows),
        encoder_ids=encoder_ids,
        encoder_mask=encoder_mask,
    )


def _trace(row: Row) -> tuple[bool, ...]:
    """One flag for each token of the answer."""
    return (True,) * row.num_trace + (False,) * (len(row.answer) - row.num_trace)


def _pad(sequences: Sequence[Sequence[int]], value: int, side: Literal["left", "right"]) -> tuple[Tensor, Tensor]:
    """([B, T] padded, [B, T] mask)."""
    longest = max(len(sequence) for sequence in sequences)
    ids = torch.full((len(sequences), longest), value, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for i, sequence in enumerate(sequences):
        where = slice(0, len(sequence)) if side == "right" else slice(longest - len(sequence), longest)
        ids[i, where] = torch.tensor(sequence, dtype=torch.long)
        mask[i, where] = 1
    return ids, mask
