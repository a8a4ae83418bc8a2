"""Training from a cache of targets is training with the teacher; `potstill cache` from end to end."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cache_case import CPU, SETTINGS, VOCABULARY, header, models, rows, write
from torch import Tensor
from typer.testing import CliRunner

from potstill.cached_teacher import CachedTeacher, open_cached, planned
from potstill.cli.main import app
from potstill.config import ConfigError, Run
from potstill.config.objective import ObjectiveConfig
from potstill.config.training import Optimiser, Training
from potstill.data.cache_index import CacheError, Header
from potstill.data.collate import Layout, collate
from potstill.data.targets_cache import TargetsCache
from potstill.losses.objective import Objective
from potstill.models.load import fingerprint
from potstill.models.vocabulary import Alignment
from potstill.sources import Planned
from potstill.targets import TeacherTargets
from potstill.teachers import LocalTeacher
from potstill.training.cache_run import cache_targets
from potstill.training.caching import complete
from potstill.training.distil import distil
from potstill.training.loop import Trainer
from potstill.training.parallel import World
from potstill.training.show import Show
from potstill.training.signals import Stopped

# -- training ----------------------------------------------------------------


class AllRows:
    """A source whose every step is the first twelve rows."""

    plans: Sequence[Any] = ()

    def planned(self, step: int) -> list[Planned]:
        return [Planned("teacher", (i * 5 + step) % 12) for i in range(12)]

    def epoch(self, step: int) -> float:
        return float(step)

    def replan(self, plan: object) -> None:
        raise AssertionError


def objective(temperature: float = 1.0, kind: str = "forward_kl") -> Objective:
    terms = [
        {"kind": kind, "weight": 0.7, "on": ["teacher"], "divergence_temperature": temperature},
        {"kind": "cross_entropy", "weight": 0.3, "on": ["teacher"]},
    ]
    return Objective(ObjectiveConfig.model_validate({"terms": terms, "head_memory_mb": 0.005}))


def trainer(teacher: Any, family: str = "llama", made: Objective | None = None, micro: int | None = 5) -> Trainer:
    _, student, layout = models(family)
    config = Training(
        steps=9, batch_rows=12, micro_batch_rows=micro, precision="fp32", optimiser=Optimiser(learning_rate=3e-3)
    )
    optimiser = torch.optim.AdamW(student.parameters(), lr=3e-3)
    world = World(0, 1, CPU)
    return Trainer(student, optimiser, made or objective(), AllRows(), rows(12), layout, teacher, config, world)  # type: ignore[arg-type]


def trained(teacher: Any, family: str = "llama", steps: int = 4, made: Objective | None = None) -> list[float]:
    run = trainer(teacher, family, made)
    return [run.train_step()["loss"] for _ in range(steps)]


def from_memory(family: str = "llama") -> LocalTeacher:
    teacher, _, layout = models(family)
    return LocalTeacher(teacher, rows(12), layout, Alignment(None, VOCABULARY), "teacher-1", 64, CPU, range(12))


def from_cache(folder: Path) -> CachedTeacher:
    made = CachedTeacher(TargetsCache(folder), rows(12), range(12))
    made.prepare(lambda count, tokens: None)
    return made


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_training_from_fp32_hidden_states_is_training_with_the_teacher(tmp_path: Path, family: str) -> None:
    given = (
        [replace(row, prompt_counted=(False,) * len(row.prompt)) for row in rows(12)] if family == "t5" else rows(12)
    )
    write(tmp_path, header_of(family), given, family=family, shard_mb=1e-4)
    local, cached = from_memory(family), from_cache(tmp_path) if family == "llama" else None
    if cached is None:
        cached = CachedTeacher(TargetsCache(tmp_path), given, range(12))
    assert trained(cached, family) == trained(local, family)


def header_of(family: str) -> Header:
    teacher, _, layout = models(family)
    blank = Header("final_hidden", "", "", "as_computed", "fp32", 0, None, None, None, SETTINGS["final_hidden"])
    return complete(blank, teacher, "teacher-1", "tiny", Alignment(None, VOCABULARY), layout)


@pytest.mark.parametrize(("dtype", "close"), [("fp16", 2e-4), ("bf16", 2e-3)])
def test_narrow_hidden_states_cost_their_rounding(tmp_path: Path, dtype: str, close: float) -> None:
    write(tmp_path, header("final_hidden", dtype=dtype), rows(12))
    found, exact = trained(from_cache(tmp_path)), trained(from_memory())
    assert found != exact and found == pytest.approx(exact, rel=close)


def gradient(made: Trainer) -> Tensor:
    """Of one optimiser step, all parameters, flat."""
    made.student.zero_grad(set_to_none=True)
    parts = made.micro_batches()
    denominator = made.objective.denominator(batch for _, batch in parts)
    for ids, batch in parts:
        made.backward(ids, batch, made.objective.weights(), denominator)
    return torch.cat([p.grad.flatten() for p in made.student.parameters() if p.grad is not None]).double()


def test_a_sampled_cache_is_unbiased_through_the_whole_student(tmp_path: Path) -> None:
    """Mean over caches of other seeds, along fixed directions, within standard errors; kept targets are far off."""
    exact = gradient(trainer(from_memory()))
    directions = torch.randn(12, len(exact), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    along, losses = [], []
    for seed in range(16):
        folder = tmp_path / str(seed)
        write(folder, header("sampled", seed=seed), rows(12))
        made = trainer(from_cache(folder))
        along.append(directions @ (gradient(made) - exact))
        losses.append(made.train_step()["loss"])
    stacked = torch.stack(along)
    error = stacked.std(0) / len(along) ** 0.5
    assert float((stacked.mean(0) / error).abs().max()) < 4.5  # t of 15 degrees of freedom, 12 directions: 1 in 200
    expected = trainer(from_memory()).train_step()["loss"]
    assert abs(np.mean(losses) - expected) < 4.5 * np.std(losses, ddof=1) / len(losses) ** 0.5
    write(tmp_path / "kept", header("kept", missing="renormalised"), rows(12))
    kept = directions @ (gradient(trainer(from_cache(tmp_path / "kept"))) - exact)
    assert float((kept / error).abs().median()) > 4.5


def test_kept_targets_with_a_tail_give_a_lower_bound(tmp_path: Path) -> None:
    exact = trainer(from_memory()).train_step()["loss"]
    found = []
    for k in (2, 8, 1000):
        write(tmp_path / str(k), header("kept", top_k=k, log_prob_bits=16), rows(12))
        found.append(trainer(from_cache(tmp_path / str(k))).train_step()["loss"])
    assert found[0] < found[1] < exact and found[2] == pytest.approx(exact, rel=1e-4)


def test_a_cache_at_another_temperature_serves_that_temperature(tmp_path: Path) -> None:
    write(tmp_path, header("kept", temperature=2.0, top_k=1000, log_prob_bits=16), rows(12))
    hot = objective(2.0)
    found = trained(from_cache(tmp_path), made=hot, steps=2)
    assert found == pytest.approx(trained(from_memory(), made=hot, steps=2), rel=1e-4)
    with pytest.raises(ValueError, match=r"wants temperature 1, and these targets were made at 2"):
        trained(from_cache(tmp_path), steps=1)


def test_a_batch_that_counts_other_positions_is_refused(tmp_path: Path) -> None:
    write(tmp_path, header("sampled"), rows(12))
    cached, batch = from_cache(tmp_path), collate(rows(12)[:2], Layout(0))
    batch.counted[1] = False
    with pytest.raises(CacheError, match=r"has 2 positions for a row of prompt 'p1' of which 0 count"):
        cached.targets([0, 1], batch)


# -- opening and the verb ----------------------------------------------------

FORWARD = {"kind": "forward_kl", "weight": 0.7, "on": ["teacher", "reference"], "divergence_temperature": 2.0}
Make = Callable[..., Run]


def opened(config: Run, folder: Path, **changes: Any) -> CachedTeacher:
    facts: dict[str, Any] = {
        "fingerprint": "teacher-1", "alignment": Alignment(None, VOCABULARY), "layout": Layout(0), "device": CPU,
    }  # fmt: skip
    training = config.training.model_copy(update={"teacher_targets": str(folder)})
    return open_cached(config.model_copy(update={"training": training}), rows(12), **(facts | changes))


def test_what_does_not_fit_the_run_is_refused_at_opening(tmp_path: Path, make_run: Make) -> None:
    config = make_run()
    write(tmp_path, header("sampled", temperature=2.0), rows(12))
    opened(config, tmp_path).prepare(lambda count, tokens: None)
    with pytest.raises(CacheError, match=r"fingerprint: 'teacher-1' in the cache, 'other' wanted"):
        opened(config, tmp_path, fingerprint="other")
    with pytest.raises(CacheError, match=r"width: 61 in the cache, 64 wanted"):
        opened(config, tmp_path, alignment=Alignment(None, 64))
    with pytest.raises(CacheError, match=r"decoder_start_id: None in the cache, 0 wanted"):
        opened(config, tmp_path, layout=Layout(0, 0))
    cold = make_run(objective__terms=[FORWARD | {"divergence_temperature": 1.0}], source__fractions=BOTH)
    with pytest.raises(ValueError, match=r"wants temperature 1, and these targets were made at 2"):
        opened(cold, tmp_path)
    reverse = make_run(objective__terms=[FORWARD | {"kind": "reverse_kl"}], source__fractions=BOTH)
    with pytest.raises(ValueError, match=r"reverse_kl_T2 is not defined for targets that are sampled"):
        opened(reverse, tmp_path)
    narrow = config.model_copy(
        update={"training": config.training.model_copy(update={"teacher_weights": "int8", "teacher_targets": ""})}
    )
    with pytest.raises(CacheError, match=r"teacher_weights: 'as_computed' in the cache, 'int8' wanted"):
        opened(narrow, tmp_path)


BOTH = {"teacher": 0.75, "reference": 0.25}


def test_settings_that_cannot_work_are_refused_before_anything_is_loaded(make_run: Make) -> None:
    with pytest.raises(CacheError, match=r"give cache\.format, one of final_hidden, kept and sampled"):
        cache_targets(make_run(), Show(quiet=True))
    reverse = make_run(objective__terms=[FORWARD | {"kind": "reverse_kl"}], cache={"format": "sampled"})
    with pytest.raises(ValueError, match="reverse_kl_T2 is not defined for targets that are sampled"):
        cache_targets(reverse, Show(quiet=True))
    assert not Path(reverse.output).exists()
    two = make_run(
        objective__terms=[FORWARD, FORWARD | {"divergence_temperature": 1.0}], cache={"format": "kept"}
    )  # fmt: skip
    with pytest.raises(CacheError, match="divergences at temperatures 1, 2, and kept targets are made at one"):
        planned(two)
    with pytest.raises(ConfigError, match=r"cache.kept.draws: unknown key. It is a setting of other kinds"):
        make_run(cache={"format": "kept", "draws": 3})
    plain = [{"kind": "cross_entropy", "weight": 1.0, "on": ["teacher", "reference"]}]
    with pytest.raises(ConfigError, match="cache has no effect: no term of the objective asks the teacher"):
        make_run(objective__terms=plain, cache={"format": "kept"})
    with pytest.raises(ConfigError, match=r"training\.teacher_targets has no effect"):
        make_run(objective__terms=plain, training__teacher_targets="x")
    with pytest.raises(ConfigError, match="keep_teacher_hidden_mb has no effect beside"):
        make_run(training__teacher_targets="x", training__keep_teacher_hidden_mb=3.0)


@pytest.mark.parametrize(
    "cache",
    [
        {"format": "sampled", "draws": 30},
        {"format": "kept", "top_k": 20},
        {"format": "final_hidden", "dtype": "fp32"},
    ],
)
def test_the_verb_writes_reports_and_goes_on(make_run: Make, cache: dict[str, Any], llama_folder: Path) -> None:
    config = make_run(cache=cache | {"probe_rows": 6})
    folder = cache_targets(config, Show(quiet=True))
    assert folder == Path(config.output) / "targets"
    found = json.loads((folder / "report.json").read_text())
    stored = TargetsCache(folder)
    assert found["rows"] == stored.num_rows > 30
    assert found["bytes_per_token"] == pytest.approx(stored.num_bytes / stored.num_positions)
    assert stored.header.fingerprint == fingerprint(config.teacher)
    bias, slope = found["gradient_bias"], found["gradient"]
    if cache["format"] == "final_hidden":
        assert found["forward_kl"]["largest_error"] < 1e-6 and slope["relative_difference"] < 1e-5
        assert bias["distance"] < 1e-5 and stored.header.temperature is None and found["bytes_of_the_head_once"] > 0
    elif cache["format"] == "kept":
        assert stored.header.temperature == 2.0 and 0.1 < found["kept_mass"] < 1
        assert found["forward_kl"]["bias"] < 0 and bias["distance"] > 0.01 and 0.01 < slope["degrees"] < 60
    else:
        assert found["entries_per_position"] < 30 and 0 < bias["distance"] < 2 * bias["noise"]
        assert 0 < slope["degrees"] < 60
    sizes = {p.name: p.stat().st_mtime_ns for p in folder.glob("shard-*")}
    cache_targets(config, Show(quiet=True))
    assert sizes == {p.name: p.stat().st_mtime_ns for p in folder.glob("shard-*")}


def test_a_run_from_its_cache_has_the_losses_of_the_live_teacher(make_run: Make) -> None:
    """And lets go of the teacher's body: nothing asks it any more."""
    form = {"format": "final_hidden", "dtype": "fp32"}
    live = distil(make_run(output="live"), Show(quiet=True))
    cache_targets(make_run(output="cached", cache=form), Show(quiet=True))
    config = make_run(output="cached", training__teacher_targets=make_run(output="cached").output + "/targets")
    cached = distil(config, Show(quiet=True))
    assert cached.file("metrics.jsonl").read_bytes() == live.file("metrics.jsonl").read_bytes()


