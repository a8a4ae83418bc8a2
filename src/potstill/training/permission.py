"""Whether the run's generators allow it: asked before anything is loaded, sampled or paid for.

Every generator that feeds the student counts: a teacher that answers prompts or says what
it thinks of rows, one whose layers the student is made of, and whoever wrote completions that come
from a file. What is found is written down with the run and repeated on the student's
card, as it was known on that day.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from potstill.config.data import FileCompletions, SampledCompletions, StoreCompletions
from potstill.config.model import LayersStudent
from potstill.config.run import Run
from potstill.data.terms import Terms, find_terms, refuse_forbidden, terms_of_model, terms_version
from potstill.models.load import source_name, source_terms
from potstill.run_dir import read_lines


def generators(config: Run) -> dict[str, str | None]:
    """Who feeds the student, with the terms that they stand under: an id, what the configuration calls them, None."""
    found: dict[str, str | None] = {}
    completions = config.data.completions
    if _teacher_feeds(config):
        found[f"teacher {source_name(config.teacher)}"] = source_terms(config.teacher)
    if isinstance(completions, FileCompletions):
        found[f"{completions.generator} (completions from a file)"] = terms_of_file(completions)
    if isinstance(completions, StoreCompletions):
        kept = Path(completions.path) / "completions.jsonl"
        for text in sorted({line["history"]["terms"] or "" for line in read_lines(kept)}):
            found[f"store {completions.path}{f' ({text})' if text else ''}"] = text or None
    return found


def terms_of_file(completions: FileCompletions) -> str | None:
    """Terms of completions from a file: what the configuration says, else what their generator's name tells."""
    if completions.terms is not None:
        known = find_terms(completions.terms)
        return completions.terms if known is None else known.id
    named = terms_of_model(completions.generator, "api")
    return None if named is None else named.id


def permitted(config: Run) -> list[str]:
    """Warnings on conditions and on what is not known.

    Raises TermsError where terms forbid the run and are not in data.acknowledged_terms, or
    where something is acknowledged that no generator has.
    """
    found = {
        who if text is None or terms is not None else f"{who}, under {text!r},": terms
        for who, text, terms in _known(config)
    }
    return refuse_forbidden(found, config.data.acknowledged_terms)


def in_words(config: Run) -> str:
    """Who feeds the student and under which terms, in a line."""
    parts = [
        f"{who}: {text or 'terms not known'}" if terms is None else f"{who}: {terms.id}, {terms.verdict}"
        for who, text, terms in _known(config)
    ]
    return "; ".join(parts) or "no generator feeds the student"


def terms_record(config: Run) -> dict[str, Any]:
    """What provenance.json keeps: each generator's terms as they were known, and what was acknowledged."""
    entries = {
        who: {"id": text, "verdict": "unknown"} if terms is None else terms.as_dict()
        for who, text, terms in _known(config)
    }
    acknowledged = [terms.id for name in config.data.acknowledged_terms if (terms := find_terms(name)) is not None]
    return {"version": terms_version(), "generators": entries, "acknowledged": acknowledged}


def _teacher_feeds(config: Run) -> bool:
    return (
        isinstance(config.data.completions, SampledCompletions)
        or config.objective.needs_teacher_targets
        or "online_teacher" in config.source.fed
        or isinstance(config.student, LayersStudent)
    )


def _known(config: Run) -> list[tuple[str, str | None, Terms | None]]:
    """(who, what their terms are called, the terms where they are known)."""
    return [(who, text, find_terms(text)) for who, text in generators(config).items()]
