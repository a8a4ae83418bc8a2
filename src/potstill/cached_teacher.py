"""The teacher's targets from a cache on disk, for rows that exist before training.

Whatever must agree is compared when the cache is opened: the teacher, its weights'
precision in memory, the vocabulary, the temperature, and every row, token for token.
A cache that does not fit is refused in words; none is ever used "nearly".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch

from potstill.batch import TokenBatch
from potstill.config.cache import FinalHiddenCache, KeptCache, SampledCache
from potstill.config.objective import ObjectiveConfig
from potstill.config.run import Run
from potstill.config.terms import Divergence
from potstill.data.cache_codec import empty
from potstill.data.cache_index import CacheError, Header
from potstill.data.collate import Layout, Row
from potstill.data.targets_cache import TargetsCache
from potstill.losses.sparse import refuse_undefined
from potstill.models.vocabulary import Alignment
from potstill.targets import TeacherTargets

#: Rows told of at once while they are looked up.
TOLD_ROWS = 4096
AnyCache = FinalHiddenCache | KeptCache | SampledCache


class CachedTeacher:
    """Hands out what a cache holds; stands where a `LocalTeacher` stands."""

    def __init__(self, cache: TargetsCache, rows: Mapping[int, Row] | Sequence[Row], unchanging: Sequence[int] = ()):
        self.cache, self.rows, self.unchanging = cache, rows, list(unchanging)
        self._places: dict[int, int] = {}

    def has_all(self, row_ids: Iterable[int], streams: Iterable[str]) -> bool:
        """Nothing is ever asked of the model."""
        return True

    def prepare(self, on_group: Callable[[int, int], None]) -> None:
        """Look up all unchanging rows. Raises CacheError for one that is not there."""
        for start in range(0, len(self.unchanging), TOLD_ROWS):
            group = self.unchanging[start : start + TOLD_ROWS]
            self._find(group)
            on_group(len(group), sum(self.rows[i].num_tokens for i in group))

    def targets(self, row_ids: Sequence[int], batch: TokenBatch) -> TeacherTargets:
        """What the teacher said about the counted positions of `batch`, whose rows are `row_ids`, in order.

        Raises CacheError: a row that is not there, or whose positions are not the batch's.
        """
        self._find([row for row in row_ids if row not in self._places])
        places = np.array([self._places[row] for row in row_ids])
        stored, counted = self.cache.num_counted(places), batch.counted.sum(1).cpu().numpy()
        if not np.array_equal(stored, counted):
            i = int(np.flatnonzero(stored != counted)[0])
            raise CacheError(
                f"the cache {self.cache.folder} has {stored[i]} positions for a row of prompt "
                f"{self.rows[row_ids[i]].prompt_id!r} of which {counted[i]} count here; was it written for another "
                "layout of rows? Write it anew."
            )
        return self.cache.targets(places)

    def _find(self, row_ids: Sequence[int]) -> None:
        if row_ids:
            found = self.cache.places([self.rows[i] for i in row_ids])
            self._places |= dict(zip(row_ids, found.tolist(), strict=True))


def open_cached(
    config: Run, rows: Mapping[int, Row] | Sequence[Row], fingerprint: str, alignment: Alignment, layout: Layout,
    device: torch.device, unchanging: Sequence[int] | None = None,
) -> CachedTeacher:  # fmt: skip
    """The cache that `training.teacher_targets` names, compared with the run.

    `fingerprint` is the teacher's, `alignment` and `layout` are the student's; `unchanging` are the rows that
    must be there, all by default. Raises CacheError where they disagree, ValueError where the objective cannot be
    computed from what the cache holds.
    """
    folder = config.training.teacher_targets
    if folder is None:
        raise CacheError("training.teacher_targets names no cache")
    cache = TargetsCache(folder, device)
    wanted = replace(
        cache.header, fingerprint=fingerprint, teacher_weights=config.training.teacher_weights,
        width=alignment.student_width, shared=alignment.shared, decoder_start_id=layout.decoder_start_id,
    )  # fmt: skip
    differing = cache.header.differences(wanted)
    if differing:
        listed = "\n  ".join(differing)
        raise CacheError(
            f"{folder} is not a cache for this run:\n  {listed}\nWrite one with `potstill cache`, or go back to the "
            "teacher and student that it was written for."
        )
    refuse_unserved(config.objective, cache.header)
    if unchanging is None:
        unchanging = list(rows) if isinstance(rows, Mapping) else range(len(rows))
    return CachedTeacher(cache, rows, unchanging)


def planned(config: Run) -> Header:
    """The header of the cache that `config.cache` asks for, as far as it is known without models.

    Raises ValueError: no cache asked for; an objective that such a cache cannot serve.
    """
    spec = config.cache
    if spec is None:
        raise CacheError(
            "the configuration does not say what to cache: give cache.format, one of final_hidden, kept and sampled "
            "(docs/guide/cache.md says which is for what)"
        )
    header = Header(
        spec.format, "", "", config.training.teacher_weights, config.training.precision, 0, None, None,
        _temperature(config.objective, spec), settings_of(spec, config.seed),
    )  # fmt: skip
    refuse_unserved(config.objective, header)
    return header


def settings_of(spec: AnyCache, seed: int) -> dict[str, str | int | float]:
    """What decides the numbers in a cache of this format."""
    names = set(type(spec).model_fields) - {"format", "path", "probe_rows", "shard_mb"}
    made: dict[str, str | int | float] = {name: getattr(spec, name) for name in sorted(names)}
    return made | {"seed": seed} if isinstance(spec, SampledCache) else made


def refuse_unserved(objective: ObjectiveConfig, header: Header) -> None:
    """Raise ValueError where a term cannot be computed from such a cache, with the reason."""
    targets = empty(header)
    if targets is not None:
        for term in objective.active:
            refuse_undefined(term, targets)


def _temperature(objective: ObjectiveConfig, spec: AnyCache) -> float | None:
    """At which the distributions are to be made; None where hidden states serve any."""
    if isinstance(spec, FinalHiddenCache):
        return None
    found = sorted({term.divergence_temperature for term in objective.active if isinstance(term, Divergence)})
    if len(found) > 1 and not (isinstance(spec, KeptCache) and spec.missing == "renormalised"):
        raise CacheError(
            f"the objective has divergences at temperatures {', '.join(f'{t:g}' for t in found)}, and {spec.format} "
            "targets are made at one; use one temperature, or cache.format: final_hidden"
        )
    return found[0] if found else 1.0
