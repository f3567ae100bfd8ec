"""Inspect assignments: the workflow behind ``msdetr inspect-matching``."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Group
from rich.table import Table

from msdetr.api.checkpoints.official import open_checkpoint
from msdetr.api.output import check_results, writing
from msdetr.api.progress import counting, show_progress
from msdetr.api.traces.make_trace import ProbeSet, origin_of, trace_checkpoint, trace_untrained
from msdetr.errors import TraceError, UsageError
from msdetr.inspection.assignment_table import AssignmentTable, assignment_rows, own_columns
from msdetr.inspection.group_summary import GroupTable
from msdetr.inspection.noise_pictures import save_noise_picture
from msdetr.inspection.pictures import ImagePictures
from msdetr.inspection.rematch import rematch
from msdetr.inspection.report import write_report
from msdetr.inspection.summary import MatchingSummary, SummaryBuilder
from msdetr.inspection.summary_table import group_table, summary_table, suppression_table
from msdetr.inspection.suppression_pictures import save_suppression_picture
from msdetr.inspection.suppression_summary import SuppressionTable
from msdetr.inspection.trace import MatchTrace
from msdetr.recipe import recipe_from_dict, recipe_to_dict

TRACE_DIR, TABLE_FILE, SUMMARY_FILE = "trace", "assignments.csv", "summary.json"
GROUPS_FILE, PICTURES_DIR, REPORT_FILE = "groups.csv", "pictures", "matching.html"
SUPPRESSIONS_FILE = "suppressions.csv"
_PICTURE = re.compile(r"-?\d+_(targets|layers|scores|denoising|suppression)\.png")


@dataclass(frozen=True)
class TraceSource:
    """Where the trace comes from: a checkpoint, an untrained model or a stored trace.

    Attributes:
        checkpoint: Checkpoint or run directory, or a published ``.pth`` file; beside ``trace``
            it says what that must have been made of.
        trace: Stored trace.
        from_scratch: Recipe of an untrained model.
        recipe: Recipe of a published file.
        data: Instead of the recipe's validation split: a root in COCO's layout, or
            "IMAGES,ANNOTATIONS.json".
        probe: Which images.
        device: "auto", "cpu", "cuda" or "cuda:N".
        overrides: Recipe fields to change, ``key=value``.
    """

    checkpoint: Path | None = None
    trace: Path | None = None
    from_scratch: str | None = None
    recipe: str | None = None
    data: str | None = None
    probe: ProbeSet = field(default_factory=ProbeSet)
    device: str = "auto"
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True)
class InspectionOptions:
    """What is shown of a trace.

    Attributes:
        layers: Decoder layers, counted from 0; None for all.
        top: Rows of ``assignments.csv`` per image, layer and target, beside the assigned ones.
        num_pictures: Images to draw, the first ones with targets.
    """

    layers: tuple[int, ...] | None = None
    top: int = 20
    num_pictures: int = 20


@dataclass(frozen=True)
class InspectionReport:
    """Result of an inspection.

    Attributes:
        summary: Statistics per decoder layer.
        files: Files and folders written.
    """

    summary: MatchingSummary
    files: tuple[Path, ...]

    def table(self) -> Table | Group:
        """Return the statistics for the terminal."""
        table = summary_table(self.summary)
        others = (group_table(self.summary), suppression_table(self.summary))
        found = [other for other in others if other is not None]
        return Group(table, *found) if found else table


def inspect_matching(
    source: TraceSource,
    output: Path,
    options: InspectionOptions = InspectionOptions(),
    *,
    force: bool = False,
) -> InspectionReport:
    """Trace a model, or read a trace, and show both assignments.

    Args:
        source: Where the trace comes from.
        output: Directory for the trace (unless it was stored before), ``assignments.csv``,
            ``summary.json``, ``pictures`` and ``matching.html``; ``groups.csv`` where training
            has query groups beside the primary one, ``suppressions.csv`` where the model has a
            suppressor.
        options: What is shown.
        force: Replace the results of an earlier inspection; of its pictures none stays.

    Raises:
        InvalidInputError: Something given cannot be used as asked; nothing is written.
    """
    tables = (TABLE_FILE, GROUPS_FILE, SUPPRESSIONS_FILE)
    names = (*tables, SUMMARY_FILE, PICTURES_DIR, REPORT_FILE)
    check_results(
        output,
        files=(*tables, SUMMARY_FILE, REPORT_FILE),
        folders=(PICTURES_DIR,) if source.trace else (TRACE_DIR, PICTURES_DIR),
        of="an inspection",
        force=force,
    )
    trace = obtain_trace(source)
    layers = _choose_layers(options.layers, trace.info.num_layers)
    files = [output / name for name in names]
    with writing(output) as aside:
        if source.trace is None:
            trace.save(aside / TRACE_DIR)
            files.insert(0, output / TRACE_DIR)
        summary = _write_tables(trace, layers, aside, options)
        (aside / SUMMARY_FILE).write_text(json.dumps(summary.to_dict(), indent=2) + "\n")
        with counting("writing the page") as progress:
            write_report(trace, aside / REPORT_FILE, progress=progress)
        _remove_earlier(output, tables)
    return InspectionReport(summary, tuple(file for file in files if file.exists()))


def _remove_earlier(output: Path, tables: Sequence[str]) -> None:
    """Remove what this inspection may not write anew: it would be taken for its own."""
    for name in tables:
        (output / name).unlink(missing_ok=True)
    for path in output.glob(f"{PICTURES_DIR}/*.png"):
        if _PICTURE.fullmatch(path.name):
            path.unlink()


def obtain_trace(source: TraceSource) -> MatchTrace:
    """Make the trace, or read the stored one and choose its images.

    Raises:
        InvalidInputError: Something given cannot be used as asked.
    """
    _check_source(source)
    if source.trace is not None:
        trace = MatchTrace.load(source.trace)
        if source.checkpoint is not None:
            _require_same(trace, source)
        chosen = source.probe.image_ids
        trace = trace.select(chosen) if chosen else trace.limit(source.probe.num_images)
        if not any(image.num_targets for image in trace.images):
            raise TraceError(str(source.trace), "none of the images has a target to look at")
        return trace
    if source.checkpoint is not None:
        return trace_checkpoint(
            source.checkpoint,
            recipe=source.recipe,
            data=source.data,
            probe=source.probe,
            device=source.device,
            overrides=source.overrides,
        )
    assert source.from_scratch is not None
    return trace_untrained(
        source.from_scratch,
        data=source.data,
        probe=source.probe,
        device=source.device,
        overrides=source.overrides,
    )


def _check_source(source: TraceSource) -> None:
    stored = source.checkpoint is not None or source.trace is not None
    if not stored and source.from_scratch is None:
        raise UsageError(
            "inspect-matching", "needs one of `checkpoint`, `trace` and `from_scratch`"
        )
    if stored and source.from_scratch is not None:
        raise UsageError("`from_scratch`", "cannot go with `checkpoint` or `trace`")
    if source.trace is not None and (source.overrides or source.data is not None):
        option = "`overrides`" if source.overrides else "`data`"
        raise UsageError(
            option,
            "cannot change a stored trace; make a new one with `checkpoint`, or try other "
            "settings of the assignment with sweep-matching",
        )


def _require_same(trace: MatchTrace, source: TraceSource) -> None:
    """Refuse a trace that was made of anything but the checkpoint given beside it."""
    assert source.checkpoint is not None
    loaded = open_checkpoint(source.checkpoint, recipe=source.recipe)
    here = recipe_to_dict(loaded.recipe)
    # Read as a recipe: it may lack fields that are newer than the trace.
    there = recipe_to_dict(recipe_from_dict(trace.info.recipe, str(source.trace)))
    for section in ("model", "supervision"):
        for key, value, other in _differences(here[section], there.get(section), section):
            raise TraceError(
                str(source.trace),
                f"was made with another recipe: its {key} is {other}, but {value} in "
                f"{source.checkpoint}",
            )
    origin = origin_of(loaded)
    if origin.source_sha256 != trace.info.source_sha256:
        raise TraceError(
            str(source.trace),
            f"was made of other weights ({trace.info.source}) than those of {source.checkpoint}",
        )


def _differences(here: object, there: object, key: str) -> Iterator[tuple[str, object, object]]:
    if isinstance(here, Mapping) and isinstance(there, Mapping):
        for name in here:
            yield from _differences(here[name], there.get(name), f"{key}.{name}")
    elif here != there:
        yield key, here, there


def _write_tables(
    trace: MatchTrace, layers: Sequence[int], output: Path, options: InspectionOptions
) -> MatchingSummary:
    """Write table and pictures image by image; all rows of a data set need not be in memory."""
    builder = SummaryBuilder(trace.info, layers)
    drawable = [image for image in trace.images if image.num_targets]
    drawn = {image.image_id for image in drawable[: options.num_pictures]}
    images = show_progress(trace.images, len(trace.images), "writing tables and pictures")
    with (output / TABLE_FILE).open("w", newline="", encoding="utf-8") as file:
        table = AssignmentTable(file, own_columns(trace.info))
        for image in images:
            matching = rematch(image, trace.info.one_to_many)
            builder.add(image, matching)
            rows = assignment_rows(image, matching, trace.info, layers=layers, top=options.top)
            table.write(rows)
            if image.image_id in drawn:
                pictures = ImagePictures(image, matching, trace.info, layers)
                pictures.save(output / PICTURES_DIR)
                save_noise_picture(image, trace.info, output / PICTURES_DIR)
                save_suppression_picture(image, trace.info, output / PICTURES_DIR)
    _write_groups(trace, output)
    _write_suppressions(trace, output)
    return builder.build()


def _write_groups(trace: MatchTrace, output: Path) -> None:
    if not any(image.groups.groups for image in trace.images):
        return
    with (output / GROUPS_FILE).open("w", newline="", encoding="utf-8") as file:
        table = GroupTable(file)
        for image in trace.images:
            table.write(image.image_id, image.groups)


def _write_suppressions(trace: MatchTrace, output: Path) -> None:
    if not trace.info.has_suppressor:
        return
    with (output / SUPPRESSIONS_FILE).open("w", newline="", encoding="utf-8") as file:
        table = SuppressionTable(file, trace.info.category_names)
        for image in trace.images:
            table.write(image.image_id, image.labels.tolist(), image.suppressions)


def _choose_layers(asked: tuple[int, ...] | None, num_layers: int) -> list[int]:
    if asked is None:
        return list(range(num_layers))
    unknown = [str(layer) for layer in sorted(set(asked)) if not 0 <= layer < num_layers]
    if unknown:
        raise UsageError(
            "`layers`", f"the model has layers 0 to {num_layers - 1}, but not {', '.join(unknown)}"
        )
    return sorted(set(asked))
