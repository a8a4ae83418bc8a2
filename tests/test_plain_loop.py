"""The loop gives the losses of its flat twin, `examples/plain_loop.py`."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from conftest import ROOT

from potstill.config import Run
from potstill.data.prompts import read_prompts
from potstill.data.splits import split_prompts
from potstill.training.distil import distil
from potstill.training.show import Show


@pytest.fixture
def plain_loop() -> ModuleType:
    spec = importlib.util.spec_from_file_location("plain_loop", ROOT / "examples" / "plain_loop.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_the_loop_reproduces_its_plain_twin(
    make_run: Callable[..., Run], plain_loop: ModuleType, llama_folder: Path, tmp_path: Path, temperature: float
) -> None:
    term = {"kind": "forward_kl", "weight": 1.0, "on": ["teacher"], "divergence_temperature": temperature}
    completions = {"kind": "sample", "per_prompt": 1, "batch_rows": 8, "sampling": {"max_new_tokens": 12}}
    config = make_run(
        objective={"terms": [term]},
        source__fractions={"teacher": 1.0},
        data__completions=completions,
        monitor__sample_texts=0,
    )
    run = distil(config, Show(quiet=True))
    train, _, _ = split_prompts(
        read_prompts(config.data.prompts), config.data.held_out, config.data.near_duplicates, config.seed
    )
    kept = {prompt.id for prompt in train}
    lines = Path(config.data.prompts.path).read_text().splitlines(keepends=True)
    plain_prompts = tmp_path / "train.jsonl"
    plain_prompts.write_text("".join(line for line in lines if any(f'"{name}"' in line for name in kept)))
    expected = plain_loop.main([str(llama_folder), str(plain_prompts), "--divergence-temperature", str(temperature)])
    found = [line["loss"] for line in run.lines("metrics.jsonl")]
    assert found == pytest.approx(expected, rel=1e-5)
    assert found[-1] < found[0]


def test_the_plain_loop_stays_flat_and_short() -> None:
    text = (ROOT / "examples" / "plain_loop.py").read_text()
    assert len(text.splitlines()) <= 160
    assert "class " not in text
