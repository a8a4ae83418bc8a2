"""What a model makes of text and where a student gains, against plain loops and numbers made by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pretraining_case import LAB, SHAPE, run_config, small_corpus
from pretraining_cells import TWIN, made, teacher
from torch.nn import functional

from potstill.config.pretraining import PretrainingLab
from potstill.data.corpus import Corpus, Pieces
from potstill.evaluation import perplexity
from potstill.evaluation.perplexity import TokenScores, score_text
from potstill.lab.pretraining import Model
from potstill.lab.pretraining_bins import bins_of, by_difficulty, by_position
from potstill.lab.pretraining_measuring import kept, score_sets
from potstill.lab.pretraining_reading import Cell, items_error
from potstill.models.scored import ScoredModel
from potstill.models.shapes import make_model

CPU = torch.device("cpu")
VARY = LAB | {"block_tokens": 8, "student_tokens": 1280}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return small_corpus(tmp_path_factory.mktemp("corpus") / "corpus")


def some_model(corpus: Corpus, kind: str) -> Any:
    return make_model(run_config(shape=SHAPE | {"kind": kind}).shape, int(corpus.facts["vocabulary"]), 16, 3)


def plain_scores(model: Any, rows: list[np.ndarray]) -> tuple[list[float], list[float]]:
    """Row by row with the model's own logits, no batch and no padding: nats and entropy of every predicted token."""
    nats, entropy = [], []
    for ids in rows:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor(ids[None, :-1].astype(np.int64))).logits[0]
        nats += functional.cross_entropy(logits, torch.tensor(ids[1:].astype(np.int64)), reduction="none").tolist()
        q = torch.softmax(logits.double(), -1)
        entropy += [-sum(p * math.log(p) for p in row if p > 0) for row in q.tolist()]
    return nats, entropy


