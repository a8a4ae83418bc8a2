"""The teacher-hacking lab: pools apart, arms paired, steps shared, and the whole thing on a miniature."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lab_miniature import SMALL
from typer.testing import CliRunner

from potstill.config import parse_run
from potstill.config.lab import ARMS, HackingLab
from potstill.config.load import ConfigError, load_hacking_lab
from potstill.data.train_tokenizer import train_tokenizer
from potstill.diagnosis import read_curves
from potstill.lab import labelled
from potstill.lab.arms import PLANS, length_of, run_tree, steps_per_epoch
from potstill.lab.cells import Cell
from potstill.lab.conducting import PRESETS, conduct, preset_path
from potstill.lab.hacking import Experiment
from potstill.lab.oracle import train_on_text
from potstill.lab.pools import LabError, pools, read_text
from potstill.lab.steps import Step, in_order
from potstill.models.shapes import make_model
from potstill.records import Curve
from potstill.training.show import Show


def small(*changes: str) -> HackingLab:
    return load_hacking_lab(preset_path("tiny"), [*SMALL, *changes])


@pytest.fixture(scope="module")
def conducted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The miniature with arms of every kind of source, two seeds of the first two."""
    folder = tmp_path_factory.mktemp("lab")
    conduct(small("arms=[offline, oracle_as_teacher, online_student, mixture_50]"), "tiny", folder, 1, Show(quiet=True))
    return folder


def cells_of(folder: Path) -> dict[str, Cell]:
    found = json.loads((folder / "results.json").read_text())["cells"]
    return {cell["arm"]: Cell.from_json(cell) for cell in found}


def ran(step: Step, root: Path) -> float:
    return (step.folder(root) / "done.json").stat().st_mtime


@pytest.mark.parametrize("name", PRESETS)
def test_every_arm_of_every_preset_is_a_valid_run(name: str, tmp_path: Path) -> None:
    lab = load_hacking_lab(preset_path(name))
    assert set(PLANS) == set(ARMS)
    for arm in ARMS:
        models: dict[str, Any] = {role: tmp_path / role for role in ("oracle", "teacher", "student")}
        config = parse_run(run_tree(lab, arm, 1, tmp_path / "run", models, tmp_path, tmp_path / "asked.jsonl"))
        assert config.training.steps == round(length_of(lab, arm)[0] * steps_per_epoch(lab))
        assert config.oracle is not None and config.training.optimiser.schedule.kind == "constant"


def test_settings_that_do_not_fit_are_refused_by_name() -> None:
    for change, says in {
        "distillation_prompts=33": "multiple of batch_rows",
        "proxy_prompts=25": "exceed held_out_prompts",
        "evaluate_every_epochs=3": "multiple of evaluate_every_epochs",
        "arms=[offline, offline]": "once each",
        "tokenisation=null": "needs both",
        "prompts.path=x.txt": "exactly one of corpus and path",
    }.items():
        with pytest.raises(ConfigError, match=says):
            small(change)


def test_pools_share_no_prompt_and_follow_the_seed() -> None:
    lab = small()
    assert lab.prompts.kind == "windows"
    text = read_text(lab.prompts)
    found = pools(lab, 0, 32, text)
    texts = [prompt.text for name in found for prompt in found[name]]
    assert {name: len(pool) for name, pool in found.items()} == {"held_out": 24, "oracle": 64, "train": 32}
    assert len({str(t).lower() for t in texts}) == len(texts)
    assert all(len(str(t)) == lab.prompts.prompt_chars and str(t)[0].isalpha() for t in texts)
    assert found == pools(lab, 0, 32, text)
    more = pools(lab, 0, 64, text)
    assert [more[name] == found[name] for name in ("held_out", "oracle")] == [True, True]
    assert more["train"][:32] == found["train"], "a larger pool begins with the smaller one"
    other = {p.text for pool in pools(lab, 1, 32, text).values() for p in pool}
    assert len(other & set(texts)) < len(texts) / 4


def test_a_corpus_too_small_is_refused_before_anything_is_trained() -> None:
    lab = small("oracle_prompts=100000")
    assert lab.prompts.kind == "windows"
    with pytest.raises(LabError, match="different prompts of 12 characters"):
        pools(lab, 0, 32, read_text(lab.prompts))


@pytest.mark.parametrize("how", ["{kind: characters}", "{kind: bpe, vocabulary: 300}"])
def test_tokenizers_give_back_the_text_and_the_oracle_learns_it(how: str) -> None:
    lab = small(f"tokenisation={how}")
    assert lab.prompts.kind == "windows" and lab.tokenisation is not None and lab.oracle_training is not None
    assert lab.oracle.kind == "tiny"
    text = read_text(lab.prompts)
    tokenizer = train_tokenizer(lab.tokenisation, [text])
    ids = tokenizer(text[:500])["input_ids"]
    assert tokenizer.decode(ids) == text[:500]
    model = make_model(lab.oracle, len(tokenizer), 24, 0)
    again = make_model(lab.oracle, len(tokenizer), 24, 0)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    losses = train_on_text(model, np.array(tokenizer(text)["input_ids"]), lab.oracle_training, 0)
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.2
    assert losses == train_on_text(again, np.array(tokenizer(text)["input_ids"]), lab.oracle_training, 0)


