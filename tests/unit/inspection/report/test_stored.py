"""The page of a scheme that the browser cannot repeat: what the trace holds, and no sliders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from msdetr.inspection.rematch import ImageMatching, rematch
from msdetr.inspection.report.stored import LISTED, stored_layers
from msdetr.inspection.scheme import StoredScheme
from msdetr.inspection.trace import MatchTrace

LAST = 2


@pytest.fixture
def trace(generate: Callable[..., MatchTrace]) -> MatchTrace:
    """A trace of MS-DETR's rule, kept as if nobody could repeat it."""
    made = generate()
    explained = [rematch(i, made.info.one_to_many).explanation for i in made.images]
    scheme = StoredScheme.of({"type": "mine"}, "the words of <b>mine</b>", explained[0])
    images = [replace(i, explanation=e) for i, e in zip(made.images, explained, strict=True)]
    return MatchTrace(replace(made.info, one_to_many=scheme), tuple(images))


def matching_of(trace: MatchTrace, index: int) -> ImageMatching:
    return rematch(trace.images[index], trace.info.one_to_many)


def test_rows_are_the_best_queries_the_pairs_and_the_pick(trace: MatchTrace) -> None:
    matching = matching_of(trace, 1)
    stored = stored_layers(trace.images[1])
    words = stored["words"]
    for layer, entry in enumerate(stored["layers"]):
        assert entry["hitsCap"] == bool(matching.explanation.capped[layer].any())  # type: ignore[index]
        for target, found in enumerate(entry["targets"]):
            rows = found["rows"]
            ranks = [row[1] for row in rows]
            assert ranks == sorted(ranks)
            assert ranks[:LISTED] == list(range(1, LISTED + 1))
            shown = {row[0] for row in rows}
            assert set(matching.one_to_many[layer, target].nonzero()[:, 0].tolist()) <= shown
            assert int(matching.one_to_one_queries[layer, target]) in shown
            for query, _, score, strength, reason, word in rows:
                why = matching.reason(layer, target, query)
                assert words[word] == ("" if why is None else why.words)
                assert (reason == 0) == (why is None)
                assert score == pytest.approx(float(matching.scores[layer, target, query]), 1e-3)
                assert 0 <= strength <= 1
            n = int(matching.explanation.target_columns["num_positives"][layer, target])
            assert found["note"] == f"n_t = {n}"


def test_page_shows_the_stored_pairs_without_sliders(
    trace: MatchTrace, open_page: Callable[..., Any]
) -> None:
    opened = open_page(trace)
    assert opened.complaints == []
    assert opened.page.locator(".settings input").count() == 0
    assert opened.text(".settings").endswith("mine: the words of <b>mine</b>")
    assert not opened.page.locator("#chart-key").is_visible()
    matching = matching_of(trace, 1)
    counts = [int(n) for n in opened.texts("#panel table.targets td:nth-child(3) b")]
    assert counts == matching.one_to_many[LAST].sum(dim=1).tolist()


def test_target_lists_its_candidates_in_the_words_of_the_scheme(
    trace: MatchTrace, open_page: Callable[..., Any]
) -> None:
    opened = open_page(trace)
    opened.page.locator("#panel table.targets button.link").nth(2).click()
    opened.page.check("#show-rejected")
    opened.page.wait_for_selector(".candidates")
    matching = matching_of(trace, 1)
    rows = opened.page.locator(".candidates tbody tr").all()
    assert len(rows) >= LISTED
    for rank, row in enumerate(rows[:LISTED], start=1):
        cells = row.locator("td").all_inner_texts()
        query = int(cells[1].split()[-1])
        assert (int(cells[0]), int(matching.ranks[LAST, 2, query])) == (rank, rank)
        why = matching.reason(LAST, 2, query)
        assert cells[5] == ("paired" if why is None else why.words)
    assert "n_t = " in opened.text("#panel")
    assert opened.complaints == []


def test_statistics_are_those_of_the_trace(
    trace: MatchTrace, open_page: Callable[..., Any]
) -> None:
    opened = open_page(trace)
    row = opened.page.locator("#layer-table tbody tr").nth(LAST).locator("td").all_inner_texts()
    heads = opened.texts("#layer-table th")
    shown = dict(zip(heads, row, strict=True))
    matchings = [matching_of(trace, index) for index in range(len(trace.images))]
    counts = [n for m in matchings for n in m.one_to_many[LAST].sum(dim=1).tolist()]
    assert shown["Mean"] == f"{sum(counts) / len(counts):.2f}"
    assert shown["None"] == str(counts.count(0))
    lost = sum(int(m.explanation.causes["lost_to_target"][LAST].sum()) for m in matchings)
    assert shown["lost"] == str(lost)
    opened.page.select_option("#filter-cause", "without")
    assert opened.complaints == []
