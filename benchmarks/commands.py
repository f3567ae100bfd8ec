"""How long commands take from the shell to their end, beside importing torch and torchvision.

    python benchmarks/commands.py --rounds 5
    python benchmarks/commands.py --ckpt runs/shapes_tiny --image photo.jpg --json

Every command is a process of its own, and all take turns, so that a busy machine slows them alike;
ratios are to a process that imports torch and torchvision and does nothing. Without ``--ckpt``
`predict` runs a model of `shapes_tiny` with random weights.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

BASELINE = "import torch, torchvision"
PROGRAM = (str(Path(sys.executable).with_name("msdetr")),)


def make_commands(ckpt: Path | None, image: Path | None, folder: Path) -> dict[str, list[str]]:
    """Return what is timed, by name; what it needs is made in the folder."""
    if ckpt is None:
        ckpt = folder / "run"
        settings = ["--set", "train.epochs=1", "--set", "evaluation.every_epochs=1"]
        _run([*PROGRAM, "train", "shapes_tiny", "--overfit", "2", "--output", str(ckpt), *settings])
    if image is None:
        image = folder / "grey.png"
        Image.new("RGB", (160, 192), "grey").save(image)
    return {
        BASELINE: [sys.executable, "-c", BASELINE],
        "msdetr --help": [*PROGRAM, "--help"],
        "msdetr recipes list": [*PROGRAM, "recipes", "list"],
        "msdetr recipes show": [*PROGRAM, "recipes", "show", "ddetr_pp_900q"],
        "msdetr predict, one image": [*PROGRAM, "predict", "--ckpt", str(ckpt), str(image)],
    }


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: exit {done.returncode}\n{done.stderr}")


def measure(commands: dict[str, list[str]], rounds: int) -> dict[str, list[float]]:
    """Time every command once a round, after one round to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(rounds + 1):
        for name, command in commands.items():
            start = time.perf_counter()
            _run(command)
            if number:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def main() -> None:
    """Parse options, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--ckpt", type=Path, help="checkpoint or run of predict")
    parser.add_argument("--image", type=Path, help="image of predict")
    parser.add_argument("--rounds", type=int, default=5, help="timings per command (5)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        commands = make_commands(options.ckpt, options.image, Path(folder))
        seconds = measure(commands, options.rounds)
    if options.json:
        print(json.dumps({"seconds": seconds}, indent=2))
        return
    base = statistics.median(seconds[BASELINE])
    for name, times in seconds.items():
        median = statistics.median(times)
        print(f"{name:<32}{median:>8.2f} s{median / base:>8.2f}x")


if __name__ == "__main__":
    main()
