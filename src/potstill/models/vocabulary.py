"""Do teacher and student speak of the same tokens?

Compared token string by token string, because equal sizes prove nothing and
unequal sizes are often only padding (a family pads its matrices to 151,936 rows
in one size and 152,064 in another). Three answers: the same; the same tokens in
matrices padded differently, which are aligned; or different, which is refused
with the ids named, since a divergence between distributions over different
things is a number without meaning.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from potstill.models.load import ModelError

SHOWN = 5


@dataclass(frozen=True)
class Alignment:
    """How the teacher's columns lie over the student's.

    `shared` is None when nothing has to be done: equal widths, no padding differs.
    Otherwise the first `shared` columns are the vocabulary; what lies beyond is padding.
    """

    shared: int | None
    student_width: int


def align(teacher: Any, student: Any, teacher_width: int, student_width: int) -> Alignment:
    """Compare two tokenizers and the widths of their models' heads.

    Raises ModelError where a token id means different strings, or a head is
    narrower than its vocabulary.
    """
    ours, theirs = token_strings(student), token_strings(teacher)
    differing = sorted(i for i in ours.keys() | theirs.keys() if ours.get(i) != theirs.get(i))
    if differing:
        shown = "; ".join(f"id {i}: teacher {theirs.get(i)!r}, student {ours.get(i)!r}" for i in differing[:SHOWN])
        raise ModelError(
            f"teacher and student have different vocabularies: {len(differing)} ids differ ({shown}). "
            "Distributions over different tokens cannot be compared. Use a student with the teacher's "
            "tokenizer: one of the same family, cut from its layers, or from scratch."
        )
    size = max(ours) + 1
    for role, width in (("teacher", teacher_width), ("student", student_width)):
        if width < size:
            raise ModelError(
                f"the {role}'s head has {width} columns for a vocabulary of {size} tokens; "
                "resize it with model.resize_token_embeddings(len(tokenizer))"
            )
    if teacher_width == student_width:
        return Alignment(None, student_width)
    return Alignment(size, student_width)


def token_strings(tokenizer: Any) -> dict[int, str]:
    """id -> token string, added tokens included."""
    return {index: token for token, index in tokenizer.get_vocab().items()}
