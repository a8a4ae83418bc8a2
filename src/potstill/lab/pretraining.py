"""The pretraining experiment: teachers of several sizes and budgets, students that learn from text and teacher at once.

    corpus -> teachers (each its own schedule) -> what each says of the students' blocks
           -> twins without a teacher, students at every weight -> measured -> differences, claims, law

A seed draws first weights and order of a student and of its twin alike; the text is the same
for all seeds. Source: Lu and Liu 2026 (arXiv 2605.23857); the control `uniform_teacher` is theirs too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from potstill.config.pretraining import PretrainingLab, PretrainingRun, Variant
from potstill.config.schedule import MovingWeight, WsdWeight
from potstill.lab.pools import LabError
from potstill.lab.steps import Step

MAKING = "potstill.lab.pretraining_making"
PLAIN: dict[str, Any] = {"kind": "cross_entropy", "weight": 1.0, "on": ["corpus"]}


@dataclass(frozen=True)
class Model:
    """One model of the experiment, before it is made."""

    role: str  # teacher, twin, student
    size: str
    tokens: int
    seed: int
    teacher: tuple[str, int] | None = None  # size and tokens
    weight: float = 0.0
    variant: str = ""

    @property
    def name(self) -> str:
        """For people, and the beginning of its address."""
        own = f"{self.role}-{self.size}"
        if self.role == "teacher":
            return f"{own}-{in_words(self.tokens)}"
        by = "" if self.teacher is None else f"-by-{teacher_name(*self.teacher)}-w{self.weight:g}"
        extra = f"-{self.variant.replace(' ', '-')}" if self.variant else ""
        return f"{own}{by}{extra}-s{self.seed}"


def in_words(tokens: int) -> str:
    """1,024,000 -> 1.02M."""
    for unit, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if tokens >= unit:
            return f"{tokens / unit:.3g}{letter}"
    return str(tokens)


def teacher_name(size: str, tokens: int) -> str:
    return f"{size}@{in_words(tokens)}"


class Grid:
    """All models of a lab and the steps that make and measure them; holds no state beyond the settings."""

    def __init__(self, lab: PretrainingLab):
        self.lab = lab

    # -- which models ---------------------------------------------------------

    def teachers(self) -> list[Model]:
        kinds = self.lab.teachers
        return [Model("teacher", size, tokens, kinds.seed) for tokens in kinds.tokens for size in kinds.sizes]

    def twins(self, size: str) -> list[Model]:
        return [Model("twin", size, self.lab.student_tokens, seed) for seed in self.lab.seeds]

    def students(self, size: str, weights: Mapping[tuple[str, int], tuple[float, ...]] | None = None) -> list[Model]:
        """Every teacher at every weight, or at the weights given by teacher. Seeds stand together."""
        found = []
        for seed in self.lab.seeds:
            for teacher in self.teachers():
                by = (teacher.size, teacher.tokens)
                for weight in self.lab.weights if weights is None else weights.get(by, ()):
                    found.append(Model("student", size, self.lab.student_tokens, seed, by, weight))
        return found

    def ablations(self) -> Iterator[Model]:
        """The variants, where `ablation` says."""
        cells = self.lab.ablation
        known = [teacher_name(teacher.size, teacher.tokens) for teacher in self.teachers()]
        strange = sorted(set(cells.teachers) - set(known))
        if strange:
            raise LabError(f"ablation.teachers are among {', '.join(known)}; found {', '.join(strange)}")
        weights = cells.weights or self.lab.weights
        for size in cells.students or self.lab.students[:1]:
            for model in self.students(size):
                assert model.teacher is not None
                wanted = not cells.teachers or teacher_name(*model.teacher) in cells.teachers
                if wanted and model.weight in weights:
                    for name, variant in self.lab.variants.items():
                        first = model.teacher == (self.lab.teachers.sizes[0], self.lab.teachers.tokens[0])
                        # A schedule says all weights itself.
                        again = variant.weight_schedule is not None and model.weight != weights[0]
                        if not again and (not variant.uniform_teacher or first or cells.teachers):
                            yield Model("student", size, model.tokens, model.seed, model.teacher, model.weight, name)

    def main(self) -> list[Model]:
        """What needs no result to be known: teachers, twins of all students, the first students, ablations."""
        twins = [twin for size in (*self.lab.students, *self.lab.completing) for twin in self.twins(size)]
        students = [model for size in self.lab.students for model in self.students(size)]
        return [*self.teachers(), *twins, *students, *self.ablations()]

    # -- the steps --------------------------------------------------------------

    def corpus(self, other: Variant | None = None) -> Step:
        config = self.lab.corpus if other is None else other.teacher_corpus
        assert config is not None
        facts = {"corpus": config.model_dump(mode="json", exclude_defaults=True)}
        if other is None:
            return Step("corpus", f"{MAKING}:make_text", facts)
        return Step("corpus-other", f"{MAKING}:make_text", facts, {"tokenizer": self.corpus()})

    def run(self, model: Model) -> PretrainingRun:
        """The configuration of a model's own training."""
        lab, steps = self.lab, model.tokens // (self.lab.batch_blocks * self.lab.block_tokens)
        return PretrainingRun.model_validate({
            "shape": lab.sizes[model.size].model_dump(),
            "seed": model.seed,
            "block_tokens": lab.block_tokens,
            "documents": lab.documents,
            "blocks": None if model.role == "teacher" else lab.student_tokens // lab.block_tokens,
            "steps": steps,
            "batch_blocks": lab.batch_blocks,
            "micro_batch_blocks": lab.micro_batch_blocks,
            "optimiser": {
                "learning_rate": lab.learning_rate,
                "warmup_steps": round(lab.warmup_share * steps),
                "schedule": {"kind": "cosine", "final_fraction": 0.1},
                "weight_decay": lab.weight_decay,
            },
            "objective": {"terms": terms_of(model.weight, self.variant(model))},
            "precision": lab.precision,
            "device": lab.device,
            "checkpoint_every": max(1, steps // 4),
        })  # fmt: skip

    def variant(self, model: Model) -> Variant | None:
        return self.lab.variants[model.variant] if model.variant else None

    def trained(self, model: Model) -> Step:
        """Trains a model."""
        variant = self.variant(model)
        run = self.run(model).model_dump(mode="json", exclude_defaults=True)
        facts: dict[str, Any] = {"run": run, "targets": self.lab.targets}
        needs = {"corpus": self.corpus()}
        if model.role == "teacher" and variant is not None:
            needs = {"corpus": self.corpus(variant)}
        if variant is not None and variant.uniform_teacher:
            facts["uniform_teacher"] = True
        elif model.teacher is not None:
            other = model.variant if variant is not None and variant.teacher_corpus is not None else ""
            teacher = Model("teacher", *model.teacher, self.lab.teachers.seed, variant=other)
            needs["teacher"] = self.trained(teacher)
            if self.lab.targets == "kept":
                needs["targets"] = self.kept(teacher)
            if variant is not None and (variant.top_k or variant.draws):
                facts |= {"top_k": variant.top_k, "draws": variant.draws}
        return Step(model.name, f"{MAKING}:make_model", facts, needs)

    def kept(self, teacher: Model) -> Step:
        """What a teacher says of the students' blocks."""
        facts = {
            "blocks": self.lab.student_tokens // self.lab.block_tokens,
            "block_tokens": self.lab.block_tokens,
            "documents": self.lab.documents,
            "device": self.lab.device,
        }
        needs = {"corpus": self.corpus(), "teacher": self.trained(teacher)}
        return Step(f"targets-{teacher_name(teacher.size, teacher.tokens)}", f"{MAKING}:make_targets", facts, needs)

    def measured(self, model: Model) -> Step:
        """Measures a model."""
        left_out = {"difficulty_bins", "position_bins"}
        measuring = self.lab.measuring.model_dump(mode="json", exclude=left_out, exclude_defaults=True)
        facts = {"measuring": measuring, "block_tokens": self.lab.block_tokens, "device": self.lab.device}
        needs = {"corpus": self.corpus(), "model": self.trained(model)}
        return Step(f"measure-{model.name}", "potstill.lab.pretraining_measuring:make_measures", facts, needs)


def terms_of(weight: float, variant: Variant | None = None) -> list[dict[str, Any]]:
    """(1 - weight) cross-entropy + weight forward KL, both on the corpus; a term of weight 0 is not there.

    At weight 0 this is plain training, term for term.
    """
    if weight == 0:
        return [PLAIN]
    variant = variant or Variant.model_construct()
    divergence: dict[str, Any] = {"kind": "forward_kl", "weight": weight, "on": ["corpus"]}
    if variant.divergence_temperature is not None:
        divergence["divergence_temperature"] = variant.divergence_temperature
    rest: Any = 1.0 if variant.full_cross_entropy else round(1.0 - weight, 12)
    if variant.weight_schedule is not None:
        divergence["weight"] = variant.weight_schedule.model_dump()
        rest = complement(variant.weight_schedule)
    return [divergence] if rest == 0 else [PLAIN | {"weight": rest}, divergence]


def complement(schedule: MovingWeight | WsdWeight) -> dict[str, Any]:
    """The schedule of 1 - weight."""
    tree = schedule.model_dump()
    return tree | {name: 1.0 - tree[name] for name in ("start", "peak", "end") if name in tree}
