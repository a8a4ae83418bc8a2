"""What the pretraining lab measures: names with a domain, a unit and a direction, and the three that a reader needs.

Two measures are made here where the file lacks them: the mean over the out-of-domain sets and the
mean accuracy over the benchmarks, both of a seed's own differences, with Student's t over seeds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from potstill.report.numbers import Estimate

HELD_OUT, OUTSIDE, DOWNSTREAM = "held_out", "out of domain", "downstream"
#: The triplet, never one number: how each is called on the page.
TRIPLET = {HELD_OUT: "in domain", OUTSIDE: "out of domain", DOWNSTREAM: "downstream"}


@dataclass(frozen=True, slots=True)
class Measure:
    """One number that a model has; `better` is lower or higher."""

    name: str
    domain: str  # in, out, downstream
    unit: str
    better: str
    made: str = ""  # how this page made it; empty where the file has it

    @property
    def sign(self) -> int:
        """What turns a difference into a gain."""
        return 1 if self.better == "higher" else -1


@dataclass(frozen=True, slots=True)
class Difference:
    """Student minus twin in one measure, paired by seed."""

    estimate: Estimate
    by_seed: Mapping[int, float]


Found = Mapping[str, Difference]  # by measure


def over_seeds(values: Sequence[float], looks: int = 1) -> Estimate | None:
    """The mean over seeds with its 95 % interval by Student's t; no interval of a single one.

    With `looks` above 1 it is the wider interval of Bonferroni for a value picked from so many.
    """
    num = len(values)
    if num == 0:
        return None
    mean = math.fsum(values) / num
    if num == 1:
        return Estimate(mean)
    from scipy.special import stdtrit

    scatter = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (num - 1))
    half = float(stdtrit(num - 1, 1 - 0.025 / looks)) * scatter / math.sqrt(num)
    return Estimate(mean, mean - half, mean + half)


def measures_of(differences: Iterable[Mapping[str, Any]]) -> list[Measure]:
    """In domain, out of domain and their mean, the mean accuracy, accuracies, margins."""
    found: dict[str, Measure] = {}
    for one in differences:
        for name, facts in (one.get("measures") or {}).items():
            kind = [str(facts.get(key) or "") for key in ("domain", "unit", "better")]
            found.setdefault(str(name), Measure(str(name), *kind))
    outside = [one for one in found.values() if one.domain == "out" and one.name != OUTSIDE]
    asked = [one for one in found.values() if one.domain == "downstream" and one.unit == "share"]
    if len(outside) > 1:
        note = f"the mean over {', '.join(one.name for one in outside)}, made for this page"
        found.setdefault(OUTSIDE, Measure(OUTSIDE, "out", outside[0].unit, outside[0].better, note))
    if len(asked) > 1 and len({one.better for one in asked}) == 1:
        note = f"the mean over {', '.join(one.name for one in asked)}, made for this page"
        found.setdefault(DOWNSTREAM, Measure(DOWNSTREAM, "downstream", "share", asked[0].better, note))
    order = {"in": 0, "out": 1}
    return sorted(
        found.values(),
        key=lambda one: (order.get(one.domain, 2), one.name not in TRIPLET, one.unit != "share", one.name),
    )


def mean_of(made: Measure, measures: Sequence[Measure], differences: Mapping[str, Difference]) -> Difference | None:
    """The mean of the measures that `made` stands for, seed by seed; None where one is missing from the cell."""
    parts = [one.name for one in measures if (one.domain, one.unit, one.made) == (made.domain, made.unit, "")]
    if not parts or not set(parts) <= set(differences):
        return None
    found = [differences[name] for name in parts]
    shared = sorted(set.intersection(*(set(one.by_seed) for one in found)))
    by_seed = {seed: math.fsum(one.by_seed[seed] for one in found) / len(found) for seed in shared}
    estimate = over_seeds(list(by_seed.values()))
    if estimate is None:  # the file has means alone
        estimate = Estimate(math.fsum(one.estimate.value for one in found) / len(found))
    return Difference(estimate, by_seed)


def triplet_of(
    measures: Sequence[Measure], best: Sequence[Mapping[str, Any]], found: Sequence[Found]
) -> dict[str, Measure]:
    """Which measure stands for each of the triplet.

    `best` is the file's list of best weights. Its downstream is one of the benchmarks' measures: the one that `of`
    names, else the first that chose a weight under its own name, else the only one that has the value it gives;
    without any it is the mean accuracy. Where there is one other set or one benchmark alone, that stands for its kind.
    """
    by_name = {one.name: one for one in measures}
    kinds = {
        HELD_OUT: [one for one in measures if one.domain == "in"],
        OUTSIDE: [one for one in measures if one.domain == "out"],
        DOWNSTREAM: [one for one in measures if (one.domain, one.unit) == ("downstream", "share")],
    }
    roles = {role: by_name.get(role, kinds[role][0]) for role in TRIPLET if role in by_name or len(kinds[role]) == 1}
    given = [one for one in best if one.get("measure") == DOWNSTREAM and one.get("mean") is not None]
    asked = [one for one in measures if one.domain == "downstream" and not one.made]
    chosen = [name for one in best if (name := str(one.get("measure"))) in {measure.name for measure in asked}]
    if chosen:
        roles[DOWNSTREAM] = by_name[chosen[0]]
    for one in given[:1]:
        named = by_name.get(str(one.get("of")))
        same = [m for m in asked if any(_is(cell, m, float(one["mean"])) for cell in found)]
        if named is not None or len(same) == 1:
            roles[DOWNSTREAM] = named or same[0]
    return {role: roles[role] for role in TRIPLET if role in roles}


def _is(found: Found, measure: Measure, value: float) -> bool:
    return measure.name in found and math.isclose(
        found[measure.name].estimate.value, value, rel_tol=1e-9, abs_tol=1e-12
    )
