"""What goes over the wire: a request's body, and what an answer's JSON says.

Only here are the names of OpenAI's fields, and what its imitators changed about
them. Nothing here sends anything, so all of it can be tested with literal JSON.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from potstill.config.data import Sampling
from potstill.config.endpoint import Endpoint
from potstill.generation.base import Request

_FINISHES: dict[str, Literal["stop", "length"]] = {
    "stop": "stop", "eos": "stop", "eos_token": "stop", "stop_sequence": "stop", "end_turn": "stop",
    "length": "length", "max_tokens": "length",
}  # fmt: skip


class InvalidAnswerError(ValueError):
    """The server said 200 and sent something that is no completion."""


@dataclass(frozen=True, slots=True)
class ServedToken:
    """One token as a server describes it."""

    text: str
    logprob: float
    raw: bytes | None = None  # its bytes, where served: text cannot show a part of a character
    top: tuple[ServedToken, ...] = ()  # the likeliest at this position


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer; `finish` is None where the server ended it for a reason of its own (`why`)."""

    text: str
    content: str  # the text without what the server sent apart as reasoning
    finish: Literal["stop", "length"] | None
    why: str
    token_ids: tuple[int, ...] | None
    tokens: tuple[ServedToken, ...] | None
    usage: tuple[int, int] | None  # prompt and completion tokens
    system_fingerprint: str | None


def request_seed(seed: int, stream: str, request: Request, again: bool = False) -> int:
    """31 bits from what names a completion, so that a repeated request may draw the same."""
    key = f"{seed}|{stream}|{request.prompt_id}|{request.index}" + "|again" * again
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big") >> 1


def path(config: Endpoint) -> str:
    return "/chat/completions" if config.api == "chat" else "/completions"


def limit(sampling: Sampling, request: Request) -> int:
    """Longest answer in tokens."""
    return min(sampling.max_new_tokens, request.max_new_tokens or sampling.max_new_tokens)


def body(config: Endpoint, sampling: Sampling, request: Request, seed: int) -> dict[str, Any]:
    """The JSON of one request. Raises ValueError where the request does not fit `config.api`."""
    fields: dict[str, Any] = {"model": config.model, config.max_tokens_field: limit(sampling, request)}
    if config.api == "chat":
        if request.messages is None:
            raise ValueError(
                f"prompt {request.prompt_id!r} is plain text, and the endpoint's api is chat. Set api: completions, "
                "or data.prompts.chat: true, which shows plain text as a user's message."
            )
        fields["messages"] = [{"role": m.role, "content": m.content} for m in request.messages]
    else:
        if request.text is None:
            raise ValueError(
                f"prompt {request.prompt_id!r} is a chat, and the endpoint's api is completions. Set api: chat."
            )
        fields["prompt"] = request.text
    fields["temperature"] = sampling.sampling_temperature
    if sampling.sampling_temperature > 0:  # said even where it is 1: servers have defaults of their own
        fields["top_p"] = sampling.top_p
    if config.send_seed:
        fields["seed"] = seed
    if config.top_logprobs is not None and config.api == "chat":
        fields |= {"logprobs": True, "top_logprobs": config.top_logprobs}
    elif config.top_logprobs is not None:
        fields["logprobs"] = config.top_logprobs
    if config.return_token_ids:
        fields["return_token_ids"] = True
        if config.top_logprobs is not None:
            fields["return_tokens_as_token_ids"] = True
    return fields | dict(config.extra_body)


def parse(config: Endpoint, payload: Any) -> Answer:
    """What the server's JSON says. Raises InvalidAnswerError where it is no completion."""
    try:
        (choice,) = payload["choices"]
        reason = choice.get("finish_reason")
        if config.api == "chat":
            message = choice["message"]
            content = message.get("content") or ""
            reasoning = message.get("reasoning_content") or message.get("reasoning") or ""
        else:
            content, reasoning = choice["text"], ""
        tokens = _tokens(choice.get("logprobs"), config.api)
        ids = choice.get("token_ids")
        usage = payload.get("usage") or {}
        counts = [int(usage[name]) for name in ("prompt_tokens", "completion_tokens") if usage.get(name) is not None]
        if not isinstance(content, str) or not isinstance(reasoning, str):
            raise TypeError("its text is no text")
        return Answer(
            joined(reasoning, content, reason), content, _FINISHES.get(str(reason)), str(reason),
            None if ids is None else tuple(int(i) for i in ids), tokens,
            (counts[0], counts[1]) if len(counts) == 2 else None, payload.get("system_fingerprint"),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        said = payload.get("error") if isinstance(payload, dict) else None
        raise InvalidAnswerError(f"no completion in the answer ({error!r}){f': {said}' if said else ''}") from error


def joined(reasoning: str, content: str, reason: Any) -> str:
    """Reasoning that was sent apart stands before the answer, in <think> tags; cut reasoning stays open."""
    if not reasoning:
        return content
    if not content and _FINISHES.get(str(reason)) == "length":
        return f"<think>\n{reasoning}"
    return f"<think>\n{reasoning.strip()}\n</think>\n\n{content}"


def _tokens(logprobs: Mapping[str, Any] | None, api: str) -> tuple[ServedToken, ...] | None:
    if not logprobs:
        return None
    if api == "chat":
        listed = logprobs.get("content")
        return None if not listed else tuple(_served(entry) for entry in listed)
    names, values = logprobs.get("tokens") or [], logprobs.get("token_logprobs") or []
    tops: Sequence[Mapping[str, float] | None] = logprobs.get("top_logprobs") or [None] * len(names)
    return tuple(
        ServedToken(name, float(value), None, tuple(ServedToken(n, float(v)) for n, v in (top or {}).items()))
        for name, value, top in zip(names, values, tops, strict=True)
    ) or None  # fmt: skip


def _served(entry: Mapping[str, Any]) -> ServedToken:
    raw = entry.get("bytes")
    return ServedToken(
        str(entry["token"]),
        float(entry["logprob"]),
        None if raw is None else bytes(raw),
        tuple(_served(other) for other in entry.get("top_logprobs") or ()),
    )
