"""Configuration: overrides, and every fault as an error that says how to mend it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT

from potstill.config import ConfigError, Run, load_run

QUICKSTART = ROOT / "recipes" / "quickstart.yaml"
Make = Callable[..., Run]


def test_on_is_a_key_like_any_other_and_numbers_are_numbers(tmp_path: Path) -> None:
    run = load_run(QUICKSTART, ["training.optimiser.learning_rate=1e-4"])
    assert run.objective.terms[0].on == ("teacher", "reference")
    assert run.training.optimiser.learning_rate == 1e-4


def test_overrides_reach_into_lists_and_unset_groups() -> None:
    run = load_run(QUICKSTART, ["objective.terms.0.divergence_temperature=2", "data.near_duplicates.on_found=drop"])
    assert run.objective.terms[0].divergence_temperature == 2  # type: ignore[union-attr]
    assert run.data.near_duplicates.on_found == "drop"


def test_what_is_dumped_reads_back_equal(make_run: Make, tmp_path: Path) -> None:
    run = make_run()
    path = tmp_path / "dumped.yaml"
    path.write_text(yaml.safe_dump(run.dump()))
    assert load_run(path) == run


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.stepz=3", "training.stepz: unknown key. Did you mean steps?"),
        ("objective.terms=[{kind: forward_kl, weight: 0, on: [teacher, reference]}]", "terms sum to zero"),
        ("objective.terms.0.on=[student]", "terms are `on` \\['student'\\] rows|feeds \\['teacher'\\] rows"),
        ("source.fractions={teacher: 0.5}", "sum to 1"),
        ("source.fractions={reference: 1.0}", "would have no effect"),
        ("training.steps=0", "training.steps"),
        ("training.micro_batch_rows=99", "exceeds batch_rows"),
        ("student={kind: layers}", "exactly one of num_layers and layers"),
        ("student={kind: hub}", "student"),
        ("teacher={kind: hub, id: a/b, revision: main}", "full commit hash"),
        (
            "data.completions.sampling={sampling_temperature: 0, top_p: 0.5}",
            "no effect at sampling_temperature 0",
        ),
        ("nonsense", "not of the form key.path=value"),
        ("seed.deeper=1", "is a value, not a group"),
        ("objective.terms.7.weight=1", "no index of a list"),
    ],
)
def test_bad_settings_are_refused(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_run(QUICKSTART, [override])


def test_cross_entropy_on_the_students_own_samples_is_refused(make_run: Make) -> None:
    terms: list[dict[str, Any]] = [{"kind": "cross_entropy", "weight": 1.0, "on": ["student"]}]
    with pytest.raises(ConfigError, match="only sharpens what it says already"):
        make_run(objective__terms=terms)


def test_the_same_term_twice_is_refused(make_run: Make) -> None:
    term = {"kind": "forward_kl", "weight": 1.0, "on": ["teacher", "reference"]}
    with pytest.raises(ConfigError, match="two terms have one name"):
        make_run(objective__terms=[term, term])


def test_a_missing_file_names_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"no configuration file.*quickstart\.yaml"):
        load_run(ROOT / "recipes" / "quikstart.yaml")


def test_a_key_that_stands_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "twice.yaml"
    path.write_text("seed: 1\nseed: 2\n")
    with pytest.raises(ConfigError, match="these keys stand twice: seed"):
        load_run(path)


def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "list.yaml"
    path.write_text("- 1\n")
    with pytest.raises(ConfigError, match="must hold a mapping"):
        load_run(path)


def test_configurations_are_frozen(make_run: Make) -> None:
    with pytest.raises(ValueError, match="frozen"):
        make_run().training.steps = 4  # type: ignore[misc]


def test_every_setting_has_its_sentence_or_a_plain_name() -> None:
    """A field without a docstring must be one whose name says it all."""
    schema = Run.model_json_schema()
    plain = {"kind", "teacher", "student", "data", "source", "objective", "training", "monitor", "checkpoints",
             "prompts", "held_out", "completions", "terms", "optimiser", "sampling", "near_duplicates", "model",
             "fraction", "path", "file", "id", "architecture", "hidden_size", "num_layers", "num_heads",
             "format", "adam_beta1", "adam_beta2", "adam_epsilon", "groups"}  # fmt: skip
    missing = [
        f"{name}.{field}"
        for name, definition in schema["$defs"].items()
        for field, facts in definition.get("properties", {}).items()
        if "description" not in facts and field not in plain
    ]
    assert missing == []


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (-1, "weight: Input should be greater than or equal to 0, found -1$"),
        ({"kind": "linear", "start": 1.0}, r"weight\.linear\.end: this setting is required$"),
        ({"kind": "lin"}, r"weight: Input tag 'lin'.*'linear', 'cosine', 'wsd'$"),
    ],
)
def test_a_wrong_weight_is_explained_once_as_what_it_was_meant_to_be(
    make_run: Make, weight: object, message: str
) -> None:
    term = {"kind": "forward_kl", "weight": weight, "on": ["teacher", "reference"]}
    with pytest.raises(ConfigError, match=message):
        make_run(objective__terms=[term])


def test_a_setting_of_another_kind_is_named_as_such(make_run: Make) -> None:
    term = {"kind": "logit_mse", "weight": 1.0, "on": ["teacher", "reference"], "divergence_temperature": 2.0}
    with pytest.raises(ConfigError, match="a setting of other kinds, and would have no effect here"):
        make_run(objective__terms=[term])
