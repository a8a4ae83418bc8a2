"""Several sets of prompts as one; prompts made from columns; worked examples before them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from potstill.config.data import Prompts, PromptSets
from potstill.data.mixing import mixed_counts, read_all
from potstill.data.prompts import PromptError, read_prompts


def write(folder: Path, name: str, rows: list[dict[str, Any]]) -> str:
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def sets(folder: Path, sizes: dict[str, int], **shares: float) -> PromptSets:
    configs = [
        {"path": write(folder, name, [{"prompt": f"{name} {i}"} for i in range(size)]), "task": name}
        | ({"share": shares[name]} if shares else {})
        for name, size in sizes.items()
    ]
    return PromptSets.model_validate({"prompts": configs[0], "more_prompts": configs[1:]})


def test_without_shares_all_prompts_are_taken_with_their_tasks(tmp_path: Path) -> None:
    found, notes = read_all(sets(tmp_path, {"a": 3, "b": 2}), 0)
    assert [p.group for p in found] == ["a"] * 3 + ["b"] * 2 and notes == []


def test_shares_take_as_many_as_the_smallest_set_allows(tmp_path: Path) -> None:
    config = sets(tmp_path, {"a": 60, "b": 100, "c": 10}, a=0.5, b=0.4, c=0.1)
    found, notes = read_all(config, 0)
    counts = {name: sum(p.group == name for p in found) for name in "abc"}
    assert counts == {"a": 50, "b": 40, "c": 10}
    assert "50 of" in notes[0] and "10 of" in notes[0]
    assert {p.id for p in found} != {p.id for p in read_all(config, 1)[0]}, "which ones, the seed decides"
    assert found == read_all(config, 0)[0]


def test_counts_are_rounded_to_the_total_and_too_many_are_refused() -> None:
    assert mixed_counts([100, 100, 100], [1 / 3, 1 / 3, 1 / 3], 100) == [34, 33, 33]
    assert sum(mixed_counts([9, 50], [0.3, 0.7], 29)) == 29
    with pytest.raises(PromptError, match=r"needs 30 prompts of set 1, which has 9. These shares allow 30"):
        mixed_counts([9, 500], [0.3, 0.7], 100)


def test_a_prompt_in_two_sets_is_refused(tmp_path: Path) -> None:
    one = {"path": write(tmp_path, "one", [{"prompt": "same"}])}
    two = {"path": write(tmp_path, "two", [{"prompt": "same"}])}
    with pytest.raises(PromptError, match=r"two.jsonl: the id .* is in .*one.jsonl too"):
        read_all(PromptSets.model_validate({"prompts": one, "more_prompts": [two]}), 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompts": {"path": "a", "share": 0.5}, "more_prompts": [{"path": "b"}]}, "need a `share`, which sum to 1"),
        ({"prompts": {"path": "a", "share": 0.5}, "more_prompts": [{"path": "b", "share": 0.4}]}, "sum to 1"),
        ({"prompts": {"path": "a"}, "num_prompts": 5}, "none is given"),
        ({"prompts": {"path": "a", "template": "no columns"}}, "at least one column in braces"),
        ({"prompts": {"path": "a", "template": "{x}", "messages": "m"}}, "remove `prompt` or `messages`"),
        ({"prompts": {"path": "a", "task": "t", "group": "g"}}, "remove one of them"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PromptSets.model_validate(changes)


def test_a_template_makes_the_prompt_from_columns(tmp_path: Path) -> None:
    path = write(tmp_path, "qa", [{"context": "It rains.", "question": "What falls?", "n": 3}])
    config = Prompts(path=path, template="{context}\n\nQuestion {n}: {question}", chat=False)
    assert read_prompts(config)[0].text == "It rains.\n\nQuestion 3: What falls?"
    with pytest.raises(PromptError, match=r"expected a column 'answer' for `template \(answer\)`"):
        read_prompts(Prompts(path=path, template="{answer}"))


def test_worked_examples_stand_before_every_prompt_and_change_no_id(tmp_path: Path) -> None:
    path = write(tmp_path, "sums", [{"prompt": "1 + 1 =", "reference": "2"}])
    shots = write(tmp_path, "worked", [{"prompt": f"{i} + 0 =", "reference": str(i)} for i in range(3)])
    few = {"path": shots, "count": 2}
    bare = read_prompts(Prompts(path=path, reference="reference", chat=False))[0]
    text = read_prompts(
        Prompts.model_validate({"path": path, "reference": "reference", "chat": False, "few_shot": few})
    )[0]
    assert text.text == "0 + 0 = 0\n\n1 + 0 = 1\n\n1 + 1 =" and text.id == bare.id
    chat = read_prompts(
        Prompts.model_validate({"path": path, "reference": "reference", "system": "s", "few_shot": few})
    )[0]
    assert chat.messages is not None
    assert [(m.role, m.content) for m in chat.messages] == [
        ("system", "s"), ("user", "0 + 0 ="), ("assistant", "0"), ("user", "1 + 0 ="), ("assistant", "1"),
        ("user", "1 + 1 ="),
    ]  # fmt: skip
    with pytest.raises(PromptError, match="expected 9 examples, found 3"):
        read_prompts(Prompts.model_validate({"path": path, "reference": "reference", "few_shot": few | {"count": 9}}))
