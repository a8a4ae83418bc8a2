"""A teacher behind an API: faults, budgets, cancelling, and that nothing is lost or paid for twice unseen."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from faulty_server import FAULTS, FaultyServer, echo
from pydantic import ValidationError

from potstill.config.data import Sampling
from potstill.config.endpoint import Endpoint
from potstill.data.store import CompletionStore
from potstill.generation.base import Request, sample_all
from potstill.generation.endpoint import EndpointGenerator, RefusedPromptsError
from potstill.generation.servers import EndpointError, retry_after
from potstill.generation.spending import BudgetError
from potstill.records import Message

KEY = "sk-very-secret-0123456789"
REQUESTS = [
    Request(f"p{i:02d}", index, (), messages=(Message("user", f"tea {i}"),)) for i in range(10) for index in range(2)
]


@pytest.fixture
def make(tokenizer: Any, tmp_path: Path) -> Callable[..., EndpointGenerator]:
    """A generator that asks these servers; keyword arguments are settings of the endpoint."""

    def build(*servers: FaultyServer | str, journal: bool = True, **settings: Any) -> EndpointGenerator:
        urls = tuple(server if isinstance(server, str) else server.url for server in servers)
        quick = {"backoff_seconds": 0.01, "rest_seconds": 0.05, "timeout_seconds": 5.0}
        config = Endpoint(kind="endpoint", base_urls=urls, model="teacher", **{**quick, **settings})
        law = Sampling(sampling_temperature=0.8, max_new_tokens=12)
        return EndpointGenerator(config, tokenizer, law, 3, "train", tmp_path / "journal.jsonl" if journal else None)

    return build


def keys(completions: Any) -> list[tuple[str, int]]:
    return sorted((c.prompt_id, c.index) for c in completions)


ALL = sorted((r.prompt_id, r.index) for r in REQUESTS)
NAMES = {"torn_json": "invalid_answer"}  # what a fault is called by who suffers it


@pytest.mark.parametrize("kinds", [*((kind,) for kind in FAULTS), FAULTS], ids=lambda kinds: "+".join(kinds))
def test_every_fault_is_survived_and_each_completion_stored_once(
    kinds: tuple[str, ...], make: Any, tmp_path: Path
) -> None:
    faults = {kind: (0.3 if len(kinds) == 1 else 0.08) for kind in kinds}
    store = CompletionStore(tmp_path / "c.jsonl")
    with FaultyServer(faults=faults, seed=4) as server:
        generator = make(server, timeout_seconds=1.5 if "timeout" in kinds else 5.0)
        stored = sample_all(REQUESTS, generator, store, lambda *_: False)
    assert stored is not None and keys(stored) == ALL == keys(store.read(generator.fingerprint))
    assert set(server.answered.values()) == {1} and len(server.answered) == len(REQUESTS)
    spent = generator.spending
    assert sum(server.failed.values()) > 0
    assert spent.failed == {NAMES.get(kind, kind): count for kind, count in server.failed.items()}
    assert spent.sent == len(server.bodies) == spent.answered + sum(spent.failed.values())
    assert spent.answered == len(REQUESTS) and spent.repeated == sum(server.failed.values())
    assert (spent.prompt_tokens, spent.completion_tokens) == (10 * len(REQUESTS), 5 * len(REQUESTS))


def test_answers_do_not_depend_on_faults(make: Any) -> None:
    with FaultyServer() as calm, FaultyServer(faults={"server_error": 0.4}, seed=1) as stormy:
        first = {(c.prompt_id, c.index): c.text for c in make(calm, journal=False).generate(REQUESTS)}
        second = {(c.prompt_id, c.index): c.text for c in make(stormy, journal=False).generate(REQUESTS)}
    assert first == second and len(set(first.values())) > 10  # seeds differ between completions


def test_a_request_that_fails_for_good_loses_no_other(make: Any) -> None:
    def reply(body: dict[str, Any]) -> dict[str, Any]:
        time.sleep(0.05)
        bad = body["messages"][-1]["content"] == "tea 3"
        return {"status": 500, "error": {"message": "bad luck"}} if bad else echo(body)

    found = []
    with FaultyServer(reply) as server:
        generator = make(server, concurrency=4, max_retries=2)
        with pytest.raises(
            EndpointError, match=r"(?s)prompt 'p03', completion [01]: failed 3 times.*500: bad luck.*kept"
        ):
            found.extend(generator.generate(REQUESTS))  # extend keeps what came before the error
    assert len(found) == len(server.answered) >= 6
    assert generator.spending.answered == len(found)


@pytest.mark.parametrize(
    ("status", "error", "message"),
    [
        (400, {"message": "context length exceeded"}, "400: context length exceeded"),
        (429, {"message": "You exceeded your quota", "code": "insufficient_quota"}, "exceeded your quota"),
        (302, {"message": "moved"}, "302: moved"),
    ],
)
def test_refusals_are_fatal_at_once(status: int, error: dict[str, str], message: str, make: Any) -> None:
    with FaultyServer(lambda _: {"status": status, "error": error}) as server:
        with pytest.raises(EndpointError, match=message):
            list(make(server, concurrency=1).generate(REQUESTS))
        assert len(server.bodies) == 1


def test_a_wrong_key_or_model_is_refused_before_anything_is_asked(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEACHER_KEY", KEY)
    with FaultyServer(key="another", models=("teacher", "large")) as server:
        with pytest.raises(EndpointError, match=r"401: Incorrect API key provided: \*\*\* .*TEACHER_KEY"):
            list(make(server, api_key_env="TEACHER_KEY").generate(REQUESTS))
        server.key = KEY
        with pytest.raises(EndpointError, match=r"does not list the model 'small'; it lists large, teacher"):
            generator = make(server, api_key_env="TEACHER_KEY", journal=False)
            generator.config = generator.config.model_copy(update={"model": "small"})
            generator.preflight()
        assert server.bodies == []
        generator.config = generator.config.model_copy(update={"check_model": False, "concurrency": 1})
        with pytest.raises(EndpointError, match="404: The model `small` does not exist"):
            list(generator.generate(REQUESTS))
        assert len(server.bodies) == 1
    monkeypatch.delenv("TEACHER_KEY")
    with pytest.raises(EndpointError, match="TEACHER_KEY, which should hold the endpoint's key, is not set"):
        make("http://127.0.0.1:9/v1", api_key_env="TEACHER_KEY").preflight()


def test_a_server_without_a_list_of_models_is_taken_as_it_is(make: Any) -> None:
    with FaultyServer(models=None) as server:
        assert keys(make(server).generate(REQUESTS)) == ALL


def test_the_key_is_sent_and_written_nowhere(make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEACHER_KEY", KEY)
    store = CompletionStore(tmp_path / "c.jsonl")
    with FaultyServer(key=KEY, faults={"server_error": 0.2}) as server:
        generator = make(server, api_key_env="TEACHER_KEY")
        sample_all(REQUESTS, generator, store, lambda *_: False)
    written = store.path.read_text() + (tmp_path / "journal.jsonl").read_text()
    shown = (
        generator.config.model_dump_json() + repr(generator.config) + repr(vars(generator)) + str(generator.spending)
    )
    assert KEY not in written + shown
    with pytest.raises(ValidationError) as caught:
        make("http://h/v1", api_key_env=KEY)
    assert KEY not in str(caught.value)


def test_the_budget_in_requests_holds_across_processes(make: Any) -> None:
    found = []
    with FaultyServer() as server:
        first = make(server, max_requests=12, concurrency=3)
        with pytest.raises(BudgetError, match=r"max_requests is 12.*kept.*12 requests sent, 12 answered"):
            found.extend(first.generate(REQUESTS))
        assert len(found) == len(server.bodies) == 12
        again = make(server, max_requests=12)
        with pytest.raises(BudgetError, match="All 0 completions"):
            list(again.generate(REQUESTS[12:]))
        assert len(server.bodies) == 12
        last = make(server, max_requests=20)
        rest = [r for r in REQUESTS if (r.prompt_id, r.index) not in set(keys(found))]
        assert keys([*found, *last.generate(rest)]) == ALL
    assert last.spending.sent == 20


def test_the_budget_in_tokens_is_never_exceeded_and_well_used(make: Any) -> None:
    """15 tokens an answer by the server's count; before it a request may need its prompt's tokens and 12."""
    found = []
    with FaultyServer(latency=0.01) as server:
        generator = make(server, max_tokens=200, concurrency=4)
        most = generator.prompt_tokens(REQUESTS[0]) + 12
        with pytest.raises(BudgetError, match="max_tokens is 200 and the next request may need"):
            found.extend(generator.generate(REQUESTS))
    assert len(found) == (200 - most) // 15 + 1
    assert generator.spending.tokens == 15 * len(found) <= 200


def test_requests_of_unknown_end_count_against_the_budget(make: Any) -> None:
    with FaultyServer(faults={"disconnect": 1.0}) as server:
        generator = make(server, max_retries=3, concurrency=1)
        with pytest.raises(EndpointError, match="failed 4 times"):
            list(generator.generate(REQUESTS[:1]))
    most = generator.prompt_tokens(REQUESTS[0]) + 12
    assert generator.spending.uncertain_tokens == generator.spending.tokens == 4 * most


def test_cost_is_told(make: Any) -> None:
    with FaultyServer() as server:
        generator = make(server, price_per_million_prompt_tokens=3.0, price_per_million_completion_tokens=15.0)
        list(generator.generate(REQUESTS))
    assert generator.spending.cost(generator.config) == pytest.approx((200 * 3 + 100 * 15) / 1e6)
    assert "cost 0.0021" in generator.spending.sentence(generator.config)


def test_a_journal_tells_what_a_kill_left_open(make: Any) -> None:
    first = make("http://127.0.0.1:9/v1")
    first.journal.send("p00", 0, 30)
    with open(first.journal.path, "a") as handle:
        handle.write('{"event": "sent", "numb')  # torn by the kill
    with FaultyServer() as server:
        second = make(server)
        assert second.spending.failed == {"killed": 1} and second.spending.uncertain_tokens == 30
        list(second.generate(REQUESTS))
    spent = make("http://127.0.0.1:9/v1").spending
    assert (spent.sent, spent.answered, spent.repeated) == (21, 20, 1)
    assert spent.sent - len(REQUESTS) == 1 and spent.failed == {"killed": 1}


def test_no_more_requests_are_in_flight_than_asked_for(make: Any) -> None:
    with FaultyServer(latency=0.03) as server:
        list(make(server, concurrency=3).generate(REQUESTS))
    assert server.peak == 3


def test_a_slot_asks_for_another_only_once_the_caller_came_back(make: Any) -> None:
    with FaultyServer() as server:
        answers = make(server, concurrency=2).generate(REQUESTS)
        for taken in range(1, 6):
            next(answers)
            time.sleep(0.1)  # the caller is busy; the other slot has long finished
            assert len(server.bodies) <= taken + 1
        assert len(server.bodies) >= 4
        answers.close()


def test_a_caller_that_stops_cancels_what_is_in_flight(make: Any) -> None:
    def reply(body: dict[str, Any]) -> dict[str, Any]:
        if body["messages"][-1]["content"] != "tea 0":
            time.sleep(2.0)
        return echo(body)

    with FaultyServer(reply) as server:
        generator = make(server, concurrency=4)
        answers = generator.generate(REQUESTS)
        next(answers)
        start = time.monotonic()
        answers.close()
        assert time.monotonic() - start < 1.0
        time.sleep(0.2)
        assert len(server.bodies) <= 5  # of 20: the first, and what its answer and the other slots began
    assert not [thread for thread in threading.enumerate() if thread.name == "endpoint"]
    assert generator.journal.open == {} and generator.spending.failed["cancelled"] >= 2


def test_an_interrupt_from_the_keyboard_ends_it(make: Any) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    with FaultyServer(faults={"timeout": 1.0}) as server:
        generator = make(server, timeout_seconds=20.0)

        def press() -> None:
            while len(server.bodies) < 8:
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGINT)

        timer = threading.Thread(target=press)
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            list(generator.generate(REQUESTS))
        timer.join()
    signal.signal(signal.SIGINT, before)
    assert not [thread for thread in threading.enumerate() if thread.name == "endpoint"]
    assert generator.spending.failed == {"cancelled": 8}


def test_a_dead_server_is_avoided_and_the_load_shared(make: Any) -> None:
    with FaultyServer(latency=0.02) as one, FaultyServer(latency=0.02) as two:
        dead = "http://127.0.0.1:9/v1"
        generator = make(dead, one, two, concurrency=4, rest_seconds=30.0)
        assert keys(generator.generate(REQUESTS)) == ALL
    assert min(len(one.bodies), len(two.bodies)) >= 6
    assert 1 <= generator.spending.failed["disconnect"] <= 4  # the first round's, then it rests


def test_a_server_that_names_a_time_is_not_asked_before(make: Any) -> None:
    arrivals: list[float] = []

    class OnceClosed(FaultyServer):
        def draw(self, body: dict[str, Any]) -> str | None:
            arrivals.append(time.monotonic())
            return "rate_limit" if len(arrivals) == 1 else None

    with OnceClosed(retry_after="1") as server:
        list(make(server, concurrency=1).generate(REQUESTS[:2]))
    assert arrivals[1] - arrivals[0] >= 0.95
    with FaultyServer(faults={"rate_limit": 1.0}, retry_after="3600") as server:
        with pytest.raises(EndpointError, match="wait of 3600 s, longest_wait_seconds is 120"):
            list(make(server, concurrency=1).generate(REQUESTS))
        assert len(server.bodies) == 1


def test_the_fingerprint_is_of_hosts_and_model(make: Any) -> None:
    one, two = "http://a:8000/v1", "https://b/v1"
    assert make(one, two).fingerprint == make(two, one).fingerprint == make("http://a:9/v1", two).fingerprint
    assert make(one).fingerprint != make(two).fingerprint
    assert len(make(one).fingerprint) == 16


@pytest.mark.parametrize(("again", "reason"), [(True, "content_filter"), (False, "content_filter"), (True, "empty")])
def test_what_a_server_withholds_is_asked_for_twice_and_stops_nothing(again: bool, reason: str, make: Any) -> None:
    seen: list[int] = []

    def reply(body: dict[str, Any]) -> dict[str, Any]:
        choice = echo(body)
        if body["messages"][-1]["content"] == "tea 4":
            seen.append(body["seed"])
            if again or len(seen) == 1:
                choice["message"]["content"] = None
                choice["finish_reason"] = "length" if reason == "empty" else reason
        return choice

    found = []
    requests = [r for r in REQUESTS if r.index == 0]
    with FaultyServer(reply) as server:
        generator = make(server)
        if again:
            with pytest.raises(RefusedPromptsError, match=f"1 of 10 requests.*'p04' \\({reason}\\)") as caught:
                found.extend(generator.generate(requests))
            assert caught.value.prompts == {("p04", 0): reason}
        else:
            found.extend(generator.generate(requests))
    assert len(found) == (9 if again else 10)
    assert len(seen) == len(set(seen)) == 2  # another seed, or the same would come again
    assert generator.spending.answered == 11


def test_a_prompt_that_does_not_fit_the_api_is_refused_before_anything_is_sent(make: Any) -> None:
    plain = Request("plain", 0, (), text="tea")
    with FaultyServer() as server:
        with pytest.raises(ValueError, match=r"'plain' is plain text, and the endpoint's api is chat"):
            list(make(server).generate([*REQUESTS, plain]))
        with pytest.raises(ValueError, match="'p00' is a chat"):
            list(make(server, api="completions").generate(REQUESTS))
        (found,) = make(server, api="completions").generate([plain])
    assert found.text.startswith("people like tea with care") and server.bodies[0]["prompt"] == "tea"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"base_urls": ()}, "at least 1"),
        ({"base_urls": ("localhost:8000",)}, "must start with http"),
        ({"base_urls": ("http://me:pw@h/v1",)}, "no user, password or query"),
        ({"base_urls": ("http://h/v1", "http://h/v1/")}, "names a server twice"),
        ({"base_urls": ("http://h/v1/chat/completions",)}, "end before"),
        ({"extra_body": {"temperature": 0}}, "extra_body may not set temperature"),
        ({"extra_headers": {"authorization": "Bearer x"}}, "may not hold authorization"),
        ({"extra_headers": {"X-Team-Token": "x"}}, "may not hold X-Team-Token"),
        ({"api_key_header": "api-key"}, "no effect without api_key_env"),
        ({"price_per_million_prompt_tokens": 1.0}, "both prices or none"),
        ({"top_logprobs": 21}, "less than or equal to 20"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Endpoint(**{"kind": "endpoint", "base_urls": ("http://h/v1",), "model": "m", **settings})


def test_a_time_to_come_back_is_seconds_or_a_date() -> None:
    assert retry_after("7") == 7 and retry_after("0.5") == 0.5
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert (retry_after("Wed, 21 Oct 2099 07:28:00 GMT") or 0) > 1e8
    assert retry_after("soon") is None and retry_after(None) is None
