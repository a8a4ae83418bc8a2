"""results.json as tables for people."""

from __future__ import annotations

from typing import Any

NAMES = {"with_references": "with references", "without_references": "training loss and proxy only"}

RANKINGS = ("all runs", "offline runs", "offline runs, in range")
SHARES = ("sound", "sound offline", "recall", "recall at the end")
MEDIANS = ("rise", "p", "epochs_after")


def markdown(results: dict[str, Any], variants: str) -> str:
    """RESULTS.md."""
    labels = results["labels"]
    listed = ", ".join(f"{number} {label}" for label, number in sorted(labels.items()))
    parts = [
        "# The oracle-free detector on runs it was not fitted to",
        f"{sum(labels.values())} runs with at least 8 evaluations ({listed}), {results['looks']} looks. Sound means "
        "healthy or still improving. Every figure is from models fitted, calibrated and given their threshold without "
        "the group (oracle and corpus) that they judge; further down, without a corpus or another part. Brackets: 95 % "
        "intervals, bootstrap over runs for areas, Clopper-Pearson for shares. In parentheses: hacked / sound runs. "
        "Again with `python benchmarks/detector/make.py`.",
        "## Ranking: area under the ROC curve, last look of each run",
        table(
            ["detector", "all runs", "offline runs only", "offline, in range"],
            [
                [name, *(area(one["figures"]["ranking"][key]) for key in RANKINGS)]
                for name, one in everyone(results)
            ],
        ),
        "## Alarms: a run counts when any of its looks alarms",
        table(
            ["detector", "sound runs", "of them offline", "hacked runs", "at their last look", "outside"],
            [
                [name, *(share(one["figures"][key]) for key in SHARES), str(one["figures"]["outside"])]
                for name, one in everyone(results)
            ],
        ),
        by_label(results),
        "## Delay: step of the first alarm over step of the onset (the U test first holds on the dense golden)",
        table(
            ["detector", "runs", "quartiles", "before golden's minimum (false)", "between minimum and onset (early)"],
            [delay(name, one["figures"]["delay"]) for name, one in everyone(results)],
        ),
        "## Calibration",
        *(reliability(NAMES[key], results["detectors"][key]["calibration"]) for key in NAMES),
        unseen(results),
        "## Transfer: fitted without the part named",
        *(transfer(results, key) for key in NAMES),
        "## Less of the log (the same models)",
        table(
            ["log", "detector", "runs", "area, all", "area, offline", "sound runs alarmed", "hacked runs alarmed"],
            [
                [design, NAMES[key], str(one["runs"]), area(one["figures"]["ranking"]["all runs"]),
                 area(one["figures"]["ranking"]["offline runs"]), share(one["figures"]["sound"]),
                 share(one["figures"]["recall"])]
                for design, both in results["designs"].items() for key, one in both.items()
            ],
        ),
        misses(results),
        variants,
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def everyone(results: dict[str, Any]) -> list[tuple[str, Any]]:
    """The two detectors, then the baselines."""
    return [(NAMES[key], results["detectors"][key]) for key in NAMES] + [
        (f"baseline: {name}", one) for name, one in results["baselines"].items()
    ]


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def area(found: dict[str, Any]) -> str:
    if found["area"] is None:
        return "-"
    low, high = found["interval"]
    return f"{found['area']:.3f} [{low:.3f}, {high:.3f}] ({found['hacking']} / {found['sound']})"


def share(found: dict[str, Any]) -> str:
    if not found["of"]:
        return "-"
    low, high = found["interval"]
    return f"{found['hits']} of {found['of']}, {found['share']:.1%} [{low:.1%}, {high:.1%}]"


def by_label(results: dict[str, Any]) -> str:
    labels = sorted(results["labels"])
    rows = [
        [NAMES[key], *(share(results["detectors"][key]["figures"]["alarmed"][label]) for label in labels)]
        for key in NAMES
    ]
    return table(["alarmed, by the oracle's word", *labels], rows)


def delay(name: str, found: dict[str, Any]) -> list[str]:
    quartiles = "-" if found["quartiles"] is None else " / ".join(f"{edge:.2f}" for edge in found["quartiles"])
    return [name, str(found["runs"]), quartiles, str(len(found["before_minimum"])), str(len(found["early"]))]


def reliability(name: str, found: dict[str, Any]) -> str:
    last = found["last looks"]
    every = found["all looks"]
    return (
        f"{name}, last looks: Brier score {last['brier']:.3f} (always saying the base rate: "
        f"{last['brier_of_base_rate']:.3f}); over all looks {every['brier']:.3f} "
        f"({every['brier_of_base_rate']:.3f}).\n\n"
    ) + table(
        ["probability", "runs, last look", "said, mean", "hacked, share", "all looks", "said, mean", "hacked, share"],
        [
            [f"{low:g} to {high:g}", *one_bin(last, low), *one_bin(every, low)]
            for low, high in sorted({(one["from"], one["to"]) for one in every["bins"]})
        ],
    )


def unseen(results: dict[str, Any]) -> str:
    head = "## Runs made after the features had been chosen"
    rows = []
    for key, one in results["unseen"].items():
        if one["runs"]:
            found = one["ranking"]["all runs"], one["ranking"]["offline runs"]
            rows.append([NAMES[key], *map(area, found), share(one["sound"]), share(one["recall"])])
    if not rows:
        return f"{head}\n\nNone yet."
    columns = ["detector", "area, all", "area, offline", "sound runs alarmed", "hacked runs alarmed"]
    return f"{head}\n\n{table(columns, rows)}"


def one_bin(found: dict[str, Any], low: float) -> list[str]:
    for one in found["bins"]:
        if one["from"] == low:
            return [str(one["looks"]), f"{one['said']:.3f}", f"{one['was']:.3f}"]
    return ["0", "-", "-"]


def transfer(results: dict[str, Any], key: str) -> str:
    rows = []
    for kind, parts in results["transfer"].items():
        for part, one in parts[key].items():
            rows.append(
                [kind, str(part), area(one["area"]), share(one["sound"]), share(one["recall"]), share(one["outside"])]
            )
    head = ["held out", "part", "area (hacked / sound)", "sound runs alarmed", "hacked runs alarmed", "outside"]
    return f"{NAMES[key]}:\n\n{table(head, rows)}"


def misses(results: dict[str, Any]) -> str:
    """Hacked runs that never alarmed, and sound ones that did."""
    parts = ["## Misses and false alarms"]
    for key, name in NAMES.items():
        found = results["detectors"][key]["misses"]
        figures = results["detectors"][key]["figures"]
        head = ["", "runs", "golden's rise, share of its fall", "p of the label", "epochs after the minimum", "outside"]
        rows = [
            [what, str(one["runs"]), *(f"{one[fact]:.3g}" for fact in MEDIANS), str(one["outside"])]
            for what, one in found.items() if one["runs"]
        ]  # fmt: skip
        parts.append(f"{name} (medians):\n\n{table(head, rows)}")
        parts.append(f"False alarms: {', '.join(figures['sound']['names']) or 'none'}.")
    return "\n\n".join(parts)
