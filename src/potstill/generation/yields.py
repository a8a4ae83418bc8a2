"""What rejection sampling kept and lost, in numbers and as lines to read.

Shares are of what their name says. A solve rate is the share of a prompt's completions that pass; the
bins are the ones that RFT-like recipes look at: never solved, then fifths.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from potstill.records import Completion, Prompt
from potstill.verifiers.base import RIGHT_ANSWERS, Outcome

BINS = ("0", "0-20%", "20-40%", "40-60%", "60-80%", "80-100%")


class Checked(Protocol):
    """A completion with outcomes."""

    @property
    def prompt(self) -> Prompt: ...
    @property
    def completion(self) -> Completion: ...
    @property
    def outcomes(self) -> tuple[tuple[str, Outcome], ...]: ...
    @property
    def passed(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Summary:
    """What a pass of rejection sampling did."""

    prompts: int
    completions: int
    passed: int
    kept: int  # completions; references stand apart
    references: int
    repeated: int  # passed, and say the same as another that is kept
    over_cap: int  # passed, and beyond max_per_prompt
    unsolved: int  # prompts none of whose completions passed
    solve_rates: Mapping[str, int]  # bin -> prompts
    kept_by_solve_rate: Mapping[str, int]  # bin -> kept completions
    distinct_paths: float  # structures among what passed, mean over solved prompts; 0 without any
    right_answers: int  # the answer is right, whatever the steps
    right_answer_wrong_step: int
    labels: Mapping[str, Mapping[str, int]]  # verifier -> label -> completions
    groups: Mapping[str, Mapping[str, int]]  # group -> prompts, completions, passed, kept

    @property
    def kept_share(self) -> float:
        """Kept completions by all completions; 0 without any."""
        return self.kept / self.completions if self.completions else 0.0

    @property
    def wrong_step_share(self) -> float:
        """Of the completions with a right answer, those with a wrong step; 0 without any."""
        return self.right_answer_wrong_step / self.right_answers if self.right_answers else 0.0

    def as_dict(self) -> dict[str, Any]:
        """For JSON, shares included."""
        return asdict(self) | {"kept_share": self.kept_share, "wrong_step_share": self.wrong_step_share}


def bin_of(passed: int, completions: int) -> str:
    """The bin of a solve rate: "0", or the fifth (0, 1/5], (1/5, 2/5], ..."""
    if passed == 0:
        return BINS[0]
    return BINS[-(-5 * passed // completions)]


def summarise(
    prompts: Sequence[Prompt],
    verified: Sequence[Checked],
    kept: Sequence[Completion],
    references: int,
    repeated: int,
    over_cap: int,
    paths: Sequence[int],
) -> Summary:
    """The summary; `paths` are the numbers of distinct structures of the prompts that were solved."""
    asked, solved = Counter(v.prompt.id for v in verified), Counter(v.prompt.id for v in verified if v.passed)
    bins = {prompt.id: bin_of(solved[prompt.id], asked[prompt.id]) for prompt in prompts}
    rates, kept_bins = Counter(bins.values()), Counter(bins[completion.prompt_id] for completion in kept)
    labels: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for one in verified:
        for name, outcome in one.outcomes:
            labels[name][outcome.label] += 1
    right = [one for one in verified if _right_answer(one)]
    return Summary(
        prompts=len(prompts),
        completions=len(verified),
        passed=sum(one.passed for one in verified),
        kept=len(kept),
        references=references,
        repeated=repeated,
        over_cap=over_cap,
        unsolved=sum(solved[prompt.id] == 0 for prompt in prompts),
        solve_rates={name: rates[name] for name in BINS},
        kept_by_solve_rate={name: kept_bins[name] for name in BINS},
        distinct_paths=sum(paths) / len(paths) if paths else 0.0,
        right_answers=len(right),
        right_answer_wrong_step=sum(any(_wrong_step(o) for _, o in one.outcomes) for one in right),
        labels={name: dict(sorted(counts.items())) for name, counts in sorted(labels.items())},
        groups=_by_group(prompts, verified, kept),
    )


def _right_answer(one: Checked) -> bool:
    """Whether no verifier finds the answer wrong, though some may find a step so."""
    return all(o.passed or o.label in RIGHT_ANSWERS or _wrong_step(o) for _, o in one.outcomes)


def _wrong_step(outcome: Outcome) -> bool:
    return outcome.label in ("right_answer_wrong_step", "wrong_step")


def _by_group(
    prompts: Sequence[Prompt], verified: Sequence[Checked], kept: Sequence[Completion]
) -> dict[str, dict[str, int]]:
    group = {prompt.id: prompt.group for prompt in prompts}
    counted = {
        "prompts": Counter(group.values()),
        "completions": Counter(group[one.prompt.id] for one in verified),
        "passed": Counter(group[one.prompt.id] for one in verified if one.passed),
        "kept": Counter(group[completion.prompt_id] for completion in kept),
    }
    return {name: {what: counts[name] for what, counts in counted.items()} for name in sorted(set(group.values()))}


def render(summary: Summary) -> list[str]:
    """The summary as lines of plain text."""
    s = summary
    lines = [
        f"completions {s.completions} of {s.prompts} prompts: {s.passed} passed, {s.kept} kept ({s.kept_share:.1%}); "
        f"{s.repeated} said the same as another, {s.over_cap} over the cap",
        f"references kept {s.references}; prompts never solved {s.unsolved}",
        f"distinct ways to the answer, per solved prompt: {s.distinct_paths:.2f}",
        f"right answers with a wrong step: {s.right_answer_wrong_step} of {s.right_answers} ({s.wrong_step_share:.1%})",
        "solve rate of a prompt: " + ", ".join(f"{name}: {count}" for name, count in s.solve_rates.items()),
        "kept rows by solve rate: " + ", ".join(f"{name}: {count}" for name, count in s.kept_by_solve_rate.items()),
    ]
    for name, counts in s.labels.items():
        lines.append(f"{name}: " + ", ".join(f"{label} {count}" for label, count in counts.items()))
    if len(s.groups) > 1:
        for name, counts in s.groups.items():
            lines.append(f"group {name or '(none)'}: " + ", ".join(f"{what} {n}" for what, n in counts.items()))
    return lines
