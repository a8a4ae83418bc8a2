"""Prompts come out of every kind of file as they were written, or an error says how to mend them."""

import gzip
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from potstill.config.data import Prompts
from potstill.data.prompts import PromptError, content_id, read_prompts
from potstill.records import Message, Prompt

QUESTIONS = ["Why do cats purr?", "  Name a tree.", "What is 3 + 4?"]


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def write_parquet(path, rows):
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return str(path)


def write_csv(path, rows):
    quoted = [",".join('"' + str(cell).replace('"', '""') + '"' for cell in row.values()) for row in rows]
    path.write_text("\n".join([",".join(rows[0]), *quoted]) + "\n", encoding="utf-8")
    return str(path)


def write_json(path, rows):
    path.write_text(json.dumps(rows, indent=2), encoding="utf-8")
    return str(path)


WRITERS = {".jsonl": write_jsonl, ".json": write_json, ".parquet": write_parquet, ".csv": write_csv}


def refusal(path, **settings):
    with pytest.raises(PromptError) as caught:
        read_prompts(Prompts(path=str(path), **settings))
    return str(caught.value)


# -- formats ---------------------------------------------------------------------


@pytest.mark.parametrize("suffix", WRITERS)
def test_every_format_with_columns_gives_the_same_prompts(tmp_path, suffix):
    rows = [
        {"name": "007", "topic": "animals", "question": QUESTIONS[0], "answer": "NA"},
        {"name": "b", "topic": "plants", "question": 'two\nlines, "quoted"', "answer": "2020-01-01"},
    ]
    path = WRITERS[suffix](tmp_path / f"prompts{suffix}", rows)
    config = Prompts(path=path, prompt="question", reference="answer", id="name", group="topic")
    assert read_prompts(config) == [
        Prompt("007", (Message("user", QUESTIONS[0]),), reference="NA", group="animals"),
        Prompt("b", (Message("user", 'two\nlines, "quoted"'),), reference="2020-01-01", group="plants"),
    ]


def test_a_text_file_has_one_prompt_per_line_and_blank_lines_are_skipped(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_bytes(("\ufeff" + "\r\n\r\n".join(QUESTIONS) + "\r\n \r\n").encode())
    prompts = read_prompts(Prompts(path=str(path)))
    assert [prompt.flat_text() for prompt in prompts] == QUESTIONS


def test_a_json_file_may_also_hold_json_lines(tmp_path):
    path = write_jsonl(tmp_path / "prompts.json", [{"prompt": text} for text in QUESTIONS])
    assert [prompt.flat_text() for prompt in read_prompts(Prompts(path=path))] == QUESTIONS


@pytest.mark.parametrize("suffix", WRITERS)
def test_answers_that_look_like_dates_or_numbers_stay_as_written(tmp_path, suffix):
    rows = [{"prompt": f"When? {n}", "reference": answer} for n, answer in enumerate(["2020-01-01", "2021-02-03"])]
    path = WRITERS[suffix](tmp_path / f"dates{suffix}", rows)
    prompts = read_prompts(Prompts(path=path, reference="reference"))
    assert [prompt.reference for prompt in prompts] == ["2020-01-01", "2021-02-03"]


@pytest.mark.parametrize("folder", ["plain", "[odd] *name?", ".hidden"])
def test_a_folder_with_any_name_is_read(tmp_path, folder):
    (tmp_path / folder).mkdir()
    path = write_parquet(tmp_path / folder / "[1].parquet", [{"prompt": "one"}])
    assert read_prompts(Prompts(path=path))[0].flat_text() == "one"


def test_reading_leaves_no_files_behind_and_prints_nothing(tmp_path, monkeypatch, capfd):
    import datasets

    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hub-cache")
    monkeypatch.chdir(tmp_path)
    write_parquet(tmp_path / "prompts.parquet", [{"prompt": "one"}])
    read_prompts(Prompts(path="prompts.parquet"))
    refusal("prompts.parquet", prompt="missing")
    assert sorted(tmp_path.rglob("*")) == [tmp_path / "prompts.parquet", scratch]
    assert capfd.readouterr() == ("", "")


def test_the_users_settings_of_datasets_are_put_back(tmp_path):
    import datasets

    before = datasets.logging.get_verbosity(), datasets.are_progress_bars_disabled()
    (tmp_path / "bad.parquet").write_text("garbage")
    refusal(tmp_path / "bad.parquet")
    assert (datasets.logging.get_verbosity(), datasets.are_progress_bars_disabled()) == before


def test_a_hub_data_set_is_asked_for_by_id_revision_subset_and_split(monkeypatch):
    import datasets

    asked = []

    def load_dataset(path, **settings):
        asked.append((path, settings))
        return datasets.Dataset.from_list([{"question": "one", "answer": "1", "unused": None}])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    config = Prompts(
        path="somebody/sums", hub=True, revision="abc", hub_subset="main", hub_split="test",
        prompt="question", reference="answer",
    )  # fmt: skip
    assert read_prompts(config)[0].reference == "1"
    assert asked == [("somebody/sums", {"name": "main", "revision": "abc", "split": "test"})]


def test_a_hub_data_set_that_cannot_be_had_says_what_to_check(monkeypatch):
    import datasets

    def load_dataset(path, **settings):
        raise ConnectionError("no route to the hub")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    message = refusal("somebody/sums", hub=True, revision="abc")
    assert "somebody/sums (revision abc, split train)" in message
    assert "no route to the hub" in message and "Check its id, `revision`" in message


def test_a_subset_of_a_local_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match="hub_subset has no effect on a local file"):
        Prompts(path=str(tmp_path / "p.jsonl"), hub_subset="main")


