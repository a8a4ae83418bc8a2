"""What the libraries that Potstill stands on say of themselves: the docstrings of NumPy, SciPy, pandas and others.

Real technical English, some 16 million characters of it, that every installation has: enough to
pretrain the smallest of language models without a download. A document is all docstrings of one
module. The files are read and parsed, nothing is imported. What stands there depends on the
installed versions; the text stays under their licences (BSD, PSF) and is never passed on.
"""

from __future__ import annotations

import ast
import random
import sysconfig
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

#: All of them come with Potstill's own dependencies.
PACKAGES = ("numpy", "scipy", "pandas", "torch", "sympy", "networkx")
#: Shorter ones are lists of parameters, or say nothing.
MIN_CHARS = 200
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def shuffled(seed: int) -> Iterator[str]:
    """Documents in the seed's order, printable ASCII and newlines; a docstring that stands in several places once."""
    files = source_files()
    random.Random(seed).shuffle(files)
    seen: set[str] = set()
    for path in files:
        fresh = [text for text in docstrings(path) if text not in seen]
        seen.update(fresh)
        if fresh:
            yield "\n\n".join(fresh)


def source_files() -> list[Path]:
    """Modules of the packages and of Python's own library, tests left out, in an order that no disk decides."""
    roots = {"python": Path(sysconfig.get_paths()["stdlib"])}
    for name in PACKAGES:
        spec = find_spec(name)
        if spec is None or not spec.submodule_search_locations:
            raise ValueError(f"the corpus docstrings reads {name}'s files, and it is not installed")
        roots[name] = Path(spec.submodule_search_locations[0])
    found = []
    for name, root in roots.items():
        inner = sorted(path.relative_to(root) for path in root.rglob("*.py"))
        skip = {"tests", "test", "site-packages", "dist-packages", "_vendor"}
        found += [(name, str(path), root / path) for path in inner if not skip & set(path.parts)]
    return [path for _, _, path in sorted(found)]


def docstrings(path: Path) -> list[str]:
    """The longer docstrings of a file, in order. A file that this Python cannot parse has none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of strings that are none of ours
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError):
            return []
    texts = (ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, DOCUMENTED))
    plain = ("".join(c for c in text if c == "\n" or " " <= c <= "~") for text in texts if text)
    return [text for text in plain if len(text) >= MIN_CHARS]
