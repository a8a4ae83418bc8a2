"""The embedded default: a real language model from a PyPI package, through its GGUF file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from potstill.config import load_run
from potstill.config.data import Sampling
from potstill.config.model import LayersStudent
from potstill.data.encode import encode_prompt
from potstill.generation.base import Request
from potstill.generation.local import LocalSampler
from potstill.models.load import load_model
from potstill.models.scored import ScoredModel
from potstill.models.student import from_layers
from potstill.records import Message, Prompt

RECIPE = Path(__file__).parent.parent / "recipes" / "quickstart.yaml"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_packaged_teacher_answers_can_be_cut_and_saved(tmp_path: Path) -> None:
    teacher = load_model(load_run(RECIPE).teacher, torch.float32)
    ScoredModel(teacher.model).verify_head()
    assert teacher.tokenizer.eos_token == "<|im_end|>"
    prompt = Prompt("p", messages=(Message("user", "What is the capital of France?"),))
    ids = encode_prompt(teacher.tokenizer, prompt, "last", {}).ids
    law = Sampling(sampling_temperature=0, max_new_tokens=24)
    sampler = LocalSampler(teacher.model, teacher.tokenizer, "t", None, "teacher", law, 0, "test")
    (answer,) = sampler.generate([Request("p", 0, ids)])
    assert "Paris" in answer.text
    student, layer_map = from_layers(teacher.model, LayersStudent(kind="layers", num_layers=20))
    assert len(layer_map["decoder"]) == 20 and layer_map["decoder"][-1] == 29
    student.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(again.model.layers[19].mlp.up_proj.weight, teacher.model.model.layers[29].mlp.up_proj.weight)
