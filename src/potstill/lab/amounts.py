"""Numbers as people write them for models and corpora: 0.9M, 20M, 1.5B."""

from __future__ import annotations

import math
import re

UNITS = {"": 1.0, "K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}
_AMOUNT = re.compile(r"([0-9]*\.?[0-9]+(?:e[0-9]+)?)\s*([a-z]*)", re.IGNORECASE)


def amount_of(text: str, what: str) -> float:
    """20M -> 2e7. Raises ValueError with `what` in its words."""
    found = _AMOUNT.fullmatch(text.strip().replace("_", ""))
    if found is None or found[2].upper() not in UNITS:
        raise ValueError(f"{what}: expected a number with K, M, B or T, such as 0.9M, found {text!r}")
    value = float(found[1]) * UNITS[found[2].upper()]
    if not value > 0 or not math.isfinite(value):
        raise ValueError(f"{what}: expected more than 0, found {text!r}")
    return value


def short(number: float) -> str:
    """2.04e7 -> 20.4M: three digits."""
    for unit in ("T", "B", "M", "K"):
        if number >= 0.9995 * UNITS[unit]:
            return (
                f"{number / UNITS[unit]:.3g}{unit}"
                if number < 999.5 * UNITS[unit]
                else f"{number / UNITS[unit]:.0f}{unit}"
            )
    return f"{number:.3g}"
