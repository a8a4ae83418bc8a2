"""A run killed at any instant ends with the very bytes of an unbroken one (fp32, same threads)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from potstill.config import Run
from potstill.run_dir import RunDir
from potstill.training import checkpoint
from potstill.training.distil import distil
from potstill.training.parallel import World
from potstill.training.show import Show

Make = Callable[..., Run]
QUIET = Show(quiet=True)


def write(config: Run, path: Path) -> Path:
    path.write_text(yaml.safe_dump(config.dump()))
    return path


def start(config_file: Path) -> subprocess.Popen[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    return subprocess.Popen(
        [sys.executable, "-m", "potstill.cli.main", "run", str(config_file)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment,
    )  # fmt: skip


def wait_for_lines(path: Path, count: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if path.exists() and path.read_bytes().count(b"\n") >= count:
            return
        if process.poll() is not None:
            raise AssertionError(f"ended early: {process.communicate()[0]}")
        time.sleep(0.002)
    raise AssertionError(f"{path} never reached {count} lines")


def contents(run: RunDir) -> dict[str, bytes]:
    """All that must be equal: metrics, samples, evaluations, completions, final weights, verdict."""
    names = ["metrics.jsonl", "samples.jsonl", "verdict.json", "student/model.safetensors"]
    found = {name: run.file(name).read_bytes() for name in names}
    found |= {str(p.relative_to(run.path)): p.read_bytes() for p in sorted(run.file("evaluations").iterdir())}
    for path in sorted(run.file("completions").glob("*.jsonl")):  # in the order in which they came, which may differ
        found[path.name] = b"\n".join(sorted(path.read_bytes().splitlines()))
    last = run.checkpoint_path(run.checkpoint_steps()[-1])
    found |= {p.name: payload(p) for p in sorted(last.glob("*.safetensors"))}
    return found


def payload(path: Path) -> bytes:
    """The tensors of a safetensors file: the order of keys in its header's metadata is not fixed."""
    data = path.read_bytes()
    return data[8 + int.from_bytes(data[:8], "little") :]


WANING = {"kind": "cosine", "start": 0.9, "end": 0.1}
RISING = {"kind": "wsd", "peak": 0.8, "rise_share": 0.5}
EVERYWHERE = ["teacher", "reference"]
SCHEDULED = {
    "objective__terms": [
        {"kind": "skew_forward_kl", "weight": WANING, "on": EVERYWHERE, "token_weighting": {"kind": "teacher_entropy"}},
        {"kind": "reverse_kl", "weight": RISING, "on": EVERYWHERE, "divergence_temperature": 2.0},
    ],
    "training__optimiser": {"learning_rate": 1e-3, "schedule": {"kind": "wsd", "decay_share": 0.5}},
}
CASES = {
    "llama": {},
    "t5": {"data__prompts__chat": False},
    "llama, LoRA": {"training__adapter": {"kind": "lora", "rank": 2}},
    "llama, DoRA": {"training__adapter": {"kind": "dora", "rank": 2}, "training__gradient_checkpointing": True},
    "llama, schedules": SCHEDULED,
    "llama, frozen": {"training__freeze": ["embeddings", "head"]},
    "t5, LoRA and schedules": {"data__prompts__chat": False, "training__adapter": {"kind": "lora"}, **SCHEDULED},
}


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    """Filled by the first test that needs each family, so that a case costs one run."""
    return {}


@pytest.mark.parametrize(
    ("case", "file", "lines"),
    [
        ("llama", "metrics.jsonl", 3),  # between checkpoints
        ("llama", "completions/train-teacher.jsonl", 8),  # while sampling
        ("llama", "metrics.jsonl", 6),  # at the last step's evaluation and checkpoint
        ("t5", "metrics.jsonl", 5),
        ("llama, LoRA", "metrics.jsonl", 3),
        pytest.param("llama, DoRA", "metrics.jsonl", 5, marks=pytest.mark.slow),
        ("llama, schedules", "metrics.jsonl", 3),
        pytest.param("llama, frozen", "metrics.jsonl", 5, marks=pytest.mark.slow),
        pytest.param("t5, LoRA and schedules", "metrics.jsonl", 3, marks=pytest.mark.slow),
    ],
)
def test_sigkill_and_again_ends_with_the_same_bytes(
    make_run: Make, t5_folder: Path, tmp_path: Path, unbroken: dict[str, dict[str, bytes]], case: str, file: str,
    lines: int,
) -> None:  # fmt: skip
    def config(name: str) -> Run:
        teacher = t5_folder if case.startswith("t5") else None
        return make_run(teacher=teacher, output=name, **CASES[case])

    if case not in unbroken:
        whole = config("whole")
        unbroken[case] = contents(distil(whole, QUIET))
    killed = config("killed")
    process = start(write(killed, tmp_path / "killed.yaml"))
    wait_for_lines(Path(killed.output) / file, lines, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (Path(killed.output) / "verdict.json").exists()
    assert contents(distil(killed, QUIET)) == unbroken[case]


def test_sigterm_leaves_a_checkpoint_and_says_how_to_go_on(make_run: Make, tmp_path: Path) -> None:
    config = make_run(training__steps=4000, checkpoints__every_steps=4000, monitor__every_steps=4000)
    process = start(write(config, tmp_path / "long.yaml"))
    wait_for_lines(Path(config.output) / "metrics.jsonl", 3, process)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert "run the same command again" in output
    run = RunDir(config.output)
    (step,) = run.checkpoint_steps()
    assert step == len(list(run.lines("metrics.jsonl")))


class Unfinished(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)


def stepped(model: Unfinished) -> torch.optim.Optimizer:
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.1)
    model.layer(torch.ones(1, 4)).sum().backward()
    optimiser.step()
    return optimiser


