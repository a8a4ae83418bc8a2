"""A real HTTP server on this machine that answers as OpenAI's API does, and fails on purpose.

What it answers depends on the request alone; whether it fails, on a seed, the request
and how often that came before, so that the order in which requests come changes nothing.
It counts all that it did.
"""

from __future__ import annotations

import json
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from select import select
from typing import Any

FAULTS = ("rate_limit", "server_error", "timeout", "torn_json", "disconnect")
Reply = Callable[[dict[str, Any]], dict[str, Any]]


def echo(body: dict[str, Any]) -> dict[str, Any]:
    """A choice whose text depends on the prompt and the seed."""
    asked = body["messages"][-1]["content"] if "messages" in body else body["prompt"]
    text = f"people like {asked} with care {body.get('seed', 0) % 97}"
    where = {"message": {"role": "assistant", "content": text}} if "messages" in body else {"text": text}
    return {"index": 0, "finish_reason": "stop", **where}


class FaultyServer:
    """A context manager; `url` is the base URL. `faults` maps a kind of fault to its rate."""

    def __init__(
        self, reply: Reply = echo, faults: dict[str, float] | None = None, seed: int = 0, latency: float = 0.0,
        retry_after: str = "0", key: str | None = None, models: tuple[str, ...] | None = ("teacher",),
    ):  # fmt: skip
        self.reply, self.faults, self.latency, self.retry_after = reply, faults or {}, latency, retry_after
        self.key, self.models = key, models
        self.seed = seed
        self.lock = threading.Lock()
        self.bodies: list[dict[str, Any]] = []  # of every request that came, in order
        self.answered: Counter[str] = Counter()  # full answers by prompt and seed
        self.failed: Counter[str] = Counter()
        self.inside = self.peak = 0
        self.closing = threading.Event()

    def __enter__(self) -> FaultyServer:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.models_page(self)

            def do_POST(self) -> None:
                outer.post(self)

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, *_: Any) -> None:
                pass  # a client that went away while it was being answered

        self.http = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()

    def models_page(self, handler: BaseHTTPRequestHandler) -> None:
        if not self.allowed(handler):
            return
        if self.models is None:
            return send(handler, 404, {"error": {"message": "no such page"}})
        send(handler, 200, {"object": "list", "data": [{"id": name} for name in self.models]})

    def allowed(self, handler: BaseHTTPRequestHandler) -> bool:
        found = handler.headers.get("Authorization", "")
        if self.key is not None and found != f"Bearer {self.key}":
            send(handler, 401, {"error": {"message": f"Incorrect API key provided: {found.removeprefix('Bearer ')}"}})
            return False
        return True

    def post(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        with self.lock:
            self.bodies.append(body)
            self.inside += 1
            self.peak = max(self.peak, self.inside)
            fault = self.draw(body)
        try:
            if not self.allowed(handler):
                return
            if fault is not None:
                with self.lock:
                    self.failed[fault] += 1
                return self.fail(handler, fault, body)
            time.sleep(self.latency)
            payload = self.payload(body)
            if "error" in payload:
                return send(handler, payload.pop("status"), payload)
            with self.lock:
                self.answered[json.dumps([body.get("messages", body.get("prompt")), body.get("seed")])] += 1
            send(handler, 200, payload)
        finally:
            with self.lock:
                self.inside -= 1

    def draw(self, body: dict[str, Any]) -> str | None:
        """Which fault this request meets."""
        number = random.Random(f"{self.seed}|{json.dumps(body)}|{self.bodies.count(body)}").random()
        for kind, rate in self.faults.items():
            if number < rate:
                return kind
            number -= rate
        return None

    def payload(self, body: dict[str, Any]) -> dict[str, Any]:
        if self.models is not None and body["model"] not in self.models:
            return {"status": 404, "error": {"message": f"The model `{body['model']}` does not exist"}}
        choice = self.reply(body)
        if "error" in choice:
            return choice
        usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
        return {"id": "x", "model": body["model"], "choices": [choice], "usage": usage, "system_fingerprint": "fp_1"}

    def fail(self, handler: BaseHTTPRequestHandler, fault: str, body: dict[str, Any]) -> None:
        if fault == "rate_limit":
            return send(handler, 429, {"error": {"message": "slow down"}}, {"Retry-After": self.retry_after})
        if fault == "server_error":
            return send(handler, 500, {"error": {"message": "out of memory"}})
        if fault == "torn_json":
            return send_bytes(handler, 200, json.dumps(self.payload(body)).encode()[:-40], {})
        if fault == "timeout":
            self.hang(handler.connection)
        handler.close_connection = True
        handler.connection.shutdown(socket.SHUT_RDWR)

    def hang(self, connection: socket.socket) -> None:
        """Until the client gives up."""
        while not self.closing.is_set():
            if select([connection], [], [], 0.05)[0] and not connection.recv(1, socket.MSG_PEEK):
                return


def send(handler: BaseHTTPRequestHandler, status: int, payload: Any, headers: dict[str, str] | None = None) -> None:
    send_bytes(handler, status, json.dumps(payload).encode(), headers or {})


def send_bytes(handler: BaseHTTPRequestHandler, status: int, content: bytes, headers: dict[str, str]) -> None:
    handler.send_response(status)
    for name, value in {"Content-Type": "application/json", "Content-Length": str(len(content)), **headers}.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(content)
