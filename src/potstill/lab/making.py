"""How each step of the teacher-hacking experiment is made: oracle, prompts, fine-tuned models, cells.

Each maker takes its settings as plain values, a folder to fill, and the folders of the
steps that it needs. Fine-tuning and distillation are ordinary runs of Potstill, so they
resume, are watched and end in a verdict as a user's do.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from potstill.config import parse_run
from potstill.config.lab import FineTuning, HackingLab, TinyModel
from potstill.config.run import Run
from potstill.data.train_tokenizer import train_tokenizer
from potstill.diagnosis import read_curves
from potstill.lab.arms import length_of, prompt_file, run_tree, source, steps_per_epoch
from potstill.lab.cells import cell_of_run
from potstill.lab.oracle import train_on_text
from potstill.lab.pools import LabError, pools, read_text, write_prompts
from potstill.models.shapes import make_model
from potstill.run_dir import RunDir, write_atomic
from potstill.training.completions import Asker, answers
from potstill.training.distil import distil
from potstill.training.export import export_step
from potstill.training.opening import open_directory
from potstill.training.parallel import start_world
from potstill.training.show import Show
from potstill.training.signals import Stopped, stopping
from potstill.training.stages import held_out_sampling, load_models, load_prompts
from potstill.training.watch import sample_held_out

Needed = dict[str, Path]
ANSWERS = 4  # that the oracle may give before it counts as silent


def lab_of(facts: dict[str, Any]) -> HackingLab:
    return HackingLab.model_validate(facts["lab"])


def make_oracle(facts: dict[str, Any], folder: Path, needed: Needed) -> None:
    """A tiny oracle and its tokenizer, in `model/`."""
    lab = lab_of(facts)
    assert isinstance(lab.oracle, TinyModel) and lab.oracle_training is not None and lab.tokenisation is not None
    assert lab.prompts.kind == "windows"
    text = read_text(lab.prompts)
    tokenizer = train_tokenizer(lab.tokenisation, [text])
    pieces = text.split("\n\n")  # documents, or paragraphs: an oracle must know how to end
    encoded = tokenizer(pieces)["input_ids"]
    ids = np.concatenate([np.array([*piece, tokenizer.eos_token_id], dtype=np.int32) for piece in encoded])
    positions = max(lab.max_length, lab.oracle_training.window_tokens)
    model = make_model(lab.oracle, len(tokenizer), positions, facts["seed"])
    losses = train_on_text(model, ids, lab.oracle_training, facts["seed"])
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    tail = float(np.mean(losses[-50:]))
    write_atomic(folder / "oracle.json", json.dumps({"tokens": len(ids), "nats_per_token": tail}).encode())


def make_pools(facts: dict[str, Any], folder: Path, needed: Needed) -> None:
    """The seed's prompts: oracle.jsonl, train.jsonl, train-large.jsonl, held_out.jsonl."""
    lab = lab_of(facts)
    text = read_text(lab.prompts) if lab.prompts.kind == "windows" else ""
    factor = lab.large_pool_factor if facts["large"] else 1
    found = pools(lab, facts["seed"], lab.distillation_prompts * factor, text)
    if facts["large"]:
        write_prompts(folder / "train-large.jsonl", found["train"])
    write_prompts(folder / "train.jsonl", found["train"][: lab.distillation_prompts])
    for name in ("oracle", "held_out"):
        write_prompts(folder / f"{name}.jsonl", found[name])


