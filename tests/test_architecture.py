"""The rules that keep the project readable: layers, file budget, a light front door, recipes that parse."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from potstill.config import load_run

SOURCE = ROOT / "src" / "potstill"
#: From the ground up. A module may import its own layer and those before it.
LAYERS = [
    {"records", "run_dir"},
    {"config"},
    {"head"},
    {"targets"},
    {"batch"},
    {"models", "data", "generation", "verifiers", "losses", "metrics"},
    {"teachers", "cached_teacher", "served_teacher"},
    {"sources", "evaluation"},
    {"integrations", "training"},
    {"lab"},
    {"api", "cli"},
]
#: These stand on records and run_dir alone, and may be used from training upwards.
ASIDE = {"diagnosis": {"records", "run_dir"}, "report": {"records", "run_dir", "diagnosis"}}
MAY_USE_ASIDE = {"training", "integrations", "lab", "api", "cli"}
TORCH_FREE = {"records", "run_dir", "config", "diagnosis", "report"}
MODULES = sorted(SOURCE.rglob("*.py"))


def layer_of(name: str) -> int:
    return next(i for i, names in enumerate(LAYERS) if name in names)


def package(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Dotted names that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            # `from package import module` needs the module, not what the package re-exports.
            inner = {
                a.name for a in node.names if (ROOT / "src" / node.module.replace(".", "/") / f"{a.name}.py").exists()
            }
            found |= {f"{node.module}.{name}" for name in inner}
            if len(inner) < len(node.names):
                found.add(node.module)
    return found


def ours(path: Path) -> set[str]:
    return {name.split(".")[1] for name in imports(path) if name.startswith("potstill.")}


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_go_down_only(path: Path) -> None:
    here = package(path)
    if here == "__init__":
        return
    for other in ours(path) - {here}:
        if here in ASIDE:
            assert other in ASIDE[here], f"{here} may import {sorted(ASIDE[here])}, found {other}"
        elif other in ASIDE:
            assert here in MAY_USE_ASIDE, f"{here} may not import {other}"
        else:
            assert layer_of(other) <= layer_of(here), f"{here} imports {other} above it"


def test_no_import_goes_in_a_circle() -> None:
    graph = {p: {n for n in imports(p) if n.startswith("potstill")} for p in MODULES}
    names = {p: "potstill." + ".".join(p.relative_to(SOURCE).with_suffix("").parts) for p in MODULES}
    edges = {names[p].removesuffix(".__init__"): found for p, found in graph.items()}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join((*trail, name))
        if name in done or name not in edges or name == "potstill":
            return
        for other in edges[name]:
            visit(other, (*trail, name))
        done.add(name)

    for name in edges:
        visit(name, ())


@pytest.mark.parametrize("name", sorted(TORCH_FREE))
def test_the_light_layers_never_import_torch(name: str) -> None:
    code = f"import sys, potstill.{name}; assert 'torch' not in sys.modules, 'torch came along'"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_files_stay_small() -> None:
    lengths = {str(p.relative_to(ROOT)): len(p.read_text().splitlines()) for p in MODULES}
    assert {name: n for name, n in lengths.items() if n > 400} == {}
    assert not [p for p in MODULES if p.name in {"utils.py", "helpers.py", "common.py"}]


def test_functions_stay_small() -> None:
    long = {
        f"{p.relative_to(SOURCE)}:{node.name}": node.end_lineno - node.lineno
        for p in MODULES
        for node in ast.walk(ast.parse(p.read_text()))
        if isinstance(node, ast.FunctionDef) and node.end_lineno and node.end_lineno - node.lineno > 60
    }
    assert long == {}


def test_every_module_and_public_function_says_what_it_does() -> None:
    silent = []
    for path in MODULES:
        tree = ast.parse(path.read_text())
        if path.read_text().strip() and not ast.get_docstring(tree):
            silent.append(str(path.relative_to(SOURCE)))
        for node in tree.body:
            public = isinstance(node, ast.ClassDef) and not node.name.startswith("_")
            if public and not ast.get_docstring(node):
                silent.append(f"{path.relative_to(SOURCE)}:{node.name}")
    assert silent == []


def test_help_answers_without_torch() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from potstill.cli.main import app\n"
        "result = CliRunner().invoke(app, ['--help']); assert result.exit_code == 0, result.output\n"
        "for verb in ('run', 'check', 'diagnose', 'chat', 'report'): assert verb in result.output\n"
        "heavy = {'torch', 'transformers', 'datasets', 'plotly', 'scipy', 'numpy', 'pydantic'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda p: p.name)
def test_every_committed_recipe_parses(path: Path) -> None:
    assert load_run(path).training.steps > 0
