"""Requests in flight: a few slots, each of which asks, waits, asks again, and hands over.

A slot takes the next request only once the caller came back for more than its last
completion. Failures that pass are repeated with growing waits; one that does not
stops all slots from beginning anything, while what is in flight is finished.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Sequence
from queue import SimpleQueue
from typing import Protocol

from potstill.config.data import Sampling
from potstill.config.endpoint import Endpoint
from potstill.generation import wire
from potstill.generation.base import Request
from potstill.generation.servers import EndpointError, PassingError, Server, Servers
from potstill.generation.spending import BudgetError, Journal
from potstill.records import Completion


class Asker(Protocol):
    """On whose behalf requests are sent: the `EndpointGenerator`."""

    config: Endpoint
    sampling: Sampling
    seed: int
    stream: str
    journal: Journal
    refused: dict[tuple[str, int], str]

    def completion(self, request: Request, answer: wire.Answer) -> Completion | None:
        """None where the server withheld the answer or it is empty."""
        ...

    def prompt_tokens(self, request: Request) -> int:
        """Tokens of the prompt."""
        ...


class InFlight:
    """One call of `generate`, on the event loop's side; `out` is what the caller reads."""

    def __init__(self, asker: Asker, requests: Sequence[Request]):
        self.asker = asker
        self.config = asker.config
        self.journal = asker.journal
        self.requests = requests
        self.waiting = deque(requests)
        self.out: SimpleQueue[tuple[Completion, asyncio.Event] | None] = SimpleQueue()
        self.stopped: EndpointError | BudgetError | None = None
        self.handed_over = 0
        self.loop = asyncio.new_event_loop()
        self.task = self.loop.create_task(self._all())
        self.an_end = asyncio.Event()  # replaced whenever a request ended

    def run(self) -> None:
        """The thread's work; None in the queue says that there is no more."""
        try:
            self.loop.run_until_complete(asyncio.wait([self.task]))
        finally:
            self.out.put(None)

    async def _all(self) -> None:
        async with Servers(self.config) as self.servers, asyncio.TaskGroup() as group:
            for _ in range(min(self.config.concurrency, len(self.requests))):
                group.create_task(self._slot())

    async def _slot(self) -> None:
        while self.waiting and self.stopped is None:
            request = self.waiting.popleft()
            try:
                completion = await self._ask(request)
            except (EndpointError, BudgetError) as error:
                # The first error is told; those of the others in flight most often repeat it.
                name = f"prompt {request.prompt_id!r}, completion {request.index}: {error}"
                self.stopped = self.stopped or type(error)(name)
                return
            if completion is None:
                continue
            came_back = asyncio.Event()
            self.handed_over += 1
            self.out.put((completion, came_back))
            await came_back.wait()

    async def _ask(self, request: Request) -> Completion | None:
        """Until there is a completion; None where the server withheld one twice."""
        failures, withheld = 0, 0
        while True:
            try:
                answer, completion = await self._send(request, again=withheld > 0)
            except PassingError as error:
                failures += 1
                if failures > self.config.max_retries:
                    raise EndpointError(f"failed {failures} times, the last time so: {error}") from error
                await asyncio.sleep(_wait(self.config, failures, error))
                continue
            if completion is not None:
                return completion
            withheld += 1
            if withheld == 2:
                key = (request.prompt_id, request.index)
                self.asker.refused[key] = "empty" if answer.finish else answer.why
                return None

    async def _send(self, request: Request, again: bool) -> tuple[wire.Answer, Completion | None]:
        asker, config = self.asker, self.config
        body = wire.body(config, asker.sampling, request, wire.request_seed(asker.seed, asker.stream, request, again))
        prompt_tokens = asker.prompt_tokens(request)
        reserved = prompt_tokens + wire.limit(asker.sampling, request)
        server = await self._admitted(reserved)
        number, end = self.journal.send(request.prompt_id, request.index, reserved), "cancelled"
        try:
            answer = wire.parse(config, await self.servers.post(server, wire.path(config), body))
            completion = asker.completion(request, answer)
            used = answer.usage or (prompt_tokens, len(completion.token_ids) if completion else 0)
            end = ""
            self.journal.answer(number, answer.why, used, answer.usage is None)
            return answer, completion
        except PassingError as error:
            end = error.kind
            raise
        except wire.InvalidAnswerError as error:
            end = "invalid_answer"
            raise PassingError(end, str(error)) from error
        except EndpointError:
            end = "refused"
            raise
        finally:
            if end:
                self.journal.fail(number, end)
            self.an_end.set()
            self.an_end = asyncio.Event()

    async def _admitted(self, reserved: int) -> Server:
        """A server, once the budget has room: what is in flight may use less than it could."""
        while True:
            server = await self.servers.free()
            why = self.journal.refused(self.config, reserved)
            if why is None:
                return server
            if not self.journal.open:
                raise BudgetError(f"the budget ends here: {why}")
            await self.an_end.wait()


def _wait(config: Endpoint, failures: int, error: PassingError) -> float:
    """Seconds before the next try: doubled each time, spread by chance so that slots do not come in step."""
    if error.retry_after is not None:  # the server itself is closed until then; others may be free
        return random.uniform(0, min(config.backoff_seconds, 1.0))
    longest = min(config.backoff_seconds * 2 ** (failures - 1), config.longest_wait_seconds)
    return random.uniform(longest / 2, longest)
