"""How targets lie in bytes: columns of unsigned numbers, each of a fixed few bits.

Fixed widths, so that any number can be read without those before it: number i of a
column of b bits starts at bit i x b. Reading takes eight bytes from wherever that is,
shifts and masks, for all numbers at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

#: Log-probs lie between 0 and so many nats below it; what is less likely is stored as this.
LOG_PROB_RANGE = 32.0
TAIL_BITS = 16
#: Numbers packed at once: a multiple of 8, so that each part ends with a byte.
PACKED_AT_ONCE = 1 << 16
#: Bytes after each column, so that eight can be read from any of its own.
SLACK = 8
WHOLE: dict[int, np.dtype[Any]] = {8: np.dtype("<u1"), 16: np.dtype("<u2"), 32: np.dtype("<u4")}


@dataclass(frozen=True)
class Column:
    """Numbers of `bits` bits, `repeat` of them for each position or each entry."""

    name: str
    per: Literal["position", "entry"]
    bits: int
    repeat: int = 1

    def num_bytes(self, positions: int, entries: int) -> int:
        """On disk, padded to eight bytes."""
        count = (positions if self.per == "position" else entries) * self.repeat
        return -(-count * self.bits // 64) * 8 + SLACK


def bits_for(values: int) -> int:
    """Bits that tell so many values apart; at least 1."""
    return max(1, (values - 1).bit_length())


def columns_of(form: str, settings: dict[str, Any], width: int) -> tuple[Column, ...]:
    """What a shard of this format holds, in order; `width` is V, `settings` those of the cache's header.

    `count` is the number of entries less one: no position is without any.
    """
    if form == "final_hidden":
        bits = {"fp32": 32, "fp16": 16, "bf16": 16}[settings["dtype"]]
        return (Column("hidden", "position", bits, settings["hidden_width"]),)
    ids = Column("id", "entry", bits_for(width))
    if form == "kept":
        most = min(settings["top_k"], width) + 1
        return (
            Column("count", "position", bits_for(most)),
            Column("tail", "position", TAIL_BITS),
            ids,
            Column("log_prob", "entry", settings["log_prob_bits"]),
        )
    most = settings["draws"]
    return (
        Column("count", "position", bits_for(most)),
        Column("entropy", "position", 32),
        ids,
        Column("times", "entry", bits_for(most)),
    )


def pack(values: np.ndarray, bits: int) -> bytes:
    """Unsigned numbers below 2^bits, bits <= 32, the lowest bit first, padded as `Column.num_bytes` says.

    Raises ValueError for a number that does not fit.
    """
    values = values.reshape(-1)
    if len(values) and int(values.max()) >> bits:
        raise ValueError(f"{int(values.max())} does not fit into {bits} bits")
    if bits in WHOLE:
        data = values.astype(WHOLE[bits], copy=False).tobytes()
    else:
        data = b"".join(_pack_part(values[i : i + PACKED_AT_ONCE], bits) for i in range(0, len(values), PACKED_AT_ONCE))
    size = Column("", "entry", bits).num_bytes(0, len(values))
    return data + bytes(size - len(data))


def _pack_part(values: np.ndarray, bits: int) -> bytes:
    shifts = np.arange(bits, dtype=np.uint32)
    spread = (values.astype(np.uint32)[:, None] >> shifts) & np.uint32(1)
    packed: bytes = np.packbits(spread.astype(np.uint8).reshape(-1), bitorder="little").tobytes()
    return packed


def unpack(data: np.ndarray, column: Column, which: np.ndarray) -> np.ndarray:
    """Numbers `which` [n] int64 of a column whose bytes are `data` (uint8): [n], or [n, repeat] where it repeats."""
    if column.bits in WHOLE:
        kind = WHOLE[column.bits]
        whole: np.ndarray = data[: len(data) - len(data) % kind.itemsize].view(kind)
        if column.repeat > 1:
            rows = len(whole) // column.repeat
            whole = whole[: rows * column.repeat].reshape(rows, column.repeat)
        found: np.ndarray = whole[which]
        return found
    # A view of every eight bytes in a row, overlapping; nothing is copied.
    words: np.ndarray = np.ndarray((len(data) - 7,), "<u8", buffer=data, strides=(1,))
    first = which * column.bits
    mask = np.uint64((1 << column.bits) - 1)
    found = (words[first >> 3] >> (first & 7).astype(np.uint64)) & mask
    return found


def to_steps(log_probs: np.ndarray, bits: int) -> np.ndarray:
    """Log-probs -> the nearest of 2^bits equal steps between 0 and -32 nats."""
    steps = (1 << bits) - 1
    scaled = np.clip(-log_probs.astype(np.float64), 0, LOG_PROB_RANGE) * (steps / LOG_PROB_RANGE)
    return np.rint(scaled).astype(np.uint32)


def from_steps(codes: np.ndarray, bits: int) -> np.ndarray:
    """The log-probs, fp32, that `to_steps` stored."""
    return (codes.astype(np.float64) * (-LOG_PROB_RANGE / ((1 << bits) - 1))).astype(np.float32)


def tail_to_steps(mass: np.ndarray) -> np.ndarray:
    """Probabilities -> steps of their logarithm; the last step is for none at all."""
    with np.errstate(divide="ignore"):
        logs = np.log(mass.astype(np.float64))
    codes = np.minimum(to_steps(np.maximum(logs, -LOG_PROB_RANGE), TAIL_BITS), (1 << TAIL_BITS) - 2)
    return np.where(mass > 0, codes, (1 << TAIL_BITS) - 1).astype(np.uint32)


def tail_from_steps(codes: np.ndarray) -> np.ndarray:
    """The probabilities, fp32, that `tail_to_steps` stored."""
    mass = np.exp(from_steps(codes, TAIL_BITS))
    return np.where(codes == (1 << TAIL_BITS) - 1, np.float32(0), mass).astype(np.float32)
