"""Stories of a little world in which nothing contradicts itself, and essays on what leads to what."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

from potstill.lab.text.draw import Dice
from potstill.lab.text.prose.essays import essay
from potstill.lab.text.prose.plots import PLOTS
from potstill.lab.text.prose.scenes import set_stage
from potstill.lab.text.prose.world import Event

_ESSAY_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class Question:
    """What a reader of a story can answer. Answers are names, places with their preposition, or things."""

    question: str
    answer: str


@dataclass(frozen=True, slots=True)
class Story:
    """A story, what happens in it, in order, and what can be asked about it."""

    text: str
    events: tuple[Event, ...]
    questions: tuple[Question, ...]


def story(dice: Dice) -> Story:
    """One story, told in the past."""
    stage = set_stage(dice)
    dice.pick(PLOTS)(stage)
    asked = tuple(Question(question, answer) for question, answer in stage.questions)
    return Story(stage.teller.text(), tuple(stage.world.events), asked)


def stories(seed: int) -> Iterator[Story]:
    """The stories among the prose of this seed, with their facts, without end."""
    for index in count():
        dice = Dice("prose", seed, index)
        if not dice.chance(_ESSAY_SHARE):
            yield story(dice)


def piece(seed: int, index: int) -> str:
    """Document `index` of the prose corpus: a story, or every fourth time an essay."""
    dice = Dice("prose", seed, index)
    return essay(dice) if dice.chance(_ESSAY_SHARE) else story(dice).text


__all__ = ["Event", "Question", "Story", "piece", "stories", "story"]