def make_tuned(facts: dict[str, Any], folder: Path, needed: Needed) -> None:
    """A model fitted to the oracle's completions: `model/` at its golden minimum, `last/` at the end."""
    lab, seed = lab_of(facts), facts["seed"]
    tuning = FineTuning.model_validate(facts["tuning"])
    student = first_state(facts, folder, needed)
    config = parse_run(tuning_tree(lab, tuning, seed, folder / "run", oracle_of(lab, needed), student, needed["pools"]))
    run = distil(config, Show(quiet=True))
    golden = read_curves(run.path)["golden"]
    best = int(golden.steps[golden.per_token.argmin()])
    if best == 0:
        raise LabError(
            f"fine-tuning made the {facts['role']} no better than it was ({golden.per_token[0]:.3f} nats per token "
            "from the oracle); change its learning rate or epochs"
        )
    for name, step in (("model", best), ("last", config.training.steps)):
        if not (folder / name).is_dir():
            export_step(run, step, folder / name)
    facts_found = {
        "best_epoch": best / (config.training.steps / tuning.epochs),
        "golden": dict(zip(golden.steps.tolist(), (golden.sums.mean(1)).tolist(), strict=True)),
    }
    write_atomic(folder / "tuned.json", json.dumps(facts_found, indent=1).encode())
    shutil.rmtree(run.file("checkpoints"))


def first_state(facts: dict[str, Any], folder: Path, needed: Needed) -> dict[str, Any]:
    """The model before fine-tuning, as a student's description."""
    how = facts["member"]
    if how["kind"] != "tiny":
        return dict(how)
    oracle = needed["oracle"] / "model"
    if not (folder / "first").is_dir():
        from transformers import AutoConfig, AutoTokenizer

        tokenizer, config = AutoTokenizer.from_pretrained(oracle), AutoConfig.from_pretrained(oracle)
        model = make_model(TinyModel.model_validate(how), len(tokenizer), config.n_positions, facts["first_seed"])
        model.save_pretrained(folder / "first")
        tokenizer.save_pretrained(folder / "first")
    return {"kind": "load", "model": source(folder / "first")}


