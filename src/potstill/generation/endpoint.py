"""A teacher behind an OpenAI-compatible API.

Answers cost money and servers fail, so three things hold whatever happens. Each
completion is handed over as soon as it is whole, and its slot sends nothing new
before the caller, who writes it down, came back. Every request is in the journal
before it is sent. And one request that fails for good loses no other: what is in
flight is finished and handed over first.

The event loop runs in a thread of its own, so that answers are read while the caller
is busy, and a notebook's own loop is not in the way.
"""

from __future__ import annotations

import asyncio
import copy
import hashlib
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from potstill.config.data import Sampling
from potstill.config.endpoint import Endpoint
from potstill.generation import wire
from potstill.generation.base import Request
from potstill.generation.in_flight import InFlight
from potstill.generation.served_tokens import TokenMap, tokenise
from potstill.generation.servers import EndpointError, Servers, hosts
from potstill.generation.spending import Journal, Spending
from potstill.records import Completion, History


class RefusedPromptsError(EndpointError):
    """Some prompts got no answer from a server that answered; `prompts` maps (prompt id, index) to its reason."""

    def __init__(self, message: str, prompts: dict[tuple[str, int], str]):
        super().__init__(message)
        self.prompts = prompts


class EndpointGenerator:
    """Asks a served model for completions; a `Generator`.

    `tokenizer` is that of the student, or better the teacher's own where it is at hand: its ids are what the
    completions hold. `journal` is a file of JSON lines that survives this process, and with it the budget.
    """

    def __init__(
        self, config: Endpoint, tokenizer: Any, sampling: Sampling, seed: int, stream: str, journal: Path | None = None
    ):
        self.config = config
        self.tokenizer = copy.deepcopy(tokenizer)  # the loop's thread uses it; one tokenizer may not serve two threads
        self.sampling = sampling
        self.seed = seed
        self.stream = stream
        self.journal = Journal(journal)
        self.refused: dict[tuple[str, int], str] = {}
        self.known = TokenMap(self.tokenizer)
        self.probed = False

    @property
    def fingerprint(self) -> str:
        """16 hex digits of the hosts and the model's name: no provider says more before it is paid."""
        named = ",".join(hosts(self.config.base_urls)) + "|" + self.config.model
        return hashlib.sha256(named.encode()).hexdigest()[:16]

    @property
    def spending(self) -> Spending:
        """What was sent and answered so far, by earlier processes with this journal too."""
        return self.journal.spending

    def preflight(self) -> None:
        """Ask the servers for their models, which costs nothing.

        Raises EndpointError: no key in the environment, a key that is refused, a model that is not served.
        """

        async def probe() -> None:
            async with Servers(self.config) as servers:
                await servers.preflight()

        with ThreadPoolExecutor(1) as pool:  # a notebook has a loop of its own in this thread
            pool.submit(asyncio.run, probe()).result()
        self.probed = True

    def generate(self, requests: Sequence[Request]) -> Iterator[Completion]:
        """Each completion as soon as it is whole, in any order.

        Raises, once all that was in flight has been handed over: EndpointError (a refusal, or a request that
        failed too often), BudgetError (before the request that would exceed it), and at the very end
        RefusedPromptsError (answers that the server withheld, such as content_filter).
        """
        for request in requests:
            wire.body(self.config, self.sampling, request, 0)  # refuse what does not fit before anything is sent
        if not requests:
            return
        if not self.probed:
            self.preflight()
        work = InFlight(self, requests)
        thread = threading.Thread(target=work.run, name="endpoint", daemon=True)
        thread.start()
        try:
            while (item := work.out.get()) is not None:
                completion, came_back = item
                yield completion
                work.loop.call_soon_threadsafe(came_back.set)
        finally:
            work.loop.call_soon_threadsafe(work.task.cancel)
            thread.join()
            work.loop.close()
        self._report(work)

    def _report(self, work: InFlight) -> None:
        if work.stopped is not None:
            raise type(work.stopped)(
                f"{work.stopped}. All {work.handed_over} completions that came before are kept; running it again "
                f"asks for the others only. So far {self.spending.sentence(self.config)}."
            ) from work.stopped
        work.task.result()  # raises what nobody foresaw
        if self.refused:
            shown = ", ".join(f"{name!r} ({why})" for (name, _), why in list(self.refused.items())[:5])
            raise RefusedPromptsError(
                f"the server gave no answer to {len(self.refused)} of {len(work.requests)} requests, asked twice: "
                f"{shown}{', ...' if len(self.refused) > 5 else ''}. The other completions are kept. Leave these "
                "prompts out, or ask another model.",
                dict(self.refused),
            )

    def completion(self, request: Request, answer: wire.Answer) -> Completion | None:
        """From an answer to a completion; None where the server withheld it or it is empty."""
        if answer.finish is None:
            return None
        found = tokenise(answer, self.known)
        if not found.ids:
            return None
        sampling = self.sampling.model_dump() | {
            "seed": self.seed, "stream": self.stream, "model": self.config.model, "tokens": found.how,
        }  # fmt: skip
        if found.end_appended and found.logprobs is not None:
            sampling["end"] = "appended"  # its log-prob was not served
        if answer.system_fingerprint is not None:
            sampling["system_fingerprint"] = answer.system_fingerprint
        history = History(
            "teacher", self.fingerprint, None, sampling, depth=1, terms=self.config.terms,
            strategy=request.strategy, asked=request.asked,
        )  # fmt: skip
        return Completion(
            request.prompt_id, request.index, found.ids, answer.text, answer.finish, history,
            found.logprobs, found.top_ids, found.top_logprobs,
        )  # fmt: skip

    def prompt_tokens(self, request: Request) -> int:
        """Of the prompt, where the server does not count them, and before it did."""
        if request.prompt:
            return len(request.prompt)
        text = request.text or "\n".join(message.content for message in request.messages or ())
        return len(self.tokenizer(text).input_ids)
