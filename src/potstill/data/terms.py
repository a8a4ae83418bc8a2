"""What licences and providers say about training other models on their models' outputs.

The facts are in `terms.yaml`, with the day on which each was looked up and whether its
text was read. They are information for a first look, not legal advice: who ships a student
reads the terms themselves. What is here is found by id, by a model's name or by an API's
host; what is not found is unknown, which is said and never taken for allowed.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Literal
from urllib.parse import urlsplit

import yaml

Permission = Literal["allowed", "conditions", "forbidden"]
Kind = Literal["hub", "folder", "gguf", "api"]

_QUANTISED = re.compile(r"[-_.](i?q\d\w*|b?f16|f32|fp16|mxfp4)$")
#: What a licence tag says when it says nothing.
_NO_TAG = {"", "unknown", "none"}


class TermsError(ValueError):
    """Terms are not known by that id, or forbid what the run would do; the message says which and how to go on."""


@dataclass(frozen=True, slots=True)
class Terms:
    """One licence or one provider's terms, as `terms.yaml` knows them."""

    id: str
    name: str
    verdict: Permission  # on training other, possibly competing, models with outputs
    summary: str
    obligations: tuple[str, ...]  # what travels with a student
    source: str
    checked: str  # date
    confirmed: bool  # the clause itself was read
    aliases: tuple[str, ...] = ()
    models: tuple[str, ...] = ()  # regular expressions, found in a model's lower-case name
    hosts: tuple[str, ...] = ()  # ends of an API's host name
    service: bool = False  # a provider's, which no model on disk has
    depends_on_model: bool = False  # a service that passes on the terms of the model it serves

    def as_dict(self) -> dict[str, Any]:
        """What a record keeps of it, patterns left out."""
        kept = ("id", "name", "verdict", "summary", "source", "checked", "confirmed")
        return {name: getattr(self, name) for name in kept} | {"obligations": list(self.obligations)}


@cache
def known_terms() -> tuple[Terms, ...]:
    """All entries, in the order in which patterns are tried."""
    listed = ("obligations", "aliases", "models", "hosts")
    return tuple(
        Terms(**entry | {name: tuple(entry.get(name, ())) for name in listed}) for entry in _tree()["terms"]
    )  # fmt: skip


def terms_version() -> str:
    """The date of the data file."""
    return str(_tree()["version"])


def lookup(terms_id: str) -> Terms:
    """The terms of that id or alias, upper and lower case alike. Raises TermsError where there are none."""
    found = find_terms(terms_id)
    if found is not None:
        return found
    ids = sorted(entry.id for entry in known_terms())
    close = difflib.get_close_matches(terms_id.lower(), ids, n=3)
    meant = f"did you mean {' or '.join(close)}?" if close else f"there are: {', '.join(ids)}"
    raise TermsError(f"no terms are known by the id {terms_id!r}; {meant}")


def find_terms(terms_id: str | None) -> Terms | None:
    """The same, None where they are not known."""
    wanted = "" if terms_id is None else terms_id.strip().lower()
    return next((entry for entry in known_terms() if wanted in (entry.id, *entry.aliases)), None)


def terms_of_model(name: str, kind: Kind, hints: Mapping[str, str] | None = None) -> Terms | None:
    """Terms of a model's outputs, from what its files say and from its name; None where neither tells.

    `hints` are what `model_hints` reads: `license` and `license_name` (tags of a card), `base_model` and
    `name`. A licence tag decides, also where it is one that is not known here: then nothing is guessed. A
    folder's own name comes last, for people choose it.
    """
    hints = hints or {}
    tag = hints.get("license", "").lower()
    if tag not in _NO_TAG:
        return find_terms(hints.get("license_name") if tag == "other" else tag)
    inside = [hints[key] for key in ("base_model", "name") if key in hints]
    names = [*inside, name] if kind in ("folder", "gguf") else [name, *inside]
    tried = (_by_name(name, served=kind == "api") for name in names)
    return next((found for found in tried if found is not None), None)


def terms_of_host(url: str) -> Terms | None:
    """Terms of the provider behind an address such as https://api.openai.com/v1; None where it is not known."""
    host = (urlsplit(url if "//" in url else f"//{url}").hostname or "").lower()
    fits = (entry for entry in known_terms() if any(host == end or host.endswith(f".{end}") for end in entry.hosts))
    return next(fits, None)


def terms_of_served(url: str, model: str) -> Terms | None:
    """Terms of what a model behind an API says: the provider's, or the model's where the provider passes those on.

    A host that is not known (one's own server) adds nothing to the model's terms.
    """
    provider = terms_of_host(url)
    if provider is not None and not provider.depends_on_model:
        return provider
    return terms_of_model(model, "api") or provider


def refuse_forbidden(found: Mapping[str, Terms | None], acknowledged: Sequence[str] = ()) -> list[str]:
    """Warnings on the terms of each generator (by name), or TermsError where one forbids and is not acknowledged.

    Acknowledging terms with conditions silences their warning. Raises TermsError too where something is
    acknowledged that no generator has, or that asks for nothing: a setting without effect.
    """
    accepted = {lookup(terms_id).id for terms_id in acknowledged}
    with_effect = {terms.id for terms in found.values() if terms is not None and terms.verdict != "allowed"}
    idle = sorted(accepted - with_effect)
    if idle:
        raise TermsError(
            f"data.acknowledged_terms names {', '.join(idle)}, which has no effect: no generator of this run stands "
            f"under such terms ({', '.join(sorted(with_effect)) or 'none of them asks for anything'}). Leave it out."
        )
    warnings = []
    for who, terms in found.items():
        if terms is None:
            warnings.append(
                f"the terms of what {who} says are not known. Read what they say about training other models on "
                "it, and name them in `terms` (docs/guide/terms.md)."
            )
        elif terms.id in accepted:
            continue
        elif terms.verdict == "forbidden":
            raise TermsError(_refusal(who, terms))
        elif terms.verdict == "conditions":
            warnings.append(
                f"{who}: {terms.name}{'' if terms.confirmed else ' (its text was not read here)'} sets conditions: "
                f"{'; '.join(terms.obligations)}. See {terms.source}; not legal advice."
            )
    return warnings


def _refusal(who: str, terms: Terms) -> str:
    sure = "" if terms.confirmed else " (written from what is generally known; read the text)"
    return (
        f"{who}: what it says may not train other models, by the {terms.name}. {terms.summary}{sure} "
        f"See {terms.source} (looked up {terms.checked}; not legal advice). Use another teacher; or, where the terms "
        f"do allow what you do, set data.acknowledged_terms: [{terms.id}]. If this is not the model that its name "
        "says, name the right terms in its `terms`."
    )


def _by_name(name: str, served: bool) -> Terms | None:
    bare = _QUANTISED.sub("", name.lower().removesuffix(".gguf"))
    asked = (terms for terms in known_terms() if served or not terms.service)
    return next((terms for terms in asked if any(re.search(pattern, bare) for pattern in terms.models)), None)


@cache
def _tree() -> dict[str, Any]:
    text = (resources.files("potstill.data") / "terms.yaml").read_text(encoding="utf-8")
    tree: dict[str, Any] = yaml.safe_load(text)
    return tree
