"""What every verifier answers, and how that is written into a completion's history.

A verifier looks at one prompt and one completion and says whether the completion passes, with a label that
says why. It never guesses: an answer that cannot be found is "no_answer" and one that cannot be read is
"unparsed", neither of which is "wrong".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

from potstill.records import Completion, Prompt

#: Labels of completions whose answer is right, whatever else is wrong with them.
RIGHT_ANSWERS = frozenset({"right", "right_answer_wrong_step", "right_answer_few_steps"})


class VerifierError(ValueError):
    """A verifier cannot do its work at all; the message says how to mend it."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a verifier found."""

    passed: bool
    label: str  # right, wrong, no_answer, unparsed, timeout, right_answer_wrong_step, ...
    detail: str = ""  # for people
    score: float | None = None  # a grade, where there is one


class Verifier(Protocol):
    """Whatever can say whether a completion passes."""

    @property
    def name(self) -> str:
        """The key in a completion's history."""
        ...

    @property
    def version(self) -> str:
        """Changes whenever an outcome may."""
        ...

    def verify(self, prompt: Prompt, completion: Completion) -> Outcome:
        """The outcome. Raises VerifierError where the prompt lacks what is needed."""
        ...


@runtime_checkable
class BatchVerifier(Protocol):
    """A verifier that is better asked about many completions at once."""

    def verify_all(self, pairs: Sequence[tuple[Prompt, Completion]]) -> list[Outcome]:
        """One outcome for each pair, in order."""
        ...


def reference_of(prompt: Prompt, verifier: str) -> str:
    """The prompt's reference answer. Raises VerifierError where it has none."""
    if prompt.reference is None or not prompt.reference.strip():
        raise VerifierError(
            f"the verifier {verifier!r} compares with a reference answer, and prompt {prompt.id!r} has none. "
            "Name its column in prompts.reference, leave the prompt out, or use a judge that grades without one."
        )
    return prompt.reference


def with_outcome(completion: Completion, verifier: Verifier, outcome: Outcome) -> Completion:
    """The completion with the outcome in its history, beside those of other verifiers."""
    entry: dict[str, Any] = {"passed": outcome.passed, "label": outcome.label, "version": verifier.version}
    if outcome.score is not None:
        entry["score"] = outcome.score
    verifiers: Mapping[str, Any] = {**completion.history.verifiers, verifier.name: entry}
    return replace(completion, history=replace(completion.history, verifiers=verifiers))
