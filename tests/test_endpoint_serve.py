"""The endpoint against a real server: `transformers serve`, started and stopped by the test."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest
import torch

from potstill.config import load_run
from potstill.config.data import Sampling
from potstill.config.endpoint import Endpoint
from potstill.data.store import CompletionStore
from potstill.generation.base import Request, sample_all
from potstill.generation.endpoint import EndpointGenerator
from potstill.generation.servers import EndpointError
from potstill.models.load import load_model
from potstill.records import Message

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("fastapi") is None, reason="needs pip install 'transformers[serving]'"),
]
#: Without it the server takes `do_sample` and `top_k` from the model's own generation_config.json.
WHOLE_LAW = {"generation_config": '{"do_sample": true, "top_k": 0}'}
RECIPE = Path(__file__).parent.parent / "recipes" / "quickstart.yaml"


@contextmanager
def serving(folder: Path, log: Path) -> Iterator[str]:
    """The base URL of a server of this model."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        str(Path(sys.executable).parent / "transformers"), "serve", str(folder), "--device", "cpu",
        "--host", "127.0.0.1", "--port", str(port),
    ]  # fmt: skip
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    with open(log, "wb") as out, subprocess.Popen(command, stdout=out, stderr=out, env=environment) as server:
        try:
            _until_up(f"http://127.0.0.1:{port}/health", server, log)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            server.terminate()
            try:
                server.wait(10)
            except subprocess.TimeoutExpired:
                server.kill()


def _until_up(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 180
    while time.monotonic() < end:
        assert server.poll() is None, log.read_text()
        try:
            with urlopen(url, timeout=2):
                return
        except (URLError, OSError):
            time.sleep(0.3)
    raise AssertionError(f"the server did not come up: {log.read_text()}")


def generator(url: str, folder: Path, tokenizer: Any, tokens: int = 8, **settings: Any) -> EndpointGenerator:
    config = Endpoint(
        kind="endpoint", base_urls=(url,), model=str(folder), check_model=False,
        **{"extra_body": WHOLE_LAW, "concurrency": 2, **settings},
    )  # fmt: skip
    law = Sampling(sampling_temperature=0 if "extra_body" in settings else 1.0, max_new_tokens=tokens)
    return EndpointGenerator(config, tokenizer, law, 3, "train")


def test_a_served_model_answers_chats_and_texts(llama_folder: Path, tokenizer: Any, tmp_path: Path) -> None:
    chats = [Request(f"p{i}", g, (), messages=(Message("user", f"tea {i}"),)) for i in range(6) for g in range(2)]
    texts = [Request("t", g, (), text="how do people") for g in range(2)]
    with serving(llama_folder, tmp_path / "log") as url:
        teacher = generator(url, llama_folder, tokenizer)
        stored = sample_all(chats, teacher, CompletionStore(tmp_path / "c.jsonl"), lambda *_: False)
        assert stored is not None and len(stored) == 12 and len({c.text for c in stored}) > 6
        assert teacher.spending.answered == 12 and teacher.spending.completion_tokens <= 12 * 8
        assert {c.finish for c in stored} <= {"stop", "length"}
        assert {c.history.sampling["tokens"] for c in stored} == {"retokenised"}
        again = {
            (c.prompt_id, c.index): c.text
            for c in generator(url, llama_folder, tokenizer, concurrency=1).generate(chats)
        }
        assert again == {
            (c.prompt_id, c.index): c.text
            for c in generator(url, llama_folder, tokenizer, concurrency=1).generate(chats)
        }
        plain = list(generator(url, llama_folder, tokenizer, api="completions").generate(texts))
        assert len(plain) == 2
        with pytest.raises(EndpointError, match=r"422.*return_token_ids"):
            list(generator(url, llama_folder, tokenizer, return_token_ids=True).generate(chats))
        with pytest.raises(EndpointError, match="400: Server is pinned to"):
            list(generator(url, tmp_path / "other", tokenizer).generate(chats))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_packaged_teacher_answers_from_behind_a_server(tmp_path: Path) -> None:
    teacher = load_model(load_run(RECIPE).teacher, torch.float32)
    folder = tmp_path / "smollm2"
    teacher.model.save_pretrained(folder)
    teacher.tokenizer.save_pretrained(folder)
    tokenizer = teacher.tokenizer
    del teacher
    ask = Request("p", 0, (), messages=(Message("user", "What is the capital of France?"),))
    with serving(folder, tmp_path / "log") as url:
        (answer,) = generator(url, folder, tokenizer, tokens=24, extra_body={}).generate([ask])
    assert "Paris" in answer.text and answer.finish == "stop"
    assert answer.token_ids[-1] == tokenizer.eos_token_id