def test_importing_loads_neither_datasets_nor_torch():
    code = (
        "import sys, potstill.data.prompts, potstill.data.splits;"
        "sys.exit(bool({'datasets', 'torch', 'pandas', 'pyarrow'} & set(sys.modules)))"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", code], check=False, env=environment).returncode == 0


# -- plain text and chat -----------------------------------------------------------


def test_a_system_message_is_put_before_the_users(tmp_path):
    path = write_jsonl(tmp_path / "p.jsonl", [{"prompt": "one"}])
    prompt = read_prompts(Prompts(path=path, system="Be brief."))[0]
    assert prompt.messages == (Message("system", "Be brief."), Message("user", "one"))
    assert prompt.text is None


def test_without_chat_the_text_is_taken_as_it_stands(tmp_path):
    path = write_jsonl(tmp_path / "p.jsonl", [{"prompt": " one\n"}])
    prompt = read_prompts(Prompts(path=path, chat=False))[0]
    assert (prompt.text, prompt.messages) == (" one\n", None)


def test_a_system_message_without_chat_is_refused(tmp_path):
    path = write_jsonl(tmp_path / "p.jsonl", [{"prompt": "one"}])
    assert "`system` has no effect with chat: false" in refusal(path, chat=False, system="Be brief.")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"messages": "m", "chat": False}, "chat: false has no effect on `messages`"),
        ({"messages": "m", "prompt": "question"}, "name two columns for one thing"),
        ({"hub_split": "test"}, "`hub_split` has no effect on a local file"),
    ],
)
def test_settings_without_effect_are_refused(tmp_path, settings, expected):
    path = write_jsonl(tmp_path / "p.jsonl", [{"prompt": "one", "m": [user("one")]}])
    assert expected in refusal(path, **settings)


# -- conversations -------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet"])
def test_a_final_assistant_turn_becomes_the_reference_and_earlier_ones_stay(tmp_path, suffix):
    turns = [{"role": "system", "content": ""}, user("Hi"), assistant("Hello."), user("Sum?"), assistant("7")]
    path = WRITERS[suffix](tmp_path / f"p{suffix}", [{"chat": turns}, {"chat": [user("Only a question")]}])
    first, second = read_prompts(Prompts(path=path, messages="chat"))
    expected = (
        Message("system", ""),
        Message("user", "Hi"),
        Message("assistant", "Hello."),
        Message("user", "Sum?"),
    )
    assert (first.messages, first.reference) == (expected, "7")
    assert (second.messages, second.reference) == ((Message("user", "Only a question"),), None)


