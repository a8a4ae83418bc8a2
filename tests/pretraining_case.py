"""A corpus, shapes and a grid so small that a model takes a second; run as a script it kills itself at a step."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from potstill.config.corpus import CorpusConfig
from potstill.config.pretraining import PretrainingRun
from potstill.data.collate import Layout
from potstill.data.corpus import Corpus, Pieces, open_corpus
from potstill.data.corpus_building import make_corpus
from potstill.lab.pretraining import terms_of
from potstill.lab.pretraining_making import generated
from potstill.models.scored import ScoredModel
from potstill.models.shapes import make_model
from potstill.teachers import Teacher
from potstill.training.corpus_teachers import OnlineCorpusTeacher
from potstill.training.loop import Trainer
from potstill.training.parallel import start_world
from potstill.training.pretraining import pretrain
from potstill.training.show import Show
from potstill.training.signals import Stop

SHAPE = {"kind": "tiny", "hidden_size": 16, "num_layers": 1, "num_heads": 2, "ffn_size": 32}
CORPUS = {
    "train": [{"kind": "generated", "corpus": "grammar", "chars": 60000}],
    "held_out": 0.1,
    "out_of_domain": {"technical": [{"kind": "generated", "corpus": "technical", "chars": 6000}]},
    "tokenizer": {"kind": "bpe", "vocabulary": 300},
    "measured_tokens": 2000,
    "most_contaminated": 1.0,
}
LAB = {
    "corpus": CORPUS,
    "block_tokens": 16,
    "sizes": {"small": SHAPE, "large": SHAPE | {"hidden_size": 24}},
    "teachers": {"sizes": ["small", "large"], "tokens": [1920]},
    "students": ["small"],
    "student_tokens": 1280,
    "weights": [0.5, 1.0],
    "seeds": [1, 2],
    "batch_blocks": 4,
    "learning_rate": 5e-3,
    "measuring": {"minimal_pairs": 32},
    "device": "cpu",
}


def small_corpus(folder: Path) -> Corpus:
    return make_corpus(CorpusConfig.model_validate(CORPUS), folder, generated)


def run_config(**changes: Any) -> PretrainingRun:
    tree = {
        "shape": SHAPE, "seed": 1, "block_tokens": 16, "blocks": 48, "steps": 12, "batch_blocks": 4,
        "optimiser": {"learning_rate": 5e-3, "warmup_steps": 2, "weight_decay": 0.1},
        "objective": {"terms": terms_of(0.0)}, "device": "cpu", "checkpoint_every": 5,
    }  # fmt: skip
    return PretrainingRun.model_validate(tree | changes)


def scheduled() -> dict[str, Any]:
    """A divergence whose weight moves on a schedule of its own, apart from the learning rate's."""
    kl = {"kind": "wsd", "start": 0.0, "peak": 0.8, "end": 0.2, "rise_share": 0.3, "fall_share": 0.3}
    ce = {"kind": "linear", "start": 1.0, "end": 0.4}
    return {"terms": [{"kind": "cross_entropy", "weight": ce, "on": ["corpus"]},
                      {"kind": "forward_kl", "weight": kl, "on": ["corpus"]}]}  # fmt: skip


def online(corpus: Corpus, seed: int = 7, pack: int | None = None) -> Any:
    """A random teacher that reads along."""
    model = make_model(run_config(shape=SHAPE | {"hidden_size": 24}).shape, int(corpus.facts["vocabulary"]), 16, seed)

    def find(pieces: Pieces, layout: Layout) -> Teacher:
        return OnlineCorpusTeacher(ScoredModel(model, pack), "random")

    return find


def go(config: PretrainingRun, corpus: Corpus, folder: Path, teacher: Any = None) -> Path:
    return pretrain(config, corpus, folder, teacher, start_world("cpu"), Show(quiet=True), Stop())


def die_after(limit: int) -> None:
    """This process kills itself when it is about to take its optimiser step number `limit`, from 0."""
    done, really = [0], Trainer.train_step

    def dying(self: Trainer, stop_here: bool = False) -> dict[str, Any]:
        if done[0] == limit:
            os.kill(os.getpid(), signal.SIGKILL)
        done[0] += 1
        return really(self, stop_here)

    Trainer.train_step = dying  # type: ignore[method-assign]


def main() -> None:
    """corpus folder, run folder, after how many steps of this process to die."""
    torch.set_num_threads(1)
    corpus = open_corpus(Path(sys.argv[1]))
    die_after(int(sys.argv[3]))
    go(run_config(objective=scheduled()), corpus, Path(sys.argv[2]), online(corpus))


if __name__ == "__main__":
    main()
