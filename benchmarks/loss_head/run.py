"""Time, memory and error of the loss head beside others', in one process, taking turns.

    python benchmarks/loss_head/run.py [--device cuda] [--rounds 5] [--shapes 2048x49152x576 ...] [--dtypes ...]

Times are medians, and medians of the ratio to the floor of the same round, which a noisy machine
spoils less. Extra memory is the peak beyond inputs and returned gradients: on CUDA the
allocator's, on a CPU the resident set's, of a process of its own for every contestant. Errors
are those of both gradients, relative, against the slow twin of the tests in float64 from the same
inputs. Everything goes to results/<device>.json, and a table is printed.

    python -m pip install trl==1.16.0 liger-kernel==0.8.5      (what is missing is left out)
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from contestants import Case, Contestant, Floor, contestants, reference

from potstill.training.hardware import environment

HERE = Path(__file__).resolve().parent
SHAPES = {"cpu": ["2048x49152x576", "1024x151936x896"], "cuda": ["8192x151936x4096", "8192x128256x2048"]}
MEMORY_MB: dict[str, dict[str, float | None]] = {
    "cpu": {"lean": 64.0, "default": None}, "cuda": {"lean": 256.0, "default": None, "fast": 8192.0},
}  # fmt: skip
#: Whose errors are taken; float64 takes minutes.
CHECKED = ("potstill default", "potstill fast", "potstill fp32 logits", "naive", "TRL chunked")
parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--device", default="cpu")
parser.add_argument("--rounds", type=int, default=5)
parser.add_argument("--shapes", nargs="*", help="N x V x D")
parser.add_argument("--dtypes", nargs="*", help="float32, bfloat16")
parser.add_argument("--only", nargs="*", help="contestants by name")
parser.add_argument("--output", type=Path)
parser.add_argument("--memory-of", help=argparse.SUPPRESS)
parser.add_argument("--no-errors", action="store_true", help="skip float64, which takes minutes")


def settle(device: str) -> None:
    gc.collect()
    if device == "cuda":
        torch.cuda.synchronize()


def timed(function: Contestant, case: Case, device: str) -> float:
    """Seconds of one forward and backward."""
    case.hidden.grad = case.weight.grad = None
    settle(device)
    started = time.perf_counter()
    function(case)
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def gradients_bytes(case: Case) -> int:
    return sum(t.numel() * t.element_size() for t in (case.hidden, case.weight))


def peak_extra(function: Contestant, case: Case, device: str) -> float:
    """MiB beyond inputs and returned gradients, at the worst moment."""
    case.hidden.grad = case.weight.grad = None
    settle(device)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function(case)
        peak = torch.cuda.max_memory_allocated() - before
    else:
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        before = memory_line("VmRSS")
        function(case)
        peak = memory_line("VmHWM") - before
    return (peak - gradients_bytes(case)) / 2**20


def memory_line(name: str) -> int:
    """Bytes of this process in memory: VmRSS now, VmHWM at most (Linux)."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(name))
    return int(line.split()[1]) * 1024


def errors(function: Contestant, case: Case, truth: tuple[torch.Tensor, ...]) -> dict[str, float]:
    """Relative errors of loss and gradients."""
    case.hidden.grad = case.weight.grad = None
    loss = function(case).double()
    assert case.hidden.grad is not None and case.weight.grad is not None
    found = (loss, case.hidden.grad, case.weight.grad)
    return {
        name: float((x.cpu().double() - t).norm() / t.norm())
        for name, x, t in zip(("loss", "hidden", "weight"), found, truth, strict=True)
    }


def in_float64(case: Case) -> tuple[torch.Tensor, ...]:
    """Loss and gradients, some positions at a time: the loss is a mean over positions, so parts add up."""
    wide = Case(*(t.detach().cpu() for t in (case.hidden, case.weight, case.teacher_hidden, case.teacher_weight)))
    whole = wide.double()
    n, part, total = len(case.hidden), 128, torch.zeros((), dtype=torch.float64)
    hidden = torch.empty_like(whole.hidden)
    for start in range(0, n, part):
        rows = slice(start, min(start + part, n))
        piece = Case(
            whole.hidden[rows].detach().requires_grad_(), whole.weight, whole.teacher_hidden[rows],
            whole.teacher_weight,
        )  # fmt: skip
        share = len(piece.hidden) / n
        total += reference(piece) * share
        assert piece.hidden.grad is not None
        hidden[rows] = piece.hidden.grad * share
    assert whole.weight.grad is not None
    # Every part's mean is over `part` positions; all but a shorter last one have the same share.
    assert n % part == 0, "choose N as a multiple of 128"
    return total, hidden, whole.weight.grad * (part / n)