def test_a_conversation_takes_its_reference_from_a_column_when_it_ends_with_the_user(tmp_path):
    path = write_jsonl(tmp_path / "p.jsonl", [{"m": [user("one")], "answer": "1"}])
    prompt = read_prompts(Prompts(path=path, messages="m", reference="answer", system="Be brief."))[0]
    assert prompt.reference == "1"
    assert prompt.messages == (Message("system", "Be brief."), Message("user", "one"))


def test_two_references_for_one_conversation_are_refused(tmp_path):
    path = write_jsonl(tmp_path / "p.jsonl", [{"m": [user("one"), assistant("1")], "answer": "1"}])
    assert "Remove the setting `reference`, or that last turn" in refusal(path, messages="m", reference="answer")


def test_two_system_messages_are_refused(tmp_path):
    path = write_jsonl(tmp_path / "p.jsonl", [{"m": [{"role": "system", "content": "a"}, user("one")]}])
    assert "line 1: has a system message of its own" in refusal(path, messages="m", system="b")


@pytest.mark.parametrize(
    ("turns", "expected"),
    [
        ([], "expected a list of {role, content} in 'm', found list []"),
        ("hello", "expected a list of {role, content} in 'm', found str 'hello'"),
        (None, "found nothing (null or missing)"),
        (["hello"], "turn 1: expected role and content, found str 'hello'"),
        (
            [{"from": "human", "value": "x"}],
            "turn 1: expected role and content, found 'from', 'value'. Rename them",
        ),
        ([{"role": "human", "content": "x"}], "found 'human'. Write 'user'."),
        ([user("x"), {"role": "tool", "content": "y"}], "turn 2: expected role system, user or assistant"),
        ([user("x"), {"role": ["a"], "content": "y"}], "turn 2: expected role system, user or assistant"),
        ([user("")], "turn 1: 'content' is empty"),
        ([user([{"type": "text", "text": "x"}])], "turn 1: expected text in 'content', found list"),
        ([user("x"), assistant(" ")], "turn 2: 'content' is empty"),
        ([assistant("x")], "ends in a user's turn or in an answer to it"),
        ([user("x"), assistant("y"), assistant("z")], "found user, assistant, assistant. Cut it"),
        ([user("x"), {"role": "system", "content": "y"}, user("z")], "a system message only at the start"),
    ],
)
def test_bad_conversations_are_refused_with_their_place(tmp_path, turns, expected):
    path = write_jsonl(tmp_path / "p.jsonl", [{"m": [user("fine")]}, {"m": turns}])
    message = refusal(path, messages="m")
    assert "p.jsonl, line 2" in message and expected in message


# -- names and repetitions ---------------------------------------------------------------


def test_without_an_id_column_a_hash_of_the_content_names_a_prompt(tmp_path):
    path = write_jsonl(tmp_path / "p.jsonl", [{"prompt": text} for text in QUESTIONS])
    ids = [prompt.id for prompt in read_prompts(Prompts(path=path))]
    assert ids == [hashlib.sha256(text.encode()).hexdigest()[:16] for text in QUESTIONS]
    assert ids == [content_id(text) for text in QUESTIONS]
    assert ids == [prompt.id for prompt in read_prompts(Prompts(path=path, chat=False))]


def test_ids_and_groups_may_be_whole_numbers(tmp_path):
    path = write_parquet(tmp_path / "p.parquet", [{"prompt": "one", "n": 12, "level": 3}])
    prompt = read_prompts(Prompts(path=path, id="n", group="level"))[0]
    assert (prompt.id, prompt.group) == ("12", "3")


