"""The tree of `potstill generate`: who answers which prompts how, and which answers are kept."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from potstill.config.asking import Asking
from potstill.config.base import Frozen
from potstill.config.data import PromptSets, Sampling
from potstill.config.endpoint import Endpoint
from potstill.config.model import FolderModel, GgufModel, HubModel, ModelSource
from potstill.config.verify import Rejection

Generator = Annotated[HubModel | FolderModel | GgufModel | Endpoint, Field(discriminator="kind")]


class GenerateData(PromptSets):
    """Which prompts."""

    max_length: int = Field(default=2048, ge=8)
    """Longest prompt and completion together, in tokens."""
    chat_template_kwargs: dict[str, bool | str] = Field(default={})
    """Passed to the tokenizer's chat template, such as enable_thinking: false."""
    acknowledged_terms: tuple[str, ...] = ()
    """Ids of licences or provider's terms that were read and allow what this is for; see docs/guide/terms.md."""


class Generate(Frozen):
    """Completions into a store."""

    output: str
    """The store's directory. One configuration, one directory."""
    seed: int = 0
    """All random numbers are keyed by it."""
    generator: Generator
    """Who answers: a model in this process, or one behind an API (kind: endpoint)."""
    tokenizer: ModelSource | None = None
    """Whose tokenizer turns an endpoint's text into token ids: the student's, or the served model's where it is
    at hand. Needed for an endpoint, without effect for others."""
    data: GenerateData
    per_prompt: int = Field(default=1, ge=1)
    """Completions of each prompt."""
    sampling: Sampling = Sampling()
    slots: int = Field(default=64, ge=1)
    """Completions at work at once in this process (an endpoint has its own `concurrency`)."""
    asking: Asking | None = None
    """How the generator is asked, where that is not by the prompt itself."""
    rejection: Rejection | None = None
    """Which completions are kept; null: all."""
    judge: Generator | None = None
    """The model behind a verifier of kind judge; null: the generator itself."""
    precision: Literal["fp32", "bf16"] = "bf16"
    """In which a model in this process is held."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto takes a GPU where there is one."""

    @model_validator(mode="after")
    def _fits(self) -> Generate:
        served = isinstance(self.generator, Endpoint)
        if served and self.tokenizer is None:
            raise ValueError("an endpoint gives text; name in `tokenizer` the model whose token ids it becomes")
        if not served and self.tokenizer is not None:
            raise ValueError("tokenizer has no effect: a model in this process has its own; remove it")
        if served and {"slots", "precision", "device"} & self.model_fields_set:
            raise ValueError("slots, precision and device have no effect on an endpoint; see generator.concurrency")
        kinds = {verifier.kind for verifier in self.rejection.verifiers} if self.rejection is not None else set()
        if self.judge is not None and "judge" not in kinds:
            raise ValueError("judge has no effect without a verifier of kind judge in rejection.verifiers")
        return self

    def dump(self) -> dict[str, Any]:
        """Plain values, every default written out."""
        return self.model_dump(mode="json")
