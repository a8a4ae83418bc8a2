"""How much slower are large temporaries when glibc maps each of them anew?

Interleaves two child processes, one with glibc's default and one that keeps freed
memory (`potstill.training.hardware.keep_freed_memory`), and prints the ratio of their
times for `exp` over a chunk of logits.

    python benchmarks/allocator.py
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path

CHILD = """
import sys, time, torch
from potstill.training.hardware import keep_freed_memory
if sys.argv[1] == "kept": keep_freed_memory()
z = torch.randn(512, 49152)
times = []
for _ in range(8):
    start = time.perf_counter(); z.exp(); times.append(time.perf_counter() - start)
print(min(times))
"""


def main() -> None:
    """Five pairs; ratios, since machines are shared."""
    pairs = []
    for _ in range(5):
        modes = ("default", "kept")
        pairs.append([float(subprocess.check_output([sys.executable, "-c", CHILD, mode])) for mode in modes])
    ratios = [default / kept for default, kept in pairs]
    result = {"seconds_default_kept": pairs, "median_ratio": statistics.median(ratios)}
    import torch

    from potstill.training.hardware import environment

    result["environment"] = environment(torch.device("cpu"))
    Path(__file__).with_suffix(".json").write_text(json.dumps(result, indent=2) + "\n")
    print(f"default / kept: median {result['median_ratio']:.2f} of {[round(r, 2) for r in ratios]}")


if __name__ == "__main__":
    main()
