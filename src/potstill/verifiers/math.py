r"""The completion's answer equals the reference's as mathematics.

Plain numbers are compared here, exactly: thousands separators, a currency sign before, a unit behind and a
full stop do not count, and with a percent sign both 50% and 0.5 are what was meant. What is no plain number
goes to the library math-verify (LaTeX and computer algebra) in a process of its own, which is killed when it
takes too long. Answers in words are compared as text: read as algebra, "stop" and "post" would be equal.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from fractions import Fraction

from potstill.config.verify import Math, Normalisation
from potstill.records import Completion, Prompt
from potstill.verifiers.base import Outcome, VerifierError, reference_of
from potstill.verifiers.exact import normalise
from potstill.verifiers.extraction import extract

_START_SECONDS = 120.0
_LONGEST = 2000  # characters; no answer is as long, and computer algebra on one would only time out
_PLAIN = re.compile(
    r"(?P<sign>[-\u2212+]?)\s*[$€£¥₹]?\s*(?P<sign2>[-\u2212]?)(?P<digits>(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d*)?|\.\d+)"
    r"(?:\s*/\s*(?P<lower>\d+))?\s*(?P<percent>%|percent\b)?\s*"
    r"(?P<unit>(?:(?!and\b|or\b)[^\W\d_]{2,}(?:\^?[23])?(?:\s*/\s*[^\W\d_]+)?[\s.-]*)*)"
)
_WORD = re.compile(r"[^\W\d_]{3,}")
_TEXT = re.compile(r"\\(?:text|mathrm|mbox|textbf)\s*\{([^{}]*)\}")
_AS_TEXT = Normalisation(punctuation=False)  # brackets mean something: [1, 2) is not [1, 2]


@dataclass(frozen=True, slots=True)
class _Plain:
    value: Fraction
    percent: bool
    decimal: bool


def read_number(text: str) -> _Plain | None:
    """A plain number with all that may surround it, or None; powers of units and words are left out."""
    text = _TEXT.sub(r" \1", text)
    text = text.replace("\\$", "$").replace("\\%", "%").replace("{,}", ",").replace("\\!", "").replace("\\ ", " ")
    match = _PLAIN.fullmatch(text.strip().strip("$*").rstrip(" ."))
    if match is None or (match["lower"] is not None and int(match["lower"]) == 0) or len(match["digits"]) > 1000:
        return None
    value = Fraction(match["digits"].replace(",", "").rstrip(".")) / int(match["lower"] or 1)
    negative = (match["sign"] in ("-", "\u2212")) != bool(match["sign2"])
    return _Plain(-value if negative else value, match["percent"] is not None, "." in match["digits"])


def same_number(one: _Plain, other: _Plain, decimals: int) -> bool:
    """Exactly equal; numbers with a point at so many places; a percent sign may mean a hundredth or nothing."""
    close = Fraction(1, 2 * 10**decimals) if one.decimal or other.decimal else Fraction(0)
    values = [{n.value, n.value / 100} if n.percent else {n.value} for n in (one, other)]
    if one.percent == other.percent:
        values = [{one.value}, {other.value}]
    return any(abs(a - b) <= close for a in values[0] for b in values[1])


@dataclass
class MathVerifier:
    """Equality as mathematics; holds the process that does the algebra. Close it, or use `with`."""

    config: Math
    name: str = "math"
    version: str = "1+math-verify"
    _worker: subprocess.Popen[str] | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        from importlib.metadata import PackageNotFoundError, version

        try:
            self.version = f"1+math-verify-{version('math-verify')}"
        except PackageNotFoundError as error:
            raise VerifierError("the math verifier needs the package math-verify: pip install math-verify") from error

    def verify(self, prompt: Prompt, completion: Completion) -> Outcome:
        """right, wrong, no_answer, unparsed, unparsed_reference or timeout."""
        reference = reference_of(prompt, self.name)
        answer = extract(completion.text, self.config.answer, self.config.markers)
        if answer is None:
            return Outcome(False, "no_answer", f"nothing found by {', '.join(self.config.answer)}")
        wanted = extract(reference, ("boxed", "marker"), self.config.markers) or reference.strip()
        label = self.compare(wanted, answer)
        return Outcome(label == "right", label, f"{answer!r} for {wanted!r}")

    def compare(self, wanted: str, answer: str) -> str:
        """The label of an answer that was extracted."""
        ours, theirs = read_number(answer), read_number(wanted)
        if ours is not None and theirs is not None:
            return "right" if same_number(ours, theirs, self.config.decimals) else "wrong"
        if _as_text(answer) == _as_text(wanted):
            return "right"
        if _in_words(wanted) or _in_words(answer):
            return "wrong"
        if len(answer) > _LONGEST:
            return "unparsed"
        return self._ask(wanted.strip("$ "), answer.strip("$ "))

    def _ask(self, gold: str, answer: str) -> str:
        with self._lock:
            worker = self._started()
            assert worker.stdin is not None
            request = {"gold": gold, "answer": answer, "decimals": self.config.decimals}
            worker.stdin.write(json.dumps(request) + "\n")
            worker.stdin.flush()
            line = self._line(worker, self.config.timeout_seconds)
            if line is None:
                return "timeout"
            return str(json.loads(line))

    def _started(self) -> subprocess.Popen[str]:
        if self._worker is not None and self._worker.poll() is not None:
            self.close()
        if self._worker is None:
            command = [sys.executable, "-m", "potstill.verifiers.math_worker"]
            self._worker = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
            if self._line(self._worker, _START_SECONDS) is None:
                raise VerifierError(f"the algebra process did not start: run {' '.join(command)} to see why")
        return self._worker

    def _line(self, worker: subprocess.Popen[str], seconds: float) -> str | None:
        """The next line, or None where the process took too long or died; it is gone then."""
        assert worker.stdout is not None
        watch = threading.Timer(seconds, worker.kill)
        watch.start()
        line = worker.stdout.readline()
        watch.cancel()
        watch.join()
        if line.endswith("\n"):
            return line
        self.close()
        return None

    def close(self) -> None:
        """End the process; the next comparison starts another."""
        if self._worker is None:
            return
        self._worker.kill()
        self._worker.wait()
        for pipe in (self._worker.stdin, self._worker.stdout):
            if pipe is not None:
                pipe.close()
        self._worker = None

    def __enter__(self) -> MathVerifier:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


def _as_text(text: str) -> str:
    return normalise(_TEXT.sub(r"\1", text).strip("$*. \t\n"), _AS_TEXT)


def _in_words(text: str) -> bool:
    bare = _TEXT.sub(r"\1", text)
    return _WORD.search(re.sub(r"\\[a-zA-Z]+|(?<![^\W\d_])(?:sqrt|sin|cos|tan|log|exp|pi)", " ", bare)) is not None
