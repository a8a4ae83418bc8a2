"""What people do in stories, one scene at a time: they walk, ask, work, swap, make and hand over.

Every scene first happens in the world, which may refuse it, and is then told. `obtain` is where plots grow: who holds
a thing may want another for it, which has to be obtained first.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from potstill.lab.text.draw import Dice
from potstill.lab.text.prose.places import BY_NAME, PLACES, Place
from potstill.lab.text.prose.teller import Teller
from potstill.lab.text.prose.things import LOOKS, MADE_OF, MEN, WOMEN
from potstill.lab.text.prose.trades import TRADES
from potstill.lab.text.prose.words import WORDS
from potstill.lab.text.prose.world import Person, Thing, World

_HOURS = ("in the morning", "at noon", "in the afternoon", "towards evening")
_GO = (
    "{S} <walk>[ #manner#| #like#|] to {to}.",
    "{hour} {S} <set> out for {to}[|, #manner#|, #mood# and alone].",
    "So {S} <go> to {to}.",
    "{S} <take> the [short|long|wet|old] way to {to}[|, past the #plant#|, between the #plant#].",
    "{hour} {S} <reach> {to}[|, out of breath|; #weather#].",
    "{S} <lose> no time and <hurry> to {to}.",
    "A~ #trait# carter <give> {S_obj} a ride to {to}[|, and <talk> the whole way: #gossip#].",
    "{S} <meet> a~ #bystander# who <be> bound for {to} too, and they <walk+> together[|, talking of #food#|; "
    "#weather#].",
    "On the way to {to} #passing#, and {S} <lose> [count of the steps|a button|the thread of a thought].",
    "{hour}, while #passing#, {S} <come> to {to}.",
    "{S} <cross> the [heath|brook|railway|marsh|common] and <see> {to} at last.",
    "The way to {to} <lead> past a~ #material# #object#, [the gallows|a~ #bystander#'s grave|a burnt mill] and a "
    "field of #plant#.",
    "It <be> [a mile|an hour|not far|a steep climb] to {to}, and {S} <arrive> #mood#[|, with sore #body#].",
)
_OBSTACLE = (
    "The [ford|footbridge|causeway] <be> under water, because [the rain had not stopped for three days|somebody had "
    "opened the sluice|the dam above the mill had burst], so {S} <wade> across with {his} [boots|shoes] round "
    "{his} neck.",
    "[A storm|Old age|Lightning] had [felled|split] an elm, and {S} <climb> over the trunk #manner#, "
    "[tearing|losing] a "
    "[sleeve|button|stocking].",
    "In the fog {S} <take> the wrong [turning|lane|path] and <come> to {wrong}; {he} <have> to "
    "go back [#mood#|by the way {he} had come|and <ask> a~ #trait# child].",
    "A~ [flock of geese|herd of goats|hay cart with a broken axle] <block> the lane, so {S} <wait>[| and <eat> "
    "#food#] until "
    "it <be> clear.",
    "Halfway there {his} [lace <snap>|heel <come> off|cart <tip> over], and {S} <mend> it with [string|a "
    "willow twig|a hairpin|spit and patience].",
)
_NIGHT = (
    "It <grow> dark. {S} <sleep> [in a barn|at {his} #relative#'s house|under a cart|badly] and <dream> of "
    "#memory#. The next "
    "[day|morning] #weather#.",
    "{S} <lie> awake a long time, thinking of #memory#. Then it <be> day, and #weather#.",
)
_ASK = (
    '"[Good day|Forgive me|Listen], {O}," <say> {S}, "do you know where [one finds|there is] {a}?" "[I '
    "do|Perhaps|As it "
    'happens, yes|I might]," <say> {O}. "{answer}."',
    '{S} <ask> {O} the {O_trade} about {the}. "#gossip#," <say> {O}, "but as to your question: {answer}."',
    '"{a}?" <say> {O}, and <scratch> {O_his} chin. "{answer}. [Hurry|Tell nobody|Give my regards|Mind the dog]!"',
    '{O} <listen> #manner# while {S} <explain>. "{answer}," <say> {O_he} at last[|, "and #gossip#"].',
)
_HELD = (
    "{holder} [has|keeps|owns] {a}; [look|ask] for {holder_him} {where}",
    "try {holder} {where}",
    "I saw {a} with {holder}, {where}",
    "nobody but {holder} has [such a thing|one], and {holder_he} is {where}",
)
_LIES = (
    "there is {a} {where}[|, unless the #animal# has eaten it]",
    "I saw {a} {where}[| on Tuesday| this very week]",
    "go and look {where}: {a} lies there, and nobody misses it",
)
_FIND = (
    "[Under|Behind|Beside] a [sack|beam|heap of #plant#|bench] {S} <find> {the}.",
    "There it <lie>, {a}, #like#. {S} <pick> it up.",
    "A~ #animal# <sit> on {the}. {S} <chase> it away #manner#.",
    "Nobody <look>, so {S} <put> {the} in a bag with #food#.",
    "{S} <move> a~ #object# and #item# aside, and there <be> {the}.",
    "Where a~ #bystander# had left #item#, {S} <find> {the} as well.",
    "{S} <search> for an hour. At last {he} <see> {the} among the #plant# and <take> it #manner#.",
)
_BEG = (
    '"[I have come for|I am looking for|What I want is] {the}," <say> {S} #manner#.',
    '"Could you [spare|lend me|let me have] {the}?" <ask> {S} #manner#[|, #like#].',
    "{S} <knock>, <sit> down and <speak> of {the}.",
    '{O} <be> about to {O_job}. "[Later|Not now|I am listening]," <say> {O}. {S} <wait> and then <ask> for {the}.',
    '"#gossip#," <say> {O}. "[So they say|Is that so|I heard it too]," <say> {S}, "but I am here because of {the}."',
    "{S} <greet> {O}, who <be> [busy|tired|#mood#|in a good mood], and <ask> for {the}.",
    '{O} <look> up. "What brings you here?" "{the}," <say> {S}, "[if you can part with it|and nothing '
    'else|before the week is out]."',
)
_GIFT = (
    '"Take it," <say> {O}. "[I have no use for it|You helped my #relative# once|#proverb#]." {S} <thank> {O_him} '
    "#manner# and "
    "<take> {the}.",
    "{O} <hand> {S_obj} {the} without a word[|, #manner#|, for {O_he} <be> a~ {O_trait} {O_trade}].",
)
_TERMS = (
    '"[My price is|I will take|I want] {a_price}," <say> {O}, "[not more and not less|and no #object#|or nothing '
    'at all]."',
    "{O} <think> for a while, #like#. {O_he} would part with {the}, but only for {a_price}.",
    '"#opinion#," <say> {O}. "Therefore I keep {the} until I get {a_price}."',
    '"It is not for sale," <say> {O}, "because #because#. But bring me {a_price}, and it is yours."',
    '{O} <shake> {O_his} head. "What I need is {a_price}. For that you may have {the}, though #because#."',
)
_SWAP: tuple[str, ...] = (
    "{S} <lay> {the_price} on the table. {O} <turn> it over #manner# and <push> {the} across.",
    '"{a_price}!" <cry> {O}. "[You kept your word|I had given up hope|#proverb#]." So {S} <get> {the}.',
    "{O} <take> {the_price}, [<bite> it|<smell> it|<hold> it against the light] and <nod>. Thus {S} <win> {the}.",
    '"[And here is|There you have] {the_price}," <say> {S}. "[A bargain|Just in time|#opinion#]," <say> {O}, and '
    "<bring> {the}.",
    "They <trade>: {the_price} for {the}, and [both <be+> content|neither <say> more than was needed|they "
    "<shake+> hands on it].",
)
_LABOUR = (
    '"[Nothing is free|Help me first|I am alone today]," <say> {O}. So {S} <help> to {job}, and then to {job2}. '
    "[By dusk|In "
    "the end|After that] {O} <give> {him} {the}.",
    "{O} <have> one condition: somebody must {job}. {S} <do> it #manner#, and {O} <hand> over {the}[|, "
    "laughing|, #mood#].",
)
_RETURN = (
    '"So it is yours," <say> {O}. "[I found it|A~ #bystander# left it|My #animal# dug it up] among the #plant#." '
    "{S} <get> {the} back.",
    "{O} <blush>, <go> to a~ #material# chest and <take> out {the}. {S} <forgive> {O_him} #manner# and <put> it away.",
    '"Prove that it is yours," <say> {O}. {S} <know> every scratch, so {O} <hand> over {the}[|, #manner#].',
)


@dataclass(slots=True)
class Stage:
    """A story in the making: its world, its teller, its hero, and what there is to ask about it afterwards."""

    dice: Dice
    world: World
    teller: Teller
    hour: int = 0
    busy: set[str] = field(default_factory=set)
    questions: list[tuple[str, str]] = field(default_factory=list)

    @property
    def hero(self) -> Person:
        """The first of the people."""
        return self.world.people[0]

    def tell(self, templates: tuple[str, ...], who: Person, *others: Person, **slots: str) -> None:
        """Say one of the templates."""
        self.teller.say(self.dice.pick(templates), who, *others, **slots)

    def naming(self, thing: Thing) -> str:
        """A thing that was told of before, in full or by its noun alone."""
        return thing.the if self.dice.chance(0.35) else thing.short

    def stranger(self) -> Person | None:
        """Somebody who has no part yet, now given one; None where all have."""
        free = [person for person in self.world.people if person.name not in self.busy]
        if not free:
            return None
        chosen = self.dice.pick(free)
        self.busy.add(chosen.name)
        return chosen

    def new_thing(self, holder: Person | None = None, noun: str = "", place: Place | None = None) -> Thing:
        """A thing that this story has not had yet, held by somebody or lying somewhere."""
        taken = {thing.noun for thing in self.world.things}
        looks = ""
        while not noun or noun in taken:
            stuffs, nouns = self.dice.pick(MADE_OF)
            noun = self.dice.pick(nouns)
            looks = self.dice.pick((f"{self.dice.pick(LOOKS)} ", "")) + self.dice.pick(stuffs)
        if holder is None and place is None:
            empty = [spot for spot in self.world.places if all(p.place is not spot for p in self.world.people)]
            place = self.dice.pick(empty)
        return self.world.add(Thing(noun, looks, holder, place))


def set_stage(dice: Dice) -> Stage:
    """People of different trades at their work, and some places besides."""
    women, men = dice.some(WOMEN, 7), dice.some(MEN, 7)
    people = []
    for at, trade in enumerate(dice.some(TRADES, dice.whole(4, 7))):
        woman = dice.chance(0.5)
        name = women[at] if woman else men[at]
        people.append(Person(name, woman, trade, dice.pick(WORDS["trait"]), BY_NAME[trade.place]))
    places = [person.place for person in people]
    places += dice.some([place for place in PLACES if place not in places], 5)
    stage = Stage(dice, World(people, places), Teller(dice))
    stage.busy.add(people[0].name)
    return stage


def travel(stage: Stage, who: Person, where: Place) -> None:
    """Go there, unless one is there; on the way time passes and things get in the way."""
    if who.place is where:
        return
    stage.teller.paragraph()
    if stage.hour >= len(_HOURS):
        stage.tell(_NIGHT, who)
        stage.hour = 0
    if stage.dice.chance(0.2):
        stage.tell(_OBSTACLE, who, wrong=stage.dice.pick(PLACES).the)
    stage.world.go(who, where)
    stage.tell(_GO, who, to=where.the, hour=_HOURS[stage.hour])
    stage.hour += stage.dice.chance(0.6)
    stage.teller.colour(who)


def learn(stage: Stage, hero: Person, thing: Thing) -> None:
    """Ask somebody, who knows, where a thing is."""
    teller = stage.stranger()
    if teller is None or teller is thing.holder:
        return
    travel(stage, hero, teller.place)
    where = thing.holder.place if thing.holder else thing.place
    assert where is not None
    frame = stage.dice.pick(_HELD if thing.holder else _LIES)
    slots = {"a": thing.a, "where": where.where}
    if thing.holder:
        slots |= {"holder": thing.holder.name, "holder_him": thing.holder.him, "holder_he": thing.holder.he}
    answer = stage.teller.fill(frame, slots)
    stage.world.meet("tell", teller, hero, thing)
    stage.tell(_ASK, hero, teller, a=thing.a, the=thing.the, answer=answer)
    stage.questions.append((f"Who told {hero.name} where {thing.the} was?", teller.name))


def obtain(stage: Stage, hero: Person, thing: Thing, depth: int = 0, own: bool = False) -> None:
    """Get hold of a thing, by whatever it takes; one's `own` is given back."""
    if stage.dice.chance(0.55):
        learn(stage, hero, thing)
    holder = thing.holder
    if holder is None:
        assert thing.place is not None
        place = thing.place
        travel(stage, hero, place)
        stage.world.find(hero, thing)
        stage.tell(_FIND, hero, a=thing.a, the=thing.the)
        stage.questions.append((f"Where did {hero.name} find {thing.the}?", place.where))
        return
    travel(stage, hero, holder.place)
    job = bare(stage.dice.pick(holder.trade.works))
    stage.tell(_BEG, hero, holder, the=stage.naming(thing), O_job=job)
    kind = stage.dice.random()
    if own:
        stage.world.give(holder, hero, thing)
        stage.tell(_RETURN, hero, holder, the=stage.naming(thing))
    elif kind < 0.5 and depth < 3:
        _barter(stage, hero, holder, thing, depth)
    elif kind < 0.75:
        _labour(stage, hero, holder, thing)
    else:
        stage.world.give(holder, hero, thing)
        stage.tell(_GIFT, hero, holder, the=stage.naming(thing), O_trait=holder.trait)
    stage.teller.colour(hero, 0.4)


