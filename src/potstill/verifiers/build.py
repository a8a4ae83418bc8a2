"""From configuration to verifiers: the one place that knows every kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

from potstill.config.sandbox import CodeTests
from potstill.config.verify import Exact, Judge, Math, Steps, Verify
from potstill.generation.base import Generator
from potstill.verifiers.base import Verifier, VerifierError
from potstill.verifiers.exact import ExactVerifier
from potstill.verifiers.judge import Encode, JudgeVerifier
from potstill.verifiers.math import MathVerifier
from potstill.verifiers.trace import StepVerifier


def build_verifier(config: Verify, judge: Generator | None = None, encode: Encode | None = None) -> Verifier:
    """The verifier of a configuration.

    `judge` answers for `kind: judge`, and `encode` renders its messages where it runs in this process. Raises
    VerifierError where a part is missing.
    """
    match config:
        case Exact():
            return ExactVerifier(config)
        case Math():
            return MathVerifier(config)
        case Steps():
            return StepVerifier(config, None if config.answer is None else build_verifier(config.answer))
        case Judge():
            if judge is None:
                raise VerifierError("kind: judge needs a model to ask; give the generator that answers for it")
            return JudgeVerifier(config, judge, encode)
        case CodeTests():
            from potstill.verifiers.code import CodeVerifier

            return CodeVerifier(config)
    assert_never(config)


def build_verifiers(
    configs: Sequence[Verify], judge: Generator | None = None, encode: Encode | None = None
) -> list[Verifier]:
    """One verifier for each configuration, in order."""
    return [build_verifier(config, judge, encode) for config in configs]
