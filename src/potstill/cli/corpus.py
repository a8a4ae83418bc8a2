"""`potstill corpus`: text becomes tokens on disk, with held-out sets and what they share with the training text."""

from __future__ import annotations

from pathlib import Path

from rich.markup import escape
from rich.table import Table

from potstill.config.corpus import CorpusConfig
from potstill.data.corpus import Corpus
from potstill.data.corpus_building import make_corpus
from potstill.data.corpus_stages import CorpusStopped
from potstill.lab.pretraining_making import generated
from potstill.training.quiet import quiet_libraries
from potstill.training.show import Show
from potstill.training.signals import Stopped, stopping


def corpus_verb(config: CorpusConfig, output: Path) -> None:
    """Make or open, report."""
    quiet_libraries()
    show = Show()
    with stopping() as stop, show.bars(lambda: stop.requested) as progress:
        try:
            corpus = make_corpus(config, output, generated, progress)
        except CorpusStopped as error:
            raise Stopped(str(error), stop.signal_number) from error
    summarise(corpus, show)


def summarise(corpus: Corpus, show: Show) -> None:
    """The sets, what was left out, and what measured sets share with the training text."""
    table = Table(box=None, pad_edge=False)
    table.add_column("set")
    for name in ("documents", "tokens", "bytes/token", "shared documents", "shared words"):
        table.add_column(name, justify="right")
    contamination = corpus.facts.get("contamination", {})
    for name, facts in corpus.sets.items():
        found = contamination.get(name)
        shares = ["", ""] if found is None else [f"{100 * found[key]:.1f} %" for key in ("share", "words_share")]
        per_token = f"{facts['bytes'] / facts['tokens']:.2f}"
        table.add_row(name, f"{facts['documents']:,}", f"{facts['tokens']:,}", per_token, *shares)
    if not show.quiet:
        show.console.print(table)
    for note in corpus.facts.get("notes", []):
        show.say(
            f"[bold]note[/bold]  {note}",
        )
    length = corpus.facts["config"]["contamination_words"]
    for name, found in contamination.items():
        for example in found["examples"][:1]:
            show.say(
                f"\n{name} shares {length} words in a row or more with the training text, such as\n"
                + escape(f"  {example['document']} with {example['training']}: {example['text']}")
            )
    show.say(f"\n[bold]corpus[/bold]  {corpus.path}: {corpus.facts['vocabulary']:,} tokens in the vocabulary")
