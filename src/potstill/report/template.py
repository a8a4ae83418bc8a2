"""Facts in, one HTML page out.

The page asks nobody for anything: Plotly is inside it, fonts are the reader's
own, and its content policy lets two scripts run, by their hash, and forbids
every request. Texts come from models and from files, so the templates escape
all of them; even one that slipped through could neither run nor phone home.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Mapping
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from plotly.offline import get_plotlyjs


def fill(name: str, facts: Mapping[str, Any]) -> str:
    """The template `name` with `facts` in it."""
    environment = Environment(
        loader=PackageLoader("potstill.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["nats"] = nats
    environment.filters["plain"] = plain
    folder = resources.files("potstill.report") / "templates"
    # The parser of HTML turns every kind of line end into \n before it hashes.
    scripts = [text.replace("\r\n", "\n") for text in (get_plotlyjs(), (folder / "page.js").read_text())]
    page = environment.get_template(name).render(
        facts,
        css=(folder / "page.css").read_text(),
        plotly_js=scripts[0],
        page_js=scripts[1],
        hashes=" ".join(f"'sha256-{_hash(script)}'" for script in scripts),
    )
    # A model's text may hold half of a surrogate pair, which no UTF-8 file can.
    return page.encode("utf-8", errors="replace").decode()


def nats(value: float) -> str:
    """Three decimals, more for small numbers, and a minus sign of full width."""
    if not math.isfinite(value):
        return "not finite"
    text = f"{value:.3f}" if abs(value) >= 0.01 or value == 0 else f"{value:.2g}"
    return text.replace("-", "\N{MINUS SIGN}")


def plain(value: Any) -> str:
    """One JSON value, or a short flat list of them, for people."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or value in ([], {}):
        return "\N{EN DASH}"
    if isinstance(value, float):
        return f"{value:.4g}".replace("-", "\N{MINUS SIGN}")
    if isinstance(value, list | tuple):
        return "[" + ", ".join(plain(item) for item in value) + "]"
    return str(value)


def _hash(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
