"""A made-up language with agreement, an exact checker for it, and minimal pairs."""

from potstill.lab.text.grammar.pairs import PHENOMENA, MinimalPair, Phenomenon, minimal_pairs
from potstill.lab.text.grammar.recognise import is_grammatical
from potstill.lab.text.grammar.sentences import paragraph

__all__ = ["PHENOMENA", "MinimalPair", "Phenomenon", "is_grammatical", "minimal_pairs", "paragraph"]
