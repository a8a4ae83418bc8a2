"""torchdistill: KDLoss, a loss for classifiers; each counted token is given to it as one example."""

from __future__ import annotations

from importlib.metadata import version

from protocol import Entry, World, backward, main
from torchdistill.losses.mid_level import KDLoss


def kd(world: World, alpha: float, temperature: float) -> list[list[float]]:
    """alpha 0: the soft part alone. The logits travel in the dictionaries that its forward hooks fill."""
    loss = KDLoss(".", "output", ".", "output", temperature, alpha=alpha)
    out = []
    for rank in world:
        out.append([])
        for batch in rank:
            student, teacher = (part[:, :-1][batch.counted] for part in (batch.student, batch.teacher))
            out[-1].append(backward(loss({".": {"output": student}}, {".": {"output": teacher}})))
    return out


NO_MASK = "a loss for classifiers, with no mask and no count other than the examples of its own call"
ENTRIES = [
    Entry(
        "KDLoss", "torchdistill.losses.mid_level.KDLoss", {"forward_kl": 0.0}, kd,
        called_as="KDLoss('.', 'output', '.', 'output', temperature, alpha=0) on [counted tokens, V]",
        not_offered={"accumulation": NO_MASK, "two_ranks": NO_MASK, "padding": NO_MASK, "masked": NO_MASK},
        notes={"t_squared": "its formula has tau squared; the code multiplies by it only where the hard loss is added "
                            "(alpha above 0 and targets given)"},
    ),
]  # fmt: skip

if __name__ == "__main__":
    main("torchdistill", {"torchdistill": version("torchdistill")}, ENTRIES)
