"""Draws docs/images/u-test-power.svg from false_alarms.json: power against the rise.

    python benchmarks/u_test_figure.py

Two panels share one scale: more evaluations on the left, more prompts on the right. Bars are
95 % intervals. Written by hand as SVG, so that drawing it needs no further package.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
TARGET = HERE.parent / "docs" / "images" / "u-test-power.svg"
COLOURS = ("#9a6a00", "#c04a2c", "#1f6fb2", "#1b7f5c")
WIDTH, HEIGHT, PANEL, TOP, BOTTOM = 860, 380, 350, 48, 318
LEFTS = (56, 490)
TICKS = (0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 3.0)
FIRST, LAST = 0.09, 3.3  # nats
BASE = {"evaluations": 24, "turn": 0.5, "prompts": 256, "jitter": 0.1, "correlation": 0.5}
STYLE = (
    "text{font:13px sans-serif;fill:#222}.t{font-weight:600}.s{font-size:12px;fill:#555}"
    ".g{stroke:#ddd}.w{stroke:#888;stroke-dasharray:4 4}.bg{fill:#fff}"
)


def across(left: int, rise: float) -> float:
    return left + PANEL * math.log(rise / FIRST) / math.log(LAST / FIRST)


def up(power: float) -> float:
    return BOTTOM - (BOTTOM - TOP) * power


def frame(left: int, title: str) -> list[str]:
    """Grid, scales and the line of 80 %."""
    parts = [f'<text class="t" x="{left}" y="22">{title}</text>']
    for power in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0):
        y = up(power)
        kind = "w" if power == 0.8 else "g"
        parts.append(f'<line class="{kind}" x1="{left}" x2="{left + PANEL}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="s" x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{power:.0%}</text>')
    for rise in TICKS:
        x = across(left, rise)
        parts.append(f'<text class="s" x="{x:.1f}" y="{BOTTOM + 18}" text-anchor="middle">{rise:g}</text>')
    middle = left + PANEL / 2
    parts.append(
        f'<text class="s" x="{middle}" y="{BOTTOM + 40}" text-anchor="middle">'
        "rise in nats a sequence, after a fall of 7.4</text>"
    )
    return parts


def line(left: int, colour: str, label: str, cells: list[dict[str, Any]], row: int) -> list[str]:
    """One design: its points, their intervals, and its name in the key."""
    points = [(across(left, cell["rise"]), up(cell["hits"] / cell["runs"]), cell["interval"]) for cell in cells]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in points)
    parts = [f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>']
    for x, y, (low, high) in points:
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{up(low):.1f}" y2="{up(high):.1f}" stroke="{colour}"/>')
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>')
    key = up(0.3) + 19 * row
    left += PANEL - 120
    parts.append(f'<rect x="{left + 8}" y="{key - 5:.1f}" width="16" height="3" fill="{colour}"/>')
    parts.append(f'<text class="s" x="{left + 30}" y="{key:.1f}">{label}</text>')
    return parts


def find(power: list[dict[str, Any]], **changed: float) -> list[dict[str, Any]]:
    wanted = BASE | changed
    for design in power:
        if all(design[key] == value for key, value in wanted.items()):
            return list(design["cells"])
    raise SystemExit(f"false_alarms.json has no design {wanted}; run false_alarms.py --only power")


def main() -> None:
    power = json.loads((HERE / "false_alarms.json").read_text())["power"]
    parts = frame(LEFTS[0], "256 prompts") + frame(LEFTS[1], "24 evaluations")
    for row, number in enumerate((12, 16, 24, 40)):
        cells = find(power, evaluations=number)
        parts += line(LEFTS[0], COLOURS[row], f"{number} evaluations", cells, row)
    for row, number in enumerate((64, 256, 1024, 4096)):
        parts += line(LEFTS[1], COLOURS[row], f"{number:,} prompts", find(power, prompts=number), row)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">'
    title = "<title>Share of simulated runs in which the U test saw the rise, by size of the rise</title>"
    body = "\n".join([head, title, f"<style>{STYLE}</style>", '<rect class="bg" width="100%" height="100%"/>', *parts])
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    TARGET.write_text(body + "\n</svg>\n")


if __name__ == "__main__":
    main()
