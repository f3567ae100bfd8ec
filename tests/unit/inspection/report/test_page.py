"""What a reader of the page sees and does, in headless Chromium."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from msdetr.inspection.rematch import rematch
from msdetr.inspection.report import write_report
from msdetr.inspection.report.payload import rounded, store
from msdetr.inspection.summary import LayerSummary, SummaryBuilder
from msdetr.inspection.trace import MatchTrace

Open = Callable[..., Any]
Generate = Callable[..., MatchTrace]
LAST = 2
NOTHING = "\N{EN DASH}"
SCRIPT_NAME = "<script>alert(1)</script>"


@pytest.fixture
def opened(open_page: Open, generate: Generate) -> Any:
    return open_page(generate())


def of_stored_values(trace: MatchTrace, **changes: Any) -> tuple[LayerSummary, ...]:
    """Statistics that the package computes from what the page stores."""
    rule = replace(trace.info.one_to_many, **changes)
    builder = SummaryBuilder(trace.info, range(trace.info.num_layers))
    for image in trace.images:
        stored = rounded(image, store(image))
        builder.add(stored, rematch(stored, rule))
    return builder.build().layers


def shown_layers(opened: Any) -> list[list[str]]:
    rows = opened.page.locator("#layer-table tbody tr").all()
    return [row.locator("td").all_inner_texts() for row in rows]


def expected_row(layer: LayerSummary) -> list[str]:
    spread, causes = layer.positives_per_target, layer.targets_without_positives
    by_size = layer.positives_per_target_by_size
    shares = (layer.one_to_one_also_one_to_many, layer.positives_trained_as_background)
    return [
        str(layer.layer),
        number(spread.mean, 2),
        number(spread.p10, 1),
        number(spread.p90, 1),
        *(number(by_size[name].mean, 2) for name in ("small", "medium", "large")),
        str(sum(causes.values())),
        str(causes["lost_to_target"]),
        str(causes["dropped_by_cap"]),
        str(layer.queries_with_two_targets),
        *(share(value) for value in shares),
        str(layer.images_at_cap),
    ]


def number(value: float | None, digits: int) -> str:
    return NOTHING if value is None else f"{value:.{digits}f}"


def share(value: float | None) -> str:
    if value is None:
        return NOTHING
    return f"{100 * value:.{1 if 0 < value < 0.1 else 0}f}%"


def test_opens_from_a_file_without_network_or_complaints(opened: Any) -> None:
    assert opened.complaints == []
    assert {url.split(":")[0] for url in opened.requests} <= {"file", "data", "blob"}
    assert opened.text("#image-count") == "4 images"
    # The first image has no target, so the page opens with the second.
    assert opened.text("#file-name") == "0001.png"


@pytest.mark.parametrize(
    "changes",
    [{}, {"k": 3, "threshold": 0.2, "max_positive_fraction": 0.1}],
    ids=["as in the recipe", "after the sliders moved"],
)
def test_statistics_equal_those_of_the_package(
    opened: Any, generate: Generate, changes: dict[str, Any]
) -> None:
    sliders = {"k": "k", "threshold": "threshold", "cap": "max_positive_fraction"}
    for slider, name in sliders.items():
        if name in changes:
            opened.page.locator(f"#set-{slider}").fill(str(changes[name]))
    opened.settle()
    expected = [expected_row(layer) for layer in of_stored_values(generate(), **changes)]
    assert [row[:-2] for row in shown_layers(opened)] == expected


def test_sliders_update_boxes_table_and_statistics_and_return(opened: Any) -> None:
    page = opened.page

    def state() -> tuple[int, str, str]:
        opened.settle()
        boxes = page.locator("#stage .positive rect").count()
        return boxes, opened.text(".targets tbody"), opened.text("#figures")

    before = state()
    seen = [before]
    for slider, value in (("k", 1), ("threshold", 0.05), ("iouWeight", 1), ("cap", 0.05)):
        page.locator(f"#set-{slider}").fill(str(value))
        page.wait_for_timeout(50)
        seen.append(state())
        page.click("#reset")
        page.wait_for_timeout(50)
        assert state() == before
    assert all(later != before for later in seen[1:])
    # k = 1 leaves each target one box; a cap of two queries leaves at most two pairs' targets.
    assert seen[1][0] < before[0]
    assert seen[4][0] < before[0]
    assert "recipe" in seen[1][2]


def test_layer_slider_changes_the_layer(opened: Any) -> None:
    page = opened.page
    last = page.inner_html("#stage svg")
    assert page.input_value("#layer") == str(LAST)
    page.locator("#layer").fill("0")
    page.wait_for_timeout(100)
    assert page.inner_html("#stage svg") != last
    assert opened.text("#scope").startswith("layer 0 ")
    assert opened.text("#layer-ticks .current b") == "0"


def test_arrow_keys_walk_images_and_layers(opened: Any) -> None:
    page = opened.page
    for key, file, layer in (
        ("ArrowDown", "0002.png", LAST),
        ("ArrowLeft", "0002.png", LAST - 1),
        ("ArrowUp", "0001.png", LAST - 1),
        ("ArrowUp", "0000.png", LAST - 1),
        ("ArrowUp", "0000.png", LAST - 1),
        ("ArrowRight", "0000.png", LAST),
        ("ArrowRight", "0000.png", LAST),
    ):
        page.keyboard.press(key)
        page.wait_for_timeout(50)
        assert (opened.text("#file-name"), page.input_value("#layer")) == (file, str(layer))
    assert "This image has no target." in opened.text("#panel")
    assert opened.complaints == []


def test_toggles_show_and_hide(opened: Any) -> None:
    page = opened.page
    for toggle, kind in (("oneToMany", "positive"), ("oneToOne", "pick")):
        assert page.locator(f"#stage .box.{kind}").count() > 0
        page.uncheck(f"#show-{toggle}")
        assert page.locator(f"#stage .box.{kind}").count() == 0
    page.locator(".targets button").first.click()
    assert page.locator("#stage .box.rejected").count() == 0
    page.check("#show-rejected")
    # The one-to-one pick is listed below the 20 best if it is not among them.
    listed = page.locator(".candidates tbody tr:nth-child(-n + 20)")
    rejected = listed.locator(".why").count()
    assert page.locator("#stage .box.rejected").count() == rejected > 0


def test_click_on_a_target_in_the_picture_lists_its_candidates(
    opened: Any, generate: Generate
) -> None:
    page = opened.page
    image = generate().images[1]
    cx, cy = image.boxes_cxcywh[2, :2].tolist()
    sheet = page.locator(".sheet").bounding_box()
    page.mouse.click(sheet["x"] + cx * sheet["width"], sheet["y"] + cy * sheet["height"])
    page.wait_for_selector(".candidates")
    stored = rounded(image, store(image))
    matching = rematch(stored, generate().info.one_to_many)
    target = int(opened.text("#panel h2 span").split("#")[1])
    best = matching.ranks[LAST, target].argsort()[:20]
    rows = [
        row.locator("td").all_inner_texts() for row in page.locator(".candidates tbody tr").all()
    ]
    assert [row[1].removeprefix("1:1").strip() for row in rows[:20]] == [
        str(q) for q in best.tolist()
    ]
    scores = matching.scores[LAST, target, best].tolist()
    assert [row[2].strip() for row in rows[:20]] == [f"{score:.3f}" for score in scores]
    paired = matching.one_to_many[LAST, target, best].tolist()
    assert [row[5] == "paired" for row in rows[:20]] == paired
    page.keyboard.press("Escape")
    page.wait_for_selector(".targets")


def test_score_bar_splits_into_its_parts(opened: Any) -> None:
    opened.page.locator(".targets button").first.click()
    cells = opened.page.evaluate(
        """() => [...document.querySelectorAll(".candidates tbody tr")].map((row) => [
            row.querySelector(".iou-part").style.width,
            row.querySelector(".class-part").style.width,
            row.querySelector(".score b").textContent])"""
    )
    assert len(cells) >= 20
    for iou_part, class_part, score in cells:
        total = float(iou_part.rstrip("%")) + float(class_part.rstrip("%"))
        assert total / 100 == pytest.approx(float(score), abs=6e-4)


def test_filters_narrow_the_images(opened: Any, generate: Generate) -> None:
    page = opened.page
    page.select_option("#filter-category", "class 2")
    assert opened.text("#image-count") == "3 of 4 images"
    page.select_option("#filter-category", "")
    page.fill("#filter-file", "103")
    assert opened.text("#image-count") == "1 of 4 images"
    assert opened.text("#file-name") == "0003.png"
    page.fill("#filter-file", "")
    page.select_option("#filter-cause", "without")
    trace = generate()
    without = 0
    for image in trace.images:
        matching = rematch(rounded(image, store(image)), trace.info.one_to_many)
        without += bool((matching.one_to_many[LAST].sum(dim=1) == 0).any())
    assert 0 < without < 4
    assert opened.text("#image-count") == f"{without} of 4 images"


def test_text_of_the_data_set_stays_text(open_page: Open, generate: Generate) -> None:
    names = (SCRIPT_NAME, "<img src=x onerror=alert(2)>", "{{ 7 * 7 }}</script>&amp;")
    trace = generate(names=names)
    file_name = 'a"><img src=x onerror=alert(3)>.png'
    images = tuple(replace(image, file_name=file_name) for image in trace.images)
    hostile = replace(
        trace, images=images, info=replace(trace.info, source="</title><script>alert(4)</script>")
    )
    opened = open_page(hostile)
    assert opened.complaints == []
    assert [opened.text(f".targets tbody tr:nth-child({i}) button") for i in (1, 2, 3)] == list(
        names
    )
    assert opened.text("#file-name") == file_name
    assert opened.text("header .path") == "</title><script>alert(4)</script>"
    opened.page.locator(".targets button").first.click()
    assert opened.text("#panel h2 span") == f"{SCRIPT_NAME} #0"
    assert f"{SCRIPT_NAME} (" in opened.text("#filter-category")
    assert opened.page.locator("img[src='x']").count() == 0


def test_missing_photo_is_said_and_boxes_are_drawn(opened: Any) -> None:
    opened.page.keyboard.press("ArrowDown")
    opened.page.keyboard.press("ArrowDown")
    opened.page.wait_for_selector(".no-picture")
    assert opened.page.locator("#stage .box.target").count() > 0


@pytest.mark.parametrize("width", [390, 820, 1180, 1440])
def test_nothing_sticks_out_at_any_width(open_page: Open, generate: Generate, width: int) -> None:
    opened = open_page(generate(), width=width)
    opened.page.locator(".targets button").first.click()
    opened.page.wait_for_selector(".candidates")
    wider = """() => [document.documentElement,
            ...document.querySelectorAll("main > *, figure, .card")]
        .filter((box) => box.scrollWidth > box.clientWidth + 1)
        .map((box) => `${box.tagName}.${box.className}#${box.id}`)"""
    assert opened.page.evaluate(wider) == []


def test_photos_of_the_list_are_made_when_they_come_into_view(
    open_page: Open, generate: Generate
) -> None:
    trace = generate()
    many = replace(trace, images=trace.images[1:3] * 40)
    page = open_page(many).page
    assert 0 < page.locator("#images img").count() < 60
    page.locator("#images li").last.scroll_into_view_if_needed()
    page.wait_for_selector("#images li:last-child img")


def test_arrow_keys_work_after_the_layer_slider_was_used(opened: Any) -> None:
    page = opened.page
    page.locator("#layer").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowLeft")
    page.wait_for_timeout(50)
    assert (opened.text("#file-name"), page.input_value("#layer")) == ("0002.png", str(LAST - 1))
    page.locator("#set-k").focus()
    page.keyboard.press("ArrowRight")
    assert (opened.text("#value-k"), page.input_value("#layer")) == ("7", str(LAST - 1))


@pytest.mark.slow
def test_page_of_200_images_and_900_queries_stays_small_and_opens(
    open_page: Open, generate: Generate, sizes: Callable[..., Any], tmp_path: Path
) -> None:
    trace = generate(sizes(images=200, layers=6, queries=900, targets=7, classes=5))
    path = tmp_path / "large.html"
    size = write_report(trace, path)
    assert (size.num_images, size.num_left_out) == (200, 0)
    assert size.num_bytes < 30_000_000
    opened = open_page(path)
    assert opened.text("#scope") == "layer 5 \N{MIDDLE DOT} 1,393 targets in 200 images"
    opened.page.locator("#set-k").fill("2")
    opened.settle()
    assert opened.texts("#layer-table tbody tr td:nth-child(4)") == ["2.0"] * 6
    assert opened.complaints == []


def test_baseline_says_that_it_has_no_one_to_many_branch(
    open_page: Open, generate: Generate, tmp_path: Path
) -> None:
    trace = generate()
    path = tmp_path / "baseline.html"
    write_report(replace(trace, info=replace(trace.info, has_one_to_many=False)), path)
    opened = open_page(path)
    opened.page.click("#help-open")
    assert "This model has no one-to-many branch" in opened.text("#help")
    assert {row[12] for row in shown_layers(opened)} == {NOTHING}


def test_page_is_accessible(opened: Any, find_violations: Any) -> None:
    assert find_violations(opened.page) == []
    opened.page.click("#help-open")
    assert find_violations(opened.page) == []
