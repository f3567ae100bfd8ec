from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from msdetr.errors import TraceError
from msdetr.inspection.report import write_report
from msdetr.inspection.trace import MatchTrace


def photos_in(page: str) -> list[Image.Image]:
    found = re.findall(r'id="jpeg-\d+">([^<]+)<', page)
    return [Image.open(io.BytesIO(base64.b64decode(text))) for text in found]


def with_photos(trace: MatchTrace, folder: Path, size: tuple[int, int]) -> MatchTrace:
    """Give every image of a trace a noisy photo, which compresses badly."""
    images = []
    for image in trace.images:
        path = folder / f"{image.image_id}.jpg"
        Image.effect_noise(size, 90).convert("RGB").save(path)
        images.append(replace(image, path=str(path), original_hw=size[::-1]))
    return replace(trace, images=tuple(images))


def test_page_is_one_file_without_references(
    generate: Callable[..., MatchTrace], tmp_path: Path
) -> None:
    path = tmp_path / "matching.html"
    size = write_report(generate(), path)
    page = path.read_text()
    assert [entry.name for entry in tmp_path.iterdir()] == ["matching.html"]
    assert size.num_bytes == len(path.read_bytes())
    assert (size.num_images, size.num_left_out, size.num_without_photo) == (4, 0, 1)
    # Namespaces are names, not addresses to load from.
    addresses = set(re.findall(r"https?://[\w.]+/", page))
    assert addresses == {"http://www.w3.org/"}
    assert not re.search(r"<script[^>]*\bsrc=|<link[^>]*stylesheet", page)


def test_photos_shrink_until_the_page_fits(
    generate: Callable[..., MatchTrace], tmp_path: Path
) -> None:
    trace = with_photos(generate(), tmp_path, (900, 500))
    path = tmp_path / "matching.html"
    large = write_report(trace, path)
    assert {max(photo.size) for photo in photos_in(path.read_text())} == {800}
    small = write_report(trace, path, max_megabytes=0.4)
    photos = photos_in(path.read_text())
    assert len(photos) == len(trace.images)
    assert max(max(photo.size) for photo in photos) < 800
    assert small.num_bytes <= 400_000 < large.num_bytes
    note = f"Photos are scaled to at most {max(photos[0].size)} pixels"
    assert note in path.read_text()


def test_images_are_left_out_where_numbers_alone_do_not_fit(
    generate: Callable[..., MatchTrace], tmp_path: Path
) -> None:
    trace, path = generate(), tmp_path / "matching.html"
    smallest = write_report(trace.limit(2), path).num_bytes
    size = write_report(trace, path, max_megabytes=(smallest + 1000) / 1e6)
    assert 1 <= size.num_images < len(trace.images)
    assert size.num_left_out == len(trace.images) - size.num_images
    assert f"{size.num_left_out} images of the trace are left out" in path.read_text()


def test_photo_of_another_size_is_not_shown(
    generate: Callable[..., MatchTrace], tmp_path: Path
) -> None:
    trace = with_photos(generate(), tmp_path, (64, 48))
    other = replace(trace.images[0], original_hw=(50, 64))
    size = write_report(
        replace(trace, images=(other, *trace.images[1:])), tmp_path / "matching.html"
    )
    assert size.num_without_photo == 1


def test_turned_photo_is_shown_upright(generate: Callable[..., MatchTrace], tmp_path: Path) -> None:
    trace = with_photos(generate(), tmp_path, (64, 48))
    turned = Image.Exif()
    turned[0x0112] = 6  # the orientation tag: a quarter turn
    path = Path(trace.images[1].path)
    Image.new("RGB", (48, 64)).save(path, exif=turned)
    report = tmp_path / "matching.html"
    assert write_report(trace, report).num_without_photo == 0
    assert photos_in(report.read_text())[1].size == (64, 48)


def test_trace_without_images_is_refused(
    generate: Callable[..., MatchTrace], tmp_path: Path
) -> None:
    with pytest.raises(TraceError, match="no image"):
        write_report(generate().limit(0), tmp_path / "matching.html")
    assert not list(tmp_path.iterdir())


def test_place_that_is_taken_by_a_folder_stays_as_it_is(
    generate: Callable[..., MatchTrace], tmp_path: Path
) -> None:
    path = tmp_path / "matching.html"
    path.mkdir()
    (path / "notes.txt").write_text("older")
    with pytest.raises(TraceError, match=r"matching\.html: the report cannot be written"):
        write_report(generate(), path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["matching.html"]
    assert (path / "notes.txt").read_text() == "older"


def test_progress_ends_with_the_last_step(
    generate: Callable[..., MatchTrace], tmp_path: Path
) -> None:
    seen: list[tuple[int, int]] = []
    write_report(
        generate(),
        tmp_path / "matching.html",
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(step, 8) for step in range(1, 9)]