def test_the_same_content_twice_is_refused_with_both_places_and_ids(tmp_path):
    rows = [{"id": "a", "prompt": "one"}, {"id": "b", "prompt": "two"}, {"id": "c", "prompt": "one"}]
    message = refusal(write_jsonl(tmp_path / "p.jsonl", rows), id="id")
    assert "line 3 (id 'c') repeats" in message and "line 1 (id 'a'): 'one'" in message
    assert "the same content again (rows: 1)" in message and "Keep one row of each" in message


def test_the_same_id_twice_is_refused(tmp_path):
    rows = [{"id": "a", "prompt": "one"}, {"id": "a", "prompt": "two"}]
    message = refusal(write_jsonl(tmp_path / "p.jsonl", rows), id="id")
    assert "found the same id again (rows: 1)" in message and "Make ids unique, or leave `id` out" in message


def test_only_the_first_few_repetitions_are_listed(tmp_path):
    message = refusal(write_jsonl(tmp_path / "p.jsonl", [{"prompt": "one"}] * 20))
    assert "(rows: 19)" in message and message.count(" repeats ") == 5


# -- files that cannot be used ----------------------------------------------------------------


def test_a_missing_file_names_one_spelt_like_it(tmp_path):
    (tmp_path / "prompts.jsonl").write_text("")
    assert f"Did you mean {tmp_path / 'prompts.jsonl'}?" in refusal(tmp_path / "promps.jsonl")


def test_a_missing_file_reminds_of_the_hub():
    assert "needs hub: true and `revision`" in refusal("somebody/sums")


def test_a_folder_is_refused(tmp_path):
    assert "It is a folder; name one file in it" in refusal(tmp_path)


def test_an_unknown_ending_lists_the_known_ones(tmp_path):
    (tmp_path / "p.xlsx").write_text("x")
    message = refusal(tmp_path / "p.xlsx")
    assert ".jsonl, .json, .txt, .csv, .parquet; found .xlsx" in message


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("p.txt", ""),
        ("p.txt", "\n \n"),
        ("p.jsonl", ""),
        ("p.jsonl", "\n"),
        ("p.json", "[]"),
        ("p.csv", "prompt\n"),
    ],
)
def test_a_file_without_prompts_is_refused(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    assert "holds no prompts. Expected at least one" in refusal(tmp_path / name)


@pytest.mark.parametrize("rows", [[], "garbage"])
def test_a_parquet_file_without_rows_or_sense_is_refused(tmp_path, rows):
    import pyarrow
    import pyarrow.parquet

    path = tmp_path / "p.parquet"
    if rows:
        path.write_text(rows)
    else:
        schema = pyarrow.schema([("prompt", pyarrow.string())])
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist([], schema=schema), path)
    assert "expected a parquet file with at least one row" in refusal(path)


@pytest.mark.parametrize("suffix", WRITERS)
def test_a_missing_column_lists_those_found_and_the_nearest(tmp_path, suffix):
    path = WRITERS[suffix](tmp_path / f"p{suffix}", [{"prompts": "one", "answer": "1"}])
    message = refusal(path)
    assert "expected a column 'prompt' for `prompt`, found 'prompts', 'answer'" in message
    assert "Did you mean 'prompts'?" in message and "Set `prompt` to the column" in message


def test_a_text_file_has_no_other_columns(tmp_path):
    (tmp_path / "p.txt").write_text("one\n")
    assert "expected a column 'answer' for `reference`, found 'prompt'" in refusal(
        tmp_path / "p.txt", reference="answer"
    )


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"prompt": None}, "line 2: expected text in 'prompt', found nothing (null or missing)"),
        ({"prompt": 5}, "line 2: expected text in 'prompt', found int 5. Write it as a string"),
        ({"prompt": " \n"}, "line 2: 'prompt' is empty. Write its text, or leave the row out"),
        ({"prompt": "half \ud83d"}, "line 2: 'prompt' holds half of a character"),
        ({"answer": None}, "line 2: expected text in 'answer', found nothing"),
        ({"answer": ""}, "line 2: 'answer' is empty"),
        ({"topic": None}, "line 2: expected text in 'topic', found nothing"),
        ({"topic": True}, "line 2: expected text in 'topic', found bool True"),
    ],
)
def test_bad_rows_are_refused_with_their_line(tmp_path, change, expected):
    good = {"prompt": "one", "answer": "1", "topic": "a"}
    path = write_jsonl(tmp_path / "p.jsonl", [good, good | {"prompt": "two"} | change])
    assert expected in refusal(path, reference="answer", group="topic")


