"""500 completions from a server that fails one request in ten, by a client that is killed twice.

The client is a process of its own that does what a run does: `sample_all` with an endpoint, a store and a journal. It
is sent SIGKILL at two random moments and started again. Counted are the completions in the store, each of which must
be there once, and from the journal how many requests were sent beyond one for each.

    python benchmarks/endpoint_faults.py            writes benchmarks/endpoint_faults.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

FAULTS = {"rate_limit": 0.02, "server_error": 0.02, "timeout": 0.02, "torn_json": 0.02, "disconnect": 0.02}
PROMPTS, PER_PROMPT, CONCURRENCY, LATENCY, KILLS, TIMEOUT = 250, 2, 8, 0.05, 2, 2.0


def tokenizer() -> Any:
    """Byte-level, without a single merge."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE({name: i for i, name in enumerate([*alphabet, "</s>"])}, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="</s>")


def client(url: str, folder: Path) -> None:
    """What is killed: one process of a run that samples."""
    from potstill.config.data import Sampling
    from potstill.config.endpoint import Endpoint
    from potstill.data.store import CompletionStore
    from potstill.generation.base import Request, sample_all
    from potstill.generation.endpoint import EndpointGenerator
    from potstill.records import Message

    config = Endpoint(
        kind="endpoint", base_urls=(url,), model="teacher", concurrency=CONCURRENCY, timeout_seconds=TIMEOUT,
        backoff_seconds=0.1, rest_seconds=0.5,
    )  # fmt: skip
    generator = EndpointGenerator(
        config, tokenizer(), Sampling(max_new_tokens=64), 0, "train", folder / "journal.jsonl"
    )
    requests = [
        Request(f"p{i:03d}", g, (), messages=(Message("user", f"question {i}"),))
        for i in range(PROMPTS)
        for g in range(PER_PROMPT)
    ]
    sample_all(requests, generator, CompletionStore(folder / "completions.jsonl"), lambda *_: False)


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def killed_at(process: subprocess.Popen[bytes], store: Path, stored: int, delay: float) -> int:
    """SIGKILL once `stored` completions are written and `delay` seconds have passed; how many there are then."""
    while lines(store) < stored and process.poll() is None:
        time.sleep(0.002)
    time.sleep(delay)
    if process.poll() is not None:
        raise RuntimeError(f"the client ended by itself ({process.returncode}) before it could be killed")
    process.kill()
    process.wait()
    return lines(store)


def measure(seed: int) -> dict[str, Any]:
    """One whole run with its kills."""
    from faulty_server import FaultyServer

    from potstill.generation.spending import Journal

    chance = random.Random(seed)
    wanted = PROMPTS * PER_PROMPT
    moments = sorted(chance.randrange(wanted // 10, wanted * 9 // 10) for _ in range(KILLS))
    with tempfile.TemporaryDirectory() as name, FaultyServer(faults=FAULTS, seed=seed, latency=LATENCY) as server:
        folder = Path(name)
        store = folder / "completions.jsonl"
        command = [sys.executable, __file__, "--client", server.url, "--folder", name]
        start = time.perf_counter()
        kills = []
        for moment in moments:
            process = subprocess.Popen(command)
            kills.append({"completions_stored": killed_at(process, store, moment, chance.uniform(0, 0.1))})
        subprocess.run(command, check=True)
        seconds = time.perf_counter() - start
        spent = Journal(folder / "journal.jsonl").spending
        found = Counter((c["prompt_id"], c["index"]) for c in map(json.loads, store.read_text().splitlines()))
        return {
            "seed": seed,
            "wanted": wanted,
            "stored": sum(found.values()),
            "stored_once": sum(count == 1 for count in found.values()),
            "lost": wanted - len(found),
            "kills": kills,
            "requests_sent": spent.sent,
            "requests_beyond_one_each": spent.sent - wanted,
            "of_these_after_faults": sum(count for kind, count in spent.failed.items() if kind != "killed"),
            "of_these_in_flight_at_a_kill": spent.failed["killed"],
            "of_these_answered_and_not_stored_at_a_kill": spent.answered - wanted,
            "failed_by_kind": dict(sorted(spent.failed.items())),
            "requests_seen_by_the_server": len(server.bodies),
            "faults_of_the_server": dict(sorted(server.failed.items())),
            "most_in_flight": server.peak,
            "seconds_in_all": round(seconds, 1),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--client", metavar="URL")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    given = parser.parse_args()
    if given.client is not None:
        return client(given.client, given.folder)
    settings = {"faults": FAULTS, "concurrency": CONCURRENCY, "latency_seconds": LATENCY, "timeout_seconds": TIMEOUT}
    runs = [measure(seed) for seed in given.seeds]
    report = {
        "settings": settings,
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "runs": runs,
    }
    (HERE / "endpoint_faults.json").write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))
    if any(run["stored_once"] != run["wanted"] or run["stored"] != run["wanted"] for run in runs):
        sys.exit("a completion was lost or stored twice")


if __name__ == "__main__":
    main()
