"""Prompts, how they are split, and where the completions come from."""

from __future__ import annotations

from string import Formatter
from typing import Annotated, Literal

from pydantic import Field, model_validator

from potstill.config.asking import Asking, StudentSees
from potstill.config.base import Frozen
from potstill.config.verify import Rejection


class FewShot(Frozen):
    """Worked examples that stand before every prompt: its first turns, or the beginning of its text."""

    path: str
    """A file with the same columns as the prompts, references among them. Its rows are never prompts."""
    count: int = Field(default=4, ge=1)
    """How many of its first rows."""
    separator: str = "\n\n"
    """Between examples, where prompts are plain text."""


class Prompts(Frozen):
    """Rows with a prompt each, from a file or from the hub."""

    path: str
    """A .jsonl, .json, .parquet, .csv or .txt file (text may be gzipped: .jsonl.gz), or with `hub` a data
    set's id."""
    hub: bool = False
    """Read `path` as a data set of the hub; `revision` is then needed."""
    revision: str | None = None
    """Commit of the hub data set."""
    hub_split: str = "train"
    """Which split of the hub data set to read."""
    hub_subset: str | None = None
    """Which subset (the hub also calls it configuration), where the data set has several."""
    prompt: str = "prompt"
    """Column with plain text prompts."""
    messages: str | None = None
    """Column with chat messages ({role, content}), instead of `prompt`."""
    reference: str | None = None
    """Column with reference answers. With messages that end in an assistant turn, that turn is it."""
    template: str | None = None
    """Text that the prompt is made of, with columns in braces, such as "{context}\n\nQuestion: {question}";
    instead of `prompt`."""
    few_shot: FewShot | None = None
    """Worked examples before every prompt; teacher and student see them."""
    group: str | None = None
    """Column with a task or topic; splits can keep groups whole."""
    task: str | None = Field(default=None, min_length=1)
    """One task or topic for all these prompts, instead of a column."""
    share: float | None = Field(default=None, gt=0, le=1)
    """Share of these among all prompts, where data.more_prompts names other sets; null: all that there are."""
    id: str | None = None
    """Column with ids; otherwise a hash of the prompt's content names it."""
    chat: bool = True
    """Show plain text prompts to a chat model as a user's message."""
    prefix: str | None = Field(default=None, min_length=1)
    """Text put before every plain text prompt, such as 'summarize: ' for T5."""
    system: str | None = None
    """System message put before every chat."""

    @model_validator(mode="after")
    def _sources(self) -> Prompts:
        if self.hub and self.revision is None:
            raise ValueError("a hub data set needs `revision`, the commit of its repository")
        if not self.hub and self.revision is not None:
            raise ValueError("revision has no effect on a local file; remove it or set hub: true")
        if not self.hub and self.hub_subset is not None:
            raise ValueError("hub_subset has no effect on a local file; remove it or set hub: true")
        if self.template is not None and (self.messages is not None or "prompt" in self.model_fields_set):
            raise ValueError("template makes the prompt out of columns; remove `prompt` or `messages`")
        if self.template is not None and not [name for _, name, _, _ in Formatter().parse(self.template) if name]:
            raise ValueError(f"template must name at least one column in braces, found {self.template!r}")
        if self.task is not None and self.group is not None:
            raise ValueError("`task` and `group` both say what the prompts are about; remove one of them")
        if self.prefix is not None and self.messages is not None:
            raise ValueError("prefix has no effect on messages; write it into them, or use system")
        return self


class HeldOutFraction(Frozen):
    """Set a share of the prompts aside, chosen by a hash of their id (or group)."""

    kind: Literal["fraction"]
    fraction: float = Field(gt=0, lt=1)
    by_group: bool = False
    """Keep groups whole: the held-out prompts come from groups that training never sees."""


class HeldOutGroups(Frozen):
    """Set these groups aside."""

    kind: Literal["groups"]
    groups: tuple[str, ...] = Field(min_length=1)


class HeldOutPrompts(Frozen):
    """Held-out prompts from a source of their own."""

    kind: Literal["prompts"]
    prompts: Prompts


HeldOut = Annotated[HeldOutFraction | HeldOutGroups | HeldOutPrompts, Field(discriminator="kind")]


class Sampling(Frozen):
    """How a model is sampled. `greedy` is temperature 0."""

    sampling_temperature: float = Field(default=1.0, ge=0)
    """Divides the logits before sampling. 1 keeps the teacher's own law, which the proxy needs."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Smallest set of tokens with this much probability; 1 keeps all."""
    max_new_tokens: int = Field(default=128, ge=1)
    """Longest completion in tokens; what is cut there gets no end-of-sequence token."""

    @model_validator(mode="after")
    def _greedy(self) -> Sampling:
        if self.sampling_temperature == 0 and self.top_p < 1:
            raise ValueError("top_p has no effect at sampling_temperature 0")
        return self


