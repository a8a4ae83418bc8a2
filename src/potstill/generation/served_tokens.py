"""From what a server says about tokens to ids of a tokenizer at hand.

Some servers return ids. Others describe each token by its text and bytes, which name
an id only where one token of the tokenizer has these bytes. Where a single sampled
token has no id, or what was found spells another text, nothing of it is used and the
text is tokenised: then the ids are not what was sampled, and the history says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from potstill.data.encode import encode_answer
from potstill.generation.wire import Answer, ServedToken

_AS_ID = "token_id:"  # vLLM's return_tokens_as_token_ids


@dataclass(frozen=True, slots=True)
class Tokenised:
    """An answer in token ids, its end included where it ended."""

    ids: tuple[int, ...]
    logprobs: tuple[float, ...] | None
    top_ids: tuple[tuple[int, ...], ...] | None
    top_logprobs: tuple[tuple[float, ...], ...] | None
    how: Literal["served", "matched", "retokenised"]
    end_appended: bool  # the server did not say with which probability the answer ended


class TokenMap:
    """Bytes of every token of a tokenizer, and the other way round."""

    def __init__(self, tokenizer: Any):
        vocabulary: dict[str, int] = tokenizer.get_vocab()
        added = {i: str(token) for i, token in tokenizer.added_tokens_decoder.items()}
        self.tokenizer = tokenizer
        self.specials = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
        self.byte_level = {"Ġ", "Ċ"} <= set(vocabulary)
        alphabet = byte_alphabet()
        self.bytes_of: dict[int, bytes] = {}
        for name, i in vocabulary.items():
            self.bytes_of[i] = added[i].encode() if i in added else self._spell(name, alphabet)
        self.id_of: dict[bytes, int | None] = {}
        fallback = {i for name, i in vocabulary.items() if not self.byte_level and _byte_name(name) is not None}
        for i in sorted(self.bytes_of, key=lambda i: (i in fallback, i)):
            spelled = self.bytes_of[i]
            if spelled in self.id_of and i not in fallback:
                self.id_of[spelled] = None  # two tokens are written alike: no telling which it was
            self.id_of.setdefault(spelled, i)

    def _spell(self, name: str, alphabet: dict[str, int]) -> bytes:
        if self.byte_level:
            return bytes(alphabet[c] for c in name) if all(c in alphabet for c in name) else name.encode()
        single = _byte_name(name)
        return name.replace("▁", " ").encode() if single is None else single

    def find(self, token: ServedToken) -> int | None:
        """The id of a token, or None where it is not certain."""
        if token.text.startswith(_AS_ID):
            number = token.text.removeprefix(_AS_ID)
            return int(number) if number.isdigit() and int(number) in self.bytes_of else None
        if token.raw:
            return self.id_of.get(token.raw)
        # A part of a character is shown as U+FFFD, and so are all others.
        return None if "\ufffd" in token.text else self.id_of.get(token.text.encode())

    def find_all(self, tokens: Sequence[ServedToken], content: str) -> tuple[int, ...] | None:
        """Ids of an answer's tokens where all are certain and they spell `content` (ends aside)."""
        found = [self.find(token) for token in tokens]
        ids = tuple(i for i in found if i is not None)
        if len(ids) < len(found) or not ids:
            return None
        first = self.bytes_of[ids[0]]
        if not self.byte_level and not first.startswith(b" ") and self.id_of.get(b" " + first) is not None:
            return None  # servers cut the space off an answer's first token, so it may be either
        return ids if self.spell(ids) == content.encode() else None

    def spell(self, ids: Sequence[int]) -> bytes:
        """The bytes of these tokens, without special tokens at the end."""
        stop = len(ids)
        while stop and ids[stop - 1] in self.specials:
            stop -= 1
        return b"".join(self.bytes_of[i] for i in ids[:stop])


def tokenise(answer: Answer, known: TokenMap) -> Tokenised:
    """Ids of an answer: the server's own, else matched token by token, else its text tokenised again."""
    tokens = answer.tokens
    ids, how = _served_ids(answer, known), "served"
    if ids is None and tokens is not None:
        ids, how = known.find_all(tokens, answer.text), "matched"
    if ids is None:
        ids = encode_answer(known.tokenizer, answer.text)
        return Tokenised(ids if answer.finish == "stop" else ids[:-1], None, None, None, "retokenised", False)
    append = answer.finish == "stop" and not (ids and ids[-1] in known.specials)
    end = (int(known.tokenizer.eos_token_id),) if append else ()
    logprobs = top_ids = top_logprobs = None
    if tokens is not None and len(tokens) == len(ids):
        # 0.0 for an end that was not served: as if the teacher had been certain, having drawn it.
        logprobs = (*(round(min(token.logprob, 0.0), 6) for token in tokens), *(0.0 for _ in end))
        if any(token.top for token in tokens):
            pairs = [_top(token, known) for token in tokens] + [((), ())] * len(end)
            top_ids, top_logprobs = tuple(p[0] for p in pairs), tuple(p[1] for p in pairs)
    return Tokenised((*ids, *end), logprobs, top_ids, top_logprobs, how, append)  # type: ignore[arg-type]


def _served_ids(answer: Answer, known: TokenMap) -> tuple[int, ...] | None:
    """The server's ids, unless they spell something else: then they are of another vocabulary."""
    ids = answer.token_ids
    if not ids and answer.tokens and all(token.text.startswith(_AS_ID) for token in answer.tokens):
        found = [known.find(token) for token in answer.tokens]
        ids = tuple(i for i in found if i is not None) if None not in found else None
    if not ids or any(i not in known.bytes_of for i in ids):
        return None
    return ids if answer.content.strip() in known.spell(ids).decode(errors="replace") else None


def _top(token: ServedToken, known: TokenMap) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Likeliest first; an entry without a certain id is left to the tail, with its probability."""
    best: dict[int, float] = {}
    for other in sorted(token.top, key=lambda other: -other.logprob):
        if (i := known.find(other)) is not None and other.logprob > -1000:  # servers write -9999 for minus infinity
            best.setdefault(i, round(min(other.logprob, 0.0), 6))
    return tuple(best), tuple(best.values())


def byte_alphabet() -> dict[str, int]:
    """Character -> byte in byte-level vocabularies: printable Latin-1 is itself, the others follow from U+0100."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(b): b for b in printable} | {chr(0x100 + n): b for n, b in enumerate(others)}


def _byte_name(name: str) -> bytes | None:
    """The byte of SentencePiece's <0x0A>, else None."""
    digits = name[3:5]
    whole = len(name) == 6 and name.startswith("<0x") and name.endswith(">")
    return bytes([int(digits, 16)]) if whole and set(digits) <= set("0123456789ABCDEF") else None
