"""What stories are about: a commission, something lost, a present, a remedy, a quarrel, an errand.

A plot is a want and its reason; the scenes see to the rest. Each ends where the want is met.
"""

from __future__ import annotations

from potstill.lab.text.prose.places import Place
from potstill.lab.text.prose.scenes import Stage, bare, obtain, travel
from potstill.lab.text.prose.world import Person, Thing

_OPEN = (
    "{S} <be> a~ {trait} {trade} who <live> near {place}.",
    "In {season} there <be> a~ {trade} called {S}, and {he} <be> {trait}.",
    "Everyone <know> {S}, the {trait} {trade}, [by {his} #colour# #thing#|who never <go> out without {his} "
    "#thing#|and {his} #trait# #animal#].",
    "{S} the {trade} <have> [#colour# eyes|#trait# relatives|a~ #trait# #animal#] and <be> {trait} by nature.",
    "#weather#. {S}, a~ {trade}, <be> [at work|up early|#mood#] {here}.",
    "This <happen> {here} in {season}, when {S} <be> still a~ [young|poor|#trait#] {trade}.",
)
_WORK = (
    "Every morning {S} <have> to {job}, and on [Mondays|wet days|feast days] to {job2}.",
    "{S} <be> about to {job} when [#sound#|somebody <knock>|the light <change>].",
    "That day {he} <want> to {job} and then to {job2}, but [nothing <go> as planned|#weather#|it <come> otherwise].",
)
_MORAL = (
    "#proverb#, {S} <think>[.|, and <smile>.|, and <laugh>.]",
    "From then on {S} <be> [less {trait}|more {trait}|never again so #mood#].",
    "#weather#, and {S} <sit> down #like#.",
    "People still <talk+> about it when [the #plant# <bloom+>|#sound#].",
    "That evening {S} <eat> #food# and <think> of #memory#.",
    "{S} <say> nothing about it, not even to {his} #relative#.",
    "",
    "In the end #passing#, and {S} <be> #mood#.",
    "{S} <buy> {his_self} a~ #colour# #object#, for #proverb#.",
)
_COMMISSION = (
    '"I need {a_product} before [Sunday|the wedding|the fair|my #relative# arrives]," <say> {O} the {O_trade}. '
    "{S} <nod>, but there "
    "<be> one thing missing: {a_need}.",
    "{O}, who <work> {O_where}, had ordered {a_product} from {S_obj}. For that {he} <need> "
    "{a_need}, and the last one <be> [used up|rotten|stolen by a~ #animal#|with a~ #trait# cousin].",
)
_MAKE = (
    "Back {here}, {S} <begin>: first {he} <have> to {job}, then to {job2}, and by [night|noon|the third bell] "
    "{the_product} <be> "
    "done.",
    "With {the_need} beside {him}, {S} <make> {the_product} #manner#[|, humming|, #like#].",
)
_DELIVER = (
    "{O} <hold> {the_product} up to the light[, <turn> it twice|] and <smile> #manner#.",
    '"[Splendid|At last|So soon]," <say> {O}, and <pay> {S_obj} with [a coin|#food#|a promise|three coins and '
    "#food#] for {the_product}.",
    "{S} <give> {the_product} to {O}, who [<weep>|<laugh>|<whistle>|<be> speechless] and <call> it [the finest in the "
    "valley|better than {O_his} #relative#'s|exactly right].",
)
_LOST = (
    "One day {his} {thing} <be> gone. {S} <look> under the bed, behind the #thing# and [in the well|among the "
    "#plant#], but in vain.",
    '"Where is my {thing}?" <cry> {S}. It had [hung by the door|stood on the sill|lain in the drawer] since '
    "[Easter|the war|the great flood|{his} wedding].",
)
_EMPTY = (
    "But there <be> no {noun} there, only {detail}.",
    "{S} <search> every corner and <find> [a~ #colour# button|#food#, gone "
    "mouldy|a~ sleeping #animal#], but no {noun}.",
)
_GIFT = (
    "{O} the {O_trade} <be> to [marry|leave town|turn fifty] within the week, and {S} <want> to bring {O_him} "
    "{a}, since [{O_he} had "
    "always wished for one|{O_his} own had been stolen|nothing else would do].",
    "{S} <owe> {O} a present, for {O} had once [pulled {him} out of the river|lent {him} money|kept a secret], "
    "and it <have> to "
    "be {a}.",
)
_ILL = (
    "{O} <lie> in bed with [a fever|a cough|a broken rib|a strange sleep]. Only {a} would help, the old women "
    "<say+>[, because "
    "#proverb#|].",
    "Since [the harvest|the first frost|Shrovetide|midsummer] {O} the {O_trade} had not [eaten|slept|spoken]. "
    "{S} <hear> that {a} might cure it.",
)
_QUARREL = (
    "{S} had [broken|drowned|burnt|lost] {a} that <belong> to {O}, and since then they <speak+> no word. {S} "
    "<decide> to find "
    "another.",
    '"You [sat on|sold|ruined] my {noun}," <say> {O} to {S_obj}, "and I want another." {S} <know> that it <be> true.',
)
_ERRAND = (
    "A letter <come>: {O}, once {his} best friend, <ask> for {a}, [without saying why|and it <sound> "
    "urgent|because #because#].",
    "{O} <be> too [old|busy|#trait#] to travel, so {S} <promise> to fetch {O_him} {a}.",
)
_HAND_OVER = (
    "{S} <lay> {the} before {O}, who <be> [#mood#|silent|close to tears].",
    '"For me?" <say> {O}. "{the}! [How did you get it?|Sit down and eat #food# with me.|#proverb#.]"',
    "{O} <take> {the} #manner# and <say> that [#proverb#|{he} <be> a~ #trait# friend|{O_he} would never forget it].",
    "When {O} <see> {the}, {O_he} <forget> to [breathe|be #trait#|sit down], and [#sound#|they both <laugh+>|{S} "
    "<be> paid in full].",
)
_WANTS = (_GIFT, _ILL, _QUARREL, _ERRAND)


