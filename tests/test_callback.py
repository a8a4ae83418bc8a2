"""MonitorCallback in a real `transformers.Trainer`: what it measures, refuses and leaves as it was."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT, make_llama, make_t5, tiny_prompts
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import Trainer, TrainerCallback, TrainingArguments

from potstill.data.prompts import PromptError
from potstill.diagnosis import diagnose
from potstill.integrations.foreign import plain_model, undisturbed, weights_fingerprint
from potstill.integrations.held_out import held_out_prompts
from potstill.integrations.transformers import MonitorCallback
from potstill.models.load import ModelError, load_model
from potstill.models.student import build_student
from potstill.records import Message, Prompt
from potstill.report import write_report
from potstill.run_dir import RunDir, RunDirError
from potstill.training.distil import distil
from potstill.training.show import Show

#: PEFT asks Transformers questions whose names have changed since.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*ensure_weight_tying.*:UserWarning"),
]
HELD_OUT = [row for row in tiny_prompts(48) if row["topic"] in ("stars", "birds")]
TRAIN = [row for row in tiny_prompts(48) if row["topic"] not in ("stars", "birds")]


class Rows(torch.utils.data.Dataset):
    """Reference answers to the training prompts, padded to one length."""

    def __init__(self, tokenizer: Any, encoder_decoder: bool = False):
        self.rows = []
        for row in TRAIN:
            prompt, answer = tokenizer(row["prompt"]).input_ids, [*tokenizer(row["reference"]).input_ids, 2]
            if encoder_decoder:
                self.rows.append(padded(input_ids=prompt, labels=answer))
            else:
                self.rows.append(padded(input_ids=prompt + answer, labels=[-100] * len(prompt) + answer))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> dict[str, torch.Tensor]:
        return self.rows[i]


def padded(length: int = 48, **columns: list[int]) -> dict[str, torch.Tensor]:
    fill = {"input_ids": 0, "labels": -100}
    row = {name: torch.tensor(ids + [fill[name]] * (length - len(ids))) for name, ids in columns.items()}
    return row | {"attention_mask": (torch.arange(length) < len(columns["input_ids"])).long()}


class Recorder(TrainerCallback):
    """Random numbers at every step, as the trainer goes on with them."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.seen.append((random.random(), np.random.rand(), torch.rand(()).item()))


def student_with_dropout(vocabulary: int) -> Any:
    return make_llama(vocabulary, seed=7, layers=2, attention_dropout=0.3).train()


def trainer(
    folder: Path, tokenizer: Any, student: Any, *callbacks: Any, steps: int = 6, t5: bool = False, **more: Any
) -> Trainer:
    settings: dict[str, Any] = {
        "max_steps": steps, "per_device_train_batch_size": 4, "learning_rate": 3e-3, "logging_steps": 1,
        "save_strategy": "no", "report_to": "none", "disable_tqdm": True, "use_cpu": True, "seed": 11,
        "dataloader_pin_memory": False, "lr_scheduler_type": "constant",
    }  # fmt: skip
    args = TrainingArguments(str(folder / "trainer"), **settings | more)
    rows = Rows(tokenizer, t5)
    return Trainer(student, args, train_dataset=rows, eval_dataset=rows, callbacks=list(callbacks))


@pytest.fixture
def teacher(vocabulary: int) -> Any:
    return make_llama(vocabulary)


def callback(folder: Path, tokenizer: Any, teacher: Any, **more: Any) -> MonitorCallback:
    settings: dict[str, Any] = {"prompts": HELD_OUT, "output": folder / "run", "every_steps": 2, "max_new_tokens": 8}
    return MonitorCallback(teacher=teacher, tokenizer=tokenizer, **settings | more)


def losses(of: Trainer) -> list[float]:
    return [line["loss"] for line in of.state.log_history if "loss" in line]


