"""The command line as a user meets it: what it prints, what it refuses, what it leaves behind."""

from __future__ import annotations

import html
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_line import here
from conftest import ROOT, make_llama

from potstill.config import Run
from potstill.data.prompts import PromptError
from potstill.run_dir import RunDirError
from potstill.training.distil import distil
from potstill.training.show import Show

Make = Callable[..., Run]


def potstill(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, "-m", "potstill.cli.main", *map(str, arguments)],
        capture_output=True, text=True, env=environment, timeout=240,
    )  # fmt: skip


def write(config: Run, path: Path) -> Path:
    path.write_text(yaml.safe_dump(config.dump()))
    return path


def test_run_diagnose_report_and_chat(make_run: Make, tmp_path: Path) -> None:
    config = make_run(training__steps=6, monitor__every_steps=1)
    path = write(config, tmp_path / "run.yaml")
    done = potstill("run", path)
    assert done.returncode == 0, done.stderr
    assert "verdict:" in done.stdout and f"potstill chat {config.output}" in done.stdout
    assert re.search(r"golden +\d+\.\d+ -> \d+\.\d+ nats/token +\(teacher", done.stdout)
    assert done.stderr == ""
    verdict = json.loads(here("diagnose", config.output, "--json").stdout)
    assert {"verdict", "confidence", "best_step", "evidence"} <= verdict.keys()
    assert verdict.pop("source")["kind"] == "run directory"
    assert verdict == json.loads((Path(config.output) / "verdict.json").read_text())
    page = here("report", config.output).stdout.strip()
    assert html.escape(verdict["sentence"].split(".")[0][:20], quote=False) in html.unescape(Path(page).read_text())
    answered = here("chat", config.output, "--prompt", "how do people make tea", "--max-new-tokens", "5")
    assert answered.returncode == 0 and answered.stdout
    exported = here("export", config.output, "--step", "4")
    assert exported.returncode == 0 and exported.stderr == ""
    assert (Path(exported.stdout.strip()) / "model.safetensors").is_file()
    refused = here("export", config.output, "--step", "5")
    assert refused.returncode == 1 and "keeps no checkpoint of step 5; there are: 4, 6" in refused.stderr


def test_check_foresees_and_writes_nothing(make_run: Make, tmp_path: Path) -> None:
    config = make_run()
    done = here("check", write(config, tmp_path / "run.yaml"))
    assert done.returncode == 0, done.stderr
    for word in ("teacher", "student", "vocabularies", "memory", "time", "monitor share"):
        assert word in done.stdout
    assert not Path(config.output).exists()


def test_check_warns_beyond_one_order_of_magnitude(make_run: Make, tmp_path: Path) -> None:
    tiny = {
        "kind": "scratch",
        "architecture": "llama",
        "hidden_size": 8,
        "num_layers": 1,
        "num_heads": 1,
        "ffn_size": 8,
    }
    done = here("check", write(make_run(student=tiny), tmp_path / "run.yaml"))
    assert done.returncode == 0, done.stderr
    assert "order of magnitude" in done.stdout


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.stpes=3", "unknown key. Did you mean steps"),
        ("data.prompts.path=nowhere.jsonl", "nowhere.jsonl"),
        ("teacher.path=/nowhere", "no model in '/nowhere'"),
        ("data.max_length=16", "too long"),
        ("objective.terms=[{kind: forward_kl, weight: 0, on: [teacher, reference]}]", "sum to zero"),
        ("training.device=cuda", "no GPU is visible"),
        ("training.parallel=fsdp", "no effect on one process"),
    ],
)
def test_bad_input_is_refused_before_training(
    make_run: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, override: str, message: str
) -> None:
    if "cuda" in override:
        monkeypatch.setattr("torch.cuda.is_available", lambda: False)  # where there is one, asking for it is no fault
    config = make_run()
    done = here("run", write(config, tmp_path / "run.yaml"), override)
    assert done.returncode == 1
    assert message in done.stderr and done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    assert not (Path(config.output) / "metrics.jsonl").exists()


def test_empty_prompts_are_refused(make_run: Make, tmp_path: Path) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    config = make_run()
    prompts = config.data.prompts.model_copy(update={"path": str(empty)})
    config = config.model_copy(update={"data": config.data.model_copy(update={"prompts": prompts})})
    with pytest.raises(PromptError, match=r"empty\.jsonl"):
        distil(config, Show(quiet=True))


def test_a_teacher_with_other_tokens_is_refused(make_run: Make, tmp_path: Path, tokenizer: Any) -> None:
    folder = tmp_path / "other"
    changed = json.loads(tokenizer.backend_tokenizer.to_str())
    vocabulary = changed["model"]["vocab"]
    names = sorted(vocabulary, key=vocabulary.get)[-2:]
    vocabulary[names[0]], vocabulary[names[1]] = vocabulary[names[1]], vocabulary[names[0]]
    make_llama(len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "tokenizer.json").write_text(json.dumps(changed))
    student = {"kind": "load", "model": {"kind": "folder", "path": str(folder)}}
    done = here("run", write(make_run(student=student), tmp_path / "run.yaml"))
    assert done.returncode == 1
    assert "2 ids differ (id 318" in done.stderr and "same" not in done.stdout


def test_a_directory_of_another_configuration_is_refused_and_left_alone(make_run: Make) -> None:
    run = distil(make_run(training__steps=2), Show(quiet=True))
    before = {p: p.read_bytes() for p in run.path.rglob("*") if p.is_file()}
    with pytest.raises(RunDirError, match=r"training\.steps: 2 there, 3 now"):
        distil(make_run(training__steps=3), Show(quiet=True))
    assert {p: p.read_bytes() for p in run.path.rglob("*") if p.is_file()} == before


def test_a_folder_that_is_no_run_is_refused(make_run: Make, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("years of work")
    with pytest.raises(RunDirError, match="no run directory"):
        distil(make_run(), Show(quiet=True))
    assert (tmp_path / "run" / "thesis.txt").read_text() == "years of work"


def test_held_out_prompts_without_references_are_refused(make_run: Make) -> None:
    config = make_run(source__fractions={"teacher": 1.0}, objective__terms=[
        {"kind": "forward_kl", "weight": 1.0, "on": ["teacher"]}])  # fmt: skip
    prompts = config.data.prompts.model_copy(update={"reference": None})
    config = config.model_copy(update={"data": config.data.model_copy(update={"prompts": prompts})})
    with pytest.raises(ValueError, match="judged by its teacher alone"):
        distil(config, Show(quiet=True))


def test_the_readmes_commands_are_real() -> None:
    readme = (ROOT / "README.md").read_text()
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"make ([a-z-]+)", readme)):
        assert re.search(rf"^{target}:", makefile, re.M), target
    verbs = set(re.findall(r"potstill (run|check|diagnose|report|chat|export) ", readme))
    assert verbs == {"run", "check", "diagnose", "report", "chat", "export"}
    for path in re.findall(r"(?:recipes|examples|src|docs)/[\w/.-]+\w", readme):
        assert (ROOT / path).exists(), path
