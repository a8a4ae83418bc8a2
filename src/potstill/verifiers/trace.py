"""The verifier of steps: the final answer, and every sum on the way to it.

A right answer may stand at the end of wrong steps, by luck or because two mistakes cancel. A student would
learn those steps, so such a completion has a label of its own and does not pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from potstill.config.verify import Steps
from potstill.records import Completion, Prompt
from potstill.verifiers.base import Outcome, Verifier
from potstill.verifiers.steps import Step, find_steps


@dataclass(frozen=True)
class StepVerifier:
    """Final answer by another verifier, steps by their sums; without `answer` the steps alone."""

    config: Steps
    answer: Verifier | None
    name: str = "steps"

    @property
    def version(self) -> str:
        """Names the version of the answer's verifier too."""
        return "1" if self.answer is None else f"1+{self.answer.name}-{self.answer.version}"

    def verify(self, prompt: Prompt, completion: Completion) -> Outcome:
        """Labels: right, right_answer_wrong_step, right_answer_few_steps, and those of the answer's verifier.

        Without an answer's verifier: right_steps, wrong_step and few_steps.
        """
        final = None if self.answer is None else self.answer.verify(prompt, completion)
        if final is not None and not final.passed:
            return final
        steps = find_steps(completion.text, Fraction(str(self.config.relative_tolerance)))
        before = "" if final is None else "right_answer_"
        wrong = [step for step in steps if not step.holds]
        if wrong:
            return Outcome(False, f"{before}wrong_step", f"{len(wrong)} of {len(steps)} sums: {_show(wrong[0])}")
        if len(steps) < self.config.least_steps:
            found = f"{len(steps)} sums, at least {self.config.least_steps} wanted"
            return Outcome(False, f"{before}few_steps", found)
        return Outcome(True, "right_steps" if final is None else "right", f"{len(steps)} sums hold")


def _show(step: Step) -> str:
    value = "no value (division by zero)" if step.value is None else f"{float(step.value):.10g}"
    return f"{step.text!r} comes to {value}"
