"""From YAML and `key.path=value` to a frozen `Run`, or to errors that say how to mend it."""

from __future__ import annotations

import copy
import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from potstill.config.corpus import CorpusConfig
from potstill.config.generate import Generate
from potstill.config.lab import HackingLab
from potstill.config.pretraining import Pretraining, PretrainingLab
from potstill.config.run import Run

Tree = TypeVar("Tree", bound=BaseModel)

#: What pydantic puts into a fault's place where a number was tried among other shapes.
NUMBER = "constrained-float"


class ConfigError(ValueError):
    """The configuration cannot be run; the message lists every fault."""


class _Loader(yaml.SafeLoader):
    """YAML as people write it: `1e-4` is a number, only true and false are booleans (so that `on` is a
    key like any other), and a key may stand once."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = sorted({str(key) for key in keys if keys.count(key) > 1})
        if twice:
            raise ConfigError(f"{node.start_mark}: these keys stand twice: {', '.join(twice)}")
        return super().construct_mapping(node, deep)


BOOL, FLOAT = "tag:yaml.org,2002:bool", "tag:yaml.org,2002:float"
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in known if tag != BOOL]
    for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(BOOL, re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
_Loader.add_implicit_resolver(
    FLOAT,
    re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def load_run(path: str | Path, overrides: Sequence[str] = ()) -> Run:
    """Read a YAML file, apply `key.path=value` overrides in order, validate.

    Raises ConfigError: no such file, bad YAML, unknown key, bad value.
    """
    return build_run(read_tree(path), overrides, str(path))


def load_generate(path: str | Path, overrides: Sequence[str] = ()) -> Generate:
    """The same for what `potstill generate` does."""
    return _load(Generate, path, overrides)


def load_hacking_lab(path: str | Path, overrides: Sequence[str] = ()) -> HackingLab:
    """The same for a setting of `potstill lab hacking`."""
    return _load(HackingLab, path, overrides)


def load_corpus(path: str | Path, overrides: Sequence[str] = ()) -> CorpusConfig:
    """The same for what `potstill corpus` makes."""
    return _load(CorpusConfig, path, overrides)


def load_pretraining_lab(path: str | Path, overrides: Sequence[str] = ()) -> PretrainingLab:
    """The same for a setting of `potstill lab pretraining`."""
    return _load(PretrainingLab, path, overrides)


def load_pretraining(path: str | Path, overrides: Sequence[str] = ()) -> Pretraining:
    """The same for what `potstill pretrain` does."""
    return _load(Pretraining, path, overrides)


def _load(kind: type[Tree], path: str | Path, overrides: Sequence[str]) -> Tree:
    tree = read_tree(path)
    for override in overrides:
        _apply(tree, override)
    return _parse(kind, tree, str(path))


def read_tree(path: str | Path) -> dict[str, Any]:
    """A YAML file's mapping. Raises ConfigError: no such file, bad YAML, no mapping."""
    path = Path(path)
    if not path.is_file():
        near = sorted(str(found) for found in path.parent.glob("*.y*ml"))
        hint = f" There are: {', '.join(near)}." if near else ""
        raise ConfigError(f"no configuration file at {path}.{hint}")
    try:
        tree = yaml.load(path.read_text(), Loader=_Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {error}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} must hold a mapping of settings, found {type(tree).__name__}")
    return tree


def build_run(tree: Mapping[str, Any], overrides: Sequence[str] = (), where: str = "configuration") -> Run:
    """Apply `key.path=value` overrides to plain values, in order, and validate; `tree` stays as it is.

    Raises ConfigError: unknown key, bad value.
    """
    changed = copy.deepcopy(dict(tree))
    for override in overrides:
        _apply(changed, override)
    return parse_run(changed, where)


def parse_run(tree: dict[str, Any], where: str = "configuration") -> Run:
    """Validate plain values into a Run; every fault in one ConfigError."""
    return _parse(Run, tree, where)


def _parse(kind: type[Tree], tree: dict[str, Any], where: str) -> Tree:
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        faults = "\n".join(f"  {_explain(fault, kind)}" for fault in _relevant(error.errors()))
        raise ConfigError(f"{where} cannot be run:\n{faults}") from error


def _apply(tree: dict[str, Any], override: str) -> None:
    path, separator, text = override.partition("=")
    keys = path.split(".")
    if not separator or not all(keys):
        raise ConfigError(f"override {override!r} is not of the form key.path=value")
    value = yaml.load(text, Loader=_Loader)
    node: Any = tree
    for depth, key in enumerate(keys):
        last = depth == len(keys) - 1
        if isinstance(node, list):
            if not key.isdigit() or int(key) >= len(node):
                raise ConfigError(f"override {override!r}: {key!r} is no index of a list of {len(node)}")
            if last:
                node[int(key)] = value
            node = node[int(key)]
        elif isinstance(node, dict):
            if last:
                node[key] = value
            node = node.setdefault(key, {})
        else:
            raise ConfigError(f"override {override!r}: {'.'.join(keys[:depth])} is a value, not a group")


def _relevant(faults: Sequence[Any]) -> list[Any]:
    """Where a setting may be a number or a mapping, only the faults of what was meant."""
    kept = []
    for fault in faults:
        as_number = any(part == NUMBER for part in fault["loc"])
        as_mapping = any("[" in str(part) for part in fault["loc"])
        given = fault.get("input")
        if (as_number and isinstance(given, dict)) or (as_mapping and fault["type"] == "model_attributes_type"):
            continue
        here = fault["loc"]
        inner = any(other["loc"] != here and other["loc"][: len(here)] == here for other in faults)
        if fault["type"] == "too_short" and inner:  # a list whose items are faulty is not empty
            continue
        kept.append(fault | {"loc": tuple(p for p in fault["loc"] if p != NUMBER and "[" not in str(p))})
    return kept


def _explain(fault: Any, kind: type[BaseModel]) -> str:
    place = ".".join(str(part) for part in fault["loc"]) or "run"
    if fault["type"] == "extra_forbidden":
        return f"{place}: unknown key.{_nearest(fault['loc'], kind)}"
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "missing":
        return f"{place}: this setting is required"
    given = fault.get("input")
    shown = "" if isinstance(given, dict | list | tuple) or fault["type"] == "value_error" else f", found {given!r}"
    return f"{place}: {message}{shown}"


def _nearest(loc: tuple[Any, ...], kind: type[BaseModel]) -> str:
    """Known keys spelt like the unknown one, from the whole schema."""
    known: set[str] = set()
    for definition in kind.model_json_schema()["$defs"].values():
        known.update(definition.get("properties", {}))
    known.update(kind.model_fields)
    if loc[-1] in known:
        return " It is a setting of other kinds, and would have no effect here."
    close = difflib.get_close_matches(str(loc[-1]), sorted(known), n=3)
    return f" Did you mean {' or '.join(close)}?" if close else ""
