"""The one file that knows how a run directory is laid out.

A run is a folder. What grows is JSON lines, fsynced, where a torn last line is
forgiven and nothing else is. What does not grow is written to a temporary name
and renamed, so that a reader sees the old file or the new one. Nothing in it is
pickled. A checkpoint remembers how long the growing files were; resuming cuts
them back to that, which is why a killed run writes the same bytes again.

    config.yaml  environment.json  provenance.json
    metrics.jsonl  timing.jsonl  events.jsonl  samples.jsonl
    completions/  evaluations/step-00000100.npz  checkpoints/step-00000100/
    student/  verdict.json  report.html
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from potstill.records import EvaluationRecord, Measured

#: Reproducible and truncated on resume. timing.jsonl and events.jsonl are a
#: diary of what really happened, kills included, and are never cut.
GROWING = ("metrics.jsonl", "samples.jsonl")


class RunDirError(RuntimeError):
    """The directory is not what the caller needs; the message says how to mend it."""


def to_json(value: Any) -> str:
    """One canonical line: sorted keys, no spaces, NaN refused."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(value: Any) -> str:
    """A short stable name for any JSON value."""
    return hashlib.sha256(to_json(value).encode()).hexdigest()[:16]


class RunDir:
    """A run's folder; opening it creates nothing."""

    def __init__(self, path: str | Path):
        self.path = Path(path)

    def file(self, name: str) -> Path:
        return self.path / name

    # -- files that grow ---------------------------------------------------

    def append(self, name: str, record: Mapping[str, Any]) -> None:
        """Append one JSON line and fsync it; a torn last line is cut off first."""
        append_lines(self.file(name), [record])

    def lines(self, name: str) -> Iterator[dict[str, Any]]:
        """The records of a growing file; a torn last line is left out."""
        return read_lines(self.file(name))

    def lengths(self) -> dict[str, int]:
        """Bytes of each growing file now, for a checkpoint to remember."""
        return {n: self.file(n).stat().st_size if self.file(n).exists() else 0 for n in GROWING}

    def rewind(self, lengths: Mapping[str, int], step: int) -> None:
        """Cut the growing files back to a checkpoint's lengths, drop later evaluations."""
        for name in GROWING:
            path, length = self.file(name), lengths.get(name, 0)
            size = path.stat().st_size if path.exists() else 0
            if size < length:
                raise RunDirError(
                    f"{path} holds {size} bytes, the checkpoint of step {step} saw {length}: it was "
                    "cut since. Restore it, or start in a new output directory."
                )
            if path.exists():
                os.truncate(path, length)
        for evaluated, path in self._numbered("evaluations", ".npz"):
            if evaluated > step:
                path.unlink()

    def rewind_to_step(self, step: int) -> None:
        """The same for whoever kept no lengths: cut before the first line of a later step (-1: of any)."""
        self.rewind({name: self._bytes_until(name, step) for name in GROWING}, step)

    def _bytes_until(self, name: str, step: int) -> int:
        path, length = self.file(name), 0
        cut_torn_line(path)
        for line in path.read_bytes().splitlines(keepends=True) if path.exists() else ():
            if json.loads(line)["step"] > step:
                break
            length += len(line)
        return length

    # -- files that are replaced whole -------------------------------------

    def write_text(self, name: str, text: str) -> Path:
        return write_atomic(self.file(name), text.encode())

    def write_json(self, name: str, value: Any) -> Path:
        return self.write_text(name, json.dumps(value, indent=2, sort_keys=True) + "\n")

    def read_json(self, name: str) -> Any:
        return json.loads(self.file(name).read_text())

    def read_config(self) -> dict[str, Any]:
        """The run's configuration as plain values."""
        path = self.file("config.yaml")
        if not path.is_file():
            raise RunDirError(f"{self.path} is no run directory: it has no config.yaml")
        tree: dict[str, Any] = yaml.safe_load(path.read_text())
        return tree

    # -- evaluations ---------------------------------------------------------

    def write_evaluation(self, record: EvaluationRecord) -> Path:
        """Store as .npz whose bytes depend on the record alone (no time stamps)."""
        arrays: dict[str, np.ndarray] = {"step": np.array(record.step)}
        for name, measured in record.series.items():
            arrays[f"series/{name}/prompt_ids"] = np.asarray(measured.prompt_ids, dtype=np.str_)
            arrays[f"series/{name}/sums"] = np.asarray(measured.sums, dtype=np.float64)
            arrays[f"series/{name}/tokens"] = np.asarray(measured.tokens, dtype=np.int64)
        arrays["splits/ids"] = np.array(list(record.splits), dtype=np.str_)
        arrays["splits/names"] = np.array(list(record.splits.values()), dtype=np.str_)
        for name, value in record.scalars.items():
            arrays[f"scalars/{name}"] = np.array(value, dtype=np.float64)
        return write_atomic(self._evaluation_path(record.step), npz_bytes(arrays))

    def evaluations(self) -> list[EvaluationRecord]:
        """All evaluations on disk, by step."""
        return [read_evaluation(path) for _, path in self._numbered("evaluations", ".npz")]

    def evaluation_steps(self) -> list[int]:
        """Steps that were evaluated."""
        return [step for step, _ in self._numbered("evaluations", ".npz")]

    def _evaluation_path(self, step: int) -> Path:
        return self.path / "evaluations" / f"step-{step:08d}.npz"

    # -- checkpoints ---------------------------------------------------------

    def checkpoint_path(self, step: int) -> Path:
        return self.path / "checkpoints" / f"step-{step:08d}"

    def checkpoint_steps(self) -> list[int]:
        """Steps whose checkpoint was completed (renamed into place)."""
        return [step for step, _ in self._numbered("checkpoints", "")]

    @contextmanager
    def building(self, target: Path, *, lead: bool = True) -> Iterator[Path]:
        """A scratch folder that becomes `target` when the block ends well.

        When it does not (disk full, kill), `target` is as it was. `lead` is False
        on the ranks that only write into the folder.
        """
        scratch = target.with_name(f".unfinished-{target.name}")
        if lead:
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir(parents=True)
        try:
            yield scratch
        except BaseException:
            if lead:
                shutil.rmtree(scratch, ignore_errors=True)
            raise
        if lead:
            if target.exists():
                shutil.rmtree(target)
            os.rename(scratch, target)
            sync_folder(target.parent)

    def drop_unfinished(self) -> None:
        """Remove what killed writers left behind."""
        for path in self.path.glob("**/.unfinished-*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _numbered(self, folder: str, suffix: str) -> list[tuple[int, Path]]:
        found = (self.path / folder).glob(f"step-*{suffix}")
        return sorted((int(p.name.removesuffix(suffix)[5:]), p) for p in found)


def read_evaluation(path: Path) -> EvaluationRecord:
    """Read what `RunDir.write_evaluation` wrote."""
    with np.load(path, allow_pickle=False) as stored:
        names = [key.split("/")[1] for key in stored.files if key.endswith("/sums")]
        series = {
            name: Measured(*(stored[f"series/{name}/{part}"] for part in ("prompt_ids", "sums", "tokens")))
            for name in names
        }
        splits = dict(zip(stored["splits/ids"].tolist(), stored["splits/names"].tolist(), strict=True))
        scalars = {k.split("/", 1)[1]: float(stored[k]) for k in stored.files if k.startswith("scalars/")}
        return EvaluationRecord(int(stored["step"]), series, splits, scalars)


def npz_bytes(arrays: Mapping[str, np.ndarray]) -> bytes:
    """An .npz with fixed dates: numpy's own writer stamps the time into the zip."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            data = io.BytesIO()
            np.lib.format.write_array(data, np.asarray(array), allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, data.getvalue())
    return buffer.getvalue()


def write_atomic(path: Path, data: bytes) -> Path:
    """Write to a temporary name beside `path`, fsync, rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".unfinished-{path.name}")
    with open(scratch, "wb") as handle:
        handle.write(data)
        handle.flush()
        os.fsync(handle.fileno())
    os.replace(scratch, path)
    sync_folder(path.parent)
    return path


