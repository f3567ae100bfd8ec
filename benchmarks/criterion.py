"""Time of one training step's matching and losses.

Two images of 480x640, 900 queries, 91 classes, six decoder layers supervised one-to-one and
one-to-many, and the 6,380 proposals of the four feature levels. Cases differ in the number of
targets and are timed in turn, so that a busy machine slows them all alike.

    python benchmarks/criterion.py --threads 2
    python benchmarks/criterion.py --runs 50 --json
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from msdetr.assignment import HungarianAssigner, OneToManyAssigner, assign_together
from msdetr.losses import BranchRule, Criterion, LossWeights, Supervision, total_loss
from msdetr.structures import ModelOutput, Predictions, Proposals, Targets

NUM_LAYERS, NUM_QUERIES, NUM_CLASSES = 6, 900, 91
NUM_CELLS = 60 * 80 + 30 * 40 + 15 * 20 + 8 * 10
CASES = {"7 and 11": (7, 11), "1 and 1": (1, 1), "60 and 60": (60, 60)}
PUBLISHED = "75-100 ms (matching and losses; stated for 2 CPU cores, measured elsewhere)"


@dataclass
class Case:
    """Inputs of one row of the table, and the times measured so far in milliseconds."""

    output: ModelOutput
    targets: Targets
    u: torch.Tensor
    assignment_ms: list[float] = field(default_factory=list)
    forward_ms: list[float] = field(default_factory=list)
    backward_ms: list[float] = field(default_factory=list)


def make_case(counts: Sequence[int], device: str) -> Case:
    """Draw targets, and predictions of which a third lies near some target."""
    generator = torch.Generator().manual_seed(0)

    def uniform(*shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=generator)

    def boxes(*shape: int) -> torch.Tensor:
        return torch.cat([0.2 + 0.6 * uniform(*shape, 2), 0.05 + 0.3 * uniform(*shape, 2)], dim=-1)

    labels = [(uniform(count) * NUM_CLASSES).long() for count in counts]
    targets = Targets.from_lists([boxes(count) for count in counts], labels)

    def predictions(num_layers: int, num_queries: int) -> Predictions:
        shape = (num_layers, len(counts), num_queries)
        logits = torch.randn((*shape, NUM_CLASSES), generator=generator) - 4
        found = boxes(*shape)
        near = (uniform(*shape) * targets.counts[:, None]).long()
        image = torch.arange(len(counts))[:, None]
        copied = targets.boxes_cxcywh[image, near] * (0.9 + 0.2 * uniform(*shape, 1))
        found = torch.where(uniform(*shape, 1) < 1 / 3, copied, found)
        return Predictions(
            logits.to(device).requires_grad_(), found.clamp(0, 1).to(device).requires_grad_()
        )

    cells = predictions(1, NUM_CELLS)
    output = ModelOutput(
        one_to_one=predictions(NUM_LAYERS, NUM_QUERIES),
        one_to_many=predictions(NUM_LAYERS, NUM_QUERIES),
        proposals=Proposals(
            cells.logits[0],
            cells.boxes_cxcywh[0],
            boxes(len(counts), NUM_CELLS).to(device),
        ),
    )
    u = uniform(NUM_LAYERS, len(counts), NUM_QUERIES)
    return Case(output, targets.to(device), u.to(device))


def published_supervision() -> Supervision:
    """Return the rules of the published models."""
    weights = LossWeights(class_weight=2, box_weight=5, giou_weight=2)
    return Supervision(
        assign=assign_together,
        one_to_one=BranchRule(
            HungarianAssigner(class_weight=2, l1_weight=5, giou_weight=2),
            LossWeights(class_weight=1, box_weight=5, giou_weight=2),
        ),
        one_to_many=BranchRule(
            OneToManyAssigner(
                k=6, threshold=0.4, iou_weight=0.7, class_weight=0.3, max_positive_fraction=0.25
            ),
            weights,
        ),
        proposals=BranchRule(
            HungarianAssigner(class_weight=0, l1_weight=5, giou_weight=2), weights
        ),
    )


def _now(device: str) -> float:
    if device != "cpu":
        torch.cuda.synchronize()
    return 1e3 * time.perf_counter()


def measure(case: Case, criterion: Criterion, device: str) -> None:
    """Run one step and add its times to the case."""
    supervision = criterion.supervision
    start = _now(device)
    supervision.assign(supervision.branches(case.output, case.targets, case.u))
    matched = _now(device)
    num_targets = case.targets.counts.sum().clamp(min=1)
    loss = total_loss(criterion(case.output, case.targets, num_targets=num_targets, u=case.u))
    computed = _now(device)
    torch.autograd.backward(loss)
    end = _now(device)
    case.assignment_ms.append(matched - start)
    case.forward_ms.append(computed - matched)
    case.backward_ms.append(end - computed)


def summary(case: Case) -> dict[str, float]:
    """Return median and best of every part, in milliseconds."""
    parts = {
        "assignment": case.assignment_ms,
        "forward": case.forward_ms,
        "backward": case.backward_ms,
    }
    return {
        f"{part}_{name}_ms": round(function(times), 3)
        for part, times in parts.items()
        for name, function in (("median", statistics.median), ("min", min))
    }


def main() -> None:
    """Parse options, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (2)")
    parser.add_argument("--runs", type=int, default=20, help="timed runs per case (20)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (cpu)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    criterion = Criterion(published_supervision())
    cases = {name: make_case(counts, options.device) for name, counts in CASES.items()}
    for warm_up in (True, False):
        for _ in range(3 if warm_up else options.runs):
            for case in cases.values():
                measure(case, criterion, options.device)
        if warm_up:
            cases = {n: Case(c.output, c.targets, c.u) for n, c in cases.items()}
    results = {name: summary(case) for name, case in cases.items()}
    if options.json:
        about = {"threads": options.threads, "runs": options.runs, "device": options.device}
        print(json.dumps({**about, "torch": torch.__version__, "targets": results}, indent=2))
        return
    print(f"{options.runs} runs in turn, {options.threads} threads, {options.device}")
    print("milliseconds: median (best); forward includes the assignment")
    print(f"{'targets':<12}{'assignment':>18}{'forward':>18}{'backward':>18}")
    for name, row in results.items():
        cells = [
            f"{row[f'{part}_median_ms']:.1f} ({row[f'{part}_min_ms']:.1f})"
            for part in ("assignment", "forward", "backward")
        ]
        print(f"{name:<12}" + "".join(f"{cell:>18}" for cell in cells))
    print(f"published implementation, 7 and 11 targets: {PUBLISHED}")


if __name__ == "__main__":
    main()
