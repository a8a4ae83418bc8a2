"""`potstill generate`: a store that is resumable, refuses others, rejects, and feeds a run."""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT
from faulty_server import FaultyServer

from potstill.config import Run
from potstill.config.generate import Generate
from potstill.config.load import ConfigError, load_generate
from potstill.data.store import CompletionStore, StoreError
from potstill.data.terms import TermsError
from potstill.evaluation.pass_rate import PassRate, better_by_chance
from potstill.run_dir import RunDirError
from potstill.training.distil import distil
from potstill.training.generating import generate
from potstill.training.show import Show

QUIET = Show(quiet=True)
Make = Callable[..., Run]


@pytest.fixture
def tree(tmp_path: Path, llama_folder: Path, prompt_file: Path) -> dict[str, Any]:
    return {
        "output": str(tmp_path / "store"),
        "generator": {"kind": "folder", "path": str(llama_folder), "terms": "apache-2.0"},
        "data": {"prompts": {"path": str(prompt_file), "reference": "reference", "group": "topic", "id": "id"}},
        "per_prompt": 2,
        "sampling": {"sampling_temperature": 0.8, "max_new_tokens": 12},
        "slots": 4,
        "precision": "fp32",
    }


def made(tree: dict[str, Any], **changes: Any) -> Generate:
    return Generate.model_validate(copy.deepcopy(tree) | changes)


def test_a_store_holds_each_completion_once_and_loads_as_a_data_set(tree: dict[str, Any]) -> None:
    run = generate(made(tree), QUIET)
    store = CompletionStore(run.file("completions.jsonl"))
    found = store.read()
    assert len({(c.prompt_id, c.index) for c in found}) == len(found) == 48
    assert {c.history.terms for c in found} == {"apache-2.0"}
    before = store.path.read_bytes()
    generate(made(tree), QUIET)
    assert store.path.read_bytes() == before
    table = store.as_dataset()
    assert len(table) == 48 and {"prompt_id", "text", "token_ids", "generator", "depth"} <= set(table.column_names)
    assert json.loads(table[0]["sampling"])["sampling_temperature"] == 0.8


