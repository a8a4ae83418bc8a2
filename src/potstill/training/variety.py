"""How varied the run's prompts and completions are, and how often it will show each of them.

Foreseen from the configuration by `check`, and written down with the rows as they are when the
run begins. Data plans that are not known by then are not in it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from potstill.config.data import FileCompletions
from potstill.config.run import Run
from potstill.data.collate import Row
from potstill.data.duplicates import prompt_words
from potstill.metrics.diversity import Diversity, diversity, keyed_sample
from potstill.records import DataPlan, Prompt
from potstill.run_dir import read_lines
from potstill.sources.catalog import Catalog
from potstill.training.completions import data_plans
from potstill.training.stages import Prompts

#: Visits of one (prompt, completion) pair from which teacher hacking is to be expected: hardly any is seen
#: within one to three epochs over a fixed set (Tiapkin et al. 2025, arXiv:2502.02671).
MOST_VISITS = 3.0
#: Texts whose n-grams are counted at most; more take seconds and say the same.
MOST_TEXTS = 2_000
#: Prompts that are compared with each other at most; a sample has fewer near duplicates than the whole.
MOST_COMPARED = 10_000
#: Streams of rows that do not exist before training: new ones, or the student's of a while ago.
MADE_DURING = ("online_teacher", "online_student", "replay")

RowsIn = Callable[[str, DataPlan], float]  # how many rows of a stream a plan uses


def visits(config: Run, plans: Sequence[DataPlan], rows_in: RowsIn) -> tuple[dict[str, float], float]:
    """How often each row of each stream is seen on average, and each prompt, over the whole run.

    A row that only some plans use is counted as if all did.
    """
    ends = [plan.from_step for plan in plans[1:]] + [config.training.steps]
    by_stream: dict[str, float] = {}
    per_prompt = 0.0
    for plan, end in zip(plans, ends, strict=True):
        shown = max(0, end - plan.from_step) * config.training.batch_rows
        per_prompt += shown / max(1, plan.num_prompts)
        for stream, share in plan.fractions.items():
            if stream not in MADE_DURING and (rows := rows_in(stream, plan)):
                by_stream[stream] = by_stream.get(stream, 0.0) + shown * share / rows
    return by_stream, per_prompt


def foreseen(config: Run, prompts: Prompts) -> tuple[list[tuple[str, str]], list[str]]:
    """Facts (name, words) and warnings for `check`, from prompts and configuration alone."""
    found = of_prompts(config, prompts.train)
    facts = [("variety", _prompts_in_words(len(prompts.train), found))]
    by_stream, per_prompt = visits(config, data_plans(config, prompts), _rows_from(config, prompts.train))
    each = ", ".join(f"each {stream} row {count:.3g}" for stream, count in sorted(by_stream.items()))
    facts.append(("visits", f"each prompt {per_prompt:.3g}{', ' if each else ''}{each}"))
    return facts, [_warning(stream, count) for stream, count in sorted(by_stream.items()) if count > MOST_VISITS]


def of_prompts(config: Run, prompts: Sequence[Prompt]) -> Diversity:
    """Of the training prompts, in words."""
    words = [prompt_words(prompt) for prompt in keyed_sample(prompts, MOST_TEXTS, config.seed)]
    compared = keyed_sample(prompts, MOST_COMPARED, config.seed)
    return diversity(words, prompts=compared, threshold=config.data.near_duplicates.threshold, seed=config.seed)


def variety_record(
    config: Run, prompts: Sequence[Prompt], rows: Sequence[Row], catalog: Catalog, plans: Sequence[DataPlan]
) -> dict[str, Any]:
    """What provenance.json keeps: prompts, completions by stream (token ids), and the visits that are planned."""
    by_stream, per_prompt = visits(config, plans, lambda stream, plan: len(catalog.chosen_rows(stream, plan)))
    completions = {}
    for stream, known in sorted(catalog.rows.items()):
        answers = [rows[entry.row].answer for entry in known]
        chosen = keyed_sample(answers, MOST_TEXTS, config.seed)
        completions[stream] = {"rows": len(answers)} | _measured(diversity(chosen, seed=config.seed))
    return {
        "prompts": {"rows": len(prompts)} | _measured(of_prompts(config, prompts)),
        "completions": completions,
        "planned_visits": {"per_prompt": per_prompt, "per_completion": by_stream},
    }


def _measured(found: Diversity) -> dict[str, Any]:
    """Plain values, without what was not asked for."""
    return {name: value for name, value in found.as_dict().items() if value is not None}


def _rows_from(config: Run, train: Sequence[Prompt]) -> RowsIn:
    """How many rows there will be: by the plan where the teacher is to be sampled, counted in a file."""
    how = config.data.completions
    references = sum(prompt.reference is not None for prompt in train) / max(1, len(train))
    written = 0
    if isinstance(how, FileCompletions):
        ids = {prompt.id for prompt in train}
        written = sum(str(line.get("prompt_id")) in ids for line in read_lines(Path(how.path)))

    def rows_in(stream: str, plan: DataPlan) -> float:
        if isinstance(how, FileCompletions) and stream == how.provenance:
            return written * plan.num_prompts / max(1, len(train))
        if stream == "reference":
            return references * plan.num_prompts
        return float(plan.num_prompts * plan.completions_per_prompt)

    return rows_in


def _prompts_in_words(count: int, found: Diversity) -> str:
    second = "" if found.distinct_2 is None else f", distinct-2 {found.distinct_2:.2f}"
    near = found.near_duplicates or 0.0
    return f"{count:,} prompts of {found.mean_length:.0f} words, {100 * near:.1f} % near another one{second}"


def _warning(stream: str, count: float) -> str:
    return (
        f"each {stream} row (one prompt with one completion) would be seen {count:.3g} times. Repeated over a fixed "
        "set, a student learns its teacher's accidents and the loss does not show it; one to three times is little "
        "risk (Tiapkin et al. 2025). Take more prompts, more completions of each, fresh ones "
        "(source.kind: online_teacher), or fewer steps."
    )
