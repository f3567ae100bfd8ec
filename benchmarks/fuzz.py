"""Run the fuzzers of ``tests/fuzz`` with a seed and a count of their own.

Run: ``python benchmarks/fuzz.py --seed 1 --count 20000 --only images``

Each fuzzer mutates inputs of one kind (recipes, annotations, checkpoints, images) and demands that
each is accepted, or refused with exit code 2 and one line per problem; nothing in it may run.
The same seed and count try the same inputs. Continuous integration runs them with fewer.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "tests" / "fuzz"
KINDS = sorted(path.stem.removeprefix("test_") for path in FOLDER.glob("test_*.py"))


def command_for(kinds: Sequence[str], seed: int) -> list[str]:
    """Return the command that fuzzes the kinds."""
    files = [str(FOLDER / f"test_{kind}.py") for kind in kinds]
    options = ["-q", "-p", "no:cacheprovider", "--durations=0", f"--hypothesis-seed={seed}"]
    return [sys.executable, "-m", "pytest", *options, *files]


def main() -> int:
    """Fuzz as the command line says; the exit code is pytest's."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=1, help="of everything that is drawn")
    parser.add_argument("--count", type=int, default=1000, help="inputs of each fuzzer")
    parser.add_argument("--only", nargs="+", choices=KINDS, default=KINDS, help="kinds of inputs")
    options = parser.parse_args()
    amounts = {"MSDETR_FUZZ_SEED": str(options.seed), "MSDETR_FUZZ_COUNT": str(options.count)}
    command = command_for(options.only, options.seed)
    return subprocess.run(command, env={**os.environ, **amounts}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
