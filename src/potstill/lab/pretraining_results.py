"""results.json of the pretraining experiment, from whatever is done."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from potstill.config.pretraining import PretrainingLab
from potstill.data.corpus import open_corpus
from potstill.lab.conducting import flat, hardware
from potstill.lab.laws import fit_laws
from potstill.lab.pretraining import Grid, teacher_name
from potstill.lab.pretraining_bins import bins_of
from potstill.lab.pretraining_claims import best_cells, counted, judge_claims
from potstill.lab.pretraining_reading import OUTSIDE, Cell, Made, cells_of, estimate, items_error, relation, unit_of
from potstill.models.shapes import shape_parameters
from potstill.run_dir import write_atomic


def write_results(lab: PretrainingLab, preset: str, root: Path, made: Sequence[Made], *, law: bool) -> Path:
    """results.json; `law` fits the laws too, which takes a while."""
    cells = cells_of(made)
    corpus = open_corpus(Grid(lab).corpus().folder(root) / "corpus")
    known = sizes(lab, int(corpus.facts["vocabulary"]))
    tree: dict[str, Any] = {
        "lab": "pretraining",
        "preset": preset,
        "setting": flat(lab.model_dump(mode="json", exclude={"seeds"})),
        "seeds": list(lab.seeds),
        "hardware": hardware(lab.device),
        "sizes": known,
        "corpus": {
            "train_tokens": corpus.sets["train"]["tokens"],
            "block_tokens": lab.block_tokens,
            "vocabulary": corpus.facts["vocabulary"],
            "sets": {name: dict(facts) for name, facts in corpus.sets.items()},
            "contamination": without_text(corpus.facts.get("contamination", {})),
        },
        "models": [model_entry(one, known) for one in made],
        "differences": [cell_entry(lab, cell) for cell in cells],
        "best_weights": [entry for measure in kinds(cells) for entry in best_entries(cells, measure)],
        "bins": [entry for cell in cells for entry in bins_of(lab, cell)],
        "claims": judge_claims(cells),
        "laws": {},
    }
    tree["seconds"] = round(sum(model["seconds"] for model in tree["models"]), 1)
    if law and cells:
        tree["laws"] = fit_laws(tree)
    return write_atomic(root / "results.json", json.dumps(tree, indent=1, allow_nan=False).encode())


def without_text(found: Mapping[str, Any]) -> dict[str, Any]:
    """Counts alone: text belongs to its owners."""
    return {name: {k: v for k, v in facts.items() if k != "examples"} for name, facts in found.items()}


def sizes(lab: PretrainingLab, vocabulary: int) -> dict[str, dict[str, int]]:
    """Size -> its parameters: all; the body's; those that multiply at every token (body and head)."""
    names = ("parameters", "body_parameters", "computing_parameters")
    return {
        size: dict(zip(names, shape_parameters(shape, vocabulary, lab.block_tokens), strict=True))
        for size, shape in lab.sizes.items()
    }


def model_entry(one: Made, known: Mapping[str, Any]) -> dict[str, Any]:
    """A model, what it took, what it is worth. FLOPs are those of training with the teacher in the same batch."""
    model, facts = one.model, one.facts
    teacher, forward, training = None, 0.0, 6.0 * known[model.size]["computing_parameters"] * facts["tokens"]
    if model.teacher is not None:
        size, tokens = model.teacher
        teacher = {"id": one.teacher_id, "size": size, "tokens": tokens}
        if one.teacher_id is not None:  # a uniform teacher is no model
            forward = 2.0 * known[size]["computing_parameters"] * facts["tokens"]
    return {
        "id": one.id,
        "role": model.role,
        "size": model.size,
        "parameters": facts["parameters"],
        "body_parameters": facts["body_parameters"],
        "tokens": facts["tokens"],
        "tokens_per_parameter": facts["tokens"] / facts["parameters"],
        "seed": model.seed,
        "teacher": teacher,
        "weight": model.weight,
        "variant": model.variant,
        "seconds": round(facts["training_seconds"], 1),
        "flops": {"training": training, "teacher_forward": forward},
        "training_loss": facts["training_loss"],
        "perplexity": one.measures["perplexity"],
        "choices": one.measures["choices"],
    }


def cell_entry(lab: PretrainingLab, cell: Cell) -> dict[str, Any]:
    """Student minus twin, measure by measure."""
    measures = {}
    for name in cell.measures:
        domain, unit, better = unit_of(name)
        facts = {"domain": domain, "unit": unit, "better": better, **estimate(cell.differences(name))}
        measures[name] = facts | {"se_over_text": items_error(cell, name)}
    return {
        "size": cell.size,
        "tokens": cell.tokens,
        "tokens_per_parameter": cell.tokens / cell.pairs[0][0].facts["parameters"],
        "teacher": teacher_entry(cell),
        "weight": cell.weight,
        "variant": cell.variant,
        "seeds": cell.seeds,
        "relation": relation(lab, cell),
        "gap": cell.gap if by_its_teacher(lab, cell) else None,
        "counted": counted([cell]),
        "measures": measures,
    }


def by_its_teacher(lab: PretrainingLab, cell: Cell) -> bool:
    """Whether the teacher of the grid taught, and not the variant's own (no model, or one of other text)."""
    variant = lab.variants.get(cell.variant)
    return variant is None or not (variant.uniform_teacher or variant.teacher_corpus)


def teacher_entry(cell: Cell) -> dict[str, Any]:
    teacher = cell.teacher
    return {
        "id": teacher.id,
        "name": teacher_name(teacher.model.size, teacher.model.tokens),
        "size": teacher.model.size,
        "tokens": teacher.model.tokens,
        "tokens_per_parameter": teacher.facts["tokens"] / teacher.facts["parameters"],
    }


def kinds(cells: Sequence[Cell]) -> list[str]:
    """By what a best weight is chosen: in-domain, out of domain, and the downstream measure that counts."""
    if not cells:
        return []
    outside = (
        [OUTSIDE] if OUTSIDE in cells[0].measures else [m for m in cells[0].measures if unit_of(m)[0] == "out"][:1]
    )
    return ["held_out", *outside, *counted([cells[0]])]


def best_entries(cells: Sequence[Cell], measure: str) -> list[dict[str, Any]]:
    """The best weight of the main grid for every student's size and teacher, by one measure."""
    found = []
    for cell in best_cells([c for c in cells if not c.variant and measure in c.measures], measure):
        facts = estimate(cell.differences(measure))
        found.append(
            {"size": cell.size, "tokens": cell.tokens, "teacher": teacher_entry(cell), "measure": measure,
             "weight": cell.weight, "mean": facts["mean"], "low": facts["low"], "high": facts["high"]}
        )  # fmt: skip
    return found


def best_weights(made: Sequence[Made], size: str) -> dict[tuple[str, int], tuple[float, ...]]:
    """Teacher -> the weight of largest mean in-domain gain for this size: what completing sizes are given."""
    cells = [cell for cell in cells_of(made) if cell.size == size and not cell.variant]
    best = best_cells(cells, "held_out")
    return {(c.teacher.model.size, c.teacher.model.tokens): (c.weight,) for c in best if np.isfinite(c.weight)}