def test_a_line_that_lacks_the_column_is_refused(tmp_path):
    path = write_jsonl(tmp_path / "p.jsonl", [{"prompt": "one"}, {"other": "two"}])
    assert "line 2: expected text in 'prompt', found nothing (null or missing)" in refusal(path)


def test_a_null_in_a_parquet_file_is_refused_with_its_row(tmp_path):
    path = write_parquet(tmp_path / "p.parquet", [{"prompt": "one"}, {"prompt": None}])
    assert "p.parquet, row 2: expected text in 'prompt', found nothing" in refusal(path)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("p.jsonl", '{"prompt": "one"}\n\nnot json\n', "line 3, column 1: expected JSON"),
        ("p.jsonl", '{"prompt": "one"}\n5\n', "line 2: expected an object, found int"),
        ("p.json", '["one"]', "row 1: expected an object, found str. Write a JSON object on every line"),
        ("p.json", '[\n{"prompt": "one"},\n]', "p.json, line 3, column 1: expected JSON"),
        ("p.json", '{\n"prompt": "one"\n}', "line 1, column 2: expected JSON"),
        ("p.csv", "id,prompt\na,one, two\n", "line 2: expected 2 cells as in the first line"),
        ("p.csv", "id,prompt\na\n", "line 2: expected 2 cells as in the first line"),
        ("p.csv", 'prompt\n"one\n', "expected CSV, found a fault"),
        (
            "p.txt",
            b"caf\xe9\n",
            "expected text in UTF-8, found invalid continuation byte at byte 3. Save it as UTF-8",
        ),
    ],
)
def test_damaged_text_files_are_refused_with_their_place(tmp_path, name, content, expected):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    assert expected in refusal(tmp_path / name)


def test_the_error_is_a_value_error():
    assert issubclass(PromptError, ValueError)
    assert Path(__file__).name in refusal(__file__)


@pytest.mark.parametrize("name", ["prompts.jsonl.gz", "prompts.txt.gz", "prompts.csv.gz"])
def test_gzipped_text_gives_the_same_prompts(tmp_path, name):
    plain = tmp_path / name.removesuffix(".gz")
    if name.startswith("prompts.txt"):
        plain.write_text("\n".join(QUESTIONS) + "\n")
    elif name.startswith("prompts.csv"):
        plain.write_text("prompt\n" + "".join(f'"{text}"\n' for text in QUESTIONS))
    else:
        write_jsonl(plain, [{"prompt": text} for text in QUESTIONS])
    packed = tmp_path / name
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert read_prompts(Prompts(path=str(packed))) == read_prompts(Prompts(path=str(plain)))


def test_half_a_gzip_file_says_so(tmp_path):
    whole = gzip.compress("\n".join(QUESTIONS * 200).encode())
    for data in (whole[: len(whole) // 2], b"no gzip at all"):
        (tmp_path / "prompts.txt.gz").write_bytes(data)
        with pytest.raises(PromptError, match="none or half of one"):
            read_prompts(Prompts(path=str(tmp_path / "prompts.txt.gz")))


def test_a_prefix_stands_before_plain_prompts(tmp_path):
    path = write_jsonl(tmp_path / "p.jsonl", [{"prompt": "a long text"}])
    (plain,) = read_prompts(Prompts(path=path, chat=False, prefix="summarize: "))
    assert plain.text == "summarize: a long text"
    (chat,) = read_prompts(Prompts(path=path, prefix="summarize: "))
    assert chat.messages == (Message("user", "summarize: a long text"),)
    with pytest.raises(ValueError, match="prefix has no effect on messages"):
        Prompts(path=path, messages="turns", prefix="x")
