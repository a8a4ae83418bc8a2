"""Which column of a log is what: the names that tools write, and the user's own mapping.

A name counts in capitals or not. W&B's exports put the run's name before each column
and add its least and greatest value; both are seen through.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from potstill.diagnosis.logs_table import LogError, LogTable

PREFIXES = ("potstill/", "train/potstill/", "eval/potstill/", "", "eval/", "eval_", "val/", "train/")
HELD_OUT_LOSS = (
    "eval_loss", "eval/loss", "eval/eval_loss", "val_loss", "val/loss", "valid_loss", "valid/loss", "validation_loss",
    "validation/loss", "train/eval_loss", "train/val_loss",
)  # fmt: skip
#: Our name -> what logs call it, the surest first.
NAMES: Mapping[str, tuple[str, ...]] = {
    "step": ("global_step", "train/global_step", "trainer/global_step", "step", "train/step", "train_step", "_step"),
    "epoch": ("epoch", "train/epoch", "eval/epoch"),
    "prompt_id": ("prompt_id",),
    "split": ("split",),
    "proxy": (*(f"{prefix}proxy" for prefix in PREFIXES), *HELD_OUT_LOSS),
    "training_loss": (
        "training_loss", "train_loss", "loss", "train/loss", "train/training_loss", "train/train_loss",
        "train_loss_step", "train/loss_step",
    ),
    **{
        name: tuple(f"{prefix}{name}" for prefix in PREFIXES)
        for name in (
            "golden", "teacher_golden", "verifier_failure", "reference_nll", "proxy_fkl", "proxy_rkl", "proxy_js"
        )
    },
}  # fmt: skip
#: What is measured, as against where and on what.
SERIES = tuple(name for name in NAMES if name not in ("step", "epoch", "prompt_id", "split"))
WANDB_MARKS = ("__MIN", "__MAX")
WANDB_OWN = ("_step", "_runtime", "_timestamp")


@dataclass
class Columns:
    """What was read as what."""

    read_as: dict[str, str] = field(default_factory=dict)  # our name -> column
    errors_of_means: dict[str, str] = field(default_factory=dict)  # our name -> column of standard errors
    unused: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def understand(table: LogTable, mapping: Mapping[str, str] | None) -> Columns:
    """`mapping` is column -> our name and goes before the known names. Raises LogError."""
    found = Columns()
    chosen = _mapped(table, mapping or {})
    by_name: dict[str, list[str]] = {}
    for column in table.columns:
        if not column.endswith(WANDB_MARKS) and column not in chosen.values():
            by_name.setdefault(plain_name(column), []).append(column)
    for name, known in NAMES.items():
        if name in chosen:
            found.read_as[name] = chosen[name]
            continue
        there = [alias for alias in known if alias in by_name and any(table.has_values(c) for c in by_name[alias])]
        if not there:
            continue
        # An end-of-run mean may stand beside the steps' own values.
        if len(there) > 1 and name in ("training_loss", "step", "epoch"):
            there = [max(there, key=lambda alias: table.given(by_name[alias][0]))]
        found.read_as[name] = _only(table, name, by_name[there[0]])
    for name in SERIES:
        named = [f"{found.read_as[name]}_stderr", f"{name}_stderr"] if name in found.read_as else []
        if errors := next((one for one in named if one in table.columns), None):
            found.errors_of_means[name] = errors
    if plain_name(column := found.read_as.get("proxy", "")) in HELD_OUT_LOSS and "proxy" not in chosen:
        found.notes.append(
            f"{column!r} was taken for proxy, the distillation loss on held-out prompts; where it is the NLL of "
            "people's text, it is golden: say so with --map"
        )
    used = {*found.read_as.values(), *found.errors_of_means.values()}
    found.unused = [c for c in table.columns if c not in used and not c.endswith(WANDB_MARKS)]
    return found


def plain_name(column: str) -> str:
    """'my run - train/loss' is 'train/loss'; in small letters."""
    return column.rsplit(" - ", 1)[-1].strip().lower()


def from_wandb(names: Sequence[str]) -> bool:
    """Does the table come from W&B: its own columns, or the marks of its export?"""
    return any(name in WANDB_OWN or name.endswith(WANDB_MARKS) for name in names)


def missing_for_a_verdict(columns: Columns) -> list[str]:
    """golden may be absent where proxy and training loss are there."""
    lacks = [] if "proxy" in columns.read_as else ["proxy"]
    if "golden" not in columns.read_as and ("training_loss" not in columns.read_as or lacks):
        lacks.append("golden")
    return lacks


def refuse_what_lacks(table: LogTable, columns: Columns) -> None:
    """Raises LogError that names what was found, what it was taken for, and what to log."""
    lacks = missing_for_a_verdict(columns)
    if not ({"step", "epoch"} & columns.read_as.keys()):
        lacks.insert(0, "step")
    if not lacks:
        return
    understood = ", ".join(f"{name} from {column!r}" for name, column in columns.read_as.items()) or "none"
    names = list(dict.fromkeys(plain_name(c) for c in table.columns if not c.endswith(WANDB_MARKS)))
    shown = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
    raise LogError(
        f"{table.where} ({table.kind}) lacks {lacks} for a verdict.\n"
        f"  found the columns: {shown or 'none'}\n"
        f"  understood: {understood}\n"
        f"  log: {'; '.join(WHAT_TO_LOG[name] for name in lacks)}; at 8 evaluations or more (20 are good)\n"
        f"Rename the columns, or say which is which: --map {lacks[-1]}=COLUMN (mapping={{'COLUMN': '{lacks[-1]}'}} in "
        "Python)."
    )


WHAT_TO_LOG = {
    "step": "step, the optimiser step of each row (or epoch)",
    "proxy": "proxy, the distillation loss on held-out prompts (eval_loss is read as that)",
    "golden": (
        "golden, lower is better, a distance to something that is not the teacher, such as the negative log-likelihood "
        "of reference answers; without one, loss (training) beside proxy is the least"
    ),
}


def _mapped(table: LogTable, mapping: Mapping[str, str]) -> dict[str, str]:
    """The user's choice as our name -> column of the table."""
    chosen: dict[str, str] = {}
    for column, name in mapping.items():
        if name not in NAMES:
            raise LogError(f"a column can be read as {', '.join(NAMES)}; found {name!r} in the mapping")
        there = [c for c in table.columns if c == column] or [
            c for c in table.columns if plain_name(c) == column.lower()
        ]
        if not there:
            near = difflib.get_close_matches(column, list(table.columns), 3, 0.4) or list(table.columns)[:12]
            raise LogError(
                f"{table.where} has no column {column!r} to read as {name}; did you mean one of "
                f"{', '.join(map(repr, near))}?"
            )
        if name in chosen:
            raise LogError(f"{name} is mapped twice, from {chosen[name]!r} and {column!r}; choose one")
        chosen[name] = _only(table, name, there)
    return chosen


def _only(table: LogTable, name: str, columns: Sequence[str]) -> str:
    if len(columns) > 1:
        raise LogError(
            f"{table.where}: {len(columns)} columns could be {name}: {', '.join(map(repr, columns[:6]))}. Several runs "
            f"in one export? Export one, or choose with --map {name}=COLUMN."
        )
    return columns[0]