def test_sigkill_loses_nothing_and_repeats_nothing_stored(tree: dict[str, Any], tmp_path: Path) -> None:
    whole = CompletionStore(generate(made(tree), QUIET).file("completions.jsonl")).read()
    broken = copy.deepcopy(tree) | {"output": str(tmp_path / "broken")}
    path = tmp_path / "generate.yaml"
    path.write_text(yaml.safe_dump(broken))
    file = tmp_path / "broken" / "completions.jsonl"
    for lines in (5, 20):
        process = subprocess.Popen(
            [sys.executable, "-m", "potstill.cli.main", "generate", str(path)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        deadline = time.monotonic() + 120
        while not (file.exists() and file.read_bytes().count(b"\n") >= lines) and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.002)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    generate(load_generate(path), QUIET)
    found = CompletionStore(file).read()
    key = {(c.prompt_id, c.index): c.token_ids for c in whole}
    assert len(found) == 48 and {(c.prompt_id, c.index): c.token_ids for c in found} == key


def test_another_configuration_another_writer_and_other_words_are_refused(tree: dict[str, Any], tmp_path: Path) -> None:
    run = generate(made(tree), QUIET)
    with pytest.raises(RunDirError, match=r"seed: 0 there, 5 now"):
        generate(made(tree, seed=5), QUIET)
    with CompletionStore(run.file("completions.jsonl")).writing():
        other = CompletionStore(run.file("completions.jsonl"))
        with pytest.raises(StoreError, match="another process is writing"), other.writing():
            pass
    prompts = (
        Path(tree["data"]["prompts"]["path"]).read_text().replace("how do people make tea", "how do people buy tea", 1)
    )
    changed = tmp_path / "changed.jsonl"
    changed.write_text(prompts)
    with pytest.raises(RunDirError, match="prompts"):
        generate(made(tree, data=tree["data"] | {"prompts": tree["data"]["prompts"] | {"path": str(changed)}}), QUIET)
    Path(tree["data"]["prompts"]["path"]).rename(tmp_path / "kept")
    try:
        changed.rename(tree["data"]["prompts"]["path"])
        with pytest.raises(StoreError, match="answers other words than"):
            generate(made(tree), QUIET)
    finally:
        (tmp_path / "kept").rename(tree["data"]["prompts"]["path"])


REJECTION = {"verifiers": [{"kind": "steps", "answer": None}], "deduplicate": "text", "max_per_prompt": 1}


def test_rejection_keeps_some_and_a_run_learns_from_them(tree: dict[str, Any], make_run: Make) -> None:
    run = generate(made(tree, rejection=REJECTION), QUIET)
    kept = CompletionStore(run.file("kept.jsonl")).read()
    assert len(kept) == 24 and all(c.history.verifiers["steps"]["passed"] for c in kept)
    report = run.read_json("rejection.json")
    assert report["summary"]["completions"] == 48 and report["summary"]["kept"] == 24
    stamp = run.file("rejection.json").stat().st_mtime_ns
    generate(made(tree, rejection=REJECTION), QUIET)
    assert run.file("rejection.json").stat().st_mtime_ns == stamp, "decided once"
    config = make_run(
        data__completions={"kind": "store", "path": str(run.path), "monitor_sampling": {"max_new_tokens": 12}}
    )
    result = distil(config, QUIET)
    assert result.read_json("provenance.json")["rows"] == {"teacher": 16, "reference": 16}


def test_rejection_within_a_run(make_run: Make) -> None:
    how = {"kind": "sample", "per_prompt": 3, "sampling": {"max_new_tokens": 12}, "rejection": REJECTION}
    run = distil(make_run(data__completions=how), QUIET)
    assert run.read_json("provenance.json")["rows"] == {"teacher": 16, "reference": 16}
    never = how | {"rejection": {"verifiers": [{"kind": "exact"}]}}
    with pytest.raises(ValueError, match="kept none of 48 completions"):
        distil(make_run(output="none", data__completions=never), QUIET)


def test_held_out_prompts_are_answered_before_and_after(make_run: Make) -> None:
    benchmark = {"verifiers": [{"kind": "steps", "answer": None}], "max_new_tokens": 8}
    run = distil(make_run(benchmark=benchmark), QUIET)
    found = run.read_json("benchmark.json")
    assert {"teacher", "start", "student", "p_no_change"} == found.keys()
    assert found["student"]["asked"] == len(found["student"]["by_prompt"]) == found["teacher"]["asked"] > 0
    assert found["student"]["rate"] == 1.0 and found["p_no_change"] == 1.0  # nothing to count wrong in random words


def test_an_endpoint_fills_a_store_whose_terms_stop_a_run(
    tree: dict[str, Any], llama_folder: Path, make_run: Make, tmp_path: Path
) -> None:
    with FaultyServer(faults={"rate_limit": 0.1, "server_error": 0.1}, seed=3) as server:
        endpoint = {
            "kind": "endpoint", "base_urls": [server.url], "model": "teacher", "backoff_seconds": 0.01,
            "rest_seconds": 0.05, "terms": "openai", "price_per_million_prompt_tokens": 1.0,
            "price_per_million_completion_tokens": 2.0,
        }  # fmt: skip
        served = {name: value for name, value in tree.items() if name not in ("slots", "precision")}
        served |= {"generator": endpoint, "tokenizer": {"kind": "folder", "path": str(llama_folder)}}
        with pytest.raises(TermsError, match="OpenAI"):
            generate(made(served), QUIET)
        assert not server.bodies and not Path(tree["output"]).exists()
        allowed = served["data"] | {"acknowledged_terms": ["openai"]}
        run = generate(made(served, data=allowed), QUIET)
    found = CompletionStore(run.file("completions.jsonl")).read()
    assert len({(c.prompt_id, c.index) for c in found}) == len(found) == 48
    assert {c.history.terms for c in found} == {"openai-api"}  # by the id that it is known by
    assert run.file("requests.jsonl").read_bytes().count(b"\n") > 96  # sent and ended, some more than once
    store = {"kind": "store", "path": str(run.path), "monitor_sampling": {"max_new_tokens": 12}}
    with pytest.raises(TermsError, match="store"):
        distil(make_run(data__completions=store), QUIET)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"generator": {"kind": "endpoint", "base_urls": ["http://h/v1"], "model": "m"}}, "name in `tokenizer`"),
        ({"tokenizer": {"kind": "folder", "path": "x"}}, "tokenizer has no effect"),
        ({"judge": {"kind": "folder", "path": "x"}}, "judge has no effect"),
        ({"per_promt": 2}, "Did you mean per_prompt"),
    ],
)
def test_settings_without_effect_are_refused(tree: dict[str, Any], tmp_path: Path, changes: Any, message: str) -> None:
    path = tmp_path / "generate.yaml"
    path.write_text(yaml.safe_dump(tree | changes))
    with pytest.raises(ConfigError, match=message):
        load_generate(path)


@pytest.mark.parametrize("path", sorted((ROOT / "recipes" / "generate").glob("*.yaml")), ids=lambda p: p.name)
def test_every_committed_generation_parses(path: Path) -> None:
    assert load_generate(path).per_prompt > 0


def test_whether_a_student_got_better_is_asked_of_the_same_prompts() -> None:
    def rate(text: str) -> PassRate:
        return PassRate({str(i): mark == "+" for i, mark in enumerate(text)}, {}, {})

    assert better_by_chance(rate("-----"), rate("+++++")) == pytest.approx(2 / 2**5)  # five gained, none lost
    assert better_by_chance(rate("++--"), rate("++--")) == 1.0
    assert better_by_chance(rate("+-"), rate("-+")) == 1.0
    low, high = rate("-" * 48).interval()
    assert low == 0 and high == pytest.approx(1 - 0.025 ** (1 / 48))
