"""A corpus is whole or not there, says what it was made of, and its blocks predict every token once."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus_case import WORDS, config, files, files_in, make, no_text, pack, texts, write_jsonl
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from potstill.config.corpus import CorpusConfig
from potstill.data import corpus_checking
from potstill.data.contamination import WordsWriter, measure_contamination, word_numbers, write_texts
from potstill.data.corpus import Corpus, CorpusError, Pieces, open_corpus
from potstill.data.corpus_building import make_corpus
from potstill.data.corpus_reading import Document
from potstill.data.corpus_stages import CorpusStopped
from potstill.data.corpus_writing import is_held_out
from potstill.sources.corpus import CorpusSource

HERE = Path(__file__).parent


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "train.jsonl", texts(300))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = tmp_path_factory.mktemp("shared")
    train = write_jsonl(folder / "train.jsonl", texts(300))
    away = write_jsonl(folder / "away.jsonl", texts(40, seed=7))
    return make(folder / "corpus", config(files(train), out_of_domain={"away": [files(away)]}))


def decoded(corpus: Corpus, name: str) -> list[str]:
    """A set's documents, back from its tokens."""
    tokenizer = AutoTokenizer.from_pretrained(corpus.tokenizer_path)
    found = corpus.tokens(name)
    ends = [*found.starts[1:].tolist(), found.num_tokens]
    parts = [found.tokens[start:end].tolist() for start, end in zip(found.starts.tolist(), ends, strict=True)]
    assert all(part[-1] == corpus.facts["end_id"] for part in parts)
    return [tokenizer.decode(part[:-1]) for part in parts]


# -- what is written -----------------------------------------------------------


def test_documents_go_to_their_side_by_hash_and_come_back(corpus: Corpus) -> None:
    aside = {text: is_held_out(Document("", text), 0.2) for text in texts(300)}
    assert decoded(corpus, "train") == [text for text in aside if not aside[text]]
    assert decoded(corpus, "held_out") == [text for text in aside if aside[text]]
    assert decoded(corpus, "away") == texts(40, seed=7)
    for name, side in (("train", False), ("held_out", True)):
        expected = [text for text in aside if aside[text] == side]
        assert corpus.sets[name]["documents"] == len(expected)
        assert corpus.sets[name]["bytes"] == sum(len(text.encode()) for text in expected)
    assert 30 < sum(aside.values()) < 90
    assert corpus.measured == ["held_out", "away"]


def test_a_corpus_holds_nothing_but_itself(corpus: Corpus) -> None:
    names = {name for name in files_in(corpus.path) if not name.startswith("tokenizer/")}
    sets = ("train", "held_out", "away")
    assert names == {"corpus.json"} | {f"{s}.{part}" for s in sets for part in ("tokens", "starts")}
    assert not list(corpus.path.parent.glob(".unfinished-*"))


def test_the_same_configuration_writes_the_same_bytes(source: Path, tmp_path: Path) -> None:
    first, second = (make(tmp_path / name, config(files(source))) for name in ("a", "b"))
    assert files_in(first.path) == files_in(second.path)


