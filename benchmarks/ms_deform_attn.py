"""Multi-scale deformable attention: every backend and installed rival side by side.

    python benchmarks/ms_deform_attn.py                         # all cases on the CPU
    python benchmarks/ms_deform_attn.py --cases encoder --images 1 --backends native rival
    python benchmarks/ms_deform_attn.py --device cuda --dtype bfloat16 --json

The maps are those of an 800x1216 image: levels (100,152) (50,76) (25,38) (13,19), 8 heads of 32
channels, 4 points. The encoder asks once per cell, at the offsets a new model starts with plus a
standard deviation of one cell; the decoder's queries sample anywhere. Before anything is timed,
every result is compared with float64. Backends take turns in every round, so that a busy machine
slows them alike; figures are medians, ratios are to ``native``. On a GPU each call is replayed from
a CUDA graph over several input sets, so that none stays in the cache.

Rivals are used when installed: ``torch-ms-deform-attn`` (build it from its source archive with
``pip install --no-build-isolation --no-binary :all: torch-ms-deform-attn``), and on a GPU a plain
kernel with one thread per channel, compiled from the file beside this one.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from ms_deform_attn_inputs import CASES, Case, Inputs, compulsory_bytes, make_inputs
from ms_deform_attn_rivals import Attention, find_backends
from torch import Tensor

TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 2e-2, torch.float16: 4e-3}
GPU_INPUT_SETS = 4


@dataclass(frozen=True)
class Row:
    """Medians of one backend at one shape, in milliseconds, and their ratio to native."""

    case: str
    images: int
    backend: str
    forward_ms: float
    forward_backward_ms: float
    forward_ratio: float
    forward_backward_ratio: float
    worst_error: float


def run_forward(attention: Attention, inputs: Inputs) -> Tensor:
    """Compute the output without a graph."""
    with torch.no_grad():
        return attention(inputs.value, inputs.spatial_shapes, inputs.locations, inputs.weights)


def run_forward_backward(attention: Attention, inputs: Inputs) -> tuple[Tensor, ...]:
    """Compute the output and all three gradients."""
    leaves = (inputs.value, inputs.locations, inputs.weights)
    output = attention(inputs.value, inputs.spatial_shapes, inputs.locations, inputs.weights)
    return (output, *torch.autograd.grad(output, leaves, inputs.grad_output.to(output.dtype)))


def worst_error(actual: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Return the largest difference, relative to the largest value of its tensor."""
    errors = [
        (a.detach().cpu().double() - e.detach()).abs().max() / e.detach().abs().max()
        for a, e in zip(actual, expected, strict=True)
    ]
    return float(torch.stack(errors).max())


Timed = Callable[[], float]


def timer(call: Callable[[Inputs], object], inputs: Sequence[Inputs]) -> Timed:
    """Return a function that runs the call once and returns its milliseconds."""
    if inputs[0].value.device.type == "cuda":
        return _graph_timer(call, inputs)

    def timed() -> float:
        started = time.perf_counter()
        call(inputs[0])
        return (time.perf_counter() - started) * 1e3

    return timed


def _graph_timer(call: Callable[[Inputs], object], inputs: Sequence[Inputs]) -> Timed:
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for each in inputs:
            call(each)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for each in inputs:
            call(each)
    start = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    end = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]

    def timed() -> float:
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) / len(inputs)

    return timed


def measure(name: str, images: int, backends: dict[str, Attention], options: Options) -> list[Row]:
    """Check and time all backends at one shape."""
    case = CASES[name]
    sets = GPU_INPUT_SETS if options.device.type == "cuda" else 1
    drawn = [make_inputs(case, images, seed) for seed in range(sets)]
    inputs = [each.converted(options.device, options.dtype) for each in drawn]
    exact = inputs[0].converted(torch.device("cpu"), torch.float64)
    expected = run_forward_backward(find_backends("cpu")["reference"], exact)
    errors = {
        backend: worst_error(run_forward_backward(attention, inputs[0]), expected)
        for backend, attention in backends.items()
    }
    del expected
    for backend, error in errors.items():
        if not error < TOLERANCES[options.dtype]:
            talk(f"{backend} at {name}: relative error {error:.1e}")
    timers = {
        backend: (
            timer(functools.partial(run_forward, attention), inputs),
            timer(functools.partial(run_forward_backward, attention), inputs),
        )
        for backend, attention in backends.items()
    }
    rounds = [
        {backend: (forward(), both()) for backend, (forward, both) in timers.items()}
        for _ in range(options.rounds)
    ]
    medians = {
        backend: [statistics.median(each[backend][i] for each in rounds) for i in range(2)]
        for backend in backends
    }
    base = medians["native"]
    return [
        Row(
            case=name,
            images=images,
            backend=backend,
            forward_ms=forward,
            forward_backward_ms=both,
            forward_ratio=forward / base[0],
            forward_backward_ratio=both / base[1],
            worst_error=errors[backend],
        )
        for backend, (forward, both) in medians.items()
    ]


@dataclass(frozen=True)
class Options:
    """How to measure."""

    device: torch.device
    dtype: torch.dtype
    rounds: int


