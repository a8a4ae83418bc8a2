"""Which findings of Tiapkin et al. 2025 (arXiv 2502.02671) an experiment shows again.

Each of the seven is a handful of effects (`potstill.lab.effects` says when an effect is
met, against or undecided), and a finding is as good as the worst of those it needs:

    reproduced       every needed effect is met: its whole 95 % interval lies on its side
    not reproduced   at least one needed effect is against: it points the other way, or is
                     known to be smaller than what counts
    not decidable    none is against, but one is undecided: an arm was not run, fewer than
                     three seeds, or an interval that is too wide

So a missing arm makes a finding not decidable, unless what was run contradicts it
already; no further arm could then save it. Where several arms could stand for a
finding, the first that was run decides and the others are reported: a fifth of the
prompts before half of them, four completions a prompt before five and two. Nothing is
corrected for testing seven findings: each rests on a two-sided 95 % interval at least,
and errs in about one null experiment in forty.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from potstill.lab.cells import Cell
from potstill.lab.effects import (
    Arms,
    Effect,
    Measure,
    Want,
    difference,
    effect_of,
    share_of_verdict,
    share_risen,
    single,
)
from potstill.lab.measures import (
    golden_between,
    last,
    late_change,
    proxy_after_turn,
    proxy_beyond_allowance,
    rise_value,
)

Status = Literal["reproduced", "not reproduced", "not decidable"]
CONTROL = "oracle_as_teacher"


@dataclass(frozen=True, slots=True)
class Finding:
    """One claim of the paper and what became of it."""

    number: int
    statement: str
    status: Status
    effects: tuple[Effect, ...]
    why: str

    def to_json(self) -> dict[str, Any]:
        """As in results.json."""
        return {
            "number": self.number,
            "statement": self.statement,
            "status": self.status,
            "effects": [effect.to_json() for effect in self.effects],
            "why": self.why,
        }


def judge_findings(cells: Iterable[Cell]) -> list[Finding]:
    """Findings 1 to 7; ValueError where an arm has two cells of one seed."""
    arms = Arms(cells)
    return [concluded(number, statement, effects(arms)) for number, (statement, effects) in RULES.items()]


def concluded(number: int, statement: str, effects: Sequence[Effect]) -> Finding:
    """The status that the needed effects allow, and why in a sentence."""
    needed = [effect for effect in effects if effect.needed]
    against = [effect for effect in needed if effect.outcome == "against"]
    undecided = [effect for effect in needed if effect.outcome == "undecided"]
    if against:
        status: Status = "not reproduced"
        why = "against it: " + "; ".join(in_words(effect) for effect in against)
    elif undecided:
        status = "not decidable"
        why = "open: " + "; ".join(dict.fromkeys(reason for effect in undecided for reason in doubts(effect)))
    else:
        status = "reproduced"
        why = "for it: " + "; ".join(in_words(effect) for effect in needed)
    return Finding(number, statement, status, tuple(effects), why[0].upper() + why[1:] + ".")


def doubts(effect: Effect) -> Sequence[str]:
    """Why an effect is undecided."""
    if effect.missing:
        return effect.missing
    num = len(effect.per_seed)
    return (in_words(effect) + (f": {num} seed{'s' * (num > 1)} are too few" if num < 3 else ": too uncertain"),)


def in_words(effect: Effect) -> str:
    """The effect, its interval and what was wanted."""
    assert effect.estimate is not None
    mean, low, high = effect.estimate.as_list()
    span = "no interval" if low is None or high is None else f"{low:.3g} to {high:.3g}"
    return f"{effect.words}: {mean:.3g} ({span}), wanted {effect.wanted}"


# -- measures and wants that several findings share ---------------------------------


def last_of(series: str) -> Measure:
    return lambda cell: last(cell, series)


def late_of(series: str) -> Measure:
    return lambda cell: late_change(cell, series)


def step_of(first: int, second: int) -> Measure:
    return lambda cell: golden_between(cell, first, second)


def above(arms: Arms, base: str, series: str = "golden") -> Want:
    return Want("above", counts=arms.counts(base, series))


def below(arms: Arms, base: str, series: str = "golden") -> Want:
    return Want("below", counts=arms.counts(base, series))


def rises(arms: Arms, arm: str) -> list[Effect]:
    """Golden turns: the rise is above 0, and more U tests passed than false alarms explain.

    A rise from a minimum leans above 0, so that luck alone can put its interval there.
    Where the tests do not confirm it, a rise known to be smaller than what counts is none.
    """
    words, want = f"{arm}: golden, from its lowest point to the end", above(arms, arm)
    rise = single(arms, arm, rise_value, f"{arm}_golden_rise", words, want)
    tests = share_risen(arms, arm, "rises")
    if rise.outcome == "met" and tests.outcome != "met" and rise.estimate and rise.estimate.high <= want.counts:
        rise = replace(rise, outcome="against")
    return [rise, tests]


def against_base(arms: Arms, arm: str, base: str, series: str, want: Want | None) -> Effect:
    """Where a series ended, minus where that of the base ended."""
    words = f"{arm} minus {base}: {series.replace('_', ' ')} at the end"
    return difference(arms, arm, base, last_of(series), f"{arm}_{series}_last", words, want)


def rise_against_base(arms: Arms, arm: str, base: str, want: Want | None) -> Effect:
    words = f"{arm} minus {base}: golden's rise"
    return difference(arms, arm, base, rise_value, f"{arm}_rise_difference", words, want)


def deciding(arms: Arms, doses: Sequence[str]) -> tuple[str, list[str]]:
    """The first of `doses` that was run, and the others that were; the first where none was."""
    run = [dose for dose in doses if arms.has(dose)]
    return (run[0], run[1:]) if run else (doses[0], [])


# -- the seven ----------------------------------------------------------------------


def many_epochs(arms: Arms) -> list[Effect]:
    """1: golden turns, it does not without the teacher's mistakes, and proxy does not explain it."""
    control = difference(
        arms, "offline", CONTROL, rise_value, "rise_minus_control",
        f"offline minus {CONTROL}: golden's rise", above(arms, "offline"),
    )  # fmt: skip
    allowance = single(
        arms, "offline", proxy_beyond_allowance, "proxy_beyond_allowance",
        "offline: proxy's change after golden's turn, minus 2 % of its gain or half of golden's rise",
        Want("below"),
    )  # fmt: skip
    change = single(
        arms, "offline", proxy_after_turn, "proxy_after_turn", "offline: proxy's change after golden's turn", None
    )
    verdicts = share_of_verdict(arms, "offline", "hacking")
    return [*rises(arms, "offline"), control, allowance, change, verdicts]


