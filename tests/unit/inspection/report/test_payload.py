from __future__ import annotations

import base64
import zlib
from collections.abc import Callable

import numpy as np
import torch

from msdetr.inspection.report.payload import NO_QUERY, PARTS, STEPS, pairs_kept, rounded, store
from msdetr.inspection.trace import MatchTrace


def test_rounding_moves_nothing_by_more_than_half_a_step(
    generate: Callable[..., MatchTrace],
) -> None:
    for image in generate().images:
        other = rounded(image, store(image))
        for name in ("boxes_cxcywh", "probabilities"):
            exact, stored = getattr(image.one_to_many, name), getattr(other.one_to_many, name)
            assert stored.shape == exact.shape
            # Half a step and the last bit of a float32.
            assert torch.all((stored - exact).abs() <= 0.5 / STEPS + 1e-7)


def test_random_numbers_keep_their_order(generate: Callable[..., MatchTrace]) -> None:
    image = generate().images[1]
    u = torch.tensor([[0.5, 0.25, 0.5, 0.0]])
    short = type(image)(**{**vars(image), "u": u})
    assert store(short).order.tolist() == [[3, 1, 0, 2]]
    other = rounded(image, store(image))
    assert torch.equal(other.u.argsort(stable=True), image.u.argsort(stable=True))


def test_targets_without_a_query_are_marked(generate: Callable[..., MatchTrace]) -> None:
    image = generate().images[1]
    queries = image.one_to_one_queries.clone()
    queries[0, 0] = -1
    stored = store(type(image)(**{**vars(image), "one_to_one_queries": queries}))
    assert stored.pick_queries[0, 0] == NO_QUERY
    assert np.array_equal(stored.pick_queries[1:], queries[1:].numpy())


def test_block_holds_every_part_and_deflates(generate: Callable[..., MatchTrace]) -> None:
    stored = store(generate().images[1])
    content = zlib.decompress(base64.b64decode(stored.encode()))
    assert len(content) == 2 * sum(getattr(stored, name).size for name in PARTS)


def test_every_pair_survives_rounding_of_already_rounded_values(
    generate: Callable[..., MatchTrace],
) -> None:
    trace = generate()
    for image in trace.images:
        kept, total = pairs_kept(image, store(image), trace.info.one_to_many)
        assert kept <= total == int((image.one_to_many_queries >= 0).sum())
        # One of the queries that the trace pairs is replaced by one that no rule would pick.
        if total:
            wrong = image.one_to_many_queries.clone()
            layer, target, _ = (wrong >= 0).nonzero()[0].tolist()
            unpaired = set(range(trace.info.num_queries)) - set(wrong[layer, target].tolist())
            wrong[layer, target, 0] = max(unpaired)
            changed = type(image)(**{**vars(image), "one_to_many_queries": wrong})
            assert pairs_kept(changed, store(image), trace.info.one_to_many) == (kept - 1, total)