def _barter(stage: Stage, hero: Person, holder: Person, thing: Thing, depth: int) -> None:
    owner = stage.stranger() if stage.dice.chance(0.6) else None
    noun = stage.dice.pick((*holder.trade.needs, "", "", *(owner.trade.makes if owner else ())))
    price = stage.new_thing(owner, noun)
    slots = {"the": stage.naming(thing), "the_price": stage.naming(price), "a_price": price.a}
    stage.tell(_TERMS, hero, holder, **slots)
    obtain(stage, hero, price, depth + 1)
    travel(stage, hero, holder.place)
    stage.world.give(hero, holder, price)
    stage.world.give(holder, hero, thing)
    stage.tell(_SWAP, hero, holder, **slots)
    stage.questions.append((f"What did {hero.name} give {holder.name} for {thing.the}?", price.the))


def _labour(stage: Stage, hero: Person, holder: Person, thing: Thing) -> None:
    jobs = [bare(work) for work in stage.dice.some(holder.trade.works, 2)]
    stage.world.meet("work", hero, holder)
    stage.world.give(holder, hero, thing)
    stage.tell(_LABOUR, hero, holder, the=stage.naming(thing), job=jobs[0], job2=jobs[1])
    stage.questions.append((f"For whom did {hero.name} work to get {thing.the}?", holder.name))


def bare(work: str) -> str:
    """A trade's work as an infinitive."""
    return work.replace("<", "").replace(">", "")
