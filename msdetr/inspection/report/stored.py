"""Assignments that the page shows as they are stored, because it cannot repeat them."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any

from torch import Tensor

from msdetr.inspection.rematch import ImageMatching, stored_matching
from msdetr.inspection.scheme import StoredScheme
from msdetr.inspection.trace import TracedImage

LISTED = 20
"""Queries per target that the page lists, as in ``records.js``; pairs and picks besides."""


def scheme_entry(scheme: StoredScheme, images: Sequence[TracedImage]) -> dict[str, Any]:
    """Return what the page says of an assigner.

    Args:
        scheme: The assigner.
        images: Of its trace.
    """
    return {
        "name": scheme.name,
        "description": scheme.description,
        # Without the values that some of them end in.
        "reasons": [_plain(reason.code) for reason in scheme.reasons],
        "causes": list(scheme.causes),
        "hasCap": any(
            image.explanation and image.explanation.capped is not None for image in images
        ),
    }


def stored_layers(image: TracedImage) -> dict[str, Any]:
    """Return the stored assignment of an image, per decoder layer and target.

    Rows of a target are [query, rank, score, share of the range of scores, reason, words]: a
    reason counts from 1, as in ``Explanation``, and words are a place in ``words``.
    """
    matching = stored_matching(image)
    words: dict[str, int] = {}
    layers = []
    for layer in range(len(matching.scores)):
        targets = [_target(matching, layer, target, words) for target in range(image.num_targets)]
        capped = matching.explanation.capped
        hits_cap = capped is not None and bool(capped[layer].any())
        layers.append({"targets": targets, "hitsCap": hits_cap})
    return {"layers": layers, "words": list(words)}


def _target(
    matching: ImageMatching, layer: int, target: int, words: dict[str, int]
) -> dict[str, Any]:
    ranks = matching.ranks[layer, target]
    shown = (ranks <= LISTED) | matching.one_to_many[layer, target]
    shown |= matching.one_to_one[layer, target]
    queries: Tensor = shown.nonzero()[:, 0]
    queries = queries[ranks[queries].argsort()]
    rows = []
    for query in queries.tolist():
        reason = matching.reason(layer, target, query)
        text = "" if reason is None else reason.words
        score = float(matching.scores[layer, target, query])
        rows.append(
            [
                query,
                int(ranks[query]),
                float(f"{score:.4g}") if isfinite(score) else None,
                round(float(matching.strengths[layer, target, query]), 3),
                int(matching.explanation.reason[layer, target, query]),
                words.setdefault(text, len(words)),
            ]
        )
    causes = matching.explanation.causes
    cause = next((name for name, holds in causes.items() if holds[layer, target]), None)
    return {"rows": rows, "cause": cause, "note": matching.target_note(layer, target)}


def _plain(code: str) -> str:
    return code.partition(":")[0]
