"""From targets to columns and back, for each of the three formats."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from potstill.data.cache_format import from_steps, tail_from_steps, tail_to_steps, to_steps
from potstill.data.cache_index import CacheError, Header
from potstill.head import Head
from potstill.targets import FinalHidden, Kept, Sampled, TeacherTargets

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
Values = dict[str, np.ndarray]


def encode(header: Header, targets: TeacherTargets) -> tuple[Values, np.ndarray]:
    """Column -> values of all positions or entries, one after another; and [N] entries of each position.

    Raises CacheError: targets of another form, hidden states that do not fit into their type.
    """
    if isinstance(targets, FinalHidden) and header.format == "final_hidden":
        return {"hidden": _bits_of(targets.hidden, header.settings["dtype"])}, np.zeros(len(targets.hidden), np.int64)
    if isinstance(targets, Kept) and header.format == "kept":
        there = targets.valid
        values = {
            "tail": tail_to_steps(targets.tail_mass.cpu().numpy()),
            "log_prob": to_steps(targets.log_probs[there].cpu().numpy(), header.settings["log_prob_bits"]),
        }
    elif isinstance(targets, Sampled) and header.format == "sampled":
        there = targets.counts > 0
        values = {
            "entropy": targets.entropy.float().cpu().numpy().view(np.uint32),
            "times": targets.counts[there].cpu().numpy() - 1,
        }
    else:
        raise CacheError(f"a cache of {header.format} targets cannot hold {type(targets).__name__}")
    entries = there.sum(-1).cpu().numpy()
    return values | {"id": targets.ids[there].cpu().numpy(), "count": entries - 1}, entries


def decode(
    header: Header, read: Callable[[str], np.ndarray], head: Head | None, device: torch.device
) -> TeacherTargets:  # fmt: skip
    """Targets of the positions for which `read(column)` gives the values; `head` for hidden states."""
    if header.format == "final_hidden":
        assert head is not None
        hidden = _floats_of(read("hidden"), header.settings["dtype"]).to(device)
        return FinalHidden(hidden.to(_computing(head)), head, header.fingerprint, header.width, header.shared)
    entries = read("count").astype(np.int64) + 1
    if header.format == "kept":
        log_probs = from_steps(read("log_prob"), header.settings["log_prob_bits"])
        return Kept(
            _padded(read("id").astype(np.int64), entries, 0).to(device),
            _padded(log_probs, entries, -np.inf).to(device),
            torch.from_numpy(tail_from_steps(read("tail"))).to(device),
            header.settings["missing"],
            header.fingerprint,
            _temperature(header),
        )
    return Sampled(
        _padded(read("id").astype(np.int64), entries, 0).to(device),
        _padded(read("times").astype(np.int64) + 1, entries, 0).to(device),
        header.settings["draws"],
        torch.from_numpy(read("entropy").astype(np.uint32).view(np.float32)).to(device),
        header.fingerprint,
        _temperature(header),
    )


def empty(header: Header) -> Kept | Sampled | None:
    """Sparse targets of no position, to ask what cannot be computed from them; None for whole ones."""
    none = torch.zeros((0, 1))
    if header.format == "kept":
        missing = header.settings["missing"]
        return Kept(none.long(), none, none[:, 0], missing, header.fingerprint, _temperature(header))
    if header.format == "sampled":
        draws = header.settings["draws"]
        return Sampled(none.long(), none.long(), draws, none[:, 0], header.fingerprint, _temperature(header))
    return None


def head_facts(head: Head) -> dict[str, Any]:
    """What a head is beside its tensors, for the header of a cache."""
    return {
        "hidden_width": int(head.weight.shape[1]),
        "head_width": head.width,
        "head_dtype": str(head.weight.dtype).removeprefix("torch."),
        "has_bias": head.bias is not None,
        "hidden_scale": head.hidden_scale,
        "logit_scale": head.logit_scale,
        "soft_cap": head.soft_cap,
    }


def head_from(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> Head:
    """The head that `head_facts` described."""
    return Head(
        tensors["weight"], tensors.get("bias"), facts["hidden_scale"], facts["logit_scale"], facts["soft_cap"]
    )  # fmt: skip


def _padded(values: np.ndarray, entries: np.ndarray, empty: float) -> Tensor:
    """Values one after another, entries [N] of each position -> [N, K]."""
    widest = int(entries.max()) if len(entries) else 1
    there = np.arange(widest)[None] < entries[:, None]
    full = np.full((len(entries), widest), empty, values.dtype)
    full[there] = values
    return torch.from_numpy(full)


def _bits_of(hidden: Tensor, dtype: str) -> np.ndarray:
    """[N, D] -> the same numbers in `dtype`, as unsigned ones of as many bits."""
    narrow = hidden.detach().cpu().to(DTYPES[dtype])
    if not bool(torch.isfinite(narrow).all()):
        raise CacheError(
            f"the teacher's hidden states do not fit into {dtype} (largest {float(hidden.abs().max()):.4g}). "
            "Set cache.dtype: bf16, which has the range of fp32, or fp32."
        )
    signed = torch.int32 if dtype == "fp32" else torch.int16
    return narrow.contiguous().view(signed).numpy().view(np.uint32 if dtype == "fp32" else np.uint16)


def _floats_of(bits: np.ndarray, dtype: str) -> Tensor:
    signed = np.int32 if dtype == "fp32" else np.int16
    return torch.from_numpy(np.ascontiguousarray(bits).view(signed)).view(DTYPES[dtype])


def _computing(head: Head) -> torch.dtype:
    """fp16 is how numbers are stored; they are multiplied in what the head is in."""
    return head.weight.dtype


def _temperature(header: Header) -> float:
    assert header.temperature is not None
    return header.temperature
