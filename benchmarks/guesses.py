"""What a data set scores without learning: an untrained model, and the same boxes for every image.

    python benchmarks/guesses.py small_from_scratch --set data.root=/path/to/coco

Prints AP and AP50 on the validation split, to stand beside those of a trained model.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2

from msdetr.api.datasets import TrainingData, load_training_data
from msdetr.api.training.session import TrainingSession
from msdetr.data.coco_index import CocoIndex
from msdetr.engine.costs import RunCosts
from msdetr.engine.processes import create_accelerator
from msdetr.engine.run_directory import RunDirectory
from msdetr.evaluation.coco import evaluate_boxes
from msdetr.recipe import load_recipe

NUM_BOXES = 100


def constant_boxes(train: CocoIndex) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Cluster the training boxes of every category into 100 boxes in total.

    Returns:
        [100, 5] category id and relative (x0, y0, x1, y1), and [100] shares of the training boxes.
    """
    owners = np.repeat(np.arange(len(train)), np.diff(train.first_target))
    sides = np.tile(train.image_hw[owners, ::-1], 2)
    relative = train.boxes_xyxy_px / sides
    rows, shares = [], []
    for category in np.unique(train.category_ids):
        boxes = relative[train.category_ids == category].astype(np.float64)
        wanted = max(1, round(NUM_BOXES * len(boxes) / len(relative)))
        centres, member = kmeans2(boxes, min(wanted, len(boxes)), minit="++", seed=0)
        rows += [[category, *centre] for centre in centres]
        shares += [(member == k).mean() for k in range(len(centres))]
    return np.array(rows), np.array(shares)


def guess(data: TrainingData) -> list[dict[str, Any]]:
    """Make COCO results with the same boxes in every validation image, scored by their share."""
    rows, shares = constant_boxes(data.train.index)
    val = data.val.dataset.index
    results = []
    for image_id, (height, width) in zip(
        val.image_ids.tolist(), val.image_hw.tolist(), strict=True
    ):
        for (category, x0, y0, x1, y1), share in zip(rows, shares, strict=True):
            box = [x0 * width, y0 * height, (x1 - x0) * width, (y1 - y0) * height]
            results.append(
                {
                    "image_id": image_id,
                    "category_id": int(category),
                    "bbox": box,
                    "score": float(share),
                }
            )
    return results


def main() -> None:
    """Score both guesses."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe")
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    arguments = parser.parse_args()
    recipe = load_recipe(arguments.recipe, arguments.overrides)
    data = load_training_data(recipe)
    constant = evaluate_boxes(data.val.ground_truth, guess(data), image_ids=data.val.image_ids)
    with tempfile.TemporaryDirectory() as folder:
        session = TrainingSession(recipe, data, create_accelerator(), RunDirectory(Path(folder)))
        untrained = session.evaluate(session.model.eval(), RunCosts())
    print(f"{'':24}{'AP':>8}{'AP50':>8}")
    print(f"{'untrained model':24}{untrained['ap']:8.3f}{untrained['ap50']:8.3f}")
    print(f"{'the same 100 boxes':24}{constant.ap:8.3f}{constant.ap50:8.3f}")


if __name__ == "__main__":
    main()