def tuning_tree(
    lab: HackingLab, tuning: FineTuning, seed: int, output: Path, oracle: Any, student: dict[str, Any], pool: Path
) -> dict[str, Any]:
    """Cross-entropy on the oracle's completions, with the oracle in the teacher's place."""
    steps = tuning.epochs * max(1, lab.oracle_prompts // tuning.batch_rows)
    every = max(1, steps // tuning.evaluations)
    held_out = min(lab.held_out_prompts, 512)
    return {
        "output": str(output),
        "seed": seed,
        "oracle": source(oracle),
        "teacher": source(oracle),
        "student": student,
        "data": {
            "prompts": prompt_file(pool / "oracle.jsonl", lab),
            "held_out": {"kind": "prompts", "prompts": prompt_file(pool / "held_out.jsonl", lab)},
            "near_duplicates": {"threshold": 1.0, "on_found": "drop"},
            "completions": {
                "kind": "sample",
                "sampling": {"max_new_tokens": lab.max_new_tokens},
                "batch_rows": lab.slots,
            },
            "max_length": lab.max_length,
            "too_long": "drop" if lab.prompts.kind == "file" else "refuse",
        },
        "source": {"kind": "offline"},
        "objective": {"terms": [{"kind": "cross_entropy", "weight": 1.0, "on": ["teacher"]}]},
        "training": {
            "steps": steps,
            "batch_rows": tuning.batch_rows,
            "micro_batch_rows": lab.micro_batch_rows,
            "precision": lab.precision,
            "device": lab.device,
            "optimiser": {
                "learning_rate": tuning.learning_rate,
                "warmup_steps": lab.warmup_steps,
                "schedule": {"kind": "constant"},
            },
        },
        "monitor": {
            "every_steps": every,
            "max_prompts": held_out,
            "batch_rows": lab.monitor_batch_rows,
            "sample_texts": 0,
        },
        "checkpoints": {"every_steps": every, "keep_last": steps // every + 1},
    }


def oracle_of(lab: HackingLab, needed: Needed) -> Any:
    """A tiny oracle's folder, or where the configured one is."""
    return needed["oracle"] / "model" if "oracle" in needed else lab.oracle.model_dump(mode="json")


def cell_config(facts: dict[str, Any], output: Path, needed: Needed) -> Run:
    """The run of an arm and seed."""
    lab = lab_of(facts)
    oracle = oracle_of(lab, needed)
    teacher = needed["teacher"] / facts.get("teacher_state", "model") if "teacher" in needed else oracle
    models = {"oracle": oracle, "teacher": teacher, "student": needed["student"] / "model"}
    references = needed["references"] / "train.jsonl" if "references" in needed else None
    return parse_run(run_tree(lab, facts["arm"], facts["seed"], output, models, needed["pools"], references))


def make_held_out(facts: dict[str, Any], folder: Path, needed: Needed) -> None:
    """What oracle and teacher answer to the held-out prompts, once for all arms that share them."""
    config = cell_config(facts, folder / "run", needed)
    run = RunDir(folder)
    if "same_oracle" in needed:
        share(needed["same_oracle"], run, ["held-out-oracle"])
    models = load_models(config)
    prompts = load_prompts(config, models.tokenizer, models.teacher.is_encoder_decoder)
    world = start_world(config.training.device)
    with stopping() as stop, torch.no_grad(), Show(quiet=True).bars(lambda: stop.requested) as progress:
        if sample_held_out(run, config, models, prompts, world.device, progress) is None:
            raise Stopped("stopped while sampling; what was sampled is kept", stop.signal_number)


def make_references(facts: dict[str, Any], folder: Path, needed: Needed) -> None:
    """The prompts of distillation with an answer of the oracle each, its first that says something, in train.jsonl."""
    config = cell_config(facts, folder / "run", needed)
    models = load_models(config)
    prompts = load_prompts(config, models.tokenizer, models.teacher.is_encoder_decoder)
    assert models.oracle is not None
    device, asker = start_world(config.training.device).device, Asker.of(config, models, prompts)
    sampling, slots = held_out_sampling(config), lab_of(facts).slots
    with stopping() as stop, torch.no_grad(), Show(quiet=True).bars(lambda: stop.requested) as progress:
        found = answers(
            RunDir(folder), "train-oracle", models.oracle, device, asker, prompts.train, ANSWERS, sampling, slots,
            progress,
        )  # fmt: skip
    if found is None:
        raise Stopped("stopped while sampling; what was sampled is kept", stop.signal_number)
    texts = {one.prompt_id: one.text for one in sorted(found, key=lambda c: -c.index) if one.text.strip()}
    if silent := [p.id for p in prompts.train if p.id not in texts]:
        raise LabError(f"the oracle said nothing to {len(silent)} prompts, asked {ANSWERS} times (first: {silent[0]})")
    write_prompts(folder / "train.jsonl", [replace(p, reference=texts[p.id]) for p in prompts.train])


def share(folder: Path, run: RunDir, names: list[str]) -> None:
    """Put completions where a run looks for its own; they are keyed by seed and prompt, so they are the same."""
    for name in names:
        target = run.file("completions") / f"{name}.jsonl"
        if not target.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(target, (folder / "completions" / f"{name}.jsonl").read_bytes())


def make_cell(facts: dict[str, Any], folder: Path, needed: Needed) -> None:
    """One arm on one seed: a run directory in `run/`, and its summary in cell.json."""
    lab = lab_of(facts)
    config = cell_config(facts, folder / "run", needed)
    run, _ = open_directory(config, start_world(config.training.device).device)
    share(needed["held_out"], run, ["held-out-oracle", "held-out-teacher"])
    distil(config, Show(quiet=True))
    epochs, _ = length_of(lab, facts["arm"])
    cell = cell_of_run(run.path, facts["arm"], facts["seed"], epochs, steps_per_epoch(lab))
    write_atomic(folder / "cell.json", json.dumps(cell.to_json(), indent=1).encode())
    for name in ("checkpoints", "student", "completions"):  # most of the room that a cell takes
        shutil.rmtree(run.file(name), ignore_errors=True)
