"""What an arm of the lab is called on the page, how it looks, and which arms stand side by side.

Every arm keeps one colour, one marker and one dash on the whole page. No more than
seven arms share a figure, and no two of them share a marker, so that nobody has to
tell them apart by colour alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from potstill.report.drawing import BLUE, GREEN, ORANGE, PALETTE, colour_of, dash_of

BASE = "offline"
ORACLE = "oracle_as_teacher"
PURPLE, RED, _, CYAN, PINK = PALETTE[3:]
UNKNOWN = ("square", "diamond", "cross", "x", "star", "pentagon", "hexagon")


@dataclass(frozen=True, slots=True)
class Look:
    """An arm's name for people, and how it is drawn."""

    words: str
    colour: str
    symbol: str  # Plotly's name of the marker
    dash: str = "solid"


@dataclass(frozen=True, slots=True)
class Comparison:
    """Arms that answer one question, and the findings that rest on them."""

    id: str
    title: str
    question: str
    arms: tuple[str, ...]
    findings: tuple[int, ...]
    one_proxy: bool = True  # False: the arms' proxies are different losses, so they share no ruler


LOOKS = {
    BASE: Look("offline", ORANGE, "circle"),
    ORACLE: Look("oracle as teacher", PINK, "diamond", "dash"),
    "online_teacher": Look("online teacher", BLUE, "square"),
    "online_student": Look("online student", GREEN, "triangle-up"),
    "mixture_1": Look("1 % online student", RED, "star"),
    "mixture_5": Look("5 % online student", PINK, "octagon"),
    "mixture_10": Look("10 % online student", PURPLE, "x"),
    "mixture_25": Look("25 % online student", BLUE, "cross"),
    "mixture_50": Look("50 % online student", CYAN, "hexagon"),
    "prompts_half": Look("half the prompts", PINK, "diamond-tall"),
    "prompts_fifth": Look("a fifth of the prompts", BLUE, "triangle-down"),
    "large_pool": Look("a large pool of prompts", GREEN, "pentagon"),
    "completions_2": Look("2 completions each", PINK, "bowtie"),
    "completions_4": Look("4 completions each", BLUE, "hourglass"),
    "completions_5": Look("5 completions each", GREEN, "star-square"),
    "few_epochs": Look("few epochs", BLUE, "diamond-wide"),
    "stopped_early": Look("stopped early", BLUE, "hexagon2"),
    "reverse_kl": Look("reverse KL", BLUE, "triangle-left"),
    "reverse_kl_online": Look("reverse KL, online teacher", BLUE, "triangle-right", "dash"),
    "jensen_shannon": Look("Jensen-Shannon", GREEN, "star-triangle-up"),
    "jensen_shannon_online": Look("Jensen-Shannon, online teacher", GREEN, "star-triangle-down", "dash"),
    "small_teacher": Look("small teacher", BLUE, "star-diamond"),
    "small_student": Look("small student", GREEN, "hexagram"),
    "overtrained_teacher": Look("overtrained teacher", PINK, "diamond-wide"),
    "mended_completions": Look("mended: more completions", GREEN, "hourglass", "dash"),
    "mended_mixture_10": Look("mended: 10 % online student", PURPLE, "circle-x"),
    "mended_mixture": Look("mended: online student, same cost", BLUE, "circle-cross"),
    "mended_human": Look("mended: 10 % human text", PINK, "star"),
    "mended_prompts": Look("mended: more prompts", CYAN, "pentagon"),
}

