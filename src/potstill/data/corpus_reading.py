"""Documents out of files, the hub, and generators, one after another, each with the place where it stands.

Nothing is held but the document at hand. Whatever is wrong is refused with its place, or left
out and counted where the source says so. A byte order mark is no text, and lines may end as
Windows ends them; in a .txt file every such end becomes a plain one. Blank lines and blank
paragraphs separate documents and are none. A document of nothing but spaces is left out, always.
"""

from __future__ import annotations

import glob
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from potstill.config.corpus import FilesText, GeneratedText, HubText, TextSource
from potstill.data.corpus import CorpusError
from potstill.data.corpus_faults import LeftOut, broken, no_column, not_text
from potstill.data.corpus_files import UNPACKING, SourceFiles, unpacked_name
from potstill.data.corpus_rows import hub_rows, parquet_rows

#: Documents that the package writes itself: (source) -> texts. They come from above, where the writers are.
Generate = Callable[[GeneratedText], Iterator[str]]
ENDINGS = (".txt", ".jsonl", ".parquet")
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Document:
    """A text and where it stood."""

    where: str
    text: str


@dataclass
class Reading:
    """What a reader needs and finds: its files, what it leaves out, and who is told of bytes read."""

    files: SourceFiles = field(default_factory=SourceFiles)
    left_out: LeftOut = field(default_factory=LeftOut)
    told: Callable[[int], None] = lambda count: None


def read_all(sources: Iterable[TextSource], generate: Generate, reading: Reading) -> Iterator[Document]:
    """All documents of several sources in order. Raises CorpusError."""
    return chain.from_iterable(read_documents(source, generate, reading) for source in sources)


def read_documents(source: TextSource, generate: Generate, reading: Reading) -> Iterator[Document]:
    """All documents of a source in order; what is left out is counted in `reading.left_out`.

    Raises CorpusError: with the place, what was expected and found, and how to mend it.
    """
    if isinstance(source, GeneratedText):
        for number, text in enumerate(generate(source), start=1):
            reading.told(len(text))
            yield Document(f"{source.corpus}, document {number}", text)
    elif isinstance(source, HubText):
        yield from _texts(hub_rows(source, reading.left_out), source.on_broken, reading)
    else:
        for path in files_of(source):
            yield from _from_file(path, source, reading)


def files_of(source: FilesText) -> list[Path]:
    """The files that the paths and patterns name, each once, in order.

    Raises CorpusError: nothing matches, a folder, an ending that is not known.
    """
    found: dict[Path, None] = {}
    for pattern in source.paths:
        names = [pattern] if Path(pattern).exists() else sorted(glob.glob(pattern, recursive=True))
        paths = [path for path in map(Path, names) if not path.is_dir()]
        if not paths:
            raise CorpusError(_nothing_there(pattern, [Path(name) for name in names]))
        for path in paths:
            if unpacked_name(path) not in ENDINGS:
                raise CorpusError(
                    f"{path}: expected a name that ends in {', '.join(ENDINGS)} (.txt and .jsonl may be packed: .gz, "
                    f".xz), found {''.join(path.suffixes) or 'no ending'}. Rename it or take it out of `paths`."
                )
        found |= dict.fromkeys(paths)
    return list(found)


def _nothing_there(pattern: str, folders: list[Path]) -> str:
    if folders:
        return f"{pattern} is a folder. Name the files in it, such as {folders[0] / '*.jsonl'}."
    return f"no file matches {pattern!r} (looked from {Path.cwd()}). Check `paths`."


def _from_file(path: Path, source: FilesText, reading: Reading) -> Iterator[Document]:
    """Raises CorpusError."""
    before, documents = reading.left_out.total, 0
    parse = {".txt": _parse_txt, ".jsonl": _parse_jsonl, ".parquet": _parse_parquet}[unpacked_name(path)]
    reading.files.opening(path)
    for document in parse(path, source, reading):
        documents += 1
        yield document
    if not documents and reading.left_out.total == before:
        broken(source.on_broken, reading.left_out, "a file without documents", str(path), "the file holds no documents",
               "Write it again, take it out of `paths`")  # fmt: skip


def _parse_parquet(path: Path, source: FilesText, reading: Reading) -> Iterator[Document]:
    yield from _texts(parquet_rows(path, source, reading.left_out), source.on_broken, reading)
    reading.files.finish([path])
    reading.told(path.stat().st_size)


