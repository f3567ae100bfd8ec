"""Two simulated detectors on many images, one of them better by a known difference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from msdetr.evaluation.image_matches import ImageMatches, match_images

NUM_IMAGES = 3000


@pytest.fixture(scope="session")
def pool() -> dict[str, ImageMatches]:
    """Matches of a better and a worse detector: the population that studies draw images from."""
    generator = np.random.default_rng(0)
    annotations = [
        {"image_id": image, "category_id": 1, "bbox": [100 * place, 0, 50, 50]}
        for image in range(NUM_IMAGES)
        for place in range(generator.integers(1, 4))
    ]
    truth = {
        "images": [{"id": image} for image in range(NUM_IMAGES)],
        "categories": [{"id": 1, "name": "disc"}],
        "annotations": annotations,
    }
    # Some images are hard for both: differences per image are correlated as in real data.
    ease = generator.beta(4, 2, NUM_IMAGES)
    return {
        name: match_images(truth, _detect(annotations, ease * quality, generator))
        for name, quality in (("better", 1.0), ("worse", 0.9))
    }


def _detect(
    annotations: list[dict[str, Any]], chance: Any, generator: np.random.Generator
) -> list[dict[str, Any]]:
    results = []
    for entry in annotations:
        is_found = generator.random() < chance[entry["image_id"]]
        offset = [0.0, 0.0] if is_found else [0.0, 300.0]
        box = [entry["bbox"][0] + offset[0], entry["bbox"][1] + offset[1], 50, 50]
        score = generator.normal(1.0 if is_found else 0.0)
        results.append({**entry, "bbox": box, "score": score})
    return results