class SampledCompletions(Frozen):
    """The teacher answers every training prompt when the run starts."""

    kind: Literal["sample"]
    per_prompt: int = Field(default=1, ge=1)
    """Completions of each prompt."""
    sampling: Sampling = Sampling()
    batch_rows: int = Field(default=32, ge=1)
    """Completions sampled at once; a kill repeats at most these."""
    asking: Asking | None = None
    """How the teacher is asked, where that is not by the prompt itself."""
    rejection: Rejection | None = None
    """Which completions are kept, by verifiers; null: all. Kept references feed the stream `reference`."""


class StoreCompletions(Frozen):
    """What `potstill generate` put into a store; where it rejected completions, those it kept."""

    kind: Literal["store"]
    path: str
    """The store's directory."""
    student_sees: StudentSees = "prompt"
    """Where the generator was asked in other words: whether the student sees the prompt, or those words."""
    monitor_sampling: Sampling = Sampling()
    """How the teacher is sampled on held-out prompts, for the monitor."""


class FileCompletions(Frozen):
    """Somebody else's answers: JSON lines with `prompt_id` and `text` (or `token_ids`)."""

    kind: Literal["file"]
    path: str
    provenance: Literal["teacher", "reference", "corpus"] = "teacher"
    """Who wrote them."""
    generator: str
    """Name of the model or source, for their history."""
    terms: str | None = None
    """Licence or provider's terms under which they may be used."""
    monitor_sampling: Sampling = Sampling()
    """How the teacher is sampled on held-out prompts, for the monitor."""


class NoCompletions(Frozen):
    """Only references feed the run."""

    kind: Literal["none"]
    monitor_sampling: Sampling = Sampling()
    """How the teacher is sampled on held-out prompts, for the monitor."""


Completions = Annotated[
    SampledCompletions | StoreCompletions | FileCompletions | NoCompletions, Field(discriminator="kind")
]


class NearDuplicates(Frozen):
    """Held-out prompts that training has (almost) seen measure memory, not skill."""

    threshold: float = Field(default=0.8, gt=0, le=1)
    """Jaccard similarity of word 3-grams from which two prompts count as the same."""
    on_found: Literal["refuse", "drop"] = "refuse"
    """Refuse the run, or drop the held-out prompt (and say which)."""


class PromptSets(Frozen):
    """One set of prompts, or several in shares."""

    prompts: Prompts
    more_prompts: tuple[Prompts, ...] = ()
    """Further sets, mixed with the first; held-out prompts are taken from all of them alike."""
    num_prompts: int | None = Field(default=None, ge=1)
    """How many prompts in all, in the shares of the sets; null: as many as the shares allow."""

    @model_validator(mode="after")
    def _shares_fit(self) -> PromptSets:
        shares = [prompts.share for prompts in (self.prompts, *self.more_prompts)]
        given = [share for share in shares if share is not None]
        if given and (len(given) < len(shares) or abs(sum(given) - 1) > 1e-9):
            raise ValueError(f"data.prompts and all data.more_prompts need a `share`, which sum to 1; found {shares}")
        if self.num_prompts is not None and not given:
            raise ValueError("num_prompts divides prompts by their `share`, and none is given; name shares")
        return self


class Data(PromptSets):
    """All that feeds the run and its monitor."""

    held_out: HeldOut
    completions: Completions
    count_turns: Literal["last", "all"] = "last"
    """Whether earlier assistant turns of a conversation are trained on too."""
    trace_ends_with: str | None = Field(default=None, min_length=1)
    """Text that ends a reasoning trace in completions and references, such as </think>; for terms whose
    token_weighting is of kind part."""
    prompt_divisor: int = Field(default=1, ge=1)
    """Use one training prompt in so many, and so many times the completions of each: as many rows from less
    diverse prompts (Tiapkin et al. 2025, figure 6). 1: all prompts."""
    max_length: int = Field(default=1024, ge=8)
    """Longest prompt and completion together, in tokens."""
    too_long: Literal["refuse", "drop"] = "refuse"
    """What to do with prompts that leave no room for an answer within max_length: refuse the run, or drop
    them and say how many. Nothing is ever cut."""
    near_duplicates: NearDuplicates = NearDuplicates()
    acknowledged_terms: tuple[str, ...] = ()
    """Ids of licences or provider's terms (docs/guide/terms.md) that were read and allow what this run does,
    although what is known of them here says no, or sets conditions. Such a run starts, without their warning."""
    chat_template_kwargs: dict[str, bool | str] = Field(default={})
    """Passed to the tokenizer's chat template, such as enable_thinking: false."""

    @model_validator(mode="after")
    def _asking_fits(self) -> Data:
        asking = getattr(self.completions, "asking", None)
        if asking is not None and self.count_turns == "all":
            raise ValueError(
                "count_turns: all trains on earlier turns, which the teacher is not shown as they are where "
                "data.completions.asking puts the prompt in other words; set count_turns: last"
            )
        if self.prompt_divisor > 1 and self.completions.kind != "sample":
            raise ValueError("prompt_divisor trades prompts for completions, which needs completions of kind sample")
        return self
