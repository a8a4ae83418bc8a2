"""Well-known question sets, read from files that the user has, in the words of lm-eval's own task definitions.

A folder holds one file a set, such as arc_easy.jsonl or hellaswag_val.jsonl.gz. Nothing is downloaded and nothing
comes with Potstill: the sets have licences of their own. Prompts, choices and groups are those of lm-eval 0.4.13 at
zero shots; tests compare the two request by request.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from potstill.config.data import Prompts
from potstill.data.tables import read_entries
from potstill.evaluation.choices import Item, Metric

LETTERS = "ABCDEFGH"
ENDINGS = (".jsonl", ".jsonl.gz", ".json", ".json.gz")
#: Splits that may be reported, best first; training rows are never read.
SPLITS = ("test", "validation", "valid", "val", "dev")

Row = Mapping[str, Any]


class SuiteError(ValueError):
    """A question set cannot be read; the message says what was expected and how to mend it."""


@dataclass(frozen=True, slots=True)
class Suite:
    """A question set: its items, and which accuracy is the one to report."""

    name: str
    items: tuple[Item, ...]
    metric: Metric
    #: Whether the accuracy is the mean over groups (BLiMP's paradigms), each weighing the same.
    equal_groups: bool = False


@dataclass(frozen=True, slots=True)
class Kind:
    """How the rows of a known set become items."""

    item: Callable[[Row], Item]
    columns: tuple[str, ...]  # that every row needs
    metric: Metric = "acc"
    equal_groups: bool = False


def load_suite(folder: Path | str, name: str, limit: int | None = None) -> Suite:
    """One set of the folder by name: a kind in KINDS, or a kind and a suffix such as blimp_100.

    The file is NAME or NAME_test, NAME_validation and so on (SPLITS), with one of ENDINGS; where rows carry a column
    `split`, those of train are left out. limit: only the first so many items. Raises SuiteError for an unknown name,
    no file, two that would do, and rows that are not as the kind needs them; PromptError for files that are broken.
    """
    kind = KINDS[kind_of(name)]
    path = _find(Path(folder), name)
    entries = read_entries(Prompts(path=str(path)), {f"{name}.{column}": column for column in kind.columns})
    items: list[Item] = []
    for entry in entries:
        if entry.columns.get("split") == "train":
            continue
        if limit is not None and len(items) == limit:
            break
        try:
            items.append(kind.item(entry.columns))
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise SuiteError(
                f"{entry.where}: expected a row of {name} with {', '.join(kind.columns)}, but reading it failed with "
                f"{type(error).__name__}: {error}"
            ) from error
    if not items:
        raise SuiteError(f"{path}: expected rows to evaluate, found only training rows")
    return Suite(name, tuple(items), kind.metric, kind.equal_groups)


def suite_names(folder: Path | str) -> list[str]:
    """The sets that a folder holds, by name; files of other kinds and training splits are passed over."""
    found = set()
    for path in Path(folder).iterdir():
        ending = next((ending for ending in ENDINGS if path.name.endswith(ending)), None)
        if ending is None:
            continue
        stem = path.name.removesuffix(ending)
        name = next((stem.removesuffix(f"_{split}") for split in SPLITS if stem.endswith(f"_{split}")), stem)
        if not stem.endswith("_train") and any(_is_of(name, kind) for kind in KINDS):
            found.add(name)
    return sorted(found)


def kind_of(name: str) -> str:
    """The kind that a set's name stands for: itself, or what its suffix was put to. Raises SuiteError."""
    fitting = [kind for kind in KINDS if _is_of(name, kind)]
    if not fitting:
        raise SuiteError(f"expected a question set named after one of {', '.join(KINDS)}, found {name!r}")
    return max(fitting, key=len)


def _is_of(name: str, kind: str) -> bool:
    return name == kind or name.startswith(f"{kind}_")


def _find(folder: Path, name: str) -> Path:
    if not folder.is_dir():
        raise SuiteError(f"expected a folder of question sets, found none at {folder}")
    for stem in (name, *(f"{name}_{split}" for split in SPLITS)):
        found = [path for ending in ENDINGS if (path := folder / f"{stem}{ending}").is_file()]
        if len(found) > 1:
            raise SuiteError(f"expected one file of {name}, found {', '.join(map(str, found))}: keep one of them")
        if found:
            return found[0]
    raise SuiteError(f"expected {name}{ENDINGS[0]} or {name}_{SPLITS[0]}{ENDINGS[1]} or the like in {folder}")


