"""Measures one model of the pretraining experiment: perplexity on every set, choices by likelihood."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoTokenizer

from potstill.config.pretraining import Measuring
from potstill.data.corpus import Corpus, Pieces
from potstill.evaluation.choices import Item, pair_items
from potstill.evaluation.harness import harness_scores
from potstill.evaluation.perplexity import TokenScores, score_text
from potstill.evaluation.scoring import keep_fitting, score_choices
from potstill.evaluation.suites import load_suite
from potstill.lab.pools import LabError
from potstill.lab.pretraining_making import Needed, corpus_in, model_in
from potstill.lab.text import minimal_pairs
from potstill.models.scored import ScoredModel
from potstill.run_dir import npz_bytes, write_atomic
from potstill.training.hardware import keep_freed_memory
from potstill.training.parallel import start_world

PAIRS = "minimal pairs"
PAIRS_SEED = 0


def make_measures(facts: dict[str, Any], folder: Path, needed: Needed) -> None:
    """measures.json, and tokens.npz and choices-NAME.npz with what it is the mean of."""
    keep_freed_memory()
    measuring = Measuring.model_validate(facts["measuring"])
    device = start_world(facts["device"]).device
    corpus, model = corpus_in(needed["corpus"]), model_in(needed["model"], device)
    scores = score_sets(model, corpus, facts["block_tokens"], measuring.batch_tokens, device)
    arrays = {f"{name}/{key}": value for name, s in scores.items() for key, value in kept(s, name).items()}
    write_atomic(folder / "tokens.npz", npz_bytes(arrays))
    found = {
        "perplexity": {n: {"nats_per_token": s.nats_per_token, "tokens": len(s.nats)} for n, s in scores.items()},
        "choices": score_suites(model, corpus, measuring, folder),
    }
    write_atomic(folder / "measures.json", json.dumps(found, indent=1).encode())


def score_sets(
    model: ScoredModel, corpus: Corpus, block_tokens: int, batch_tokens: int, device: Any
) -> dict[str, TokenScores]:
    """Every measured set of the corpus. Documents lie together, whatever training did: all see the same text."""
    found, blocks = {}, max(1, batch_tokens // block_tokens)
    for name in corpus.measured:
        pieces = Pieces(corpus.tokens(name), block_tokens, apart=False)
        found[name] = score_text(model, pieces, int(corpus.facts["end_id"]), blocks, device)
    return found


def kept(scores: TokenScores, name: str) -> dict[str, np.ndarray]:
    """Of the in-domain set all, of others the nats: a set is compared by block."""
    found = {"nats": scores.nats.astype(np.float32), "block": scores.block}
    return found | ({"entropy": scores.entropy, "position": scores.position} if name == "held_out" else {})


def score_suites(model: ScoredModel, corpus: Corpus, measuring: Measuring, folder: Path) -> dict[str, Any]:
    """Every question set; per item in choices-NAME.npz."""
    tokenizer = AutoTokenizer.from_pretrained(corpus.tokenizer_path)
    found = {}
    for name, every, metric, equal in question_sets(measuring):
        items, too_long = keep_fitting(every, model.model, tokenizer)
        if not items:
            raise LabError(f"no item of {name} fits into the models' context; leave it out of measuring.task_names")
        if measuring.scorer == "own":
            scores = score_choices(model.model, tokenizer, items, measuring.batch_tokens)
        else:
            scores = harness_scores(model.model, tokenizer, {name: items})[name].scores
        write_atomic(folder / f"choices-{name.replace(' ', '-')}.npz", npz_bytes(scores.arrays()))
        found[name] = scores.as_dict(metric, equal) | {"too_long": too_long}
    return found


def question_sets(measuring: Measuring) -> list[tuple[str, list[Item], Any, bool]]:
    """(name, items, metric, whether groups weigh the same) of all that is asked."""
    found: list[tuple[str, list[Item], Any, bool]] = []
    if measuring.minimal_pairs:
        pairs = minimal_pairs(measuring.minimal_pairs, PAIRS_SEED)
        items = pair_items([(pair.good, pair.bad) for pair in pairs], [pair.phenomenon for pair in pairs])
        found.append((PAIRS, items, "acc", False))
    if measuring.tasks is not None:
        for name in measuring.task_names:
            suite = load_suite(measuring.tasks, name)
            found.append((name, list(suite.items), suite.metric, suite.equal_groups))
    return found
