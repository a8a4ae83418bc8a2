"""Documents come out of real files as they are, or the fault is told with its place; long texts are cut exactly."""

from __future__ import annotations

import gzip
import json
import lzma
import random
import re
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from corpus_case import WORDS, files, no_text, pack, read, texts, write_jsonl
from pyarrow import parquet

from potstill.config.corpus import FilesText, HubText
from potstill.config.lab import Bpe, Characters
from potstill.data import long_texts
from potstill.data.corpus import CorpusError
from potstill.data.corpus_reading import Reading, read_documents
from potstill.data.corpus_tokens import Encoder
from potstill.data.train_tokenizer import train_tokenizer


def found(source: dict[str, Any]) -> list[str]:
    return [document.text for document in read(source)[0]]


def write_parquet(path: Path, columns: dict[str, list[Any]], rows: int = 1 << 20) -> Path:
    parquet.write_table(pyarrow.table(columns), path, row_group_size=rows)
    return path


# -- what is read ---------------------------------------------------------------


def test_the_same_documents_come_out_of_every_format(tmp_path: Path) -> None:
    expected = [*texts(150), "Ünïcode … “quotes” 漢字\nand\tmore"]
    lines = write_jsonl(tmp_path / "a.jsonl", expected)
    (tmp_path / "a.jsonl.xz").write_bytes(lzma.compress(lines.read_bytes()))
    (tmp_path / "b.txt").write_text("\n\n".join(expected), encoding="utf-8")
    for path in (lines, pack(lines), tmp_path / "a.jsonl.xz"):
        assert found(files(path)) == expected
    assert found(files(tmp_path / "b.txt", txt_documents="paragraph")) == expected
    assert found(files(write_parquet(tmp_path / "a.parquet", {"text": expected}, rows=40))) == expected


def test_every_document_knows_its_place(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "one"}\n\n{"text": "two"}\n')
    assert [d.where for d in read(files(path))[0]] == [f"{path}, line 1", f"{path}, line 3"]
    table = write_parquet(tmp_path / "a.parquet", {"text": ["one", " ", "two"]})
    assert [d.where for d in read(files(table))[0]] == [f"{table}, row 1", f"{table}, row 3"]


@pytest.mark.parametrize("seed", range(20))
def test_paragraphs_and_lines_are_those_of_split(tmp_path: Path, seed: int) -> None:
    """Against the obvious way, on every order of letters and line ends."""
    dice = random.Random(seed)
    text = "".join(dice.choice("ab\n\n\n ") for _ in range(200))
    path = tmp_path / "a.txt"
    path.write_bytes(text.encode())
    for what, mark in (("paragraph", "\n\n"), ("line", "\n")):
        assert found(files(path, txt_documents=what)) == [part for part in text.split(mark) if part.strip()]
    assert found(files(path)) == [text]


def test_a_mark_and_windows_line_ends_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfone\r\ntwo\r\n\r\nthree\r\n")
    assert found(files(path)) == ["one\ntwo\n\nthree\n"]
    assert found(files(path, txt_documents="paragraph")) == ["one\ntwo", "three\n"]
    rows = tmp_path / "a.jsonl"
    rows.write_bytes(b'\xef\xbb\xbf{"text": "a\\r\\nb"}\r\n')
    assert found(files(rows)) == ["a\r\nb"]


def test_patterns_name_each_file_once_in_order(tmp_path: Path) -> None:
    for name in "cab":
        write_jsonl(tmp_path / f"{name}[1].jsonl", [name])
    assert found(files(tmp_path / "b[[]1].jsonl", tmp_path / "*.jsonl")) == ["b", "a", "c"]
    assert found(files(tmp_path / "c[1].jsonl")) == ["c"]  # a name that looks like a pattern


def test_the_hub_reader_streams_rows(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "train.jsonl").write_text("".join(json.dumps({"text": t, "n": 1}) + "\n" for t in ("one", " ", "two")))
    source = HubText(kind="hub", id=str(folder), revision="main", documents=3)
    reading = Reading()
    documents = list(read_documents(source, no_text, reading))
    assert [(d.where, d.text) for d in documents] == [(f"{folder}, row 1", "one"), (f"{folder}, row 3", "two")]
    assert reading.left_out.counts == {"empty": 1}
    with pytest.raises(CorpusError, match=r"row 1: expected a column 'txt', found 'text', 'n'; did you mean 'text'\?"):
        list(read_documents(source.model_copy(update={"text": "txt"}), no_text, Reading()))
    with pytest.raises(CorpusError, match=r"could not be read: .*Check its id"):
        list(read_documents(source.model_copy(update={"split": "nowhere"}), no_text, Reading()))


