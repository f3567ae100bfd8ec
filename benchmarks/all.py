"""Every benchmark of speed, one after another, and a table of what they found.

    python benchmarks/all.py --json figures.json                     # measure
    python benchmarks/all.py --only operator step --json figures.json
    python benchmarks/all.py --read figures.json --document FILE.md
    python benchmarks/all.py --first-command --json figures.json     # a whole training besides

Each benchmark is a process of its own, and what it compares takes turns there; so only ratios
within a row tell anything, and only where nothing else runs. ``--json`` keeps the figures of
benchmarks that were measured before and are not measured now. ``--document`` fills what stands
between ``<!-- figures -->`` and ``<!-- /figures -->``.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msdetr.engine.environment import collect_environment

HERE = Path(__file__).parent
MARKS = re.compile(r"(<!-- figures -->\n).*?(<!-- /figures -->)", re.DOTALL)

Row = tuple[str, str, str, str]
"""Work, its time, what it is compared with, and the ratio."""


@dataclass(frozen=True)
class Benchmark:
    """A benchmark and how its figures become rows.

    Attributes:
        command: Script and arguments; it prints JSON.
        rows: Turns what it printed into rows.
    """

    command: tuple[str, ...]
    rows: Callable[[Any], Iterator[Row]]


def operator_rows(found: Mapping[str, Any]) -> Iterator[Row]:
    """One row per shape and rival."""
    native = {
        (row["case"], row["images"]): row for row in found["rows"] if row["backend"] == "native"
    }
    for row in found["rows"]:
        own = native[row["case"], row["images"]]
        if row is own:
            continue
        work = f"operator, {row['case']}, {row['images']} image(s)"
        for name, key in (("forward", "forward"), ("both ways", "forward_backward")):
            milliseconds = f"{own[f'{key}_ms']:.1f} ms"
            rival = f"{row['backend']}: {row[f'{key}_ms']:.1f} ms"
            yield f"{work}, {name}", milliseconds, rival, f"{row[f'{key}_ratio']:.1f}x slower"


def model_rows(found: Mapping[str, Any]) -> Iterator[Row]:
    """One row per work: its time beside that of its matrix products alone."""
    seconds = {name: statistics.median(times) for name, times in found["seconds"].items()}
    for name, value in seconds.items():
        if not name.endswith("floor"):
            floor = seconds[f"{name} floor"]
            work = f"{found['recipe']}, {name}"
            compared = f"its matrix products: {floor:.2f} s"
            yield work, f"{value:.2f} s", compared, f"{value / floor:.2f}x its floor"


def inference_rows(found: list[Mapping[str, Any]]) -> Iterator[Row]:
    """One row per way to run a model and size."""
    bases = {row["size"]: row for row in found if row["name"] == "native-fp32"}
    for row in found:
        base = bases[row["size"]]
        if row is not base:
            yield (
                f"inference at {row['size']}, {row['name']}",
                f"{row['ms']:.0f} ms",
                f"PyTorch in float32: {base['ms']:.0f} ms",
                f"{row['ms'] / base['ms']:.2f}x its time",
            )


def criterion_rows(found: Mapping[str, Any]) -> Iterator[Row]:
    """One row per number of targets."""
    for targets, times in found["targets"].items():
        total = times["forward_median_ms"] + times["backward_median_ms"]
        share = times["assignment_median_ms"] / total
        work = f"matching and losses, targets {targets}"
        yield work, f"{total:.0f} ms", "of it, matching", f"{share:.0%}"


def metrics_rows(found: Mapping[str, Any]) -> Iterator[Row]:
    """One row: hotcoco beside pycocotools."""
    slow, fast = (statistics.median(found["seconds"][name]) for name in ("pycocotools", "hotcoco"))
    work = f"COCO metrics of {found['images'] * found['detections']:,} detections"
    yield work, f"{fast:.2f} s", f"pycocotools: {slow:.2f} s", f"{slow / fast:.1f}x slower"


def command_rows(found: Mapping[str, Any]) -> Iterator[Row]:
    """One row per command: beside importing torch and torchvision."""
    seconds = {name: statistics.median(times) for name, times in found["seconds"].items()}
    (base_name, base), *others = seconds.items()
    for name, value in others:
        yield f"`{name}`", f"{value:.2f} s", f"{base_name}: {base:.2f} s", f"{value / base:.2f}x"


BENCHMARKS = {
    "commands": Benchmark(("commands.py", "--json"), command_rows),
    "operator": Benchmark(
        ("ms_deform_attn.py", "--json", "--cases", "encoder", "decoder-300"), operator_rows
    ),
    "criterion": Benchmark(("criterion.py", "--json"), criterion_rows),
    "step": Benchmark(("model.py", "--json", "--precisions", "fp32", "--runs", "3"), model_rows),
    "inference": Benchmark(("inference.py", "--json", "--sizes", "640x640"), inference_rows),
    "metrics": Benchmark(("coco_metrics.py", "--json"), metrics_rows),
}


def measure(names: list[str]) -> Iterator[tuple[str, Any]]:
    """Run benchmarks and yield what each printed."""
    for number, name in enumerate(names, start=1):
        print(f"{number}/{len(names)} {name}", file=sys.stderr)
        script, *arguments = BENCHMARKS[name].command
        command = [sys.executable, str(HERE / script), *arguments]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        yield name, json.loads(done.stdout)


def time_first_command() -> dict[str, Any]:
    """Run README's first command from empty caches."""
    with tempfile.TemporaryDirectory() as folder:
        program = str(Path(sys.executable).with_name("msdetr"))
        command = [program, "train", "shapes_tiny", "--output", f"{folder}/run"]
        start = time.perf_counter()
        subprocess.run(command, env={**os.environ, "MSDETR_CACHE": f"{folder}/cache"}, check=True)
        seconds = time.perf_counter() - start
        metrics = json.loads(Path(folder, "run/evaluation/metrics.json").read_text())
    return {"seconds": seconds, "ap": metrics["ap"]}