def test_a_run_is_measured_and_judged(tmp_path, tokenizer, vocabulary, teacher, capsys):
    watched = callback(tmp_path, tokenizer, teacher, every_steps=1)
    done = trainer(tmp_path, tokenizer, student_with_dropout(vocabulary), watched, steps=8)
    done.train()
    run = RunDir(tmp_path / "run")
    assert run.evaluation_steps() == list(range(9))
    assert watched.verdict == diagnose(run.path)
    assert run.read_json("verdict.json")["verdict"] == watched.verdict.verdict
    assert watched.verdict.evidence["golden_kind"] == "reference_nll"
    assert not any("at least" in reason for reason in watched.verdict.evidence["reasons"]), "enough was measured"
    assert watched.verdict.sentence in capsys.readouterr().out
    first, last = run.evaluations()[0], run.evaluations()[-1]
    assert set(first.series) == {"proxy", "proxy_fkl", "golden", "teacher_golden"}
    assert len(first.series["golden"].prompt_ids) == len(HELD_OUT)
    assert set(first.splits.values()) == {"selection", "test"}
    assert last.series["golden"].per_token() < first.series["golden"].per_token(), "it trains on references"
    assert "training_loss" not in first.scalars
    lines = list(run.lines("metrics.jsonl"))
    assert [line["step"] for line in lines] == list(range(1, 9))
    assert {"loss", "learning_rate", "grad_norm", "epoch"} <= lines[0].keys()
    assert [line["loss"] for line in lines] == losses(done)
    assert last.scalars["training_loss"] == lines[-1]["loss"], "the loss of the very step that was evaluated"
    texts = [line for line in run.lines("samples.jsonl") if line["step"] == 8]
    assert len(texts) == 4 and all(line["teacher"] is not None and line["reference"] for line in texts)
    logged = [line for line in done.state.log_history if "potstill/golden" in line]
    assert [line["step"] for line in logged] == list(range(9))
    assert logged[-1]["potstill/golden"] == last.series["golden"].per_token()
    page = write_report(run.path).read_text()
    assert "monitor_callback" in page and "Training loss" in page


def test_a_short_run_is_inconclusive(tmp_path, tokenizer, vocabulary, teacher):
    watched = callback(tmp_path, tokenizer, teacher, every_steps=4)
    trainer(tmp_path, tokenizer, student_with_dropout(vocabulary), watched, steps=6).train()
    assert RunDir(tmp_path / "run").evaluation_steps() == [0, 4, 6], "every so many steps, and the last"
    assert watched.verdict is not None and watched.verdict.verdict == "inconclusive"


def test_a_verdict_ends_training(tmp_path, tokenizer, teacher, capsys):
    """A copy of the teacher that learns references moves away from it at every step."""
    watched = callback(tmp_path, tokenizer, teacher, every_steps=2, stop_on=["overfitting"])
    done = trainer(tmp_path, tokenizer, copy.deepcopy(teacher), watched, steps=40)
    done.train()
    run = RunDir(tmp_path / "run")
    (event,) = [line for line in run.lines("events.jsonl") if line["event"] == "stopped by verdict"]
    assert event["verdict"] == "overfitting" and done.state.global_step == event["step"] + 1 < 40
    assert run.evaluation_steps() == [*range(0, event["step"] + 1, 2), event["step"] + 1]
    assert f"stopping after step {event['step']}: overfitting" in capsys.readouterr().out
    assert watched.verdict is not None and watched.verdict.verdict == "overfitting"


def test_stops_that_cannot_work_are_refused(tmp_path, tokenizer, vocabulary, teacher):
    with pytest.raises(ValueError, match="stop_on"):
        callback(tmp_path, tokenizer, teacher, stop_on=["healthy"])
    watched = callback(tmp_path, tokenizer, teacher, every_steps=1, stop_on=["overfitting"])
    with pytest.raises(ValueError, match=r"judges the run 60 times.*Raise every_steps to 3\."):
        trainer(tmp_path, tokenizer, student_with_dropout(vocabulary), watched, steps=60).train()
    assert not (tmp_path / "run").exists()


class Tracker(TrainerCallback):
    """What W&B and TensorBoard would be told."""

    def __init__(self) -> None:
        self.told: list[tuple[int, dict[str, float]]] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        self.told.append((state.global_step, dict(logs)))


