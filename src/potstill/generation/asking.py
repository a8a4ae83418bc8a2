"""From a prompt to what the generator is shown: a strategy's words round it, or a second turn after an answer."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from potstill.config.asking import PLACE, Asking, Strategy
from potstill.records import Asked, Completion, Message, Prompt


class AskingError(ValueError):
    """A prompt cannot be asked as configured; the message says which and why."""


def strategy_of(prompt: Prompt, index: int, asking: Asking, seed: int) -> Strategy:
    """The strategy for completion `index` of a prompt.

    Raises AskingError where none of them is for the prompt's task.
    """
    fitting = [s for s in asking.strategies if s.tasks is None or prompt.group in s.tasks]
    if not fitting:
        tasks = sorted({task for s in asking.strategies for task in s.tasks or ()})
        raise AskingError(
            f"no strategy is for prompt {prompt.id!r} of task {prompt.group!r}: they are for {', '.join(tasks)}. "
            "Add one without `tasks`, or name the task."
        )
    first = int.from_bytes(hashlib.sha256(f"{seed}|strategy|{prompt.id}".encode()).digest()[:4], "little")
    return fitting[(first + index) % len(fitting)]


def asked(prompt: Prompt, strategy: Strategy) -> Prompt:
    """What the generator is shown: the same prompt in the strategy's words."""
    if prompt.text is not None:
        if strategy.system is not None:
            raise AskingError(
                f"strategy {strategy.name} has a system message and prompt {prompt.id!r} is plain text. Use "
                "`template`, or data.prompts.chat: true."
            )
        return replace(prompt, text=_fill(strategy.template, prompt.text))
    turns = list(prompt.messages or ())
    turns[-1] = replace(turns[-1], content=_fill(strategy.template, turns[-1].content))
    if strategy.system is not None:
        rest = turns[1:] if turns[0].role == "system" else turns
        turns = [Message("system", strategy.system), *rest]
    return replace(prompt, messages=tuple(turns))


def criticised(shown: Prompt, draft: Completion, critique: str) -> Prompt:
    """The second turn: what was asked, the answer to it, and the critique's words."""
    if shown.messages is None:
        raise AskingError(f"a critique is a turn of a conversation, and prompt {shown.id!r} is plain text")
    return replace(shown, messages=(*shown.messages, Message("assistant", draft.text), Message("user", critique)))


def as_asked(prompt: Prompt) -> Asked:
    """The prompt as a completion's history keeps it."""
    if prompt.text is not None:
        return (("text", prompt.text),)
    return tuple((message.role, message.content) for message in prompt.messages or ())


def from_asked(prompt: Prompt, shown: Asked) -> Prompt:
    """The prompt that a history names; what the teacher's judgement of the answer is conditioned on."""
    if shown[0][0] == "text":
        return replace(prompt, messages=None, text=shown[0][1])
    return replace(prompt, text=None, messages=_messages(shown))


def _messages(shown: Sequence[tuple[str, str]]) -> tuple[Message, ...]:
    return tuple(Message(role, content) for role, content in shown)  # type: ignore[arg-type]


def _fill(template: str | None, text: str) -> str:
    return text if template is None else template.replace(PLACE, text)
