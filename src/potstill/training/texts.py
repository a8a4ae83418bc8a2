"""A few held-out prompts that the student answers at every evaluation, for people to read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from potstill.config.data import Sampling
from potstill.config.monitor import MonitorConfig
from potstill.generation.base import Request
from potstill.generation.local import LocalSampler
from potstill.records import Completion, Prompt
from potstill.training.speaking import speaking
from potstill.training.stages import Prompts
from potstill.training.watch import TRAINING_LAW


@dataclass(frozen=True)
class SampleTexts:
    """Prompts, with what teacher and reference say to them."""

    prompts: list[Prompt]
    requests: list[Request]
    teacher: dict[str, str]
    tokenizer: Any

    @classmethod
    def choose(
        cls, config: MonitorConfig, prompts: Prompts, held_out: dict[str, list[Completion]], tokenizer: Any
    ) -> SampleTexts:
        """Spread over the test prompts, so that topics differ."""
        candidates = [p for p in prompts.held_out if p.split == "test"]
        most = min(config.sample_texts, len(candidates))
        chosen = [candidates[i * len(candidates) // most] for i in range(most)] if most else []
        teacher = {c.prompt_id: c.text for c in reversed(held_out[TRAINING_LAW])}
        requests = [Request(p.id, 0, prompts.encoded[p.id].ids) for p in chosen]
        return cls(chosen, requests, teacher, tokenizer)

    def answer(
        self, wrapped: nn.Module, student: Any, config: MonitorConfig, seed: int, *, bf16: bool
    ) -> list[dict[str, Any]]:
        """Greedy answers of the student as it is; all processes compute them, the lead writes them."""
        if not self.prompts:
            return []
        sampler = LocalSampler(
            student, self.tokenizer, "student", None, "student",
            Sampling(sampling_temperature=0.0, max_new_tokens=config.sample_tokens),
            seed, "texts", bf16=bf16, slots=config.batch_rows,
        )  # fmt: skip
        with speaking(wrapped, student):
            answers = {c.prompt_id: c for c in sampler.generate(self.requests)}
        return [
            {
                "prompt_id": p.id,
                "prompt": p.flat_text(),
                "teacher": self.teacher.get(p.id),
                "student": answers[p.id].text,
                "finish": answers[p.id].finish,
                "reference": p.reference,
            }
            for p in self.prompts
        ]
