"""What a model's own files say about its licence and where it comes from.

A folder has a card (README.md, with tags in YAML between two rules) and a config.json;
a GGUF file has a header of keys and values. Only these few lines are read, never the
weights. The `gguf` package would read the header too, and takes seconds to do it: it
makes arrays of every token.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any, BinaryIO

import yaml

from potstill.config.endpoint import Endpoint
from potstill.config.model import FolderModel, GgufModel, HubModel
from potstill.data.terms import Terms, find_terms, terms_of_model, terms_of_served

#: Strictest first, for cards with several tags.
_STRICT = ("forbidden", "conditions", "allowed")
#: GGUF's value types with a fixed size, as `struct` writes them; 8 is text, 9 an array.
_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_TEXT, _ARRAY = 8, 9


def terms_of_source(source: HubModel | FolderModel | GgufModel, place: Path | None) -> str | None:
    """The id of the terms of a model's outputs, for its completions' history; None where they are not known.

    `place` is the folder or GGUF file on this disk. What the configuration says (`terms`) is taken as it
    is, by its id where there is one; else the model's files and name are asked.
    """
    if source.terms is not None:
        known = find_terms(source.terms)
        return source.terms if known is None else known.id
    found: Terms | None
    if isinstance(source, HubModel):
        found = terms_of_model(source.id, "hub")
    elif isinstance(source, FolderModel):
        found = terms_of_model(Path(source.path).resolve().name, "folder", folder_hints(place or Path(source.path)))
    else:
        found = terms_of_model(Path(source.file).name, "gguf", {} if place is None else gguf_hints(place))
    return None if found is None else found.id


def terms_of_endpoint(endpoint: Endpoint) -> str | None:
    """The same for a model behind an API: the provider's terms, or the model's where the provider passes those on.

    Of several servers the strictest counts; one that is not known adds nothing.
    """
    if endpoint.terms is not None:
        known = find_terms(endpoint.terms)
        return endpoint.terms if known is None else known.id
    served = [terms for url in endpoint.base_urls if (terms := terms_of_served(url, endpoint.model)) is not None]
    strictest = min(served, key=lambda terms: _STRICT.index(terms.verdict), default=None)
    return None if strictest is None else strictest.id


def folder_hints(folder: Path) -> dict[str, str]:
    """`license`, `license_name` and `base_model` of a folder's card, and the `name` that its config remembers."""
    front = front_matter(folder / "README.md")
    hints = {key: text for key in ("license_name", "base_model") if (text := _first(front.get(key)))}
    tags = [str(tag) for tag in _listed(front.get("license"))]
    known = [terms for tag in tags if (terms := find_terms(tag)) is not None]
    if tags:
        strictest = min(known, key=lambda terms: _STRICT.index(terms.verdict), default=None)
        hints["license"] = tags[0] if strictest is None else strictest.id
    config = folder / "config.json"
    remembered = json.loads(config.read_text()).get("_name_or_path") if config.is_file() else None
    return hints | ({"name": str(remembered)} if remembered else {})


def front_matter(card: Path) -> dict[str, Any]:
    """The tags at the head of a card; nothing where there is no card, or no tags that YAML can read."""
    if not card.is_file():
        return {}
    parts = card.read_text(encoding="utf-8", errors="replace").split("---\n", 2)
    if len(parts) < 3 or parts[0].strip():
        return {}
    try:
        tags = yaml.safe_load(parts[1])
    except yaml.YAMLError:  # a card that the hub could not read either says nothing
        return {}
    return tags if isinstance(tags, dict) else {}


def gguf_hints(path: Path) -> dict[str, str]:
    """`license`, `license_name`, `base_model` and `name` from a GGUF file's header, those that it has."""
    texts = gguf_texts(path)
    sources = {
        "license": "general.license",
        "license_name": "general.license.name",
        "base_model": "general.base_model.0.name",
        "name": "general.name",
    }
    return {key: texts[field] for key, field in sources.items() if texts.get(field)}


def gguf_texts(path: Path) -> dict[str, str]:
    """The text values of a GGUF header up to its tokenizer, by key; nothing for a file that is not GGUF.

    Little-endian files of version 2 and 3 (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md).
    """
    found: dict[str, str] = {}
    with open(path, "rb") as handle:
        if handle.read(4) != b"GGUF" or _number(handle, "<I") not in (2, 3):
            return found
        handle.seek(8, 1)  # how many tensors
        for _ in range(_number(handle, "<Q")):
            key = _text(handle)
            if key.startswith("tokenizer."):
                break
            kind = _number(handle, "<I")
            if kind == _TEXT:
                found[key] = _text(handle)
            else:
                _skip(handle, kind)
    return found


def _skip(handle: BinaryIO, kind: int) -> None:
    if kind == _ARRAY:
        inner, count = _number(handle, "<I"), _number(handle, "<Q")
        if inner in _SIZES:
            handle.seek(_SIZES[inner] * count, 1)
        else:
            for _ in range(count):
                _skip(handle, inner)
    elif kind == _TEXT:
        handle.seek(_number(handle, "<Q"), 1)
    elif kind in _SIZES:
        handle.seek(_SIZES[kind], 1)
    else:
        raise ValueError(f"{handle.name}: expected a GGUF header, found a value of the unknown type {kind}")


def _number(handle: BinaryIO, form: str) -> int:
    return int(struct.unpack(form, handle.read(struct.calcsize(form)))[0])


def _text(handle: BinaryIO) -> str:
    return handle.read(_number(handle, "<Q")).decode("utf-8", errors="replace")


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _first(value: Any) -> str:
    return str(next(iter(_listed(value)), ""))