def test_arms_start_from_the_same_student_on_the_same_prompts(conducted: Path) -> None:
    cells = cells_of(conducted)
    assert set(cells) == {"offline", "oracle_as_teacher", "online_student", "mixture_50"}
    starts = {arm: cell.golden[0] for arm, cell in cells.items()}
    assert len(set(starts.values())) == 1, starts
    assert cells["oracle_as_teacher"].teacher_golden == 0.0  # the oracle's distance from itself, exactly
    assert cells["offline"].teacher_golden == cells["online_student"].teacher_golden != 0
    ends = {cell.golden[-1] for cell in cells.values()}
    assert len(ends) == 4, "arms that differ must end differently"
    for cell in cells.values():
        assert cell.steps == tuple(range(0, 17, 2)) and None not in cell.golden
        assert (conducted / cell.run / "verdict.json").is_file()
    page = (conducted / "report.html").read_text()
    assert "not decidable" in page


def test_golden_is_measured_on_all_prompts_and_proxy_on_its_share(conducted: Path) -> None:
    curves = read_curves(conducted / cells_of(conducted)["offline"].run)
    golden, proxy, likelihood = (curves[name] for name in ("golden", "proxy", "reference_nll"))
    assert len(golden.prompt_ids) == len(likelihood.prompt_ids) == 24 and len(proxy.prompt_ids) == 16
    assert set(proxy.prompt_ids) < set(golden.prompt_ids)
    assert sorted(set(proxy.splits)) == ["selection", "test"]
    # NLL is forward KL plus the entropy of what was drawn: it exceeds it on average, and moves with it.
    assert (likelihood.per_token > golden.per_token).all()
    moved = np.corrcoef(likelihood.per_token, golden.per_token)[0, 1]
    assert moved > 0.9


def test_nothing_is_done_twice_and_a_change_redoes_only_what_depends_on_it(conducted: Path) -> None:
    lab = small()
    before = {step.address: ran(step, conducted) for step in in_order(Experiment(lab).cells())}
    assert before, "the miniature's steps are those of the fixture"
    conduct(lab, "tiny", conducted, 1, Show(quiet=True))
    assert all(ran(step, conducted) == before[step.address] for step in in_order(Experiment(lab).cells()))
    names = lambda changed: {s.name for s in in_order(Experiment(changed).cells()) if s.address not in before}  # noqa: E731
    assert names(small("learning_rate=1e-3")) == {"distil-offline-s0", "distil-oracle-as-teacher-s0"}
    assert "student-s0" not in names(small("teacher_tuning.epochs=3"))
    assert {"teacher-s0", "distil-offline-s0"} <= names(small("teacher_tuning.epochs=3"))
    assert "oracle" not in names(small("oracle_prompts=48")) and "teacher-s0" in names(small("oracle_prompts=48"))
    assert names(small("oracle_training.steps=31")) >= {"oracle", "teacher-s0", "student-s0", "distil-offline-s0"}
    assert names(small("seeds=[0, 1]")) and all(n.endswith("s1") for n in names(small("seeds=[0, 1]")))


def test_the_command_conducts_says_what_it_found_and_goes_on(tmp_path: Path) -> None:
    from potstill.cli.main import app

    chosen = ["lab", "hacking", "--output", str(tmp_path / "out"), "--workers", "1", *SMALL, "arms=[few_epochs]"]
    first = CliRunner().invoke(app, chosen)
    assert first.exit_code == 0, first.output
    said = " ".join(first.output.split())
    assert "distil-few-epochs-s0" in said and "not decidable" in said and "report.html" in said
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["cells"][0]["steps"] == [0, 1, 2, 3, 4, 5, 6]  # three epochs of two steps, twice an epoch
    again = CliRunner().invoke(app, chosen)
    assert again.exit_code == 0 and "distil-few-epochs-s0" not in again.output


def dense(name: str, num: int, seed: int, first: int = 0) -> Curve:
    rng = np.random.default_rng(seed)
    fall = 16 + 8 * np.exp(-np.arange(17) / 2)[:, None] + 0.05 * np.maximum(0, np.arange(17) - 6)[:, None]
    sums = fall + rng.normal(0, 3, (1, num)) + rng.normal(0, 0.5, (17, num))
    ids = np.array([f"p{i:05d}" for i in range(first, first + num)])
    splits = np.array(["selection", "test"])[np.arange(num) % 2]
    return Curve(name, 16 * np.arange(17), sums, np.full((17, num), 24.0), ids, splits, np.full(num, 17.0))


