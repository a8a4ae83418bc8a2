"""The grid of the pretraining lab: which models there are, what their addresses depend on, and what it will cost."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from pretraining_case import CORPUS, LAB, SHAPE
from pydantic import TypeAdapter, ValidationError
from typer.testing import CliRunner

from potstill.config.load import load_pretraining_lab
from potstill.config.pretraining import PretrainingLab, Variant
from potstill.config.schedule import WeightSchedule
from potstill.lab.conducting import PRETRAINING_PRESETS, flat, preset_path
from potstill.lab.pretraining import PLAIN, Grid, Model, complement, in_words, teacher_name, terms_of
from potstill.lab.pretraining_conducting import conduct_pretraining
from potstill.lab.pricing import Bill, bill_lines, price
from potstill.lab.steps import in_order
from potstill.models.shapes import shape_parameters
from potstill.training.show import Show

OTHER = CORPUS | {"train": [{"kind": "generated", "corpus": "prose", "chars": 60000}]}
VARIANTS: dict[str, dict[str, Any]] = {
    "temperature 2": {"divergence_temperature": 2.0},
    "top-k 10": {"top_k": 10},
    "sampled 12": {"draws": 12},
    "label smoothing": {"uniform_teacher": True},
    "falling": {"weight_schedule": {"kind": "linear", "start": 0.8, "end": 0.0}},
    "beside": {"full_cross_entropy": True},
    "other corpus": {"teacher_corpus": OTHER},
}


def small(**changes: Any) -> PretrainingLab:
    return PretrainingLab.model_validate(LAB | changes)


def preset(name: str) -> PretrainingLab:
    return load_pretraining_lab(preset_path(name, "pretraining"))


def addresses(lab: PretrainingLab) -> dict[str, str]:
    """Name -> address of every step."""
    grid = Grid(lab)
    steps = in_order([grid.measured(m) for m in grid.main()])
    return {step.name: step.address for step in steps}


def moved(lab: PretrainingLab) -> set[str]:
    """Names of the steps that a change makes anew."""
    before = addresses(small())
    return {name for name, address in addresses(lab).items() if before.get(name) != address}


# -- which models ------------------------------------------------------------------------


def test_the_full_preset_has_nine_pairs_of_sizes_and_every_model_once() -> None:
    lab = preset("tiny-full")
    grid = Grid(lab)
    weights = {(t.size, t.tokens): (0.5,) for t in grid.teachers()}
    models = [*grid.main(), *(m for size in lab.completing for m in grid.students(size, weights))]
    assert len(set(models)) == len({m.name for m in models}) == len(models)
    assert Counter(m.role for m in models) == {"teacher": 6, "twin": 9, "student": 3 * 6 * 3 + 2 * 3 * 6}
    pairs = {(m.size, m.teacher[0]) for m in models if m.teacher is not None}
    assert pairs == {(a, b) for a in lab.sizes for b in lab.sizes}
    for student in (m for m in models if m.role == "student"):
        assert Model("twin", student.size, student.tokens, student.seed) in models
    steps = in_order([grid.measured(m) for m in models])
    assert len(steps) == 1 + 6 + 2 * len(models), "the corpus, what teachers say, and each model trained and measured"


def test_seeds_stand_together_and_a_teacher_without_a_weight_has_no_student() -> None:
    grid = Grid(small())
    assert [m.seed for m in grid.students("small")] == [1] * 4 + [2] * 4
    assert {m.teacher for m in grid.students("large", {("large", 1920): (0.5,)})} == {("large", 1920)}


def test_presets_parse_and_tiny_goes_on_as_tiny_full() -> None:
    trees = {name: preset(name).model_dump(mode="json") for name in PRETRAINING_PRESETS}
    assert trees["tiny-full"].pop("completing") == ["0.2M", "2M"] and trees["tiny"].pop("completing") == []
    assert trees["tiny"] == trees["tiny-full"]
    assert trees["small"]["targets"] == "online"
    tiny, full = addresses(preset("tiny")), addresses(preset("tiny-full"))
    assert tiny.items() < full.items(), "what tiny has made is not made again"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"teachers": LAB["teachers"] | {"seed": 2}}, "teachers.seed 2 is a student's too"),  # type: ignore[operator]
        ({"students": ["huge"]}, "students names sizes"),
        ({"students": ["small", "small"]}, "each once"),
        ({"completing": ["small"]}, "completing and students both"),
        ({"weights": [0.0]}, "above 0 and up to 1"),
        ({"weights": [0.5, 0.5]}, "each once"),
        ({"seeds": [1, 1]}, "seeds must stand once"),
        ({"student_tokens": 1300}, "no whole number of steps of 64"),
    ],
)
def test_grids_that_cannot_be_are_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        small(**changes)


def test_tokens_are_said_in_words() -> None:
    assert [in_words(n) for n in (614_400, 2_457_600, 999, 3_000_000_000)] == ["614k", "2.46M", "999", "3B"]
    assert teacher_name("0.9M", 1_024_000) == "0.9M@1.02M"


# -- addresses ------------------------------------------------------------------------------


def test_a_changed_weight_leaves_teachers_twins_and_other_weights() -> None:
    changed = moved(small(weights=[0.5, 0.25]))
    assert changed and all("-w0.25-" in name for name in changed)
    assert sum(not name.startswith("measure-") for name in changed) == 4


def test_measuring_changes_leave_training_as_it_is() -> None:
    changed = moved(small(measuring={"minimal_pairs": 16}))
    every = addresses(small())
    assert changed == {name for name in every if name.startswith("measure-")}
    assert moved(small(measuring={"minimal_pairs": 32, "difficulty_bins": 9, "position_bins": 3})) == set()


def test_other_settings_make_anew_what_depends_on_them_and_nothing_else() -> None:
    every = set(addresses(small()))
    assert moved(small(learning_rate=1e-3)) == every - {"corpus"}
    assert moved(small(corpus=OTHER)) == every
    longer = moved(small(teachers={"sizes": ["small", "large"], "tokens": [3840]}))
    assert longer and not any("twin" in name for name in longer)
    larger = moved(small(sizes={"small": SHAPE, "large": SHAPE | {"hidden_size": 32}}))
    assert larger and all("large" in name for name in larger)
    assert all(name.endswith("s3") for name in moved(small(seeds=[1, 2, 3])))
    varied = moved(small(variants={name: tree for name, tree in VARIANTS.items() if name != "other corpus"}))
    assert "student-small-by-small@1.92k-w0.5-beside-s1" in varied and varied.isdisjoint(every)


def test_order_of_what_is_listed_decides_nothing() -> None:
    turned = small(
        seeds=[2, 1], weights=[1.0, 0.5], teachers={"sizes": ["large", "small"], "tokens": [1920]},
        sizes={"large": SHAPE | {"hidden_size": 24}, "small": SHAPE},
    )  # fmt: skip
    assert addresses(turned) == addresses(small())


def test_student_and_twin_differ_in_the_objective_alone() -> None:
    grid = Grid(small())
    twin = flat(grid.run(Model("twin", "small", 1280, 1)).model_dump(mode="json"))
    student = flat(grid.run(Model("student", "small", 1280, 1, ("large", 1920), 0.5)).model_dump(mode="json"))
    assert {key for key in twin if twin[key] != student[key]} == {"objective.terms"}
    seeds = flat(grid.run(Model("twin", "small", 1280, 2)).model_dump(mode="json"))
    assert {key for key in twin if twin[key] != seeds[key]} == {"seed"}


# -- mixtures and variants ---------------------------------------------------------------------


def test_weight_0_is_plain_and_weights_share_out_one() -> None:
    assert terms_of(0.0) == [PLAIN]
    assert [t["kind"] for t in terms_of(1.0)] == ["forward_kl"]
    for weight in (0.1, 0.2, 0.3, 0.9):
        entropy, divergence = terms_of(weight)
        assert (entropy["weight"], divergence["weight"]) == (round(1 - weight, 12), weight)


@pytest.mark.parametrize(
    "tree",
    [
        {"kind": "linear", "start": 0.9, "end": 0.1},
        {"kind": "cosine", "start": 0.0, "end": 1.0},
        {"kind": "wsd", "start": 0.1, "peak": 0.8, "end": 0.3, "rise_share": 0.25, "fall_share": 0.5},
    ],
)
def test_complement_and_schedule_are_one_at_every_step(tree: dict[str, Any]) -> None:
    schedules = TypeAdapter(WeightSchedule)
    weight = schedules.validate_python(tree)
    rest = schedules.validate_python(complement(weight))
    for step in range(101):
        assert weight.at(step / 100) + rest.at(step / 100) == pytest.approx(1.0, abs=1e-12)
    assert len({round(weight.at(step / 100), 6) for step in range(101)}) > 20


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_changes_one_thing(name: str) -> None:
    """Terms, what is done to the teacher, or who the teacher is: one of them differs from the main grid's cell."""
    grid = Grid(small(variants=VARIANTS))
    main = Model("student", "small", 1280, 1, ("small", 1920), 0.5)
    other = Model("student", "small", 1280, 1, ("small", 1920), 0.5, name)
    one, two = grid.trained(main), grid.trained(other)
    runs = [flat(grid.run(model).model_dump(mode="json")) for model in (main, other)]
    places = {key for key in runs[0] if runs[0][key] != runs[1][key]}
    assert places <= {"objective.terms"}
    told = {k for k in ("top_k", "draws", "uniform_teacher") if two.facts.get(k)}
    needs = [{role: step.address for role, step in s.needs.items()} for s in (one, two)]
    taught = needs[0] != needs[1]
    assert one.address != two.address
    if name == "label smoothing":
        assert not places and told == {"uniform_teacher"} and set(needs[1]) == {"corpus"}
    elif name == "other corpus":
        assert not places and not told and needs[0]["teacher"] != needs[1]["teacher"]
        assert needs[0]["corpus"] == needs[1]["corpus"], "the student reads the main corpus"
    else:
        assert bool(places) + len(told) == 1 and not taught
    if name == "beside":
        assert [t["weight"] for t in terms_of(0.5, grid.variant(other))] == [1.0, 0.5]


