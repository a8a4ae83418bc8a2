"""Labelled runs: what a detector without an oracle would see, and what the oracle knows.

A run of the lab is measured on thousands of held-out prompts. A few hundred of them, kept
apart, play the log of an ordinary run: proxy, the NLL of references (the oracle's samples),
training loss. The others give the label, by the U test on their golden. The two share no
prompt, so that a detector cannot be right by sharing the label's luck.

    detector's prompts   per prompt, at every evaluation: proxy, reference NLL
    label's prompts      golden and proxy as means over groups of prompts, which keep the
                         pairing between evaluations that the U test's bootstrap needs
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from potstill.diagnosis import judge, read_curves
from potstill.diagnosis.views import of_prompts
from potstill.records import Curve, Verdict
from potstill.run_dir import RunDir, write_atomic

#: Prompts that detectors may see.
DETECTOR_PROMPTS = 256
#: Groups that golden's prompts, and proxy's, are averaged in. The bootstrap redraws groups then.
GOLDEN_GROUPS, PROXY_GROUPS = 128, 64


@dataclass(frozen=True)
class LabelledRun:
    """One run: facts, the label's curves, the detector's curves. All values in nats per sequence sums."""

    facts: Mapping[str, Any]  # arm, seed, setting, corpus, tokenisation, group, epochs, steps_per_epoch
    label: Mapping[str, Curve]  # golden, proxy, over groups
    seen: Mapping[str, Curve]  # proxy, reference_nll, over the detector's prompts; training_loss of means

    def verdict(self) -> Verdict:
        """The label: the U test on the dense golden, one look."""
        return judge(self.label, "oracle")


def detector_prompts(proxy: Curve) -> np.ndarray:
    """[P] True for the prompts that detectors see: the first by hash among those that measure proxy."""
    names = proxy.prompt_ids.tolist()
    ranked = sorted(names, key=lambda name: hashlib.sha256(f"detector {name}".encode()).digest())
    chosen = set(ranked[:DETECTOR_PROMPTS])
    return np.array([name in chosen for name in names])


def of_run(path: Path, facts: Mapping[str, Any]) -> LabelledRun:
    """Read a run directory of the lab.

    Raises ValueError where fewer than 4,096 prompts would be left to label with.
    """
    curves = read_curves(RunDir(path).path)
    proxy, golden, likelihood = curves["proxy"], curves["golden"], curves["reference_nll"]
    theirs = detector_prompts(proxy)
    names = set(proxy.prompt_ids[theirs].tolist())
    ours = np.array([name not in names for name in golden.prompt_ids.tolist()])
    if ours.sum() < 4096:
        raise ValueError(
            f"{path} leaves {int(ours.sum())} held-out prompts for the label, 4096 are needed; raise held_out_prompts"
        )
    label = {
        "golden": grouped(of_prompts(golden, ours), GOLDEN_GROUPS),
        "proxy": grouped(of_prompts(proxy, ~theirs), PROXY_GROUPS),
    }
    seen = {"proxy": of_prompts(proxy, theirs), "reference_nll": of_prompts(likelihood, ~ours)}
    if "training_loss" in curves:
        seen["training_loss"] = curves["training_loss"]
    return LabelledRun(facts, label, seen)


def grouped(curve: Curve, groups: int) -> Curve:
    """Means over groups of prompts of one split, formed by order of id."""
    order = np.argsort(curve.prompt_ids, kind="stable")
    halves = [order[curve.splits[order] == split] for split in ("selection", "test")]
    cuts = [cut for half in halves for cut in np.array_split(half, groups // 2)]
    splits = [split for split in ("selection", "test") for _ in range(groups // 2)]
    names = np.array([f"group-{i:03d}" for i in range(len(cuts))])

    def means(values: np.ndarray) -> np.ndarray:
        return np.stack([values[..., cut].mean(-1) for cut in cuts], axis=-1)

    teacher = None if curve.teacher is None else means(curve.teacher)
    return Curve(
        curve.name, curve.steps, means(curve.sums), means(curve.tokens), names, np.array(splits), teacher
    )  # fmt: skip


def save(run: LabelledRun, path: Path) -> Path:
    """One small npz. The detector's values are rounded to half precision: 0.01 nats a prompt."""
    arrays: dict[str, np.ndarray] = {}
    for place, curves, width in (("label", run.label, np.float32), ("seen", run.seen, np.float16)):
        for name, curve in curves.items():
            kept = asdict(curve)
            for key in ("steps", "prompt_ids", "splits"):
                arrays[f"{place}/{name}/{key}"] = kept[key]
            arrays[f"{place}/{name}/sums"] = kept["sums"].astype(width)
            arrays[f"{place}/{name}/tokens"] = kept["tokens"][0].astype(np.float32)  # the same at every evaluation
            if kept["teacher"] is not None:
                arrays[f"{place}/{name}/teacher"] = kept["teacher"].astype(np.float32)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return write_atomic(path, buffer.getvalue())


def load(path: Path, facts: Mapping[str, Any]) -> LabelledRun:
    """What `save` wrote."""
    with np.load(path, allow_pickle=False) as stored:
        arrays = {key: stored[key] for key in stored.files}
    places: dict[str, dict[str, Curve]] = {"label": {}, "seen": {}}
    for place, name in sorted({tuple(key.split("/")[:2]) for key in arrays}):
        found = {key.split("/")[2]: value for key, value in arrays.items() if key.startswith(f"{place}/{name}/")}
        sums = found["sums"].astype(np.float64)
        tokens = np.tile(found["tokens"].astype(np.float64), (len(sums), 1))
        teacher = None if "teacher" not in found else found["teacher"].astype(np.float64)
        places[place][name] = Curve(
            name, found["steps"], sums, tokens, found["prompt_ids"], found["splits"], teacher,
            paired=found["prompt_ids"].tolist() != ["mean"],
        )  # fmt: skip
    return LabelledRun(facts, places["label"], places["seen"])
