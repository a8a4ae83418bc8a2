"""Tiny models, rows and caches of them, for the tests of the cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from conftest import make_llama, make_t5

from potstill.data.cache_index import Header
from potstill.data.collate import Layout, Row, collate
from potstill.data.targets_cache import CacheWriter, TargetsCache
from potstill.models.scored import ScoredModel
from potstill.models.vocabulary import Alignment
from potstill.targets import FinalHidden, Kept, Sampled, TeacherTargets
from potstill.teachers import LocalTeacher
from potstill.training.caching import complete, write_targets

VOCABULARY = 61
CPU = torch.device("cpu")
LENGTHS = [(3, 9), (5, 2), (1, 14), (8, 4), (2, 7), (6, 1), (4, 11), (7, 5), (3, 3)] * 4
SETTINGS: dict[str, dict[str, Any]] = {
    "kept": {"top_k": 6, "top_p": 1.0, "missing": "tail", "log_prob_bits": 12},
    "sampled": {"draws": 20, "spread": "stratified", "seed": 3},
    "final_hidden": {"dtype": "fp32"},
}


def rows(count: int = len(LENGTHS), seed: int = 0) -> list[Row]:
    generator = torch.Generator().manual_seed(seed)
    made = []
    for i, (prompt, answer) in enumerate(LENGTHS[:count]):
        ids = torch.randint(3, VOCABULARY, (prompt + answer,), generator=generator).tolist()
        flags = tuple(j > 2 and i % 4 == 0 for j in range(prompt))  # some prompt positions count too
        made.append(Row(f"p{i}", 0, "teacher", tuple(ids[:prompt]), flags, tuple(ids[prompt:])))
    return made


def models(family: str = "llama") -> tuple[ScoredModel, ScoredModel, Layout]:
    if family == "llama":
        pair = make_llama(VOCABULARY, 0, 3), make_llama(VOCABULARY, 1, 2)
        return ScoredModel(pair[0]), ScoredModel(pair[1]), Layout(0)
    return ScoredModel(make_t5(VOCABULARY, 0, 2)), ScoredModel(make_t5(VOCABULARY, 1, 1)), Layout(0, 0)


def header(form: str, temperature: float = 1.0, **settings: Any) -> Header:
    teacher, _, layout = models()
    blank = Header(
        form, "", "", "as_computed", "fp32", 0, None, None, None if form == "final_hidden" else temperature,
        SETTINGS[form] | settings,
    )  # fmt: skip
    return complete(blank, teacher, "teacher-1", "tiny", Alignment(None, VOCABULARY), layout)


def write(
    folder: Path, head: Header, given: Sequence[Row], shard_mb: float = 128.0, stop_after: int | None = None,
    family: str = "llama",
) -> bool:  # fmt: skip
    teacher, _, layout = models(family)
    told = [0]

    def on_group(count: int, tokens: int) -> bool:
        told[0] += 1
        return told[0] == stop_after

    state = teacher.head() if head.format == "final_hidden" else None
    with CacheWriter(folder, replace(head, decoder_start_id=layout.decoder_start_id), state, shard_mb) as writer:
        return write_targets(writer, teacher, given, layout, Alignment(None, VOCABULARY), CPU, on_group)


def live(given: Sequence[Row], family: str = "llama") -> FinalHidden:
    """What the teacher says of rows alone, row by row."""
    teacher, _, layout = models(family)
    local = LocalTeacher(
        teacher, given, layout, Alignment(None, VOCABULARY), "teacher-1", 64, CPU, range(len(given))
    )  # fmt: skip
    found = local.targets(range(len(given)), collate(given, layout))
    assert isinstance(found, FinalHidden)
    return found


def read(folder: Path, given: Sequence[Row]) -> TeacherTargets:
    cache = TargetsCache(folder)
    return cache.targets(cache.places(given))


def same(a: TeacherTargets, b: TeacherTargets) -> bool:
    names = {Kept: ("ids", "log_probs", "tail_mass"), Sampled: ("ids", "counts", "entropy"), FinalHidden: ("hidden",)}
    return type(a) is type(b) and all(torch.equal(getattr(a, n), getattr(b, n)) for n in names[type(a)])  # type: ignore[index]
