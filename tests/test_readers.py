"""Logs of other tools: what is read as what, what is mended, what is refused and in which words."""

from __future__ import annotations

import csv
import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT

from potstill.diagnosis import diagnose, judge, read_curves
from potstill.diagnosis.logs_table import LogError
from potstill.diagnosis.readers import read_log

FIXTURE = ROOT / "tests" / "fixtures" / "trl_gkd"
STEPS = range(0, 401, 20)
Row = dict[str, Any]


def measured(step: int) -> Row:
    """proxy falls and levels off, golden turns at step 200; jitter small and the same each time."""
    jitter = 0.002 * ((step * 7919) % 13 / 6 - 1)
    proxy = 0.3 + np.exp(-step / 60)
    golden = 1.0 + np.exp(-step / 40) + max(0, step - 200) / 500
    return {"step": step, "proxy": round(proxy + jitter, 5), "golden": round(golden + jitter, 5)}


def training(step: int) -> Row:
    return {"step": step, "loss": round(0.2 + np.exp(-step / 60), 5)}


EVALUATIONS = [measured(step) for step in STEPS]
TRAINING = [training(step) for step in range(5, 401, 5)]
#: What a mean since the evaluation before is.
EXPECTED_LOSS = [np.mean([training(s)["loss"] for s in range(step - 15, step + 1, 5)]) for step in STEPS if step]


def as_csv(path: Path, rows: Sequence[Mapping[str, Any]], separator: str = ",", **names: str) -> Path:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with open(path, "w", newline="") as handle:
        writer = csv.writer(handle, delimiter=separator)
        writer.writerow([names.get(name, name) for name in columns])
        writer.writerows([row.get(name, "") for name in columns] for row in rows)
    return path


def as_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def as_state(folder: Path, rows: Sequence[Mapping[str, Any]], step: int = 400) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": step, "log_history": list(rows)}))
    return folder


def check(curves: Mapping[str, Any], losses: bool = True) -> None:
    """The curves are those of EVALUATIONS and TRAINING."""
    assert curves["proxy"].steps.tolist() == list(STEPS)
    np.testing.assert_allclose(curves["proxy"].per_token, [row["proxy"] for row in EVALUATIONS])
    np.testing.assert_allclose(curves["golden"].per_token, [row["golden"] for row in EVALUATIONS])
    assert not curves["proxy"].paired
    if losses:
        assert curves["training_loss"].steps.tolist() == list(STEPS)[1:]
        np.testing.assert_allclose(curves["training_loss"].per_token, EXPECTED_LOSS)


# -- what is read as what -----------------------------------------------------


def mixed() -> list[Row]:
    """Rows of training and of evaluations between each other, as tools write them."""
    return sorted([*TRAINING, *EVALUATIONS], key=lambda row: (row["step"], "proxy" in row))


def renamed(rows: Sequence[Row], **names: str) -> list[Row]:
    return [{names.get(name, name): value for name, value in row.items()} for row in rows]


def test_csv_and_json_of_means(tmp_path: Path) -> None:
    check(read_curves(as_csv(tmp_path / "log.csv", mixed())))
    check(read_curves(as_lines(tmp_path / "log.jsonl", mixed())))
    (tmp_path / "rows.json").write_text(json.dumps(mixed()))
    check(read_curves(tmp_path / "rows.json"))
    (tmp_path / "columns.json").write_text(json.dumps({n: [row[n] for row in EVALUATIONS] for n in EVALUATIONS[0]}))
    check(read_curves(tmp_path / "columns.json"), losses=False)
    check(read_curves(mixed()))


def test_the_verdict_on_a_log_of_means(tmp_path: Path) -> None:
    verdict = diagnose(as_csv(tmp_path / "log.csv", mixed()), golden_kind="oracle")
    assert verdict.verdict == "hacking" and verdict.confidence <= 0.5
    assert "Only means were logged" in verdict.sentence


