"""What a cache of the teacher's targets costs, what it loses, and how fast it is read, format by format.

    python benchmarks/cache.py CONFIG [key.path=value ...]

CONFIG is a run's configuration. Its completions are sampled into its output directory where they are not
there yet. The teacher reads ROWS of its training rows once; what it says is written in every format and read
back from disk. For each: bytes a token, all files but the head counted; forward KL from the cache beside the
exact one; the gradient of all parameters of the run's student beside the one with whole distributions; and
whether the mean over redraws goes to the exact one. Reading is timed in batches of BATCH_ROWS random rows,
from files that the system has in memory. Results go to benchmarks/cache.json, by student.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from potstill.cached_teacher import settings_of
from potstill.config import load_run
from potstill.config.cache import FinalHiddenCache, KeptCache, SampledCache
from potstill.config.objective import ObjectiveConfig
from potstill.config.run import Run
from potstill.data.cache_index import Header
from potstill.data.collate import Row, collate
from potstill.data.targets_cache import CacheWriter, TargetsCache
from potstill.models.scored import ScoredModel
from potstill.run_dir import RunDir
from potstill.training.cache_report import comparing, cost, gradient_bias, gradient_error, gradients, probe, value_error
from potstill.training.caching import complete, in_form, row_groups
from potstill.training.completions import training_completions, training_rows
from potstill.training.hardware import environment, keep_freed_memory
from potstill.training.parallel import start_world
from potstill.training.stages import Models, check_lengths, load_models, load_prompts

ROWS, PROBE_ROWS, BATCH_ROWS, SECONDS = 24, 4, 12, 1.0
FORMATS: dict[str, FinalHiddenCache | KeptCache | SampledCache] = {
    "sampled, 50 draws, stratified": SampledCache(format="sampled", draws=50),
    "sampled, 50 draws, independent": SampledCache(format="sampled", draws=50, spread="independent"),
    "kept, 12, tail": KeptCache(format="kept", top_k=12),
    "kept, 50, tail": KeptCache(format="kept", top_k=50),
    "kept, 50, renormalised": KeptCache(format="kept", top_k=50, missing="renormalised"),
    "kept, 128, tail": KeptCache(format="kept", top_k=128),
    "final_hidden, fp16": FinalHiddenCache(format="final_hidden", dtype="fp16"),
    "final_hidden, fp32": FinalHiddenCache(format="final_hidden", dtype="fp32"),
}
#: All formats are compared by the one divergence that all of them serve.
OBJECTIVE = ObjectiveConfig.model_validate({"terms": [{"kind": "forward_kl", "weight": 1.0, "on": ["any"]}]})


def prepared(config: Run, device: torch.device) -> tuple[Models, list[Row]]:
    models = load_models(config)
    prompts = load_prompts(config, models.tokenizer, models.teacher.is_encoder_decoder)
    limit = check_lengths(config, prompts, models)
    found = training_completions(
        RunDir(config.output), config, models, prompts, device, lambda name, total, rows, tokens: False
    )
    assert found is not None, "nobody asks to stop"
    rows = training_rows(config, models, prompts, found, limit)[0]
    evenly = np.linspace(0, len(rows) - 1, min(ROWS, len(rows))).astype(int)
    return models, [rows[i] for i in evenly]


@torch.no_grad()
def write_all(folder: Path, headers: dict[str, Header], teacher: ScoredModel, models: Models, rows: list[Row],
              device: torch.device) -> dict[str, dict[str, float]]:  # fmt: skip
    """Every format from one pass of the teacher; seconds of making targets and of storing them."""
    spent = {name: {"making": 0.0, "storing": 0.0} for name in headers}
    writers = {
        name: CacheWriter(folder / str(i), header, teacher.head() if header.format == "final_hidden" else None)
        for i, (name, header) in enumerate(headers.items())
    }
    for writer in writers.values():
        writer.__enter__()
    for group in row_groups(rows):
        some = [rows[i] for i in group]
        print(f"  {len(some)} rows pass the teacher", flush=True)
        batch = collate([row.as_teacher_saw_it for row in some], models.layout).to(device)
        said, counts = (
            teacher.targets(batch, models.alignment, models.teacher.fingerprint),
            batch.counted.sum(1).tolist(),
        )
        for name, writer in writers.items():
            start = time.perf_counter()
            targets = in_form(writer.header, said, batch.target_ids[batch.counted], some, counts)
            middle = time.perf_counter()
            writer.add(some, counts, targets)
            spent[name]["making"] += middle - start
            spent[name]["storing"] += time.perf_counter() - middle
    for name, writer in writers.items():
        start = time.perf_counter()
        writer.__exit__(None, None, None)
        spent[name]["storing"] += time.perf_counter() - start
    return spent


def reading(cache: TargetsCache, rows: list[Row]) -> dict[str, float]:
    """Tokens a second of random batches, and GB a second of what they take on disk."""
    generator, places = np.random.default_rng(0), cache.places(rows)
    cache.targets(places)  # checksums are compared here
    tokens, start = 0, time.perf_counter()
    while (passed := time.perf_counter() - start) < SECONDS:
        some = generator.choice(places, BATCH_ROWS)
        cache.targets(some)
        tokens += int(cache.num_counted(some).sum())
    rate = tokens / passed
    return {"tokens_per_second": rate, "gb_per_second": rate * cache.num_bytes / cache.num_positions / 1e9}


def main() -> None:
    keep_freed_memory()
    config = load_run(sys.argv[1], [*sys.argv[2:], "training.precision=fp32"])
    device = start_world(config.training.device).device
    models, rows = prepared(config, device)
    teacher, student = ScoredModel(models.teacher.model).to(device), ScoredModel(models.student).to(device)
    compared, figures, exact = comparing(OBJECTIVE), {}, None
    headers = {}
    for name, spec in FORMATS.items():
        temperature = None if spec.format == "final_hidden" else 1.0
        blank = Header(spec.format, "", "", "as_computed", "fp32", 0, None, None, temperature, settings_of(spec, 0))
        loaded = models.teacher
        headers[name] = complete(blank, teacher, loaded.fingerprint, loaded.name, models.alignment, models.layout)
    with tempfile.TemporaryDirectory() as scratch:
        spent = write_all(Path(scratch), headers, teacher, models, rows, device)
        found = None
        for i, name in enumerate(FORMATS):
            cache = TargetsCache(Path(scratch) / str(i), device)
            if found is None:
                found = probe(cache, teacher, rows, models.layout, PROBE_ROWS, device)
                exact = gradients(student, found, found.whole, compared)
            found = replace(found, cached=cache.targets(cache.places(found.rows)))
            one: dict[str, Any] = cost(cache, found)
            one["forward_kl"] = value_error(student, found, 1.0)
            one["gradient"] = gradient_error(exact, gradients(student, found, found.cached, compared))
            one["gradient_bias"] = gradient_bias(cache, student, found, compared)
            one["reading"] = reading(cache, rows)
            one["writing_tokens_per_second"] = {
                part: cache.num_positions / seconds for part, seconds in spent[name].items()
            }
            figures[name] = one
            say(name, one)
    keep(config, figures, device)


def say(name: str, one: dict[str, Any]) -> None:
    value, slope, bias = one["forward_kl"], one["gradient"], one["gradient_bias"]
    print(
        f"{name:<32}{one['bytes_per_token']:8.1f} B  KL {value['bias']:+.1e} ({value['standard_error']:.0e}) of "
        f"{value['exact']:.3f}  {slope['degrees']:6.2f} degrees, length {slope['length_ratio']:.3f}  mean off by "
        f"{bias['distance']:.4f} (chance {bias['noise']:.4f})  {one['reading']['tokens_per_second']:,.0f} tokens/s, "
        f"{one['reading']['gb_per_second']:.3f} GB/s",
        flush=True,
    )


def keep(config: Run, figures: dict[str, Any], device: torch.device) -> None:
    """Add this student's figures to those of others."""
    path = Path(__file__).with_suffix(".json")
    stored: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    trained = config.student.kind not in ("layers", "scratch")
    stored["trained" if trained else "cut, untrained"] = {
        "teacher": config.teacher.model_dump(mode="json"),
        "rows": ROWS, "probe_rows": PROBE_ROWS, "batch_rows": BATCH_ROWS,
        "distillkit_bytes_per_token": "114 (k = 50) and 300 (k = 128), as its documentation states",
        "figures": figures, "environment": environment(device),
    }  # fmt: skip
    path.write_text(json.dumps(stored, indent=2) + "\n")


if __name__ == "__main__":
    main()