def test_trackers_are_told_where_asked(tmp_path, tokenizer, vocabulary, teacher):
    tracker, watched = Tracker(), callback(tmp_path, tokenizer, teacher)
    student = student_with_dropout(vocabulary)
    done = trainer(tmp_path, tokenizer, student, watched, tracker, steps=6, logging_strategy="epoch")
    watched.feed_trackers(done)
    done.train()
    told = [(step, logs["potstill/golden"]) for step, logs in tracker.told if "potstill/golden" in logs]
    assert [step for step, _ in told] == [0, 2, 4, 6]
    assert [value for _, value in told] == [
        r.series["golden"].per_token() for r in RunDir(tmp_path / "run").evaluations()
    ]
    assert any("loss" in logs for _, logs in tracker.told), "the trainer's own line is not taken for done"
    assert all("potstill/proxy" not in row or "loss" not in row for row in done.state.log_history)


def test_a_student_like_its_teacher_has_proxy_0_and_the_teachers_golden(tmp_path, tokenizer, teacher):
    watched = callback(tmp_path, tokenizer, teacher)
    trainer(tmp_path, tokenizer, copy.deepcopy(teacher), watched, steps=2).train()
    start = RunDir(tmp_path / "run").evaluations()[0]
    assert start.series["proxy"].per_token() == 0
    np.testing.assert_allclose(start.series["golden"].sums, start.series["teacher_golden"].sums, rtol=1e-6)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_training_is_the_same_with_and_without(precision, tmp_path, tokenizer, vocabulary, teacher):
    new = "activation_checkpointing" in TrainingArguments.__dataclass_fields__  # the older name warns that it goes
    name = "activation_checkpointing" if new else "gradient_checkpointing"
    more = {"bf16": precision == "bf16", "gradient_accumulation_steps": 2, name: True}
    more[f"{name}_kwargs"] = {"use_reentrant": False}
    found = []
    for name in ("without", "with"):
        recorder, student = Recorder(), student_with_dropout(vocabulary)
        ours = [callback(tmp_path, tokenizer, teacher, every_steps=1)] if name == "with" else []
        settings = copy.deepcopy(student.generation_config.to_dict())
        done = trainer(tmp_path / name, tokenizer, student, *ours, recorder, steps=5, **more)
        done.train()
        assert student.generation_config.to_dict() == settings
        assert all(module.training for module in student.modules()), "the trainer's mode stands"
        found.append((losses(done), recorder.seen, {n: p.detach() for n, p in student.named_parameters()}))
    (losses_without, seen_without, without), (losses_with, seen_with, weights) = found
    assert losses_with == losses_without and len(set(losses_with)) == 5
    assert seen_with == seen_without
    assert all(torch.equal(weights[name], without[name]) for name in weights)
    assert RunDir(tmp_path / "run").evaluation_steps() == list(range(6))


def test_modes_and_random_numbers_come_back_after_an_error(teacher):
    teacher.train()
    frozen = next(m for m in teacher.modules() if isinstance(m, torch.nn.Linear))
    frozen.training = False
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    with pytest.raises(KeyError), undisturbed(torch.device("cpu"), teacher):
        assert not any(m.training for m in teacher.modules()) and not torch.is_grad_enabled()
        random.random(), np.random.rand(), torch.rand(1)
        raise KeyError
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before
    assert [m for m in teacher.modules() if not m.training] == [frozen] and torch.is_grad_enabled()


def test_it_measures_what_a_run_of_our_own_measures(tmp_path, tokenizer, make_run):
    config = make_run(
        output="ours",
        data__completions={"kind": "sample", "sampling": {"max_new_tokens": 12}},
        objective={"terms": [{"kind": "forward_kl", "weight": 1.0, "on": ["teacher", "reference"]}]},
        training__steps=1,
    )
    ours = distil(config, Show(quiet=True))
    loaded = load_model(config.teacher, torch.float32)
    student, _, _ = build_student(config.student, loaded, config.seed)
    rows = [
        {"prompt": [{"role": "user", "content": row["prompt"]}], "reference": row["reference"], "id": row["id"]}
        for row in tiny_prompts()
        if row["topic"] in config.data.held_out.groups
    ]
    watched = callback(tmp_path, tokenizer, loaded.model, prompts=rows, seed=config.seed, max_new_tokens=12)
    trainer(tmp_path, tokenizer, student, watched, steps=1).train()
    theirs = RunDir(tmp_path / "run")
    name = "evaluations/step-00000000.npz"
    assert theirs.file(name).read_bytes() == ours.file(name).read_bytes()