def test_formats_make_equal_tokens(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    documents = texts(120)
    lines = write_jsonl(tmp_path / "a.jsonl", documents)
    parquet.write_table(pyarrow.table({"text": documents}), tmp_path / "a.parquet")
    (tmp_path / "a.txt").write_bytes("\r\n".join(documents).encode())
    sources = [files(lines), files(pack(lines)), files(tmp_path / "a.parquet"),
               files(tmp_path / "a.txt", txt_documents="line")]  # fmt: skip
    made = [make(tmp_path / f"corpus{i}", config(one)) for i, one in enumerate(sources)]
    for name in ("train", "held_out"):
        for other in made[1:]:
            np.testing.assert_array_equal(other.tokens(name).tokens, made[0].tokens(name).tokens)
            np.testing.assert_array_equal(other.tokens(name).starts, made[0].tokens(name).starts)


def test_training_text_is_read_once_for_the_tokenizer_and_once_for_tokens(tmp_path: Path) -> None:
    passes = []

    def generate(source: Any) -> Any:
        passes.append(source.corpus)
        return iter(texts(100))

    tree = config({"kind": "generated", "corpus": "prose", "chars": 5000})
    make_corpus(tree, tmp_path / "corpus", generate)
    assert passes == ["prose", "prose"]


def test_measured_sets_end_where_they_are_full(tmp_path: Path) -> None:
    train = write_jsonl(tmp_path / "a.jsonl", texts(300))
    out = {"away": [files(write_jsonl(tmp_path / "b.jsonl", texts(3000, seed=3)))]}
    corpus = make(tmp_path / "corpus", config(files(train), out_of_domain=out, measured_tokens=1000))
    for name in corpus.measured:
        assert 1000 <= corpus.sets[name]["tokens"] < 1200
    (note,) = corpus.facts["notes"]
    assert "more documents fell to the held-out share" in note
    state = corpus.facts["files"][str(tmp_path / "b.jsonl")]
    assert state["sha256"] is not None  # hashed although it was not read to its end


def test_ids_take_four_bytes_where_the_vocabulary_needs_them(tmp_path: Path, source: Path) -> None:
    """And a folder's tokenizer is used as it is, with ids that have gaps."""
    words = {"<end>": 0, "<unknown>": 1} | {word: 70_000 + i for i, word in enumerate(WORDS[:3])}
    core = Tokenizer(models.WordLevel(words, unk_token="<unknown>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<end>", unk_token="<unknown>").save_pretrained(
        tmp_path / "words"
    )
    how = {"kind": "folder", "path": str(tmp_path / "words")}
    corpus = make(tmp_path / "corpus", config(files(source), tokenizer=how))
    assert (corpus.facts["dtype"], corpus.facts["vocabulary"]) == ("<u4", 70_003)
    ids = corpus.tokens("train").tokens
    assert {70_000, 70_001, 70_002} < set(ids.tolist())
    unknown = next(note for note in corpus.facts["notes"] if note.startswith("train"))
    assert f"{np.count_nonzero(ids == 1):,} of {len(ids):,} tokens are unknown" in unknown
    assert str(tmp_path / "words" / "tokenizer.json") in corpus.facts["files"]


def test_notes_tell_of_copies_empty_documents_and_ends_inside(tmp_path: Path) -> None:
    documents = [*texts(60), *texts(60)[:5], "an <end> within", " "]
    path = write_jsonl(tmp_path / "a.jsonl", documents)
    away = write_jsonl(tmp_path / "b.jsonl", texts(20, seed=5))
    corpus = make(tmp_path / "corpus", config(files(path), held_out=[files(away)]))
    assert corpus.sets["train"]["documents"] == 66
    assert corpus.facts["notes"] == [
        "train: 5 documents are exact copies of others in the set; they are kept",
        f"train: the text of 1 documents holds the end token, first {path}, line 66",
        f"train: left out 1 (empty), first {path}, line 67",
    ]
    assert corpus.facts["skipped"] == [{"set": "train", "why": "empty", "count": 1, "places": [f"{path}, line 67"]}]


# -- what is refused -------------------------------------------------------------


def test_a_tokenizer_without_an_end_is_refused(tmp_path: Path, source: Path) -> None:
    core = Tokenizer(models.WordLevel({"a": 0, "?": 1}, unk_token="?"))
    PreTrainedTokenizerFast(tokenizer_object=core).save_pretrained(tmp_path / "endless")
    for path, message in ((tmp_path / "endless", "has no end token"), (tmp_path / "none", "is no folder")):
        with pytest.raises(CorpusError, match=message):
            make(tmp_path / "corpus", config(files(source), tokenizer={"kind": "folder", "path": str(path)}))
    (tmp_path / "empty").mkdir()
    with pytest.raises(CorpusError, match="loading it failed"):
        make(tmp_path / "corpus", config(files(source), tokenizer={"kind": "folder", "path": str(tmp_path / "empty")}))


def test_too_few_documents_to_hold_some_out(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", ["one document", "and another"])
    with pytest.raises(CorpusError, match=r"no document fell to the held-out share.*Raise `held_out`"):
        make(tmp_path / "corpus", config(files(path), held_out=0.001))
    (tmp_path / "b.jsonl").write_text('{"text": " "}\n')
    with pytest.raises(CorpusError, match="the set train has no documents"):
        make(tmp_path / "corpus", config(files(tmp_path / "b.jsonl")))
    assert not (tmp_path / "corpus").exists()


def test_too_little_space_is_said_beforehand(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus_checking.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(CorpusError, match=r"needs about .* GB are free. Free space"):
        make(tmp_path / "corpus", config(files(source)))
    assert not (tmp_path / "corpus").exists()


def test_a_full_disk_leaves_no_half_corpus(tmp_path: Path) -> None:
    """No file may grow beyond 40,000 bytes, less than the training set needs."""
    settings = config(files(write_jsonl(tmp_path / "a.jsonl", texts(1500))))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, before[1]))
    try:
        with pytest.raises(CorpusError, match=r"the disk is full .* start again"):
            make(tmp_path / "corpus", settings)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not (tmp_path / "corpus").exists()
    left = {p.name for p in (tmp_path / ".unfinished-corpus").iterdir()}
    assert left == {"tokenizer", "tokenizer.stage"}
    assert make(tmp_path / "corpus", settings).sets["train"]["tokens"] > 20_000


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path, source: Path) -> None:
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "mine.txt").write_text("keep me")
    with pytest.raises(CorpusError, match="holds files but no corpus"):
        make(tmp_path / "corpus", config(files(source)))
    assert (tmp_path / "corpus" / "mine.txt").read_text() == "keep me"


