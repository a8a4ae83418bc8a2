"""How the steps of the pretraining experiment are made: text, models, what teachers say."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from transformers import AutoModelForCausalLM

from potstill.config.corpus import CorpusConfig, GeneratedText
from potstill.config.pretraining import PretrainingRun
from potstill.data.collate import Layout
from potstill.data.corpus import Corpus, Pieces, open_corpus
from potstill.data.corpus_building import make_corpus
from potstill.lab.text import documents
from potstill.models.scored import ScoredModel
from potstill.models.shapes import count_parameters
from potstill.run_dir import write_atomic
from potstill.sources.corpus import CorpusSource
from potstill.teachers import Teacher
from potstill.training.corpus_teachers import Cut, KeptHidden, OnlineCorpusTeacher, UniformTeacher, keep_hidden
from potstill.training.parallel import start_world
from potstill.training.pretraining import SUBSET_SEED, FindTeacher, pretrain
from potstill.training.show import Show
from potstill.training.signals import stopping

Needed = dict[str, Path]


def generated(source: GeneratedText) -> Iterator[str]:
    """Whole documents until there are enough characters."""
    written = 0
    for text in documents(source.corpus, source.seed):
        yield text
        written += len(text)
        if written >= source.chars:
            return


def make_text(facts: dict[str, Any], folder: Path, needed: Needed) -> None:
    """The corpus, in `corpus/`; with the tokenizer of another where one is needed."""
    tree = dict(facts["corpus"])
    if "tokenizer" in needed:
        tree["tokenizer"] = {"kind": "folder", "path": str(needed["tokenizer"] / "corpus" / "tokenizer")}
    make_corpus(TypeAdapter(CorpusConfig).validate_python(tree), folder / "corpus", generated)


def corpus_in(folder: Path) -> Corpus:
    return open_corpus(folder / "corpus")


def model_in(folder: Path, device: torch.device) -> ScoredModel:
    """A model that a step has trained, ready to score."""
    model = AutoModelForCausalLM.from_pretrained(folder / "run" / "model", dtype=torch.float32)
    return ScoredModel(model.to(device).eval())


def make_model(facts: dict[str, Any], folder: Path, needed: Needed) -> None:
    """One model, in `run/model/`; trained.json says what it took."""
    config = PretrainingRun.model_validate(facts["run"])
    corpus = corpus_in(needed["corpus"])
    world = start_world(config.device)
    with stopping() as stop:
        model = pretrain(
            config, corpus, folder / "run", teacher_for(facts, needed, world.device), world, Show(quiet=True), stop
        )
    every, body = count_parameters(AutoModelForCausalLM.from_pretrained(model))
    lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    tail = lines[-max(1, len(lines) // 10) :]
    loss = [line["term/cross_entropy"] for line in tail if "term/cross_entropy" in line]
    seconds = [json.loads(line)["seconds"] for line in (folder / "run" / "timing.jsonl").read_text().splitlines()]
    found = {
        "parameters": every,
        "body_parameters": body,
        "tokens": sum(line["counted_tokens"] for line in lines),
        "training_loss": sum(loss) / len(loss) if loss else None,
        "training_seconds": sum(seconds),
    }
    write_atomic(folder / "trained.json", json.dumps(found, indent=1).encode())


def teacher_for(facts: dict[str, Any], needed: Needed, device: torch.device) -> FindTeacher | None:
    """How a student's run finds its teacher."""
    if facts.get("uniform_teacher"):
        vocabulary = int(corpus_in(needed["corpus"]).facts["vocabulary"])
        return lambda pieces, layout: UniformTeacher(vocabulary)
    if "teacher" not in needed:
        return None

    def find(pieces: Pieces, layout: Layout) -> Teacher:
        scored, name = model_in(needed["teacher"], device), needed["teacher"].name
        teacher: Teacher
        if "targets" in needed:
            teacher = KeptHidden(needed["targets"] / "hidden", scored.head(), name, pieces, device)
        else:
            scored.pack_tokens = pieces.block_tokens if pieces.apart else None
            teacher = OnlineCorpusTeacher(scored, name)
        if facts.get("top_k") or facts.get("draws"):
            return Cut(teacher, facts.get("top_k"), facts.get("draws"), int(facts["run"]["seed"]))
        return teacher

    return find


def make_targets(facts: dict[str, Any], folder: Path, needed: Needed) -> None:
    """A teacher's hidden states of the students' blocks, in `hidden/`."""
    world = start_world(facts["device"])
    corpus = corpus_in(needed["corpus"])
    pieces = Pieces(corpus.tokens("train"), facts["block_tokens"], apart=facts["documents"] == "apart")
    scored = model_in(needed["teacher"], world.device)
    scored.pack_tokens = facts["block_tokens"] if pieces.apart else None
    source = CorpusSource(pieces, 0, 1, facts["blocks"], SUBSET_SEED)
    shutil.rmtree(folder / "hidden", ignore_errors=True)
    keep_hidden(scored, source, Layout(int(corpus.facts["end_id"])), folder / "hidden", world.device)
