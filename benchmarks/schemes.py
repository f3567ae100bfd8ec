"""What every training scheme costs: time and memory of a step beside the baseline's.

    python benchmarks/schemes.py --json schemes.json --picture schemes.png
    python benchmarks/schemes.py --parts decoder --schemes Hybrid Group --rounds 3
    python benchmarks/schemes.py --parts attention
    python benchmarks/schemes.py --read schemes.json --markdown        # measure nothing
    python benchmarks/schemes.py --parts decoder --schemes Group --profile

All schemes are the packaged recipes' models of one size (300 primary queries) with random weights,
in float32. ``step`` is a whole training step: forward of two 480x640 images with 7 and 11 targets,
matching, losses, backward, clipping and AdamW. ``decoder`` starts from a fixed memory: proposals,
queries, decoder, matching, losses and their backward. ``attention`` is one layer's self-attention,
forward and backward, block by block as in training and as one call with the mask of all pairs.

All schemes take a turn in every round; a time relative to the baseline is the median over rounds of
the ratio to the baseline of the same round, so that a busy machine slows both. "products" is the
same ratio of the floating-point operations of matrix products and convolutions, counted. Peak
memory (weights, gradients, optimizer and activations) is measured in a process per scheme.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from schemes_report import (
    Results,
    SchemeResult,
    attention_table,
    draw_schemes,
    print_markdown,
    print_text,
    scheme_table,
)
from schemes_subjects import BASELINE, RECIPES, Subject, attention_contenders
from torch.profiler import profile

from msdetr.drawing.figures import save_figure
from msdetr.engine.environment import MemoryGauge

PARTS = ("step", "decoder", "attention")


def measure_part(part: str, schemes: Sequence[str], options: argparse.Namespace) -> Results:
    """Measure time, operations and memory of a training step of every scheme.

    Args:
        part: "step" or "decoder".
        schemes: With the baseline.
        options: Of the command line.
    """
    subjects = {name: _subject(name, part, options) for name in schemes}
    found = {
        name: SchemeResult(queries=each.count_queries(), flops=each.count_flops())
        for name, each in subjects.items()
    }
    works = {name: subject.step for name, subject in subjects.items()}
    for name, seconds in time_in_turn(works, options.rounds, options.device).items():
        found[name].seconds = seconds
    if options.profile:
        for name, subject in subjects.items():
            _print_profile(name, subject.step)
    del subjects, works
    for name, result in found.items():
        result.memory_mib = _measure_memory_apart(name, part, options)
    return found


def measure_attention(schemes: Sequence[str], options: argparse.Namespace) -> dict[str, Any]:
    """Time self-attention block by block, with a mask of all pairs, and its kernels alone."""
    found: dict[str, Any] = {}
    for name in schemes:
        subject = _subject(name, "decoder", options)
        blocks = subject.find_blocks()
        if blocks is not None:
            works = attention_contenders(blocks, options.device)
            seconds = time_in_turn(works, 5 * options.rounds, options.device)
            found[name] = {"queries": subject.count_queries(), **seconds}
    return found


def time_in_turn(
    works: Mapping[str, Callable[[], object]], rounds: int, device: str
) -> dict[str, list[float]]:
    """Time every work once a round, in seconds, after one round to warm up."""
    seconds: dict[str, list[float]] = {key: [] for key in works}
    for round_number in range(rounds + 1):
        for key, work in works.items():
            _synchronize(device)
            start = time.perf_counter()
            work()
            _synchronize(device)
            if round_number:
                seconds[key].append(time.perf_counter() - start)
    return seconds


def measure_memory(scheme: str, part: str, options: argparse.Namespace) -> float:
    """Measure the peak memory of two steps beyond that of the process before them, in MiB."""
    device = torch.device(options.device)
    with MemoryGauge(device) as before:
        pass
    with MemoryGauge(device) as during:
        subject = _subject(scheme, part, options)
        for _ in range(2):
            subject.step()
    return during.peak_mib - before.peak_mib


def _measure_memory_apart(scheme: str, part: str, options: argparse.Namespace) -> float:
    given = {key: getattr(options, key) for key in ("threads", "device", "queries")}
    words = [word for key, value in given.items() for word in (f"--{key}", str(value))]
    command = [sys.executable, __file__, "--parts", part, "--only-memory", scheme, *words]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout)


def _subject(scheme: str, part: str, options: argparse.Namespace) -> Subject:
    return Subject(
        scheme, options.device, decoder_only=part == "decoder", num_queries=options.queries
    )


def _synchronize(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def _print_profile(name: str, work: Callable[[], object]) -> None:
    with profile() as recorded:
        work()
    print(name, recorded.key_averages().table(sort_by="self_cpu_time_total", row_limit=25))


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Measure all parts that are asked for, as JSON values."""
    schemes = [BASELINE, *(name for name in options.schemes if name != BASELINE)]
    results: dict[str, Any] = {
        "threads": options.threads,
        "device": options.device,
        "queries": options.queries,
        "rounds": options.rounds,
        "torch": torch.__version__,
    }
    for part in options.parts:
        print(f"measuring {part} ...", file=sys.stderr)
        if part == "attention":
            results[part] = measure_attention(schemes, options)
        else:
            found = measure_part(part, schemes, options)
            results[part] = {name: result.to_dict() for name, result in found.items()}
    return results


def main() -> None:
    """Parse options, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS, help="what to measure")
    parser.add_argument("--schemes", nargs="+", default=list(RECIPES), choices=list(RECIPES))
    parser.add_argument("--queries", type=int, default=300, help="primary queries (300)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (2)")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds (5)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (cpu)")
    parser.add_argument("--profile", action="store_true", help="also print where the time goes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures")
    parser.add_argument("--read", type=Path, metavar="FILE", help="take the figures of --json")
    parser.add_argument("--markdown", action="store_true", help="print the tables as Markdown")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw bars; .png or .svg")
    parser.add_argument("--only-memory", choices=list(RECIPES), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.picture and not options.read and set(options.parts) == {"attention"}:
        parser.error("--picture needs the part step or decoder")
    torch.set_num_threads(options.threads)
    if options.only_memory:
        print(measure_memory(options.only_memory, options.parts[0], options))
        return
    results = json.loads(options.read.read_text()) if options.read else measure(options)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")
    if options.picture:
        save_figure(draw_schemes(results), options.picture)
    show = print_markdown if options.markdown else print_text
    for table in (scheme_table(results), attention_table(results)):
        if table:
            show(table)


if __name__ == "__main__":
    main()
