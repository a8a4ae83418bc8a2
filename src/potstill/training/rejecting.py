"""Keeps the completions that verifiers pass, once: what was decided is on disk and not worked out again.

<folder>/kept.jsonl      the completions that were kept, their outcomes in their history
<folder>/rejection.json  what was kept and lost, and of which completions this was decided
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from potstill.config.verify import Judge, Rejection
from potstill.data.store import CompletionStore
from potstill.generation.base import Generator
from potstill.generation.rejection import reject, verify_all
from potstill.generation.yields import render
from potstill.records import Completion, Prompt
from potstill.run_dir import digest, write_atomic
from potstill.verifiers.build import build_verifiers

JudgeMaker = Callable[[int], tuple[Generator, Any]]  # most new tokens -> (generator, what renders its messages)


@dataclass(frozen=True)
class Survivors:
    """What feeds the student after rejection."""

    completions: list[Completion]
    references: frozenset[str]  # prompts whose reference feeds it too
    lines: list[str]  # the summary, to be read


def keep_verified(
    folder: Path,
    prompts: Sequence[Prompt],
    completions: Sequence[Completion],
    config: Rejection,
    make_judge: JudgeMaker | None,
    on_done: Callable[[int], None],
) -> Survivors:
    """Verify and reject, or read what was decided before on the same completions.

    `on_done` hears how many completions are through. Raises VerifierError where a verifier lacks something.
    """
    facts = [[c.prompt_id, c.index, list(c.token_ids)] for c in completions]
    texts = [[p.id, p.flat_text(), p.reference] for p in prompts]
    decided = digest([config.model_dump(mode="json"), texts, facts])
    report = folder / "rejection.json"
    if report.is_file() and (before := json.loads(report.read_text()))["decided"] == decided:
        kept = CompletionStore(folder / "kept.jsonl").read()
        return Survivors(kept, frozenset(before["references_of"]), before["lines"])
    judge: tuple[Generator | None, Any] = (None, None)
    for verifier in config.verifiers:
        if isinstance(verifier, Judge) and make_judge is not None:
            judge = make_judge(verifier.max_new_tokens)
    verified = verify_all(prompts, completions, build_verifiers(config.verifiers, *judge), on_done)
    result = reject(prompts, verified, config)
    lines = render(result.summary)
    references = [reference.prompt_id for reference in result.references]
    CompletionStore(folder / "kept.jsonl").replace(result.completions)
    write_atomic(
        report,
        json.dumps(
            {"decided": decided, "references_of": references, "dropped": list(result.dropped), "lines": lines,
             "summary": result.summary.as_dict()},
            indent=2, sort_keys=True,
        ).encode(),
    )  # fmt: skip
    return Survivors(list(result.completions), frozenset(references), lines)