def test_the_command_line_says_what_was_written(make_run: Make, tmp_path: Path) -> None:
    config = make_run(cache={"format": "sampled", "draws": 20, "probe_rows": 4})
    path = tmp_path / "run.yaml"
    path.write_text(json.dumps(config.dump()))
    done = CliRunner().invoke(app, ["cache", str(path)], env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    for text in ("bytes a token with index", "degrees from the exact one", "where chance alone gives"):
        assert text in done.output
    assert f"training.teacher_targets={config.output}/targets" in done.output.replace("\n", "")


def test_a_stop_keeps_what_is_whole(make_run: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    import signal

    from potstill.training import caching

    config = make_run(cache={"format": "sampled"})
    original, calls = caching.in_form, [0]

    def interrupted(*arguments: Any) -> TeacherTargets:
        calls[0] += 1
        os.kill(os.getpid(), signal.SIGTERM)
        return original(*arguments)

    monkeypatch.setattr(caching, "in_form", interrupted)
    with pytest.raises(Stopped, match="stopped while writing targets") as stopped:
        cache_targets(config, Show(quiet=True))
    assert stopped.value.exit_code == 128 + signal.SIGTERM and calls[0] == 1
    assert TargetsCache(Path(config.output) / "targets").num_rows > 0
    monkeypatch.undo()
    folder = cache_targets(config, Show(quiet=True))
    assert json.loads((folder / "report.json").read_text())["rows"] == TargetsCache(folder).num_rows