def extra_memory_mb(backend: str, case: str, images: int) -> float:
    """Return peak memory of forward and backward beyond inputs and results, in a new process."""
    command = [sys.executable, __file__, "--memory-of", backend, "--cases", case]
    command += ["--images", str(images)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(output)


def print_own_memory(backend: str, case: str, images: int) -> None:
    """Print what one forward and backward needs beyond inputs and results, in MB (Linux)."""
    attention = find_backends("cpu")[backend]
    small = Case(queries=8, spatial_shapes=((4, 4),))
    warm = make_inputs(small, 1).converted(torch.device("cpu"), torch.float32)
    run_forward_backward(attention, warm)
    inputs = make_inputs(CASES[case], images).converted(torch.device("cpu"), torch.float32)
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = _status_mb("VmRSS")
    results = run_forward_backward(attention, inputs)
    kept = sum(result.nbytes for result in results) / 2**20
    sys.stdout.write(f"{max(0.0, _status_mb('VmHWM') - before - kept)}\n")


def _status_mb(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def copy_rate(device: torch.device) -> float:
    """Measure how fast a tensor is copied, in bytes read and written per second."""
    source = torch.ones(64 * 2**20, device=device)
    target = torch.empty_like(source)
    seconds = []
    for _ in range(5):
        if device.type == "cuda":
            torch.cuda.synchronize()
        started = time.perf_counter()
        target.copy_(source)
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return 2 * source.nbytes / min(seconds)


def talk(text: str) -> None:
    """Write a line for people, apart from the results."""
    sys.stderr.write(text + "\n")


def print_table(rows: Sequence[Row]) -> None:
    """Print one line per backend and shape."""
    print(f"{'case':<18}{'images':>6}  {'backend':<10}{'fwd ms':>9}{'ratio':>7}", end="")
    print(f"{'fwd+bwd ms':>12}{'ratio':>7}{'error':>10}")
    for row in rows:
        print(f"{row.case:<18}{row.images:>6}  {row.backend:<10}", end="")
        print(f"{row.forward_ms:>9.2f}{row.forward_ratio:>7.1f}", end="")
        print(f"{row.forward_backward_ms:>12.2f}{row.forward_backward_ratio:>7.1f}", end="")
        print(f"{row.worst_error:>10.1e}")


def print_traffic(rows: Sequence[Row], rate: float, floors: Mapping[str, Sequence[float]]) -> None:
    """Print the time that moving every byte once takes, and how much native moves per second."""
    print(f"\ncopy rate {rate / 1e9:.1f} GB/s; moving every byte once takes at least (ms):")
    for row in (row for row in rows if row.backend == "native"):
        shape = f"{row.case} x{row.images}"
        forward, both = floors[shape]
        achieved = [forward / row.forward_ms, both / row.forward_backward_ms]
        listed = " and ".join(f"{share * rate / 1e9:.1f}" for share in achieved)
        print(f"  {shape:<20} forward {forward:.2f}, forward and backward {both:.2f};", end="")
        print(f" native moves {listed} GB/s")


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--images", nargs="+", type=int, default=[1, 2], help="batch sizes")
    parser.add_argument("--backends", nargs="+", help="subset of those found; native always runs")
    parser.add_argument("--rounds", type=int, default=7, help="timings per backend")
    parser.add_argument("--threads", type=int, help="CPU threads; default: torch's choice")
    parser.add_argument("--memory", action="store_true", help="also measure peak memory (CPU)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    return parser.parse_args()


def chosen_backends(arguments: argparse.Namespace) -> dict[str, Attention]:
    """Find the backends to compare, saying which rival is absent."""
    found = find_backends(arguments.device, talk)
    wanted = set(arguments.backends or found) | {"native"}
    return {name: attention for name, attention in found.items() if name in wanted}


def main() -> None:
    """Measure and print."""
    arguments = parse_arguments()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    if arguments.memory_of:
        print_own_memory(arguments.memory_of, arguments.cases[0], arguments.images[0])
        return
    options = Options(
        torch.device(arguments.device), getattr(torch, arguments.dtype), arguments.rounds
    )
    backends = chosen_backends(arguments)
    shapes = [(name, images) for name in arguments.cases for images in arguments.images]
    rows = [row for shape in shapes for row in measure(*shape, backends, options)]
    rate = copy_rate(options.device)
    floors = {
        f"{name} x{images}": [
            size / rate * 1e3 for size in compulsory_bytes(CASES[name], images, options.dtype)
        ]
        for name, images in shapes
    }
    memory = (
        {
            f"{name} x{images}": {b: extra_memory_mb(b, name, images) for b in backends}
            for name, images in shapes
        }
        if arguments.memory and arguments.device == "cpu"
        else {}
    )
    if arguments.json:
        settings = {**vars(arguments), "threads": torch.get_num_threads(), "cores": os.cpu_count()}
        result = {
            "settings": settings,
            "rows": [asdict(row) for row in rows],
            "copy_bytes_per_second": rate,
            "traffic_floor_ms": floors,
            "extra_memory_mb": memory,
        }
        print(json.dumps(result, indent=2, default=str))
        return
    print_table(rows)
    print_traffic(rows, rate, floors)
    for shape, sizes in memory.items():
        listed = ", ".join(f"{backend} {size:.0f}" for backend, size in sizes.items())
        print(f"extra memory (MB), {shape}: {listed}")


if __name__ == "__main__":
    main()