@pytest.mark.parametrize(
    "tree", [{}, {"top_k": 10, "draws": 12}, {"divergence_temperature": 2, "uniform_teacher": True}]
)
def test_variants_of_no_or_two_things_are_refused(tree: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="a variant changes one thing"):
        Variant.model_validate(tree)


def test_ablations_lie_where_they_are_asked_for() -> None:
    chosen = {name: VARIANTS[name] for name in ("temperature 2", "label smoothing")}
    every = Counter(m.variant for m in Grid(small(variants=chosen)).ablations())
    assert every == {"temperature 2": 8, "label smoothing": 4}, "no teacher is one teacher, not two"
    cells = {"teachers": ["large@1.92k"], "weights": [0.5]}
    found = list(Grid(small(variants=chosen, ablation=cells)).ablations())
    assert Counter(m.variant for m in found) == {"temperature 2": 2, "label smoothing": 2}
    assert {m.teacher for m in found} == {("large", 1920)} and {m.weight for m in found} == {0.5}


# -- prices ------------------------------------------------------------------------------------

SMALL, LARGE = 2256 + 300 * 16, 4136 + 300 * 24  # body and head, counted by hand: see below


def prices(bill: Bill) -> dict[str, tuple[int, float]]:
    return {one.what: (one.models, one.flops) for one in bill.prices}