def _parse_jsonl(path: Path, source: FilesText, reading: Reading) -> Iterator[Document]:
    def values() -> Iterator[tuple[str, Any]]:
        for line in _lines(path, source, reading):
            where = f"{path}, line {line.number}"
            text = _decoded(path, line, source, reading) if line.data.strip() else None
            if text is None:
                continue
            try:
                row = json.loads(text)
            except (ValueError, RecursionError) as error:
                broken(source.on_broken, reading.left_out, "no JSON", where, f"expected JSON, found a fault ({error})",
                       "Write one JSON object on every line")  # fmt: skip
                continue
            if isinstance(row, dict) and source.text in row:
                yield where, row[source.text]
                continue
            if isinstance(row, dict):
                why, found = "no such column", no_column(source.text, row)
            else:
                why, found = "no JSON object", f"expected a JSON object, found {type(row).__name__}"
            broken(source.on_broken, reading.left_out, why, where, found,
                   "Set `text` to the column that holds the text")  # fmt: skip

    yield from _texts(values(), source.on_broken, reading)


def _texts(values: Iterable[tuple[str, Any]], on_broken: str, reading: Reading) -> Iterator[Document]:
    """Documents of the values that are texts."""
    for where, value in values:
        fault = not_text(value)
        if fault is not None:
            broken(on_broken, reading.left_out, "no text", where, fault, "Write it again")
        elif not value.strip():
            reading.left_out.add("empty", where)
        else:
            yield Document(where, value)


def _parse_txt(path: Path, source: FilesText, reading: Reading) -> Iterator[Document]:
    if source.txt_documents == "file":
        yield from _whole(path, source, reading)
        return
    parts = _paragraphs(_lines(path, source, reading)) if source.txt_documents == "paragraph" else (
        [line] for line in _lines(path, source, reading)
    )  # fmt: skip
    for number, part in enumerate(parts, start=1):
        texts = [_decoded(path, line, source, reading) for line in part]
        text = None if None in texts else "\n".join(map(str, texts))
        if text and text.strip():
            yield Document(f"{path}, {source.txt_documents} {number}", text)


def _whole(path: Path, source: FilesText, reading: Reading) -> Iterator[Document]:
    try:
        with reading.files.reading(path, reading.told) as handle:
            data = handle.read().removeprefix(BYTE_ORDER_MARK).replace(b"\r\n", b"\n")
    except UNPACKING as error:
        _cut(path, "", error, source, reading)
        return
    at = _broken_at(data)
    if at is not None:
        last = data.rfind(b"\n", 0, at) + 1
        _decoded(path, _Line(data.count(b"\n", 0, at) + 1, last, data[last : at + 4]), source, reading)
    elif data.strip():
        yield Document(str(path), data.decode())


def _broken_at(data: bytes) -> int | None:
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return error.start
    return None


class _Line(NamedTuple):
    number: int  # from 1
    start: int  # bytes before it
    data: bytes  # without its end


def _lines(path: Path, source: FilesText, reading: Reading) -> Iterator[_Line]:
    """A file's lines; after a last line that ends, an empty one, as str.split has it."""
    number, start, ended = 0, 0, False
    try:
        with reading.files.reading(path, reading.told) as handle:
            for number, raw in enumerate(handle, start=1):
                data = raw.removeprefix(BYTE_ORDER_MARK) if number == 1 else raw
                ended = data.endswith(b"\n")
                yield _Line(number, start + len(raw) - len(data), data.removesuffix(b"\r\n").removesuffix(b"\n"))
                start += len(raw)
    except UNPACKING as error:
        _cut(path, f" after line {number}", error, source, reading)
        return
    if ended:
        yield _Line(number + 1, start, b"")


def _cut(path: Path, place: str, error: BaseException, source: FilesText, reading: Reading) -> None:
    """A packed file that ends too early; what stood before the fault is kept where faults are skipped."""
    broken(source.on_broken, reading.left_out, "a packed file that is damaged or cut: the rest of it", f"{path}{place}",
           f"the packed file is damaged or cut ({error})", "Fetch it again")  # fmt: skip
    reading.files.finish([path])


def _paragraphs(lines: Iterable[_Line]) -> Iterator[list[_Line]]:
    """Lines between blank ones: text.split("\\n\\n"), line by line."""
    part: list[_Line] = []
    blank: _Line | None = None
    for line in lines:
        if blank is not None:
            yield part
            part, blank = [line], None
        elif part and not line.data:
            blank = line
        else:
            part.append(line)
    if blank is not None:
        part.append(blank)
    if part:
        yield part


def _decoded(path: Path, line: _Line, source: FilesText, reading: Reading) -> str | None:
    """A line's text; None where it is no UTF-8 and left out."""
    try:
        return line.data.decode()
    except UnicodeDecodeError as error:
        meant = " (it begins like UTF-16)" if line.start == 0 and line.data[:2] in (b"\xff\xfe", b"\xfe\xff") else ""
        place = f"{path}, line {line.number}"
        broken(source.on_broken, reading.left_out, "no UTF-8", place,
               f"expected UTF-8, found {error.reason} at byte {line.start + error.start} of the text{meant}",
               "Save the file as UTF-8")  # fmt: skip
        return None
