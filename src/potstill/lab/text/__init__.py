"""Text for the labs that runs from a clone: no download, no megabytes in the repository.

Three corpora are made by programs of this package, without end and always the same for the same seed: `prose`
(stories and essays about a small world), `technical` (manuals whose figures are right) and `grammar` (a made-up
language with an exact checker). What they write is covered by the licence of this project, Apache-2.0, as the
programs and their word lists were written for it. The fourth, `pydoc`, is prose out of Python's own reference, read
from the Python at hand and covered by Python's licence (PSF). The fifth, `docstrings`, is what the libraries that
Potstill stands on say of themselves, read from their files and covered by their licences.
"""

from potstill.lab.text.corpora import CORPORA, HELD_OUT_SHARE, CorpusName, Part, corpus, documents, held_out
from potstill.lab.text.grammar import PHENOMENA, MinimalPair, Phenomenon, is_grammatical, minimal_pairs
from potstill.lab.text.prose import Event, Question, Story, stories

__all__ = [
    "CORPORA",
    "HELD_OUT_SHARE",
    "PHENOMENA",
    "CorpusName",
    "Event",
    "MinimalPair",
    "Part",
    "Phenomenon",
    "Question",
    "Story",
    "corpus",
    "documents",
    "held_out",
    "is_grammatical",
    "minimal_pairs",
    "stories",
]