def sync_folder(folder: Path) -> None:
    """Make a rename survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def append_lines(path: Path, records: list[Mapping[str, Any]]) -> None:
    """Append JSON lines with one fsync; what a kill tore off the end is cut first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cut_torn_line(path)
    with open(path, "ab") as handle:
        handle.write("".join(to_json(record) + "\n" for record in records).encode())
        handle.flush()
        os.fsync(handle.fileno())


def cut_torn_line(path: Path) -> None:
    if not path.exists() or path.stat().st_size == 0:
        return
    with open(path, "rb+") as handle:
        handle.seek(-1, os.SEEK_END)
        if handle.read(1) == b"\n":
            return
        handle.seek(0)
        handle.truncate(handle.read().rfind(b"\n") + 1)


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """JSON lines; only the last may be torn, any other bad line is corruption."""
    if not path.exists():
        return
    text = path.read_bytes().decode("utf-8", errors="strict" if path.stat().st_size == 0 else "replace")
    for number, line in enumerate(text.split("\n")[:-1], start=1):
        try:
            yield json.loads(line)
        except json.JSONDecodeError as error:
            raise RunDirError(
                f"{path}, line {number}: not JSON ({error.msg}). Only the last line may be torn; "
                "this file was edited or damaged. Restore it or start in a new output directory."
            ) from error
