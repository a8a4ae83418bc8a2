"""Makes the labelled set: lab runs over arms, corpora, tokenisations, sizes, learning rates and seeds.

    python benchmarks/labelled/make.py --root runs/labelled --workers 2 [--only pydoc prose ...]

Each finished run becomes runs/NAME.npz beside this file (what detectors see, and the label's
curves; see src/potstill/lab/labelled.py) and a line of index.json with its facts and its
label. What is there is not made again; stopped, the same command goes on. `--count` prints
the tables of counts and writes COUNTS.md.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from potstill.config.lab import Arm, HackingLab
from potstill.config.load import load_hacking_lab
from potstill.lab.arms import PLANS, length_of, steps_per_epoch
from potstill.lab.conducting import preset_path
from potstill.lab.hacking import Experiment
from potstill.lab.labelled import of_run, save
from potstill.lab.steps import Step, run_steps

HERE = Path(__file__).resolve().parent
EVERY = ("offline", "oracle_as_teacher", "few_epochs", "prompts_fifth", "completions_4", "mixture_10", "large_pool",
         "online_teacher", "online_student")  # fmt: skip
PRESET = ("offline", "oracle_as_teacher", "online_teacher", "online_student", "mixture_10", "prompts_fifth",
          "completions_4")  # fmt: skip
OFFLINE = ("offline", "oracle_as_teacher", "prompts_fifth", "large_pool", "stopped_early")
WITHOUT_FIFTH = ("offline", "oracle_as_teacher", "large_pool", "stopped_early")
OTHERS = ("reverse_kl", "jensen_shannon", "small_teacher", "small_student", "overtrained_teacher")


@dataclass(frozen=True)
class World:
    """A setting; worlds of one `group` share oracle and corpus, and must be split together."""

    name: str
    group: str
    changes: tuple[str, ...]
    arms: tuple[str, ...]
    seeds: tuple[int, ...]
    test_only: bool = False  # for trying a detector that was fitted to the other worlds

    def lab(self) -> HackingLab:
        arms, seeds = f"arms=[{', '.join(self.arms)}]", f"seeds={list(self.seeds)}"
        return load_hacking_lab(preset_path("tiny"), [*self.changes, arms, seeds])


BPE = "tokenisation={kind: bpe, vocabulary: 512}"
#: Half the width, half the prompts: cheap, and another balance of student, teacher and data.
SMALLER = (
    "oracle={kind: tiny, hidden_size: 64, num_layers: 2, ffn_size: 128}",
    "teacher={kind: tiny, hidden_size: 48, num_layers: 2, ffn_size: 96}",
    "student={kind: tiny, hidden_size: 32, num_layers: 2, ffn_size: 64}",
    "distillation_prompts=256",
)
SPARSER = "evaluate_every_epochs=4"
#: Half the prompts again, twice the epochs: as many steps, each row seen 96 times.
FEW = ("distillation_prompts=128", "epochs=96", "evaluate_every_epochs=8")
#: The setting of benchmarks/remedies, whose offline runs lie in the same place: --root runs/remedies.
LONG = ("epochs=60",)
WORLDS = (
    # The preset's own seeds: the setting was searched on them.
    World("pydoc-search", "pydoc", (), PRESET, (0, 1, 2)),
    World("pydoc", "pydoc", (), EVERY, (3, 4, 5, 6, 7)),
    World("prose-small", "prose-small", ("prompts.corpus=prose", *SMALLER, SPARSER), OFFLINE, (0, 1, 2)),
    World("grammar-few", "grammar-few", ("prompts.corpus=grammar", *SMALLER, *FEW), OFFLINE, (0, 1, 2)),
    World("pydoc-others", "pydoc", (), OTHERS, (3, 4, 5)),
    World("pydoc-bpe", "pydoc-bpe", (BPE, SPARSER), OFFLINE, (0, 1)),
    World("technical", "technical", ("prompts.corpus=technical", SPARSER), OFFLINE, (0, 1)),
    World("pydoc-slow", "pydoc", ("learning_rate=1e-3", SPARSER), WITHOUT_FIFTH, (3, 4)),
    World("pydoc-fast", "pydoc", ("learning_rate=4e-3", SPARSER), WITHOUT_FIFTH, (3, 4)),
    World("pydoc-slow-5", "pydoc", ("learning_rate=1e-3", SPARSER), ("offline", "stopped_early"), (5,)),
    World("pydoc-fast-5", "pydoc", ("learning_rate=4e-3", SPARSER), ("offline", "stopped_early"), (5,)),
    # Made after the others, for the detector: more oracles with students large enough to be hacked.
    World("technical-more", "technical", ("prompts.corpus=technical", SPARSER), OFFLINE, (2, 3, 4)),
    World("prose", "prose", ("prompts.corpus=prose", SPARSER), OFFLINE, (0, 1, 2)),
    # Made when the detector stood; it is never fitted to these, only tried on them (benchmarks/detector/fresh.py).
    World("pydoc-long", "pydoc", LONG, ("offline", "oracle_as_teacher", "large_pool"), tuple(range(8, 16)), True),
    World("prose-bpe", "prose-bpe", ("prompts.corpus=prose", BPE, SPARSER), OFFLINE, (0, 1), True),
)


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the labelled set of runs.")
    parser.add_argument("--root", type=Path, default=Path("runs/labelled"), help="where the runs themselves lie")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", nargs="*", help="names of worlds")
    parser.add_argument("--count", action="store_true", help="only count what is there")
    chosen = parser.parse_args()
    if not chosen.count:
        worlds = [world for world in WORLDS if not chosen.only or world.name in chosen.only]
        make(worlds, chosen.root, chosen.workers)
    print(count(read_index()))


def make(worlds: Iterable[World], root: Path, workers: int) -> None:
    """Run all cells of the worlds; each is extracted as soon as it is done."""
    cells: dict[str, tuple[World, Arm, int, Step]] = {}
    for world in worlds:
        lab = world.lab()
        for seed in lab.seeds:
            for arm in lab.arms:
                step = Experiment(lab).cell(arm, seed)
                cells[step.address] = (world, arm, seed, step)

    def notice(step: Step, seconds: float | None) -> None:
        if step.address in cells:
            world, arm, seed, _ = cells[step.address]
            line = extract(world, arm, seed, step, root)
            if seconds is not None:
                print(f"{line['name']:<36} {seconds:>5.0f} s  {line['label']:<16} {line['confidence']:.2f}", flush=True)
        elif seconds is not None:
            print(f"{step.name:<36} {seconds:>5.0f} s", flush=True)

    run_steps(root, [step for *_, step in cells.values()], workers, notice)


def extract(world: World, arm: Arm, seed: int, step: Step, root: Path) -> dict[str, Any]:
    """The run's small file and its line of the index; only once."""
    name = f"{world.name}-{arm.replace('_', '-')}-s{seed}"
    index = read_index()
    if name in index and (HERE / "runs" / f"{name}.npz").is_file() and index[name]["step"] == step.address:
        return index[name]
    lab = world.lab()
    facts = {
        "name": name, "step": step.address, "world": world.name, "group": world.group, "arm": arm, "seed": seed,
        "corpus": lab.prompts.model_dump().get("corpus"),
        "tokenisation": lab.tokenisation.kind if lab.tokenisation else None,
        "source": PLANS[arm].source, "learning_rate": lab.learning_rate, "epochs": length_of(lab, arm)[0],
        "test_only": world.test_only, "steps_per_epoch": steps_per_epoch(lab),
        "student_hidden_size": lab.student.model_dump().get("hidden_size"),
    }  # fmt: skip
    run = of_run(step.folder(root) / "run", facts)
    save(run, HERE / "runs" / f"{name}.npz")
    verdict = run.verdict()
    rise = verdict.evidence.get("golden_rise")
    facts |= {
        "label": verdict.verdict,
        "confidence": round(verdict.confidence, 4),
        "p": None if rise is None else rise["p"],
        "change_point": verdict.evidence.get("change_point"),
    }
    index = read_index() | {name: facts}
    (HERE / "index.json").write_text(json.dumps(list(index.values()), indent=0) + "\n")
    return facts