# -- what is wrong ----------------------------------------------------------------

GOOD = b'{"text": "good"}\n'
#: bytes of a .jsonl whose second line is bad, a part of the message, the reason that is counted
BAD_LINES = [
    (b'{"text": "caf\xe9 x"}\n', r"line 2: expected UTF-8, found invalid .* at byte 30 of the text", "no UTF-8"),
    (b'{"text": "half\n', r"line 2: expected JSON, found a fault", "no JSON"),
    (b"[" * 100_000 + b"\n", r"line 2: expected JSON, found a fault", "no JSON"),
    (b'{"txt": "x"}\n', r"line 2: expected a column 'text', found 'txt'; did you mean 'txt'\?", "no such column"),
    (b'{"text": 7}\n', r"line 2: expected a text, found int", "no text"),
    (b'{"text": null}\n', r"line 2: expected a text, found NoneType", "no text"),
    (b'["text"]\n', r"line 2: expected a JSON object, found list", "no JSON object"),
    (b'{"text": "\\ud83d"}\n', r"line 2: the text holds half of a surrogate pair at character 0", "no text"),
]


@pytest.mark.parametrize(("line", "message", "why"), BAD_LINES)
def test_a_broken_line_is_refused_with_its_place_or_counted(
    tmp_path: Path, line: bytes, message: str, why: str
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(GOOD + line + GOOD)
    with pytest.raises(CorpusError, match=message) as raised:
        read(files(path))
    assert str(raised.value).endswith("or set `on_broken: skip` to leave it out.")
    documents, reading = read(files(path, on_broken="skip"))
    assert [d.where for d in documents] == [f"{path}, line 1", f"{path}, line 3"]
    assert reading.left_out.facts("train") == [{"set": "train", "why": why, "count": 1, "places": [f"{path}, line 2"]}]


@pytest.mark.parametrize(("unit", "kept"), [("file", []), ("paragraph", ["one", "four\n"]),
                                            ("line", ["one", "three", "four"])])  # fmt: skip
def test_broken_utf8_in_a_text_file(tmp_path: Path, unit: str, kept: list[str]) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfone\n\nt\xffwo\nthree\n\nfour\n")
    with pytest.raises(CorpusError, match=r"line 3: expected UTF-8, found invalid .* at byte (6|9) of the text"):
        read(files(path, txt_documents=unit))
    documents, reading = read(files(path, txt_documents=unit, on_broken="skip"))
    assert [d.text for d in documents] == kept
    assert reading.left_out.counts == {"no UTF-8": 1}


def test_another_encoding_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("hello", encoding="utf-16")
    with pytest.raises(CorpusError, match=r"it begins like UTF-16"):
        read(files(tmp_path / "a.txt"))


def test_a_cut_packed_file_keeps_what_stood_before(tmp_path: Path) -> None:
    whole = pack(write_jsonl(tmp_path / "a.jsonl", texts(2000)))
    whole.write_bytes(whole.read_bytes()[:-4000])
    with pytest.raises(CorpusError, match=r"a.jsonl.gz after line \d+: the packed file is damaged or cut"):
        read(files(whole))
    documents, reading = read(files(whole, on_broken="skip"))
    assert [d.text for d in documents] == texts(2000)[: len(documents)]
    assert 1000 < len(documents) < 2000
    assert reading.left_out.total == 1
    (tmp_path / "b.txt.gz").write_bytes(b"no gzip")
    with pytest.raises(CorpusError, match="damaged or cut"):
        read(files(tmp_path / "b.txt.gz"))
    (tmp_path / "b.txt.xz").write_bytes(lzma.compress(b"text" * 1000)[:-40])
    with pytest.raises(CorpusError, match="damaged or cut"):
        read(files(tmp_path / "b.txt.xz"))


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.txt.gz"])
def test_an_empty_file_is_a_fault(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(gzip.compress(b"") if name.endswith(".gz") else b"")
    with pytest.raises(CorpusError, match=f"{name}: the file holds no documents"):
        read(files(tmp_path / name))
    assert read(files(tmp_path / name, on_broken="skip"))[1].left_out.counts == {"a file without documents": 1}


def test_empty_documents_are_always_counted(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", ["one", *["", " \n"] * 30, "two"])
    documents, reading = read(files(path))
    assert [d.text for d in documents] == ["one", "two"]
    (entry,) = reading.left_out.facts("train")
    assert (entry["why"], entry["count"], len(entry["places"])) == ("empty", 60, 20)
    assert entry["places"][0] == f"{path}, line 2"


def test_broken_parquet(tmp_path: Path) -> None:
    table = write_parquet(tmp_path / "a.parquet", {"body": ["one"], "count": [1]})
    with pytest.raises(CorpusError, match=r"expected a column 'bodi', found 'body', 'count'; did you mean 'body'\?"):
        read(files(table, text="bodi"))
    with pytest.raises(CorpusError, match=r"the column 'count' holds int64, expected text"):
        read(files(table, text="count"))
    mixed = write_parquet(tmp_path / "b.parquet", {"text": ["one", None, "two"]})
    with pytest.raises(CorpusError, match=r"b.parquet, row 2: expected a text, found NoneType"):
        read(files(mixed))
    assert found(files(mixed, on_broken="skip")) == ["one", "two"]
    bad = pyarrow.array([b"one", b"t\xff", b"two"]).view(pyarrow.string())
    parquet.write_table(pyarrow.table({"text": bad}), tmp_path / "c.parquet")
    with pytest.raises(CorpusError, match=r"c.parquet, row 2: expected UTF-8"):
        read(files(tmp_path / "c.parquet"))
    assert found(files(tmp_path / "c.parquet", on_broken="skip")) == ["one", "two"]
    table.write_bytes(table.read_bytes()[:-8])
    with pytest.raises(CorpusError, match="expected a whole parquet file"):
        read(files(table, text="body"))


def test_paths_that_name_no_file(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"no file matches .*none.*Check `paths`"):
        read(files(tmp_path / "none*.txt"))
    (tmp_path / "folder").mkdir()
    with pytest.raises(CorpusError, match=re.escape("is a folder. Name the files in it")):
        read(files(tmp_path / "folder"))
    (tmp_path / "a.json").write_text("[]")
    with pytest.raises(CorpusError, match=r"expected a name that ends in .txt, .jsonl, .parquet .* found .json"):
        read(files(tmp_path / "a.json"))


def test_a_file_that_grows_while_it_is_read_is_refused(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", texts(3))
    reading = Reading()
    documents = read_documents(FilesText.model_validate(files(path)), no_text, reading)
    next(documents)
    with open(path, "a") as handle:
        handle.write('{"text": "late"}\n')
    with pytest.raises(CorpusError, match=r"changed while the corpus was made .*start again"):
        list(documents)


# -- long texts -------------------------------------------------------------------


def mixed_text(length: int) -> str:
    """Words, figures, marks, runs of spaces and line ends, contractions, other scripts."""
    dice = random.Random(1)
    odd = [
        "it's",
        "don't",
        "x,y",
        "3.14",
        "--",
        "  ",
        "\n",
        "\n\n  ",
        "\t",
        "漢字",
        "naïve",
        "(a)",
        "I'll",
        "…",
        "\u00a0",
    ]
    out: list[str] = []
    while sum(map(len, out[-1:])) + len(out) * 4 < length:
        out.append(dice.choice([*WORDS, *odd]))
        out.append(dice.choice([" ", " ", " ", "", "\n", "  "]))
    return "".join(out)


def test_cuts_before_spaces_change_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """Byte-level BPE and characters; every kind of whitespace and contraction stands around the cuts."""
    text = mixed_text(60_000)
    monkeypatch.setattr(long_texts, "PIECE", 50)
    monkeypatch.setattr(long_texts, "REACH", 10_000)
    for how in (Bpe(kind="bpe", vocabulary=600), Characters(kind="characters")):
        encoder = Encoder(train_tokenizer(how, [text]))
        parts = list(long_texts.pieces(text))
        assert len(parts) > 600 and "".join(part for part, _ in parts) == text
        whole = encoder.core.encode(text, add_special_tokens=False).ids
        assert encoder([text])[0].tolist() == whole  # with the tokenizer asked
        assert [i for part, _ in parts for i in encoder._encode([part])[0].tolist()] == whole  # without
        assert encoder.inexact_cuts == 0


def test_a_tokenizer_that_disagrees_is_handed_the_whole() -> None:
    text = "word " * 200_000
    assert [len(part) for part, _ in long_texts.pieces(text, lambda t, place: False)] == [len(text)]
    assert len(list(long_texts.pieces(text))) == 4


def test_a_text_without_spaces_is_cut_all_the_same_and_told() -> None:
    text = "x" * 1_000_000
    parts = list(long_texts.pieces(text))
    assert "".join(part for part, _ in parts) == text
    assert [exact for _, exact in parts] == [False, False, True]
    assert max(len(part) for part, _ in parts) <= long_texts.PIECE + long_texts.REACH
