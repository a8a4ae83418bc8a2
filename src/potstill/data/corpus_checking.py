"""Checks before and after a corpus is made: space, tokenizer, and whether an existing one is of these files."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from potstill.config.corpus import CorpusConfig, FilesText, FolderTokenizer, GeneratedText, TextSource
from potstill.config.lab import Characters
from potstill.data.contamination import refuse_contaminated
from potstill.data.corpus import Corpus, CorpusError
from potstill.data.corpus_files import SourceFiles, hash_file
from potstill.data.corpus_reading import files_of

#: Bytes of text in a byte of a packed file, more than is usual, so that a disk is found too small in time.
UNPACKED = {".gz": 4, ".xz": 5, ".parquet": 4}
#: Bytes of text for a token, less than is usual, and for a word.
BYTES_PER_TOKEN, BYTES_PER_WORD = 2, 5
WORD_BYTES = 4


def made_with() -> dict[str, str]:
    """Versions that a corpus may depend on: generated text on Python, tokens on tokenizers."""
    return {"python": platform.python_version(), "tokenizers": version("tokenizers"), "potstill": version("potstill")}


def check_space(config: CorpusConfig, folder: Path, files: SourceFiles) -> None:
    """Raises CorpusError where the tokens will not fit onto the disk, by an estimate from the sizes of files."""
    text = 0
    for source in config.train:
        if isinstance(source, GeneratedText):
            text += source.chars
        elif isinstance(source, FilesText):
            for path in files_of(source):
                factor = UNPACKED.get(path.suffix.lower(), 1)
                text += factor * int(files.states[str(path)]["size"])
    how = config.tokenizer
    per_token = 1 if isinstance(how, Characters) else BYTES_PER_TOKEN
    token_bytes = 2 if not isinstance(how, FolderTokenizer) and getattr(how, "vocabulary", 0) < 2**16 else 4
    need = text // per_token * token_bytes + text // BYTES_PER_WORD * WORD_BYTES
    written = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())  # by a build that goes on
    free = shutil.disk_usage(folder).free + written
    if need > free:
        raise CorpusError(
            f"the corpus needs about {need / 1e9:,.1f} GB in {folder.parent} (estimated from the sizes of its files; a "
            f"part of it only while it is made), {free / 1e9:,.1f} GB are free. Free space, name another folder, or "
            "take fewer files."
        )


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a folder. Raises CorpusError where there is none."""
    from transformers import AutoTokenizer

    if not folder.is_dir():
        raise CorpusError(f"{folder} is no folder; `tokenizer.path` names one as `save_pretrained` writes it")
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise CorpusError(
            f"{folder}: expected a tokenizer as `save_pretrained` writes it, but loading it failed with: {error}"
        ) from error


def tokenizer_files(config: CorpusConfig) -> list[Path]:
    """The files of a tokenizer that is taken from a folder (weights may lie there too)."""
    if not isinstance(config.tokenizer, FolderTokenizer):
        return []
    folder = Path(config.tokenizer.path)
    known = ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab*", "merges.txt", "*.model")
    return sorted({path for pattern in known for path in folder.glob(pattern) if path.is_file()})


def check_corpus(corpus: Corpus, config: CorpusConfig) -> Corpus:
    """An existing corpus, if it is of this configuration and of these files as they are now.

    Raises CorpusError: another configuration, a file with other contents, more files than there were. A file that is
    not there any more cannot be compared; a note of the corpus says so.
    """
    _same_config(corpus, config)
    refuse_contaminated(corpus.facts.get("contamination", {}), config.most_contaminated, config.contamination_words)
    recorded: Mapping[str, Any] = corpus.facts.get("files", {})
    if recorded:
        _no_new_files(corpus, config, recorded)
    gone = [name for name, state in recorded.items() if not _same_file(corpus, Path(name), state)]
    if not gone:
        return corpus
    note = f"{len(gone)} of {len(recorded)} files that it was made of are not there to compare, first {gone[0]}"
    return replace(corpus, facts={**corpus.facts, "notes": [*corpus.facts.get("notes", []), note]})


def _same_config(corpus: Corpus, config: CorpusConfig) -> None:
    """What most_contaminated is does not change a corpus; it is judged anew."""
    wanted = config.model_dump(mode="json")
    try:
        stored = CorpusConfig.model_validate(corpus.facts["config"]).model_dump(mode="json")
    except ValidationError:
        stored = dict(corpus.facts["config"])
    differs = [line for line in _differences(stored, wanted, "") if not line.startswith("most_contaminated:")]
    if differs:
        raise CorpusError(
            f"{corpus.path} holds a corpus of another configuration:\n" + "\n".join(f"  {line}" for line in differs)
            + "\nName another folder, or remove this one."
        )  # fmt: skip


def _differences(old: Any, new: Any, place: str) -> Iterator[str]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in [*old, *(k for k in new if k not in old)]:
            inner = f"{place}.{key}" if place else str(key)
            yield from _differences(old.get(key), new.get(key), inner)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for number, (one, other) in enumerate(zip(old, new, strict=True)):
            yield from _differences(one, other, f"{place}.{number}")
    elif old != new:
        yield f"{place}: it was made with {old!r}, asked for is {new!r}"


def _no_new_files(corpus: Corpus, config: CorpusConfig, recorded: Mapping[str, Any]) -> None:
    new = [str(p) for p in _matching(config.sources()) if str(p) not in recorded]
    if new:
        raise CorpusError(
            f"`paths` match files that are not in {corpus.path}: {', '.join(new[:5])}. Name another folder, remove "
            "this one, or take the files away."
        )


def _matching(sources: Iterable[TextSource]) -> list[Path]:
    """Files that are there now; a path that names none now is told elsewhere."""
    found: list[Path] = []
    for source in sources:
        if isinstance(source, FilesText):
            for pattern in source.paths:
                try:
                    found += files_of(source.model_copy(update={"paths": (pattern,)}))
                except CorpusError:
                    continue
    return found


def _same_file(corpus: Corpus, path: Path, state: Mapping[str, Any]) -> bool:
    """False where it is gone. Raises CorpusError where its contents are others."""
    if not path.is_file():
        return False
    now = path.stat()
    if state["sha256"] is None or (now.st_size, now.st_mtime_ns) == (state["size"], state["mtime_ns"]):
        return True
    found = hash_file(path)
    if found != state["sha256"]:
        raise CorpusError(
            f"{path} has changed since {corpus.path} was made of it: SHA-256 {state['sha256']} then, {found} now. Make "
            "another corpus in another folder, or remove this one."
        )
    return True