def commission(stage: Stage) -> None:
    """Somebody orders something; its maker lacks what it is made of."""
    hero, client = _opening(stage), stage.stranger()
    assert client is not None
    home = hero.place
    product = Thing(stage.dice.pick(hero.trade.makes), "")
    noun = stage.dice.pick([need for need in hero.trade.needs if need != product.noun])
    need = stage.new_thing(stage.stranger() if stage.dice.chance(0.7) else None, noun)
    slots = {"a_product": product.a, "the_product": product.the, "a_need": need.a, "the_need": need.the}
    stage.tell(_COMMISSION, hero, client, O_where=client.place.where, **slots)
    obtain(stage, hero, need)
    travel(stage, hero, home)
    stage.teller.paragraph()
    stage.world.make(hero, product, need)
    stage.tell(_MAKE, hero, here=home.where, **_jobs(stage), **slots)
    travel(stage, hero, client.place)
    stage.world.give(hero, client, product)
    stage.tell(_DELIVER, hero, client, **slots)
    stage.questions.append((f"What did {hero.name} make for {client.name}?", product.the))
    _closing(stage)


def lost(stage: Stage) -> None:
    """Something of one's own is gone: looked for where it is not, and got back."""
    hero = _opening(stage)
    home = hero.place
    finder = stage.stranger() if stage.dice.chance(0.5) else None
    thing = stage.new_thing(finder)
    stage.tell(_LOST, hero, thing=thing.full)
    wrong_places = [spot for spot in stage.world.places if _nobody(stage, spot, thing)]
    for wrong in stage.dice.some(wrong_places, stage.dice.whole(0, 2)):
        travel(stage, hero, wrong)
        stage.tell(_EMPTY, hero, noun=thing.noun)
    obtain(stage, hero, thing, own=True)
    travel(stage, hero, home)
    _closing(stage)


def wish(stage: Stage) -> None:
    """Something has to be got for somebody else: as a present, a remedy, a replacement or a favour."""
    hero, friend = _opening(stage), stage.stranger()
    assert friend is not None
    owner = stage.stranger() if stage.dice.chance(0.7) else None
    noun = stage.dice.pick((*owner.trade.makes, "", "")) if owner else ""
    thing = stage.new_thing(owner, noun)
    stage.tell(stage.dice.pick(_WANTS), hero, friend, a=thing.a, noun=thing.noun)
    obtain(stage, hero, thing)
    travel(stage, hero, friend.place)
    stage.world.give(hero, friend, thing)
    stage.tell(_HAND_OVER, hero, friend, the=stage.naming(thing))
    stage.questions.append((f"To whom did {hero.name} bring {thing.the}?", friend.name))
    _closing(stage)


PLOTS = (commission, lost, wish, wish)


def _nobody(stage: Stage, spot: Place, thing: Thing) -> bool:
    return thing.place is not spot and all(person.place is not spot for person in stage.world.people)


def _jobs(stage: Stage) -> dict[str, str]:
    first, second = stage.dice.some(stage.hero.trade.works, 2)
    return {"job": bare(first), "job2": bare(second)}


def _opening(stage: Stage) -> Person:
    hero = stage.hero
    season = stage.teller.fill("#season#", {})
    slots = {"trait": hero.trait, "trade": hero.trade.name, "season": season, "here": hero.place.where}
    stage.tell(_OPEN, hero, **slots)
    stage.teller.colour(hero)
    if stage.dice.chance(0.6):
        stage.tell(_WORK, hero, **_jobs(stage))
    return hero


def _closing(stage: Stage) -> None:
    moral = stage.dice.pick(_MORAL)
    if moral:
        stage.teller.say(moral, stage.hero, trait=stage.hero.trait)
    stage.questions.append((f"Where was {stage.hero.name} at the end?", stage.hero.place.where))
    for thing in stage.world.things:
        if thing.holder:
            stage.questions.append((f"Who had {thing.the} at the end?", thing.holder.name))