def read_index() -> dict[str, dict[str, Any]]:
    path = HERE / "index.json"
    return {line["name"]: line for line in json.loads(path.read_text())} if path.is_file() else {}


def count(index: dict[str, dict[str, Any]]) -> str:
    """Tables of labels by setting, arm, corpus and tokenisation; written to COUNTS.md too."""
    runs = list(index.values())
    labels = sorted({run["label"] for run in runs})
    parts = [f"# The labelled set: {len(runs)} runs\n"]
    for key in ("group", "world", "corpus", "tokenisation", "arm"):
        table = Counter((run[key], run["label"]) for run in runs)
        rows = sorted({run[key] for run in runs})
        parts.append(f"| {key} | runs | {' | '.join(labels)} |\n|---|---|{'---|' * len(labels)}")
        for row in rows:
            numbers = [table[row, label] for label in labels]
            parts.append(f"| {row} | {sum(numbers)} | {' | '.join(map(str, numbers))} |")
        parts.append("")
    hard = [run for run in runs if is_hard_negative(run)]
    parts.append(f"Hard negatives (many offline epochs, not hacking and not overfitting): {len(hard)} of {len(runs)}.")
    text = "\n".join(parts) + "\n"
    (HERE / "COUNTS.md").write_text(text)
    return text


def is_hard_negative(run: dict[str, Any]) -> bool:
    """Offline rows seen many times, and yet no rise: what a detector of mere repetition would call hacked."""
    many = run["arm"] != "few_epochs"
    return run["source"] == "offline" and many and run["label"] in ("healthy", "still_improving")


if __name__ == "__main__":
    main()
