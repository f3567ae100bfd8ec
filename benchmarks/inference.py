"""Latency of a model and of its exports, side by side on one image.

PyTorch with the native operator in float32 and bfloat16, torch.compile, the torch.export file,
ONNX Runtime with both forms of deformable attention, and OpenVINO in a process of its own, at
batch 1. Weights are random. Before anything is timed, detections are compared with those of
PyTorch in float32. Then all take turns, so that a busy machine slows them all alike; the ratio is
to PyTorch in float32. CPU time is that of all threads together and hardly depends on what else
runs.

    python benchmarks/inference.py --threads 2 --files /tmp/exports
    python benchmarks/inference.py --files /tmp/exports --only-files          # export, time nothing
    python benchmarks/inference.py --sizes 640x640 --contenders native-fp32 onnx-gather --rounds 5
    python benchmarks/inference.py --recipe shapes_tiny --sizes 160x192 --rounds 20 --json

Exporting takes a minute or more; with ``--files`` exports are kept and used again. Whatever has not
yielded its first detections within ``--preparation-limit`` (compiling may take longer) is left
out, and what takes longer than ``--slow`` for an image has one turn.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from inference_contenders import (
    BASELINE,
    CONTENDERS,
    Contender,
    Setting,
    agreement,
    load_random,
    make_files,
    prepare,
    time_limit,
)

from msdetr.structures import Detections, ImageBatch

# Rounding reorders near-tied queries; bfloat16 chooses others and is compared for information.
MIN_AGREEMENT = 0.95
UNCHECKED = "native-bf16"


@dataclass
class Entry:
    """A contender on images of one size, and its times so far in seconds."""

    name: str
    contender: Contender
    agreement: float = 1.0
    first_s: float = 0.0
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


def say(text: str) -> None:
    """Report progress, apart from the results."""
    print(text, file=sys.stderr, flush=True)


def make_image(hw: tuple[int, int], device: str) -> ImageBatch:
    """Make one smooth random image without padding."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(1, 3, hw[0] // 16 + 1, hw[1] // 16 + 1, generator=generator)
    pixels = torch.nn.functional.interpolate(coarse, size=hw, mode="bicubic")
    return ImageBatch(pixels, torch.zeros(1, *hw, dtype=torch.bool)).to(device)


def ready(
    names: Sequence[str], setting: Setting, images: ImageBatch, limit: float
) -> Iterator[Entry]:
    """Prepare contenders, run each once, and check its detections against the baseline's."""
    expected: Detections | None = None
    for name in names:
        started = time.perf_counter()
        try:
            with time_limit(limit):
                entry = Entry(name, prepare(name, setting))
                prepared = time.perf_counter()
                found = entry.contender.run(images).to("cpu")
        except (RuntimeError, TimeoutError) as error:
            say(f"  {name}: left out, {str(error).splitlines()[0]}")
            continue
        expected = expected or found
        entry.agreement = agreement(expected, found)
        entry.first_s = time.perf_counter() - prepared
        say(
            f"  {name}: prepared in {prepared - started:.1f} s, first image {entry.first_s:.1f} s, "
            f"{entry.agreement:.1%} of the detections agree"
        )
        if name != UNCHECKED and entry.agreement < MIN_AGREEMENT:
            raise SystemExit(f"{name} computes something else; nothing was timed")
        yield entry


@contextmanager
def timed(entry: Entry, device: str) -> Iterator[None]:
    """Add the time of the block to a contender's."""
    cpu, wall = entry.contender.cpu_time(), time.perf_counter()
    yield
    if device == "cuda":
        torch.cuda.synchronize()
    entry.wall.append(time.perf_counter() - wall)
    entry.cpu.append(entry.contender.cpu_time() - cpu)


def measure(entries: Sequence[Entry], images: ImageBatch, options: argparse.Namespace) -> None:
    """Let all contenders take turns; they are warm. The slow ones take one turn only."""
    for number in range(options.rounds):
        taking_part = [e for e in entries if number == 0 or e.first_s <= options.slow]
        for entry in taking_part:
            with timed(entry, options.device):
                entry.contender.run(images)
        seconds = ", ".join(f"{entry.name} {entry.wall[-1]:.2f}" for entry in taking_part)
        say(f"  round {number + 1} of {options.rounds}, seconds: {seconds}")


def rows(entries: Sequence[Entry], size: str) -> list[dict[str, object]]:
    """Return the medians of what was measured, and their ratios to PyTorch."""
    base = next(entry for entry in entries if entry.name == BASELINE)
    return [
        {
            "size": size,
            "name": entry.name,
            "agreement": entry.agreement,
            "turns": len(entry.wall),
            "ms": 1000 * statistics.median(entry.wall),
            "best_ms": 1000 * min(entry.wall),
            "images_per_s": len(entry.wall) / sum(entry.wall),
            "ratio": statistics.median(entry.wall) / statistics.median(base.wall),
            "cpu_ms": 1000 * statistics.median(entry.cpu),
            "cpu_ratio": statistics.median(entry.cpu) / statistics.median(base.cpu),
        }
        for entry in entries
    ]


def print_table(measured: Sequence[dict[str, object]]) -> None:
    """Print one line per size and contender."""
    titles = f"{'ms':>8}{'best':>8}{'image/s':>9}{'ratio':>7}{'CPU ms':>9}{'ratio':>7}"
    print(f"{'size':<10}{'':<18}{'agree':>7}{'turns':>6}{titles}")
    for row in measured:
        print(
            f"{row['size']:<10}{row['name']:<18}{row['agreement']:>7.1%}{row['turns']:>6}"
            f"{row['ms']:>8.0f}{row['best_ms']:>8.0f}{row['images_per_s']:>9.2f}{row['ratio']:>7.2f}"
            f"{row['cpu_ms']:>9.0f}{row['cpu_ratio']:>7.2f}"
        )


def parse_size(text: str) -> tuple[int, int]:
    """Read height and width from ``HxW``."""
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"expected HxW, as in 640x640, got {text!r}")
    return int(match[1]), int(match[2])


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--recipe", default="ddetr_pp_900q")
    parser.add_argument(
        "--sizes", nargs="+", type=parse_size, default=[(800, 1066), (640, 640)], metavar="HxW"
    )
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=CONTENDERS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--slow", type=float, default=15, metavar="SECONDS", help="one turn only above this"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--files", type=Path, metavar="DIR", help="keep exported files there")
    parser.add_argument("--only-files", action="store_true", help="export and stop")
    parser.add_argument("--preparation-limit", type=float, default=150, metavar="SECONDS")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args(arguments)


def compare(options: argparse.Namespace, files: Path) -> list[dict[str, object]]:
    """Prepare, check and time the contenders on every size."""
    setting = Setting(load_random(options.recipe), files, options.threads, options.device)
    names = [name for name in CONTENDERS if name == BASELINE or name in options.contenders]
    make_files(names, setting)
    measured: list[dict[str, object]] = []
    if options.only_files:
        return measured
    # Only now: exports are made on the CPU.
    setting.loaded.model.to(options.device)
    for hw in options.sizes:
        size = f"{hw[0]}x{hw[1]}"
        say(size)
        images = make_image(hw, options.device)
        with torch.inference_mode():
            entries = list(ready(names, setting, images, options.preparation_limit))
            measure(entries, images, options)
        measured += rows(entries, size)
    return measured


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    options = parse_arguments(arguments)
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as scratch:
        measured = compare(options, options.files or Path(scratch))
    if options.json:
        print(json.dumps(measured, indent=2))
    elif measured:
        print_table(measured)


if __name__ == "__main__":
    main()
