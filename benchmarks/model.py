"""A whole model's training step and evaluation, beside the floor of its matrix products.

    python benchmarks/model.py                                  # float32 and bfloat16, 2 threads
    python benchmarks/model.py --runs 5 --precisions fp32 --profile
    python benchmarks/model.py --device cuda --json

The model is a packaged recipe's with random weights. A training step is zero_grad, forward of two
480x640 images with 7 and 11 targets in one batch, matching and losses, backward, clipping and
AdamW; an evaluation is one 800x1066 image to its 100 detections. The floor of a precision is the
time of the same run's matrix products, convolutions and attentions alone: they are recorded from
one pass with their shapes and strides, and repeated on random numbers. Everything takes turns in
every round, so that a busy machine slows all alike; figures are medians, with the best in brackets.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.profiler import profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from msdetr.build import build_criterion, build_model, build_parameter_groups
from msdetr.engine.optimizer import build_adamw
from msdetr.losses import total_loss
from msdetr.model.detections import select_detections
from msdetr.recipe import Recipe, load_recipe
from msdetr.structures import ImageBatch, Targets

TRAINING_HW, EVALUATION_HW, TARGETS = (480, 640), (800, 1066), (7, 11)
PUBLISHED = {"training": "22-29 s", "evaluation": "9.5-10.8 s"}
# Without autograd a composite operator is not taken apart before it is recorded.
HEAVY = ("mm", "addmm", "bmm", "linear", "convolution", "conv2d", "convolution_backward")
ATTENTION = ("_scaled_dot_product", "scaled_dot_product")


@dataclass(frozen=True)
class Call:
    """One heavy operator with the layout of its arguments."""

    operator: OpOverload
    arguments: tuple[object, ...]
    spec: TreeSpec

    def repeat(self, device: str) -> Callable[[], object]:
        """Return a function that does the same work on random numbers."""
        values = [a.fill(device) if isinstance(a, Layout) else a for a in self.arguments]
        args, kwargs = tree_unflatten(values, self.spec)
        return lambda: self.operator(*args, **kwargs)


@dataclass(frozen=True)
class Layout:
    """Shape, strides and type of a tensor."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: torch.dtype

    def fill(self, device: str) -> Tensor:
        """Draw a tensor of this layout."""
        last = sum((n - 1) * stride for n, stride in zip(self.shape, self.strides, strict=True))
        storage = torch.randn(1 + last, device=device).to(self.dtype)
        return storage.as_strided(self.shape, self.strides)


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the heavy operators that run, by layout of their arguments."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: Counter[Call] = Counter()

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: object,
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        """Run the operator, and note it if it is heavy."""
        name = func._schema.name.removeprefix("aten::")
        if name in HEAVY or name.startswith(ATTENTION):
            leaves, spec = tree_flatten((args, dict(kwargs or {})))
            self.calls[Call(func, tuple(map(_layout, leaves)), spec)] += 1
        return func(*args, **(kwargs or {}))


def _layout(value: object) -> object:
    if isinstance(value, Tensor):
        return Layout(tuple(value.shape), value.stride(), value.dtype)
    return tuple(value) if isinstance(value, list) else value


@dataclass
class Work:
    """Something to time in turn with the rest.

    Attributes:
        name: Row of the table.
        call: What is timed.
        seconds: Times measured so far.
    """

    name: str
    call: Callable[[], object]
    seconds: list[float] = field(default_factory=list)


class Subject:
    """A model with what it takes to train it for a step and to evaluate an image.

    Args:
        recipe: The model, criterion and optimizer.
        device: "cpu" or "cuda".
    """

    def __init__(self, recipe: Recipe, device: str) -> None:
        torch.manual_seed(0)
        self.device = device
        self.model = build_model(recipe.model, 91).to(device)
        self.criterion = build_criterion(recipe.supervision)
        groups = build_parameter_groups(self.model, recipe.train)
        self.optimizer = build_adamw(self.model, groups, weight_decay=recipe.train.weight_decay)
        self.clip_norm = recipe.train.clip_norm or float("inf")
        self.pair = _images(2, *TRAINING_HW).to(device)
        self.image = _images(1, *EVALUATION_HW).to(device)
        self.targets = _targets(TARGETS).to(device)

    def train(self, precision: str) -> None:
        """Do one optimizer step."""
        self.model.train()
        self.optimizer.zero_grad()
        with self._autocast(precision):
            output = self.model(self.pair)
        queries = output.one_to_one.logits.shape[:3]
        terms = self.criterion(
            output,
            self.targets,
            num_targets=float(sum(TARGETS)),
            u=torch.rand(queries, device=self.device),
        )
        torch.autograd.backward(total_loss(terms))
        nn.utils.clip_grad_norm_(self.model.parameters(), self.clip_norm)
        self.optimizer.step()

    def evaluate(self, precision: str) -> None:
        """Detect on one image."""
        self.model.eval()
        with torch.inference_mode(), self._autocast(precision):
            found = self.model(self.image).one_to_one
            size = torch.tensor([EVALUATION_HW], device=self.device)
            select_detections(found.logits[-1], found.boxes_cxcywh[-1], size, 100)

    def _autocast(self, precision: str) -> AbstractContextManager[Any]:
        if precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device, torch.bfloat16)


