"""The invented words: stems made of syllables, and the endings that agreement puts on them.

A noun has one of three classes and shows it on everything that belongs to it: determiner, adjectives, relative
pronoun, verb, reflexive. Of half of the nouns the class is heard in the singular (-a, -o, -e); the rest end in -u
whatever their class, so a reader has to remember it. All surface forms are different, which is why a word's place in
the grammar can be read off the word alone.
"""

from __future__ import annotations

from potstill.lab.text.draw import Dice
from potstill.lab.text.wordlists import words

NUMBERS = ("s", "p")
CLASSES = ("0", "1", "2")
TENSES = ("past", "present", "future")
#: Number and class: s0, s1, ... p2.
FEATURES = tuple(number + kind for number in NUMBERS for kind in CLASSES)

_ENDINGS = {"s0": "a", "s1": "o", "s2": "e", "p0": "an", "p1": "os", "p2": "et"}
_PLURALS = {"0": "n", "1": "s", "2": "t"}
_TENSE_MARKS = {"past": "im", "present": "", "future": "ur"}
_ONSETS = words("b br d dr f fl g gl gr h k kl kr l m n p pl pr r s sk sl st t tr v z")
_CODAS = words("b d f g k l lm m n nd nk p r rd rk s sk sh t v z")
_VOWELS = ["a", "e", "i", "o", "u", "ai", "ei"]

#: How many stems of each kind there are; nouns of each class.
_COUNTS = {"N": 120, "ADJ": 90, "VI": 70, "VT": 90, "VS": 25, "AUX": 6, "NAME": 25, "MANNER": 45, "P": 9, "DET": 4}
_FIXED = {
    "COMPLEMENT": ["ke"],
    "ASK": ["ma"],
    "NOT": ["ni"],
    "AND": ["e"],
    "JOIN": ["ul", "opa", "sil", "ater", "mek"],
    "DEGREE": ["ori", "unti", "aspi"],
    "STOP": ["."],
    "QUESTION": ["?"],
}


def _stems() -> dict[str, list[str]]:
    """Stems by kind, the short ones first: what is said often is short, as in languages that people speak."""
    dice = Dice("grammar-lexicon", 0, 0)
    taken: set[str] = set()
    reserved = {word for fixed in _FIXED.values() for word in fixed}

    def stem(short: bool) -> str:
        while True:
            made = ""
            for _ in range(1 if short else dice.pick((1, 1, 2, 2, 2, 3))):
                made += dice.pick(_ONSETS) + dice.pick(_VOWELS)
            made += dice.pick(_CODAS)
            if made not in taken and made not in reserved and not made.endswith(("im", "ur", "ir")):
                taken.add(made)
                return made

    return {
        kind + kind_class: sorted((stem(kind in ("DET", "P", "AUX")) for _ in range(count)), key=len)
        for kind, count in _COUNTS.items()
        for kind_class in (CLASSES if kind in ("N", "NAME") else ("",))
    }


def _forms() -> tuple[dict[str, list[str]], dict[str, str]]:
    """Words by preterminal, in the order of their stems; and the kind of stem behind each preterminal."""
    stems = _stems()
    forms: dict[str, list[str]] = dict(_FIXED)
    kinds = {name: name for name in _FIXED}

    def put(name: str, kind: str, surface: list[str]) -> None:
        forms[name], kinds[name] = surface, kind

    for noun_class in CLASSES:
        vowel = _ENDINGS["s" + noun_class]
        single = [s + (vowel if i % 2 else "u") for i, s in enumerate(stems["N" + noun_class])]
        put(f"N.s{noun_class}", "N" + noun_class, single)
        put(f"N.p{noun_class}", "N" + noun_class, [word + _PLURALS[noun_class] for word in single])
        put(f"NAME.s{noun_class}", "NAME" + noun_class, [s.capitalize() for s in stems["NAME" + noun_class]])
    for feature, ending in _ENDINGS.items():
        put(f"DET.{feature}", "DET", [s + ending for s in stems["DET"]])
        put(f"ADJ.{feature}", "ADJ", [s + "i" + ending for s in stems["ADJ"]])
        put(f"REL.{feature}", "REL", ["qu" + ending])
        put(f"SELF.{feature}", "SELF", ["sel" + ending])
        for tense, mark in _TENSE_MARKS.items():
            for kind in ("VI", "VT", "VS", "AUX"):
                put(f"{kind}.{feature}.{tense}", kind, [s + mark + ending for s in stems[kind]])
    put("VI.bare", "VI", [s + "ir" for s in stems["VI"]])
    put("VT.bare", "VT", [s + "ir" for s in stems["VT"]])
    put("MANNER", "MANNER", [s + "el" for s in stems["MANNER"]])
    put("P", "P", stems["P"])
    times = {"past": ("olda", "yonim"), "present": ("nuva", "estem"), "future": ("wila", "arrum")}
    for tense, adverbs in times.items():
        put(f"TIME.{tense}", "TIME", list(adverbs))
    return forms, kinds


#: Words by preterminal (`N.s0`, `VT.p1.past`, `JOIN`), in the order of their stems; the stems' kind by preterminal.
FORMS, KINDS = _forms()


def _places() -> dict[str, str]:
    places: dict[str, str] = {}
    for name, surface in FORMS.items():
        for word in surface:
            if word in places:
                raise ValueError(f"the word {word!r} is both {places[word]} and {name}: expected one place a word")
            places[word] = name
    return places


#: The one preterminal of each word.
PLACES = _places()
