"""The pretraining lab from corpus to page, on a miniature: what results.json says is what the models' files say."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from pretraining_grid_case import GRID, PART, STEPS, grid

from potstill.config.pretraining import PretrainingLab
from potstill.lab import pretraining_conducting
from potstill.lab.pretraining import Grid, Model
from potstill.lab.pretraining_conducting import conduct_pretraining
from potstill.lab.pretraining_reading import made_models
from potstill.lab.pretraining_results import best_weights, write_results
from potstill.lab.steps import Step, in_order
from potstill.models.shapes import shape_parameters
from potstill.report.pretraining_reading import read_results
from potstill.training.show import Show

TEACHERS = {"small": ("small", 1920), "large": ("large", 1920)}
T_ONE = 12.706204736  # Student's t of one degree of freedom, 97.5 %


@pytest.fixture(scope="module")
def conducted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything: teachers, twins, students at two weights, two variants, another size at the best weights."""
    folder = tmp_path_factory.mktemp("lab")
    conduct_pretraining(grid(), "mini", folder, 1, Show(quiet=True))
    return folder


@pytest.fixture(scope="module")
def results(conducted: Path) -> dict[str, Any]:
    return dict(json.loads((conducted / "results.json").read_text()))


def every_model(root: Path) -> list[Model]:
    one = Grid(grid())
    weights = best_weights(made_models(one, root, one.main()), "small")
    return [*one.main(), *one.students("large", weights)]


def measures(root: Path, model: Model) -> dict[str, Any]:
    return dict(json.loads((Grid(grid()).measured(model).folder(root) / "measures.json").read_text()))


def nats(root: Path, model: Model, name: str = "held_out") -> float:
    return float(measures(root, model)["perplexity"][name]["nats_per_token"])


def student(size: str, seed: int, teacher: str, weight: float, variant: str = "") -> Model:
    return Model("student", size, 1280, seed, TEACHERS[teacher], weight, variant)


def twin(size: str, seed: int) -> Model:
    return Model("twin", size, 1280, seed)


# -- the whole ----------------------------------------------------------------------------


def test_results_have_what_their_readers_expect(conducted: Path, results: dict[str, Any]) -> None:
    assert set(results) == {"lab", "preset", "setting", "seeds", "hardware", "seconds", "sizes", "corpus", "models",
                            "differences", "best_weights", "bins", "claims", "laws"}  # fmt: skip
    assert (results["lab"], results["preset"], results["seeds"]) == ("pretraining", "mini", [1, 2])
    assert results["setting"]["sizes.large.hidden_size"] == 24 and "seeds" not in results["setting"]
    corpus = results["corpus"]
    assert {name: facts["domain"] for name, facts in corpus["sets"].items()} == {
        "train": "train", "held_out": "in", "technical": "out"}  # fmt: skip
    assert corpus["block_tokens"] == 32 and corpus["train_tokens"] > 1920 and "technical" in corpus["contamination"]
    assert "examples" not in corpus["contamination"]["technical"], "text belongs to its owners"
    assert [one["number"] for one in results["claims"]] == [1, 2, 3, 4]
    assert results["laws"]["version"] == 1
    assert json.loads((conducted / "lab.json").read_text())["preset"] == "mini"
    read = read_results(conducted / "results.json")
    assert len(read.cells) == 6 and len(read.ablations) == 2
    page = (conducted / "report.html").read_text()
    assert "label smoothing" in page and len(page) > 10_000


def test_every_model_is_told_with_what_it_took(conducted: Path, results: dict[str, Any]) -> None:
    models, found = every_model(conducted), {one["id"]: one for one in results["models"]}
    assert len(found) == len(results["models"]) == len(models) == 2 + 4 + 8 + 4 + 4
    vocabulary = results["corpus"]["vocabulary"]
    shapes = {size: shape_parameters(grid().sizes[size], vocabulary, 32) for size in ("small", "large")}
    for model in models:
        one = found[Grid(grid()).trained(model).address]
        every, body, computing = shapes[model.size]
        assert (one["role"], one["size"], one["seed"], one["weight"]) == (
            model.role, model.size, model.seed, model.weight)  # fmt: skip
        assert (one["parameters"], one["body_parameters"], one["tokens"]) == (every, body, model.tokens)
        assert one["tokens_per_parameter"] == pytest.approx(model.tokens / every)
        assert one["perplexity"] == measures(conducted, model)["perplexity"]
        assert one["choices"] == measures(conducted, model)["choices"]
        asked = model.teacher is not None and model.variant != "label smoothing"
        forward = 2.0 * shapes[model.teacher[0]][2] * model.tokens if asked and model.teacher else 0.0
        assert one["flops"] == pytest.approx({"training": 6.0 * computing * model.tokens, "teacher_forward": forward})
        assert (one["training_loss"] is None) == (model.weight == 1.0), "no cross-entropy is summed at weight 1"
        if asked:
            assert found[one["teacher"]["id"]]["role"] == "teacher"
    assert results["seconds"] == pytest.approx(sum(one["seconds"] for one in found.values()), abs=0.1)