def measure(shape: str, dtype: str, options: argparse.Namespace) -> dict[str, Any]:
    """All contestants on one case."""
    device = options.device
    n, v, d = (int(x) for x in shape.split("x"))
    case = Case.make(n, v, d, getattr(torch, dtype), device)
    players = contestants(device, MEMORY_MB[device], dtype)
    players = {name: f for name, f in players.items() if not options.only or name in options.only}
    floor = Floor(case)
    times: dict[str, list[float]] = {name: [] for name in ("floor", *players)}
    figures: dict[str, dict[str, Any]] = {name: {} for name in times}
    for name, function in list(players.items()):
        try:
            first = timed(function, case, device)
        except Exception as error:  # a peer that cannot run this case is a result, not the end of the run
            print(f"  {name}: cannot run: {type(error).__name__}: {str(error).splitlines()[0][:200]}", flush=True)
            figures[name]["cannot_run"] = f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
            del players[name], times[name]
            continue
        print(f"  {name}: first call {first:.2f} s", flush=True)
    timed(floor, case, device)
    for turn in range(options.rounds):
        order = ["floor", *players]
        order = order[turn % len(order) :] + order[: turn % len(order)]
        for name in order:
            times[name].append(timed(floor if name == "floor" else players[name], case, device))
        print(f"  round {turn + 1}: " + ", ".join(f"{k} {x[-1]:.2f}" for k, x in times.items()), flush=True)
    for name, seconds in times.items():
        ratios = [a / b for a, b in zip(seconds, times["floor"], strict=True)]
        figures[name] |= {"seconds": statistics.median(seconds), "times_floor": statistics.median(ratios)}
    del floor
    if not options.no_errors:
        truth = in_float64(case)
        for name in [x for x in players if x in CHECKED]:
            figures[name]["errors"] = errors(players[name], case, truth)
    for name, function in players.items():
        if device == "cuda":
            figures[name]["extra_mb"] = peak_extra(function, case, device)
        else:
            command = [sys.executable, __file__, "--memory-of", name, "--shapes", shape, "--dtypes", dtype]
            said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            figures[name]["extra_mb"] = float(said.split()[-1])
    return figures


def memory_of(name: str, shape: str, dtype: str, device: str) -> float:
    """In a process that has done nothing else; a small case first, so that libraries are loaded."""
    n, v, d = (int(x) for x in shape.split("x"))
    function = contestants(device, MEMORY_MB[device], dtype)[name]
    if "compiled" in name:  # its first call compiles, which is not what is asked
        function(Case.make(n, v, d, getattr(torch, dtype), device))
    else:
        function(Case.make(64, 1024, d, getattr(torch, dtype), device))
    gc.collect()
    return peak_extra(function, Case.make(n, v, d, getattr(torch, dtype), device), device)


def show(shape: str, dtype: str, figures: dict[str, dict[str, Any]]) -> None:
    naive = figures.get("naive", {}).get("extra_mb")
    print(f"\n{shape} {dtype}")
    print(f"{'':<28}{'seconds':>9}{'x floor':>9}{'extra MiB':>11}{'of naive':>9}{'dH error':>10}{'dW error':>10}")
    for name, found in figures.items():
        if "seconds" not in found:
            print(f"{name:<28}  {found['cannot_run']}")
            continue
        line = f"{name:<28}{found['seconds']:>9.3f}{found['times_floor']:>9.2f}"
        if "extra_mb" in found:
            share = f"{found['extra_mb'] / naive:>9.1%}" if naive else ""
            line += f"{found['extra_mb']:>11,.0f}{share}"
        if "errors" in found:
            line += f"{found['errors']['hidden']:>10.1e}{found['errors']['weight']:>10.1e}"
        print(line, flush=True)


def main() -> None:
    options = parser.parse_args()
    shapes = options.shapes or SHAPES[options.device]
    dtypes = options.dtypes or (["float32", "bfloat16"] if options.device == "cpu" else ["bfloat16"])
    if options.memory_of:
        print(memory_of(options.memory_of, shapes[0], dtypes[0], options.device))
        return
    output = options.output or HERE / "results" / f"{options.device}.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    kept = json.loads(output.read_text()) if output.exists() else {"cases": {}}
    for shape in shapes:
        for dtype in dtypes:
            print(f"{shape} {dtype}", flush=True)
            figures = measure(shape, dtype, options)
            show(shape, dtype, figures)
            kept["cases"][f"{shape} {dtype}"] = {"rounds": options.rounds, "figures": figures}
            kept |= {"environment": environment(torch.device(options.device)), "memory_mb": MEMORY_MB[options.device]}
            output.write_text(json.dumps(kept, indent=2) + "\n")


if __name__ == "__main__":
    main()
