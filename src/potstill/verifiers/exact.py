"""The completion's answer is the reference's, word for word, after normalisation.

Each part of the normalisation can be switched off: Unicode's compatibility forms (NFKC), case, runs of white
space, punctuation at the ends, and (only if asked for) the articles a, an and the. Punctuation inside is
never touched: "3.5" is not "35".
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from potstill.config.verify import Exact, Normalisation
from potstill.records import Completion, Prompt
from potstill.verifiers.base import Outcome, reference_of
from potstill.verifiers.extraction import extract

_ENDS = re.compile(r"^[\s.,;:!?'\"“”\u2018\u2019`*()\[\]{}]+|[\s.,;:!?'\"“”\u2018\u2019`*()\[\]{}]+$")
_ARTICLES = re.compile(r"\b(?:a|an|the)\b", re.IGNORECASE)


def normalise(text: str, rules: Normalisation) -> str:
    """The text as it is compared."""
    if rules.unicode:
        text = unicodedata.normalize("NFKC", text)
    if rules.case:
        text = text.casefold()
    if rules.articles:
        text = _ARTICLES.sub(" ", text)
    if rules.punctuation:
        text = _ENDS.sub("", text) or text
    return " ".join(text.split()) if rules.spaces else text


@dataclass(frozen=True)
class ExactVerifier:
    """Equality of texts."""

    config: Exact
    name: str = "exact"
    version: str = "1"

    def verify(self, prompt: Prompt, completion: Completion) -> Outcome:
        """right, wrong, or no_answer where the rule of extraction finds nothing."""
        reference = reference_of(prompt, self.name)
        answer = extract(completion.text, self.config.answer, self.config.markers)
        if answer is None:
            return Outcome(False, "no_answer", f"nothing found by {', '.join(self.config.answer)}")
        # A reference is often the bare answer, without the marker that completions are asked for.
        wanted = extract(reference, self.config.answer, self.config.markers) or reference
        same = normalise(answer, self.config.normalisation) == normalise(wanted, self.config.normalisation)
        return Outcome(same, "right" if same else "wrong", f"{answer!r} for {wanted!r}")
