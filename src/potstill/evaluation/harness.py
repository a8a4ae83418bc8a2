"""The same questions through lm-eval, the library that most published numbers come from.

lm-eval builds the requests, runs the model that is in memory and counts what is right; nothing is downloaded. Its
numbers come back item by item in the form of our own scorer, so that either can stand in for the other. It is an
optional library: `pip install potstill[eval]`.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from potstill.evaluation.choices import ChoiceScores, Item
from potstill.evaluation.scoring import encode_items, gather

#: What lm-eval can count for each form of an item.
METRICS = {"one choice": ("acc",), "one context": ("acc", "acc_norm", "acc_bytes"), "several contexts": ("acc",)}


class HarnessError(ValueError):
    """lm-eval cannot be used as asked; the message says how to mend it."""


@dataclass(frozen=True)
class Harnessed:
    """What lm-eval found on one set of items."""

    scores: ChoiceScores  # log-likelihoods and greedy matches are lm-eval's; lengths are counted by Potstill
    results: Mapping[str, float]  # lm-eval's own figures: acc, acc_norm, acc_stderr, ...


def harness_scores(
    model: Any,
    tokenizer: Any,
    sets: Mapping[str, Sequence[Item]],
    batch_rows: int = 16,
    *,
    max_length: int | None = None,
    prefix_id: int | None = None,
) -> dict[str, Harnessed]:
    """Every set of items by lm-eval's HFLM, zero shots, with a decoder-only Transformers model where it stands.

    The settings are those of `scoring.score_choices`, batch_rows requests at once. Raises HarnessError where lm-eval
    is missing, and for a set whose items are of different forms; ValueError as `score_choices` does.
    """
    lm_eval, hub_models = _needed("lm_eval"), _needed("lm_eval.models.huggingface")
    encoded = {name: encode_items(model, tokenizer, items, max_length, prefix_id) for name, items in sets.items()}
    was_training = model.training
    with _quiet():
        try:
            # A copy of the tokenizer, because lm-eval gives it a padding token where it has none.
            runner = hub_models.HFLM(
                pretrained=model, tokenizer=copy.deepcopy(tokenizer), backend="causal", batch_size=batch_rows,
                max_length=max_length, prefix_token_id=prefix_id,
            )  # fmt: skip
            tasks = {name: task(name, items) for name, items in sets.items()}
            found = lm_eval.evaluate(
                lm=runner, task_dict={"tasks": tasks, "groups": {}, "group_map": {}}, bootstrap_iters=0
            )
        finally:
            model.train(was_training)
    return {
        name: Harnessed(_scores(items, encoded[name], found["samples"][name]), _figures(found["results"][name]))
        for name, items in sets.items()
    }


def task(name: str, items: Sequence[Item]) -> Any:
    """lm-eval's ConfigurableTask of these items, for its `evaluate`.

    All items have one choice (scored like LAMBADA), or one context, or a context for each of several equal choices
    (like WinoGrande); raises HarnessError for mixtures, and for several contexts with different choices.
    """
    forms = {(_form(item), item.delimiter) for item in items}
    if len(forms) != 1:
        raise HarnessError(
            f"expected items of one form and delimiter in {name!r}, found {sorted(forms)}: split the set"
        )
    ((form, delimiter),) = forms
    rows = [{"context": item.context, "choices": list(item.choices), "right": item.right} for item in items]
    config = {
        "task": name,
        "custom_dataset": lambda: {"test": _needed("datasets").Dataset.from_list(rows)},
        "test_split": "test",
        "num_fewshot": 0,
        "target_delimiter": delimiter,
        "metric_list": [
            {"metric": metric, "aggregation": "mean", "higher_is_better": True} for metric in METRICS[form]
        ],
        **_fields(form, delimiter),
    }
    return _needed("lm_eval.api.task").ConfigurableTask(config=config)


def _form(item: Item) -> str:
    if len(item.choices) == 1:
        return "one choice"
    if isinstance(item.context, str):
        return "one context"
    if len(set(item.choices)) > 1:
        raise HarnessError("lm-eval takes several contexts only with one ending; score these with score_choices")
    return "several contexts"


def _fields(form: str, delimiter: str) -> dict[str, Any]:
    """How lm-eval reads a row of this form."""
    if form == "one choice":
        return {
            "output_type": "loglikelihood",
            "doc_to_text": lambda row: row["context"],
            "doc_to_target": lambda row: delimiter + row["choices"][0],
        }
    if form == "one context":
        return {
            "output_type": "multiple_choice",
            "doc_to_text": lambda row: row["context"],
            "doc_to_choice": lambda row: row["choices"],
            "doc_to_target": lambda row: row["right"],
        }
    return {
        "output_type": "multiple_choice",
        "doc_to_text": lambda row: row["right"],
        "doc_to_choice": lambda row: row["context"],
        "doc_to_target": lambda row: row["choices"][0],
    }


def _scores(items: Sequence[Item], encoded: Sequence[Any], samples: Sequence[Mapping[str, Any]]) -> ChoiceScores:
    ordered = sorted(samples, key=lambda sample: sample["doc_id"])
    said = [answer for sample in ordered for answer in sample["filtered_resps"]]
    return gather(items, encoded, np.array([a[0] for a in said]), np.array([a[1] for a in said], dtype=bool))


def _figures(results: Mapping[str, Any]) -> dict[str, float]:
    """lm-eval writes "acc,none": the metric and the filter behind it."""
    split = {name.partition(",")[0]: value for name, value in results.items() if "," in name}
    return {name: float(value) for name, value in split.items() if isinstance(value, int | float)}


def _needed(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise HarnessError(
            f"lm-eval is not installed ({error}); pip install 'potstill[eval]', or use "
            "potstill.evaluation.scoring.score_choices, which needs nothing more"
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars, and of lm-eval's log only errors: that it cuts long contexts, `ChoiceScores.cut` counts."""
    log = logging.getLogger("lm_eval")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        log.setLevel(level)
