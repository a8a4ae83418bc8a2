"""How often the step checker cries wolf, and how many planted mistakes it finds.

Data in the form of GSM8K: JSON lines (.gz) with a worked solution each. The parser was mended on the training
split only; what is reported is the test split, which it never saw.

    python benchmarks/step_checker.py GSM8K_TEST.jsonl.gz OUT.json [MORE.jsonl.gz:COLUMN[:DATASET] ...]

False alarms: solutions as they stand, with a sum that does not hold. Some are true: the data have mistakes;
all are listed in the results, to be judged by hand. Planted: 500 solutions, one number or operator of one sum
changed, not on the line of the final sum; five kinds in equal shares. With the calculator's annotations
changed along with the prose, and with the annotations taken out, since models rarely write them. Precision is
over those solutions once as they stand and once changed. A mistake is only planted where the prose writes the
sum out as the annotation does, so recall is that of sums that are written out; results that are said in words
only cannot be found. Intervals: Clopper-Pearson, 95%.
"""

from __future__ import annotations

import gzip
import json
import random
import re
import sys
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

from scipy.stats import beta

from potstill.verifiers.steps import find_steps

PLANTED, SEED = 500, 20240
KINDS = ("wrong result", "off by one", "digits swapped", "wrong operand", "wrong operator")
_NOTE = re.compile(r"<<([^<>=]*)=([^<>=]*)>>([\d.,]+)")
_ANY_NOTE = re.compile(r"<<[^<>]*>>")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")


def interval(hits: int, of: int) -> list[float]:
    """Clopper-Pearson, 95%."""
    low = 0.0 if hits == 0 else float(beta.ppf(0.025, hits, of - hits + 1))
    return [round(low, 4), round(1.0 if hits == of else float(beta.ppf(0.975, hits + 1, of - hits)), 4)]


def share(hits: int, of: int) -> dict[str, Any]:
    return {"hits": hits, "of": of, "share": round(hits / of, 4) if of else None, "interval": interval(hits, of)}


def flagged(text: str) -> list[str]:
    return [step.text for step in find_steps(text) if not step.holds]


def untouched(texts: list[str]) -> dict[str, Any]:
    """False alarms and coverage of solutions as they stand."""
    began, counts, alarms = time.perf_counter(), [], []
    for text in texts:
        steps = find_steps(text)
        counts.append(len(steps))
        wrong = [step.text for step in steps if not step.holds]
        if wrong:
            alarms.append({"steps": wrong, "solution": text})
    return {
        "solutions": len(texts),
        "flagged": share(len(alarms), len(texts)),
        "steps": sum(counts),
        "steps_per_solution": round(sum(counts) / len(texts), 3),
        "without_a_step": counts.count(0),
        "milliseconds_per_solution": round(1000 * (time.perf_counter() - began) / len(texts), 2),
        "alarms": alarms,
    }


def worth(text: str) -> Fraction | None:
    """A plain sum's value, worked out apart from the checker: digits, operators and brackets only."""
    if not re.fullmatch(r"[\d.+*/()\s-]+", text) or "**" in text or "//" in text:
        return None
    try:
        return Fraction(str(eval(_NUMBER.sub(lambda m: f"Fraction('{m.group()}')", text), {"Fraction": Fraction})))
    except (SyntaxError, ZeroDivisionError, TypeError, ValueError):
        return None


def change(kind: str, left: str, result: str, draw: random.Random) -> tuple[str, str] | None:
    """The sum and its result with one mistake of this kind in them, or None where there is none to be made."""
    if kind == "off by one":
        return left, str(int(result) + draw.choice((-1, 1)))
    if kind == "wrong result":
        return left, str(max(1, round(int(result) * draw.uniform(0.5, 1.8)) + draw.randint(2, 9)))
    if kind == "digits swapped":
        places = [i for i in range(len(result) - 1) if result[i] != result[i + 1] and (i or result[1] != "0")]
        if not places:
            return None
        i = draw.choice(places)
        return left, result[:i] + result[i + 1] + result[i] + result[i + 2 :]
    if kind == "wrong operand":
        at = draw.choice(list(_NUMBER.finditer(left)))
        other = str(int(float(at.group())) + draw.randint(1, 9))
        return left[: at.start()] + other + left[at.end() :], result
    at = draw.choice(list(re.finditer(r"(?<=[\d)])[-+*/](?=[\d(])", left)) or [None])  # type: ignore[list-item]
    if at is None:
        return None
    other = draw.choice([sign for sign in "+-*/" if sign != at.group()])
    return left[: at.start()] + other + left[at.end() :], result


