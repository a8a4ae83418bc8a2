"""From text to token ids: prompts through the chat template, answers with their end.

A sampled completion is never encoded (its ids are what was sampled). Text that
somebody wrote, a reference or an API's answer, gets the end-of-sequence token that
a model would have to produce after it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from potstill.records import Message, Prompt


class EncodeError(ValueError):
    """A prompt cannot be shown to the model; the message says which and why."""


@dataclass(frozen=True, slots=True)
class EncodedPrompt:
    """A prompt as the model reads it."""

    ids: tuple[int, ...]
    counted: tuple[bool, ...]  # earlier assistant turns, where they are trained on too


def encode_prompt(
    tokenizer: Any, prompt: Prompt, count_turns: Literal["last", "all"], template: dict[str, Any]
) -> EncodedPrompt:
    """Token ids of a prompt, up to where the answer begins."""
    if prompt.text is not None:
        ids = tuple(tokenizer(prompt.text).input_ids)
        return EncodedPrompt(ids, (False,) * len(ids))
    assert prompt.messages is not None
    text = _render(tokenizer, prompt, prompt.messages, True, template)
    spans = _assistant_spans(tokenizer, prompt, text, template) if count_turns == "all" else []
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=bool(spans))
    ids = tuple(encoded.input_ids)
    if not spans:
        return EncodedPrompt(ids, (False,) * len(ids))
    inside = [any(a <= start and end <= b for a, b in spans) for start, end in encoded.offset_mapping]
    return EncodedPrompt(ids, tuple(inside))


def encode_answer(tokenizer: Any, text: str) -> tuple[int, ...]:
    """Token ids of a written answer, its end-of-sequence token included."""
    return (*tokenizer(text, add_special_tokens=False).input_ids, tokenizer.eos_token_id)


def _render(
    tokenizer: Any, prompt: Prompt, messages: tuple[Message, ...], answer_next: bool, template: dict[str, Any]
) -> str:
    if tokenizer.chat_template is None:
        raise EncodeError(
            f"prompt {prompt.id!r} is a chat, and the tokenizer has no chat template. "
            "Set data.prompts.chat: false to show prompts as plain text."
        )
    turns = [{"role": message.role, "content": message.content} for message in messages]
    rendered: str = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=answer_next, **template)
    return rendered


def _assistant_spans(tokenizer: Any, prompt: Prompt, text: str, template: dict[str, Any]) -> list[tuple[int, int]]:
    """Where in the rendered text the earlier assistant turns stand, with their end token."""
    assert prompt.messages is not None
    spans = []
    for i, message in enumerate(prompt.messages):
        if message.role != "assistant":
            continue
        before = _render(tokenizer, prompt, prompt.messages[:i], True, template)
        after = _render(tokenizer, prompt, prompt.messages[: i + 1], False, template)
        if not (text.startswith(after) and after.startswith(before)):
            raise EncodeError(
                f"prompt {prompt.id!r}: the chat template renders earlier turns differently once later ones "
                "follow, so they cannot be trained on where they stand. Use count_turns: last."
            )
        end = after.find(tokenizer.eos_token, len(before))
        stop = len(after) if end < 0 else end + len(tokenizer.eos_token)
        spans.append((len(before), stop))
    return spans
