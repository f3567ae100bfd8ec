"""CPU time of tracing against plain evaluation of the same images.

python benchmarks/inspection.py --ckpt runs/shapes_tiny --num-images 100 --rounds 5
python benchmarks/inspection.py --from-scratch ddetr_pp_900q --data /data/coco --num-images 8
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from msdetr.api.checkpoints.loaded import load_checkpoint
from msdetr.api.datasets import EvaluationData, find_index, load_evaluation_data
from msdetr.api.detection.dataset_detector import DatasetDetector, Results
from msdetr.api.traces.make_trace import ProbeSet, TraceOrigin, trace_model
from msdetr.build import (
    build_collator,
    build_detection_settings,
    build_label_space,
    build_loader,
    build_model,
)
from msdetr.data.dataset import DetectionDataset
from msdetr.evaluation.coco import evaluate_boxes
from msdetr.model import DetectionModel
from msdetr.recipe import Recipe, load_recipe

TARGET_RATIO = 1.3


@dataclass(frozen=True)
class Subject:
    """A model with images to evaluate it on."""

    model: DetectionModel
    recipe: Recipe
    images: EvaluationData

    def evaluate(self) -> None:
        """Do what ``msdetr eval`` does once model and data are loaded."""
        results = self.detect()
        evaluate_boxes(self.images.ground_truth, results, image_ids=self.images.image_ids)

    def detect(self) -> Results:
        """Do its part before scoring."""
        dataset = self.images.dataset
        detector = DatasetDetector(
            dataset,
            build_loader(self.recipe.data, dataset, build_collator(self.recipe, self.model)),
            build_detection_settings(self.recipe, dataset.label_space),
        )
        return detector.detect(self.model)[0]

    def trace(self) -> None:
        """Do what ``msdetr inspect-matching`` does until the trace is complete."""
        origin = TraceOrigin("benchmark", None, "untrained")
        probe = ProbeSet(num_images=len(self.images.dataset))
        trace_model(self.model, self.recipe, self.images, probe=probe, origin=origin, quiet=True)


def main() -> None:
    """Time them in turns, so that other load on the machine affects all alike."""
    options = _parse()
    subject = _load(options)
    print(f"{len(subject.images.dataset)} images, {subject.recipe.model.num_queries} queries")
    subject.trace()
    works = {"tracing": subject.trace, "evaluation": subject.evaluate, "detection": subject.detect}
    rounds = [{name: _seconds(work) for name, work in works.items()} for _ in range(options.rounds)]
    for seconds in rounds:
        print("   ".join(f"{name} {value:.2f} s" for name, value in seconds.items()))
    for name in ("evaluation", "detection"):
        ratio = statistics.median(seconds["tracing"] / seconds[name] for seconds in rounds)
        print(f"tracing by {name}, median: {ratio:.2f}")
    print(f"target, relative to evaluation: at most {TARGET_RATIO}")


def _load(options: argparse.Namespace) -> Subject:
    if options.ckpt is not None:
        loaded = load_checkpoint(options.ckpt, options.overrides)
        model, recipe, label_space = loaded.model, loaded.recipe, loaded.label_space
    else:
        recipe = load_recipe(options.from_scratch, options.overrides)
        label_space = build_label_space(recipe.data, find_index(recipe.data, options.data))
        model = build_model(recipe.model, label_space.num_classes).eval()
    data = load_evaluation_data(recipe, label_space, options.data).dataset
    few = data.index.limit(options.num_images)
    chosen = DetectionDataset(few, data.transform, label_space, data.seed)
    recipe = _without_workers(recipe)
    return Subject(model, recipe, EvaluationData(chosen))


def _without_workers(recipe: Recipe) -> Recipe:
    """Return the recipe without worker processes, whose start would hide the difference."""
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"num_workers": 0})})


def _seconds(work: Callable[[], object]) -> float:
    """Return CPU seconds of this process, which other processes disturb less than the clock."""
    start = time.process_time()
    work()
    return time.process_time() - start


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--ckpt", type=Path)
    source.add_argument("--from-scratch", metavar="RECIPE")
    parser.add_argument("--data")
    parser.add_argument("--num-images", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    return parser.parse_args()


if __name__ == "__main__":
    main()
