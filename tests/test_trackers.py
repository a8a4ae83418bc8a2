"""Trackers show what the run directory holds, once, also after a kill, and never disturb the run.

Real libraries, nothing sent anywhere. W&B's offline file is read with `wandb leet inspect`.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from test_resume import contents, start, wait_for_lines, write

from potstill.config import ConfigError, Run
from potstill.records import Verdict
from potstill.run_dir import RunDir
from potstill.training import distil as distil_module
from potstill.training.distil import distil
from potstill.training.loop import Trainer
from potstill.training.show import Show
from potstill.training.trackers import TrackerError
from potstill.training.trackers.base import Tracked
from potstill.training.trackers.tensorboard import TensorBoard
from potstill.training.trackers.wandb import Wandb

Make = Callable[..., Run]
Rows = dict[int, dict[str, float]]
QUIET = Show(quiet=True)
TENSORBOARD = {"kind": "tensorboard"}
TRACKIO = {"kind": "trackio", "project": "tests"}
WANDB = {"kind": "wandb", "project": "tests", "mode": "offline"}
ALL = [TENSORBOARD, TRACKIO, WANDB]
VERDICT = Verdict("healthy", 0.9, 5, "The student learns.", {})


@pytest.fixture(scope="module", autouse=True)
def nothing_of_this_machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Neither the user's database nor the user's login; Trackio reads its folder when it is imported."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRACKIO_DIR", str(home / "trackio"))
        patch.setenv("NETRC", str(home / "netrc"))
        patch.setenv("WANDB_CONFIG_DIR", str(home / "wandb"))
        patch.delenv("WANDB_API_KEY", raising=False)
        yield
        import wandb

        wandb.teardown()
        os.environ.pop("WANDB_SERVICE", None)


def in_tensorboard(folder: Path) -> Rows:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    rows: Rows = {}
    for name in events.Tags()["scalars"]:
        for event in events.Scalars(name):
            assert name not in rows.setdefault(event.step, {}), f"{name} of step {event.step} stands twice"
            rows[event.step][name] = event.value
    return rows


def in_trackio(name: str) -> Rows:
    from trackio.sqlite_storage import SQLiteStorage

    rows: Rows = {}
    for row in SQLiteStorage.get_logs("tests", name):
        for key, value in row.items():
            if key.startswith(("train/", "evaluation/")) and not isinstance(value, dict):
                assert key not in rows.setdefault(row["step"], {}), f"{key} of step {row['step']} stands twice"
                rows[row["step"]][key] = value
    return rows


def wandb_records(run: Path) -> list[dict[str, Any]]:
    (file,) = run.glob("wandb/offline-run-*/*.wandb")  # exactly one, also after a resume
    shown = subprocess.run(
        [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(file)],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    return [json.loads(line) for line in shown.stdout.splitlines()]


def in_wandb(run: Path) -> Rows:
    rows: Rows = {}
    for record in wandb_records(run):
        if record["type"] == "history":
            step, item = record["history"]["step"].get("num", 0), record["history"]["item"]
            assert step not in rows, f"step {step} stands twice"
            rows[step] = {
                k: v for k, v in item.items() if k.startswith(("train/", "evaluation/")) and "samples" not in k
            }
    return rows


def on_disk(run: RunDir) -> Rows:
    rows: Rows = {}
    for line in run.lines("metrics.jsonl"):
        rows[line["step"]] = {f"train/{k}": v for k, v in line.items() if k != "step"}
    for record in run.evaluations():
        values = {f"evaluation/{name}": measured.per_token() for name, measured in record.series.items()}
        rows[record.step] = rows.get(record.step, {}) | values
    return rows


def check_all(run: RunDir) -> None:
    truth = on_disk(run)
    assert {"train/loss", "train/grad_norm", "train/learning_rate", "train/epoch"} <= set(truth[6])
    assert {"evaluation/proxy", "evaluation/proxy_fkl", "evaluation/golden"} <= set(truth[6])
    for found in (in_tensorboard(run.file("tensorboard")), in_trackio(run.path.name), in_wandb(run.path)):
        assert sorted(found) == sorted(truth)
        for step, row in truth.items():
            assert found[step] == pytest.approx(row, rel=1e-6, abs=1e-12), step  # event files hold float32


def broken_after(step: int, patch: pytest.MonkeyPatch) -> None:
    """The next step after `step` fails, as a machine does."""
    real = Trainer.train_step

    def fails(self: Trainer, stop_here: bool = False) -> dict[str, Any]:
        if self.step == step:
            raise ConnectionAbortedError("the machine went away")
        return real(self, stop_here)

    patch.setattr(Trainer, "train_step", fails)


def test_all_three_show_the_run_after_a_break_once_and_whole(make_run: Make, tmp_path: Path) -> None:
    config = make_run(trackers=ALL, output="broken")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(ConnectionAbortedError):
        broken_after(5, patch)  # the last checkpoint is of step 4
        distil(config, QUIET)
    assert 5 in in_tensorboard(tmp_path / "broken/tensorboard")
    run = distil(config, QUIET)
    check_all(run)
    last = [r["summary"]["update"] for r in wandb_records(run.path) if r["type"] == "summary"]
    assert {"verdict": run.read_json("verdict.json")["verdict"]}.items() <= {
        k: v for s in last for k, v in s.items()
    }.items()
    plain = distil(make_run(output="plain"), QUIET)
    assert contents(run) == contents(plain), "trackers changed what the run writes"


@pytest.mark.slow
def test_all_three_show_the_run_after_a_sigkill_once_and_whole(
    make_run: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_SERVICE", raising=False)  # a side process of its own, which dies with it
    config = make_run(trackers=ALL, output="killed")
    file = write(config, tmp_path / "killed.yaml")
    process = start(file)
    wait_for_lines(Path(config.output) / "metrics.jsonl", 3, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    again = start(file)
    output, _ = again.communicate(timeout=240)
    assert again.returncode == 0, output
    assert "wandb: WARNING" not in output and "Traceback" not in output, output
    check_all(RunDir(config.output))


def test_a_tracker_named_only_on_resuming_is_told_what_was_before(make_run: Make) -> None:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(ConnectionAbortedError):
        broken_after(3, patch)
        distil(make_run(), QUIET)
    run = distil(make_run(trackers=[TENSORBOARD]), QUIET)
    assert sorted(in_tensorboard(run.file("tensorboard"))) == sorted(on_disk(run))


def test_a_tracker_that_fails_is_left_out_with_one_warning(make_run: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.utils.tensorboard import SummaryWriter

    def full(self: SummaryWriter, name: str, value: float, step: int) -> None:
        if step == 3:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(SummaryWriter, "add_scalar", full)
    shown = io.StringIO()
    run = distil(make_run(trackers=[TENSORBOARD]), Show(Console(file=shown, width=200)))
    assert run.file("verdict.json").is_file()
    assert shown.getvalue().count("tensorboard failed and is left out") == 1
    assert run.read_json("trackers.json")["told"] == {}


@pytest.mark.parametrize(
    ("tracker", "module"), [(TENSORBOARD, "torch.utils.tensorboard"), (TRACKIO, "trackio"), (WANDB, "wandb")]
)
def test_a_missing_library_is_said_before_models_are_loaded(
    make_run: Make, monkeypatch: pytest.MonkeyPatch, tracker: dict[str, str], module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr(distil_module, "load_models", no_models)
    with pytest.raises(TrackerError, match=rf"pip install 'potstill\[{tracker['kind']}\]'"):
        distil(make_run(trackers=[tracker]), QUIET)


def no_models(config: Run) -> None:
    raise AssertionError("models were loaded")


def test_wandb_without_a_login_fails_early_and_asks_nothing(make_run: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distil_module, "load_models", no_models)
    with pytest.raises(TrackerError, match=r"no login here. Run `wandb login`"):
        distil(make_run(trackers=[WANDB | {"mode": "online"}]), QUIET)


def test_trackio_refuses_what_it_cannot_keep(make_run: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TrackerError, match=r"refuses the project"):
        distil(make_run(trackers=[TRACKIO | {"project": "registry-x"}]), QUIET)
    monkeypatch.setenv("TRACKIO_SPACE_ID", "somebody/space")
    with pytest.raises(TrackerError, match=r"TRACKIO_SPACE_ID sends trackio to a server"):
        distil(make_run(trackers=[TRACKIO]), QUIET)


def test_two_trackers_of_a_kind_are_refused(make_run: Make) -> None:
    with pytest.raises(ConfigError, match="tensorboard stands twice"):
        make_run(trackers=[TENSORBOARD, {"kind": "tensorboard", "folder": "elsewhere"}])


def test_tensorboard_hides_what_a_killed_run_repeats(make_run: Make, tmp_path: Path) -> None:
    config = make_run(trackers=[TENSORBOARD])
    tracked = Tracked(RunDir(tmp_path), config, "abc")
    killed = TensorBoard(config.trackers[0], tracked)
    assert killed.resume(-1, False) == -1
    for step in (1, 2, 3, 4, 5):
        killed.metrics(step, {"train/loss": 1.0})
    killed.close(None)
    time.sleep(1)  # event files are read by name: second, host, process, number; a tenth sorts before a ninth
    again = TensorBoard(config.trackers[0], tracked)
    assert again.resume(3, True) == 3
    for step in (4, 5, 6):
        again.metrics(step, {"train/loss": 2.0})
    again.close(VERDICT)
    assert {s: row["train/loss"] for s, row in in_tensorboard(tmp_path / "tensorboard").items()} == {
        1: 1.0, 2: 1.0, 3: 1.0, 4: 2.0, 5: 2.0, 6: 2.0,
    }  # fmt: skip


def test_wandb_leaves_out_the_rows_that_its_server_has(make_run: Make, tmp_path: Path) -> None:
    """What `resume="allow"` brings online: the server's last step. The row of a step goes out whole."""
    config = make_run(trackers=[WANDB])
    tracker = Wandb(config.trackers[0], Tracked(RunDir(tmp_path), config, "abc"))
    tracker.first = 4
    assert tracker.resume(5, True) == 3
    for step in (2, 3, 4, 5, 6):
        tracker.metrics(step, {"train/loss": float(step)})
    tracker.evaluation(6, {"evaluation/proxy": 0.5}, [{"prompt_id": "a", "prompt": "p", "student": "s"}])
    tracker.close(VERDICT)
    assert in_wandb(tmp_path) == {
        4: {"train/loss": 4.0}, 5: {"train/loss": 5.0}, 6: {"train/loss": 6.0, "evaluation/proxy": 0.5},
    }  # fmt: skip


def test_a_directory_used_again_is_another_run(make_run: Make, tmp_path: Path) -> None:
    first = distil(make_run(trackers=[TENSORBOARD], training__steps=1), QUIET)
    before = first.read_json("trackers.json")["id"]
    shutil.rmtree(first.path)
    again = distil(make_run(trackers=[TENSORBOARD], training__steps=1), QUIET)
    assert again.read_json("trackers.json")["id"] != before