@pytest.mark.parametrize("kind", ["tiny", "llama"])
def test_every_token_is_scored_once_as_a_plain_loop_scores_it(
    corpus: Corpus, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, found = some_model(corpus, kind), corpus.tokens("technical")
    pieces = Pieces(found, 16, apart=False)
    blocks = pieces.num_blocks
    scores = score_text(ScoredModel(model), pieces, 0, 7, CPU)
    nats, entropy = plain_scores(model, [found.tokens[16 * b : 16 * b + 17] for b in range(blocks)])
    assert len(scores.nats) == 16 * ((found.num_tokens - 1) // 16), "every token but the first, to the last block"
    np.testing.assert_allclose(scores.nats, nats, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(scores.entropy, entropy, rtol=1e-4, atol=1e-5)
    assert scores.block.tolist() == [b for b in range(blocks) for _ in range(16)]
    assert scores.position.tolist() == list(range(1, 17)) * blocks
    assert scores.nats_per_token == pytest.approx(sum(nats) / len(nats), rel=1e-5)
    assert scores.perplexity == pytest.approx(math.exp(sum(nats) / len(nats)), rel=1e-4)
    monkeypatch.setattr(perplexity, "WHOLE_POSITIONS", 10)
    again = score_text(ScoredModel(model), pieces, 0, 3, CPU)
    np.testing.assert_allclose(again.nats, scores.nats, rtol=1e-4, atol=1e-5)
    assert again.block.tolist() == scores.block.tolist()


def test_documents_apart_begin_again_at_position_1(corpus: Corpus) -> None:
    """Blocks are cut where documents begin; a piece sees nothing of the one before."""
    model, found = some_model(corpus, "tiny"), corpus.tokens("held_out")
    pieces = Pieces(found, 16, apart=True)
    rows = [[pieces.ids(p) for p in pieces.of_block(b)] for b in range(pieces.num_blocks)]
    assert any(len(row) > 1 for row in rows)
    scores = score_text(ScoredModel(model), pieces, 0, 5, CPU)
    flat = [ids for row in rows for ids in row]
    np.testing.assert_allclose(scores.nats, plain_scores(model, flat)[0], rtol=1e-4, atol=1e-5)
    assert scores.position.tolist() == [i for ids in flat for i in range(1, len(ids))]
    assert scores.block.tolist() == [b for b, row in enumerate(rows) for ids in row for _ in ids[1:]]


def test_a_block_longer_than_a_batch_is_scored_by_itself(corpus: Corpus) -> None:
    model = ScoredModel(some_model(corpus, "tiny"))
    one, many = (score_sets(model, corpus, 16, batch, CPU) for batch in (8, 512))
    assert list(one) == ["held_out", "technical"]
    for name in one:
        np.testing.assert_allclose(one[name].nats, many[name].nats, rtol=1e-4, atol=1e-5)


def test_entropy_and_position_are_kept_where_bins_are_made() -> None:
    column = np.arange(4, dtype=np.float32)
    scores = TokenScores(column, column, column.astype(np.int32), column.astype(np.int32))
    assert set(kept(scores, "held_out")) == {"nats", "block", "entropy", "position"}
    assert set(kept(scores, "technical")) == {"nats", "block"}


# -- bins and errors by hand -------------------------------------------------------------


def cell_of(folder: Path, pairs: list[tuple[dict[str, Any], dict[str, Any]]]) -> Cell:
    """A cell whose students and twins have these tokens."""
    by, found = teacher("L", 50, 0.5), []
    for seed, (student, twin) in enumerate(pairs, 1):
        mine = Model("student", "S", 100, seed, ("L", 50), 0.5)
        other = Model("twin", "S", 100, seed)
        found.append((made(mine, TWIN, folder=folder, tokens=student), made(other, TWIN, folder=folder, tokens=twin)))
    return Cell("S", 100, by, 0.5, "", tuple(found))


def held_out(nats: Any, entropy: Any, position: Any = None) -> dict[str, Any]:
    there = np.arange(1, len(nats) + 1) if position is None else position
    return {"held_out/nats": nats, "held_out/entropy": entropy, "held_out/position": there}


def lab_with(difficulty: int, position: int) -> PretrainingLab:
    return PretrainingLab.model_validate(
        VARY | {"measuring": {"difficulty_bins": difficulty, "position_bins": position}}
    )


def test_difficulty_is_each_seeds_own_twins_entropy_and_bins_hold_as_many(tmp_path: Path) -> None:
    """Ten tokens in five bins of two. Seed 1 loses k at the twin's k-th easiest; seed 2's order is reversed."""
    easy = np.arange(10.0)
    first = held_out(1.0 - easy, np.zeros(10)), held_out(np.ones(10), easy)
    second = held_out(1.0 - easy - 1, np.zeros(10)), held_out(np.ones(10), 9 - easy)
    cell = cell_of(tmp_path, [first, second])
    difficulty, position = bins_of(lab_with(5, 2), cell)
    assert (difficulty["by"], position["by"]) == ("difficulty", "position")
    assert difficulty["edges"] == pytest.approx([0, 1.8, 3.6, 5.4, 7.2, 9])
    seeds = np.array([[-0.5, -2.5, -4.5, -6.5, -8.5], [-9.5, -7.5, -5.5, -3.5, -1.5]])
    assert difficulty["mean"] == pytest.approx(seeds.mean(0).tolist())
    half = 12.706205 * np.abs(seeds[0] - seeds[1]) / 2  # t of one degree of freedom, s / sqrt 2
    assert difficulty["low"] == pytest.approx((seeds.mean(0) - half).tolist())
    assert difficulty["high"] == pytest.approx((seeds.mean(0) + half).tolist())
    where, _ = by_difficulty(cell.pairs[0][1], 5)
    assert np.bincount(where).tolist() == [2] * 5


def test_positions_are_cut_evenly_and_the_first_and_last_belong_somewhere(tmp_path: Path) -> None:
    """Blocks of 8 in 4 bins: 1-2, 3-4, 5-6, 7-8."""
    position = np.tile(np.arange(1, 9), 3)
    change = 0.1 * position
    cell = cell_of(
        tmp_path, [(held_out(2 + change, position, position), held_out(np.full(24, 2.0), position, position))]
    )
    where, edges = by_position(cell.pairs[0][1], 8, 4)
    assert where[:8].tolist() == [0, 0, 1, 1, 2, 2, 3, 3] and edges.tolist() == [0, 2, 4, 6, 8]
    found = bins_of(lab_with(2, 4), cell)[1]
    assert found["mean"] == pytest.approx([0.15, 0.35, 0.55, 0.75])
    assert found["low"] == found["high"] == [None] * 4, "one seed knows no scatter"


def test_a_bin_without_tokens_says_nothing(tmp_path: Path) -> None:
    """Sixteen bins of eight positions, and entropies that are all the same: no 0 where nothing was measured."""
    position = np.arange(1, 9)
    pair = held_out(np.full(8, 1.5), np.ones(8), position), held_out(np.full(8, 2.0), np.ones(8), position)
    difficulty, positions = bins_of(lab_with(5, 16), cell_of(tmp_path, [pair, pair]))
    assert positions["mean"] == [None, -0.5] * 8
    assert [x for x in difficulty["mean"] if x is not None] == [-0.5]


def test_error_over_text_is_that_of_block_means_with_seeds_averaged(tmp_path: Path) -> None:
    """Seeds' mean changes [-1, -3 | -2, -2 | 0, -1]: block means -2, -2, -0.5; their sd is sqrt(0.75)."""
    blocks, level = np.array([0, 0, 1, 1, 2, 2]), np.full(6, 4.0)

    def tokens(change: list[float]) -> dict[str, Any]:
        return {
            "held_out/nats": level + change,
            "held_out/block": blocks,
            "far/nats": level[:2],
            "far/block": blocks[:2],
        }

    twin = tokens([0.0] * 6)
    cell = cell_of(tmp_path, [(tokens([-2, -3, -2, -4, 0, 0]), twin), (tokens([0, -3, -2, 0, 0, -2]), twin)])
    assert items_error(cell, "held_out") == pytest.approx(math.sqrt(0.75 / 3))
    assert items_error(cell, "far") is None, "one block knows no scatter"
    assert items_error(cell, "minimal pairs margin") is None
