"""One recipe with four sources, each by one line: what came from where, how stale, and what it did.

    python benchmarks/sources.py [--output FOLDER] [key=value ...]

Runs recipes/sources.yaml with each source into FOLDER (what is there already is left alone) and writes
sources.json. Changes such as student.model.path=... hold for all four.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from potstill.api import Run
from potstill.config import load_run
from potstill.report.feeding import describe_feeding
from potstill.training.distil import distil
from potstill.training.show import Show

HERE = Path(__file__).resolve().parent
ONLINE = "online: {steps_at_once: 4}"
SOURCES = {
    "offline": "source={kind: offline}",
    "online_teacher": f"source={{kind: online_teacher, {ONLINE}}}",
    "online_student": f"source={{kind: online_student, {ONLINE}}}",
    "mixture": f"source={{kind: mixture, {ONLINE}}}",
}


def figures(folder: Path) -> dict[str, Any]:
    """What the run's own records say."""
    run = Run(folder)
    curves = run.curves()
    fed = describe_feeding(json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines())
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    seconds = [event["seconds"] for event in events if event["event"] == "finished"]
    return {
        "fed": [
            {"stream": row.stream, "rows": row.rows, "row_share": row.row_share, "token_share": row.token_share,
             "mean_staleness": row.staleness, "largest_staleness": row.most_stale}
            for row in fed
        ],
        "proxy_fkl": [float(curves["proxy_fkl"].per_token[i]) for i in (0, -1)],
        "golden": [float(curves["golden"].per_token[i]) for i in (0, -1)],
        "verdict": json.loads((folder / "verdict.json").read_text())["verdict"],
        "seconds": seconds[-1] if seconds else None,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path)
    parser.add_argument("changes", nargs="*")
    options = parser.parse_args()
    folder = options.output or Path(tempfile.mkdtemp())
    found = {}
    for name, line in SOURCES.items():
        config = load_run(HERE.parent / "recipes" / "sources.yaml", [f"output={folder / name}", line, *options.changes])
        distil(config, Show())
        found[name] = figures(folder / name)
        print(name, json.dumps(found[name], indent=2), flush=True)
    environment = json.loads((folder / "offline" / "environment.json").read_text())
    (HERE / "sources.json").write_text(
        json.dumps({"environment": environment, "sources": found}, indent=2, sort_keys=True) + "\n"
    )


if __name__ == "__main__":
    main()