@pytest.mark.parametrize(
    "names",
    [
        {"step": "global_step", "loss": "train_loss", "proxy": "eval_loss", "golden": "eval_golden"},
        {"step": "Step", "loss": "train/loss", "proxy": "eval/loss", "golden": "eval/golden"},
        {"step": "_step", "loss": "train/loss", "proxy": "eval/proxy", "golden": "eval/golden"},
        {"step": "train/global_step", "loss": "train/loss", "proxy": "train/potstill/proxy",
         "golden": "train/potstill/golden"},
        {"step": "trainer/global_step", "loss": "train_loss", "proxy": "val_loss", "golden": "golden"},
    ],
)  # fmt: skip
def test_usual_names_are_understood(names: dict[str, str], tmp_path: Path) -> None:
    reading = read_log(as_csv(tmp_path / "log.csv", mixed(), **names))
    check(reading.curves)
    as_ours = {"training_loss" if name == "loss" else name: column for name, column in names.items()}
    assert reading.facts["read_as"] == as_ours
    told = any("was taken for proxy" in note for note in reading.facts["notes"])
    assert told == ("loss" in names["proxy"]), "a held-out loss may be something else"


def test_the_users_mapping_goes_first(tmp_path: Path) -> None:
    rows = [row | {"eval_loss": 9.0} for row in renamed(EVALUATIONS, proxy="eval/kl", golden="human nll")]
    path = as_csv(tmp_path / "log.csv", rows)
    check(read_curves(path, mapping={"eval/kl": "proxy", "human nll": "golden"}), losses=False)
    assert diagnose(path, mapping={"eval/kl": "proxy", "human nll": "golden"}).evidence["evaluations"] == len(STEPS)
    for mapping, words in (
        ({"eval/lk": "proxy"}, r"no column 'eval/lk'.*'eval/kl'"),
        ({"eval/kl": "proxies"}, "can be read as step, epoch.*found 'proxies'"),
        ({"eval/kl": "proxy", "eval_loss": "proxy"}, "mapped twice"),
    ):
        with pytest.raises(LogError, match=words):
            read_curves(path, mapping=mapping)


def test_nested_rows_are_spread() -> None:
    rows = [{"step": r["step"], "eval": {"loss": r["proxy"], "golden": r["golden"]}} for r in EVALUATIONS]
    check(read_curves(rows), losses=False)


def test_epochs_stand_in_for_steps_and_it_says_so(tmp_path: Path) -> None:
    rows = [{"epoch": row["step"] / 160, "proxy": row["proxy"], "golden": row["golden"]} for row in EVALUATIONS]
    reading = read_log(as_csv(tmp_path / "log.csv", rows))
    assert reading.curves["proxy"].steps.tolist() == [125 * i for i in range(len(STEPS))]
    assert "epochs stand in for them, a step being 1/1000 epoch" in " ".join(reading.facts["notes"])
    whole = read_log([row | {"epoch": i} for i, row in enumerate(rows)])
    assert whole.curves["golden"].steps.tolist() == list(range(len(STEPS)))


def test_prompts_are_paired_and_training_rows_need_none(tmp_path: Path) -> None:
    rows: list[Row] = [
        {"step": row["step"], "prompt_id": f"p{p}", "split": ("train", "selection", "test")[p % 3],
         "proxy": row["proxy"] + p, "golden": row["golden"] + p}
        for row in EVALUATIONS for p in range(12)
    ]  # fmt: skip
    rows += [{"step": 0, "prompt_id": f"p{p}", "teacher_golden": 1.5} for p in range(12)]
    curves = read_curves(as_csv(tmp_path / "log.csv", [*rows, *TRAINING]))
    assert curves["golden"].paired and curves["golden"].sums.shape == (len(STEPS), 8)
    assert curves["golden"].teacher is not None and curves["golden"].teacher.tolist() == [1.5] * 8
    np.testing.assert_allclose(curves["training_loss"].per_token, EXPECTED_LOSS)
    assert curves["training_loss"].prompt_ids.tolist() == ["mean"]
    with pytest.raises(LogError, match="no prompt_id"):
        read_curves([*rows, {"step": 420, "proxy": 1.0}])


