"""Pictures and figures of docs/inspection.md, made of two trained models.

    msdetr train shapes_tiny --output runs/shapes_tiny
    msdetr train shapes_tiny_baseline --output runs/shapes_tiny_baseline
    python benchmarks/shapes_figures.py runs/shapes_tiny runs/shapes_tiny_baseline

Run it from the repository's root, with the runs named by relative paths: the page shows them. It
rejects runs of recipes other than the packaged ones. It writes the four pictures and
figures.json into docs/images, and fills what stands between ``<!-- shapes: NAME -->`` and
``<!-- /shapes -->`` in the document. The picture of the page needs Chromium and playwright, as
the tests of the page do.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from PIL import Image
from playwright.sync_api import Page, sync_playwright
from rich.console import Console, RenderableType

from msdetr.api.candidates import CandidatesReport, compare_candidates
from msdetr.api.inspect_matching import (
    InspectionOptions,
    InspectionReport,
    TraceSource,
    inspect_matching,
)
from msdetr.api.plot import plot_runs
from msdetr.api.sweep_matching import SweepOptions, SweepReport, sweep_matching
from msdetr.api.traces.make_trace import ProbeSet
from msdetr.errors import MsdetrError
from msdetr.inspection.bootstrap import Estimate
from msdetr.recipe import load_recipe, recipe_to_dict
from msdetr.run_report.history import HistoryRow, RunHistory, read_history

RECIPES = ("shapes_tiny", "shapes_tiny_baseline")
DOCUMENTS = ("docs/inspection.md",)
NUM_IMAGES = 200
SHEET_IMAGE = 1000007
PAGE_IMAGE = 1000005
PAGE_TARGET = 3
PAGE_K = 6
SWEPT_KS = (1, 2, 4, 6, 10)
_MEASURES = {
    "iou_at_1": "IoU of the best query",
    "iou_at_5": "mean IoU of the 5 best queries",
    "num_iou_0.5": "how many of the 20 best reach IoU 0.5",
    "num_iou_0.75": "how many of the 20 best reach IoU 0.75",
    "probability_at_1": "probability of the best query",
}


@dataclass(frozen=True)
class Results:
    """Results of the commands for the two models."""

    matching: InspectionReport
    sweep: SweepReport
    candidates: CandidatesReport
    histories: tuple[RunHistory, RunHistory]


def main() -> None:
    """Make pictures, figures and texts."""
    options = _parse()
    runs: tuple[Path, Path] = (options.mixed, options.baseline)
    notes = [
        note for run, name in zip(runs, RECIPES, strict=True) for note in deviations(run, name)
    ]
    if notes and not options.any_recipe:
        sys.exit("\n".join(notes))
    with TemporaryDirectory() as temporary:
        work = options.keep or Path(temporary)
        results = _run_commands(runs, work)
        options.images.mkdir(parents=True, exist_ok=True)
        _collect_pictures(work, options.images)
    numbers = _numbers(results, runs, notes)
    (options.images / "figures.json").write_text(json.dumps(numbers, indent=2) + "\n")
    for document in options.documents:
        text = document.read_text(encoding="utf-8")
        document.write_text(fill(text, _blocks(results)), encoding="utf-8")


def deviations(run: Path, name: str) -> list[str]:
    """List the fields in which a run's recipe differs from the packaged one, a line each.

    Seed, stored traces and processes that load images are free: the first chooses another
    sample, the others change nothing.
    """
    own = flatten(recipe_to_dict(load_recipe(str(run / "recipe.yaml"))))
    packaged = flatten(recipe_to_dict(load_recipe(name)))
    keys = [key for key in packaged | own if own.get(key) != packaged.get(key)]
    return [
        f"{run}: {key} is {own.get(key)}, in the packaged {name} {packaged.get(key)}"
        for key in keys
        if key not in {"train.seed", "data.num_workers"} and not key.startswith("inspection.")
    ]


def flatten(recipe: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the fields by dotted key."""
    fields: dict[str, Any] = {}
    for name, value in recipe.items():
        key = f"{prefix}{name}"
        fields |= flatten(value, f"{key}.") if isinstance(value, Mapping) else {key: value}
    return fields


