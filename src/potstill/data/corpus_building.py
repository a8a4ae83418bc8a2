"""Makes a corpus: documents are read, shared out between training and measuring, and become tokens once.

Everything is written into a folder beside the corpus, `.unfinished-NAME`, which takes its name
when all is there: a reader finds a whole corpus or none. A build that ends early (kill, Ctrl-C,
full disk) goes on after the last finished stage; a set that was at work is made again.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from filelock import FileLock

from potstill.config.corpus import CorpusConfig, FilesText, FolderTokenizer, GeneratedText, HubText, TextSource
from potstill.data.contamination import WordsWriter, measure_contamination, refuse_contaminated
from potstill.data.corpus import FORMAT, Corpus, CorpusError, open_corpus
from potstill.data.corpus_checking import check_corpus, check_space, load_tokenizer, made_with, tokenizer_files
from potstill.data.corpus_files import SourceFiles
from potstill.data.corpus_reading import Document, Generate, Reading, files_of, read_all
from potstill.data.corpus_stages import Meter, Progress, Stages
from potstill.data.corpus_tokens import Encoder, SetWriter, all_cores
from potstill.data.corpus_writing import Written, is_held_out, write_documents
from potstill.data.long_texts import pieces
from potstill.data.train_tokenizer import train_tokenizer
from potstill.run_dir import sync_folder, write_atomic


def make_corpus(config: CorpusConfig, folder: Path, generate: Generate, progress: Progress | None = None) -> Corpus:
    """Write a corpus to `folder`; one that is there already is opened, if it is of this configuration and these files.

    progress: told (what, total megabytes or None, megabytes more, tokens more); what it returns true for ends the
    build with CorpusStopped. Called again, the build goes on. Raises CorpusError: text that cannot be used, with its
    place; an existing corpus of something else; too little space; too much of a measured set in the training text.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        if (folder / "corpus.json").is_file():
            return check_corpus(open_corpus(folder), config)
        if folder.is_dir() and any(folder.iterdir()):
            raise CorpusError(f"{folder} holds files but no corpus. Empty it, or name another folder.")
        scratch = folder.with_name(f".unfinished-{folder.name}")
        scratch.mkdir(exist_ok=True)
        try:
            with all_cores():
                facts = _Build(config, scratch, generate, progress).facts()
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            raise CorpusError(
                f"the disk is full ({error.strerror}): {scratch} keeps the sets that are finished. Free space and "
                "start again, or remove it."
            ) from error
        _put_in_place(scratch, folder, facts)
    return open_corpus(folder)


def _put_in_place(scratch: Path, folder: Path, facts: Mapping[str, Any]) -> None:
    """Drop what only the build needed, and give the folder its name."""
    write_atomic(scratch / "corpus.json", (json.dumps(facts, indent=1, ensure_ascii=False) + "\n").encode())
    for pattern in ("*.stage", "*.texts", "train.words", "train.places", "train.word_starts", ".unfinished-*"):
        for path in scratch.glob(pattern):
            path.unlink()
    os.replace(scratch, folder)
    sync_folder(folder.parent)