# -- opening again ---------------------------------------------------------------


def test_a_corpus_is_opened_again_for_the_same_configuration_alone(tmp_path: Path, source: Path) -> None:
    settings = config(files(source))
    first = make(tmp_path / "corpus", settings)
    assert make(tmp_path / "corpus", settings).facts == first.facts
    other = config(files(source), measured_tokens=5000, tokenizer={"kind": "bpe", "vocabulary": 500})
    with pytest.raises(CorpusError) as raised:
        make(tmp_path / "corpus", other)
    assert "  tokenizer.vocabulary: it was made with 400, asked for is 500\n" in str(raised.value)
    assert "  measured_tokens: it was made with 1000000, asked for is 5000\n" in str(raised.value)
    make(tmp_path / "corpus", config(files(source), most_contaminated=0.5))  # changes no corpus


def test_a_file_with_a_new_date_is_compared_by_contents(tmp_path: Path, source: Path) -> None:
    settings = config(files(source))
    make(tmp_path / "corpus", settings)
    os.utime(source, (1, 1))
    make(tmp_path / "corpus", settings)
    data = source.read_bytes()
    source.write_bytes(data.replace(b"bord", b"cord", 1))
    with pytest.raises(CorpusError, match=r"train.jsonl has changed since .*SHA-256 \w{64} then, \w{64} now. Make"):
        make(tmp_path / "corpus", settings)
    source.unlink()
    corpus = make(tmp_path / "corpus", settings)
    assert corpus.facts["notes"][-1].startswith("1 of 1 files that it was made of are not there to compare")


def test_a_new_file_that_the_pattern_matches_is_seen(tmp_path: Path, source: Path) -> None:
    settings = config(files(tmp_path / "*.jsonl"))
    make(tmp_path / "corpus", settings)
    write_jsonl(tmp_path / "more.jsonl", ["late"])
    with pytest.raises(CorpusError, match=r"match files that are not in .*more.jsonl"):
        make(tmp_path / "corpus", settings)