def fill(text: str, blocks: Mapping[str, str]) -> str:
    """Replace what stands between a block's marks; blocks that a text lacks are left out."""

    def replace(match: re.Match[str]) -> str:
        return f"{match[1]}\n{blocks[match[2]]}\n{match[3]}"

    return re.sub(
        r"(<!-- shapes: (\w+) -->)\n.*?(<!-- /shapes -->)", replace, text, flags=re.DOTALL
    )


def _run_commands(runs: tuple[Path, Path], work: Path) -> Results:
    matching = inspect_matching(
        TraceSource(checkpoint=runs[0], probe=ProbeSet(NUM_IMAGES)),
        work / "matching",
        InspectionOptions(num_pictures=0),
    )
    trace = work / "matching/trace"
    inspect_matching(
        TraceSource(trace=trace, probe=ProbeSet(image_ids=(SHEET_IMAGE,))), work / "one_image"
    )
    return Results(
        matching=matching,
        sweep=sweep_matching(trace, SweepOptions(ks=SWEPT_KS), output=work / "sweep"),
        candidates=compare_candidates(
            runs, output=work / "figure1", probe=ProbeSet(NUM_IMAGES), num_pictures=3
        ),
        histories=_plot(runs, work / "figure2"),
    )


def _plot(runs: tuple[Path, Path], output: Path) -> tuple[RunHistory, RunHistory]:
    plot_runs(runs, output=output)
    return read_history(runs[0]), read_history(runs[1])


def _collect_pictures(work: Path, images: Path) -> None:
    sheet = work / f"one_image/pictures/{SHEET_IMAGE:012d}_targets.png"
    _save_reduced(sheet, images / "matching_targets.png")
    _save_reduced(work / "figure2/losses.png", images / "losses.png")
    _save_jpeg(Image.open(work / "figure1/candidates.png"), images / "candidates.jpg")
    _save_jpeg(_photograph(work / "matching/matching.html"), images / "matching_report.jpg")


def _save_reduced(source: Path, target: Path) -> None:
    with Image.open(source) as picture:
        picture.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(target, optimize=True)


def _save_jpeg(picture: Image.Image, target: Path) -> None:
    picture.convert("RGB").save(target, quality=85, optimize=True)


def _photograph(page_file: Path) -> Image.Image:
    """Open the page, move a slider, choose a target, and take a picture."""
    program = os.environ.get("MSDETR_CHROMIUM") or shutil.which("chromium")
    if program is None:
        sys.exit("no Chromium: install Debian's package chromium or set MSDETR_CHROMIUM")
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=arguments)
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.goto(page_file.resolve().as_uri())
        _use(page)
        picture = Image.open(io.BytesIO(page.screenshot()))
        browser.close()
    return picture


def _use(page: Page) -> None:
    ready = "document.querySelector('#charts figure') && !document.querySelector('.computing')"
    page.wait_for_function(ready, timeout=120_000)
    page.locator(f"#images button[title*='{PAGE_IMAGE}']").click()
    page.locator("#set-k").fill(str(PAGE_K))
    page.locator(f".targets tr[data-target='{PAGE_TARGET}'] button").click()
    page.wait_for_selector("table.candidates")
    page.mouse.move(0, 0)  # the row below the pointer would be highlighted
    page.wait_for_function(ready, timeout=120_000)


def _numbers(results: Results, runs: tuple[Path, Path], notes: Sequence[str]) -> dict[str, Any]:
    seeds = [load_recipe(str(run / "recipe.yaml")).train.seed for run in runs]
    matching = results.matching.summary.to_dict()
    # Where the data set is kept differs between machines; the digest beside it does not.
    del matching["setting"]["annotations_file"]
    return {
        "runs": dict(zip(RECIPES, map(str, runs), strict=True)),
        "seeds": dict(zip(RECIPES, seeds, strict=True)),
        "differences_from_packaged_recipes": list(notes),
        "trainings": dict(zip(RECIPES, map(_training, results.histories), strict=True)),
        "candidates": results.candidates.to_dict(),
        "matching": matching,
    }


