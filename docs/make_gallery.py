"""Make the pictures of ``docs/gallery.md`` from runs of packaged recipes, without training.

    python docs/make_gallery.py runs/shapes_schemes docs/images

The first folder is a study's: ``cells/ARM/seed_42`` are runs of ``studies/shapes_schemes.yaml``,
beside the report of the study. Pages are photographed in headless Chromium (Debian's package
``chromium``, or MSDETR_CHROMIUM). Pictures that ``benchmarks/shapes_figures.py`` and
``benchmarks/schemes.py`` make are left alone.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image
from playwright.sync_api import sync_playwright

from msdetr import Detector
from msdetr.api.compare import compare
from msdetr.api.inspect_matching import InspectionOptions, TraceSource, inspect_matching
from msdetr.api.sweep_matching import SweepOptions, sweep_matching
from msdetr.api.traces.make_trace import ProbeSet
from msdetr.data import shapes
from msdetr.errors import MsdetrError

ROOT = Path(__file__).resolve().parents[1]
SEED = "seed_42"
SHEET_IMAGE = 1000007
NUM_SWEPT = 60
DETECTED = range(1000001, 1000009)
VERDICT = ROOT / "studies/results/shapes_cap/figures/forest.svg"
JPEG_QUALITY = 85
# The home folder of whoever makes the pictures is nobody else's.
HIDE_HOME = """home => {
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT)
  while (texts.nextNode()) {
    texts.currentNode.data = texts.currentNode.data.replaceAll(home, '~')
  }
}"""


def main() -> None:
    """Make all pictures."""
    options = _parse()
    cells = options.study / "cells"
    with TemporaryDirectory() as temporary:
        work = Path(temporary)
        draw_detections(cells / "cdn" / SEED, options.images / "gallery_detections.jpg")
        draw_matching(cells / "mixed" / SEED, work, options.images)
        draw_denoising(cells / "cdn" / SEED, work, options.images / "gallery_denoising.png")
        compare(cells / "cdn" / SEED, cells / "one_to_one" / SEED, output=work / "comparison")
        pages = {
            "gallery_comparison.jpg": work / "comparison/comparison.html",
            "gallery_run_report.jpg": cells / "mixed" / SEED / "report.html",
            "gallery_study_report.jpg": options.study / "report.html",
        }
        photograph({options.images / name: page for name, page in pages.items()})
    shutil.copy(VERDICT, options.images / "verdict.svg")


def draw_detections(run: Path, target: Path) -> None:
    """Draw what a run detects on validation images, side by side."""
    images = shapes.default_folder(2000, 200) / "val2017"
    files = [images / f"{number:012d}.png" for number in DETECTED]
    detector = Detector.from_checkpoint(run, device="cpu")
    found = detector.predict(files, threshold=0.4)
    drawn = [
        one.draw(Image.open(file).convert("RGB")) for one, file in zip(found, files, strict=True)
    ]
    _save_jpeg(_tile([picture.resize((320, 320)) for picture in drawn], columns=4), target)


def draw_matching(run: Path, work: Path, images: Path) -> None:
    """Draw layers and scores of one image, and the heat maps of a sweep."""
    one = InspectionOptions(num_pictures=1)
    probe = ProbeSet(image_ids=(SHEET_IMAGE,))
    inspect_matching(TraceSource(checkpoint=run, probe=probe), work / "one", one)
    for kind in ("layers", "scores"):
        sheet = work / f"one/pictures/{SHEET_IMAGE:012d}_{kind}.png"
        _save_png(sheet, images / f"gallery_{kind}.png")
    several = TraceSource(checkpoint=run, probe=ProbeSet(NUM_SWEPT))
    inspect_matching(several, work / "many", InspectionOptions(num_pictures=0))
    grid = SweepOptions(ks=(1, 2, 4, 6, 8, 10), thresholds=(0.2, 0.3, 0.4, 0.5, 0.6))
    sweep_matching(work / "many/trace", grid, output=work / "sweep")
    _save_png(work / "sweep/positives_per_target.png", images / "gallery_sweep.png")


def draw_denoising(run: Path, work: Path, target: Path) -> None:
    """Draw the noise that a denoising group starts from."""
    probe = ProbeSet(image_ids=(SHEET_IMAGE,))
    inspect_matching(
        TraceSource(checkpoint=run, probe=probe), work / "noise", InspectionOptions(num_pictures=1)
    )
    _save_png(work / f"noise/pictures/{SHEET_IMAGE:012d}_denoising.png", target)


def photograph(pages: dict[Path, Path]) -> None:
    """Take a picture of the top of each page, by target and page."""
    program = os.environ.get("MSDETR_CHROMIUM") or shutil.which("chromium")
    if program is None:
        sys.exit("no Chromium: install Debian's package chromium or set MSDETR_CHROMIUM")
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=arguments)
        page = browser.new_page(viewport={"width": 1200, "height": 900})
        for target, file in pages.items():
            page.goto(file.resolve().as_uri())
            page.evaluate(HIDE_HOME, str(Path.home()))
            _save_jpeg(Image.open(io.BytesIO(page.screenshot())), target)
        browser.close()


def _tile(pictures: Sequence[Image.Image], columns: int) -> Image.Image:
    """Put pictures of one size side by side, in rows."""
    width, height = pictures[0].size
    rows = -(-len(pictures) // columns)
    tiled = Image.new("RGB", (columns * width, rows * height), "white")
    for index, picture in enumerate(pictures):
        row, column = divmod(index, columns)
        tiled.paste(picture, (column * width, row * height))
    return tiled


def _save_png(source: Path, target: Path) -> None:
    with Image.open(source) as picture:
        picture.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(target, optimize=True)


def _save_jpeg(picture: Image.Image, target: Path) -> None:
    picture.convert("RGB").save(target, quality=JPEG_QUALITY, optimize=True)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", type=Path, help="folder of shapes_schemes, with its report")
    parser.add_argument("images", type=Path, help="where the pictures go")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        main()
    except MsdetrError as error:
        sys.exit(f"error: {error}")