def test_the_guide_runs(tmp_path, tokenizer, vocabulary, teacher, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "guide" / "callback.md").read_text()
    names = {
        "Trainer": Trainer,
        "teacher_model": teacher,
        "tokenizer": tokenizer,
        "student": student_with_dropout(vocabulary),
        "arguments": trainer(tmp_path, tokenizer, make_llama(vocabulary), steps=2).args,
        "dataset": Rows(tokenizer),
        "more_prompts": HELD_OUT,
    }
    exec(text.split("```python")[1].split("```")[0], names)
    assert capsys.readouterr().out.count("Too little to judge") == 2
    assert diagnose(tmp_path / "runs" / "my-trl-run").verdict == "inconclusive"


def test_encoder_decoder(tmp_path, tokenizer, vocabulary):
    watched = callback(tmp_path, tokenizer, make_t5(vocabulary), every_steps=2)
    trainer(tmp_path, tokenizer, make_t5(vocabulary, seed=5, layers=2), watched, steps=4, t5=True).train()
    first, _, last = RunDir(tmp_path / "run").evaluations()
    assert last.series["golden"].per_token() < first.series["golden"].per_token()


def test_an_oracle_needs_no_references(tmp_path, tokenizer, vocabulary, teacher):
    rows = [{"prompt": row["prompt"]} for row in HELD_OUT]
    oracle = make_llama(vocabulary, seed=3)
    watched = callback(tmp_path, tokenizer, teacher, prompts=rows, oracle=oracle)
    trainer(tmp_path, tokenizer, copy.deepcopy(oracle), watched, steps=2).train()
    run = RunDir(tmp_path / "run")
    assert run.evaluations()[0].series["golden"].per_token() == 0, "the student begins as the oracle"
    assert run.evaluations()[0].series["proxy"].per_token() > 0.1
    assert watched.verdict is not None and watched.verdict.evidence["golden_kind"] == "oracle"
    assert run.read_json("provenance.json")["golden"] == "oracle"


@pytest.mark.parametrize("modules", [["q_proj", "v_proj"], ["q_proj", "lm_head"]])
def test_lora(modules, tmp_path, tokenizer, vocabulary, teacher):
    base = make_llama(vocabulary, seed=7, layers=2, tie=False)
    student = get_peft_model(base, LoraConfig(r=4, lora_alpha=64, target_modules=modules, lora_dropout=0.1))
    watched = callback(tmp_path, tokenizer, teacher)
    trainer(tmp_path, tokenizer, student, watched, steps=4).train()
    records = RunDir(tmp_path / "run").evaluations()
    values = [record.series["golden"].per_token() for record in records]
    assert len(set(values)) == 3 and values[-1] < values[0], "the adapters are in what is measured"
    folder = tmp_path / "adapter"
    student.save_pretrained(folder, save_embedding_layers=False)
    merged = PeftModel.from_pretrained(make_llama(vocabulary, seed=7, layers=2, tie=False), folder).merge_and_unload()
    again = callback(tmp_path / "again", tokenizer, teacher)
    trainer(tmp_path / "again", tokenizer, merged.requires_grad_(True), again, steps=1).train()
    start = RunDir(tmp_path / "again" / "run").evaluations()[0]
    np.testing.assert_allclose(start.series["golden"].sums, records[-1].series["golden"].sums, rtol=1e-4)


def test_an_adapter_on_the_head_that_cannot_be_honoured_ends_the_run(tmp_path, tokenizer, vocabulary, teacher):
    base = make_llama(vocabulary, seed=7, layers=1, tie=False)
    student = get_peft_model(base, LoraConfig(r=4, lora_alpha=64, target_modules=["lm_head"], use_dora=True))
    with pytest.raises(ModelError, match="does something to its logits"):
        trainer(tmp_path, tokenizer, student, callback(tmp_path, tokenizer, teacher), learning_rate=0.1).train()


