"""Latency of a model and of its exports, side by side on one image.

PyTorch with the native operator in float32 and bfloat16, torch.compile, the torch.export file, and
ONNX Runtime with both forms of deformable attention. Weights are random. All take turns, so that a
busy machine slows them all alike; the ratio is to PyTorch in float32. CPU time is that of all
threads together and hardly depends on what else runs.

    python benchmarks/inference.py --threads 2
    python benchmarks/inference.py --recipe shapes_tiny --sizes 160x192 --runs 20 --json
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch

from msdetr.api.checkpoints import LoadedCheckpoint
from msdetr.api.export import export_loaded
from msdetr.build import build_model
from msdetr.data.labels import Category, LabelSpace
from msdetr.export import ExportSettings
from msdetr.export.onnx_file import open_session
from msdetr.export.settings import AttentionOp
from msdetr.model import DetectionModel
from msdetr.recipe import load_recipe
from msdetr.structures import ImageBatch

NUM_CLASSES = 91
BASELINE = "PyTorch fp32, native"
Run = Callable[[ImageBatch], object]


@dataclass
class Contender:
    """One way to run the model, and its times so far in seconds."""

    name: str
    run: Run
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


def load_random(recipe_name: str) -> LoadedCheckpoint:
    """Build a recipe's model with random weights."""
    recipe = load_recipe(recipe_name)
    classes = LabelSpace.contiguous(Category(i, f"class {i}") for i in range(NUM_CLASSES))
    torch.manual_seed(0)
    model = build_model(recipe.model, NUM_CLASSES).eval()
    return LoadedCheckpoint(Path("random"), model, recipe, classes, {})


def run_model(model: Callable[..., object], *, bf16: bool) -> Run:
    """Run the model, without its one-to-many branch."""

    def run(images: ImageBatch) -> object:
        device = images.pixels.device.type
        with torch.autocast(device, dtype=torch.bfloat16, enabled=bf16):
            return model(images, with_one_to_many=False)

    return run


def run_torch_export(loaded: LoadedCheckpoint, folder: Path) -> Run:
    """Export to ``.pt2`` and run the loaded file."""
    path = folder / "model.pt2"
    settings = ExportSettings(format="torch-export")
    export_loaded(loaded, path, settings, verified_images=0, force=True)
    module = torch.export.load(path).module()
    return lambda images: module(images.pixels, images.padding_mask)


def run_onnx(loaded: LoadedCheckpoint, folder: Path, op: AttentionOp, threads: int) -> Run:
    """Export to ONNX and run the file with ONNX Runtime on the CPU."""
    path = folder / f"{op}.onnx"
    export_loaded(loaded, path, ExportSettings(op=op), verified_images=0, force=True)
    session = open_session(path, threads)
    return lambda images: session.run(
        None, {"pixels": images.pixels.numpy(), "padding_mask": images.padding_mask.numpy()}
    )


def contenders(
    loaded: LoadedCheckpoint, folder: Path, names: Sequence[str], arguments: argparse.Namespace
) -> Iterator[Contender]:
    """Prepare the ways to run the model whose names contain one of ``names``."""
    model: DetectionModel = loaded.model
    ways: dict[str, Callable[[], Run]] = {
        "torch.export, gather": lambda: run_torch_export(loaded, folder),
        "ONNX Runtime, gather": lambda: run_onnx(loaded, folder, "gather", arguments.threads),
        "ONNX Runtime, grid_sample": lambda: run_onnx(
            loaded, folder, "grid_sample", arguments.threads
        ),
        BASELINE: lambda: run_model(model, bf16=False),
        "PyTorch bf16, native": lambda: run_model(model, bf16=True),
        "torch.compile, native": lambda: run_model(torch.compile(model), bf16=False),
    }
    for name, prepare in ways.items():
        if name == BASELINE or not names or any(part in name for part in names):
            print(f"preparing: {name}", flush=True)
            yield Contender(name, prepare())


@contextmanager
def timed(contender: Contender, device: str) -> Iterator[None]:
    """Add the time of the block to a contender's."""
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    if device == "cuda":
        torch.cuda.synchronize()
    contender.wall.append(time.perf_counter() - wall)
    contender.cpu.append(time.process_time() - cpu)


def measure(entries: Sequence[Contender], hw: tuple[int, int], runs: int, device: str) -> None:
    """Let all contenders take turns on one image of the given height and width."""
    height, width = hw
    images = ImageBatch(
        torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(0)),
        torch.zeros(1, height, width, dtype=torch.bool),
    )
    for entry in entries:
        entry.wall.clear()
        entry.cpu.clear()
    with torch.inference_mode():
        for turn in range(runs + 1):
            for entry in entries:
                # ONNX Runtime and the exported program run on the CPU.
                on_cpu = entry.name.startswith(("ONNX", "torch.export"))
                given = images if on_cpu else images.to(device)
                with timed(entry, device):
                    entry.run(given)
                if turn == 0:  # warming up
                    entry.wall.clear()
                    entry.cpu.clear()


def rows(entries: Sequence[Contender], hw: tuple[int, int]) -> list[dict[str, object]]:
    """Medians of what was measured, and their ratios to PyTorch."""
    base = next(entry for entry in entries if entry.name == BASELINE)
    return [
        {
            "size": f"{hw[0]}x{hw[1]}",
            "name": entry.name,
            "ms": 1000 * statistics.median(entry.wall),
            "cpu_ms": 1000 * statistics.median(entry.cpu),
            "images_per_s": 1 / statistics.median(entry.wall),
            "ratio": statistics.median(entry.wall) / statistics.median(base.wall),
            "cpu_ratio": statistics.median(entry.cpu) / statistics.median(base.cpu),
        }
        for entry in entries
    ]


def print_table(measured: Sequence[dict[str, object]]) -> None:
    """Print one line per size and contender."""
    print(f"{'size':<10}{'':<28}{'ms':>9}{'image/s':>9}{'ratio':>7}{'CPU ms':>10}{'ratio':>7}")
    for row in measured:
        print(
            f"{row['size']:<10}{row['name']:<28}{row['ms']:>9.0f}{row['images_per_s']:>9.2f}"
            f"{row['ratio']:>7.2f}{row['cpu_ms']:>10.0f}{row['cpu_ratio']:>7.2f}"
        )


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--recipe", default="ddetr_pp_900q")
    parser.add_argument("--sizes", nargs="+", default=["800x1066", "640x640"], metavar="HxW")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--only", nargs="+", default=[], metavar="PART", help="parts of names")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def main() -> None:
    """Measure and print."""
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    loaded = load_random(arguments.recipe)
    loaded.model.set_attention_backend("native")
    with tempfile.TemporaryDirectory() as folder:
        entries = list(contenders(loaded, Path(folder), arguments.only, arguments))
        # Only now: exports are made on the CPU.
        loaded.model.to(arguments.device)
        measured = []
        for size in arguments.sizes:
            height, width = (int(side) for side in size.split("x"))
            measure(entries, (height, width), arguments.runs, arguments.device)
            measured += rows(entries, (height, width))
    print(json.dumps(measured, indent=2)) if arguments.json else print_table(measured)


if __name__ == "__main__":
    main()
