"""English endings: what the generators need of verbs and nouns, and no more."""

from __future__ import annotations

from functools import cache
from typing import Literal

from potstill.lab.text.wordlists import words

Tense = Literal["past", "present"]

_IRREGULAR_PAST = dict(
    pair.split(":")
    for pair in words("""
        be:was swear:swore quarrel:quarrelled become:became begin:began bend:bent bind:bound bite:bit
        blow:blew break:broke bring:brought build:built burn:burned buy:bought catch:caught choose:chose
        come:came creep:crept cut:cut deal:dealt dig:dug do:did draw:drew drink:drank drive:drove eat:ate
        fall:fell feed:fed feel:felt fight:fought find:found fly:flew forget:forgot freeze:froze get:got
        give:gave go:went grind:ground grow:grew hang:hung have:had hear:heard hide:hid hit:hit hold:held
        keep:kept kneel:knelt know:knew lay:laid lead:led lean:leaned leave:left lend:lent let:let lie:lay
        light:lit lose:lost make:made mean:meant meet:met pay:paid put:put read:read ride:rode ring:rang
        rise:rose run:ran say:said see:saw seek:sought sell:sold send:sent set:set sew:sewed shake:shook
        shine:shone show:showed shut:shut sing:sang sink:sank sit:sat sleep:slept slide:slid speak:spoke
        spend:spent spin:spun split:split spread:spread spring:sprang stand:stood steal:stole stick:stuck
        strike:struck sweep:swept swim:swam swing:swung take:took teach:taught tear:tore tell:told
        think:thought throw:threw understand:understood wake:woke wear:wore weave:wove weep:wept win:won
        wind:wound write:wrote forgive:forgave overhear:overheard cost:cost can:could will:would must:had
        """)
)
_DOUBLES = set(
    words("""
        drum drip stop drop nod beg plan grip grin slip step trim tap wrap rub drag hum chat clap snap pat tip
        stir admit sob rob prefer knot tug mop dip rap ram thin skim scrub strip
        """)
)
_IRREGULAR_PLURAL = {
    "loaf": "loaves",
    "knife": "knives",
    "shelf": "shelves",
    "leaf": "leaves",
    "wolf": "wolves",
    "calf": "calves",
    "child": "children",
    "man": "men",
    "woman": "women",
    "foot": "feet",
    "tooth": "teeth",
    "goose": "geese",
    "mouse": "mice",
    "sheep": "sheep",
    "index": "indices",
    "matrix": "matrices",
    "half": "halves",
}


@cache
def past(verb: str) -> str:
    """`walk` to `walked`, `go` to `went`; singular where the two differ (`was`)."""
    if verb in _IRREGULAR_PAST:
        return _IRREGULAR_PAST[verb]
    if verb.endswith("e"):
        return verb + "d"
    if verb.endswith("y") and verb[-2] not in "aeiou":
        return verb[:-1] + "ied"
    return verb + (verb[-1] if verb in _DOUBLES else "") + "ed"


@cache
def third(verb: str) -> str:
    """`walk` to `walks`."""
    if verb in ("be", "have", "can", "will", "must"):
        return {"be": "is", "have": "has", "must": "has"}.get(verb, verb)
    if verb.endswith(("s", "sh", "ch", "x", "z")) or verb in ("go", "do"):
        return verb + "es"
    if verb.endswith("y") and verb[-2] not in "aeiou":
        return verb[:-1] + "ies"
    return verb + "s"


@cache
def gerund(verb: str) -> str:
    """`make` to `making`."""
    if verb.endswith("ie"):
        return verb[:-2] + "ying"
    if verb.endswith("e") and not verb.endswith(("ee", "ye", "oe")) and verb != "be":
        return verb[:-1] + "ing"
    doubles = _DOUBLES | {"run", "sit", "get", "put", "set", "let", "cut", "dig", "swim", "win", "begin", "shut", "hit"}
    return verb + (verb[-1] if verb in doubles or verb in ("spin", "split", "forget") else "") + "ing"


@cache
def finite(verb: str, tense: Tense, plural: bool) -> str:
    """The verb as its subject (third person) and the tense want it."""
    if verb == "be" and plural:
        return "were" if tense == "past" else "are"
    if tense == "past":
        return past(verb)
    return {"must": "have"}.get(verb, verb) if plural else third(verb)


@cache
def plural(noun: str) -> str:
    """`box` to `boxes`; of a phrase, its last word."""
    head, _, last = noun.rpartition(" ")
    if last in _IRREGULAR_PLURAL:
        many = _IRREGULAR_PLURAL[last]
    elif last.endswith(("s", "sh", "ch", "x", "z")):
        many = last + "es"
    elif last.endswith("y") and last[-2] not in "aeiou":
        many = last[:-1] + "ies"
    else:
        many = last + "s"
    return f"{head} {many}".strip()


@cache
def article(following: str) -> str:
    """`a` or `an`, by the sound that the next word begins with."""
    word = following.lower()
    if word.startswith(("hour", "honest", "heir", "honour")):
        return "an"
    if word.startswith(("uni", "use", "usu", "one", "once", "eu", "ewe")):
        return "a"
    return "an" if word[:1] in set("aeiou") or word in ("8", "11", "18", "80") else "a"
