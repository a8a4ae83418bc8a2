"""Which prompts fine-tune, which distil, which measure: three pools without a common prompt."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from potstill.config.lab import FilePrompts, HackingLab, WindowPrompts
from potstill.data.prompts import read_prompts
from potstill.records import Prompt
from potstill.run_dir import write_atomic
from potstill.sources.base import keyed


class LabError(ValueError):
    """The experiment cannot be set up; the message says what was expected and how to mend it."""


def read_text(prompts: WindowPrompts) -> str:
    """The first `chars` characters of the corpus, or of the file; printable ASCII and line ends."""
    if prompts.path is not None:
        path = Path(prompts.path)
        if not path.is_file():
            raise LabError(f"no text file at {path}; prompts.path names the corpus of the experiment")
        found = path.read_text(encoding="utf-8", errors="replace")
    else:
        from potstill.lab.text import corpus

        assert prompts.corpus is not None
        found = corpus(prompts.corpus, 0, prompts.chars)
    found = re.sub(r"[^\n\x20-\x7e]", "", found)[: prompts.chars]
    if len(found) < prompts.chars:
        raise LabError(f"the corpus has {len(found):,} characters, prompts.chars wants {prompts.chars:,}; lower it")
    return found


def windows(text: str, length: int, count: int, seed: int) -> list[str]:
    """`count` different pieces of `text`, `length` characters each, that begin at a word and say something.

    Pieces of the same words count as the same: held-out prompts must not be training prompts in other case.
    """
    starts = [match.start() for match in re.finditer(r"(?<![A-Za-z])[A-Za-z]", text[:-length])]
    rng = keyed(seed, "lab windows")
    found: dict[str, str] = {}
    # All places in one order, however many are wanted: a larger pool begins with the smaller one's prompts.
    for place in rng.choice(len(starts), len(starts), replace=False).tolist():
        piece = text[starts[place] : starts[place] + length].replace("\n", " ")
        words = " ".join(re.findall(r"\w+", piece.lower()))
        if sum(letter.isalpha() for letter in piece) * 2 >= length:
            found.setdefault(words, piece)
        if len(found) == count:
            return list(found.values())
    raise LabError(
        f"the corpus gives {len(found)} different prompts of {length} characters, {count} are wanted; "
        "lengthen prompts.prompt_chars, take more text, or fewer prompts"
    )


def pools(lab: HackingLab, seed: int, distillation: int, text: str) -> dict[str, list[Prompt]]:
    """Pool name -> prompts. `oracle` for fine-tuning, `train` for distillation, `held_out` to measure on."""
    sizes = {"held_out": lab.held_out_prompts, "oracle": lab.oracle_prompts, "train": distillation}
    total = sum(sizes.values())
    if isinstance(lab.prompts, FilePrompts):
        everything = read_prompts(lab.prompts.prompts)
        if len(everything) < total:
            raise LabError(
                f"{lab.prompts.prompts.path} has {len(everything):,} prompts; the experiment wants {total:,} "
                f"({', '.join(f'{size:,} {name}' for name, size in sizes.items())}). Give more, or lower these."
            )
        order = keyed(seed, "lab pools").permutation(len(everything))[:total]
        drawn = [everything[i] for i in order.tolist()]
    else:
        pieces = windows(text, lab.prompts.prompt_chars, total, seed)
        drawn = [Prompt(f"p{number:06d}", text=piece) for number, piece in enumerate(pieces)]
    ends = [sum(list(sizes.values())[: i + 1]) for i in range(len(sizes))]
    return {name: drawn[end - size : end] for (name, size), end in zip(sizes.items(), ends, strict=True)}


def write_prompts(path: Path, prompts: Sequence[Prompt]) -> None:
    """JSON lines as `data.prompts` reads them."""
    write_atomic(path, "".join(json.dumps(line) + "\n" for line in _lines(prompts)).encode())


def _lines(prompts: Iterable[Prompt]) -> Iterable[dict[str, object]]:
    for prompt in prompts:
        line: dict[str, object] = {"id": prompt.id, "reference": prompt.reference}
        if prompt.messages is not None:
            line["messages"] = [{"role": m.role, "content": m.content} for m in prompt.messages]
        else:
            line["prompt"] = prompt.text
        yield line