def _training(history: RunHistory) -> dict[str, Any]:
    evaluated = [row for row in history.epochs if row.scores]
    losses = [row for row in history.epochs if row.terms]
    return {
        "epochs": len(history.epochs),
        "scores": dict(evaluated[-1].scores) if evaluated else {},
        "terms_of_last_epoch": dict(losses[-1].terms) if losses else {},
    }


def _blocks(results: Results) -> dict[str, str]:
    return {
        "summary": _as_code(results.matching.table()),
        "sweep": _as_code(results.sweep.table()),
        "candidates": _candidates_text(results.candidates),
        "trainings": _trainings_text(results.histories),
    }


def _as_code(table: RenderableType) -> str:
    console = Console(file=io.StringIO(), width=100, color_system=None)
    with console.capture() as captured:
        console.print(table)
    lines = captured.get().rstrip("\n").splitlines()
    return "\n".join(["```text", *(line.rstrip() for line in lines), "```"])


def _candidates_text(report: CandidatesReport) -> str:
    first, second, both = (report.estimates[name, "one_to_one"] for name in ("A", "B", "A - B"))
    rows = [
        f"| {text} | {_mean(first[key])} | {_mean(second[key])} | {_interval(both[key])} |"
        for key, text in _MEASURES.items()
    ]
    base = f"{report.num_targets:,} targets in {report.num_images} images"
    return "\n".join(
        [
            f"| {base}, last layer | `shapes_tiny` | `shapes_tiny_baseline` | difference |",
            "|---|---|---|---|",
            *rows,
        ]
    )


def _mean(estimate: Estimate) -> str:
    return f"{estimate.mean:.3f}"


def _interval(estimate: Estimate) -> str:
    return f"{estimate.mean:+.3f} ({estimate.low:+.3f} to {estimate.high:+.3f})"


def _trainings_text(histories: tuple[RunHistory, RunHistory]) -> str:
    last = [next(row for row in reversed(run.epochs) if row.scores) for run in histories]
    losses = [run.epochs[-1] for run in histories]
    layers = [run.num_layers - 1 for run in histories]
    rows = {
        "AP": [f"{row.scores['ap']:.3f}" for row in last],
        "AP50": [f"{row.scores['ap50']:.3f}" for row in last],
        "AP of small objects": [f"{row.scores['ap_small']:.3f}" for row in last],
        **{
            title: [_term(row, name, layer) for row, layer in zip(losses, layers, strict=True)]
            for name, title in (
                ("class", "one-to-one classification loss"),
                ("box", "one-to-one L1 loss"),
                ("giou", "one-to-one GIoU loss"),
            )
        },
    }
    return "\n".join(
        [
            f"| after {len(histories[0].epochs)} epochs | `shapes_tiny` | `shapes_tiny_baseline` |",
            "|---|---|---|",
            *(f"| {title} | {first} | {second} |" for title, (first, second) in rows.items()),
        ]
    )


def _term(row: HistoryRow, name: str, layer: int) -> str:
    return f"{row.terms[f'one_to_one/{name}/{layer}']:.3f}"


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("mixed", type=Path, help="run of shapes_tiny")
    parser.add_argument("baseline", type=Path, help="run of shapes_tiny_baseline")
    parser.add_argument("--images", type=Path, default=Path("docs/images"))
    parser.add_argument("--documents", type=Path, nargs="*", default=[*map(Path, DOCUMENTS)])
    parser.add_argument("--keep", type=Path, help="keep what the commands write there")
    parser.add_argument("--any-recipe", action="store_true", help="accept other recipes")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        main()
    except MsdetrError as error:
        sys.exit(f"error: {error}")