def test_the_last_step_is_measured_before_the_best_is_loaded(tmp_path, tokenizer, vocabulary, teacher):
    more = {"load_best_model_at_end": True, "eval_strategy": "steps", "save_strategy": "steps"}
    more |= {"eval_steps": 1, "save_steps": 1, "metric_for_best_model": "loss", "greater_is_better": True}
    done = trainer(
        tmp_path, tokenizer, student_with_dropout(vocabulary), callback(tmp_path, tokenizer, teacher), steps=3, **more
    )
    done.train()
    assert done.state.best_global_step == 1, "the worst, to tell it from the last"
    values = [record.series["golden"].per_token() for record in RunDir(tmp_path / "run").evaluations()]
    assert len(values) == 3 and values[2] < values[1] < values[0], "steps 0, 2 and 3"


def test_resuming_drops_what_came_later_and_asks_nothing_again(tmp_path, tokenizer, vocabulary, teacher, monkeypatch):
    save = {"save_strategy": "steps", "save_steps": 3, "logging_steps": 1}
    whole = trainer(
        tmp_path, tokenizer, student_with_dropout(vocabulary), callback(tmp_path, tokenizer, teacher), steps=8, **save
    )
    whole.train()
    run = RunDir(tmp_path / "run")
    expected = {p.name: p.read_bytes() for p in sorted(run.file("evaluations").iterdir())}
    grown = {name: run.file(name).read_bytes() for name in ("metrics.jsonl", "samples.jsonl", "verdict.json")}
    monkeypatch.setattr("potstill.generation.local.uniforms", refuse_to_sample(tmp_path))
    second = callback(tmp_path, tokenizer, teacher)
    resumed = trainer(tmp_path, tokenizer, student_with_dropout(vocabulary), second, steps=8, **save)
    resumed.train(resume_from_checkpoint=str(tmp_path / "trainer" / "checkpoint-3"))
    assert {p.name: p.read_bytes() for p in sorted(run.file("evaluations").iterdir())} == expected
    assert {name: run.file(name).read_bytes() for name in grown} == grown
    events = [line["event"] for line in run.lines("events.jsonl")]
    assert events == ["started", "finished", "resumed", "finished"]


def refuse_to_sample(folder: Path) -> Any:
    from potstill.generation.base import uniforms

    def only_texts(seed: int, stream: str, *rest: Any) -> Any:
        assert stream == "texts", f"{stream} is on disk"
        return uniforms(seed, stream, *rest)

    return only_texts


