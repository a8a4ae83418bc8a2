"""`potstill corpus` and `potstill pretrain` as a user runs them, alone and on two processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_line import here
from conftest import ROOT
from pretraining_case import CORPUS, SHAPE

from potstill.config.load import ConfigError, load_corpus, load_pretraining
from potstill.lab.pretraining import terms_of

CLI = [sys.executable, "-m", "potstill.cli.main"]
RECIPES = ROOT / "recipes" / "pretraining"


def potstill(folder: Path, *arguments: str, ranks: int = 1) -> subprocess.CompletedProcess[str]:
    command = CLI
    if ranks > 1:
        launch = ["-m", "torch.distributed.run", "--nproc-per-node", str(ranks), "--master-port", "29631"]
        command = [sys.executable, *launch, *CLI[1:]]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "120"}
    return subprocess.run([*command, *arguments], cwd=folder, env=environment, capture_output=True, text=True)


def tree(output: str, weight: float = 0.0, **changes: Any) -> dict[str, Any]:
    run = {
        "shape": SHAPE, "seed": 1, "block_tokens": 16, "steps": 8, "batch_blocks": 4, "device": "cpu",
        "optimiser": {"learning_rate": 5e-3}, "objective": {"terms": terms_of(weight)},
    }  # fmt: skip
    return {"output": output, "corpus": "corpus", "run": run} | changes


def write(folder: Path, name: str, value: Any) -> str:
    (folder / name).write_text(yaml.safe_dump(value))
    return name


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a corpus and a plain model, both made by the command line."""
    folder = tmp_path_factory.mktemp("pretrain")
    made = here("corpus", write(folder, "corpus.yaml", CORPUS), folder=folder)
    assert made.returncode == 0, made.stderr
    assert "technical" in made.stdout and "300 tokens in the vocabulary" in made.stdout
    plain = potstill(folder, "pretrain", write(folder, "plain.yaml", tree("plain")))
    assert plain.returncode == 0, plain.stderr
    assert "held_out" in plain.stdout and "nats/token" in plain.stdout
    return folder


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_student_learns_from_the_model_that_the_first_command_left(place: Path) -> None:
    teacher = {"kind": "folder", "path": "plain/model"}
    done = here("pretrain", write(place, "distilled.yaml", tree("distilled", 0.5, teacher=teacher)), folder=place)
    assert done.returncode == 0, done.stderr
    line = json.loads((place / "distilled" / "metrics.jsonl").read_text().splitlines()[0])
    assert line["loss"] == pytest.approx(0.5 * line["term/cross_entropy"] + 0.5 * line["term/forward_kl"], rel=1e-6)
    again = here("pretrain", "distilled.yaml", folder=place)
    assert again.returncode == 0 and len(losses(place / "distilled")) == 8, "what is done is not done again"


def test_two_processes_train_as_one(place: Path) -> None:
    done = potstill(place, "pretrain", "plain.yaml", "output=two", ranks=2)
    assert done.returncode == 0, done.stderr
    assert losses(place / "two") == pytest.approx(losses(place / "plain"), rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"teacher": {"kind": "folder", "path": "nowhere"}}, "nowhere"),
        ({"corpus": "nowhere"}, "is no corpus"),
    ],
)
def test_what_is_not_there_is_told_without_a_traceback(place: Path, changes: dict[str, Any], message: str) -> None:
    weight = 0.5 if "teacher" in changes else 0.0
    done = here("pretrain", write(place, "wrong.yaml", tree("wrong", weight, **changes)), folder=place)
    assert done.returncode != 0
    assert message in done.stderr + done.stdout and "Traceback" not in done.stderr + done.stdout
    assert not (place / "wrong" / "metrics.jsonl").exists()


def test_a_teacher_with_other_tokens_is_refused(place: Path) -> None:
    other = CORPUS | {"train": [{"kind": "generated", "corpus": "prose", "chars": 20000}], "out_of_domain": {}}
    assert here("corpus", write(place, "other.yaml", other), "--output", "other", folder=place).returncode == 0
    assert here("pretrain", "plain.yaml", "output=stranger", "corpus=other", folder=place).returncode == 0
    teacher = {"kind": "folder", "path": "stranger/model"}
    done = here("pretrain", write(place, "wrong.yaml", tree("wrong", 0.5, teacher=teacher)), folder=place)
    assert done.returncode != 0 and "Traceback" not in done.stderr + done.stdout
    assert "token" in done.stderr + done.stdout


@pytest.mark.parametrize(("weight", "teacher"), [(0.5, None), (0.0, {"kind": "folder", "path": "plain/model"})])
def test_a_teacher_and_a_divergence_belong_together(tmp_path: Path, weight: float, teacher: Any) -> None:
    path = tmp_path / write(tmp_path, "half.yaml", tree("half", weight, teacher=teacher))
    with pytest.raises(ConfigError, match="belong together"):
        load_pretraining(path)


def test_recipes_parse_and_are_twins() -> None:
    plain, distilled = (load_pretraining(RECIPES / f"{name}.yaml") for name in ("plain", "distilled"))
    assert load_corpus(RECIPES / "corpus.yaml").tokenizer.kind == "bpe"
    assert distilled.teacher is not None and distilled.teacher.path == f"{plain.output}/model"  # type: ignore[union-attr]
    assert plain.run.steps == distilled.run.steps and plain.corpus == distilled.corpus
