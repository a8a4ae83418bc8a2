"""Several runs on one page: what it holds, what it warns of, what it refuses."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_report import HOSTILE, STEPS, embedded, make_run, without_plotly
from typer.testing import CliRunner

from potstill.cli.main import app
from potstill.records import EvaluationRecord
from potstill.report import write_comparison
from potstill.report.across import differences
from potstill.report.numbers import before_after
from potstill.report.reading import read
from potstill.run_dir import RunDir, RunDirError


def make_two(folder: Path, **more: Any) -> list[RunDir]:
    """Two runs on the same prompts; the second stays further from the teacher and sees half the steps."""
    runs = [make_run(folder / "first"), make_run(folder / "second", STEPS[:9], further=0.2, **more)]
    runs[1].write_text("config.yaml", f"output: runs/other\nseed: 4\nnote: '{HOSTILE}'\n")
    return runs


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[RunDir], str]:
    folder = tmp_path_factory.mktemp("comparison")
    runs = make_two(folder)
    path = write_comparison([run.path for run in runs], folder / "page.html")
    assert path == folder / "page.html"
    return runs, path.read_text()


def text_of(html: str) -> str:
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", without_plotly(html))))


def change_provenance(run: RunDir, **changed: Any) -> None:
    run.write_json("provenance.json", run.read_json("provenance.json") | changed)


def test_every_verdict_comes_first_in_its_sentence(compared: tuple[list[RunDir], str]) -> None:
    runs, html = compared
    told = [unescape(said) for said in re.findall(r'<p class="opening">(.*?)</p>', html)]
    assert told == [read(run).opening for run in runs]
    assert html.rindex('class="opening"') < html.index("<h2>")


def test_table_holds_first_and_last_with_intervals(compared: tuple[list[RunDir], str]) -> None:
    runs, html = compared
    said = text_of(html[html.index('id="runs"') : html.index('id="differences"')] + "<script></script>" * 2)
    for run in runs:
        found = read(run)
        for name in ("proxy", "proxy_fkl", "golden"):
            row = before_after(found.curves[name], None)
            assert f"{row.first.value:.3f} → {row.last.value:.3f}" in said
            assert f"{row.last.low:.3f} to {row.last.high:.3f}" in said
        assert f"0 → {found.steps[-1]}" in said
    assert "second less first" in said and "steps 320 and 480" in said


def test_only_settings_that_differ_are_listed(compared: tuple[list[RunDir], str]) -> None:
    html = compared[1]
    said = text_of(html[html.index('id="differences"') : html.index('id="proxy-golden"')] + "<script></script>" * 2)
    assert "seed 3 4" in said
    assert "note" not in said and "runs/other" not in said


def test_settings_are_flattened_and_terms_go_by_their_kind() -> None:
    kl, ce = {"kind": "forward_kl", "weight": 1.0}, {"kind": "cross_entropy", "weight": 0.5}
    first = {"output": "a", "objective": {"terms": [kl, ce]}, "on": ["x"], "same": {"deep": None}}
    second = {"output": "b", "objective": {"terms": [ce]}, "on": ["x", "y"], "same": {"deep": None}}
    assert differences([first, second]) == [
        ("objective.terms.forward_kl.weight", ["1.0", "\N{EN DASH}"]),
        ("on", ['["x"]', '["x", "y"]']),
    ]
    twice = [{"terms": [kl, kl | {"weight": w}]} for w in (2.0, 3.0)]
    assert differences(twice) == [("terms.1.weight", ["2.0", "3.0"])]
    assert differences([{"output": "a"}, {"output": "b"}]) == []
    assert differences([{"seed": 0, "compile": False, "freeze": [], "adapter": None}, {"seed": 0}]) == []
    assert differences([{"compile": False}, {"compile": True}]) == [("compile", ["false", "true"])]


def test_plane_is_forward_kl_against_golden_and_says_so(compared: tuple[list[RunDir], str]) -> None:
    runs, html = compared
    plane = embedded(html, "plane")
    assert plane["layout"]["xaxis"]["title"]["text"] == "forward KL, nats per token"
    assert "The x axis is forward KL to the teacher at temperature 1 (proxy_fkl), and not proxy" in text_of(html)
    paths = [trace for trace in plane["data"] if trace["name"] in ("first", "second")]
    for run, path in zip(runs, paths, strict=True):
        curves = read(run).curves
        np.testing.assert_allclose(path["x"], curves["proxy_fkl"].per_token)
        np.testing.assert_allclose(path["y"], curves["golden"].per_token)
        assert path["customdata"] == curves["golden"].steps.tolist()
        assert path["marker"]["size"] == sorted(path["marker"]["size"])  # time
    assert paths[0]["line"]["color"] != paths[1]["line"]["color"]
    rings = [trace for trace in plane["data"] if trace["name"] == "exported"]
    assert [len(ring["x"]) for ring in rings] == [1]  # the second run was not evaluated at its exported step


def test_teachers_that_stand_equal_share_a_line_others_do_not(
    compared: tuple[list[RunDir], str], tmp_path: Path
) -> None:
    levels = [t["name"] for t in embedded(compared[1], "golden")["data"] if "teacher" in t.get("name", "")]
    assert len(levels) == 1 and levels[0].startswith("the teacher's own, ")
    runs = [make_run(tmp_path / "first"), make_run(tmp_path / "second", num_prompts=32)]
    html = write_comparison([run.path for run in runs], tmp_path / "page.html").read_text()
    levels = [t["name"] for t in embedded(html, "plane")["data"] if "teacher" in t["name"]]
    assert [name.split(",")[0] for name in levels] == ["teacher of first", "teacher of second"]


def test_curves_have_bands(compared: tuple[list[RunDir], str]) -> None:
    for name in ("proxy_fkl", "golden"):
        traces = embedded(compared[1], name)["data"]
        assert [trace.get("fill") for trace in traces][:4] == ["toself", None, "toself", None]


def test_samples_show_teacher_and_reference_once(compared: tuple[list[RunDir], str]) -> None:
    html = compared[1]
    whose = re.findall(r"<h4>(.*?)</h4>", html)
    assert whose == ["teacher", "first, step 480", "second, step 320", "reference"] * 3
    assert "I think, I think" not in html  # step 0


def test_answers_of_two_teachers_are_told_apart(tmp_path: Path) -> None:
    runs = make_two(tmp_path)
    line = {"prompt_id": "p000", "prompt": f"When does water boil? {HOSTILE}", "student": "soon", "reference": None}
    runs[1].append("samples.jsonl", line | {"step": 999, "teacher": "Ask a kettle."})
    html = write_comparison([run.path for run in runs], tmp_path / "page.html").read_text()
    whose = re.findall(r"<h4>(.*?)</h4>", html)[:5]
    assert whose == [
        "teacher of first",
        "teacher of second",
        "first, step 480",
        "second, step 999",
        "reference of first",
    ]


def test_page_escapes_asks_nobody_and_allows_scripts_by_hash(compared: tuple[list[RunDir], str]) -> None:
    html = compared[1]
    page = without_plotly(html)
    assert 'alert("x")' not in page and "<img" not in page
    assert page.count("&lt;script&gt;alert(&#34;x&#34;)") >= 3
    assert not re.search(r"@import|url\(|cdn", page)
    policy = re.search(r"script-src (.*?); style-src", unescape(page))
    assert "default-src 'none'" in page and policy is not None and "unsafe" not in policy[1]
    for script in re.findall(r"<script>(.*?)</script>", html, flags=re.DOTALL):
        assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() in policy[1]


def test_name_of_a_folder_cannot_make_a_link(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / "<b>one", STEPS[:5]), make_run(tmp_path / "two", STEPS[:5])]
    html = write_comparison([run.path for run in runs], tmp_path / "page.html").read_text()
    assert "<b>one" not in without_plotly(html)
    assert embedded(html, "plane")["data"][0]["name"] == "&lt;b&gt;one"


def test_same_folder_name_is_told_apart(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / name / "run", STEPS[:5]) for name in ("a", "b")]
    html = write_comparison([run.path for run in runs], tmp_path / "page.html").read_text()
    assert {t["name"] for t in embedded(html, "proxy_fkl")["data"] if "name" in t} == {"a/run", "b/run"}


def test_other_prompts_are_warned_of(tmp_path: Path, compared: tuple[list[RunDir], str]) -> None:
    assert 'id="warnings"' not in compared[1]
    runs = make_two(tmp_path, prompt="q")
    html = write_comparison([run.path for run in runs], tmp_path / "page.html").read_text()
    said = text_of(html)
    assert "Golden: the runs were measured on different held-out prompts" in said and "not comparable" in said
    assert "less first" not in said  # no pairs, no paired difference


def test_other_answers_to_the_same_prompts_are_warned_of(tmp_path: Path) -> None:
    runs = make_two(tmp_path)
    for record in runs[1].evaluations():
        record.series["proxy_fkl"].tokens[:] += 1
        runs[1].write_evaluation(record)
    said = text_of(write_comparison([run.path for run in runs], tmp_path / "page.html").read_text())
    assert "Forward KL: the prompts are the same, but the texts that were scored are not" in said
    assert "Golden: the prompts" not in said


def test_what_cannot_stand_side_by_side_is_refused(tmp_path: Path) -> None:
    first, second = make_two(tmp_path)
    bare = RunDir(tmp_path / "bare")
    bare.write_text("config.yaml", "seed: 1\n")
    page = tmp_path / "page.html"
    (tmp_path / "link").symlink_to(first.path)
    for paths, words in (
        ([first.path], "two runs or more"),
        ([first.path, tmp_path / "link"], "is the same run as"),
        ([first.path, bare.path], "holds no evaluations"),
        ([first.path, tmp_path / "nowhere"], "is not a run directory"),
    ):
        with pytest.raises(RunDirError, match=words):
            write_comparison(paths, page)
    with pytest.raises(RunDirError, match="is a folder"):
        write_comparison([first.path, second.path], tmp_path)
    change_provenance(second, golden="reference_nll")
    with pytest.raises(RunDirError, match="golden is not the same quantity"):
        write_comparison([first.path, second.path], page)
    assert not page.exists()


def test_run_without_forward_kl_or_config_is_named(tmp_path: Path) -> None:
    runs = make_two(tmp_path)
    runs[1].file("config.yaml").unlink()
    for record in runs[1].evaluations():
        series = {name: measured for name, measured in record.series.items() if name != "proxy_fkl"}
        runs[1].write_evaluation(record.__class__(record.step, series, record.splits))
    html = write_comparison([run.path for run in runs], tmp_path / "page.html").read_text()
    assert "Forward KL was not measured in second." in text_of(html)
    assert "No config.yaml in second" in text_of(html)
    assert [t["name"] for t in embedded(html, "plane")["data"] if "customdata" in t] == ["first"]


def test_runs_of_means_claim_no_intervals(tmp_path: Path) -> None:
    for name, golden in (("a", 2.0), ("b", 2.5)):
        for step in range(0, 100, 10):
            scalars = {"proxy_fkl": 1 / (1 + step), "golden": golden}
            RunDir(tmp_path / name).write_evaluation(EvaluationRecord(step, {}, {}, scalars))
    said = text_of(write_comparison([tmp_path / "a", tmp_path / "b"], tmp_path / "page.html").read_text())
    assert "There are no intervals" in said and "95 % intervals over prompts" not in said


def test_verb_writes_where_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (str(run.path) for run in make_two(tmp_path))
    monkeypatch.chdir(tmp_path)
    for arguments, written in (
        ([first], Path(first) / "report.html"),
        ([first, "--output", "one.html"], Path("one.html")),
        ([first, second], tmp_path / "comparison.html"),
        ([first, second, "--output", "two.html"], tmp_path / "two.html"),
    ):
        result = CliRunner().invoke(app, ["report", *arguments])
        assert result.exit_code == 0, result.output
        assert result.output.replace("\n", "") == str(written) and written.exists()


def test_comparison_never_imports_torch(tmp_path: Path) -> None:
    paths = [str(make_run(tmp_path / name, STEPS[:3], num_prompts=8).path) for name in ("a", "b")]
    code = (
        "import json, sys; from potstill.report import write_comparison; "
        "write_comparison(json.loads(sys.argv[1]), sys.argv[2]); "
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, json.dumps(paths), str(tmp_path / "page.html")], check=True)