def test_standard_errors_are_kept_as_facts(tmp_path: Path) -> None:
    rows = [row | {"golden_stderr": 0.25, "proxy_stderr": 0.5} for row in EVALUATIONS]
    facts = read_log(as_csv(tmp_path / "log.csv", rows)).facts
    assert facts["standard_errors"] == {"golden": 0.25, "proxy": 0.5}
    assert any("golden_stderr is kept in the facts; the test does not use it" in note for note in facts["notes"])


# -- Hugging Face -------------------------------------------------------------


def test_a_trainers_folder_and_its_newest_checkpoint(tmp_path: Path) -> None:
    history = renamed(mixed(), proxy="potstill/proxy", golden="potstill/golden")
    history = [row | {"epoch": row["step"] / 100} for row in history]
    end = {"step": 400, "train_runtime": 9.0, "train_loss": 77.0}
    as_state(tmp_path / "out" / "checkpoint-80", history[:20], 80)
    as_state(tmp_path / "out" / "checkpoint-400", [*history, end], 400)
    as_state(tmp_path / "out" / "checkpoint-1000", history[:5], 10)  # of an older training: 1000 is no later than 400
    reading = read_log(tmp_path / "out")
    check(reading.curves)
    assert "checkpoint-400" in reading.facts["path"]
    assert "of 3 states the newest was read" in reading.facts["notes"][0]
    as_state(tmp_path / "out", [*history, end])
    assert read_log(tmp_path / "out").facts["path"] == str(tmp_path / "out" / "trainer_state.json")
    check(read_curves(tmp_path / "out" / "trainer_state.json"))


def test_the_end_of_training_is_no_loss_of_its_step(tmp_path: Path) -> None:
    end = {"step": 400, "train_runtime": 9.0, "train_loss": 77.0}
    check(read_curves(as_state(tmp_path, [*mixed(), end])))


def test_rows_told_again_after_a_restart_replace(tmp_path: Path) -> None:
    wrong = [row | {"proxy": 50.0} for row in EVALUATIONS[8:11]]
    told = [*EVALUATIONS[:8], *wrong, *EVALUATIONS[8:], *TRAINING]
    reading = read_log(as_state(tmp_path, told))
    check(reading.curves)
    assert "3 rows tell a step again" in " ".join(reading.facts["notes"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"global_step": 3}', "expected"),
        ('{"log_history": []}', "log_history is empty"),
        ('{"log_history": [{"loss": 1}]}', "has no step"),
        ('{"log_history": [{"step": 1, "lo', "cut off"),
        ('{"log_history": [{"step": 1, "loss": 0.1}, {"step": 2,', "cut off"),
        ('{"log_history": {"step": 1}}', "expected log_history, a list"),
    ],
)
def test_broken_states_are_refused(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "trainer_state.json").write_text(text)
    for source in (tmp_path, tmp_path / "trainer_state.json"):
        with pytest.raises(LogError, match=words):
            read_curves(source)


# -- the run of examples/trl_gkd.py --------------------------------------------


def test_a_real_run_of_trl() -> None:
    reading = read_log(FIXTURE / "trainer_state.json")
    assert reading.facts["read_as"] == {
        "step": "step", "proxy": "potstill/proxy", "training_loss": "loss", "golden": "potstill/golden",
        "teacher_golden": "potstill/teacher_golden",
    }  # fmt: skip
    history = json.loads((FIXTURE / "trainer_state.json").read_text())["log_history"]
    known = [row["potstill/golden"] for row in history if "potstill/golden" in row]
    assert len(known) == 21
    np.testing.assert_allclose(reading.curves["golden"].per_token, known)
    losses = [row["loss"] for row in history if "loss" in row and 30 < row["step"] <= 60]
    assert len(losses) == 6
    assert reading.curves["training_loss"].per_token[1] == pytest.approx(np.mean(losses))
    verdict = judge(reading.curves)
    assert (verdict.verdict, verdict.best_step) == ("healthy", 600)
    assert verdict.evidence["side_of_teacher"] == "worse than teacher"


