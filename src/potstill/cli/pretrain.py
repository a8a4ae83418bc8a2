"""`potstill pretrain`: one model from random weights on a corpus, then what it makes of every measured set."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from potstill.config.pretraining import Pretraining
from potstill.data.collate import Layout
from potstill.data.corpus import Corpus, Pieces, open_corpus
from potstill.evaluation.perplexity import score_text
from potstill.models.load import load_model
from potstill.models.scored import ScoredModel
from potstill.models.vocabulary import align
from potstill.teachers import Teacher
from potstill.training.corpus_teachers import OnlineCorpusTeacher
from potstill.training.parallel import start_world
from potstill.training.pretraining import FindTeacher, pretrain
from potstill.training.quiet import quiet_libraries
from potstill.training.show import Show
from potstill.training.signals import stopping

MEASURED_BLOCKS = 16


def pretrain_verb(config: Pretraining) -> None:
    """Train or go on, measure."""
    quiet_libraries()
    corpus, world = open_corpus(Path(config.corpus)), start_world(config.run.device)
    show = Show(quiet=os.environ.get("RANK", "0") != "0")
    teacher = local_teacher(config, corpus, world.device)
    with stopping() as stop:
        folder = pretrain(config.run, corpus, Path(config.output), teacher, world, show, stop)
    if not world.leads:
        return
    model = ScoredModel(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).to(world.device))
    for name in corpus.measured:
        pieces = Pieces(corpus.tokens(name), config.run.block_tokens, apart=False)
        found = score_text(model, pieces, int(corpus.facts["end_id"]), MEASURED_BLOCKS, world.device)
        show.say(f"{name:>15}  {found.nats_per_token:.3f} nats/token (perplexity {found.perplexity:.1f})")
    show.say(f"\n          model  {folder}")


def local_teacher(config: Pretraining, corpus: Corpus, device: torch.device) -> FindTeacher | None:
    """The teacher, loaded and compared with the corpus before the first step.

    Raises ModelError where a token id means something else to it.
    """
    if config.teacher is None:
        return None
    loaded = load_model(config.teacher, torch.float32)
    apart = config.run.documents == "apart"
    scored = ScoredModel(loaded.model.to(device), config.run.block_tokens if apart else None)
    tokenizer = AutoTokenizer.from_pretrained(corpus.tokenizer_path)
    align(loaded.tokenizer, tokenizer, scored.vocabulary_width, int(corpus.facts["vocabulary"]))

    def find(pieces: Pieces, layout: Layout) -> Teacher:
        return OnlineCorpusTeacher(scored, loaded.fingerprint)

    return find
