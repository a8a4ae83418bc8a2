"""A model behind an OpenAI-compatible API, as a teacher that is asked for completions.

The key is never here: the configuration names the environment variable that holds
it. So a configuration can be printed, stored in a run directory and shared.
"""

from __future__ import annotations

from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import ConfigDict, Field, model_validator

from potstill.config.base import Frozen

#: What a request's body is made of; `extra_body` may not say it a second time.
OWN_FIELDS = frozenset(
    {
        "model", "messages", "prompt", "max_tokens", "max_completion_tokens", "temperature", "top_p", "seed", "n",
        "stream", "logprobs", "top_logprobs", "return_token_ids", "return_tokens_as_token_ids",
    }
)  # fmt: skip
_SECRET = ("authorization", "key", "token", "secret", "cookie")  # in a header's name


class Endpoint(Frozen):
    """One model, served by one or several servers that speak OpenAI's API (vLLM, SGLang, llama.cpp,
    `transformers serve`, and most providers)."""

    model_config = ConfigDict(hide_input_in_errors=True)  # somebody may have put a key where it does not belong

    kind: Literal["endpoint"]
    base_urls: tuple[str, ...] = Field(min_length=1)
    """Where it is served, such as `http://localhost:8000/v1`; several for several servers of the same model.
    Each request goes to the least busy of them, and one that fails is left alone for a while."""
    model: str = Field(min_length=1)
    """Name of the model, as the server knows it."""
    api: Literal["chat", "completions"] = "chat"
    """`chat` sends messages to /chat/completions, `completions` plain text to /completions."""
    api_key_env: str | None = Field(default=None, pattern=r"^[A-Z_][A-Z0-9_]*$")
    """Name of the environment variable that holds the key, such as OPENAI_API_KEY; never the key itself."""
    api_key_header: str = Field(default="Authorization", min_length=1)
    """Header that carries the key. In Authorization it is sent as a bearer token, in any other as it stands."""
    extra_headers: dict[str, str] = Field(default={})
    """Further headers, as some vendors ask for. Keys do not belong here."""
    extra_body: dict[str, Any] = Field(default={})
    """Further fields of every request's body, such as `chat_template_kwargs` of vLLM."""
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """What the server calls the limit on an answer's length; OpenAI's newer models know only the second."""
    send_seed: bool = True
    """Send each completion's own seed. Turn it off for servers that refuse the field."""
    return_token_ids: bool = False
    """Ask for the sampled token ids themselves; vLLM returns them, most others refuse the field."""
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    """Ask for the log-probability of each sampled token and of this many likeliest tokens beside it; 0 for the
    sampled ones alone, nothing for none."""
    check_model: bool = True
    """Refuse a model that the server does not list under /models. Turn it off for servers that serve more than
    they list, such as Azure's deployments, or `transformers serve` of a folder."""
    concurrency: int = Field(default=8, ge=1)
    """Requests in flight at once, over all servers."""
    timeout_seconds: float = Field(default=300.0, gt=0)
    """Longest wait for one answer."""
    max_retries: int = Field(default=6, ge=0)
    """How often one request is repeated after a time-out, a broken connection, an overload or a torn answer."""
    backoff_seconds: float = Field(default=1.0, gt=0)
    """Wait before the first repetition; it doubles with each, and is spread by chance."""
    longest_wait_seconds: float = Field(default=120.0, gt=0)
    """No wait is longer. A server that asks for more (Retry-After) ends the run with that message."""
    rest_seconds: float = Field(default=10.0, ge=0)
    """How long a server that failed is avoided, where there are others."""
    max_requests: int | None = Field(default=None, ge=1)
    """Budget in requests, repeated and interrupted ones included."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Budget in tokens, of prompts and completions together."""
    price_per_million_prompt_tokens: float | None = Field(default=None, ge=0)
    """In any currency; with the other price, what was spent so far is shown."""
    price_per_million_completion_tokens: float | None = Field(default=None, ge=0)
    """In the same currency."""
    terms: str | None = None
    """Licence or provider's terms under which the answers may be used; noted in every completion's history."""

    @model_validator(mode="after")
    def _urls(self) -> Endpoint:
        for url in self.base_urls:
            parts = urlsplit(url)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise ValueError("base_urls must start with http:// or https:// and a host, as in http://host:8000/v1")
            if parts.username or parts.password or parts.query:
                raise ValueError("base_urls must hold no user, password or query: they are written down in the run")
            if parts.path.rstrip("/").endswith("/completions"):
                raise ValueError("base_urls end before /chat/completions or /completions; the rest is added")
        if len({url.rstrip("/") for url in self.base_urls}) < len(self.base_urls):
            raise ValueError("base_urls names a server twice")
        return self

    @model_validator(mode="after")
    def _extras(self) -> Endpoint:
        if taken := sorted(OWN_FIELDS & set(self.extra_body)):
            raise ValueError(f"extra_body may not set {', '.join(taken)}: settings of their own do")
        hidden = (*_SECRET, self.api_key_header.lower())
        if taken := sorted(name for name in self.extra_headers if any(word in name.lower() for word in hidden)):
            raise ValueError(f"extra_headers may not hold {', '.join(taken)}: name the key's variable in api_key_env")
        if self.api_key_env is None and self.api_key_header != "Authorization":
            raise ValueError("api_key_header has no effect without api_key_env")
        return self

    @model_validator(mode="after")
    def _both_prices(self) -> Endpoint:
        if (self.price_per_million_prompt_tokens is None) != (self.price_per_million_completion_tokens is None):
            raise ValueError("give both prices or none; with one of them the cost would be too low")
        return self
