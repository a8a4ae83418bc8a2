"""The plain facts that Potstill passes around and writes down.

A prompt, what somebody answered to it, what an evaluation measured, which data
fed the run from which step on, and what all of it means. Only the standard
library and NumPy are needed to read them, so that diagnosis and report work on
a machine that never saw torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

Split = Literal["train", "selection", "test"]
Provenance = Literal["reference", "teacher", "student", "corpus"]
FinishReason = Literal["stop", "length", "given"]
VerdictName = Literal["healthy", "still_improving", "hacking", "suspected_hacking", "overfitting", "inconclusive"]

#: (role, content) of each message; one ("text", content) for plain text.
Asked = tuple[tuple[str, str], ...]

#: The splits that training never sees. `selection` may choose things (a change
#: point, a temperature); `test` reports.
HELD_OUT: tuple[Split, ...] = ("selection", "test")


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a model is asked.

    Either `messages` (rendered with the model's chat template; earlier assistant
    turns belong to it) or `text` (taken as it stands), never both.
    """

    id: str
    messages: tuple[Message, ...] | None = None
    text: str | None = None
    reference: str | None = None
    split: Split = "train"
    group: str = ""

    def __post_init__(self) -> None:
        if (self.messages is None) == (self.text is None):
            raise ValueError(f"prompt {self.id!r} needs exactly one of messages and text")

    def flat_text(self) -> str:
        """All that the prompt says, as one string; for duplicates and display."""
        if self.text is not None:
            return self.text
        return "\n".join(message.content for message in self.messages or ())


@dataclass(frozen=True, slots=True)
class History:
    """Where a completion comes from (promise 6: every token has a history)."""

    provenance: Provenance
    generator: str  # the model's fingerprint, or the file that the text came from
    revision: str | None = None
    sampling: Mapping[str, Any] = field(default_factory=dict)  # temperature, top_p, seed, ...
    depth: int = 0  # 0 human text, 1 sampled from a model trained on human text, 2 ...
    terms: str | None = None  # licence or provider's terms, where known
    verifiers: Mapping[str, Any] = field(default_factory=dict)
    strategy: str | None = None  # how the generator was told to answer, such as "step_by_step"
    asked: Asked | None = None  # what it was shown, where that is not the prompt itself


@dataclass(frozen=True, slots=True)
class Completion:
    """An answer, as sampled: the ids are never re-tokenised from the text."""

    prompt_id: str
    index: int  # which of the G completions of this prompt
    token_ids: tuple[int, ...]
    text: str
    finish: FinishReason
    history: History
    logprobs: tuple[float, ...] | None = None  # of the sampler, nats, one a token
    top_ids: tuple[tuple[int, ...], ...] | None = None  # the generator's likeliest tokens at each position ...
    top_logprobs: tuple[tuple[float, ...], ...] | None = None  # ... and their log-probs, nats, where served


@dataclass(frozen=True, slots=True)
class Measured:
    """One quantity on some rows: row i is `sums[i]` nats over `tokens[i]` tokens.

    Several rows may share a prompt (several completions of it).
    """

    prompt_ids: np.ndarray  # [R] str
    sums: np.ndarray  # [R] float64, nats
    tokens: np.ndarray  # [R] int64

    def per_token(self) -> float:
        """Mean over all tokens, nats per token."""
        return float(self.sums.sum() / self.tokens.sum())

    def per_sequence(self) -> float:
        """Mean over prompts of the mean over their completions, nats."""
        _, where = np.unique(self.prompt_ids, return_inverse=True)
        return float((np.bincount(where, self.sums) / np.bincount(where)).mean())


@dataclass(frozen=True, slots=True)
class EvaluationRecord:
    """What one evaluation measured on the held-out prompts.

    Names used by the built-in monitor: `proxy` (the run's own objective against
    the teacher), `proxy_fkl` (forward KL at temperature 1), `golden` (the signal
    that is not the teacher's) and `teacher_golden` (the same for the teacher). On a
    slower clock, where asked for: `proxy_rkl`, `proxy_js`, `golden_rkl`, `golden_js`.
    """

    step: int
    series: Mapping[str, Measured]
    splits: Mapping[str, Split]  # prompt id -> split
    scalars: Mapping[str, float] = field(default_factory=dict)  # e.g. training_loss


@dataclass(frozen=True, slots=True)
class DataPlan:
    """What feeds the run from a step on; every change is a new version."""

    version: int
    from_step: int
    fractions: Mapping[str, float]  # stream -> share of every batch's rows
    completions_per_prompt: int
    num_prompts: int  # the first so many training prompts, in an order keyed by the seed
    reason: str
    answers: VerdictName | None = None  # the alarm that brought it; None: as configured


@dataclass(frozen=True, slots=True)
class Curve:
    """A measured series, per prompt and paired between steps."""

    name: str
    steps: np.ndarray  # [S] int64
    sums: np.ndarray  # [S, P] float64, nats (mean over a prompt's completions)
    tokens: np.ndarray  # [S, P] float64
    prompt_ids: np.ndarray  # [P] str
    splits: np.ndarray  # [P] str
    teacher: np.ndarray | None = None  # [P] the teacher's own value, nats; golden only
    paired: bool = True  # False: only means were logged

    @property
    def per_token(self) -> np.ndarray:
        """[S] nats per token over all prompts."""
        return np.asarray(self.sums.sum(1) / self.tokens.sum(1))


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the curves mean, and what supports it."""

    verdict: VerdictName
    confidence: float  # 0 to 1
    best_step: int | None
    sentence: str  # for people
    evidence: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Remedy:
    """A change that answers a verdict; data only, nobody has acted on it yet."""

    verdict: VerdictName
    action: str
    why: str
    plan: DataPlan | None = None
    training: Mapping[str, Any] = field(default_factory=dict)