def render(figures: Mapping[str, Any]) -> str:
    """Write the table and the machine as Markdown."""
    machine = figures["machine"]
    lines = [
        f"{machine['cpu']}, {machine['cpu_capability']}, {machine['cpus']} cores; "
        f"Python {machine['python']}, PyTorch {machine['packages']['torch']}.",
        "",
        "| work | time | compared with | ratio |",
        "|---|---:|---|---:|",
    ]
    for name, benchmark in BENCHMARKS.items():
        if name in figures:
            lines += [f"| {' | '.join(row)} |" for row in benchmark.rows(figures[name])]
    if "first_command" in figures:
        first = figures["first_command"]
        seconds, ap = f"{first['seconds']:.0f} s", f"{first['ap']:.3f}"
        lines.append(f"| `msdetr train shapes_tiny`, empty caches | {seconds} | AP | {ap} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Parse options, measure, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--only", nargs="*", choices=list(BENCHMARKS), help="these benchmarks")
    parser.add_argument("--first-command", action="store_true", help="also train shapes_tiny")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures, or add them")
    parser.add_argument("--read", type=Path, metavar="FILE", help="measure nothing: take these")
    parser.add_argument("--document", type=Path, metavar="FILE", help="fill the table there")
    options = parser.parse_args()
    if options.read is not None:
        figures = json.loads(options.read.read_text())
    else:
        known = options.json is not None and options.json.exists()
        figures = json.loads(options.json.read_text()) if known else {}
        figures["machine"] = collect_environment()
        figures.update(measure(list(BENCHMARKS) if options.only is None else options.only))
        if options.first_command:
            figures["first_command"] = time_first_command()
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    table = render(figures)
    if options.document is None:
        print(table)
        return
    text = options.document.read_text()
    if not MARKS.search(text):
        raise SystemExit(f"{options.document}: lacks <!-- figures --> and <!-- /figures -->")
    filled = MARKS.sub(lambda found: found[1] + table + found[2], text)
    options.document.write_text(filled)


if __name__ == "__main__":
    main()
