"""`potstill chat`: talk with a student, line by line."""

from __future__ import annotations

from pathlib import Path

import torch
from rich.console import Console

from potstill.config.data import Sampling
from potstill.config.model import FolderModel
from potstill.data.encode import encode_prompt
from potstill.generation.base import Request
from potstill.generation.local import LocalSampler
from potstill.models.load import Loaded, ModelError, load_model
from potstill.records import Message, Prompt
from potstill.training.quiet import quiet_libraries


def chat_verb(path: Path, prompt: str | None, sampling_temperature: float, max_new_tokens: int) -> None:
    """Answer one prompt, or read turns until an empty line or end of file."""
    folder = path / "student" if (path / "config.yaml").is_file() else path
    if not folder.is_dir():
        raise ModelError(f"no student in {path}: the run has not finished. Finish it with potstill run.")
    quiet_libraries()
    loaded = load_model(FolderModel(kind="folder", path=str(folder)), torch.float32)
    sampling = Sampling(sampling_temperature=sampling_temperature, max_new_tokens=max_new_tokens)
    if prompt is not None:
        print(answer(loaded, (Message("user", prompt),), sampling))
        return
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"[dim]{folder}; an empty line ends[/dim]")
    turns: tuple[Message, ...] = ()
    while said := _ask(console):
        turns += (Message("user", said),)
        reply = answer(loaded, turns, sampling)
        console.print(reply, markup=False)
        turns += (Message("assistant", reply),)


def answer(loaded: Loaded, turns: tuple[Message, ...], sampling: Sampling) -> str:
    """The model's reply to a conversation."""
    if loaded.tokenizer.chat_template is None:
        text = "\n".join(turn.content for turn in turns)
        asked = Prompt("chat", text=text)
    else:
        asked = Prompt("chat", messages=turns)
    ids = encode_prompt(loaded.tokenizer, asked, "last", {}).ids
    sampler = LocalSampler(
        loaded.model, loaded.tokenizer, loaded.fingerprint, None, "student", sampling, 0, f"chat{len(turns)}"
    )
    (reply,) = sampler.generate([Request("chat", 0, ids)])
    return reply.text


def _ask(console: Console) -> str:
    try:
        return console.input("[bold]you>[/bold] ").strip()
    except EOFError:
        return ""