def test_a_labelled_run_keeps_label_and_detector_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    curves = {
        "golden": dense("golden", 4400, 0), "reference_nll": dense("reference_nll", 4400, 1),
        "proxy": dense("proxy", 1280, 2),
    }  # fmt: skip
    monkeypatch.setattr(labelled, "read_curves", lambda path: curves)
    run = labelled.of_run(tmp_path, {"arm": "offline"})
    mine = labelled.detector_prompts(curves["proxy"])
    assert mine.sum() == labelled.DETECTOR_PROMPTS
    seen = set(run.seen["proxy"].prompt_ids)
    assert seen == set(run.seen["reference_nll"].prompt_ids) == set(curves["proxy"].prompt_ids[mine])
    # Groups are means over all prompts but the detector's, so their mean is the mean over those.
    ours = np.array([name not in seen for name in curves["golden"].prompt_ids])
    golden = run.label["golden"]
    assert golden.sums.shape == (17, labelled.GOLDEN_GROUPS)
    np.testing.assert_allclose(golden.sums.mean(1), curves["golden"].sums[:, ours].mean(1), atol=0.02)
    path = labelled.save(run, tmp_path / "run.npz")
    assert path.stat().st_size < 60_000
    loaded = labelled.load(path, run.facts)
    np.testing.assert_allclose(loaded.label["golden"].sums, golden.sums, rtol=1e-6)
    np.testing.assert_allclose(loaded.seen["proxy"].sums, run.seen["proxy"].sums, atol=0.02)
    assert loaded.label["golden"].teacher is not None
    assert loaded.verdict().verdict == run.verdict().verdict


def test_groups_keep_the_errors_of_prompts(tmp_path: Path) -> None:
    """The U test on group means is as sure as on the prompts themselves, to a few percent of its p-value."""
    from potstill.diagnosis.curves import rise_test

    for seed, rise in itertools.product((0, 1), (True, False)):
        curve = dense("golden", 4096, seed)
        if not rise:
            curve = Curve(**{**{f: getattr(curve, f) for f in curve.__dataclass_fields__}, "sums": curve.sums
                             - 0.05 * np.maximum(0, np.arange(17) - 6)[:, None]})  # fmt: skip
        whole, small_one = rise_test(curve), rise_test(labelled.grouped(curve, labelled.GOLDEN_GROUPS))
        assert whole.passed() == small_one.passed() == rise


def test_too_few_prompts_give_no_label(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = {name: dense(name, 1280, 0) for name in ("golden", "proxy", "reference_nll")}
    monkeypatch.setattr(labelled, "read_curves", lambda path: few)
    with pytest.raises(ValueError, match="4096 are needed"):
        labelled.of_run(tmp_path, {})


def test_encoder_decoders_and_prompts_of_a_task_go_the_same_way(
    t5_folder: Path, prompt_file: Path, tmp_path: Path
) -> None:
    """The shape of the preset `paper`: an existing oracle, members cut from it, prompts from a file."""
    lab = HackingLab.model_validate(
        {
            "prompts": {"kind": "file", "prompts": {"path": str(prompt_file), "prompt": "prompt", "id": "id",
                                                    "prefix": "summarize: ", "chat": False}},
            "oracle": {"kind": "folder", "path": str(t5_folder)},
            "teacher": {"kind": "layers", "num_layers": 2}, "student": {"kind": "layers", "num_layers": 1},
            "teacher_tuning": {"epochs": 2, "evaluations": 2, "batch_rows": 4, "learning_rate": 1e-2},
            "student_tuning": {"epochs": 2, "evaluations": 2, "batch_rows": 4, "learning_rate": 1e-2},
            "oracle_prompts": 8, "distillation_prompts": 8, "held_out_prompts": 12, "proxy_prompts": 12,
            "completions_per_held_out_prompt": 2, "max_new_tokens": 4, "max_length": 64, "epochs": 8, "batch_rows": 4,
            "learning_rate": 1e-3, "evaluate_every_epochs": 1, "device": "cpu",
            "arms": ["online_student", "prompts_half"], "seeds": [0],
        }
    )  # fmt: skip
    with pytest.raises(LabError, match="has 24 prompts; the experiment wants 28"):
        conduct(lab, "paper", tmp_path / "few", 1, Show(quiet=True))
    lab = lab.model_copy(update={"held_out_prompts": 8, "proxy_prompts": 8})
    conduct(lab, "paper", tmp_path / "lab", 1, Show(quiet=True))
    cells = cells_of(tmp_path / "lab")
    assert set(cells) == {"online_student", "prompts_half"}
    for cell in cells.values():
        curves = read_curves(tmp_path / "lab" / cell.run)
        assert len(curves["golden"].prompt_ids) == 8 and cell.golden[-1] is not None
        lines = (tmp_path / "lab" / cell.run / "metrics.jsonl").read_text().splitlines()
        assert len(lines) == 16
    plans = (tmp_path / "lab" / cells["prompts_half"].run / "events.jsonl").read_text()
    assert '"num_prompts":4' in plans.replace(" ", "") and '"completions_per_prompt":2' in plans.replace(" ", "")


def test_proxy_cannot_have_more_prompts_than_golden() -> None:
    from potstill.config.monitor import MonitorConfig

    assert MonitorConfig(every_steps=1, max_prompts=8, proxy_prompts=8).proxy_prompts == 8
    with pytest.raises(ValueError, match="proxy_prompts 9 exceed max_prompts 8"):
        MonitorConfig(every_steps=1, max_prompts=8, proxy_prompts=9)
