"""Writes a corpus to standard output: `python -m potstill.lab.text prose --seed 0 --chars 700000 > prose.txt`."""

from __future__ import annotations

import argparse
import sys
from typing import get_args

from potstill.lab.text.corpora import CORPORA, Part, corpus


def main(arguments: list[str] | None = None) -> int:
    """Read the command line and write the text; 2 where more was asked for than there is."""
    parser = argparse.ArgumentParser(prog="python -m potstill.lab.text", description=__doc__)
    parser.add_argument("name", choices=CORPORA)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--chars", type=int, default=700_000, help="at least so many; whole documents")
    parser.add_argument("--part", choices=get_args(Part), default="all", help="by a hash of each document")
    given = parser.parse_args(arguments)
    try:
        text = corpus(given.name, given.seed, given.chars, given.part)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    sys.stdout.write(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
