"""What feeds a run: the four sources by one line, plans that change, prompts in other words, killed and resumed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import make_llama
from test_resume import contents, start, wait_for_lines, write

from potstill.config import Run
from potstill.data.collate import Layout, Row
from potstill.data.store import CompletionStore
from potstill.models.scored import ScoredModel
from potstill.models.vocabulary import Alignment
from potstill.run_dir import RunDir
from potstill.teachers import LocalTeacher
from potstill.training.distil import distil
from potstill.training.show import Show

Make = Callable[..., Run]
QUIET = Show(quiet=True)
ANY = [{"kind": "forward_kl", "weight": 1.0, "on": ["any"]}]
ONLINE = {"steps_at_once": 2, "slots": 5}
SOURCES: dict[str, dict[str, Any]] = {
    "offline": {"kind": "offline"},
    "online_teacher": {"kind": "online_teacher", "online": ONLINE},
    "online_student": {"kind": "online_student", "online": ONLINE},
    "mixture": {"kind": "mixture", "online": ONLINE},
    "replay": {"kind": "online_student", "online": ONLINE, "fractions": {"online_student": 0.5, "replay": 0.5}},
}


def fed_by(make_run: Make, source: str, output: str = "run", **changes: Any) -> Run:
    """The same run but for one line."""
    sampling = {"sampling_temperature": 0.8, "max_new_tokens": 12}
    completions = {"kind": "sample", "batch_rows": 8, "sampling": sampling}
    return make_run(
        output=output, source=SOURCES[source], objective={"terms": ANY}, data__completions=completions,
        training__batch_rows=10, **changes,
    )  # fmt: skip


@pytest.mark.parametrize("source", sorted(SOURCES))
def test_one_line_changes_where_rows_come_from_and_the_record_says_so(make_run: Make, source: str) -> None:
    run = distil(fed_by(make_run, source), QUIET)
    lines = list(run.lines("metrics.jsonl"))
    rows = [{k.removeprefix("rows/"): v for k, v in line.items() if k.startswith("rows/")} for line in lines]
    each = {
        "offline": {"teacher": 10},
        "online_teacher": {"online_teacher": 10},
        "online_student": {"online_student": 10},
        "mixture": {"teacher": 9, "online_student": 1},
        "replay": {"online_student": 5, "replay": 5},
    }[source]
    assert rows[2:] == [each] * 4 and all(sum(r.values()) == 10 for r in rows)
    assert all(
        line["counted_tokens"] == sum(line[f"tokens/{name}"] for name in r) for line, r in zip(lines, rows, strict=True)
    )
    if "online_student" in each:  # sampled for two steps at once: 0 steps old, then 1
        assert [line["staleness/online_student"] for line in lines] == [0, 1] * 3
    if source == "replay":
        assert rows[0] == {"online_student": 10}  # nothing to draw from yet
        assert all(line["staleness/replay"] >= 1 for line in lines[2:])
    made = sorted(path.name for path in run.file("completions").glob("*.jsonl"))
    wanted = {
        "offline": ["train-teacher"],
        "online_teacher": ["online-teacher.0"],
        "mixture": ["online-student.0", "train-teacher"],
    }.get(source, ["online-student.0"])
    assert [name for name in made if not name.startswith("held-out")] == [f"{name}.jsonl" for name in wanted]


def test_fresh_rows_carry_their_history(make_run: Make) -> None:
    run = distil(fed_by(make_run, "online_student"), QUIET)
    found = CompletionStore(run.file("completions") / "online-student.0.jsonl").read()
    assert len(found) == 60 and len({(c.prompt_id, c.index) for c in found}) == 60
    assert {c.history.revision for c in found} == {"step 0", "step 2", "step 4"}
    assert {(c.history.provenance, c.history.depth) for c in found} == {("student", 2)}
    assert len({c.token_ids for c in found}) > 30  # a prompt that comes again is answered anew


ALONE = sorted(set(SOURCES) - {"offline", "mixture"})


@pytest.mark.parametrize("source", ["mixture", *(pytest.param(name, marks=pytest.mark.slow) for name in ALONE)])
def test_sigkill_and_again_ends_with_the_same_bytes(make_run: Make, tmp_path: Path, source: str) -> None:
    whole, broken = (fed_by(make_run, source, output=name) for name in ("whole", "broken"))
    distil(whole, QUIET)
    process = start(write(broken, tmp_path / "config.yaml"))
    wait_for_lines(Path(broken.output) / "metrics.jsonl", 3, process)  # between two checkpoints, and within a chunk
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    distil(broken, QUIET)
    expected, found = contents(RunDir(whole.output)), contents(RunDir(broken.output))
    assert expected.keys() == found.keys()
    assert [name for name in expected if expected[name] != found[name]] == []


def test_a_plan_changes_at_its_step_and_survives_a_resume(make_run: Make) -> None:
    change = {"from_step": 3, "fractions": {"teacher": 0.5, "online_student": 0.5}, "reason": "a trial"}
    source = {"kind": "mixture", "fractions": {"teacher": 1.0}, "changes": [change]}
    config = fed_by(make_run, "offline").model_dump(mode="json") | {"source": source}
    run = distil(Run.model_validate(config), QUIET)
    rows = [(line.get("rows/teacher"), line.get("rows/online_student")) for line in run.lines("metrics.jsonl")]
    assert rows == [(10, None)] * 3 + [(5, 5)] * 3
    plans = [event for event in run.lines("events.jsonl") if event["event"] == "data plan"]
    assert [(p["version"], p["from_step"], p["reason"]) for p in plans] == [(1, 0, "as configured"), (2, 3, "a trial")]
    metrics = run.file("metrics.jsonl").read_bytes()
    for name in ("verdict.json", "report.html"):
        run.file(name).unlink(missing_ok=True)
    for step in run.checkpoint_steps()[1:]:  # go on from step 4, which follows the second plan
        run.checkpoint_path(step).rename(run.path / f"gone-{step}")
    distil(Run.model_validate(config), QUIET)
    assert run.file("metrics.jsonl").read_bytes() == metrics


def test_fewer_prompts_and_more_completions_of_each(make_run: Make) -> None:
    config = fed_by(make_run, "offline", data__prompt_divisor=4)
    run = distil(config, QUIET)
    found = CompletionStore(run.file("completions") / "train-teacher.jsonl").read()
    assert len(found) == 16 and len({c.prompt_id for c in found}) == 4


STRATEGIES = {
    "strategies": [
        {"name": "steps", "system": "people like to count", "tasks": ["tea", "rain"]},
        {"name": "direct", "template": "{prompt} every day"},
    ],
}


def asked_run(make_run: Make, **asking: Any) -> Run:
    config = fed_by(make_run, "offline", data__max_length=96).model_dump(mode="json")
    config["data"]["completions"] |= {"per_prompt": 2, "asking": STRATEGIES | asking}
    return Run.model_validate(config)


def test_the_teacher_is_asked_in_other_words_and_the_student_sees_the_bare_prompt(make_run: Make) -> None:
    run = distil(asked_run(make_run), QUIET)
    found = CompletionStore(run.file("completions") / "train-teacher.jsonl").read()
    by_task: dict[str, set[str | None]] = {}
    for completion in found:
        by_task.setdefault(completion.prompt_id.split("-")[0], set()).add(completion.history.strategy)
    assert by_task["tea"] == by_task["rain"] == {"steps", "direct"}
    assert by_task["boats"] == by_task["bread"] == {"direct"}
    direct = next(c for c in found if c.history.strategy == "direct")
    assert direct.history.asked is not None and direct.history.asked[-1][1].endswith(" every day")
    steps = next(c for c in found if c.history.strategy == "steps")
    assert steps.history.asked is not None and steps.history.asked[0] == ("system", "people like to count")


def test_a_critique_is_a_second_turn_and_the_draft_is_kept(make_run: Make) -> None:
    run = distil(asked_run(make_run, critique="share it with care"), QUIET)
    drafts, final = (
        CompletionStore(run.file("completions") / f"train-teacher{name}.jsonl").read() for name in ("-drafts", "")
    )
    texts = {(c.prompt_id, c.index): c.text for c in drafts}
    assert len(final) == len(drafts) == 32
    for completion in final:
        assert completion.history.asked is not None
        *_, (_, answer), (role, words) = completion.history.asked
        assert answer == texts[(completion.prompt_id, completion.index)]
        assert (role, words) == ("user", "share it with care")


def test_the_teacher_judges_after_what_it_was_shown(vocabulary: int) -> None:
    """Prompt erasure: targets are those of the shown prompt, for as many positions."""
    model, layout = make_llama(vocabulary), Layout(0)
    bare = Row("p", 0, "teacher", (7, 8), (False, False), (9, 10, 2))
    shown = Row("p", 0, "teacher", (11, 12, 13, 7, 8), (False,) * 5, (9, 10, 2))
    erased = Row("p", 0, "teacher", (7, 8), (False, False), (9, 10, 2), asked=shown.prompt)
    said = {}
    for name, row in {"bare": bare, "shown": shown, "erased": erased}.items():
        for keep in (0.0, 64.0):
            teacher = LocalTeacher(
                ScoredModel(model), [row], layout, Alignment(None, vocabulary), "t", keep, torch.device("cpu"), [0]
            )
            said[name, keep] = teacher.targets([0], None).logits()  # type: ignore[arg-type]
    for keep in (0.0, 64.0):
        torch.testing.assert_close(said["erased", keep], said["shown", keep])
        assert not torch.allclose(said["erased", keep], said["bare", keep], atol=1e-2)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"kind": "offline", "fractions": {"online_student": 1.0}}, "has no online_student rows"),
        ({"kind": "mixture", "fractions": {"replay": 0.5, "teacher": 0.5}}, "replay draws what the student said"),
        ({"kind": "mixture", "replay": {"capacity_rows": 5}}, "source.replay has no effect"),
        ({"kind": "mixture", "fractions": {"teacher": 1.0}, "online": ONLINE}, "source.online has no effect"),
        ({"kind": "offline", "changes": [{"from_step": 3}]}, "must change"),
        ({"kind": "online_teacher", "fractions": {"online_teacher": 0.5}}, "sum to 1"),
    ],
)
def test_sources_that_do_not_work_are_refused(make_run: Make, source: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_run(source=source, objective={"terms": ANY})


def test_cross_entropy_on_any_is_refused_where_the_student_feeds_itself(make_run: Make) -> None:
    terms = [{"kind": "cross_entropy", "weight": 1.0, "on": ["any"]}]
    with pytest.raises(ValueError, match="only sharpens what it says already"):
        make_run(source={"kind": "mixture"}, objective={"terms": terms})
