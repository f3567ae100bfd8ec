"""Time of the COCO metrics with pycocotools and with hotcoco, on the same detections.

    python benchmarks/coco_metrics.py --images 1000
    python benchmarks/coco_metrics.py --images 5000 --detections 300 --json     # as of COCO val2017

Ground truth and detections are drawn at random: boxes of all sizes, 80 classes, seven targets per
image, and of the detections as many near a target of their class as a trained detector has. The
two libraries take turns; their metrics must be equal to the bit.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from contextlib import redirect_stdout
from io import StringIO
from typing import Any

import numpy as np

from msdetr.evaluation.matching import Library, ScoringTask, match_boxes, prepare_task

CLASSES = 80
TARGETS_PER_IMAGE = 7
LIBRARIES: tuple[Library, ...] = ("pycocotools", "hotcoco")


def make_task(images: int, detections: int, seed: int) -> ScoringTask:
    """Draw ground truth and as many detections per image."""
    generator = np.random.default_rng(seed)
    targets = _boxes(generator, images * TARGETS_PER_IMAGE)
    classes = generator.integers(CLASSES, size=len(targets))
    annotations = [
        {
            "id": number + 1,
            "image_id": number // TARGETS_PER_IMAGE,
            "category_id": int(classes[number]),
            "bbox": box,
            "area": box[2] * box[3],
            "iscrowd": 0,
        }
        for number, box in enumerate(targets.tolist())
    ]
    ground_truth = {
        "images": [{"id": number} for number in range(images)],
        "annotations": annotations,
        "categories": [{"id": number, "name": str(number)} for number in range(CLASSES)],
    }
    results = [
        result
        for image in range(images)
        for result in _detections(generator, image, targets, classes, detections)
    ]
    return prepare_task(ground_truth, results, max_detections=(1, 10, detections))


def _boxes(generator: np.random.Generator, number: int) -> Any:  # noqa: ANN401 - NumPy's
    corners = generator.uniform(0, 500, size=(number, 2))
    sizes = np.exp(generator.uniform(np.log(8), np.log(300), size=(number, 2)))
    return np.concatenate([corners, sizes], axis=1).round(2)


def _detections(
    generator: np.random.Generator,
    image: int,
    targets: Any,  # noqa: ANN401 - NumPy's
    classes: Any,  # noqa: ANN401 - NumPy's
    number: int,
) -> list[dict[str, Any]]:
    boxes = _boxes(generator, number)
    chosen = generator.integers(CLASSES, size=number)
    own = image * TARGETS_PER_IMAGE + generator.integers(TARGETS_PER_IMAGE, size=number // 10)
    boxes[: len(own)] = (targets[own] * generator.normal(1, 0.03, size=(len(own), 4))).round(2)
    chosen[: len(own)] = classes[own]
    scores = generator.uniform(size=number).round(4)
    return [
        {"image_id": image, "category_id": int(label), "bbox": box, "score": float(score)}
        for label, box, score in zip(chosen, boxes.tolist(), scores, strict=True)
    ]


def measure(task: ScoringTask, rounds: int) -> dict[str, list[float]]:
    """Match and accumulate with each library in turn, and compare what they found.

    Raises:
        SystemExit: The libraries disagree.
    """
    seconds: dict[str, list[float]] = {library: [] for library in LIBRARIES}
    for _ in range(rounds):
        found = {}
        for library in LIBRARIES:
            start = time.perf_counter()
            evaluator = match_boxes(task, library)
            with redirect_stdout(StringIO()):  # pycocotools talks
                evaluator.accumulate()
            seconds[library].append(time.perf_counter() - start)
            found[library] = evaluator.eval
        if not np.array_equal(*(found[library]["precision"] for library in LIBRARIES)):
            raise SystemExit("pycocotools and hotcoco disagree")
    return seconds


def main() -> None:
    """Parse options, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--images", type=int, default=1000, help="images (1000)")
    parser.add_argument("--detections", type=int, default=300, help="detections per image (300)")
    parser.add_argument("--rounds", type=int, default=1, help="timings per library (1)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    seconds = measure(make_task(options.images, options.detections, options.seed), options.rounds)
    if options.json:
        about = {"images": options.images, "detections": options.detections}
        print(json.dumps({**about, "seconds": seconds}, indent=2))
        return
    medians = {library: statistics.median(seconds[library]) for library in LIBRARIES}
    for library, median in medians.items():
        print(f"{library:<12}{median:>8.2f} s{median / medians['hotcoco']:>8.1f}x")


if __name__ == "__main__":
    main()