def test_a_killed_run_begins_again_and_a_finished_one_is_left_alone(tmp_path, tokenizer, vocabulary, teacher):
    class Kill(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 3:
                raise KeyboardInterrupt

    student = student_with_dropout(vocabulary)
    with pytest.raises(KeyboardInterrupt):
        trainer(tmp_path, tokenizer, student, callback(tmp_path, tokenizer, teacher), Kill()).train()
    run = RunDir(tmp_path / "run")
    assert run.evaluation_steps() == [0, 2] and diagnose(run.path).verdict == "inconclusive"
    trainer(tmp_path, tokenizer, student_with_dropout(vocabulary), callback(tmp_path, tokenizer, teacher)).train()
    assert run.evaluation_steps() == [0, 2, 4, 6]
    assert [line["step"] for line in run.lines("metrics.jsonl")] == [1, 2, 3, 4, 5, 6]
    with pytest.raises(RunDirError, match="finished run"):
        trainer(tmp_path, tokenizer, student, callback(tmp_path, tokenizer, teacher)).train()
    assert run.evaluation_steps() == [0, 2, 4, 6] and run.file("verdict.json").exists()


@pytest.mark.parametrize(
    "change", [{"max_new_tokens": 9}, {"seed": 1}, {"prompts": HELD_OUT[1:]}, {"every_steps": 3}, {"teacher": 4}]
)
def test_a_directory_of_other_settings_is_refused(change, tmp_path, tokenizer, vocabulary, teacher):
    student = student_with_dropout(vocabulary)
    trainer(tmp_path, tokenizer, student, callback(tmp_path, tokenizer, teacher), steps=1).train()
    other = make_llama(vocabulary, seed=change.pop("teacher")) if "teacher" in change else teacher
    with pytest.raises(RunDirError, match="another configuration"):
        trainer(tmp_path, tokenizer, student, callback(tmp_path, tokenizer, other, **change), steps=1).train()


def test_other_directories_are_refused(tmp_path, tokenizer, vocabulary, teacher, make_run):
    from potstill.training.opening import open_directory

    watched = callback(tmp_path, tokenizer, teacher)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("irreplaceable")
    with pytest.raises(RunDirError, match="no run directory"):
        trainer(tmp_path, tokenizer, student_with_dropout(vocabulary), watched).train()
    (tmp_path / "run" / "thesis.tex").unlink()
    trainer(tmp_path, tokenizer, student_with_dropout(vocabulary), watched, steps=1).train()
    with pytest.raises(RunDirError, match="another configuration"):
        open_directory(make_run(output="run"), torch.device("cpu"))


def begin(tmp_path: Path, tokenizer: Any, student: Any, teacher: Any, **more: Any) -> None:
    trainer(tmp_path, tokenizer, student, callback(tmp_path, tokenizer, teacher, **more), steps=1).train()


def test_models_that_do_not_fit_are_refused(tmp_path, tokenizer, vocabulary, teacher):
    narrow = copy.deepcopy(tokenizer)
    narrow.add_tokens(["<extra>"])
    with pytest.raises(ModelError, match="columns"):
        begin(tmp_path, narrow, student_with_dropout(vocabulary), teacher)
    with pytest.raises(ModelError, match="encoder-decoder"):
        begin(tmp_path, tokenizer, student_with_dropout(vocabulary), make_t5(vocabulary))
    with pytest.raises(ModelError, match="does something to its logits"):
        begin(tmp_path, tokenizer, student_with_dropout(vocabulary), unknown_head(teacher))
    with pytest.raises(ModelError, match="one model"):
        begin(tmp_path, tokenizer, teacher, teacher)
    adapted = get_peft_model(make_llama(vocabulary, seed=7), LoraConfig(r=2, target_modules=["q_proj"]))
    with pytest.raises(ModelError, match="one model"):
        begin(tmp_path, tokenizer, adapted, adapted.get_base_model())
    with pytest.raises(ModelError, match="language-model head"):
        callback(tmp_path, tokenizer, "some/teacher")
    with pytest.raises(ModelError, match="language-model head"):
        callback(tmp_path, tokenizer, teacher.model)
    assert not (tmp_path / "run").exists(), "refused before anything was written"


def unknown_head(model: Any) -> Any:
    strange = copy.deepcopy(model)
    strange.lm_head.register_forward_hook(lambda module, inputs, output: output.sin() * 3)
    return strange


def test_the_students_own_tokenizer_is_compared(tmp_path, tokenizer, vocabulary, teacher):
    other = copy.deepcopy(tokenizer)
    other.add_tokens(["<extra>"])
    done = trainer(tmp_path, tokenizer, make_llama(vocabulary + 1, layers=1), callback(tmp_path, tokenizer, teacher))
    done.processing_class = done.callback_handler.processing_class = other
    with pytest.raises(ModelError, match="different vocabularies"):
        done.train()


def test_a_wider_student_is_aligned(tmp_path, tokenizer, vocabulary, teacher):
    wide = make_llama(vocabulary + 7, seed=7, layers=1)
    begin(tmp_path, tokenizer, wide, teacher)
    assert np.isfinite(RunDir(tmp_path / "run").evaluations()[0].series["proxy"].sums).all()


def test_split_models_and_learned_prompts_are_refused(vocabulary):
    from peft import PromptTuningConfig

    sharded = make_llama(vocabulary, layers=1)
    next(sharded.parameters()).ds_id = 0  # as DeepSpeed ZeRO 3 marks its shards
    with pytest.raises(ModelError, match="sharded"):
        plain_model(sharded, "student")
    spread = make_llama(vocabulary, layers=2)
    spread.model.layers[1].to("meta")
    with pytest.raises(ModelError, match="several devices"):
        plain_model(spread, "teacher")
    prompted = get_peft_model(
        make_llama(vocabulary, layers=1), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    )
    with pytest.raises(ModelError, match="learns a prompt"):
        plain_model(prompted, "student")


def test_wrappers_are_seen_through(vocabulary):
    model = make_llama(vocabulary, layers=1)
    assert plain_model(torch.nn.DataParallel(model), "student") is model
    assert plain_model(torch.compile(model, backend="eager"), "student") is model
    assert weights_fingerprint(model) == weights_fingerprint(copy.deepcopy(model))
    other = copy.deepcopy(model)
    other.model.norm.weight.data[-1] += 1
    assert weights_fingerprint(model) != weights_fingerprint(other)


def test_prompts_are_read_as_people_write_them():
    chat = [{"role": "user", "content": "why?"}]
    rows = [
        {"prompt": "plain text", "reference": "an answer", "id": "a", "column": 3},
        {"prompt": chat, "reference": "so"},
        {"messages": [{"role": "user", "content": "and?"}, {"role": "assistant", "content": "no"}]},
        Prompt("d", text="a record", reference="yes"),
    ]
    found = held_out_prompts(rows, 0, has_oracle=False)
    assert [p.reference for p in found] == ["an answer", "so", "no", "yes"]
    assert found[0].text == "plain text" and found[0].id == "a"
    assert found[1].messages == (Message("user", "why?"),)
    assert sorted(p.split for p in found) == ["selection", "selection", "test", "test"]
    kept = [Prompt(str(i), text=f"p{i}", reference="r", split="test") for i in range(4)]
    assert held_out_prompts(kept, 0, has_oracle=False) == kept


@pytest.mark.parametrize(
    ("rows", "error", "words"),
    [
        ([{"prompt": f"p{i}"} for i in range(4)], ValueError, "must not be judged by its teacher alone"),
        ([{"prompt": f"p{i}", "reference": "r" if i else None} for i in range(4)], ValueError, "1 of 4"),
        ([{"prompt": "same", "reference": "r"}] * 4, PromptError, r"prompts\[1\].* repeats prompts\[0\]"),
        ([{"prompt": f"p{i}", "reference": "r"} for i in range(3)], PromptError, "at least 4"),
        ([{"question": "p", "reference": "r"}] * 4, PromptError, r"prompts\[0\]: expected text in 'prompt'"),
        (["p1", "p2", "p3", "p4"], PromptError, "expected a dict"),
    ],
)
def test_bad_prompts_are_refused_before_training(rows, error, words, tmp_path, tokenizer, teacher):
    with pytest.raises(error, match=words):
        callback(tmp_path, tokenizer, teacher, prompts=rows)


def test_prompts_without_room_are_refused(tmp_path, tokenizer, vocabulary, teacher):
    with pytest.raises(ValueError, match="too long"):
        begin(tmp_path, tokenizer, student_with_dropout(vocabulary), teacher, max_new_tokens=125)


def test_other_processes_write_nothing(tmp_path, tokenizer, vocabulary, teacher):
    watched = callback(tmp_path, tokenizer, teacher)
    done = trainer(tmp_path, tokenizer, student_with_dropout(vocabulary), watched, steps=2)
    done.is_world_process_zero = lambda: False
    done.train()
    assert not (tmp_path / "run").exists() and watched.verdict is None


def test_a_loss_that_is_not_finite_is_null(tmp_path, tokenizer, vocabulary, teacher):
    class Broken(Trainer):
        def log(self, logs: dict[str, float], *rest: Any) -> None:
            super().log(logs | {"loss": float("nan")} if "loss" in logs else logs, *rest)

    done = trainer(tmp_path, tokenizer, student_with_dropout(vocabulary), callback(tmp_path, tokenizer, teacher))
    done.__class__ = Broken
    done.train()
    line = json.loads(RunDir(tmp_path / "run").file("metrics.jsonl").read_text().splitlines()[0])
    assert line["loss"] is None and line["grad_norm"] > 0
    assert "training_loss" not in RunDir(tmp_path / "run").evaluations()[-1].scalars
