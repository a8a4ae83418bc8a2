"""`potstill plan`: distil or train plainly, with which teacher and weight, and how sure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from potstill.lab.amounts import short
from potstill.lab.planning import Question, percent, plan

COLOURS = {"distil": "green", "train plainly": "cyan", "undecided": "yellow"}


def plan_verb(
    results: Path,
    student: str,
    tokens: str,
    teachers: Sequence[str] = (),
    by: str = "held_out",
    train_teacher: bool = False,
    unique_tokens: str | None = None,
    as_json: bool = False,
) -> None:
    """Read results.json (or the folder it lies in) and answer. Raises ValueError in words."""
    question = Question(student, tokens, tuple(teachers), by, train_teacher, unique_tokens)
    found = plan(read_results(results), question)
    if as_json:
        print(json.dumps(found, indent=2, allow_nan=False))
    else:
        show(found)


def read_results(path: Path) -> dict[str, Any]:
    """The dictionary of a lab's results, or of its laws alone. Raises ValueError."""
    file = path / "results.json" if path.is_dir() else path
    if not file.is_file():
        raise ValueError(f"expected the results of `potstill lab pretraining`, a results.json; found no file {file}")
    try:
        found = json.loads(file.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is not JSON: {error}") from None
    if isinstance(found, dict) and "measures" in found and "version" in found:
        return {"laws": found}
    if not isinstance(found, dict) or not ("laws" in found or "models" in found):
        raise ValueError(f"{file} holds neither models nor laws; expected results.json of `potstill lab pretraining`")
    if found.get("lab", "pretraining") != "pretraining":
        raise ValueError(f"{file} is of the lab {found['lab']!r}; a plan needs results of `potstill lab pretraining`")
    return found


def show(found: Mapping[str, Any]) -> None:
    """The answer, then all three objectives, costs, and how far it reaches."""
    console = Console(highlight=False, soft_wrap=True)
    answer, student = found["answer"], found["student"]
    stretched = ", by extrapolation" if answer["extrapolates"] else ""
    colour = COLOURS[answer["decision"]]
    console.print(f"[bold {colour}]{answer['decision']}[/bold {colour}]{stretched} (by {answer['by']})")
    console.print(escape(answer["sentence"]))
    console.print(
        f"\nstudent  {escape(student['size'])} ({escape(student['words'])}), {short(student['tokens'])} tokens"
    )
    console.print("change    student minus twin, less is better (a benchmark's share with its sign turned)")
    for name, objective in found["objectives"].items():
        console.print(f"\n[bold]{name}[/bold]  {escape(heading(objective))}")
        for row in objective.get("teachers", ()):
            console.print("  " + escape(line_of(row)))
    console.print(
        "\n[bold]cost[/bold]  FLOPs of body and head: 6 per parameter and token to train, 2 for a forward pass"
    )
    for teacher in found["teachers"]:
        console.print("  " + escape(cost_of(teacher)))
    for line in answer["extrapolates"]:
        console.print(f"[yellow]extrapolates[/yellow]  {escape(line)}")
    if answer["extrapolates"]:
        console.print("The probabilities know nothing of that; measure nearer to it before spending much.", style="dim")
    for note in found["notes"]:
        console.print(f"note: {escape(note)}", style="dim")


def heading(objective: Mapping[str, Any]) -> str:
    """What one objective says, in a line."""
    if objective["status"] == "none":
        return f"no answer: {objective['why']}"
    return f"{objective['decision']} ({', '.join(objective['measures'])})"


def line_of(row: Mapping[str, Any]) -> str:
    """One teacher by one objective; less is better, so a benchmark's gain has a minus here."""
    if row["status"] == "none":
        return f"{row['teacher']}: no answer: {row['why']}"
    change, chance = row["change"], row["probability"]
    flops = "unknown" if chance["equal_flops"] is None else percent(chance["equal_flops"])
    return (
        f"{row['teacher']}  weight {row['weight']:g}  change {change['value']:+.4f} "
        f"({change['low']:+.4f} to {change['high']:+.4f})  better on equal tokens {percent(chance['equal_tokens'])}, "
        f"at equal FLOPs {flops}"
    )


def cost_of(teacher: Mapping[str, Any]) -> str:
    """The ledger of one teacher."""
    flops = teacher["flops"]
    training = "" if flops["teacher_training"] is None else f" + {flops['teacher_training']:.3g} teacher training"
    capped = ", all the text there is" if teacher["capped_by_unique_tokens"] else ""
    plainly = short(teacher["plain_tokens_at_equal_flops"])
    return (
        f"{teacher['name']}: {flops['student_training']:.3g} student + {flops['teacher_forward']:.3g} teacher forward"
        f"{training} = {flops['total']:.3g}; plainly that is {plainly} tokens{capped}"
    )
