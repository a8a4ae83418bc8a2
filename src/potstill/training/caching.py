"""Writing a cache: rows pass the teacher in groups, and what it says is stored in the form that was asked for.

The groups depend on the rows alone, and random numbers on seed, row and position, so
that a writing that was interrupted ends with the numbers of an unbroken one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from potstill.data.cache_codec import head_facts
from potstill.data.cache_index import Header, row_key
from potstill.data.collate import Layout, Row, collate
from potstill.data.targets_cache import CacheWriter
from potstill.losses.sparse import draw, keep_top
from potstill.models.scored import ScoredModel
from potstill.models.vocabulary import Alignment
from potstill.targets import FinalHidden, Kept, Sampled, TeacherTargets
from potstill.teachers import GROUP_ROWS

#: Positions whose whole distributions are there at once: 128 x 49,152 numbers are 48 MiB in float64.
WHOLE_POSITIONS = 128


def complete(
    header: Header, scored: ScoredModel, fingerprint: str, name: str, alignment: Alignment, layout: Layout
) -> Header:  # fmt: skip
    """What `cached_teacher.planned` could not know: teacher and vocabulary."""
    settings = header.settings
    if header.format == "final_hidden":
        settings = settings | head_facts(scored.head())
    return replace(
        header, fingerprint=fingerprint, teacher=name, width=alignment.student_width, shared=alignment.shared,
        decoder_start_id=layout.decoder_start_id, settings=settings,
    )  # fmt: skip


@torch.no_grad()
def write_targets(
    writer: CacheWriter, scored: ScoredModel, rows: Sequence[Row], layout: Layout, alignment: Alignment,
    device: torch.device, on_group: Callable[[int, int], bool],
) -> bool:  # fmt: skip
    """Store the targets of all rows that are not there yet; whether it came to the end.

    `on_group(rows, tokens)` is told of each group (with 0 tokens if it was there) and may return True to stop;
    what is whole by then is kept.
    """
    for group in row_groups(rows):
        some = [rows[i] for i in group]
        tokens = 0
        if not writer.has(some).all():
            batch = collate([row.as_teacher_saw_it for row in some], layout).to(device)
            said = scored.targets(batch, alignment, writer.header.fingerprint)
            counts = batch.counted.sum(1).tolist()
            made = in_form(writer.header, said, batch.target_ids[batch.counted], some, counts)
            writer.add(some, counts, made)
            tokens = sum(row.num_tokens for row in some)
        if on_group(len(some), tokens):
            writer.flush()
            return False
    return True


def row_groups(rows: Sequence[Row]) -> list[list[int]]:
    """Rows of like length, as `LocalTeacher` takes them together."""
    order = sorted(range(len(rows)), key=lambda i: (rows[i].num_tokens, i))
    return [order[i : i + GROUP_ROWS] for i in range(0, len(order), GROUP_ROWS)]


def in_form(
    header: Header, said: FinalHidden, observed: Tensor, rows: Sequence[Row], counts: Sequence[int],
    seed: int | None = None,
) -> TeacherTargets:  # fmt: skip
    """What the teacher `said` [N] about rows with `counts` positions each, in the cache's form.

    `observed` [N] are the tokens that stand there; `seed` replaces the header's.
    """
    if header.format == "final_hidden":
        return said
    settings, temperature = header.settings, header.temperature or 1.0
    if header.format == "sampled":
        seed = settings["seed"] if seed is None else seed
        numbers = np.concatenate(
            [
                keyed_uniforms(seed, row, count, settings["draws"], settings["spread"])
                for row, count in zip(rows, counts, strict=True)
            ]
        )
    made: list[Kept | Sampled] = []
    for start in range(0, len(said.hidden), WHOLE_POSITIONS):
        part = slice(start, start + WHOLE_POSITIONS)
        log_p = torch.log_softmax(said.rows(part.start, part.stop).logits() / temperature, -1)
        if header.format == "sampled":
            uniforms = torch.from_numpy(numbers[part]).to(log_p.device)
            made.append(draw(log_p, uniforms, header.fingerprint, temperature))
        else:
            made.append(_kept(header, log_p, observed[part]))
    return joined(made)


def _kept(header: Header, log_p: Tensor, observed: Tensor) -> Kept:
    """The largest entries until they hold `top_p`, and the observed token wherever it is."""
    settings = header.settings
    found = keep_top(
        log_p, settings["top_k"], settings["missing"], header.fingerprint, observed, header.temperature or 1.0
    )  # fmt: skip
    if settings["top_p"] == 1:
        return found
    p = found.log_probs.exp()
    before = p.cumsum(-1) - p
    gone = (before >= settings["top_p"]) & (found.ids != observed[:, None])
    log_probs = found.log_probs.masked_fill(gone, -torch.inf)
    return replace(found, log_probs=log_probs, tail_mass=found.tail_mass + (p * gone).sum(-1))


def keyed_uniforms(seed: int, row: Row, positions: int, draws: int, spread: str) -> np.ndarray:
    """[positions, draws] in [0, 1): a function of seed, row and position.

    Stratified, number i lies in the i-th of `draws` equal parts. Each token then still gets `draws` times its
    probability on average, for the parts together are the whole, but with less noise.
    """
    key = hashlib.sha256(f"targets|{seed}|".encode() + row_key(row).tobytes()).digest()[:16]
    found = np.random.Generator(np.random.Philox(key=int.from_bytes(key, "little"))).random((positions, draws))
    if spread == "stratified":
        found = (np.arange(draws) + found) / draws
    return np.minimum(found, np.nextafter(1.0, 0.0))


def joined(parts: Sequence[Kept | Sampled]) -> Kept | Sampled:
    """Parts of one form, one after another; the widest decides K."""
    if len(parts) == 1:
        return parts[0]
    widest = max(part.ids.shape[1] for part in parts)

    def together(values: Sequence[Tensor], empty: float) -> Tensor:
        return torch.cat([torch.nn.functional.pad(v, (0, widest - v.shape[1]), value=empty) for v in values])

    ids = together([part.ids for part in parts], 0)
    first = parts[0]
    if isinstance(first, Kept):
        kept = [part for part in parts if isinstance(part, Kept)]
        tails = torch.cat([part.tail_mass for part in kept])
        log_probs = together([part.log_probs for part in kept], -torch.inf)
        return replace(first, ids=ids, log_probs=log_probs, tail_mass=tails)
    sampled = [part for part in parts if isinstance(part, Sampled)]
    entropy = torch.cat([part.entropy for part in sampled])
    return replace(first, ids=ids, counts=together([part.counts for part in sampled], 0), entropy=entropy)
