"""Pretraining runs: what a teacher changes and what it must not, order and resume to the token."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT
from pretraining_case import SHAPE, go, online, run_config, scheduled, small_corpus
from pydantic import ValidationError
from safetensors.torch import load_file
from torch import nn

from potstill.config.pretraining import PretrainingRun
from potstill.data.collate import Layout, collate
from potstill.data.corpus import Corpus, CorpusError
from potstill.head import Head
from potstill.lab.pretraining import terms_of
from potstill.losses.objective import Objective
from potstill.models.scored import ScoredModel
from potstill.models.shapes import count_parameters, make_model, shape_parameters
from potstill.run_dir import RunDirError
from potstill.targets import FinalHidden
from potstill.training.corpus_teachers import Cut, KeptHidden, OnlineCorpusTeacher, UniformTeacher, keep_hidden
from potstill.training.optim import learning_rate
from potstill.training.pretraining import pieces_of, source_of

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return small_corpus(tmp_path_factory.mktemp("corpus") / "corpus")


def weights(model: Path) -> dict[str, torch.Tensor]:
    return dict(load_file(model / "model.safetensors"))


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_weight_0_is_plain_training_bit_for_bit(corpus: Corpus, tmp_path: Path) -> None:
    """With a teacher at hand, with a silent term and without: the same bits; a loop of torch alone: the same losses."""
    config = run_config(objective={"terms": terms_of(0.0)})
    plain = weights(go(config, corpus, tmp_path / "plain"))
    assert equal(weights(go(config, corpus, tmp_path / "with", online(corpus))), plain)
    silent = [*terms_of(0.0), {"kind": "forward_kl", "weight": 0.0, "on": ["corpus"]}]
    assert equal(weights(go(run_config(objective={"terms": silent}), corpus, tmp_path / "0", online(corpus))), plain)
    assert not equal(
        weights(go(run_config(objective={"terms": terms_of(0.5)}), corpus, tmp_path / "half", online(corpus))), plain
    )
    assert losses(tmp_path / "plain") == pytest.approx(plain_loop(config, corpus), rel=1e-5)


def plain_loop(config: PretrainingRun, corpus: Corpus) -> list[float]:
    """Next-token training as a tutorial has it: no Objective, no ScoredModel."""
    model = make_model(config.shape, int(corpus.facts["vocabulary"]), config.block_tokens, config.seed)
    tokens, source = corpus.tokens("train").tokens, source_of(pieces_of(corpus, config), config)
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=1.0, betas=(0.9, 0.95))
    found = []
    for step in range(config.steps):
        starts = [block * config.block_tokens for block in source.blocks(step)]
        rows = torch.stack([torch.from_numpy(tokens[s : s + config.block_tokens + 1].astype(np.int64)) for s in starts])
        logits = model(input_ids=rows[:, :-1]).logits
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())
        loss.backward()
        found.append(loss.item())
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(config.optimiser, step, config.steps)
        optimiser.step()
        optimiser.zero_grad()
    return found


def test_a_twin_starts_with_the_same_weights_and_reads_the_same_blocks_in_the_same_order(corpus: Corpus) -> None:
    student, twin = run_config(objective={"terms": terms_of(0.5)}), run_config()
    pieces = pieces_of(corpus, twin)
    for step in range(20):
        assert source_of(pieces, student).blocks(step) == source_of(pieces, twin).blocks(step)
    one, other = (make_model(c.shape, 300, 16, c.seed) for c in (student, twin))
    assert equal(one.state_dict(), other.state_dict())


def test_another_seed_reads_the_same_blocks_in_another_order(corpus: Corpus) -> None:
    pieces = pieces_of(corpus, run_config())
    orders = [
        [block for step in range(12) for block in source_of(pieces, run_config(seed=seed)).blocks(step)]
        for seed in (1, 2)
    ]
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1]), "48 blocks are an epoch of both"
    assert len(set(orders[0])) == 48


@pytest.mark.parametrize("steps_before_death", [3, 7])
def test_sigkill_and_resume_end_in_the_same_bits_with_schedules_and_order(
    corpus: Corpus, tmp_path: Path, steps_before_death: int
) -> None:
    """Killed before the first checkpoint, and between the first and the second."""
    config = run_config(objective=scheduled())
    whole = go(config, corpus, tmp_path / "whole", online(corpus))
    killed = tmp_path / "killed"
    command = [sys.executable, str(ROOT / "tests" / "pretraining_case.py"), str(corpus.path), str(killed)]
    done = subprocess.run([*command, str(steps_before_death)], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not (killed / "model").exists()
    assert len(losses(killed)) == steps_before_death
    resumed = go(config, corpus, killed, online(corpus))
    assert equal(weights(resumed), weights(whole))
    assert (killed / "metrics.jsonl").read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()
    assert not (killed / "checkpoints").exists(), "nothing is left to go on to"


def test_weights_of_terms_follow_their_own_schedule(corpus: Corpus, tmp_path: Path) -> None:
    go(run_config(objective=scheduled()), corpus, tmp_path / "run", online(corpus))
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    kl = [line["weight/forward_kl"] for line in lines]
    assert kl[0] == 0 and max(kl) == pytest.approx(0.8) and kl[-1] == pytest.approx(0.2)
    assert lines[0]["learning_rate"] == pytest.approx(2.5e-3), "still warming up where the weight is 0"
    for line in lines:
        parts = sum(line[f"weight/{name}"] * line[f"term/{name}"] for name in ("cross_entropy", "forward_kl"))
        assert line["loss"] == pytest.approx(parts, rel=1e-6)


def test_another_configuration_in_the_same_folder_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    go(run_config(), corpus, tmp_path / "run")
    with pytest.raises(RunDirError, match="seed: 1 there, 2 now"):
        go(run_config(seed=2), corpus, tmp_path / "run")


def test_a_divergence_without_a_teacher_is_refused_before_anything_is_spent(corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no teacher is given"):
        go(run_config(objective={"terms": terms_of(0.5)}), corpus, tmp_path / "run")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objective": {"terms": [{"kind": "forward_kl", "weight": 1.0, "on": ["teacher"]}]}}, "must be `on` corpus"),
        ({"documents": "apart", "micro_batch_blocks": 2}, "micro_batch_blocks cuts whole blocks"),
        ({"shape": SHAPE | {"kind": "llama", "num_kv_heads": 3}}, "num_kv_heads 3"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        run_config(**changes)


def test_micro_batches_change_nothing(corpus: Corpus, tmp_path: Path) -> None:
    go(run_config(), corpus, tmp_path / "whole")
    go(run_config(micro_batch_blocks=1), corpus, tmp_path / "cut")
    assert losses(tmp_path / "cut") == pytest.approx(losses(tmp_path / "whole"), rel=1e-5)


# -- teachers of corpus rows --------------------------------------------------------


@pytest.mark.parametrize("documents", ["together", "apart"])
def test_kept_hidden_states_teach_what_the_teacher_online_teaches(
    corpus: Corpus, tmp_path: Path, documents: str
) -> None:
    config = run_config(documents=documents, objective={"terms": terms_of(0.5)})
    pieces = pieces_of(corpus, config)
    pack = 16 if documents == "apart" else None
    scored = ScoredModel(make_model(config.shape, int(corpus.facts["vocabulary"]), 16, 7).eval(), pack)
    layout = Layout(0)
    keep_hidden(scored, source_of(pieces, config), layout, tmp_path / "hidden", CPU)
    kept = KeptHidden(tmp_path / "hidden", scored.head(), "t", pieces, CPU)
    direct = OnlineCorpusTeacher(scored, "t")
    for step in range(config.steps):
        rows = [planned.row for planned in source_of(pieces, config).planned(step)]
        batch = collate([pieces[row] for row in rows], layout)
        torch.testing.assert_close(
            kept.targets(rows, batch).logits(), direct.targets(rows, batch).logits(), rtol=1e-4, atol=1e-5
        )


def test_blocks_that_were_not_kept_and_files_that_were_cut_are_refused(corpus: Corpus, tmp_path: Path) -> None:
    config = run_config(blocks=8)
    pieces = pieces_of(corpus, config)
    scored = ScoredModel(make_model(config.shape, int(corpus.facts["vocabulary"]), 16, 7))
    source = source_of(pieces, config)
    keep_hidden(scored, source, Layout(0), tmp_path / "hidden", CPU)
    teacher = KeptHidden(tmp_path / "hidden", scored.head(), "t", pieces, CPU)
    other = next(b for b in range(pieces.num_blocks) if b not in set(source.chosen.tolist()))
    with pytest.raises(CorpusError, match=f"block {other} is not among those"):
        teacher.targets([other], collate([pieces[other]], Layout(0)))
    with open(tmp_path / "hidden" / "hidden.f32", "r+b") as handle:
        handle.truncate(100)
    with pytest.raises(CorpusError, match="has 100 bytes"):
        KeptHidden(tmp_path / "hidden", scored.head(), "t", pieces, CPU)


def test_a_uniform_teacher_is_label_smoothing(corpus: Corpus) -> None:
    """(1 - w) CE + w KL(uniform, q) is PyTorch's smoothed cross-entropy less w log V, gradient and all."""
    config, vocabulary = run_config(), int(corpus.facts["vocabulary"])
    pieces, model = pieces_of(corpus, config), ScoredModel(make_model(config.shape, vocabulary, 16, 3))
    rows = [0, 1, 2]
    objective = Objective(run_config(objective={"terms": terms_of(0.1)}).objective)
    batch = objective.weigh(collate([pieces[row] for row in rows], Layout(0)))
    batch.targets = UniformTeacher(vocabulary).targets(rows, batch)
    (model(batch, objective, objective.weights()).total / batch.num_counted).backward()
    ours = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    total = float(model(batch, objective, objective.weights()).total.detach() / batch.num_counted)
    model.zero_grad()
    logits = model.head().project(model.hidden(batch))
    smoothed = nn.functional.cross_entropy(logits, batch.target_ids[batch.counted], label_smoothing=0.1)
    smoothed.backward()
    assert total == pytest.approx(smoothed.item() - 0.1 * np.log(vocabulary), rel=1e-5)
    for name, p in model.named_parameters():
        if p.grad is not None:
            torch.testing.assert_close(ours[name], p.grad, rtol=1e-3, atol=1e-6)


