"""Checkpoints: fp32 weights and optimiser state in safetensors, all else in checksummed JSON.

`torch.distributed.checkpoint` with its safetensors writer does the tensors, so that
a run saved by several processes resumes on another number of them. Nothing is
pickled: only tensors go through it, and step, data plan and file lengths are in
`state.json`, with the checksum of every file beside it. A checkpoint is built in a
scratch folder and renamed when whole, so a full disk or a kill leaves the previous
one as it was.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import shutil
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict_loader import load as load_tensors
from torch.distributed.checkpoint.state_dict_saver import save as save_tensors

from potstill.run_dir import RunDir, digest, write_atomic
from potstill.training.parallel import World, barrier, gather

FORMAT = 1
MOMENTS = ("exp_avg", "exp_avg_sq")


class CheckpointError(RuntimeError):
    """A checkpoint could not be written or read; the message says what is still good."""


def weights(model: nn.Module) -> dict[str, Tensor]:
    """The tensors that training changes, and buffers, by name.

    Tied ones once, since safetensors refuses shared storage. What is frozen is not
    among them: it is built again as it was, from where the student came from.
    """
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    tied = dict(model.named_parameters(remove_duplicate=False))
    buffers = {k: v for k, v in model.state_dict().items() if k not in tied}
    return {name: parameter.detach() for name, parameter in named.items()} | buffers


def save(
    run: RunDir,
    step: int,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    facts: dict[str, Any],
    world: World,
) -> None:
    """Write the checkpoint of `step`; every process must call it.

    Raises CheckpointError when the disk is full: earlier checkpoints are untouched.
    """
    tensors = {f"model.{k}": v for k, v in weights(model).items()} | _moments(model, optimiser)
    barrier(world)
    failure: OSError | None = None
    with run.building(run.checkpoint_path(step), lead=world.leads) as folder:
        barrier(world)
        try:
            _write_tensors(tensors, folder)
        except OSError as error:
            failure = error
        except CheckpointException as error:
            failure = _disk_error(error)
        _raise_together(failure, step, run, world)
        if world.leads:
            state = facts | {"format": FORMAT, "step": step, "files": _checksums(folder)}
            write_atomic(folder / "state.json", _sealed(state))
    barrier(world)


def load(run: RunDir, step: int, model: nn.Module, optimiser: torch.optim.Optimizer | None) -> dict[str, Any]:
    """Fill model (and optimiser) in place from the checkpoint of `step`; returns its facts.

    With an optimiser every process must call it; without one (to export) the caller is alone.

    Raises CheckpointError where a file does not match its checksum.
    """
    folder = run.checkpoint_path(step)
    state = read_state(folder)
    found = _checksums(folder)
    if found != state["files"]:
        bad = sorted(k for k in state["files"] if state["files"][k] != found.get(k))
        raise CheckpointError(
            f"{folder} is damaged: {', '.join(bad)} does not match its checksum. Remove this folder "
            "to resume from the checkpoint before it."
        )
    tensors = {f"model.{k}": v for k, v in weights(model).items()}
    if optimiser is not None:
        _prepare_moments(optimiser, int(state["optimiser_steps"]))
        tensors |= _moments(model, optimiser)
    reader = HuggingFaceStorageReader(str(folder))
    _quietly(load_tensors, tensors, storage_reader=reader, no_dist=optimiser is None)
    return state


def read_state(folder: Path) -> dict[str, Any]:
    """The facts of a checkpoint, their seal checked."""
    state: dict[str, Any] = json.loads((folder / "state.json").read_text())
    seal = state.pop("seal", None)
    if seal != digest(state):
        raise CheckpointError(
            f"{folder}/state.json does not match its seal. Remove this folder to resume from the one before it."
        )
    return state


def prune(run: RunDir, keep_last: int, best: int | None) -> None:
    """Remove all but the last `keep_last` checkpoints and the best."""
    steps = run.checkpoint_steps()
    for step in steps[:-keep_last]:
        if step != best:
            shutil.rmtree(run.checkpoint_path(step))


def _sealed(state: dict[str, Any]) -> bytes:
    return (json.dumps(state | {"seal": digest(state)}, indent=2, sort_keys=True) + "\n").encode()


def _moments(model: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"optimiser.{name}.{moment}": optimiser.state[parameter][moment]
        for name, parameter in model.named_parameters()
        for moment in MOMENTS
        if parameter in optimiser.state
    }


def _prepare_moments(optimiser: torch.optim.Optimizer, steps: int) -> None:
    """AdamW makes its state at the first step; a resumed one needs places to load into."""
    for group in optimiser.param_groups:
        for parameter in group["params"]:
            moments = {moment: torch.zeros_like(parameter) for moment in MOMENTS}
            optimiser.state[parameter] = {"step": torch.tensor(float(steps)), **moments}


def _write_tensors(tensors: dict[str, Tensor], folder: Path) -> None:
    writer = HuggingFaceStorageWriter(path=str(folder), save_distributed=True)
    _quietly(save_tensors, tensors, storage_writer=writer)


def _quietly(call: Any, *args: Any, **kwargs: Any) -> None:
    """DCP tells a lone process at every call that it is alone; that is no news."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.distributed.*")
        call(*args, **kwargs)


def _checksums(folder: Path) -> dict[str, str]:
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != "state.json" and not path.name.startswith("."):
            with open(path, "rb") as handle:
                found[str(path.relative_to(folder))] = hashlib.file_digest(handle, "sha256").hexdigest()
    return found


def _disk_error(error: BaseException) -> OSError:
    """The OSError inside DCP's own exception, which wraps those of all ranks."""
    for failure in getattr(error, "failures", {}).values():
        inner = failure[0] if isinstance(failure, tuple) else failure
        if isinstance(inner, OSError):
            return inner
    raise error


def _raise_together(failure: OSError | None, step: int, run: RunDir, world: World) -> None:
    """One process's full disk is everybody's error, or the others would wait for ever."""
    failures = [f for f in gather(None if failure is None else str(failure), world) if f is not None]
    if not failures:
        return
    kept = run.checkpoint_steps()
    good = f"the checkpoint of step {kept[-1]} is good" if kept else "there is no earlier checkpoint"
    full = failure is not None and failure.errno == errno.ENOSPC
    why = "the disk is full" if full else failures[0]
    logging.getLogger(__name__).error("checkpoint of step %d failed: %s", step, why)
    raise CheckpointError(
        f"the checkpoint of step {step} could not be written to {run.path}: {why}. {good.capitalize()}; "
        "make room and run the same command again to go on from there."
    ) from failure