def test_tensorboard_saw_the_same_run() -> None:
    pytest.importorskip("tensorboard")
    reading, state = read_log(FIXTURE / "tensorboard"), read_log(FIXTURE / "trainer_state.json")
    assert reading.facts["read_as"]["golden"] == "train/potstill/golden"
    assert reading.curves.keys() == state.curves.keys()
    for name, curve in state.curves.items():
        np.testing.assert_allclose(reading.curves[name].per_token, curve.per_token, rtol=1e-4)
        assert reading.curves[name].steps.tolist() == curve.steps.tolist()
    assert judge(reading.curves, "oracle").verdict == judge(state.curves, "oracle").verdict == "healthy"


# -- TensorBoard --------------------------------------------------------------


def write_events(folder: Path, rows: Sequence[Row], **names: str) -> Path:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder))
    for row in rows:
        for name, value in row.items():
            if name != "step":
                writer.add_scalar(names.get(name, name), value, row["step"])
    writer.add_text("args", "not a number")
    writer.close()
    return folder


def test_event_files_are_put_together_and_later_ones_win(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    names = {"loss": "train/loss", "proxy": "eval/loss", "golden": "eval/golden"}
    until = [
        row | {"loss": 9.0} if row["step"] > 200 and "loss" in row else row for row in mixed() if row["step"] < 300
    ]
    write_events(tmp_path / "run", until, **names)
    time.sleep(1.1)  # the files are named by the second
    write_events(tmp_path / "run", [row for row in mixed() if row["step"] > 200], **names)
    reading = read_log(tmp_path)
    check_close(reading.curves)
    assert "2 event files were put together" in reading.facts["notes"]
    assert any("told again after a restart" in note for note in reading.facts["notes"])
    read_curves(sorted((tmp_path / "run").iterdir())[0])


def check_close(curves: Mapping[str, Any]) -> None:
    """TensorBoard keeps single precision."""
    np.testing.assert_allclose(curves["proxy"].per_token, [row["proxy"] for row in EVALUATIONS], rtol=1e-6)
    np.testing.assert_allclose(curves["training_loss"].per_token, EXPECTED_LOSS, rtol=1e-6)
    assert curves["golden"].steps.tolist() == list(STEPS)


def test_several_runs_in_a_folder_are_named(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    for name in ("first", "second"):
        write_events(tmp_path / name, EVALUATIONS)
    with pytest.raises(LogError, match=r"holds 2 logs: first, second.*potstill diagnose .*first"):
        read_curves(tmp_path)


def test_a_torn_event_file_gives_what_is_whole_and_garbage_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    write_events(tmp_path / "run", EVALUATIONS)
    (path,) = (tmp_path / "run").iterdir()
    path.write_bytes(path.read_bytes()[:-200])
    curves = read_curves(path)
    assert 15 < len(curves["proxy"].steps) < len(STEPS)
    path.write_bytes(bytes(range(256)) * 40)
    with pytest.raises(LogError, match="holds no scalars"):
        read_curves(path)


def test_without_tensorboard_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "tensorboard.backend.event_processing.event_file_loader", None)
    with pytest.raises(LogError, match=r"potstill\[tensorboard\]"):
        read_curves(FIXTURE / "tensorboard")


# -- W&B ----------------------------------------------------------------------


def test_wandbs_export_from_its_page(tmp_path: Path) -> None:
    names = {"step": "Step", "loss": "my - run - train/loss", "proxy": "my - run - eval/loss",
             "golden": "my - run - eval/golden"}  # fmt: skip
    rows = [row | {f"{names['golden']}__MIN": row["golden"], f"{names['golden']}__MAX": 99} for row in mixed()
            if "golden" in row] + TRAINING  # fmt: skip
    reading = read_log(as_csv(tmp_path / "wandb_export.csv", rows, **names))
    check(reading.curves)
    assert reading.facts["kind"] == "W&B CSV" and reading.facts["unused_columns"] == []


def test_wandbs_history_is_filled_with_nan(tmp_path: Path) -> None:
    keys = ("train/loss", "eval/loss", "eval/golden")
    rows = [
        dict.fromkeys(keys, float("nan"))
        | {"_step": i, "_runtime": 1.5 * i, "_timestamp": 1e9 + i}
        | renamed([row], step="train/global_step", loss="train/loss", proxy="eval/loss", golden="eval/golden")[0]
        for i, row in enumerate(mixed())
    ]
    for path in (as_csv(tmp_path / "history.csv", rows), as_lines(tmp_path / "history.jsonl", rows)):
        reading = read_log(path)
        check(reading.curves)
        assert reading.facts["read_as"]["step"] == "train/global_step" and reading.facts["left_out"] == {}
    import pandas

    check(read_log(pandas.DataFrame(rows)).curves)


def test_several_runs_in_one_export_are_refused(tmp_path: Path) -> None:
    header = {"proxy": "a - eval/loss", "golden": "b - eval/loss"}
    path = as_csv(tmp_path / "export.csv", EVALUATIONS, **header)
    with pytest.raises(LogError, match=r"2 columns could be proxy: 'a - eval/loss', 'b - eval/loss'.*--map"):
        read_curves(path)


# -- what a log lacks ---------------------------------------------------------


def test_what_is_missing_is_named_with_what_was_found(tmp_path: Path) -> None:
    path = as_csv(tmp_path / "log.csv", [row | {"lr": 0.1} for row in TRAINING])
    with pytest.raises(LogError) as caught:
        read_curves(path)
    text = str(caught.value)
    assert "lacks ['proxy', 'golden']" in text and "found the columns: step, loss, lr" in text
    assert "training_loss from 'loss'" in text and "--map golden=COLUMN" in text and "held-out prompts" in text
    with pytest.raises(LogError, match=r"lacks \['step'\]"):
        read_curves([{"proxy": 1.0, "golden": 2.0}])


def test_a_log_without_golden_is_read_where_training_loss_is_there(tmp_path: Path) -> None:
    rows = [{k: v for k, v in row.items() if k != "golden"} for row in mixed()]
    curves = read_curves(as_csv(tmp_path / "log.csv", rows))
    assert curves.keys() == {"proxy", "training_loss"}
    judge(curves)


# -- faults -------------------------------------------------------------------


def test_shuffled_rows_are_put_in_order(tmp_path: Path) -> None:
    rows = mixed()
    np.random.default_rng(0).shuffle(rows)  # type: ignore[arg-type]
    reading = read_log(as_csv(tmp_path / "log.csv", rows))
    check(reading.curves)
    assert "rows were put in order of their steps" in reading.facts["notes"]


def test_a_torn_last_line_is_left_out_and_a_bad_line_within_refused(tmp_path: Path) -> None:
    lines = as_lines(tmp_path / "log.jsonl", EVALUATIONS)
    lines.write_text(lines.read_text()[:-12])
    table = as_csv(tmp_path / "log.csv", EVALUATIONS)
    table.write_text(table.read_text()[:-2])
    assert "its last number may be cut off" in " ".join(read_log(table).facts["notes"])
    table = as_csv(tmp_path / "log.csv", EVALUATIONS)
    table.write_text(table.read_text()[:-10])
    for path in (lines, table):
        reading = read_log(path)
        assert reading.curves["proxy"].steps.tolist() == list(STEPS)[:-1]
        assert "the last line is cut off and was left out" in reading.facts["notes"]
    text = lines.read_text().split("\n")
    lines.write_text("\n".join([*text[:4], text[4][:9], *text[5:]]))
    with pytest.raises(LogError, match=r"log\.jsonl, line 5: not JSON"):
        read_curves(lines)
    text = table.read_text().split("\n")
    table.write_text("\n".join([*text[:4], "60,1", *text[5:]]))
    with pytest.raises(LogError, match="row 4 has 2 cells, the header names 3"):
        read_curves(table)


@pytest.mark.parametrize("bad", ["nan", "NaN", "inf", "-Infinity"])
def test_cells_that_are_not_finite_are_left_out_and_counted(bad: str, tmp_path: Path) -> None:
    rows = [dict(row) for row in EVALUATIONS]
    rows[5]["proxy"] = rows[6]["proxy"] = bad
    reading = read_log(as_csv(tmp_path / "log.csv", rows))
    assert len(reading.curves["proxy"].steps) == len(STEPS) - 2
    assert reading.facts["left_out"] == {"proxy": 2}
    assert "2 cells of proxy are NaN or infinite and were left out" in reading.facts["notes"]


def test_semicolons_tabs_and_decimal_commas(tmp_path: Path) -> None:
    commas = [{name: str(value).replace(".", ",") for name, value in row.items()} for row in EVALUATIONS]
    reading = read_log(as_csv(tmp_path / "german.csv", commas, ";"))
    check(reading.curves, losses=False)
    assert {"cells are separated by semicolons", "decimal commas were read as points"} <= set(reading.facts["notes"])
    check(read_curves(as_csv(tmp_path / "tabs.tsv", EVALUATIONS, "\t")), losses=False)
    (tmp_path / "excel.csv").write_text((tmp_path / "german.csv").read_text(), encoding="utf-16")
    check(read_curves(tmp_path / "excel.csv"), losses=False)
    text = ["step,proxy,golden", *(",".join(row.values()) for row in commas)]
    (tmp_path / "mixed.csv").write_text("\n".join(text))
    with pytest.raises(LogError, match=r"Decimal commas .* need semicolons"):
        read_curves(tmp_path / "mixed.csv")


def replace(path: Path, old: str, new: str) -> Path:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    return path


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p: p.write_text(""), "is empty"),
        (lambda p: p.write_text("step,proxy,golden\n"), "has a header and no rows"),
        (lambda p: p.write_bytes(bytes(range(256)) * 9), "is not text"),
        (lambda p: p.write_text("step,proxy,proxy\n1,2,3\n"), "names proxy twice"),
        (lambda p: replace(as_csv(p, EVALUATIONS), "\n20,1", "\n20,good"), "'proxy' must be a number, found 'good"),
        (lambda p: replace(as_csv(p, EVALUATIONS), "\n20,", "\n2.5,"), "must hold whole steps, found 2.5"),
        (lambda p: replace(as_csv(p, EVALUATIONS), "\n40,", "\n20,"), "2 times for step 20"),
        (lambda p: replace(as_csv(p, EVALUATIONS), "\n40,", "\n1e20,"), r"a step of 1e\+20 cannot be"),
        (lambda p: p.write_text("<html>no</html>\n<b>1</b>\n"), "lacks"),
    ],
    ids=["empty", "header", "binary", "twice", "text", "part of a step", "repeated", "huge", "another format"],
)
def test_faulty_tables_are_refused(make: Callable[[Path], Any], words: str, tmp_path: Path) -> None:
    make(tmp_path / "log.csv")
    with pytest.raises(LogError, match=words):
        read_curves(tmp_path / "log.csv")


