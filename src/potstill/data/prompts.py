"""Prompts: read, checked row by row, and named.

A row gives one prompt, either plain text or a conversation. A conversation that
ends in an assistant's turn brings its own reference answer. Whatever is empty,
null, of another type or there twice is refused with the place where it stands:
a bad row that slips through here would be measured for a whole run.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import replace
from string import Formatter
from typing import Any

from potstill.config.data import FewShot, Prompts
from potstill.data.tables import Entry, PromptError, excerpt, read_entries
from potstill.records import Message, Prompt

__all__ = ["PromptError", "content_id", "parse_prompt", "read_prompts", "refuse_repeats"]

_ROLES = ("system", "user", "assistant")
_OTHER_ROLES = {"human": "user", "gpt": "assistant", "model": "assistant", "bot": "assistant"}
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_SHOWN = 5


def read_prompts(config: Prompts) -> list[Prompt]:
    """All prompts of a file or hub data set, in their order."""
    _check_settings(config)
    entries = read_entries(config, _columns(config))
    prompts = [parse_prompt(entry, config) for entry in entries]
    refuse_repeats(entries, prompts)
    if config.few_shot is None:
        return prompts
    examples = _examples(config, config.few_shot)
    return [_after_examples(prompt, examples, config.few_shot.separator) for prompt in prompts]


def _examples(config: Prompts, few_shot: FewShot) -> list[Prompt]:
    """Worked examples, read as the prompts are. Raises PromptError where one has no reference."""
    own = config.model_copy(
        update={"path": few_shot.path, "hub": False, "revision": None, "few_shot": None, "id": None}
    )
    examples = read_prompts(own)[: few_shot.count]
    if len(examples) < few_shot.count:
        raise PromptError(f"{few_shot.path}: expected {few_shot.count} examples, found {len(examples)}.")
    if any(example.reference is None for example in examples):
        raise PromptError(f"{few_shot.path}: every example needs a reference; set `reference` to its column.")
    return examples


def _after_examples(prompt: Prompt, examples: list[Prompt], separator: str) -> Prompt:
    """The prompt with the examples before it; its id stays that of the prompt alone."""
    if prompt.text is not None:
        worked = [f"{example.text} {example.reference}" for example in examples]
        return replace(prompt, text=separator.join([*worked, prompt.text]))
    turns: list[Message] = []
    for example in examples:
        own = [message for message in example.messages or () if message.role != "system"]
        turns += [*own, Message("assistant", example.reference or "")]
    messages = prompt.messages or ()
    head = 1 if messages[0].role == "system" else 0
    return replace(prompt, messages=(*messages[:head], *turns, *messages[head:]))


def refuse_repeats(entries: list[Entry], prompts: list[Prompt]) -> None:
    """Raises PromptError where a content or an id stands twice; `entries` say where."""
    mend = "Keep one row of each, and write the file without the others."
    _refuse_repeated("content", Prompt.flat_text, entries, prompts, mend)
    mend = "Make ids unique, or leave `id` out: a hash of the content names them then."
    _refuse_repeated("id", lambda prompt: prompt.id, entries, prompts, mend)


def content_id(text: str) -> str:
    """The name of a prompt that has no id of its own: it changes only with the content."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _check_settings(config: Prompts) -> None:
    """Refuse settings that would have no effect."""
    if config.messages is not None and not config.chat:
        raise PromptError("chat: false has no effect on `messages`; remove one of them.")
    if config.messages is not None and config.prompt != "prompt":
        raise PromptError("`prompt` and `messages` name two columns for one thing; remove one of them.")
    if config.system is not None and not config.chat:
        raise PromptError(
            "`system` has no effect with chat: false, which takes the text as it stands; remove one of them."
        )
    if config.hub_split != "train" and not config.hub:
        raise PromptError("`hub_split` has no effect on a local file; remove it or set hub: true.")


def _columns(config: Prompts) -> dict[str, str]:
    """Setting -> column, for those that are in use."""
    asked = {
        "prompt": config.prompt if config.messages is None and config.template is None else None,
        "messages": config.messages,
        "reference": config.reference,
        "group": config.group,
        "id": config.id,
    }
    in_template = {f"template ({name})": name for name in template_columns(config)}
    return {setting: column for setting, column in asked.items() if column is not None} | in_template


def template_columns(config: Prompts) -> list[str]:
    """Columns that the template names."""
    parts = Formatter().parse(config.template or "")
    return [name for _, name, _, _ in parts if name]


def _plain(entry: Entry, config: Prompts) -> str:
    """A plain text prompt: its column, or what the template makes of several."""
    if config.template is None:
        return (config.prefix or "") + _text(entry, config.prompt)
    values = {name: _label(entry, name) for name in template_columns(config)}
    return (config.prefix or "") + config.template.format_map(values)


