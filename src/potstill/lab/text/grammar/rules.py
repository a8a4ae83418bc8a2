"""The rules of the invented language: a context-free grammar with weights, its features multiplied out.

`NP.s0` is a noun phrase in the singular whose noun is of class 0, so agreement is nothing but plain context-free
rules, and whether a sentence belongs to the language is a question with an exact answer. A rule also says which of
its words agree with which (`Link`), for the minimal pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate

from potstill.lab.text.grammar.lexicon import CLASSES, FEATURES, FORMS, TENSES

#: In a link or as a child's outer word: the word that the whole phrase hangs on, given from above.
OUTER = -1
#: Deeper than this no rule that nests is taken any more.
MAX_DEPTH = 5
_NUMBER_WEIGHT = {"s": 0.58, "p": 0.42}
_CLASS_WEIGHT = {"0": 0.4, "1": 0.35, "2": 0.25}


@dataclass(frozen=True, slots=True)
class Link:
    """The word at the head of child `target` agrees with that of child `controller`."""

    kind: str
    controller: int
    target: int


@dataclass(frozen=True, slots=True)
class Rule:
    """One way to build a phrase out of `parts`; its own head is that of part `head`."""

    parts: tuple[str, ...]
    weight: float
    head: int = 0
    links: tuple[Link, ...] = ()
    nests: bool = False
    #: For each part, which part's head is its outer word, or OUTER to hand on the phrase's own.
    outers: tuple[int, ...] = ()


def weight(feature: str) -> float:
    """How common a number and class are."""
    return _NUMBER_WEIGHT[feature[0]] * _CLASS_WEIGHT[feature[1]]


def _sentences() -> list[Rule]:
    rules = []
    for tense in TENSES:
        clause, time = f"C.{tense}", f"TIME.{tense}"
        rules.append(Rule((clause, "STOP"), 4))
        rules.append(Rule((time, clause, "STOP"), 4, head=1, links=(Link("tense", 0, 1),)))
        rules.append(Rule(("ASK", clause, "QUESTION"), 0.8, head=1))
        for other in TENSES:
            rules.append(Rule((clause, "JOIN", f"C.{other}", "STOP"), 0.7, nests=True))
            links = (Link("tense", 0, 1), Link("tense", 3, 4))
            parts = (time, clause, "JOIN", f"TIME.{other}", f"C.{other}", "STOP")
            rules.append(Rule(parts, 0.4, head=1, links=links, nests=True))
    return rules


def _clauses(tense: str) -> list[Rule]:
    plain = [
        Rule((f"NP.{f}", f"VP.{f}.{tense}"), weight(f), head=1, links=(Link("subject-verb", 0, 1),), outers=(OUTER, 0))
        for f in FEATURES
    ]
    link = (Link("coordinated-subject-verb", 0, 1),)
    return plain + [
        Rule((f"BOTH.{c}", f"VP.p{c}.{tense}"), 0.08, head=1, links=link, outers=(OUTER, 0), nests=True)
        for c in CLASSES
    ]


def _noun_phrases(feature: str) -> list[Rule]:
    agree = (Link("determiner-noun", 1, 0),)
    rules = [
        Rule((f"DET.{feature}", f"NB.{feature}"), 6, head=1, links=agree),
        Rule((f"DET.{feature}", f"NB.{feature}", "PP"), 2, head=1, links=agree, nests=True),
        Rule((f"DET.{feature}", f"NB.{feature}", f"RC.{feature}"), 2, 1, agree, True, outers=(OUTER, OUTER, 1)),
    ]
    return [*rules, Rule((f"NAME.{feature}",), 2)] if feature[0] == "s" else rules


def _verb_phrases(feature: str, tense: str) -> list[Rule]:
    end = f"{feature}.{tense}"
    rules = [
        Rule((f"VI.{end}",), 2),
        Rule((f"VI.{end}", "MANNER"), 1.5),
        Rule((f"VI.{end}", "PP"), 2, nests=True),
        Rule((f"VT.{end}", f"SELF.{feature}"), 0.8, links=(Link("reflexive", OUTER, 1),)),
        Rule((f"VT.{end}", "MANNER", f"SELF.{feature}"), 0.3, links=(Link("reflexive", OUTER, 2),)),
        Rule((f"AUX.{end}", "VI.bare"), 0.8),
    ]
    for other in FEATURES:
        rules.append(Rule((f"VT.{end}", f"NP.{other}"), 4 * weight(other)))
        rules.append(Rule((f"AUX.{end}", "VT.bare", f"NP.{other}"), weight(other)))
    rules += [Rule((f"VT.{end}", f"BOTH.{c}"), 0.15, nests=True) for c in CLASSES]
    rules += [Rule((f"VS.{end}", "COMPLEMENT", f"C.{t}"), 0.4, nests=True) for t in TENSES]
    return rules


def _relative_clauses(feature: str) -> list[Rule]:
    rules = []
    pronoun = Link("relative-pronoun", OUTER, 0)
    for tense in TENSES:
        links = (pronoun, Link("subject-relative-verb", OUTER, 1))
        rules.append(Rule((f"REL.{feature}", f"VP.{feature}.{tense}"), 2, 1, links, outers=(OUTER, OUTER)))
        for other in FEATURES:
            links = (pronoun, Link("object-relative-verb", 1, 2))
            parts = (f"REL.{feature}", f"NP.{other}", f"VT.{other}.{tense}")
            rules.append(Rule(parts, 1.5 * weight(other), 2, links))
    return rules


def _all_rules() -> dict[str, list[Rule]]:
    rules = {"S": _sentences()}
    rules["PP"] = [Rule(("P", f"NP.{f}"), weight(f)) for f in FEATURES]
    for tense in TENSES:
        rules[f"C.{tense}"] = _clauses(tense)
    for c in CLASSES:
        firsts = [(f"NP.{number}{c}", other) for number in ("s", "p") for other in FEATURES]
        rules[f"BOTH.{c}"] = [Rule((first, "AND", f"NP.{other}"), weight(other)) for first, other in firsts]
    for f in FEATURES:
        rules[f"NP.{f}"] = _noun_phrases(f)
        rules[f"RC.{f}"] = _relative_clauses(f)
        agree = (Link("adjective-noun", 1, 0),)
        rules[f"NB.{f}"] = [
            Rule((f"N.{f}",), 5),
            Rule((f"ADJ.{f}", f"NB.{f}"), 2, head=1, links=agree, nests=True),
            Rule(("DEGREE", f"ADJ.{f}", f"NB.{f}"), 0.6, 2, (Link("adjective-noun", 2, 1),), True),
        ]
        for tense in TENSES:
            rules[f"VB.{f}.{tense}"] = _verb_phrases(f, tense)
            plain = Rule((f"VB.{f}.{tense}",), 6, outers=(OUTER,))
            negated = Rule(("NOT", f"VB.{f}.{tense}"), 0.8, head=1, outers=(OUTER, OUTER))
            rules[f"VP.{f}.{tense}"] = [plain, negated]
    return rules


#: The rules by the phrase that they build.
RULES = _all_rules()


def _cumulative(rules: list[Rule], depth: int) -> list[float]:
    fading = 0.0 if depth >= MAX_DEPTH else 0.75**depth
    return list(accumulate(rule.weight * (fading if rule.nests else 1.0) for rule in rules))


#: Running sums of the rules' weights by phrase, at every depth of nesting.
CUMULATIVE = {name: [_cumulative(rules, depth) for depth in range(MAX_DEPTH + 1)] for name, rules in RULES.items()}

_UNKNOWN = {part for rules in RULES.values() for rule in rules for part in rule.parts} - RULES.keys() - FORMS.keys()
if _UNKNOWN:
    raise ValueError(f"rules name phrases that nothing builds: {sorted(_UNKNOWN)}")
