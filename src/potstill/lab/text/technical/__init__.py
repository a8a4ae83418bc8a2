"""Manuals of tools and devices that do not exist, with numbers that are right."""

from __future__ import annotations

from potstill.lab.text.draw import Dice
from potstill.lab.text.technical.guides import procedure, sums, troubles
from potstill.lab.text.technical.manuals import command, functions, settings

_KINDS = (command, settings, functions, troubles, procedure, sums)


def manual(seed: int, index: int) -> str:
    """Document `index` of the technical corpus: one manual, table, reference, error list, procedure or sheet."""
    dice = Dice("technical", seed, index)
    return dice.pick(_KINDS)(dice)
