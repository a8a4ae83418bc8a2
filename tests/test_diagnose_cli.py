"""`potstill diagnose` as a user meets it: words, JSON, exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from test_cli import potstill

from potstill.cli.diagnose import EXAMPLES, confidence, diagnose_verb, failing_verdicts, mapping_of
from potstill.diagnosis import judge, read_curves
from potstill.diagnosis.logs_table import LogError
from potstill.records import Verdict

FIXTURE = ROOT / "tests" / "fixtures" / "trl_gkd"


@pytest.fixture
def renamed(tmp_path: Path) -> Path:
    """The hacked example, called otherwise."""
    text = (EXAMPLES / "hacked.csv").read_text().replace("proxy,golden,", "eval/kl,true distance,", 1)
    (tmp_path / "log.csv").write_text(text)
    return tmp_path / "log.csv"


def test_the_examples_are_judged_as_their_names_say(capsys: pytest.CaptureFixture[str]) -> None:
    assert {path.name for path in EXAMPLES.iterdir()} == {"hacked.csv", "healthy.csv"}
    assert all(path.stat().st_size < 150_000 for path in EXAMPLES.iterdir())
    assert judge(read_curves(EXAMPLES / "hacked.csv"), "oracle").verdict == "hacking"
    assert judge(read_curves(EXAMPLES / "healthy.csv"), "oracle").verdict == "healthy"
    diagnose_verb(None, False, example="healthy", fail_on="hacking")
    out = capsys.readouterr().out
    assert "A run of Potstill's lab" in out and "\nhealthy (confidence 0.9" in out
    with pytest.raises(SystemExit) as left:
        diagnose_verb(None, False, example="hacked", fail_on="hacking,overfitting")
    assert left.value.code == 3
    out = capsys.readouterr().out
    assert "hacking (confidence over 0.99)" in out and "golden  first" in out and "more_completions_per_prompt" in out


def test_exit_codes_from_a_shell(tmp_path: Path) -> None:
    failed = potstill("diagnose", "--example", "hacked", "--json", "--fail-on", "hacking")
    assert failed.returncode == 3 and failed.stderr == ""
    assert json.loads(failed.stdout)["verdict"] == "hacking"
    assert potstill("diagnose", "--example", "hacked", "--fail-on", "overfitting").returncode == 0
    (tmp_path / "log.csv").write_text("step,loss\n1,2\n")
    refused = potstill("diagnose", tmp_path / "log.csv", "--fail-on", "hacking")
    assert refused.returncode == 1 and refused.stdout == ""
    assert refused.stderr.startswith("error: ") and "lacks ['proxy', 'golden']" in refused.stderr
    missing = potstill("diagnose", tmp_path / "nothing")
    assert missing.returncode == 1 and "does not exist; expected a run directory" in missing.stderr
    assert "Traceback" not in refused.stderr + missing.stderr
    assert potstill("diagnose", "--no-such-option").returncode == 2


def test_json_has_the_verdict_and_where_it_comes_from(capsys: pytest.CaptureFixture[str]) -> None:
    diagnose_verb(FIXTURE / "trainer_state.json", True, golden_kind="oracle")
    found = json.loads(capsys.readouterr().out)
    assert found.keys() == {"verdict", "confidence", "best_step", "sentence", "evidence", "source"}
    source = found["source"]
    assert source.keys() == {
        "kind", "path", "rows", "read_as", "unused_columns", "left_out", "standard_errors", "notes"
    }  # fmt: skip
    assert source["read_as"]["proxy"] == "potstill/proxy" and "grad_norm" in source["unused_columns"]


def test_a_log_of_a_trainer_shows_what_was_read(capsys: pytest.CaptureFixture[str]) -> None:
    diagnose_verb(FIXTURE / "trainer_state.json", False, golden_kind="oracle")
    out = capsys.readouterr().out
    assert "golden from 'potstill/golden'" in out and "not used: " in out and "Trainer log" in out


def test_columns_are_mapped(renamed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(LogError, match=r"lacks \['proxy', 'golden'\]"):
        diagnose_verb(renamed, False)
    columns = ["proxy=eval/kl", "golden=true distance"]
    diagnose_verb(renamed, True, columns, "oracle")
    assert json.loads(capsys.readouterr().out)["verdict"] == "hacking"
    diagnose_verb(renamed, True, columns)
    assert json.loads(capsys.readouterr().out)["evidence"]["golden_kind"] == "reference_nll"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"path": None}, "try --example hacked"),
        ({"path": Path("x"), "example": "hacked"}, "not both"),
        ({"path": None, "example": "hack"}, "--example is hacked or healthy, found 'hack'"),
        ({"path": Path("x"), "columns": ["proxy"]}, "NAME=COLUMN"),
        ({"path": Path("x"), "columns": ["proxy=a", "golden=a"]}, "twice"),
        ({"path": Path("x"), "fail_on": "hacked"}, "no verdict is called hacked; there are healthy"),
        ({"path": Path("x"), "fail_on": " "}, "names no verdict"),
        ({"path": Path("x"), "golden_kind": "teacher"}, "oracle or reference_nll"),
    ],
)
def test_wrong_options_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        diagnose_verb(settings.pop("path"), False, **settings)


def test_small_parts() -> None:
    assert failing_verdicts("hacking, inconclusive") == {"hacking", "suspected_hacking", "inconclusive"}
    assert failing_verdicts(None) == set()
    assert mapping_of(["proxy=a=b"]) == {"a=b": "proxy"}
    assert confidence(Verdict("healthy", 0.999, None, "", {})) == "over 0.99"
    assert confidence(Verdict("healthy", 0.5, None, "", {})) == "0.50"