def test_other_files_and_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "run-abc.wandb").write_bytes(b"\0\1")
    with pytest.raises(LogError, match=r"run\.history\(\)\.to_csv"):
        read_curves(tmp_path / "run-abc.wandb")
    as_csv(tmp_path / "metrics.csv", EVALUATIONS)
    with pytest.raises(LogError, match=r"holds no evaluations and no log.*metrics\.csv; name one"):
        read_curves(tmp_path)
    for value, words in (("[1, 2]", "expected a list of objects"), ('{"step": [1], "proxy": []}', "different lengths")):
        (tmp_path / "log.json").write_text(value)
        with pytest.raises(LogError, match=words):
            read_curves(tmp_path / "log.json")
    with pytest.raises(LogError, match="no rows"):
        read_curves([])
    shutil.rmtree(tmp_path / "none", ignore_errors=True)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_curves(tmp_path / "none")


def test_a_long_log_takes_seconds(tmp_path: Path) -> None:
    lines = ["step,loss,proxy,golden,lr"]
    lines += [f"{i},{1 / (i + 1):.6f},,,0.001" if i % 1000 else f"{i},0.5,1.25,2.5,0.001" for i in range(200_000)]
    (tmp_path / "log.csv").write_text("\n".join(lines) + "\n")
    started = time.perf_counter()
    curves = read_curves(tmp_path / "log.csv")
    assert len(curves["proxy"].steps) == 200 and len(curves["training_loss"].steps) == 200
    assert time.perf_counter() - started < 10