class _Build:
    """One build in its scratch folder."""

    def __init__(self, config: CorpusConfig, scratch: Path, generate: Generate, progress: Progress | None):
        self.config, self.scratch, self.generate, self.progress = config, scratch, generate, progress
        self.stages, self.files = Stages(scratch), SourceFiles()
        for path in tokenizer_files(config):
            self.files.opening(path)
        for sources in _all_sources(config).values():
            self.files.note(_paths(sources))
        check_space(config, scratch, self.files)

    def facts(self) -> dict[str, Any]:
        """Run what is not finished yet; the contents of corpus.json."""
        config = self.config
        self.stages.done("tokenizer", self._tokenizer_key(), self._make_tokenizer)
        encoder = Encoder(load_tokenizer(self.scratch / "tokenizer"))
        made = [self._made("train", config.train, encoder)]
        if not isinstance(config.held_out, float):
            made.append(self._made("held_out", config.held_out, encoder))
        made += [self._made(name, sources, encoder) for name, sources in config.out_of_domain.items()]
        sets = {name: facts for stage in made for name, facts in stage["sets"].items()}
        self.files.finish(tokenizer_files(config))
        measured = [name for name in sets if name != "train"]
        length = config.contamination_words
        contamination = self.stages.done(
            "contamination",
            [length, [self._set_key(name) for name in ("train", *measured) if name in _all_sources(config)]],
            lambda: measure_contamination(self.scratch, measured, length),
        )
        refuse_contaminated(contamination, config.most_contaminated, length)
        files = self.files.states | {name: state for stage in made for name, state in stage["files"].items()}
        return {
            "format": FORMAT, "vocabulary": encoder.vocabulary, "end_id": encoder.end, "dtype": encoder.dtype,
            "sets": sets, "skipped": [entry for stage in made for entry in stage["skipped"]],
            "notes": [note for stage in made for note in stage["notes"]], "contamination": contamination,
            "files": files, "made_with": made_with(), "config": config.model_dump(mode="json"),
        }  # fmt: skip

    def _make_tokenizer(self) -> dict[str, Any]:
        how, target = self.config.tokenizer, self.scratch / "tokenizer"
        shutil.rmtree(target, ignore_errors=True)
        if isinstance(how, FolderTokenizer):
            tokenizer = load_tokenizer(Path(how.path))
            Encoder(tokenizer)  # refuses what cannot be used before anything is read
        else:
            meter = self._meter("tokenizer", self.config.train)
            reading = Reading(self.files, told=meter.told)
            tokenizer = train_tokenizer(how, _told(read_all(self.config.train, self.generate, reading), meter))
            meter.end()
        tokenizer.save_pretrained(target)
        return {}

    def _made(self, name: str, sources: tuple[TextSource, ...], encoder: Encoder) -> dict[str, Any]:
        return self.stages.done(name, self._set_key(name), lambda: self._make(name, sources, encoder))

    def _make(self, name: str, sources: tuple[TextSource, ...], encoder: Encoder) -> dict[str, Any]:
        """Write one set; with train, the share of it that is held out. What corpus.json says of them."""
        most, share = self.config.measured_tokens, self.config.held_out
        meter = self._meter(name, sources)
        reading = Reading(self.files, told=meter.told)
        written: dict[str, Written] = {}
        before = encoder.inexact_cuts

        def route(document: Document) -> Written:
            aside = name == "train" and isinstance(share, float) and is_held_out(document, share)
            return written["held_out" if aside else name]

        with ExitStack() as unfinished:
            for entry in (name, "held_out") if name == "train" and isinstance(share, float) else (name,):
                words = WordsWriter(self.scratch) if entry == "train" else None
                writer = SetWriter(self.scratch, entry, encoder, None if entry == "train" else most)
                written[entry] = Written(writer, words)
                unfinished.callback(written[entry].close)
            documents = read_all(sources, self.generate, reading)
            write_documents(documents, route, written.values(), encoder, meter)
            sets = {entry: {"domain": _domain(entry), **one.finish(self.scratch)} for entry, one in written.items()}
        self.files.finish(_paths(sources))
        notes = [note for one in written.values() for note in one.notes()]
        if len(written) > 1 and written["held_out"].writer.beyond:
            notes.append(
                f"held_out: {written['held_out'].writer.beyond:,} more documents fell to the held-out share than "
                "measured_tokens has room for; they are in no set"
            )
        if encoder.inexact_cuts > before:
            notes.append(
                f"{name}: {encoder.inexact_cuts - before:,} cuts of long texts without spaces fell inside of words; "
                "tokens may differ there from those of the whole"
            )
        notes += [f"{entry['set']}: left out {entry['count']:,} ({entry['why']}), first {entry['places'][0]}"
                  for entry in reading.left_out.facts(name)]  # fmt: skip
        files = {str(path): self.files.states[str(path)] for path in _paths(sources)}
        return {"sets": sets, "skipped": reading.left_out.facts(name), "notes": notes, "files": files}

    # -- what a stage depends on ---------------------------------------------

    def _tokenizer_key(self) -> list[Any]:
        key: list[Any] = [FORMAT, made_with(), self.config.tokenizer.model_dump(mode="json"),
                          self.files.of(tokenizer_files(self.config))]  # fmt: skip
        return key if isinstance(self.config.tokenizer, FolderTokenizer) else [*key, self._sources_key("train")]

    def _set_key(self, name: str) -> list[Any]:
        share = self.config.held_out if name == "train" and isinstance(self.config.held_out, float) else None
        return [self._tokenizer_key(), self._sources_key(name), share, self.config.measured_tokens]

    def _sources_key(self, name: str) -> list[Any]:
        sources = _all_sources(self.config)[name]
        return [[source.model_dump(mode="json") for source in sources], self.files.of(_paths(sources))]

    def _meter(self, name: str, sources: Iterable[TextSource]) -> Meter:
        total: int | None = 0
        for source in sources:
            if isinstance(source, HubText) or total is None:
                total = None
            elif isinstance(source, GeneratedText):
                total += source.chars
            else:
                total += sum(self.files.states[str(path)]["size"] for path in files_of(source))
        return Meter(self.progress, name, total)


def _domain(name: str) -> str:
    return {"train": "train", "held_out": "in"}.get(name, "out")


def _all_sources(config: CorpusConfig) -> dict[str, tuple[TextSource, ...]]:
    """Set -> sources; the held-out set is not among them where it is a share of train."""
    held_out = {} if isinstance(config.held_out, float) else {"held_out": config.held_out}
    return {"train": config.train, **held_out, **config.out_of_domain}


def _paths(sources: Iterable[TextSource]) -> list[Path]:
    return [path for source in sources if isinstance(source, FilesText) for path in files_of(source)]


def _told(documents: Iterator[Document], meter: Meter) -> Iterator[str]:
    """Texts for the tokenizer to learn from, long ones cut before spaces: the words stay the same."""
    for document in documents:
        meter.tell()
        for piece, _ in pieces(document.text):
            yield piece
    meter.tell()
