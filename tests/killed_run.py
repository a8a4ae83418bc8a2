"""A run that kills itself with SIGKILL at a named place of mending: `killed_run.py CONFIG before|after`."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
import yaml

from potstill.config import parse_run
from potstill.training import mending
from potstill.training.distil import distil
from potstill.training.show import Show


def main() -> None:
    torch.set_num_threads(1)
    config, where = parse_run(yaml.safe_load(Path(sys.argv[1]).read_text())), sys.argv[2]
    really = mending.follow

    def follow(session: Any, plan: Any) -> None:
        if where == "after":
            really(session, plan)
        os.kill(os.getpid(), signal.SIGKILL)

    mending.follow = follow
    distil(config, Show(quiet=True))


if __name__ == "__main__":
    main()
