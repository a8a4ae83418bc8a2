"""Makes a corpus and is killed in the middle of one of its sets: python killed_corpus.py CONFIG FOLDER STAGE."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from corpus_case import make

from potstill.config.corpus import CorpusConfig

if __name__ == "__main__":
    config, folder, stage = sys.argv[1:]

    def progress(what: str, total: int | None, units: int, tokens: int) -> bool:
        if what.startswith(stage) and tokens:
            os.kill(os.getpid(), signal.SIGKILL)
        return False

    make(Path(folder), CorpusConfig.model_validate_json(config), progress)