def test_a_file_that_changes_between_the_passes_is_refused(tmp_path: Path, source: Path) -> None:
    def progress(what: str, total: int | None, units: int, tokens: int) -> bool:
        if what.startswith("train"):
            write_jsonl(source, texts(299))
        return False

    with pytest.raises(CorpusError, match="changed while the corpus was made"):
        make(tmp_path / "corpus", config(files(source)), progress)
    assert not (tmp_path / "corpus").exists()


# -- going on --------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["train", pytest.param("away", marks=pytest.mark.slow)])
def test_a_killed_build_goes_on_to_the_same_corpus(tmp_path: Path, source: Path, stage: str) -> None:
    away = write_jsonl(tmp_path / "away.jsonl", texts(40, seed=7))
    settings = config(files(source), out_of_domain={"away": [files(away)]})
    command = [sys.executable, str(HERE / "killed_corpus.py"), settings.model_dump_json(), str(tmp_path / "corpus")]
    done = subprocess.run([*command, stage], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not (tmp_path / "corpus").exists()
    seen: list[str] = []

    def progress(what: str, total: int | None, units: int, tokens: int) -> bool:
        if what not in seen:
            seen.append(what)
        return False

    corpus = make(tmp_path / "corpus", settings, progress)
    assert seen == (["train (MB)", "away (MB)"] if stage == "train" else ["away (MB)"])
    assert files_in(corpus.path) == files_in(make(tmp_path / "whole", settings).path)


def test_what_was_finished_of_other_text_is_made_again(tmp_path: Path, source: Path) -> None:
    def stop(what: str, total: int | None, units: int, tokens: int) -> bool:
        return what.startswith("train") and tokens > 0

    with pytest.raises(CorpusStopped, match="stopped at train"):
        make(tmp_path / "corpus", config(files(source)), stop)
    write_jsonl(source, texts(200, seed=9))
    corpus = make(tmp_path / "corpus", config(files(source)))
    assert files_in(corpus.path) == files_in(make(tmp_path / "whole", config(files(source))).path)


# -- contamination ---------------------------------------------------------------


def planted(tmp_path: Path, words: int) -> CorpusConfig:
    """One of twenty measured documents has so many words in a row of a training document."""
    train, away = texts(100), texts(20, seed=7)
    row = train[42].split()[10 : 10 + words]
    away[3] = " ".join([*away[3].split()[:20], *row]).upper().replace(" ", " -- ")
    out = {"away": [files(write_jsonl(tmp_path / "b.jsonl", away))]}
    return config(files(write_jsonl(tmp_path / "a.jsonl", train)), out_of_domain=out, held_out=0.1)


def test_a_planted_piece_is_found_whatever_its_case_and_marks(tmp_path: Path) -> None:
    corpus = make(tmp_path / "corpus", planted(tmp_path, 15))
    found = corpus.facts["contamination"]["away"]
    total = 60 * 19 + 35
    assert (found["documents"], found["touched"], found["share"]) == (20, 1, 0.05)
    assert found["words_share"] == pytest.approx(15 / total)
    (example,) = found["examples"]
    assert example["document"] == f"{tmp_path / 'b.jsonl'}, line 4"
    assert example["training"] == f"{tmp_path / 'a.jsonl'}, line 43"
    assert (example["shared_words"], example["words"]) == (15, 35)
    expected = " -- ".join(texts(100)[42].upper().split()[10:25])
    assert example["text"] == expected
    assert corpus.facts["contamination"]["held_out"]["touched"] == 0


def test_twelve_words_are_no_piece_of_thirteen(tmp_path: Path) -> None:
    assert make(tmp_path / "corpus", planted(tmp_path, 12)).facts["contamination"]["away"]["touched"] == 0


def test_too_much_is_refused_and_the_build_goes_on_when_told(tmp_path: Path) -> None:
    settings = planted(tmp_path, 15).model_copy(update={"most_contaminated": 0.04})
    with pytest.raises(CorpusError, match=r"away: 1 of 20 documents \(5.0 %\).*line 4 and .*line 43 both have"):
        make(tmp_path / "corpus", settings)
    assert not (tmp_path / "corpus").exists()
    seen: list[str] = []
    corpus = make(
        tmp_path / "corpus",
        settings.model_copy(update={"most_contaminated": 1.0}),
        lambda what, *_: bool(seen.append(what)),
    )
    assert seen == []  # nothing was read again
    with pytest.raises(CorpusError, match="more than 4 %"):  # judged again when it is opened
        make(corpus.path, settings)


def slow_contamination(train: list[str], measured: list[str], length: int) -> tuple[list[bool], int]:
    """By sets of tuples: which documents are touched, and shared words."""

    def split(text: str) -> list[int]:
        return word_numbers(text).tolist()

    def grams(words: list[int], n: int) -> list[tuple[int, ...]]:
        return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]

    touched, shared = [], 0
    for text in measured:
        words = split(text)
        n = min(length, len(words))
        known = {gram for other in train for gram in grams(split(other), n)}
        covered = {i + j for i, gram in enumerate(grams(words, n)) if n and gram in known for j in range(n)}
        touched.append(bool(covered))
        shared += len(covered)
    return touched, shared


