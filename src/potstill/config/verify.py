"""How completions are verified, and which of them are kept."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from potstill.config.base import Frozen
from potstill.config.sandbox import CodeTests

AnswerRule = Literal["boxed", "marker", "last_number", "last_line", "whole"]


class Normalisation(Frozen):
    """What does not count when texts are compared."""

    unicode: bool = True
    """Compatibility forms become plain ones (NFKC): full-width letters, ligatures, superscripts."""
    case: bool = True
    """Case does not count."""
    spaces: bool = True
    """Runs of white space are one space."""
    punctuation: bool = True
    """Punctuation, quotes and brackets at the ends do not count."""
    articles: bool = False
    """The words a, an and the do not count."""


class _Answered(Frozen):
    """Where the answer stands."""

    answer: tuple[AnswerRule, ...] = Field(default=("whole",), min_length=1)
    """Where the answer is looked for, in this order; the first rule that finds something decides."""
    markers: tuple[str, ...] = ("####", "The answer is", "Answer:")
    """What stands before the answer, for the rule marker; the last one in the text counts."""

    @model_validator(mode="after")
    def _rules(self) -> _Answered:
        if "markers" in self.model_fields_set and "marker" not in self.answer:
            raise ValueError("markers have no effect unless `answer` names the rule marker")
        if not self.markers or not all(marker.strip() for marker in self.markers):
            raise ValueError("markers must not be empty; leave the rule marker out instead")
        if len(set(self.answer)) < len(self.answer):
            raise ValueError("answer names a rule twice; the second has no effect")
        for sure in ("whole", "last_line"):
            if sure in self.answer[:-1]:
                raise ValueError(f"answer: nothing behind {sure} has an effect, since it always finds something")
        return self


class Exact(_Answered):
    """The answer is the reference's, word for word after normalisation."""

    kind: Literal["exact"]
    normalisation: Normalisation = Normalisation()
    """What does not count when answer and reference are compared."""


class Math(_Answered):
    """The answer equals the reference's as mathematics."""

    kind: Literal["math"]
    answer: tuple[AnswerRule, ...] = Field(default=("boxed", "marker", "last_number"), min_length=1)
    """Where the answer is looked for, in this order; the first rule that finds something decides."""
    decimals: int = Field(default=6, ge=0, le=12)
    """Decimal places at which numbers written with a point are compared; others are compared exactly."""
    timeout_seconds: float = Field(default=5.0, gt=0)
    """Longest time for one comparison; then its label is timeout, and it does not pass."""


class Steps(Frozen):
    """Every sum in the completion that can be read is worked out again."""

    kind: Literal["steps"]
    answer: Annotated[Exact | Math, Field(discriminator="kind")] | None = Math(kind="math")
    """How the final answer is checked; null looks at the steps alone."""
    relative_tolerance: float = Field(default=1e-3, ge=0, lt=0.1)
    """How far a result may be off where operands have decimals and may have been rounded (RFT's 1e-3)."""
    least_steps: int = Field(default=0, ge=0)
    """A completion with fewer sums that can be read does not pass."""


class Judge(Frozen):
    """A model's word, asked at temperature 0."""

    kind: Literal["judge"]
    mode: Literal["pairwise", "grade"] = "pairwise"
    """pairwise: against the reference, asked in both orders. grade: from 1 to 10."""
    accept: Literal["better", "better_or_tie"] = "better_or_tie"
    """What passes in pairwise mode. Orders that disagree are unsure, which never passes."""
    least_grade: int = Field(default=7, ge=1, le=10)
    """What passes in grade mode."""
    max_new_tokens: int = Field(default=512, ge=1)
    """Longest answer of the judge."""

    @model_validator(mode="after")
    def _modes(self) -> Judge:
        if self.mode == "grade" and "accept" in self.model_fields_set:
            raise ValueError("accept has no effect with mode: grade; set least_grade")
        if self.mode == "pairwise" and "least_grade" in self.model_fields_set:
            raise ValueError("least_grade has no effect with mode: pairwise; set accept")
        return self


Verify = Annotated[Exact | Math | Steps | CodeTests | Judge, Field(discriminator="kind")]


class Rejection(Frozen):
    """Keep the completions that pass every verifier, without duplicates."""

    verifiers: tuple[Verify, ...] = Field(min_length=1)
    """All must pass."""
    max_per_prompt: int | None = Field(default=None, ge=1)
    """At most so many of a prompt's completions, those that differ most; references do not count."""
    deduplicate: Literal["none", "text", "structure"] = "structure"
    """text: the same words. structure: the same sums, in any order of operands (RFT); texts without sums
    count as the same from a similarity of 0.8 (Jaccard, word 3-grams)."""
    keep_references: bool = True
    """Every prompt with a kept completion also gives its reference as a row (RFT)."""
    on_no_kept: Literal["drop", "reference"] = "reference"
    """Prompts with no kept completion: drop them, or give their reference. Dropping keeps easy prompts only."""

    @model_validator(mode="after")
    def _kinds(self) -> Rejection:
        kinds = [verifier.kind for verifier in self.verifiers]
        twice = sorted({kind for kind in kinds if kinds.count(kind) > 1})
        if twice:
            raise ValueError(f"verifiers names {twice[0]} twice; a completion's history holds one outcome of each kind")
        return self
