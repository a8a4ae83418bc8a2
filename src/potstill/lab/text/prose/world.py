"""The little world: who is where and holds what. It refuses what cannot be, so a story cannot contradict itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from potstill.lab.text.inflect import article
from potstill.lab.text.prose.places import Place
from potstill.lab.text.prose.trades import Trade

Kind = Literal["go", "find", "give", "make", "use", "work", "tell"]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened. `other` is who was given, helped or told; `place` is where, or where one went."""

    kind: Kind
    actor: str
    place: str
    thing: str = ""
    other: str = ""


@dataclass(eq=False, slots=True)
class Person:
    """Somebody in a story."""

    name: str
    woman: bool
    trade: Trade
    trait: str
    place: Place

    @property
    def he(self) -> str:
        """he or she."""
        return "she" if self.woman else "he"

    @property
    def him(self) -> str:
        """him or her."""
        return "her" if self.woman else "him"

    @property
    def his(self) -> str:
        """his or her."""
        return "her" if self.woman else "his"


@dataclass(eq=False, slots=True)
class Thing:
    """Something that exists once: somebody holds it or it lies somewhere."""

    noun: str
    looks: str
    holder: Person | None = None
    place: Place | None = None

    @property
    def full(self) -> str:
        """`cracked brass lantern`."""
        return f"{self.looks} {self.noun}".strip()

    @property
    def the(self) -> str:
        """With the definite article."""
        return f"the {self.full}"

    @property
    def short(self) -> str:
        """The noun alone; no other thing of the story has it."""
        return f"the {self.noun}"

    @property
    def a(self) -> str:
        """With the indefinite article."""
        return f"{article(self.full)} {self.full}"


@dataclass(slots=True)
class World:
    """The state, and all that happened so far."""

    people: list[Person]
    places: list[Place]
    things: list[Thing] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)

    def add(self, thing: Thing) -> Thing:
        """Put a thing into the world. Raises ValueError where another has its noun or it is nowhere."""
        if any(other.noun == thing.noun for other in self.things):
            raise ValueError(f"expected one {thing.noun} in a story, found two")
        if (thing.holder is None) == (thing.place is None):
            raise ValueError(f"expected {thing.the} to be held or to lie somewhere")
        self.things.append(thing)
        return thing

    def go(self, who: Person, where: Place) -> None:
        """Somebody goes to another place."""
        if who.place is where:
            raise ValueError(f"{who.name} is already {where.where}")
        who.place = where
        self.events.append(Event("go", who.name, where.name))

    def find(self, who: Person, thing: Thing) -> None:
        """Somebody takes what lies where they are."""
        if thing.place is not who.place:
            raise ValueError(f"{thing.the} does not lie {who.place.where}, where {who.name} is")
        thing.holder, thing.place = who, None
        self.events.append(Event("find", who.name, who.place.name, thing.full))

    def give(self, who: Person, other: Person, thing: Thing) -> None:
        """Somebody hands a thing to somebody beside them."""
        if thing.holder is not who or other.place is not who.place:
            raise ValueError(f"{who.name} cannot give {thing.the} to {other.name}")
        thing.holder = other
        self.events.append(Event("give", who.name, who.place.name, thing.full, other.name))

    def make(self, who: Person, thing: Thing, out_of: Thing) -> Thing:
        """Somebody makes a new thing and holds it; what it is made of is no more."""
        if out_of.holder is not who:
            raise ValueError(f"{who.name} cannot use {out_of.the} without holding it")
        out_of.holder = None
        self.events.append(Event("use", who.name, who.place.name, out_of.full))
        thing.holder = who
        self.events.append(Event("make", who.name, who.place.name, thing.full))
        return self.add(thing)

    def meet(self, kind: Literal["work", "tell"], who: Person, other: Person, thing: Thing | None = None) -> None:
        """Somebody works for, or tells something to, somebody beside them."""
        if other.place is not who.place:
            raise ValueError(f"{who.name} is not where {other.name} is")
        self.events.append(Event(kind, who.name, who.place.name, thing.full if thing else "", other.name))
