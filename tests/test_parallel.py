"""Two gloo processes under torchrun, DDP and FSDP2, equal one process over three steps."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from two_ranks import three_steps

from potstill.config import Run
from potstill.run_dir import RunDir
from potstill.training.distil import distil
from potstill.training.parallel import start_world
from potstill.training.show import Show

SCRIPT = Path(__file__).parent / "two_ranks.py"


def launch(arguments: list[str], processes: int) -> str:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, env=environment, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("family", "tie", "trained"),
    [
        ("llama", "tied", "whole"),
        pytest.param("llama", "untied", "whole", marks=pytest.mark.slow),
        pytest.param("t5", "tied", "whole", marks=pytest.mark.slow),
        ("t5", "untied", "whole"),
        ("llama", "tied", "adapted"),  # LoRA, with blocks computed again in the backward
        pytest.param("t5", "tied", "adapted", marks=pytest.mark.slow),
    ],
)
def test_two_processes_equal_one(family: str, tie: str, trained: str, tmp_path: Path) -> None:
    three_steps(start_world("cpu"), family, tie == "tied", "ddp", str(tmp_path / "one"), trained == "adapted")
    launch([str(SCRIPT), family, tie, str(tmp_path), trained], 2)
    found = {}
    for name in ("one", "ddp", "fsdp"):
        metrics = json.loads((tmp_path / f"{name}.json").read_text())
        found[name] = (metrics, load_file(tmp_path / f"{name}.safetensors"))
    metrics, expected = found.pop("one")
    for name, (others, tensors) in found.items():
        for ours, theirs in zip(metrics, others, strict=True):
            assert ours["counted_tokens"] == theirs["counted_tokens"]
            assert theirs["loss"] == pytest.approx(ours["loss"], rel=1e-5), name
            assert theirs["grad_norm"] == pytest.approx(ours["grad_norm"], rel=1e-4), name
        assert tensors.keys() == expected.keys()
        for key, value in expected.items():
            # AdamW's first steps divide by the gradient's own size: where it is near 0, rounding shows.
            torch.testing.assert_close(tensors[key], value, rtol=1e-3, atol=2e-4, msg=f"{name} {key}")


@pytest.mark.parametrize("parallel", [pytest.param("ddp", marks=pytest.mark.slow), "fsdp"])
def test_a_whole_run_works_on_two_processes_and_resumes_on_one(
    make_run: Callable[..., Run], tmp_path: Path, parallel: str
) -> None:
    config = make_run(training__parallel=parallel, training__steps=2)
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(config.dump()))
    launch(["-m", "potstill.cli.main", "run", str(path)], 2)
    run = RunDir(config.output)
    assert [record.step for record in run.evaluations()] == [0, 2]
    assert run.file("student/model.safetensors").is_file()
    alone = distil(make_run(training__steps=2, output="alone"), Show(quiet=True))
    for ours, theirs in zip(alone.evaluations(), run.evaluations(), strict=True):
        for name in ("proxy", "golden"):
            assert theirs.series[name].sums.tolist() == pytest.approx(ours.series[name].sums.tolist(), rel=1e-3)
    from potstill.models.load import load_model
    from potstill.training import checkpoint

    student = load_model(yaml_folder(run), torch.float32).model
    facts = checkpoint.load(run, 2, student, torch.optim.AdamW(student.parameters()))
    assert facts["world_size"] == 2  # saved by two processes, read by this one


@pytest.mark.parametrize("parallel", [pytest.param("ddp", marks=pytest.mark.slow), "fsdp"])
def test_two_processes_share_what_the_student_says(make_run: Callable[..., Run], tmp_path: Path, parallel: str) -> None:
    """Each samples its part (all of it under FSDP), and a replay reaches rows of the other."""
    shares = {"teacher": 0.5, "online_student": 0.25, "replay": 0.25}
    changes = {
        "source": {"kind": "mixture", "fractions": shares, "online": {"steps_at_once": 2}},
        "objective": {"terms": [{"kind": "forward_kl", "weight": 1.0, "on": ["any"]}]},
        "training__steps": 4,
        "monitor__sample_texts": 0,
    }
    found = {}
    for processes in (1, 2):
        kind = parallel if processes == 2 else "ddp"
        config = make_run(output=f"on-{processes}", training__parallel=kind, **changes)
        if processes == 1:
            distil(config, Show(quiet=True))
        else:
            path = tmp_path / "run.yaml"
            path.write_text(yaml.safe_dump(config.dump()))
            launch(["-m", "potstill.cli.main", "run", str(path)], processes)
        found[processes] = list(RunDir(config.output).lines("metrics.jsonl"))
    for alone, shared in zip(found[1], found[2], strict=True):
        for name in (key for key in alone if key.startswith(("rows/", "tokens/", "staleness/"))):
            assert shared[name] == alone[name], name
        assert shared["loss"] == pytest.approx(alone["loss"], rel=1e-3)


def yaml_folder(run: RunDir):  # type: ignore[no-untyped-def]
    from potstill.config.model import FolderModel

    return FolderModel(kind="folder", path=str(run.file("student")))