def plant(solution: str, kind: str, draw: random.Random) -> str | None:
    """The solution with one wrong sum before the line of the final sum; None where none can be planted.

    The sum in the prose before the annotation is changed too: it must be there, letter for letter but for spaces.
    """
    lines = solution.split("\n")
    last = max((i for i, line in enumerate(lines) if "<<" in line), default=0)
    places = [(i, m) for i, line in enumerate(lines[:last]) for m in _NOTE.finditer(line)]
    draw.shuffle(places)
    for i, match in places:
        left, result, shown = match.group(1).replace(" ", ""), match.group(2), match.group(3).rstrip(".,")
        line, value = lines[i], worth(left)
        prose = re.search(r"([$\d][^=<>]*?)\s*=\s*\$?$", line[: match.start()])
        if value is None or value.denominator != 1 or value < 2 or result != str(value) or prose is None:
            continue
        if shown.replace(",", "") != result or re.sub(r"[\s$]", "", prose.group(1)).replace("x", "*") != left:
            continue
        made = change(kind, left, result, draw)
        if made is None or worth(made[0]) is None:
            continue
        if abs(worth(made[0]) - Fraction(made[1])) <= Fraction(1, 2):  # type: ignore[operator]
            continue  # happens to be right, or right when rounded
        style = "x" if "x" in prose.group(1) else "*"
        spaced = re.sub(r"(?<=[\d)])([-+*/])(?=[\d(])", r" \1 ", made[0]).replace("*", style)
        start = line[: prose.start(1)] + spaced + line[prose.end(1) : match.start()]
        after = line[match.start(3) + len(shown) :]
        lines[i] = f"{start}<<{made[0]}={made[1]}>>{made[1]}{after}"
        return "\n".join(lines)
    return None


def planted(texts: list[str]) -> dict[str, Any]:
    """Recall by kind, and precision beside the same solutions unchanged, with and without annotations."""
    draw = random.Random(SEED)
    order, made = draw.sample(texts, len(texts)), []
    for text in order:
        kind = KINDS[len(made) % len(KINDS)]
        changed = plant(text, kind, draw)
        if changed is not None:
            made.append((kind, text, changed))
        if len(made) == PLANTED:
            break
    results: dict[str, Any] = {"planted": len(made)}
    for name, strip in (("with_annotations", False), ("without_annotations", True)):
        seen = [(kind, *(_ANY_NOTE.sub("", t) if strip else t for t in pair)) for kind, *pair in made]
        found = [(kind, bool(flagged(changed)), changed) for kind, _, changed in seen]
        before = sum(bool(flagged(text)) for _, text, _ in seen)
        hits = sum(hit for _, hit, _ in found)
        by_kind = {
            kind: share(sum(hit for k, hit, _ in found if k == kind), sum(k == kind for k, *_ in found))
            for kind in KINDS
        }
        results[name] = {
            "recall": share(hits, len(found)),
            "precision": share(hits, hits + before),
            "recall_by_kind": by_kind,
            "missed": [changed for _, hit, changed in found if not hit][:20],
        }
    return results


def read(path: str) -> list[dict[str, Any]]:
    raw = Path(path).read_bytes()
    text = (gzip.decompress(raw) if path.endswith(".gz") else raw).decode()
    return [json.loads(line) for line in text.split("\n") if line.strip()]


def main() -> None:
    data, out, *more = sys.argv[1:]
    solutions = [row["answer"] for row in read(data)]
    bare = [_ANY_NOTE.sub("", text) for text in solutions]
    results: dict[str, Any] = {
        "data": Path(data).name,
        "with_annotations": untouched(solutions),
        "without_annotations": untouched(bare),
        "planted": planted(solutions),
        "others": {},
    }
    for spec in more:
        path, column, *dataset = spec.split(":")
        rows = [row for row in read(path) if not dataset or str(row.get("dataset", "")).startswith(dataset[0])]
        results["others"][":".join([Path(path).name, column, *dataset])] = untouched([str(row[column]) for row in rows])
    Path(out).write_text(json.dumps(results, indent=1) + "\n")
    for name, part in [(n, results[n]) for n in ("with_annotations", "without_annotations")] + list(
        results["others"].items()
    ):
        print(name, {key: value for key, value in part.items() if key != "alarms"})
    for name in ("with_annotations", "without_annotations"):
        print("planted", name, {k: v for k, v in results["planted"][name].items() if k != "missed"})


if __name__ == "__main__":
    main()