def _blimp(row: Row) -> Item:
    return Item("", (row["sentence_good"], row["sentence_bad"]), 0, row.get("UID", ""))


def _question(row: Row) -> Item:
    return Item(f"Question: {row['question']}\nAnswer:", tuple(row["choices"]), int(row["label"]))


def _piqa(row: Row) -> Item:
    return Item(f"Question: {row['goal']}\nAnswer:", (row["sol1"], row["sol2"]), int(row["label"]))


def _openbookqa(row: Row) -> Item:
    return Item(row["question"], tuple(row["choices"]), int(row["label"]))


def _social(row: Row) -> Item:
    return Item(f"Q: {row['question']}\nA:", tuple(row["choices"]), int(row["label"]))


def _hellaswag(row: Row) -> Item:
    """With the columns of the original (activity_label, ctx_a, ctx_b), or with `ctx` that holds all three."""
    parts = "ctx_a" in row
    begun = f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}" if parts else row["ctx"]
    return Item(_cleaned(begun), tuple(_cleaned(ending) for ending in row["endings"]), int(row["label"]))


def _cleaned(text: str) -> str:
    """HellaSwag's WikiHow part has headings in brackets."""
    return re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". ")).replace("  ", " ")


def _lambada(row: Row) -> Item:
    """With `context` and `target`, or the whole passage in `text`."""
    if "text" in row:
        context, _, target = row["text"].rpartition(" ")
    else:
        context, target = row["context"], row["target"]
    return Item(context, (target,), 0)


def _winogrande(row: Row) -> Item:
    """Two beginnings, one ending: scored is what stands behind the gap."""
    before, found, after = row["question"].partition("_")
    if not found:
        raise ValueError("expected a gap written as _ in the question")
    return Item(tuple(before + option for option in row["choices"]), (after.strip(),) * 2, int(row["label"]))


def _boolq(row: Row) -> Item:
    """Without a passage it asks for knowledge, and is not comparable with published numbers."""
    passage = f"{row['passage']}\n" if row.get("passage") else ""
    return Item(f"{passage}Question: {row['question'].rstrip('?')}?\nAnswer:", ("no", "yes"), int(row["label"]))


def _lettered(row: Row, description: str = "", group: str = "") -> Item:
    """Choices are shown in the prompt, and only their letter is scored."""
    shown = [f"{letter}. {choice}" for letter, choice in zip(LETTERS, row["choices"], strict=False)]
    lines = [row["question"].strip(), *shown]
    return Item(
        description + "\n".join(lines) + "\nAnswer:", tuple(LETTERS[: len(row["choices"])]), int(row["label"]), group
    )


def _commonsense(row: Row) -> Item:
    item = _lettered(row)
    return Item(f"Question: {item.context}", item.choices, item.right)


def _mmlu(row: Row) -> Item:
    subject = row["subject"].replace("_", " ")
    return _lettered(
        row, f"The following are multiple choice questions (with answers) about {subject}.\n\n", row["subject"]
    )


_CHOICES = ("question", "choices", "label")
#: The metric is the one that is usually reported: by length where the choices are whole sentences.
KINDS: dict[str, Kind] = {
    "arc_challenge": Kind(_question, _CHOICES, "acc_norm"),
    "arc_easy": Kind(_question, _CHOICES),
    "blimp": Kind(_blimp, ("sentence_good", "sentence_bad"), equal_groups=True),
    "boolq": Kind(_boolq, ("question", "label")),
    "commonsenseqa": Kind(_commonsense, _CHOICES),
    "hellaswag": Kind(_hellaswag, ("endings", "label"), "acc_norm"),
    "lambada": Kind(_lambada, ()),
    "mmlu": Kind(_mmlu, (*_CHOICES, "subject")),
    "openbookqa": Kind(_openbookqa, _CHOICES, "acc_norm"),
    "piqa": Kind(_piqa, ("goal", "sol1", "sol2", "label")),
    "social_i_qa": Kind(_social, _CHOICES),
    "winogrande": Kind(_winogrande, _CHOICES),
}
