"""LoRA, DoRA, frozen parts, recomputed and compiled blocks, teachers in fewer bytes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import make_llama, make_t5
from peft import PeftModel
from safetensors import safe_open
from test_invariance import VOCABULARY, Trainer, gradient, trainer
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from potstill.config import ConfigError, Run
from potstill.config.adapter import Dora, Lora
from potstill.models.adapt import adapt, freeze, head_weight, merged, save_adapter
from potstill.models.load import Loaded, ModelError
from potstill.models.recompute import not_recomputing, recompute_blocks
from potstill.models.scored import ScoredModel
from potstill.models.shrink import shrink
from potstill.run_dir import RunDir
from potstill.training.checkpoint import CheckpointError
from potstill.training.distil import distil
from potstill.training.export import export_step
from potstill.training.show import Show
from potstill.training.stages import fresh_student

#: PEFT asks Transformers a question whose name has changed since; our own calls hide it themselves.
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
Make = Callable[..., Run]
LORA = Lora(kind="lora", rank=4)


def shaken(model: Any) -> None:
    """Random adapters: at the start their product is 0 and would prove nothing."""
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.2 * torch.randn_like(parameter))


def logits(model: Any) -> torch.Tensor:
    ids = torch.arange(3, 13)[None]
    inputs = {"input_ids": ids, "decoder_input_ids": ids} if model.config.is_encoder_decoder else {"input_ids": ids}
    with torch.no_grad():
        return model(**inputs).logits


MODELS = {
    "llama tied": lambda: make_llama(VOCABULARY, 1, 2, True),
    "llama untied": lambda: make_llama(VOCABULARY, 1, 2, False),
    "t5 tied": lambda: make_t5(VOCABULARY, 1, 2, True),
    "t5 untied": lambda: make_t5(VOCABULARY, 1, 2, False),
}
ADAPTERS = {
    "lora": LORA,
    "dora": Dora(kind="dora", rank=3, scaling=0.7),
    "lora, embeddings and head whole": LORA.model_copy(update={"train_whole": ("embeddings", "head")}),
}


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("model", MODELS)
def test_our_head_gives_the_wrapped_models_logits_and_merging_keeps_them(
    model: str, adapter: str, tmp_path: Path
) -> None:
    student = MODELS[model]().double()  # so that merging's rounding is not what is compared
    before = logits(student)
    pristine = copy.deepcopy(student)
    adapted = adapt(student, ADAPTERS[adapter], 0)
    torch.testing.assert_close(logits(student), before)  # nothing at the start
    shaken(student)
    expected = logits(adapted)
    assert float((expected - before).abs().max()) > 0.1
    ScoredModel(student).verify_head()  # compares our projection with the model's own logits
    save_adapter(adapted, tmp_path, ADAPTERS[adapter])
    torch.testing.assert_close(logits(merged(adapted)), expected, rtol=1e-6, atol=1e-6)
    again = PeftModel.from_pretrained(pristine, str(tmp_path))
    torch.testing.assert_close(logits(again), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_an_adapter_on_the_head_is_in_the_loss_and_gets_its_gradient(family: str) -> None:
    head = "lm_head"
    student = MODELS[f"{family} untied"]()
    names = ("q_proj", head) if family == "llama" else ("q", head)
    adapted = adapt(student, LORA.model_copy(update={"modules": names}), 0)
    shaken(student)
    assert head_weight(student.get_output_embeddings()) is not student.get_output_embeddings().weight
    ScoredModel(student).verify_head()
    made = trainer(family, tie=False)
    made.student = ScoredModel(student)
    gradient_of(made)
    for name, parameter in student.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
    assert any(
        head in name and float(p.grad.abs().max()) > 0 for name, p in student.named_parameters() if p.requires_grad
    )  # type: ignore[union-attr]
    student.double()
    expected = logits(adapted)
    torch.testing.assert_close(logits(merged(adapted)), expected, rtol=1e-6, atol=1e-6)


def gradient_of(made: Trainer) -> None:
    parts = made.micro_batches()
    for ids, batch in parts:
        made.backward(ids, batch, made.objective.weights(), made.objective.denominator(b for _, b in parts))


@pytest.mark.parametrize(
    ("model", "change", "message"),
    [
        ("llama tied", {"modules": ("lm_head",)}, "without changing the other"),
        ("llama tied", {"train_whole": ("head",)}, "name both, or neither"),
        ("llama untied", {"modules": ("embed_tokens",)}, "adapter on the embeddings"),
        ("llama untied", {"modules": ("lm_head",), "train_whole": ("head",)}, "adapted and trained whole"),
        ("llama tied", {"modules": ("no_such_layer",)}, "does not fit the student"),
    ],
)
def test_adapters_that_could_not_be_honoured_are_refused(model: str, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        adapt(MODELS[model](), LORA.model_copy(update=change), 0)


def test_dora_on_the_head_is_refused() -> None:
    with pytest.raises(ModelError, match="cannot have a DoRA"):
        adapt(MODELS["llama untied"](), Dora(kind="dora", modules=("lm_head",)), 0)


def test_adapters_are_drawn_from_the_seed() -> None:
    drawn = []
    for seed in (0, 0, 1):
        student = MODELS["llama tied"]()
        adapt(student, LORA, seed)
        drawn.append(torch.cat([p.flatten() for p in student.parameters() if p.requires_grad]))
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


@pytest.mark.parametrize("parts", [("embeddings",), ("head",), ("embeddings", "head")])
def test_frozen_parts_get_no_gradient_and_the_rest_keeps_its_own(parts: tuple[str, ...]) -> None:
    whole, frozen = trainer("llama", tie=False), trainer("llama", tie=False)
    freeze(frozen.student.model, parts)
    gradient_of(whole)
    gradient_of(frozen)
    theirs = dict(whole.student.named_parameters())
    for name, parameter in frozen.student.named_parameters():
        held = ("embed_tokens" in name and "embeddings" in parts) or ("lm_head" in name and "head" in parts)
        assert (parameter.grad is None) == held, name
        if not held:
            torch.testing.assert_close(parameter.grad, theirs[name].grad)


def test_half_of_a_tie_cannot_be_frozen() -> None:
    with pytest.raises(ModelError, match="one tensor; name both"):
        freeze(MODELS["t5 tied"](), ("head",))


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_recomputed_blocks_give_the_same_gradient_and_are_really_recomputed(family: str) -> None:
    plain, thrifty = trainer(family), trainer(family)
    recompute_blocks(thrifty.student.model)
    calls = {"forward": 0}

    def count(module: object, inputs: object, output: object) -> None:
        calls["forward"] += 1

    thrifty.student.model.get_decoder().get_submodule("block.0" if family == "t5" else "layers.0").get_submodule(
        "layer.0.SelfAttention.q" if family == "t5" else "self_attn.q_proj"
    ).register_forward_hook(count)
    torch.testing.assert_close(gradient(thrifty), gradient(plain), rtol=1e-5, atol=1e-7)
    assert calls["forward"] == 2 * len(thrifty.micro_batches())
    model = thrifty.student.model
    assert not any(m.training for m in model.modules() if isinstance(m, torch.nn.Dropout))
    with not_recomputing(model):
        assert not any(m.training for m in model.modules())
    assert any(m.training for m in model.modules())


def test_a_teacher_in_fewer_bytes_says_nearly_the_same() -> None:
    for kind, most in (("bf16", 0.2), ("int8", 0.2)):
        model = make_llama(VOCABULARY, 0, 3)
        expected = torch.log_softmax(logits(model), -1)
        shrunk = shrink(Loaded(model, None, "abc", None, "m"), kind)  # type: ignore[arg-type]
        assert shrunk.fingerprint == f"abc-{kind}"
        found = torch.log_softmax(logits(shrunk.model).float(), -1)
        error = float((found - expected).abs().max())
        assert 0 < error < most
        ScoredModel(shrunk.model).verify_head()
    body = shrunk.model.model.layers[0].self_attn.q_proj.weight
    assert "Int8" in type(body).__name__ and shrunk.model.lm_head.weight.dtype == torch.float32


@pytest.mark.parametrize("weights", ["bf16", "int8"])
def test_a_run_with_a_shrunk_teacher_cuts_its_student_from_the_whole_one(make_run: Make, weights: str) -> None:
    run = distil(make_run(training__teacher_weights=weights, training__steps=2), Show(quiet=True))
    plain = distil(make_run(output="plain", training__steps=2), Show(quiet=True))
    theirs, ours = run.read_json("provenance.json"), plain.read_json("provenance.json")
    assert theirs["teacher"]["fingerprint"] == ours["teacher"]["fingerprint"] + "-" + weights
    assert theirs["student"] == ours["student"]


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_a_run_with_adapters_exports_merged_with_the_adapter_beside(make_run: Make, kind: str) -> None:
    config = make_run(training__adapter={"kind": kind, "rank": 4})
    run = distil(config, Show(quiet=True))
    losses = [line["loss"] for line in run.lines("metrics.jsonl")]
    assert losses[-1] < losses[0]
    student = AutoModelForCausalLM.from_pretrained(run.file("student"))
    assert not any("lora" in name for name, _ in student.named_parameters())
    assert (run.file("student") / "adapter" / "adapter_model.safetensors").is_file()
    assert f"{'LoRA' if kind == 'lora' else 'DoRA'} of rank 4" in (run.file("student") / "README.md").read_text()
    exported = export_step(run, run.checkpoint_steps()[-1])
    assert (exported / "model.safetensors").read_bytes() == (run.file("student") / "model.safetensors").read_bytes()
    names = stored_names(run)
    assert names and all("lora" in name for name in names), "only what is trained is stored"


def stored_names(run: RunDir) -> set[str]:
    folder = run.checkpoint_path(run.checkpoint_steps()[-1])
    names: set[str] = set()
    for file in folder.glob("*.safetensors"):
        with safe_open(file, "pt") as handle:
            names |= set(handle.keys())
    return names


def test_a_t5_run_with_lora(make_run: Make, t5_folder: Path) -> None:
    adapter = {"kind": "lora", "rank": 2}
    config = make_run(t5_folder, data__prompts__chat=False, training__adapter=adapter, training__steps=2)
    run = distil(config, Show(quiet=True))
    student = AutoModelForSeq2SeqLM.from_pretrained(run.file("student"))
    assert not any("lora" in name for name, _ in student.named_parameters())
    before, _, _ = fresh_student(config.model_copy(update={"training": make_run().training}))
    changed = {name for name, p in student.named_parameters() if not torch.equal(p, before.get_parameter(name))}
    assert changed and all(".layer." in name for name in changed), "only what carries an adapter may change"
    assert any(n.startswith("encoder") for n in changed) and any(n.startswith("decoder") for n in changed)


def test_a_t5_with_a_head_of_its_own_goes_through_a_whole_run(
    make_run: Make, tmp_path: Path, tokenizer: Any, vocabulary: int
) -> None:
    teacher = make_t5(vocabulary, 0, 3, tie=False)
    teacher.save_pretrained(tmp_path / "teacher")
    tokenizer.save_pretrained(tmp_path / "teacher")
    run = distil(make_run(tmp_path / "teacher", data__prompts__chat=False, training__steps=2), Show(quiet=True))
    student = AutoModelForSeq2SeqLM.from_pretrained(run.file("student"))
    stored = run.checkpoint_path(2)
    assert "model.lm_head.weight" in stored_names(run) and stored.is_dir()
    assert not torch.allclose(student.lm_head.weight, student.shared.weight, atol=0.1)
    torch.testing.assert_close(student.lm_head.weight, teacher.lm_head.weight, rtol=0, atol=0.01)


def test_recomputing_and_freezing_change_what_they_say_and_nothing_else(make_run: Make) -> None:
    plain = distil(make_run(), Show(quiet=True))
    thrifty = distil(make_run(output="thrifty", training__gradient_checkpointing=True), Show(quiet=True))
    losses = [[line["loss"] for line in run.lines("metrics.jsonl")] for run in (plain, thrifty)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    frozen = distil(make_run(output="frozen", training__freeze=["embeddings", "head"]), Show(quiet=True))
    student = AutoModelForCausalLM.from_pretrained(frozen.file("student"))
    teacher = AutoModelForCausalLM.from_pretrained(make_run().teacher.path)  # type: ignore[union-attr]
    assert torch.equal(student.get_input_embeddings().weight, teacher.get_input_embeddings().weight)
    assert not torch.equal(student.model.layers[0].mlp.up_proj.weight, teacher.model.layers[0].mlp.up_proj.weight)


def test_freezing_beside_an_adapter_is_refused(make_run: Make) -> None:
    with pytest.raises(ConfigError, match="no effect beside an adapter"):
        make_run(training__adapter={"kind": "lora"}, training__freeze=["head", "embeddings"])


def test_a_frozen_student_whose_source_changed_is_not_resumed(make_run: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    from potstill.training import distil as module

    config = make_run(training__adapter={"kind": "lora", "rank": 2})
    with monkeypatch.context() as patch:
        patch.setattr(module, "finish", lambda session: None)
        distil(config, Show(quiet=True))

    def another(config: Any, teacher: Any, seed: int) -> Any:
        student, tokenizer, lineage = original(config, teacher, seed)
        return student, tokenizer, lineage | {"fingerprint": "another"}

    from potstill.training import stages

    original = stages.build_student
    monkeypatch.setattr(stages, "build_student", another)
    with pytest.raises(CheckpointError, match="its source has changed"):
        distil(config, Show(quiet=True))


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # torch's compiler warns of its own inside, and as errors they would stop it
def test_compiled_blocks_give_the_same_losses(make_run: Make) -> None:
    plain = distil(make_run(training__steps=3), Show(quiet=True))
    compiled = distil(make_run(output="compiled", training__compile=True, training__steps=3), Show(quiet=True))
    losses = [[line["loss"] for line in run.lines("metrics.jsonl")] for run in (plain, compiled)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
