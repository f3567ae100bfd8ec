"""CPU time of whole training steps in two checkouts of the package, which take turns.

    python benchmarks/training_step.py                                    # this one alone
    python benchmarks/training_step.py --against ../before/.venv/bin/python
    python benchmarks/training_step.py --recipes shapes_tiny shapes_tiny_hybrid --rounds 9

A step is what ``msdetr train`` does for one: the batch is read, transformed and collated, then
forward, matching, losses, backward, clipping and AdamW. Every interpreter (each with the package
installed from its own checkout) keeps a process of its own that does a few steps a round, so that
a busy machine slows both alike. Times are CPU milliseconds per step, medians over the rounds;
the ratio is the median over rounds of that round's ratio. "operators" are those of one step below
autograd, views included. Recipes need no data but the embedded shapes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from msdetr.api.datasets import load_training_data
from msdetr.api.training.session import TrainingSession
from msdetr.build import build_accelerator
from msdetr.data.batching import Batch
from msdetr.engine.run_directory import RunDirectory
from msdetr.recipe import load_recipe


class OperatorCount(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the operators that run."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total: int = 0

    def __torch_dispatch__(
        self,
        func: Callable[..., object],
        types: object,
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        """Run the operator and count it."""
        self.total += 1
        return func(*args, **(kwargs or {}))


class Runner:
    """A recipe's training run, step by step."""

    def __init__(self, recipe_name: str) -> None:
        recipe = load_recipe(recipe_name, ["data.num_workers=0"])
        folder = RunDirectory(Path(tempfile.mkdtemp()))
        self._session = TrainingSession(
            recipe,
            load_training_data(recipe),
            build_accelerator(recipe.train, device="cpu"),
            folder,
        )
        self._trainer = self._session.trainer()
        self._trainer.model.train()
        self._batches = self._endless()

    def step(self) -> None:
        """Do one step."""
        self._trainer.train_step([next(self._batches)])

    def count_operators(self) -> int:
        """Count the operators of a step."""
        with OperatorCount() as counted:
            self.step()
        total: int = counted.total
        return total

    def measure(self, steps: int) -> float:
        """Return the CPU milliseconds of a step, averaged over some."""
        start = time.process_time()
        for _ in range(steps):
            self.step()
        return (time.process_time() - start) / steps * 1e3

    def _endless(self) -> Iterator[Batch]:
        epoch = 0
        while True:
            yield from self._session.batches(epoch, 0)
            epoch += 1


def serve(recipe_name: str, threads: int, steps: int) -> None:
    """Answer every line on stdin with the time of a step, the first with its operators."""
    torch.set_num_threads(threads)
    runner = Runner(recipe_name)
    runner.measure(3)
    operators = runner.count_operators()
    for _ in sys.stdin:
        print(json.dumps({"ms": runner.measure(steps), "operators": operators}), flush=True)


class Process:
    """A process of an interpreter that does steps when it is asked to."""

    def __init__(self, interpreter: str, recipe_name: str, options: argparse.Namespace) -> None:
        numbers = ["--threads", str(options.threads), "--steps", str(options.steps)]
        self._process = subprocess.Popen(
            [interpreter, __file__, "--serve", recipe_name, *numbers],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.ms: list[float] = []
        self.operators = 0

    def take_turn(self) -> None:
        """Measure once more."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(file=self._process.stdin, flush=True)
        answer = json.loads(self._process.stdout.readline())
        self.ms.append(answer["ms"])
        self.operators = answer["operators"]

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def compare(recipe_name: str, interpreters: Sequence[str], options: argparse.Namespace) -> str:
    """Measure a recipe with every interpreter, and return a row of the table."""
    processes = [Process(each, recipe_name, options) for each in interpreters]
    for _ in range(options.rounds):
        for process in processes:
            process.take_turn()
    for process in processes:
        process.close()
    cells = [f"{statistics.median(p.ms):>10.1f}{p.operators:>11}" for p in processes]
    ratio = statistics.median(
        own / other for own, other in zip(processes[0].ms, processes[-1].ms, strict=True)
    )
    return f"{recipe_name:<24}{''.join(cells)}{ratio:>8.2f}"


def main() -> None:
    """Parse options, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--recipes", nargs="+", default=["shapes_tiny"], help="(shapes_tiny)")
    parser.add_argument("--against", metavar="PYTHON", help="interpreter of the other checkout")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each (7)")
    parser.add_argument("--steps", type=int, default=10, help="steps per turn (10)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (1)")
    parser.add_argument("--serve", metavar="RECIPE", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, options.threads, options.steps)
        return
    interpreters = [sys.executable, *([options.against] if options.against else [])]
    heads = [f"{name:>10}{'operators':>11}" for name in ("ms", "other ms")[: len(interpreters)]]
    print(f"{'':<24}{''.join(heads)}{'ratio':>8}")
    for name in options.recipes:
        print(compare(name, interpreters, options))


if __name__ == "__main__":
    main()
