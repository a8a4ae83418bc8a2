"""Essays: what leads to what in the little world, followed link by link.

There is a net of causes. An essay begins somewhere, goes along it, says each link in one of many ways, and looks back.
"""

from __future__ import annotations

from itertools import pairwise

from potstill.lab.text.draw import Dice
from potstill.lab.text.inflect import Tense, finite
from potstill.lab.text.prose.bystanders import WORDS as BYSTANDERS
from potstill.lab.text.prose.things import MEN, WOMEN
from potstill.lab.text.prose.trades import TRADES
from potstill.lab.text.prose.words import WORDS
from potstill.lab.text.templates import Writer, sentence, with_articles

#: name | subject (+ behind it for a plural) | verb | rest | what follows
_NET = """
dry|the rain|stay|away|low,wells,fire,dust
low|the river|fall|below the lower weir|still,ferry,fish
still|the mill wheels+|stand|still|flour,idle
flour|flour|become|dear|bread,oats
bread|the bakers+|bake|smaller loaves|grumble,hens
grumble|the customers+|grumble|in the queue|council,song
council|the council|meet|behind closed doors|tax,rumour
tax|the mayor|raise|the toll on the bridge|ferry,smuggle
smuggle|the carters+|take|the old forest road|wolves,ruts
ruts|deep ruts+|form|in the forest road|axle
axle|the axles+|break|one after another|wright,late
wright|the cartwright|work|by lamplight|oil,tired
tired|tired men+|make|careless cuts|doctor
doctor|the doctor|run|out of bandages|linen
linen|linen|grow|scarce|weaver,patch
weaver|the weavers+|hire|two more girls|school,song
school|the benches in the schoolhouse+|stay|empty|teacher
teacher|the teacher|walk|from door to door|rumour,night
rumour|a rumour|go|round the market|crowd,letter
crowd|a crowd|gather|before the town hall|speech,pick
speech|the mayor|give|a long speech|sleep,song
sleep|half of the listeners+|fall|asleep|pick
pick|the pickpockets+|have|an easy day|lock
lock|everyone|buy|a stronger lock|smith
smith|the smith|need|more charcoal|wood
wood|the charcoal burners+|fell|the hillside oaks|slide,owl
slide|the bare slope|begin|to slide|road,spring
road|mud|block|the valley road|late,inn
late|the mail|arrive|days too late|letter,wed
letter|important letters+|lie|unread|wed,debt
wed|a wedding|be|put off|cake,inn
cake|a three-storey cake|go|stale|hens,mice
hens|the hens+|eat|better than people|eggs
eggs|the eggs+|turn|yellow as butter|market
market|the market women+|shout|louder than the geese|song,crowd
fish|the trout+|hide|under the roots|heron,net
heron|the herons+|move|to the coast|frog
frog|the frogs+|sing|all night|night
night|half the town|lie|awake|tired,candle
candle|candles+|sell|quickly|bees
bees|the beekeepers+|open|their oldest hives|honey
honey|the price of honey|climb|week by week|debt,tea
tea|people+|drink|their tea bitter|grumble
wells|the upper wells+|run|dry|carry,quarrel
carry|the children+|carry|water from the spring|school,spring
spring|the spring|turn|cloudy|ill
ill|a fever|creep|along the river houses|doctor,herb
herb|the apothecary|send|for sage and willow bark|boat
boat|a boat from the south|bring|herbs, salt and strange songs|song,gold
gold|foreign coins+|appear|in the tills|debt,smuggle
debt|old debts+|be|paid at last|wine,quarrel
wine|the innkeeper|open|the good barrel|song,sleep
quarrel|neighbours+|quarrel|over a bucket|wall
wall|a new wall|rise|between two gardens|mason,cat
mason|the stonemason|sharpen|every chisel|smith,dust
dust|dust|settle|on every sill|broom
broom|the broom seller|whistle|on his rounds|song
cat|the cats+|lose|their shortest way|mice
mice|the mice+|grow|bold|oats,book
book|the mice+|gnaw|at the parish books|write
write|the clerk|copy|them all by hand|ink
ink|ink|become|as dear as brandy|printer
printer|the printer|print|on both sides|read
read|people+|hold|the newspaper up to the light|rumour
oats|the horses+|get|fewer oats|slow
slow|the coaches+|crawl|up the pass|late,inn
inn|travellers+|fill|the inn|wine,patch
patch|the seamstress|sit|up with torn sheets|candle
fire|sparks from the kilns+|set|the heath on fire|smoke,hare
smoke|smoke|hang|over the orchards|bees2
bees2|the bees+|leave|for the hills|honey
hare|the hares+|run|into the gardens|cabbage
cabbage|the cabbages+|vanish|overnight|soup
soup|soup|become|thinner|grumble,ill
ferry|the ferry|carry|fewer passengers|bench
bench|the ferryman|sit|on his bench over a game of chess|chess
chess|the whole quay|learn|chess|sleep,song
idle|the millers+|find|time to repair the sluice|flood
flood|the sluice|hold|when the great rain comes|calm
calm|the lower town|stay|dry|wed2
wed2|the town|celebrate|for three days|wine,song
wolves|the carters+|hear|wolves behind the ridge|lock
owl|the owls+|lose|their hollow trees|mice
net|the fishers+|mend|nets instead of casting them|rope
rope|the rope maker|twist|hemp until dark|candle
song|somebody|make|a song about it|read
oil|lamp oil|run|short|dark
dark|the streets+|stay|dark|pick,stars
stars|the astronomer|see|more stars than ever|book2
book2|a thick book of stars|be|written at last|printer
"""
_LINKS = (
    "When {cause}, {effect}.",
    "{Effect}, because {cause}.",
    "If {cause}, sooner or later {effect}.",
    "{Cause}; so {effect}.",
    "{Cause}, and [before long|within a week|by #season#|as a rule|of course] {effect}.",
    "It is no wonder that {effect} where {cause}.",
    "Wherever {cause}, {effect}, as a~ #trait# [{trade}|#relative#] would tell you.",
    "Ask [any|a~ #trait#] {trade} why {effect}: it is because {cause}.",
    "That {cause} is [bad|strange|common] enough; what follows is that {effect}.",
    "{Cause}. [Hence|Therefore|As a result|And then] {effect}.",
    "[Few notice|Everybody forgets|I did not believe] that {effect} [only because|as soon as] {cause}.",
)
_ONWARD = (
    "[Then|And so|Soon|Before long|By and by] {effect}.",
    "When that <happen>, {effect}.",
    "[Because of this|Hence] {effect}[|, while #passing#].",
    "The [next|usual] consequence <be> that {effect}.",
    "What <come> of it? {Effect}.",
    "It <end> with this: {effect}.",
    "To {name} the {trade} it <mean> that {effect}.",
    "A~ #bystander# [#act#|<complain>|<laugh>], [but|and] {effect}.",
    "One <think> of #food#, and already {effect}.",
    "{Effect}, [sad|odd|funny] as it [<sound>|<be>].",
    "{Effect}: even a~ #trait# #bystander# <notice> it.",
)
_PAST = (
    "When {cause}, {effect}.",
    "{Effect}, because {cause}.",
    "{Cause}, and [before long|within a week|soon after] {effect}.",
    "{Cause}. [As a result|And so|Then] {effect}.",
    "First {cause}; then, [to nobody's surprise|as {name} had said|on a Friday], {effect}.",
    "{name} the {trade} <write> in a~ #trait# diary that {effect}, since {cause}.",
    "Because {cause}, {effect}[|, and #sound#].",
)
_ASIDES = (
    "#proverb#, people say.",
    "I once asked {name}, a~ {trade}, who only said: #gossip#.",
    "It is [#like#|hard to see|plain to a~ #animal#].",
    "A~ #trait# [{trade}|#relative#] [does not mind|prepares for it|eats #food# and waits].",
    "My #relative# used to answer: #proverb#.",
    "Between these two lies nothing but [time|habit|a~ #colour# #thing#|the price of a~ #thing#].",
    "Nobody is to blame, least of all the {trade}.",
    "Meanwhile #passing#.",
    "#passing#, and why not?",
    "[I have|Every {trade} has] seen it: #passing#.",
    "#opinion#, says {name}.",
    "As if that were not enough, #passing#.",
    "The #trait# ones [leave|pray|count their #plant#|sell the #thing#] first.",
)
_BEGIN = (
    "How does it come that {effect}?",
    "Some say the world is a~ #thing#. I say it is a chain.",
    "Small things have long #body#.",
    "{name} the {trade} had a theory.",
    "Consider a~ #trait# town in {season}.",
    "This is about [what happens|the season] when {cause}.",
)
_END = (
    "And all that because {first}.",
    "So it goes, from {first_short} to {last_short}.",
    "Whoever wants to know why {last} must begin where {first}.",
    "One could tell it the other way round, but {first} all the same.",
    "#proverb#.",
)
_ROWS = [line.split("|") for line in _NET.strip().splitlines()]
_CLAUSES = {name: (subject.rstrip("+"), subject.endswith("+"), verb, rest) for name, subject, verb, rest, _ in _ROWS}
_FOLLOWS = {name: tuple(follows.split(",")) for name, *_, follows in _ROWS}
_NAMES = tuple(_FOLLOWS)
_WRITER = Writer({**WORDS, **BYSTANDERS})


