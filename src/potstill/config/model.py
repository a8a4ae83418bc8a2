"""Which models take part, and how the student comes to be."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from potstill.config.base import Frozen


class HubModel(Frozen):
    """A model on the Hugging Face hub. Only safetensors weights are read."""

    kind: Literal["hub"]
    id: str
    """Repository, such as `HuggingFaceTB/SmolLM2-360M-Instruct`."""
    revision: str
    """A commit hash. Branches move; a run that cannot name its teacher cannot be repeated."""
    trust_remote_code: bool = False
    """Run Python code from the repository. Off: such code can do anything."""
    terms: str | None = None
    """Licence or provider's terms of its outputs, by id (see docs/guide/terms.md); null: recognised from its name."""

    @model_validator(mode="after")
    def _pinned(self) -> HubModel:
        commit = self.revision
        if len(commit) != 40 or set(commit) - set("0123456789abcdef"):
            raise ValueError(
                f"revision must be a full commit hash (40 hex digits), found {commit!r}; "
                "the repository's page lists it under 'Files', 'History'"
            )
        return self


class FolderModel(Frozen):
    """A folder as `save_pretrained` writes it."""

    kind: Literal["folder"]
    path: str
    trust_remote_code: bool = False
    """Run Python code from the folder. Off: such code can do anything."""
    terms: str | None = None
    """Licence or provider's terms of its outputs, by id (see docs/guide/terms.md); null: recognised from its name."""


class GgufModel(Frozen):
    """A GGUF file, dequantised when loaded; with `package`, one inside a Python package."""

    kind: Literal["gguf"]
    file: str
    """Path of the file; relative to the package where one is named."""
    package: str | None = None
    """Python package that carries the file. It is located, never imported."""
    terms: str | None = None
    """Licence or provider's terms of its outputs, by id (see docs/guide/terms.md); null: recognised from its name."""


ModelSource = Annotated[HubModel | FolderModel | GgufModel, Field(discriminator="kind")]


class LayersStudent(Frozen):
    """A student made of some of the teacher's layers, embeddings and head copied."""

    kind: Literal["layers"]
    num_layers: int | None = Field(default=None, ge=1)
    """How many to keep: the first, the last, and evenly spaced ones between."""
    layers: tuple[int, ...] | None = None
    """Or exactly these, in this order, counted from 0."""
    num_decoder_layers: int | None = Field(default=None, ge=1)
    """Encoder-decoder only: how many decoder layers; as many as of the encoder if not given."""

    @model_validator(mode="after")
    def _one_way(self) -> LayersStudent:
        if (self.num_layers is None) == (self.layers is None):
            raise ValueError("a student from layers needs exactly one of num_layers and layers")
        if self.layers is not None and (not self.layers or min(self.layers) < 0):
            raise ValueError(f"layers must be indices from 0, found {list(self.layers)}")
        if self.layers is not None and self.num_decoder_layers is not None:
            raise ValueError("num_decoder_layers has no effect beside explicit layers")
        return self


class LoadedStudent(Frozen):
    """A student that exists already."""

    kind: Literal["load"]
    model: ModelSource

    @model_validator(mode="after")
    def _says_nothing(self) -> LoadedStudent:
        if self.model.terms is not None:
            raise ValueError("student.model.terms has no effect: terms are those of outputs that feed the student")
        return self


class ScratchStudent(Frozen):
    """A student with random weights, with the teacher's tokenizer."""

    kind: Literal["scratch"]
    architecture: Literal["llama", "t5"]
    hidden_size: int = Field(ge=8)
    num_layers: int = Field(ge=1)
    num_heads: int = Field(ge=1)
    ffn_size: int = Field(ge=8)
    """Width of the feed-forward layer."""
    tie_embeddings: bool = True
    """Whether the head is the embedding's transpose."""
    max_length: int = Field(default=2048, ge=8)
    """Longest sequence in tokens."""

    @model_validator(mode="after")
    def _heads_divide(self) -> ScratchStudent:
        if self.hidden_size % self.num_heads:
            raise ValueError(f"hidden_size {self.hidden_size} must divide by num_heads {self.num_heads}")
        return self


Student = Annotated[LayersStudent | LoadedStudent | ScratchStudent, Field(discriminator="kind")]