def test_flops_are_six_n_for_training_and_two_n_for_a_teacher() -> None:
    """A layer of width 16: norms 32 + 32, attention 816 + 272, feed-forward 544 + 528; a last norm of 32."""
    lab = small()
    assert [shape_parameters(lab.sizes[size], 300, 16)[2] for size in ("small", "large")] == [SMALL, LARGE]
    kept = price(lab, 300, 1)
    training = {
        "training teachers": (2, 6.0 * 1920 * (SMALL + LARGE)),
        "training twins": (2, 6.0 * 1280 * SMALL * 2),
        "training students": (8, 6.0 * 1280 * SMALL * 8),
    }
    once = {"teachers' forward passes": (2, 2.0 * 1280 * (SMALL + LARGE))}
    assert prices(kept) == training | once
    assert kept.kept_bytes == 4 * 1280 * (16 + 24)
    online = price(small(targets="online"), 300, 1)
    assert prices(online) == training | {"teachers' forward passes": (8, 2.0 * 1280 * 4 * (SMALL + LARGE))}
    assert online.kept_bytes == 0
    assert all(one.seconds > 0 for one in kept.prices) and kept.hours(1) == pytest.approx(2 * kept.hours(2))
    assert kept.weight_bytes == 4 * (11 * shape_parameters(lab.sizes["small"], 300, 16)[0]
                                     + shape_parameters(lab.sizes["large"], 300, 16)[0])  # fmt: skip