class Fixed:
    """A teacher that says one thing everywhere."""

    def __init__(self, log_p: torch.Tensor):
        self.log_p = log_p

    def targets(self, row_ids: Any, batch: Any) -> FinalHidden:
        hidden = self.log_p[None].expand(batch.num_counted, -1)
        return FinalHidden(hidden, Head(torch.eye(len(self.log_p)), None, 1.0, 1.0, None), "fixed")


def test_cut_teachers_are_biased_or_not_as_they_should_be(corpus: Corpus) -> None:
    pieces = pieces_of(corpus, run_config())
    rows = list(range(200))
    batch = collate([pieces[row] for row in rows], Layout(0))
    p = torch.tensor([0.5, 0.3, 0.15, 0.05])
    top = Cut(Fixed(p.log()), 2, None, 1).targets(rows, batch)
    torch.testing.assert_close(top.log_probs[0].exp(), torch.tensor([0.5, 0.3]))
    drawn = Cut(Fixed(p.log()), None, 12, 1).targets(rows, batch)
    share = torch.zeros(4).index_add(0, drawn.ids.flatten(), drawn.counts.flatten().float()) / drawn.counts.sum()
    sigma = (p * (1 - p) / int(drawn.counts.sum())).sqrt()
    assert bool(((share - p).abs() < 4 * sigma).all()), "draws are unbiased, each token by itself"
    again = Cut(Fixed(p.log()), None, 12, 1).targets(rows[:3], collate([pieces[r] for r in rows[:3]], Layout(0)))
    assert torch.equal(again.counts.sum(-1), torch.full((48,), 12))
    with pytest.raises(ValueError, match="top_k entries or draws"):
        Cut(Fixed(p.log()), 2, 12, 1)


def test_apart_sees_nothing_of_the_document_before(corpus: Corpus) -> None:
    """Hidden states of a piece are those of the same tokens alone."""
    config = run_config(documents="apart")
    pieces = pieces_of(corpus, config)
    block = next(b for b in range(pieces.num_blocks) if len(pieces.of_block(b)) > 1)
    rows = [pieces[piece] for piece in pieces.of_block(block)]
    model = ScoredModel(make_model(config.shape, int(corpus.facts["vocabulary"]), 16, 3).eval(), 16)
    with torch.no_grad():
        together = model.hidden(collate(rows, Layout(0)))
        alone = torch.cat([model.hidden(collate([row], Layout(0))) for row in rows])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["tiny", "llama"])
def test_parameters_are_counted_as_they_multiply(kind: str) -> None:
    shape = run_config(shape=SHAPE | {"kind": kind}).shape
    every, body, computing = shape_parameters(shape, 300, 16)
    model = make_model(shape, 300, 16, 0)
    assert (every, body) == count_parameters(model)
    assert computing == body + 300 * 16
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    positions = 16 * 16 if kind == "tiny" else 0
    assert every == body + 300 * 16 * (1 if tied else 2) + positions
