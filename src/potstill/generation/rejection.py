"""Rejection sampling: many completions of each prompt, of which the right and different ones are kept.

Keeping what a verifier passes has known side effects, and the summary shows each: only prompts that the
teacher can solve survive (solve rates, kept rows by solve rate), right answers come with wrong steps
(their share), and copies crowd out other ways to the answer (distinct paths). After STaR (Zelikman et al.
2022) and RFT (Yuan et al. 2023).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from potstill.config.verify import Rejection
from potstill.generation.distinct import classes, furthest_apart, representatives
from potstill.generation.yields import Summary, summarise
from potstill.records import Completion, History, Prompt
from potstill.verifiers.base import BatchVerifier, Outcome, Verifier, VerifierError, with_outcome


@dataclass(frozen=True, slots=True)
class Verified:
    """A completion with its outcomes, by verifier; its history holds them too."""

    prompt: Prompt
    completion: Completion
    outcomes: tuple[tuple[str, Outcome], ...]

    @property
    def passed(self) -> bool:
        """Whether every verifier passed it."""
        return all(outcome.passed for _, outcome in self.outcomes)


@dataclass(frozen=True, slots=True)
class Kept:
    """What is trained on: completions, then references (provenance "reference", not in token ids yet)."""

    completions: tuple[Completion, ...]
    references: tuple[Completion, ...]
    dropped: tuple[str, ...]  # ids of prompts that give no row at all
    summary: Summary


def verify_all(
    prompts: Sequence[Prompt],
    completions: Sequence[Completion],
    verifiers: Sequence[Verifier],
    on_done: Callable[[int], None] = lambda count: None,
) -> list[Verified]:
    """Every completion with every verifier's outcome, in order; `on_done` hears how many are through.

    All verifiers see all completions, so that the summary's counts do not depend on their order. Raises
    VerifierError where a completion's prompt is missing or two verifiers share a name.
    """
    by_id = {prompt.id: prompt for prompt in prompts}
    names = [verifier.name for verifier in verifiers]
    if not names or len(set(names)) < len(names):
        raise VerifierError(f"expected verifiers with a name each, found {names}; give each another name")
    strangers = [c.prompt_id for c in completions if c.prompt_id not in by_id]
    if strangers:
        raise VerifierError(f"{len(strangers)} completions answer prompts that are not given (first: {strangers[0]!r})")
    pairs = [(by_id[completion.prompt_id], completion) for completion in completions]
    together = {v.name: v.verify_all(pairs) for v in verifiers if isinstance(v, BatchVerifier)}
    verified = []
    for at, (prompt, completion) in enumerate(pairs):
        outcomes = []
        for verifier in verifiers:
            many = together.get(verifier.name)
            outcome = verifier.verify(prompt, completion) if many is None else many[at]
            outcomes.append((verifier.name, outcome))
            completion = with_outcome(completion, verifier, outcome)
        verified.append(Verified(prompt, completion, tuple(outcomes)))
        on_done(at + 1)
    return verified


def reject(prompts: Sequence[Prompt], verified: Sequence[Verified], config: Rejection) -> Kept:
    """The completions that pass, without duplicates and within the cap, and the references that go with them.

    `prompts` are those that were asked: one without any completion counts as unsolved. Order is the prompts' order,
    then the completions' index. Raises VerifierError where a reference is to be kept and there is none.
    """
    by_prompt: dict[str, list[Verified]] = {prompt.id: [] for prompt in prompts}
    for one in verified:
        by_prompt[one.prompt.id].append(one)
    kept: list[Verified] = []
    references, dropped, paths, repeated, over = [], [], [], 0, 0
    for prompt in prompts:
        passed = sorted((v for v in by_prompt[prompt.id] if v.passed), key=lambda v: v.completion.index)
        wanted = config.keep_references if passed else config.on_no_kept == "reference"
        chosen = _choose(prompt, passed, config)
        kept += chosen.kept
        repeated, over = repeated + chosen.repeated, over + chosen.over
        if passed:
            paths.append(chosen.paths)
        if wanted:
            references.append(_reference_row(prompt))
        elif not passed:
            dropped.append(prompt.id)
    summary = summarise(prompts, verified, [v.completion for v in kept], len(references), repeated, over, paths)
    return Kept(tuple(v.completion for v in kept), tuple(references), tuple(dropped), summary)


@dataclass(frozen=True, slots=True)
class _Choice:
    kept: list[Verified]
    repeated: int
    over: int
    paths: int


def _choose(prompt: Prompt, passed: list[Verified], config: Rejection) -> _Choice:
    """The completions of one prompt that are kept."""
    texts = [v.completion.text for v in passed]
    structure_of = {at: n for n, members in enumerate(classes(texts, "structure")) for at in members}
    structures = [structure_of[at] for at in range(len(texts))]
    others = [prompt.reference] if config.keep_references and prompt.reference else []
    same = classes(texts, config.deduplicate)
    if others and config.deduplicate != "none":  # the reference itself stands there already
        copies = set(classes([*others, *texts], "text")[0])
        same = [left for members in same if (left := [at for at in members if at + 1 not in copies])]
    positions = sorted(representatives(texts, same, others))
    most = config.max_per_prompt or len(positions)
    chosen = furthest_apart(texts, structures, positions, most) if len(positions) > most else positions
    return _Choice(
        [passed[at] for at in chosen], len(texts) - len(positions), len(positions) - len(chosen), len(set(structures))
    )


def _reference_row(prompt: Prompt) -> Completion:
    if prompt.reference is None:
        raise VerifierError(
            f"prompt {prompt.id!r} has no reference to keep. Name its column in prompts.reference, or set "
            "keep_references: false and on_no_kept: drop."
        )
    history = History("reference", "reference")
    return replace(_EMPTY, prompt_id=prompt.id, text=prompt.reference, history=history)


_EMPTY = Completion("", 0, (), "", "given", History("reference", "reference"))