def test_differences_are_student_minus_twin_of_the_same_seed(conducted: Path, results: dict[str, Any]) -> None:
    """By hand from measures.json: both seeds, their mean, and Student's interval."""
    assert len(results["differences"]) == 4 + 2 + 2
    parameters = {name: facts["parameters"] for name, facts in results["sizes"].items()}
    for cell in results["differences"]:
        assert cell["seeds"] == [1, 2] and cell["tokens"] == 1280
        assert cell["tokens_per_parameter"] == pytest.approx(1280 / parameters[cell["size"]])
        assert cell["teacher"]["tokens_per_parameter"] == pytest.approx(1920 / parameters[cell["teacher"]["size"]])
        models = [
            student(cell["size"], seed, cell["teacher"]["size"], cell["weight"], cell["variant"]) for seed in (1, 2)
        ]
        twins = [twin(cell["size"], seed) for seed in (1, 2)]
        for name in ("held_out", "technical"):
            by_seed = [nats(conducted, s, name) - nats(conducted, t, name) for s, t in zip(models, twins, strict=True)]
            agrees(cell["measures"][name], by_seed)
        for key in ("accuracy", "margin"):
            by_seed = [
                measures(conducted, s)["choices"]["minimal pairs"][key]
                - measures(conducted, t)["choices"]["minimal pairs"][key]
                for s, t in zip(models, twins, strict=True)
            ]
            agrees(cell["measures"][f"minimal pairs {key}"], by_seed)
        order = ["small", "large"]
        rank = order.index(cell["teacher"]["size"]) - order.index(cell["size"])
        assert cell["relation"] == {-1: "weak-to-strong", 0: "same-level", 1: "strong-to-weak"}[rank]
        by = nats(conducted, Model("teacher", cell["teacher"]["size"], 1920, 42))
        gap = by - sum(nats(conducted, t) for t in twins) / 2
        assert cell["gap"] == (None if cell["variant"] == "label smoothing" else pytest.approx(gap, abs=1e-9))
    domains = {name: (one["domain"], one["better"]) for name, one in results["differences"][0]["measures"].items()}
    assert domains["held_out"] == ("in", "lower") and domains["technical"] == ("out", "lower")
    assert domains["minimal pairs margin"] == ("downstream", "higher")


def agrees(found: dict[str, Any], by_seed: list[float]) -> None:
    mean = sum(by_seed) / 2
    half = T_ONE * abs(by_seed[0] - by_seed[1]) / 2
    assert found["by_seed"] == pytest.approx(by_seed, abs=1e-12)
    assert [found[k] for k in ("mean", "low", "high")] == pytest.approx([mean, mean - half, mean + half], abs=1e-7)


def test_the_grid_is_all_pairs_of_sizes(results: dict[str, Any]) -> None:
    main = [cell for cell in results["differences"] if not cell["variant"]]
    pairs = {(cell["size"], cell["teacher"]["size"]) for cell in main}
    assert pairs == {(a, b) for a in ("small", "large") for b in ("small", "large")}
    assert sum(cell["size"] == "large" for cell in main) == 2, "completing sizes have one weight a teacher"


def test_best_weights_have_the_largest_mean_gain_and_completing_sizes_are_given_them(
    conducted: Path, results: dict[str, Any]
) -> None:
    by_hand = {}
    for name in TEACHERS:
        change = {
            weight: sum(nats(conducted, student("small", seed, name, weight)) - nats(conducted, twin("small", seed))
                        for seed in (1, 2)) / 2
            for weight in (0.5, 1.0)
        }  # fmt: skip
        by_hand[name] = min(change, key=change.__getitem__)
    told = {(b["size"], b["teacher"]["size"]): b for b in results["best_weights"] if b["measure"] == "held_out"}
    assert {name: told["small", name]["weight"] for name in TEACHERS} == by_hand
    assert {name: told["large", name]["weight"] for name in TEACHERS} == by_hand, "they had no other"
    assert {b["measure"] for b in results["best_weights"]} >= {"held_out", "technical"}
    for measure in {b["measure"] for b in results["best_weights"]}:
        for one in (b for b in results["best_weights"] if b["measure"] == measure):
            cells = [c for c in results["differences"] if not c["variant"] and c["size"] == one["size"]
                     and c["teacher"]["id"] == one["teacher"]["id"]]  # fmt: skip
            best = min if cells[0]["measures"][measure]["better"] == "lower" else max
            assert one["mean"] == best(c["measures"][measure]["mean"] for c in cells)


