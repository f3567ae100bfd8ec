"""The script's assignment against the package's, on the values that the page stores."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from msdetr.assignment import OneToManyAssigner
from msdetr.inspection.rematch import ImageMatching, rematch
from msdetr.inspection.report.payload import rounded, store
from msdetr.inspection.trace import MatchTrace, TracedImage

LISTED = 20
ASSIGN_ALL = """
async ({settings, listed}) => {
  const {report, store, assign, reason} = window.matchReport;
  const images = [];
  for (let image = 0; image < report.images.length; image++) {
    const layers = await store.layers(image);
    images.push(layers.map((layer) => {
      const result = assign(layer, settings, listed);
      const ranks = Array.from({length: listed}, (_, i) => i + 1);
      return Array.from(result.pairs, (pairs, target) => {
        const best = result.best.subarray(target * result.length, (target + 1) * result.length);
        const row = result.scores.subarray(target * layer.numQueries);
        return {
          pairs: Array.from(pairs),
          best: Array.from(best.subarray(0, listed)),
          scores: Array.from(best.subarray(0, listed), (query) => row[query]),
          positives: result.numPositives[target],
          reasons: ranks.map(
            (rank) => reason(result, settings, target, best[rank - 1], rank) ?? ""),
        };
      });
    }));
  }
  return JSON.stringify(images);
}
"""


def random_settings(count: int, num_queries: int) -> list[OneToManyAssigner]:
    """Settings from all over the sliders' ranges, a third of them with a low cap."""
    chance = np.random.default_rng(7)
    settings = []
    for index in range(count):
        alpha = float(chance.random())
        caps = (None, float(chance.random()), float(chance.uniform(1, 9)) / num_queries)
        settings.append(
            OneToManyAssigner(
                k=int(chance.integers(1, 13)),
                threshold=float(chance.random()) * 0.4,
                iou_weight=alpha,
                class_weight=1 - alpha,
                max_positive_fraction=caps[index % 3],
            )
        )
    return settings


def in_python(image: TracedImage, assigner: OneToManyAssigner) -> list[list[dict[str, Any]]]:
    """What the package assigns to an image, as the script of this file lists it."""
    matching = rematch(image, assigner)
    return [
        [listed_target(matching, layer, target) for target in range(image.num_targets)]
        for layer in range(image.u.shape[0])
    ]


def listed_target(matching: ImageMatching, layer: int, target: int) -> dict[str, Any]:
    best = matching.ranks[layer, target].argsort()[:LISTED].tolist()
    pairs = matching.one_to_many_queries[layer, target]
    reasons = [matching.reason(layer, target, query) for query in best]
    return {
        "pairs": pairs[pairs >= 0].tolist(),
        "best": best,
        "scores": matching.scores[layer, target, best].tolist(),
        "positives": int(matching.explanation.target_columns["num_positives"][layer, target]),
        "reasons": ["" if reason is None else reason.code for reason in reasons],
    }


def in_browser(page: Any, assigner: OneToManyAssigner) -> Any:
    arguments = {"settings": as_javascript(assigner), "listed": LISTED}
    return json.loads(page.evaluate(ASSIGN_ALL, arguments))


def as_javascript(assigner: OneToManyAssigner) -> dict[str, Any]:
    return {
        "k": assigner.k,
        "threshold": assigner.threshold,
        "iouWeight": assigner.iou_weight,
        "classWeight": assigner.class_weight,
        "maxPositiveFraction": assigner.max_positive_fraction,
    }


@pytest.fixture
def stored_images(coco_trace: MatchTrace) -> list[TracedImage]:
    return [rounded(image, store(image)) for image in coco_trace.images]


@pytest.mark.dataset
def test_browser_assigns_as_python_does_at_random_settings(
    open_page: Callable[..., Any], coco_trace: MatchTrace, stored_images: list[TracedImage]
) -> None:
    page = open_page(coco_trace).page
    settings = random_settings(20, coco_trace.info.num_queries)
    capped = 0
    for assigner in settings:
        found = in_browser(page, assigner)
        assert found == [in_python(image, assigner) for image in stored_images], assigner
        capped += any(
            bool(rematch(image, assigner).explanation.query_columns["capped"].any())
            for image in stored_images
        )
    assert capped >= 5


@pytest.mark.dataset
def test_browser_breaks_ties_as_python_does(
    open_page: Callable[..., Any], coco_trace: MatchTrace, stored_images: list[TracedImage]
) -> None:
    # By IoU alone most scores are zero, so that ranks, candidates and the threshold all tie.
    by_iou = OneToManyAssigner(
        k=8, threshold=0.0, iou_weight=1.0, class_weight=0.0, max_positive_fraction=0.5
    )
    decided_by_ties = 0
    for image in stored_images:
        matching = rematch(image, by_iou)
        ranked = matching.scores.sort(dim=-1, descending=True).values
        kth_ties = ranked[..., by_iou.k - 1] == ranked[..., by_iou.k]
        decided_by_ties += int(
            (kth_ties & (matching.explanation.target_columns["num_positives"] >= by_iou.k)).sum()
        )
    assert decided_by_ties > 0
    page = open_page(coco_trace).page
    assert in_browser(page, by_iou) == [in_python(image, by_iou) for image in stored_images]


@pytest.mark.dataset
def test_a_score_equal_to_the_threshold_is_positive_in_both(
    open_page: Callable[..., Any], coco_trace: MatchTrace, stored_images: list[TracedImage]
) -> None:
    rule = coco_trace.info.one_to_many
    best = rematch(stored_images[0], rule).scores.amax(dim=1)
    # A value that no target's best query has, so that it is not positive anyway.
    threshold = float(best.flatten().sort().values[best.numel() // 2])
    assert (best == threshold).any()
    at_score = OneToManyAssigner(
        k=rule.k,
        threshold=threshold,
        iou_weight=rule.iou_weight,
        class_weight=rule.class_weight,
        max_positive_fraction=None,
    )
    above = OneToManyAssigner(
        k=rule.k,
        threshold=float(torch.nextafter(torch.tensor(threshold), torch.tensor(1.0))),
        iou_weight=rule.iou_weight,
        class_weight=rule.class_weight,
        max_positive_fraction=None,
    )
    page = open_page(coco_trace).page
    results = []
    for assigner in (at_score, above):
        results.append(in_browser(page, assigner))
        assert results[-1] == [in_python(image, assigner) for image in stored_images]
    assert results[0] != results[1]


def test_generated_trace_at_the_settings_of_its_recipe(
    open_page: Callable[..., Any], generate: Callable[..., MatchTrace]
) -> None:
    trace = generate()
    images = [rounded(image, store(image)) for image in trace.images]
    page = open_page(trace).page
    rule = trace.info.one_to_many
    found = in_browser(page, rule)
    assert found == [in_python(image, rule) for image in images]
    assert any(target["pairs"] for image in found for layer in image for target in layer)