COMPARISONS = (
    Comparison(
        "fixed-or-fresh",
        "Fixed completions or fresh ones",
        "Does golden turn where the same completions are visited again and again, and only there? With the oracle "
        "as teacher there are no mistakes of a teacher to learn.",
        (BASE, "online_teacher", "online_student", ORACLE),
        (1, 2),
    ),
    Comparison(
        "mixtures",
        "A little of the student's own data",
        "How much of a batch must be sampled from the student before golden holds?",
        (BASE, "mixture_1", "mixture_5", "mixture_10", "mixture_25", "mixture_50", "online_student"),
        (3,),
    ),
    Comparison(
        "prompts",
        "Fewer prompts, or more",
        "Is it the number of different prompts that protects? All arms take as many steps; with fewer prompts each "
        "has more completions, so that the rows are as many, and a large pool visits each of its prompts seldom.",
        (BASE, "prompts_half", "prompts_fifth", "large_pool"),
        (4,),
    ),
    Comparison(
        "completions",
        "More completions of each prompt",
        "What does a larger budget for sampling buy, if the completions stay fixed? The steps are as many as offline.",
        (BASE, "completions_2", "completions_4", "completions_5"),
        (5,),
    ),
    Comparison(
        "first-epochs",
        "The first epochs",
        "Is there hacking before a completion has been seen a fourth time?",
        (BASE, "few_epochs"),
        (6,),
    ),
    Comparison(
        "stopped",
        "Stopped early",
        "Is it enough to take fewer steps, with a schedule that ends with them?",
        (BASE, "stopped_early"),
        (),
    ),
    Comparison(
        "losses",
        "Other losses",
        "Is it the loss? Proxy is each arm's own loss here, so compare proxy within an arm only; golden and the "
        "plane's forward KL are one ruler.",
        (BASE, "reverse_kl", "reverse_kl_online", "jensen_shannon", "jensen_shannon_online"),
        (7,),
        one_proxy=False,
    ),
    Comparison(
        "models",
        "Other teachers and students",
        "Is it the sizes, or how long the teacher was trained?",
        (BASE, "small_teacher", "small_student", "overtrained_teacher"),
        (7,),
    ),
    Comparison(
        "mended",
        "Runs that mend themselves",
        "An alarm that needs no oracle changes what feeds the student from the next step on. What does each remedy "
        "give back of the distance between offline and online, at the same number of completions?",
        (
            BASE,
            "mended_completions",
            "mended_mixture",
            "mended_mixture_10",
            "mended_prompts",
            "mended_human",
            "online_student",
        ),
        (),
    ),
)

STATEMENTS = {
    1: "Fixed completions visited for many epochs: golden falls and then rises while proxy does not rise with it.",
    2: "Fresh completions, from the teacher or from the student: no hacking, both metrics fall.",
    3: "A tenth of a batch from the student itself already steadies golden.",
    4: "Fewer prompts at the same number of rows: more hacking, while loss and proxy hardly show it.",
    5: "More completions of each prompt: proxy and golden both get better.",
    6: "In the first one to three epochs there is next to no hacking.",
    7: "The same happens with other sizes of models and other token-level losses.",
}


def looks(arms: Iterable[str]) -> dict[str, Look]:
    """The look of every arm; those that are not known take the colours in turn."""
    ordered = list(arms)
    unknown = [arm for arm in ordered if arm not in LOOKS]
    own = {
        arm: Look(arm.replace("_", " "), colour_of(i), UNKNOWN[i % len(UNKNOWN)], dash_of(i))
        for i, arm in enumerate(unknown)
    }
    return {arm: LOOKS.get(arm) or own[arm] for arm in ordered}


def comparisons(arms: Iterable[str]) -> list[Comparison]:
    """Those that the experiment ran more than the shared arms of; arms that no comparison knows come last."""
    ran = set(arms)
    shared = {BASE, "online_student"}
    found = []
    for one in COMPARISONS:
        present = tuple(arm for arm in one.arms if arm in ran)
        if (one is COMPARISONS[0] and present) or set(present) - shared:
            found.append(_with(one, present))
    known = {arm for one in COMPARISONS for arm in one.arms}
    others = tuple(sorted(ran - known))
    if others:
        base = (BASE,) if BASE in ran else ()
        found.append(Comparison("others", "Other arms", "Arms of this preset alone.", (*base, *others), ()))
    return found


def _with(one: Comparison, arms: tuple[str, ...]) -> Comparison:
    return Comparison(one.id, one.title, one.question, arms, one.findings, one.one_proxy)
