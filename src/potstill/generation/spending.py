"""What requests cost: counters, a budget, and a journal that a kill cannot take back.

A line is in the journal before its request is sent. So after any end, what was sent
minus what is stored says how many requests were repeated or lost, and a run that goes
on does so with what is left of its budget.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from potstill.config.endpoint import Endpoint
from potstill.run_dir import append_lines, read_lines

#: Ends of a request of which nobody knows whether the server did the work, and charges for it.
UNCERTAIN = frozenset({"timeout", "disconnect", "invalid_answer"})


class BudgetError(RuntimeError):
    """The next request would exceed the budget; the message says what was spent."""


@dataclass
class Spending:
    """What was sent and what came back, over all runs that share a journal."""

    sent: int = 0
    answered: int = 0
    ends: Counter[str] = field(default_factory=Counter)  # of answers: stop, length, content_filter ...
    failed: Counter[str] = field(default_factory=Counter)  # by kind; "killed" for those without an end
    repeated: int = 0  # requests sent for a completion that had been asked for before
    prompt_tokens: int = 0
    completion_tokens: int = 0
    uncertain_tokens: int = 0  # at most, of requests that may have been answered and charged unseen
    estimated: int = 0  # answers whose tokens were counted here, since the server did not

    @property
    def tokens(self) -> int:
        """As the budget counts them: prompt, completion and uncertain."""
        return self.prompt_tokens + self.completion_tokens + self.uncertain_tokens

    def cost(self, config: Endpoint) -> float | None:
        """In the currency of the configured prices; what is uncertain is left out. None without prices."""
        prompt, completion = config.price_per_million_prompt_tokens, config.price_per_million_completion_tokens
        if prompt is None or completion is None:
            return None
        return (self.prompt_tokens * prompt + self.completion_tokens * completion) / 1e6

    def sentence(self, config: Endpoint) -> str:
        """For people."""
        failed = ", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in sorted(self.failed.items()))
        cost = self.cost(config)
        return (
            f"{self.sent} requests sent, {self.answered} answered, {self.repeated} of them repeated"
            + (f", failed: {failed}" if failed else "")
            + f"; {self.prompt_tokens} prompt and {self.completion_tokens} completion tokens"
            + (f", at most {self.uncertain_tokens} more uncertain" if self.uncertain_tokens else "")
            + (f"; cost {cost:.4f}" if cost is not None else "")
        )


class Journal:
    """Counts requests, in memory and, with a path, in a file of JSON lines.

    A request is open from `send` to `answer` or `fail`; `reserved` is the most tokens that it can use. Lines that
    were open when a process died are counted as "killed" by the next one.
    """

    def __init__(self, path: Path | None):
        self.path = path
        self.spending = Spending()
        self.open: dict[int, int] = {}  # number of the request -> tokens reserved
        self._asked: set[tuple[str, int]] = set()
        for line in read_lines(path) if path is not None else ():
            self._note(line)
        for number in list(self.open):
            self._write({"event": "failed", "number": number, "kind": "killed"})

    @property
    def reserved(self) -> int:
        """Tokens that requests in flight may still use."""
        return sum(self.open.values())

    def send(self, prompt_id: str, index: int, reserved: int) -> int:
        """Note a request before it is sent; returns its number."""
        number = self.spending.sent + 1
        self._write({"event": "sent", "number": number, "prompt": prompt_id, "index": index, "reserved": reserved})
        return number

    def answer(self, number: int, end: str, tokens: tuple[int, int], estimated: bool) -> None:
        """Note how an answer ended and its (prompt, completion) tokens."""
        line = {"event": "answered", "number": number, "end": end, "tokens": list(tokens), "estimated": estimated}
        self._write(line)

    def fail(self, number: int, kind: str) -> None:
        """Note a request that brought no answer."""
        self._write({"event": "failed", "number": number, "kind": kind})

    def refused(self, config: Endpoint, reserved: int) -> str | None:
        """Why a request of at most `reserved` tokens is beyond the budget, or None."""
        spent = self.spending
        if config.max_requests is not None and spent.sent + 1 > config.max_requests:
            return f"max_requests is {config.max_requests}"
        needed = spent.tokens + self.reserved + reserved
        if config.max_tokens is not None and needed > config.max_tokens:
            return f"max_tokens is {config.max_tokens} and the next request may need {reserved}"
        return None

    def _write(self, line: dict[str, Any]) -> None:
        if self.path is not None:
            append_lines(self.path, [line])
        self._note(line)

    def _note(self, line: dict[str, Any]) -> None:
        spent, number = self.spending, int(line["number"])
        if line["event"] == "sent":
            key = (str(line["prompt"]), int(line["index"]))
            spent.sent += 1
            spent.repeated += key in self._asked
            self._asked.add(key)
            self.open[number] = int(line["reserved"])
            return
        reserved = self.open.pop(number)
        if line["event"] == "answered":
            prompt, completion = line["tokens"]
            spent.answered += 1
            spent.ends[line["end"]] += 1
            spent.prompt_tokens += prompt
            spent.completion_tokens += completion
            spent.estimated += bool(line["estimated"])
        else:
            spent.failed[line["kind"]] += 1
            spent.uncertain_tokens += reserved if line["kind"] in UNCERTAIN | {"killed", "cancelled"} else 0
