"""What this machine is and how fast it multiplies."""

from __future__ import annotations

import ctypes
import os
import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch

#: Parameters of glibc's mallopt (malloc.h).
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
PACKAGES = ("potstill", "torch", "transformers", "tokenizers", "datasets", "numpy", "safetensors")


def keep_freed_memory() -> None:
    """Ask glibc to keep freed blocks for reuse instead of handing each back to the kernel.

    Every large temporary (a chunk of logits is tens of megabytes) is otherwise mapped,
    zeroed page by page and unmapped again, which made element-wise operations on CPU
    three to five times slower (`benchmarks/allocator.py`). Does nothing elsewhere.
    """
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL("libc.so.6").mallopt
    mallopt(M_MMAP_MAX, 0)
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def multiplies_bf16(device: torch.device) -> bool:
    """Whether bf16 matrix products run in hardware; emulated ones are several times slower than fp32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    return "amx_bf16" in flags or "avx512_bf16" in flags or platform.machine() == "arm64"


def settle_precision(wanted: Literal["auto", "fp32", "bf16"], device: torch.device) -> Literal["fp32", "bf16"]:
    """auto becomes what suits the device."""
    if wanted == "auto":
        return "bf16" if multiplies_bf16(device) else "fp32"
    return wanted


def matmul_rate(device: torch.device, precision: Literal["fp32", "bf16"]) -> float:
    """Floating-point operations per second of one large product, measured for a fraction of a second."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    size = 8192 if device.type == "cuda" else 1024
    a, b = torch.randn(2, size, size, device=device).to(dtype)
    best = float("inf")
    for _ in range(4):
        start = time.perf_counter()
        a @ b
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def environment(device: torch.device) -> dict[str, Any]:
    """What a stranger would need to know about where this ran."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name()
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "device": name,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "packages": {package: version(package) for package in PACKAGES},
    }


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor()
    names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if "model name" in line]
    return names[0] if names else platform.machine()