def _images(count: int, height: int, width: int) -> ImageBatch:
    pixels = torch.randn(count, 3, height, width)
    return ImageBatch(pixels, torch.zeros(count, height, width, dtype=torch.bool))


def _targets(counts: Sequence[int]) -> Targets:
    boxes = [
        torch.cat([torch.rand(n, 2) * 0.6 + 0.2, torch.rand(n, 2) * 0.3 + 0.05], 1) for n in counts
    ]
    return Targets.from_lists(boxes, [torch.randint(91, (n,)) for n in counts])


def heavy_part(work: Callable[[], object], device: str) -> Callable[[], object]:
    """Return a function that repeats only the matrix products and convolutions of the work."""
    with Recorder() as recorder:
        work()
    parts = [(call.repeat(device), count) for call, count in recorder.calls.items()]

    def repeat() -> None:
        for part, count in parts:
            for _ in range(count):
                part()

    return repeat


def collect(recipe: Recipe, precisions: Sequence[str], device: str) -> list[Work]:
    """Set up everything that is timed."""
    subject = Subject(recipe, device)
    works = []
    for precision in precisions:
        for name, method in (("training", subject.train), ("evaluation", subject.evaluate)):

            def work(method: Callable[[str], None] = method, precision: str = precision) -> None:
                method(precision)

            works.append(Work(f"{name} {precision}", work))
            with torch.inference_mode(name == "evaluation"):
                works.append(Work(f"{name} {precision} floor", heavy_part(work, device)))
    return works


def measure(works: Sequence[Work], runs: int, device: str) -> None:
    """Time every work once a round, after one round to warm up."""
    for round_number in range(runs + 1):
        for work in works:
            _synchronize(device)
            start = time.perf_counter()
            with torch.no_grad() if work.name.endswith("floor") else nullcontext():
                work.call()
            _synchronize(device)
            if round_number:
                work.seconds.append(time.perf_counter() - start)


def _synchronize(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def _print_profile(works: Sequence[Work]) -> None:
    for work in works:
        if not work.name.endswith("floor"):
            with profile() as recorded:
                work.call()
            print(work.name)
            print(recorded.key_averages().table(sort_by="self_cpu_time_total", row_limit=20))


def _print_table(works: Sequence[Work]) -> None:
    print(f"{'':<20}{'seconds':>16}{'floor':>16}{'ratio':>8}   published (float32, 2 CPU cores)")
    for work, floor in zip(works[::2], works[1::2], strict=True):
        cells = [
            f"{statistics.median(each.seconds):.2f} ({min(each.seconds):.2f})"
            for each in (work, floor)
        ]
        ratio = statistics.median(work.seconds) / statistics.median(floor.seconds)
        published = PUBLISHED[work.name.split()[0]]
        print(f"{work.name:<20}{cells[0]:>16}{cells[1]:>16}{ratio:>8.2f}   {published}")


def main() -> None:
    """Parse options, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--recipe", default="ddetr_pp_900q", help="packaged recipe (ddetr_pp_900q)")
    parser.add_argument(
        "--precisions", nargs="+", default=["fp32", "bf16"], choices=["fp32", "bf16"]
    )
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (2)")
    parser.add_argument("--runs", type=int, default=5, help="timed rounds (5)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (cpu)")
    parser.add_argument("--profile", action="store_true", help="also print where the time goes")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    recipe = load_recipe(options.recipe, ["model.backbone.weights=none"])
    works = collect(recipe, options.precisions, options.device)
    measure(works, options.runs, options.device)
    if options.json:
        about = {"recipe": options.recipe, "threads": options.threads, "device": options.device}
        seconds = {work.name: work.seconds for work in works}
        print(json.dumps({**about, "torch": torch.__version__, "seconds": seconds}, indent=2))
        return
    print(f"{options.recipe}, {options.threads} threads, {options.runs} rounds, {options.device}")
    _print_table(works)
    if options.profile:
        _print_profile(works)


if __name__ == "__main__":
    main()