@pytest.mark.parametrize("chunk", [1 << 21, 50])
def test_shared_pieces_are_those_of_the_obvious_way(
    tmp_path: Path, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Short pieces of few words, so that many are shared; also across chunks, and with documents shorter than that."""
    from potstill.data import contamination

    monkeypatch.setattr(contamination, "CHUNK", chunk)
    train = [*texts(60, words=20), "...", f"one {WORDS[0]}", "漢字かな交じり文"]
    measured = [
        *texts(60, seed=2, words=12),
        WORDS[0],
        f"{WORDS[0].title()} {WORDS[1]}!",
        "",
        "?!",
        " ".join(WORDS[4:7]),
        "zebra",
        "かな交",
    ]
    writer = WordsWriter(tmp_path)
    for number, text in enumerate(train):
        writer.add(Document(f"train {number}", text))
    writer.finish()
    write_texts(tmp_path, "away", [Document(f"away {n}", text) for n, text in enumerate(measured)])
    found = measure_contamination(tmp_path, ["away"], 3)["away"]
    touched, shared = slow_contamination(train, measured, 3)
    assert 5 < sum(touched) < len(measured) - 5
    assert found["touched"] == sum(touched)
    assert found["words_share"] == pytest.approx(shared / sum(len(word_numbers(text)) for text in measured))


# -- blocks ----------------------------------------------------------------------


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("block", [16, 61, 128])
def test_every_token_is_predicted_once(corpus: Corpus, apart: bool, block: int) -> None:
    """All but the first of the set; where documents stay apart, all but the first of each."""
    found = corpus.tokens("train")
    pieces = Pieces(found, block, apart=apart)
    predicted: list[int] = []
    for number in range(pieces.num_blocks):
        before = len(predicted)
        for piece in pieces.of_block(number):
            ids, start = pieces.ids(piece), int(pieces.bounds[piece])
            np.testing.assert_array_equal(ids, found.tokens[start : start + len(ids)])
            predicted += range(start + 1, start + len(ids))
            if apart:  # all of one document
                assert len(set(np.searchsorted(found.starts, range(start, start + len(ids)), side="right"))) == 1
        assert len(predicted) - before <= block
        assert all(number * block < place <= (number + 1) * block for place in predicted[before:])
    last = pieces.num_blocks * block
    firsts = set(found.starts.tolist()) if apart else {0}
    assert predicted == [place for place in range(1, last + 1) if place not in firsts]


def test_a_set_shorter_than_a_block_is_refused(corpus: Corpus) -> None:
    with pytest.raises(CorpusError, match="less than one block"):
        Pieces(corpus.tokens("train"), 10**6, apart=False)


def test_blocks_come_in_the_seeds_order_and_resume_to_the_token(corpus: Corpus) -> None:
    def source(seed: int) -> CorpusSource:
        return CorpusSource(Pieces(open_corpus(corpus.path).tokens("train"), 64, apart=True), seed, batch_blocks=5)

    first = source(1)
    steps = first.pieces.num_blocks // 5 + 3  # into the second epoch
    planned = [first.planned(step) for step in range(steps)]
    assert source(1).planned(steps - 1) == planned[-1]  # asked out of order, as after a kill
    assert [source(1).planned(step) for step in range(3)] == planned[:3]
    assert [source(2).planned(step) for step in range(3)] != planned[:3]
    visited = [block for step in range(steps) for block in first.blocks(step)]
    assert sorted(visited[: first.pieces.num_blocks]) == list(range(first.pieces.num_blocks))


def test_a_cut_tokens_file_is_seen(source: Path, tmp_path: Path) -> None:
    corpus = make(tmp_path / "corpus", config(files(source)))
    with open(corpus.path / "train.tokens", "rb+") as handle:
        handle.truncate(1000)
    with pytest.raises(CorpusError, match="it was cut or changed"):
        corpus.tokens("train")


# -- memory ----------------------------------------------------------------------

BIG = """
import resource, sys
from pathlib import Path
from corpus_case import make
from potstill.config.corpus import CorpusConfig
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
corpus = make(Path(sys.argv[2]), CorpusConfig.model_validate_json(sys.argv[1]))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, corpus.sets["train"]["tokens"])
"""


@pytest.mark.slow
def test_a_line_of_fifty_megabytes_takes_no_gigabytes(tmp_path: Path) -> None:
    document = " ".join(texts(2000)) + " "
    long = document * (50_000_000 // len(document))
    path = write_jsonl(tmp_path / "a.jsonl", [long])
    away = write_jsonl(tmp_path / "b.jsonl", texts(20, seed=5))
    settings = config(files(path), held_out=[files(away)])
    command = [sys.executable, "-c", BIG, settings.model_dump_json(), str(tmp_path / "corpus")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=HERE, check=True)
    kilobytes, tokens = map(int, done.stdout.split())
    assert tokens > 5_000_000
    assert kilobytes < 1_500_000, f"{kilobytes:,} kB"


# -- the command line --------------------------------------------------------------


def test_the_verb_makes_reports_and_opens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from potstill.cli.corpus import corpus_verb
    from potstill.config.load import ConfigError, load_corpus

    settings = planted(tmp_path, 15)
    (tmp_path / "corpus.yaml").write_text(json.dumps(settings.model_dump(mode="json")))
    for _ in range(2):
        corpus_verb(load_corpus(tmp_path / "corpus.yaml", ["tokenizer.vocabulary=300"]), tmp_path / "corpus")
        out = capsys.readouterr().out
        assert "away" in out and "5.0 %" in out and "300 tokens in the vocabulary" in out
        assert "b.jsonl, line 4" in out.replace("\n", " ")
    with pytest.raises(ConfigError, match="Did you mean tokenizer"):
        load_corpus(tmp_path / "corpus.yaml", ["tokeniser=1"])


def test_the_verb_writes_text_of_the_packages_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from potstill.cli.corpus import corpus_verb
    from potstill.config.load import load_corpus

    (tmp_path / "c.yaml").write_text(
        "train: [{kind: generated, corpus: grammar, chars: 60000}]\nheld_out: 0.1\nmost_contaminated: 1\n"
        "tokenizer: {kind: characters}\n"
    )
    corpus_verb(load_corpus(tmp_path / "c.yaml"), tmp_path / "corpus")
    assert open_corpus(tmp_path / "corpus").sets["train"]["bytes"] > 40_000
    assert no_text  # nothing of the test's own was asked
