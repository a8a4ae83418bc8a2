"""Puts events into words: who is called by name and who by pronoun, and what is said in between."""

from __future__ import annotations

import re

from potstill.lab.text.draw import Dice
from potstill.lab.text.inflect import Tense
from potstill.lab.text.prose.bystanders import WORDS as BYSTANDERS
from potstill.lab.text.prose.words import WORDS
from potstill.lab.text.prose.world import Person
from potstill.lab.text.templates import Writer, with_articles

WRITER = Writer({**WORDS, **BYSTANDERS})
_BEGINNING = re.compile(r'(^"?|[.?!] "?|[.?!,]" "|\." )([a-z])')

_COLOUR = (
    "{S} <think> of #memory#.",
    "#weather#.",
    "#weather#, and somewhere #sound#.",
    "[Somewhere|Not far off|Behind a wall] #sound#.",
    "[First one|One] <see> {detail}, then {detail2}.",
    "{S} <notice> {detail}[| and {detail2}][|, but did not stop for it].",
    "{S} <rub> {his} #body# and <look> about [#manner#|#like#].",
    "It <smell> of [#food#|wet #plant#|smoke and #plant#].",
    "{S} <feel> #mood#, [though nobody could have said why|and it showed|and {his} #body# <ache+>|#like#].",
    "{S} <eat> #food# [#manner#|standing up|by {his_self}|and <give> the rest to a~ #animal#].",
    "A~ [#colour#|#trait#|thin|fat|young] #animal# <cross> the [road|yard|path] [#like#|and <vanish>|without any "
    "hurry].",
    "#proverb#, as {his} #relative# would have said.",
    "{S} <hum> [a song about a~ #animal#|under {his} breath|#like#].",
    "Between the #plant# <stand> a~ #material# #object# that nobody had claimed.",
    "The [day|hour|light] <feel> #mood#.",
    "{S} <try> not to think of #memory#.",
    "[Twice|Once|For a moment] {S} <stop> to [listen|rest|look back|tie a lace].",
    "Whoever has seen {detail} knows {place} by heart.",
    "A~ #trait# #bystander# <nod> to {him}.",
    "[Outside|Nearby|At the corner|Across the way] #passing#.",
    "#passing#.",
    "While #passing#, {S} <wait> #manner#.",
    "{S} <watch> how #passing#[|, and <smile>|, and <shake> {his} head|, and <feel> #mood#].",
    "#passing#. #weather#.",
    '"#opinion#," <say> {S} to [nobody in particular|{his_self}|a~ #animal#].',
    "{S} <step> over a~ #object#[| and #item#].",
    '"#gossip#," <call> a~ #trait# #bystander# [from a window|in passing|with a full mouth].',
    "#passing#, and #sound#.",
    "{S} <have> a~ #colour# pebble in {his} pocket and [<turn>|<drop>|<count>] it #manner#.",
    "#weather#; #passing#.",
    "#weather#; {he} <pull> {his} [coat|hat|collar] [tighter|down|straight] and <say> nothing.",
)
"""Sentences between the events."""


class Teller:
    """Collects sentences in paragraphs and remembers who they were about."""

    def __init__(self, dice: Dice, tense: Tense = "past") -> None:
        self._dice = dice
        self._tense: Tense = tense
        self._paragraphs: list[list[str]] = [[]]
        self._about: Person | None = None
        self._others: tuple[Person, ...] = ()
        self._met: set[str] = set()

    def paragraph(self) -> None:
        """Begin a new paragraph."""
        if self._paragraphs[-1]:
            self._paragraphs.append([])
            self._about = None

    def say(self, template: str, who: Person, *others: Person, **slots: str) -> None:
        """One or more sentences about somebody; `{S}` is their name, trade or pronoun, `{O}` the other's name."""
        given = self._people(template, who, others)
        text = with_articles(WRITER.write(template, self._dice, {**given, **slots}, self._tense))
        self._paragraphs[-1].append(_capitals(text))
        self._about, self._others = who, others
        self._met |= {who.name, *(other.name for other in others)}

    def fill(self, template: str, slots: dict[str, str]) -> str:
        """Part of a sentence, for use in another."""
        return WRITER.write(template, self._dice, slots, self._tense)

    def colour(self, who: Person, chance: float = 0.5) -> None:
        """Perhaps a sentence of atmosphere."""
        if self._dice.chance(chance):
            self.say(self._dice.pick(_COLOUR), who)

    def text(self) -> str:
        """The whole, a line for each paragraph."""
        return "\n".join(" ".join(sentences) for sentences in self._paragraphs if sentences)

    def _people(self, template: str, who: Person, others: tuple[Person, ...]) -> dict[str, str]:
        rivals = [p for p in (*others, *self._others) if p is not who and p.woman == who.woman]
        clear = self._about is who and not rivals and template.find('"') < 0
        if clear and self._dice.chance(0.7):
            subject = who.he
        elif who.name in self._met and self._dice.chance(0.25):
            subject = f"the {who.trade.name}"
        else:
            subject = who.name
        detail, other_detail = self._dice.some(who.place.details, 2)
        given = {
            "S": subject,
            "S_obj": who.him if subject == who.he else subject,
            "he": who.he,
            "him": who.him,
            "his": who.his,
            "his_self": "herself" if who.woman else "himself",
        }
        given |= {"detail": detail, "detail2": other_detail, "place_where": who.place.where, "place": who.place.the}
        if others:
            other = others[0]
            given |= {
                "O": other.name,
                "O_trade": other.trade.name,
                "O_he": other.he,
                "O_him": other.him,
                "O_his": other.his,
            }
        return given


def _capitals(text: str) -> str:
    """A capital at the beginning of every sentence, inside quotation marks too, but none behind `?"` (asked ...)."""
    return _BEGINNING.sub(lambda match: match[1] + match[2].upper(), text)
