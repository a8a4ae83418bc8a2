"""Training on what an endpoint told of its own tokens."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import make_llama

from potstill.config import Run
from potstill.data.store import CompletionStore
from potstill.records import Completion
from potstill.training.distil import distil
from potstill.training.show import Show

QUIET = Show(quiet=True)
Make = Callable[..., Run]
KL = [{"kind": "forward_kl", "weight": 1.0, "on": ["any"]}]


def with_top(completion: Completion, prompt: tuple[int, ...], model: Any, entries: int) -> Completion:
    """The same completion as a server would send it that tells its likeliest tokens."""
    ids = torch.tensor([prompt + completion.token_ids])
    with torch.no_grad():
        law = torch.log_softmax(model(ids).logits[0].double(), -1)[len(prompt) - 1 : -1]
    top = law.topk(entries, -1)
    own = law.gather(1, torch.tensor(completion.token_ids)[:, None])[:, 0]
    return replace(
        completion, logprobs=tuple(own.tolist()), top_ids=tuple(map(tuple, top.indices.tolist())),
        top_logprobs=tuple(map(tuple, top.values.tolist())),
    )  # fmt: skip


@pytest.fixture
def store(make_run: Make, tokenizer: Any, vocabulary: int, tmp_path: Path) -> Path:
    """What a server of the tests' teacher would have told, nearly all of each distribution."""
    run = distil(make_run(output="asked", source={"kind": "offline"}, objective={"terms": KL}), QUIET)
    found = CompletionStore(run.file("completions") / "train-teacher.jsonl").read()
    questions = {}
    for line in Path(make_run().data.prompts.path).read_text().splitlines():
        chat = [{"role": "user", "content": json.loads(line)["prompt"]}]
        text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        questions[json.loads(line)["id"]] = tuple(tokenizer(text, add_special_tokens=False).input_ids)
    model = make_llama(vocabulary)
    told = [with_top(c, questions[c.prompt_id], model, vocabulary - 2) for c in found]
    CompletionStore(tmp_path / "store" / "completions.jsonl").append(told)
    return tmp_path / "store"


def served(make_run: Make, store: Path, **changes: Any) -> Run:
    completions = {"kind": "store", "path": str(store), "monitor_sampling": {"max_new_tokens": 12}}
    settings = {"source": {"kind": "offline"}, "objective": {"terms": KL}, "data__completions": completions}
    return make_run(**{**settings, "training__teacher_targets": "served", **changes})


def test_with_nearly_all_entries_it_is_the_live_teachers_loss(make_run: Make, store: Path) -> None:
    live = [
        line["loss"]
        for line in distil(served(make_run, store, training__teacher_targets=None), QUIET).lines("metrics.jsonl")
    ]
    told = [line["loss"] for line in distil(served(make_run, store, output="told"), QUIET).lines("metrics.jsonl")]
    assert told == pytest.approx(live, rel=2e-3) and told != live


def test_what_was_not_told_is_refused(make_run: Make, store: Path) -> None:
    with pytest.raises(ValueError, match="16 of 48 rows came without log-probs"):
        distil(
            served(make_run, store, source={"kind": "offline", "fractions": {"teacher": 0.5, "reference": 0.5}}), QUIET
        )
    softened = [KL[0] | {"divergence_temperature": 2.0}]
    with pytest.raises(ValueError, match="wants temperature 2"):
        distil(served(make_run, store, output="soft", objective={"terms": softened}), QUIET)