def test_bins_are_told_for_every_cell_and_come_back_to_its_mean(results: dict[str, Any]) -> None:
    assert len(results["bins"]) == 2 * len(results["differences"])
    cells = {(c["size"], c["teacher"]["id"], c["weight"], c["variant"]): c for c in results["differences"]}
    for one in results["bins"]:
        cell = cells[one["size"], one["teacher"]["id"], one["weight"], one["variant"]]
        assert len(one["mean"]) == len(one["edges"]) - 1 == {"difficulty": 5, "position": 8}[one["by"]]
        assert sum(one["mean"]) / len(one["mean"]) == pytest.approx(cell["measures"]["held_out"]["mean"], abs=2e-3)


def test_nothing_is_done_twice(conducted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second call makes no step; it writes the same results again (the page is left out: it takes seconds)."""
    done = {path: path.stat().st_mtime_ns for path in conducted.glob("steps/*/done.json")}
    before = json.loads((conducted / "results.json").read_text())
    assert len(done) == 1 + 2 + 2 * 22
    monkeypatch.setattr(pretraining_conducting, "write_pretraining_report", lambda path: path)
    conduct_pretraining(grid(), "mini", conducted, 1, Show(quiet=True))
    assert {path: path.stat().st_mtime_ns for path in conducted.glob("steps/*/done.json")} == done
    assert json.loads((conducted / "results.json").read_text()) == before


# -- stopped ---------------------------------------------------------------------------------


def stopped(whole: Path, folder: Path, steps: list[Step]) -> Path:
    """A folder in which only these steps are done."""
    (folder / "steps").mkdir(parents=True)
    for step in in_order(steps):
        (folder / "steps" / step.address).symlink_to(step.folder(whole))
    return folder


def test_a_stopped_grid_tells_what_it_has(conducted: Path, tmp_path: Path) -> None:
    """Nothing but the corpus, teachers, twins, a student of one seed, all but some of the second seed's."""
    one, main = Grid(grid()), Grid(grid()).main()
    counts = {"corpus": 0, "teachers": 2, "twins": 6, "first": 7, "uneven": 12, "ablation": 16}
    found = {}
    for name, count in counts.items():
        steps = [one.corpus(), *(one.measured(model) for model in main[:count])]
        root = stopped(conducted, tmp_path / name, steps)
        path = write_results(grid(), "mini", root, made_models(one, root, every_model(conducted)), law=False)
        found[name] = json.loads(path.read_text())
        assert len(found[name]["models"]) == count
        read_results(path)
    assert [len(found[name]["differences"]) for name in counts] == [0, 0, 0, 1, 4, 6]
    assert [len(found[name]["claims"]) for name in counts] == [0, 0, 0, 4, 4, 4]
    alone = found["first"]["differences"][0]
    assert alone["seeds"] == [1] and alone["measures"]["held_out"]["low"] is None
    assert sorted(len(cell["seeds"]) for cell in found["uneven"]["differences"]) == [1, 1, 2, 2]
    assert {claim["status"] for claim in found["uneven"]["claims"]} == {"not decidable"}


def test_a_grid_without_laws_or_choices_has_a_page(conducted: Path, tmp_path: Path) -> None:
    """One cell of one seed: laws of status none, every place of the page stands."""
    from potstill.report.pretraining import write_pretraining_report

    one = Grid(grid())
    root = stopped(conducted, tmp_path / "lab", [one.measured(model) for model in one.main()[:7]])
    path = write_results(grid(), "mini", root, made_models(one, root, one.main()), law=True)
    held_out = json.loads(path.read_text())["laws"]["measures"]["held_out"]
    assert held_out["difference"]["status"] == "none"
    write_pretraining_report(path)
    assert "not decidable" in (root / "report.html").read_text()


# -- killed ----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("steps_before_death", [7, 32])
def test_a_killed_conductor_goes_on_to_the_same_bytes(
    conducted: Path, tmp_path: Path, steps_before_death: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in the teacher's training, and in the student's between two checkpoints."""
    root = tmp_path / "lab"
    command = [sys.executable, str(ROOT / "tests" / "pretraining_grid_case.py"), str(root), str(steps_before_death)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert steps_before_death < sum(STEPS) and not (root / "results.json").exists()
    kept = {path: path.stat().st_mtime_ns for path in root.glob("steps/*/done.json")}
    monkeypatch.setattr(pretraining_conducting, "write_pretraining_report", lambda path: path)
    part = PretrainingLab.model_validate(PART)
    conduct_pretraining(part, "part", root, 1, Show(quiet=True))
    assert all(path.stat().st_mtime_ns == when for path, when in kept.items()), "what was done is not done again"
    assert len(kept) == (1 if steps_before_death == 7 else 6)
    for model in Grid(part).main():
        step = Grid(part).trained(model)
        assert step == Grid(PretrainingLab.model_validate(GRID)).trained(model)
        for name in ("run/model/model.safetensors", "run/metrics.jsonl"):
            assert (step.folder(root) / name).read_bytes() == (step.folder(conducted) / name).read_bytes(), name
        assert measures(root, model) == measures(conducted, model)
        assert not (step.folder(root) / "run" / "checkpoints").exists()