WORLD = World(0, 1, torch.device("cpu"))


def test_a_full_disk_leaves_the_previous_checkpoint_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, model = RunDir(tmp_path), Unfinished()
    optimiser = stepped(model)
    facts = {"optimiser_steps": 1, "lengths": {}}
    checkpoint.save(run, 1, model, optimiser, facts, WORLD)
    before = model.layer.weight.detach().clone()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "_write_tensors", full)
    with pytest.raises(checkpoint.CheckpointError, match=r"disk is full.*checkpoint of step 1 is good"):
        checkpoint.save(run, 2, model, optimiser, facts, WORLD)
    assert run.checkpoint_steps() == [1]
    assert not list(tmp_path.glob("**/.unfinished-*"))
    other = Unfinished()
    checkpoint.load(run, 1, other, torch.optim.AdamW(other.parameters()))
    assert torch.equal(other.layer.weight, before)


def test_a_real_full_disk_is_reported(tmp_path: Path) -> None:
    """Not simulated: the file size limit of a child process makes the write itself fail."""
    script = f"""
import resource, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from test_resume import *
from pathlib import Path
run, model = RunDir(Path({str(tmp_path)!r})), nn.Linear(400, 400)
optimiser = torch.optim.AdamW(model.parameters(), lr=0.1)
model(torch.ones(1, 400)).sum().backward(); optimiser.step()
facts = {{"optimiser_steps": 1, "lengths": {{}}}}
checkpoint.save(run, 1, model, optimiser, facts, WORLD)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    checkpoint.save(run, 2, model, optimiser, facts, WORLD)
except checkpoint.CheckpointError as error:
    print("refused:", error)
assert run.checkpoint_steps() == [1], run.checkpoint_steps()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "refused: the checkpoint of step 2 could not be written" in done.stdout
    assert "checkpoint of step 1 is good" in done.stdout


def test_a_damaged_checkpoint_is_refused_with_the_file_named(tmp_path: Path) -> None:
    run, model = RunDir(tmp_path), Unfinished()
    optimiser = stepped(model)
    checkpoint.save(run, 1, model, optimiser, {"optimiser_steps": 1, "lengths": {}}, WORLD)
    (file,) = run.checkpoint_path(1).glob("*.safetensors")
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(checkpoint.CheckpointError, match=rf"{file.name} does not match its checksum"):
        checkpoint.load(run, 1, Unfinished(), None)


def test_only_the_last_and_the_best_checkpoints_stay(tmp_path: Path) -> None:
    run, model = RunDir(tmp_path), Unfinished()
    optimiser = stepped(model)
    for step in (1, 2, 3, 4, 5):
        checkpoint.save(run, step, model, optimiser, {"optimiser_steps": step, "lengths": {}}, WORLD)
    checkpoint.prune(run, keep_last=2, best=2)
    assert run.checkpoint_steps() == [2, 4, 5]


def test_tied_weights_are_stored_once_and_restored(make_run: Make) -> None:
    run = distil(make_run(training__steps=2), QUIET)
    state = checkpoint.read_state(run.checkpoint_path(2))
    assert state["optimiser_steps"] == 2
    from safetensors import safe_open

    (file,) = run.checkpoint_path(2).glob("*.safetensors")
    with safe_open(file, "pt") as tensors:
        names = set(tensors.keys())
    assert "model.model.embed_tokens.weight" in names and "model.lm_head.weight" not in names