def parse_prompt(entry: Entry, config: Prompts) -> Prompt:
    """The prompt in one row. Raises PromptError, with the place, where something is missing or odd."""
    reference = _text(entry, config.reference) if config.reference is not None else None
    group = _label(entry, config.group) if config.group is not None else config.task or ""
    if config.messages is not None:
        messages, answer = _conversation(entry, config.messages, config.system)
        if answer is not None and reference is not None:
            raise PromptError(
                f"{entry.where}: the conversation ends in an assistant's turn, and {config.reference!r} "
                "holds a reference too. Remove the setting `reference`, or that last turn."
            )
        prompt = Prompt("", messages=messages, reference=reference or answer, group=group)
    elif config.chat:
        system = () if config.system is None else (Message("system", config.system),)
        messages = (*system, Message("user", _plain(entry, config)))
        prompt = Prompt("", messages=messages, reference=reference, group=group)
    else:
        prompt = Prompt("", text=_plain(entry, config), reference=reference, group=group)
    name = content_id(prompt.flat_text()) if config.id is None else _label(entry, config.id)
    return replace(prompt, id=name)


def _conversation(entry: Entry, column: str, system: str | None) -> tuple[tuple[Message, ...], str | None]:
    """The turns up to the user's last, and the assistant's answer to it where there is one."""
    turns = entry.columns.get(column)
    if not isinstance(turns, list) or not turns:
        raise PromptError(
            f"{entry.where}: expected a list of {{role, content}} in {column!r}, found {_kind(turns)}. "
            "Write at least the user's turn."
        )
    messages = [_message(turn, f"{entry.where}, turn {number}") for number, turn in enumerate(turns, start=1)]
    answer = messages.pop().content if messages[-1].role == "assistant" else None
    roles = [message.role for message in messages]
    if "system" in roles[1:] or not roles or roles[-1] != "user":
        found = ", ".join(message["role"] for message in turns)
        raise PromptError(
            f"{entry.where}: expected a conversation that ends in a user's turn or in an answer to it, with "
            f"a system message only at the start; found {found}. Cut it, or leave the row out."
        )
    if system is not None:
        if roles[0] == "system":
            raise PromptError(
                f"{entry.where}: has a system message of its own, and `system` is set. Remove one of them."
            )
        messages.insert(0, Message("system", system))
    return tuple(messages), answer


def _message(turn: Any, where: str) -> Message:
    if not isinstance(turn, dict) or not {"role", "content"} <= turn.keys():
        found = ", ".join(map(repr, turn)) if isinstance(turn, dict) else _kind(turn)
        raise PromptError(f"{where}: expected role and content, found {found}. Rename them, or leave the row out.")
    role = turn["role"]
    if role not in _ROLES:
        other = _OTHER_ROLES.get(str(role))
        mend = f"Write {other!r}." if other else "Leave the row out."
        raise PromptError(f"{where}: expected role {', '.join(_ROLES[:2])} or {_ROLES[2]}, found {role!r}. {mend}")
    if role == "system" and turn["content"] == "":
        return Message("system", "")  # some chat templates put a default where there is none
    return Message(role, _text(Entry(where, turn), "content"))


def _text(entry: Entry, column: str) -> str:
    value = entry.columns.get(column)
    if not isinstance(value, str):
        raise PromptError(
            f"{entry.where}: expected text in {column!r}, found {_kind(value)}. "
            "Write it as a string, or leave the row out."
        )
    if not value.strip():
        raise PromptError(f"{entry.where}: {column!r} is empty. Write its text, or leave the row out.")
    if _LONE_SURROGATE.search(value):
        raise PromptError(
            f"{entry.where}: {column!r} holds half of a character (a lone surrogate), which cannot be "
            "encoded. Cut texts between characters, or leave the row out."
        )
    return value


def _label(entry: Entry, column: str) -> str:
    """An id or a group: text or a whole number."""
    value = entry.columns.get(column)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return _text(entry, column)


def _kind(value: Any) -> str:
    """A value for a message: null, or its type and beginning."""
    return "nothing (null or missing)" if value is None else f"{type(value).__name__} {value!r:.60}"


def _refuse_repeated(
    what: str, key: Callable[[Prompt], str], entries: list[Entry], prompts: list[Prompt], mend: str
) -> None:
    first: dict[str, int] = {}
    pairs = [(first.setdefault(key(prompt), at), at) for at, prompt in enumerate(prompts)]
    repeated = [(early, late) for early, late in pairs if early != late]
    if not repeated:
        return
    lines = [f"expected every prompt once, found the same {what} again (rows: {len(repeated)}):"]
    for early, late in repeated[:_SHOWN]:
        one, other = (f"{entries[at].where} (id {prompts[at].id!r})" for at in (late, early))
        lines.append(f"  {one} repeats {other}: {excerpt(prompts[late].flat_text())}")
    raise PromptError("\n".join([*lines, mend]))
