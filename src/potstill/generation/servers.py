"""Sending one request to one of several servers, and what each way of failing means.

Some failures pass (an overload, a broken connection) and some do not (a wrong key).
A server that fails rests while there are others; one that names a time to come back
(Retry-After) is not asked before.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import httpx2

from potstill.config.endpoint import Endpoint

#: OpenAI's 429 that no wait mends.
_EMPTY_ACCOUNT = frozenset({"insufficient_quota", "billing_hard_limit_reached"})


class EndpointError(RuntimeError):
    """The endpoint cannot be used as configured; the message says what the server said and how to mend it."""


class PassingError(RuntimeError):
    """A request failed in a way that a repetition may mend."""

    def __init__(self, kind: str, message: str, retry_after: float | None = None):
        super().__init__(message)
        self.kind = kind  # rate_limit, server_error, timeout, disconnect, invalid_answer
        self.retry_after = retry_after  # seconds


@dataclass
class Server:
    """One base URL."""

    url: str
    busy: int = 0
    rests_until: float = 0.0  # avoided where there are others
    closed_until: float = 0.0  # not asked at all, as it wished

    @property
    def host(self) -> str:
        return str(urlsplit(self.url).hostname)


class Servers:
    """The servers of one model. Used within one event loop."""

    def __init__(self, config: Endpoint):
        self.config = config
        self.all = [Server(url.rstrip("/")) for url in config.base_urls]
        self.key = api_key(config)
        headers = dict(config.extra_headers)
        if self.key is not None:
            bearer = config.api_key_header.lower() == "authorization"
            headers[config.api_key_header] = f"Bearer {self.key}" if bearer else self.key
        limits = httpx2.Limits(max_connections=config.concurrency, max_keepalive_connections=config.concurrency)
        timeout = httpx2.Timeout(config.timeout_seconds, connect=min(config.timeout_seconds, 20.0))
        self.client = httpx2.AsyncClient(headers=headers, limits=limits, timeout=timeout)

    async def __aenter__(self) -> Servers:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.aclose()

    async def preflight(self) -> None:
        """Ask every server for its models. Raises EndpointError: a key that is refused, a model that is unknown."""
        for server in self.all:
            try:
                found = await self._send("GET", server, "/models", None)
            except (PassingError, _NotServedError):
                continue  # not served, or not now: the requests themselves will tell
            listed = found.get("data") if isinstance(found, dict) else None
            names = [str(entry.get("id")) for entry in listed or () if isinstance(entry, dict)]
            if self.config.check_model and names and self.config.model not in names:
                shown = ", ".join(sorted(names)[:10]) + (", ..." if len(names) > 10 else "")
                raise EndpointError(
                    f"{server.url} does not list the model {self.config.model!r}; it lists {shown}. "
                    "Correct `model`, or set check_model: false if it serves more than it lists."
                )

    async def post(self, server: Server, path: str, body: dict[str, Any]) -> Any:
        """The JSON that a server answers. Raises PassingError or EndpointError."""
        server.busy += 1
        try:
            payload = await self._send("POST", server, path, body)
        except PassingError as error:
            now = time.monotonic()
            if error.retry_after is not None:
                server.closed_until = max(server.closed_until, now + error.retry_after)
            server.rests_until = now + self.config.rest_seconds
            raise
        except _NotServedError as error:
            raise EndpointError(str(error)) from error
        finally:
            server.busy -= 1
        server.rests_until = 0.0
        return payload

    async def free(self) -> Server:
        """The least busy server that does not rest; waits while all are closed."""
        while True:
            now = time.monotonic()
            open_ones = [server for server in self.all if server.closed_until <= now]
            if open_ones:
                return min(open_ones, key=lambda s: (s.rests_until > now, s.busy, s.rests_until))
            await asyncio.sleep(min(server.closed_until for server in self.all) - now)

    async def _send(self, method: str, server: Server, path: str, body: dict[str, Any] | None) -> Any:
        where = f"{server.url}{path}"
        try:
            async with asyncio.timeout(self.config.timeout_seconds):
                response = await self.client.request(method, where, json=body)
        except (httpx2.TimeoutException, TimeoutError) as error:
            raise PassingError("timeout", f"{where} did not answer in {self.config.timeout_seconds:g} s") from error
        except httpx2.TransportError as error:
            raise PassingError("disconnect", f"no answer from {where}: {error!r}") from error
        except httpx2.DecodingError as error:
            raise PassingError("invalid_answer", f"{where} sent what cannot be unpacked: {error!r}") from error
        if response.status_code != 200:
            raise self._refusal(response, where)
        try:
            return response.json()
        except ValueError as error:
            raise PassingError("invalid_answer", f"{where} answered with torn or invalid JSON ({error})") from error

    def _refusal(self, response: httpx2.Response, where: str) -> Exception:
        status = response.status_code
        said, code = _message(response)
        if self.key:
            said = said.replace(self.key, "***")
        message = f"{where} answered {status}: {said}"
        if status == 429 and code not in _EMPTY_ACCOUNT:
            wait = retry_after(response.headers.get("retry-after"))
            if wait is not None and wait > self.config.longest_wait_seconds:
                return EndpointError(
                    f"{message} (it asks for a wait of {wait:.0f} s, longest_wait_seconds is "
                    f"{self.config.longest_wait_seconds:g}). Run it again later; what was answered is kept."
                )
            return PassingError("rate_limit", message, wait)
        if status == 408:
            return PassingError("timeout", message)
        if status >= 500 and status != 501:
            wait = retry_after(response.headers.get("retry-after"))
            longest = self.config.longest_wait_seconds
            return PassingError("server_error", message, None if wait is None else min(wait, longest))
        if status in (401, 403):
            variable = self.config.api_key_env
            hint = f"the key in {variable}" if variable else "no key was sent; name its variable in api_key_env"
            return EndpointError(f"{message} ({hint})")
        return _NotServedError(message) if status in (404, 405, 501) else EndpointError(message)


class _NotServedError(RuntimeError):
    """No such path, or no such model."""


def api_key(config: Endpoint) -> str | None:
    """The key, from the environment. Raises EndpointError where its variable is not set."""
    if config.api_key_env is None:
        return None
    key = os.environ.get(config.api_key_env, "").strip()
    if not key:
        raise EndpointError(
            f"the environment variable {config.api_key_env}, which should hold the endpoint's key, is not set. "
            f"Set it (export {config.api_key_env}=...) and run again."
        )
    return key


def hosts(urls: Sequence[str]) -> list[str]:
    """Host names without ports, each once, in alphabetical order."""
    return sorted({Server(url).host for url in urls})


def retry_after(value: str | None) -> float | None:
    """Seconds of a Retry-After header, which holds seconds or a date (RFC 9110, section 10.2.3)."""
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        when = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (when.replace(tzinfo=when.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def _message(response: httpx2.Response) -> tuple[str, str | None]:
    """What the server says about a refusal, and its code."""
    try:
        found = response.json()
    except ValueError:
        return response.text[:500] or response.reason_phrase, None
    error = found.get("error", found.get("detail", found)) if isinstance(found, dict) else found
    if isinstance(error, dict):
        code = error.get("code")
        return str(error.get("message", error))[:500], None if code is None else str(code)
    return str(error)[:500], None