def online(arms: Arms) -> list[Effect]:
    """2: with fresh completions golden ends lower, both curves do not rise late, and no U test passes."""
    effects = []
    for arm in ("online_teacher", "online_student"):
        effects.append(against_base(arms, arm, "offline", "golden", below(arms, "offline")))
        for series in ("golden", "proxy"):
            words = f"{arm}: {series}'s change over the second half"
            want = Want("below", limit=arms.counts(arm, series), note="2 % of its gain")
            effects.append(single(arms, arm, late_of(series), f"{arm}_{series}_late", words, want))
        effects.append(share_risen(arms, arm, "never"))
    return effects


def mixture(arms: Arms) -> list[Effect]:
    """3: golden rises less with a tenth of online student data."""
    shares = [f"mixture_{percent}" for percent in (1, 5, 25, 50)]
    return [
        rise_against_base(arms, "mixture_10", "offline", below(arms, "offline")),
        against_base(arms, "mixture_10", "offline", "golden", None),
        *(rise_against_base(arms, arm, "offline", None) for arm in shares if arms.has(arm)),
    ]


def fewer_prompts(arms: Arms) -> list[Effect]:
    """4: golden ends higher and rises more, and the training loss shows less of it than golden."""
    arm, others = deciding(arms, ("prompts_fifth", "prompts_half"))
    golden = against_base(arms, arm, "offline", "golden", above(arms, "offline"))
    loss = against_base(arms, arm, "offline", "training_loss", None)
    seen = {seed: golden.per_seed[seed] - abs(loss.per_seed[seed]) for seed in golden.per_seed if seed in loss.per_seed}
    words = f"{arm} minus offline: golden's difference, minus the size of the training loss's"
    effects = [
        golden,
        rise_against_base(arms, arm, "offline", above(arms, "offline")),
        effect_of(arms, (arm, "offline"), seen, f"{arm}_hidden_from_loss", words, Want("above")),
        against_base(arms, arm, "offline", "proxy", None),
        loss,
    ]
    for other in others:
        effects += [against_base(arms, other, "offline", name, None) for name in ("golden", "proxy", "training_loss")]
        effects.append(rise_against_base(arms, other, "offline", None))
    return effects


def more_completions(arms: Arms) -> list[Effect]:
    """5: proxy and golden both end lower."""
    arm, others = deciding(arms, ("completions_4", "completions_5", "completions_2"))
    effects = [against_base(arms, arm, "offline", name, below(arms, "offline", name)) for name in ("proxy", "golden")]
    for other in others:
        effects += [against_base(arms, other, "offline", name, None) for name in ("proxy", "golden")]
    return effects


def few_epochs(arms: Arms) -> list[Effect]:
    """6: within three epochs golden still falls, and no U test passes."""
    arm = "few_epochs"
    steps = [
        single(
            arms, arm, step_of(epoch, epoch + 1), f"golden_epoch_{epoch}_to_{epoch + 1}",
            f"{arm}: golden, from the end of epoch {epoch} to the end of epoch {epoch + 1}", below(arms, arm),
        )
        for epoch in (1, 2)
    ]  # fmt: skip
    return [share_risen(arms, arm, "never"), *steps, rise_against_base(arms, arm, "offline", None)]


def robust(arms: Arms) -> list[Effect]:
    """7: golden turns with other sizes and losses, and ends lower online where that was run."""
    effects = [
        e for arm in ("small_teacher", "small_student", "reverse_kl", "jensen_shannon") for e in rises(arms, arm)
    ]
    for arm in ("reverse_kl", "jensen_shannon"):
        if arms.has(f"{arm}_online"):
            effects.append(against_base(arms, f"{arm}_online", arm, "golden", below(arms, arm)))
    if arms.has("overtrained_teacher"):
        words = "overtrained_teacher: golden, from its lowest point to the end"
        effects.append(single(arms, "overtrained_teacher", rise_value, "overtrained_teacher_golden_rise", words, None))
    return effects


RULES: dict[int, tuple[str, Callable[[Arms], list[Effect]]]] = {
    1: ("Fixed completions visited for many epochs lead to teacher hacking: golden rises, proxy does not", many_epochs),
    2: ("Fresh completions of the teacher or of the student at every visit: both distances fall, no hacking", online),
    3: ("A tenth of online student data is enough to steady golden", mixture),
    4: ("Fewer prompts at the same number of rows: worse hacking that the training loss hardly shows", fewer_prompts),
    5: ("More completions of each prompt, still offline: proxy and golden both improve", more_completions),
    6: ("One to three epochs: hacking is minimal", few_epochs),
    7: ("The same with other sizes of teacher and student, and with other losses", robust),
}