def test_variants_and_completing_sizes_are_priced() -> None:
    """Other text needs teachers of its own; a uniform teacher is asked by nobody."""
    chosen = {name: VARIANTS[name] for name in ("label smoothing", "other corpus")}
    cells = {"weights": [0.5], "teachers": ["small@1.92k"]}
    more: dict[str, Any] = {"variants": chosen, "ablation": cells, "completing": ["large"]}
    found = prices(price(small(**more), 300, 1))
    assert found["training teachers"] == (3, 6.0 * 1920 * (2 * SMALL + LARGE))
    assert found["training twins"] == (4, 6.0 * 1280 * 2 * (SMALL + LARGE))
    assert found["training students"] == (8 + 4 + 4, 6.0 * 1280 * (12 * SMALL + 4 * LARGE))
    assert found["teachers' forward passes"] == (3, 2.0 * 1280 * (2 * SMALL + LARGE))
    online = prices(price(small(targets="online", **more), 300, 1))["teachers' forward passes"]
    assert online == (8 + 2 + 4, 2.0 * 1280 * ((4 + 2 + 2) * SMALL + (4 + 2) * LARGE))


def test_a_dry_run_says_the_four_kinds_apart_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from potstill.cli.main import app

    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(LAB))
    done = CliRunner().invoke(app, ["lab", "pretraining", "--dry-run", "--config", "mine.yaml", "--workers", "2",
                                    "seeds=[5]"])  # fmt: skip
    assert done.exit_code == 0, done.output
    lines = {line.strip()[:26].strip(): line.split() for line in done.output.splitlines() if line.strip()}
    models = {what: int(lines[what][2 if what.startswith("training") else 3]) for what in (
        "training teachers", "teachers' forward passes", "training twins", "training students")}  # fmt: skip
    assert list(models.values()) == [2, 2, 1, 4]
    assert "together" in lines and "kept targets 0.00 GB" in done.output
    assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]


def test_prices_are_said_in_columns() -> None:
    found = bill_lines(price(small(), 300, 1), 2)
    assert len(found) == 9 and len({len(line) for line in found[1:5]}) == 1


def test_without_the_device_the_amounts_are_told_and_hours_are_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    bill = price(small(device="cuda"), 300, 1)
    assert [one.flops for one in bill.prices] == [one.flops for one in price(small(), 300, 1).prices]
    found = bill_lines(bill, 1)
    assert all(line.endswith("       ?") for line in found[1:6])
    assert any("hours are not known" in line and "no GPU" in line for line in found)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"device": "cuda"}, "no GPU is visible"),
        ({"corpus": LAB["corpus"] | {"train": [{"kind": "files", "paths": ["nowhere/*.txt"]}]}}, "no file matches"),
    ],
)
def test_what_is_not_there_is_told_before_a_folder_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], expected: str
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ValueError, match=expected):
        conduct_pretraining(small(**change), "small", tmp_path / "lab", 1, Show(quiet=True))
    assert not (tmp_path / "lab").exists()
