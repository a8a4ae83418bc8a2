"""Sentences with gaps, written so that a line of text stands for thousands of sentences.

In a template, `{name}` is a value given by the caller, `#list#` a word from a named list, `[one|two|]` a choice
(nested as you like, an empty part leaves it out), `<walk>` a verb in the tense of the telling, `<walk+>` the same for
a plural subject, and `a~` becomes `a` or `an`. Words of lists may hold
all of these again. A template is taken apart once and then only walked through.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from potstill.lab.text.draw import Dice
from potstill.lab.text.inflect import Tense, article, finite

_TOKEN = re.compile(r"\{(\w+)\}|#(\w+)#|<(\w+)(\+?)>|([\[\]|])|([^{}#<>\[\]|]+)")
_ARTICLE = re.compile(r"\b([Aa])~ ([\"(]?)(\w+)")
_TEXT, _SLOT, _LIST, _VERB, _CHOICE = range(5)

#: Kind; text or the name of a slot or list; a verb's forms by tense; the sequences to choose from.
Node = tuple[int, str, dict[Tense, str], list[Any]]
Words = Mapping[str, Sequence[str]]


class Writer:
    """Fills templates from word lists; keeps templates and lists taken apart."""

    def __init__(self, words: Words) -> None:
        self._words = words
        self._parsed: dict[str, list[Node]] = {}
        self._lists: dict[str, list[list[Node]]] = {}

    def write(self, template: str, dice: Dice, slots: Mapping[str, str], tense: Tense = "past") -> str:
        """The template with every gap filled.

        Raises KeyError for a slot that is not given or a list that does not exist, ValueError for a malformed
        template.
        """
        nodes = self._parsed.get(template)
        if nodes is None:
            nodes = self._parsed[template] = parse(template)
        out: list[str] = []
        self._walk(nodes, dice, slots, tense, out)
        return "".join(out)

    def _walk(self, nodes: list[Node], dice: Dice, slots: Mapping[str, str], tense: Tense, out: list[str]) -> None:
        for kind, text, forms, choices in nodes:
            if kind == _TEXT:
                out.append(text)
            elif kind == _SLOT:
                out.append(slots[text])
            elif kind == _VERB:
                out.append(forms[tense])
            else:
                if kind == _LIST:
                    choices = self._lists.get(text) or self._entries(text)
                self._walk(choices[int(dice.random() * len(choices))], dice, slots, tense, out)

    def _entries(self, name: str) -> list[list[Node]]:
        entries = self._lists[name] = [parse(word) for word in self._words[name]]
        return entries


def parse(template: str) -> list[Node]:
    """Take a template apart. Raises ValueError where brackets do not match or a character has no meaning."""
    stack: list[list[list[Node]]] = [[[]]]
    at = 0
    while at < len(template):
        match = _TOKEN.match(template, at)
        if match is None:
            raise ValueError(f"expected text or a gap at character {at} of the template, found {template[at:]!r}")
        at = match.end()
        slot, words, verb, many, bracket, text = match.groups()
        if bracket == "[":
            stack.append([[]])
        elif bracket == "|" and len(stack) > 1:
            stack[-1].append([])
        elif bracket == "]" and len(stack) > 1:
            choice = stack.pop()
            stack[-1][-1].append((_CHOICE, "", {}, choice))
        elif bracket:
            raise ValueError(f"{bracket!r} without a bracket before it in the template {template!r}")
        else:
            stack[-1][-1].append(_leaf(slot, words, verb, many, text))
    if len(stack) > 1:
        raise ValueError(f"a bracket is never closed in the template {template!r}")
    return stack[0][0]


def _leaf(slot: str | None, words: str | None, verb: str | None, many: str, text: str) -> Node:
    if slot:
        return (_SLOT, slot, {}, [])
    if words:
        return (_LIST, words, {}, [])
    if verb:
        forms: dict[Tense, str] = {
            "past": finite(verb, "past", many == "+"),
            "present": finite(verb, "present", many == "+"),
        }
        return (_VERB, verb, forms, [])
    return (_TEXT, text, {}, [])


def with_articles(text: str) -> str:
    """Every `a~` as `a` or `an`."""

    def put(match: re.Match[str]) -> str:
        word = article(match[3])
        return f"{word.capitalize() if match[1] == 'A' else word} {match[2]}{match[3]}"

    return _ARTICLE.sub(put, text)


def sentence(text: str) -> str:
    """The text with a capital at its beginning, also behind an opening quotation mark."""
    if text[0] == '"':
        return '"' + text[1].upper() + text[2:]
    return text[0].upper() + text[1:]