def essay(dice: Dice) -> str:
    """One essay: in the present on what happens always, or in the past on what happened once."""
    tense: Tense = "present" if dice.chance(0.6) else "past"
    chain = _chain(dice, dice.whole(4, 9))
    first, last = chain[0], chain[-1]
    ends = {"first": _clause(first, tense), "last": _clause(last, tense)}
    ends |= {"first_short": _CLAUSES[first][0], "last_short": _CLAUSES[last][0]}
    ends |= {"cause": _clause(first, "present"), "effect": _clause(last, "present")}
    sentences = [_say(dice.pick(_BEGIN), dice, "present", ends)]
    for cause, effect in pairwise(chain):
        slots = {"cause": _clause(cause, tense), "effect": _clause(effect, tense)}
        links = _ONWARD if cause != first and dice.chance(0.55) else _LINKS if tense == "present" else _PAST
        sentences.append(_say(dice.pick(links), dice, tense, slots))
        if dice.chance(0.5):
            sentences.append(_say(dice.pick(_ASIDES), dice, tense, {}))
    sentences.append(_say(dice.pick(_END), dice, tense, ends))
    half = len(sentences) // 2
    return " ".join(sentences[:half]) + "\n" + " ".join(sentences[half:])


def _chain(dice: Dice, length: int) -> list[str]:
    chain = [dice.pick(_NAMES)]
    while len(chain) < length:
        onward = [name for name in _FOLLOWS[chain[-1]] if name not in chain]
        if not onward:
            break
        chain.append(dice.pick(onward))
    return chain


def _clause(name: str, tense: Tense) -> str:
    subject, many, verb, rest = _CLAUSES[name]
    return f"{subject} {finite(verb, tense, many)} {rest}"


def _say(template: str, dice: Dice, tense: Tense, slots: dict[str, str]) -> str:
    given = {key[0].upper() + key[1:]: sentence(value) for key, value in slots.items()} | slots
    given |= {"name": dice.pick(dice.pick((WOMEN, MEN))), "trade": dice.pick(TRADES).name}
    given["his"] = dice.pick(("his", "her"))
    given["season"] = dice.pick(("spring", "autumn", "winter", "a dry summer", "the week of the fair"))
    text = with_articles(_WRITER.write(template, dice, given, tense))
    return ". ".join(sentence(part) for part in text.split(". "))


_LOOSE = {follow for follows in _FOLLOWS.values() for follow in follows} - set(_NAMES)
if _LOOSE:
    raise ValueError(f"the net of causes leads to what it does not hold: {sorted(_LOOSE)}")
