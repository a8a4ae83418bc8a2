"""The public API: frozen by name and signature, documented, and doing what the README shows."""

from __future__ import annotations

import importlib
import inspect
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT

import potstill
from potstill.config import ConfigError, Run, load_run
from potstill.run_dir import RunDirError
from potstill.training.show import Show

#: Whoever changes a line here changes what users have written. Say so in the CHANGELOG.
FROZEN = {
    "distil": "(config, *overrides, show=None)",
    "open_run": "(path)",
    "load_run": "(path, overrides=())",
    "diagnose": "(source, *, golden_kind=None, looks=1, mapping=None)",
    "Run": "(path)",
    "Run.config": "property",
    "Run.curves": "(self)",
    "Run.export": "(self, step, output=None)",
    "Run.metrics": "(self)",
    "Run.report": "(self)",
    "Run.steps": "property",
    "Run.student": "(self)",
    "Run.verdict": "property",
    "losses.Objective": "(config)",
    "losses.cross_entropy": "(student, target_ids)",
    "losses.entropy": "(distribution)",
    "losses.forward_kl": "(teacher, student)",
    "losses.jensen_shannon": "(teacher, student, teacher_weight, normalised)",
    "losses.logit_mse": "(teacher, student)",
    "losses.reverse_kl": "(teacher, student)",
    "losses.skew_forward_kl": "(teacher, student, teacher_share)",
    "losses.skew_reverse_kl": "(teacher, student, student_share)",
    "losses.total_variation": "(teacher, student)",
    "sources.Catalog": "(rows, prompts)",
    "sources.MixtureSource": "(catalog, seed, batch_rows, plan, replay=None)",
    "sources.Planned": "(stream, row)",
    "sources.ReplayRule": "(capacity_rows, max_staleness_steps=None)",
    "sources.Source": "(*args, **kwargs)",
}
CALLBACK = "MonitorCallback"


def public() -> dict[str, Any]:
    """Dotted name -> object, for all that is promised."""
    found: dict[str, Any] = {}
    for name in potstill.__all__:
        if name == "__version__":
            continue
        thing = getattr(potstill, name)
        if inspect.ismodule(thing):
            found |= {f"{name}.{inner}": getattr(thing, inner) for inner in thing.__all__}
        else:
            found[name] = thing
    members = vars(potstill.Run).items()
    return found | {f"Run.{name}": member for name, member in members if not name.startswith("_")}


def shape(thing: Any) -> str:
    """Names, kinds and defaults of the parameters; annotations may grow more exact."""
    if isinstance(thing, property):
        return "property"
    signature = inspect.signature(thing)
    plain = [p.replace(annotation=inspect.Parameter.empty) for p in signature.parameters.values()]
    return str(signature.replace(parameters=plain, return_annotation=inspect.Signature.empty))


def test_the_api_is_frozen() -> None:
    found = {name: shape(thing) for name, thing in public().items() if name != CALLBACK}
    assert found == FROZEN


def test_the_callback_is_where_it_is_promised() -> None:
    parameters = inspect.signature(potstill.MonitorCallback).parameters
    assert list(parameters)[:5] == ["teacher", "tokenizer", "prompts", "output", "every_steps"]


def test_every_public_thing_says_what_it_does() -> None:
    silent = [name for name, thing in public().items() if not (inspect.getdoc(thing) or "").strip()]
    assert silent == []
    for name, thing in public().items():
        if name.startswith("losses.") and inspect.isfunction(thing):
            assert re.search(r"\[N", thing.__doc__ or ""), f"{name} gives no shapes"


def test_importing_potstill_is_instant_and_brings_no_torch() -> None:
    code = "import sys, potstill; assert 'torch' not in sys.modules and 'pydantic' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        potstill.nonsense  # noqa: B018


def test_a_run_from_python(make_run: Callable[..., Run], tmp_path: Path) -> None:
    tree = make_run().dump()
    run = potstill.distil(tree, "training.steps=4", "monitor.every_steps=1", show=Show(quiet=True))
    assert tree == make_run().dump(), "the caller's mapping stays as it was"
    assert run.verdict.verdict == "inconclusive"
    assert [line["step"] for line in run.metrics()] == [1, 2, 3, 4]
    assert {"proxy", "proxy_fkl", "golden"} <= set(run.curves())
    assert run.config.training.steps == 4
    model, tokenizer = run.student()
    assert model.config.num_hidden_layers == 2 and tokenizer.eos_token == "</s>"
    assert run.report().is_file()
    again = potstill.open_run(run.path)
    assert again.steps == run.steps == [2, 4]
    folder = again.export(2, tmp_path / "at-two")
    assert "checkpoint of step 2 of 4" in (folder / "README.md").read_text()
    assert potstill.diagnose(run.path).verdict == run.verdict.verdict
    with pytest.raises(RunDirError, match="keeps no checkpoint of step 3; there are: 2, 4"):
        again.export(3)
    with pytest.raises(RunDirError, match="not empty"):
        again.export(2, tmp_path / "at-two")


def test_configurations_in_all_their_shapes(make_run: Callable[..., Run], tmp_path: Path) -> None:
    config = make_run()
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(config.dump()))
    for given in (config, config.dump(), path, str(path)):
        with pytest.raises(ConfigError, match=r"training\.steps"):
            potstill.distil(given, "training.steps=0")


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunDirError, match="no run directory"):
        potstill.open_run(tmp_path)


def test_the_readmes_python_runs_as_far_as_names_go() -> None:
    """Every name that the README's Python takes from Potstill exists; the whole of it runs in the slow tests."""
    text = (ROOT / "README.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert blocks
    for block in blocks:
        compile(block, "README.md", "exec")
        for module, names in re.findall(r"from (potstill[\w.]*) import ([\w, ]+)", block):
            for name in names.split(","):
                assert hasattr(importlib.import_module(module), name.strip())
        for name in re.findall(r"\bpotstill\.(\w+)", block):
            assert hasattr(potstill, name)


def test_the_readmes_changes_are_valid_ones() -> None:
    text = (ROOT / "README.md").read_text()
    lines = re.findall(r"^potstill run (\S+) (.+)$", text, re.MULTILINE)
    assert len(lines) >= 5
    for recipe, changes in lines:
        path = ROOT / ("recipes/quickstart.yaml" if recipe == "my.yaml" else recipe)
        load_run(path, shlex.split(changes))


@pytest.mark.slow
def test_the_readmes_python_runs(tmp_path: Path) -> None:
    """All of it, in the order in which it stands, with the packaged teacher: about five minutes."""
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    code = "\n".join(blocks)
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "runs" / "quickstart" / "student").is_dir()
