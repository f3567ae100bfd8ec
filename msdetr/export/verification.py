"""Comparison of an exported file with the model that it was made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from msdetr.export.agreement import THRESHOLD, MatchCounts, match_detections
from msdetr.export.outputs import detections_of_outputs
from msdetr.export.runners import ExportedOutput, Runner
from msdetr.export.settings import ExportPrecision
from msdetr.model import DetectionModel, TwoStageQueries
from msdetr.model.detections import select_detections
from msdetr.model.memory import Memory
from msdetr.structures import Detections, ImageBatch

MIN_DETECTIONS = 50
# Scores detections of the verified images: ((image ids, detections) per batch) -> AP or None.
Evaluator = Callable[[Sequence[tuple[Sequence[int], Detections]]], float | None]


@dataclass(frozen=True)
class VerificationBatch:
    """Images to compare on.

    Attributes:
        images: Inputs of the file; may end in repetitions of the last image, which fill a fixed
            batch size.
        image_ids: Ids of the images that count.
        original_hw: [B, 2] int64, height and width before resizing, in pixels.
    """

    images: ImageBatch
    image_ids: tuple[int, ...]
    original_hw: Tensor


@dataclass(frozen=True)
class Tolerance:
    """How far a file may be from the model.

    Attributes:
        value: Largest difference of logits and boxes of the same queries, that of logits relative
            to the largest logit, but to no less than 1; None for any. Rounding grows with the
            logits, while a score moves by a quarter of its logit at most.
        shared_cells: Minimum share of the queries that both choose; None for any.
        matched_given_cells: Minimum share of matched detections if both decode the same queries.
        matched: Likewise where each chooses its own.
        ap: Largest difference of AP.
    """

    value: float | None
    shared_cells: float | None
    matched_given_cells: float
    matched: float = 0.95
    ap: float = 0.002


TOLERANCES: dict[ExportPrecision, Tolerance] = {
    "fp32": Tolerance(value=1e-4, shared_cells=0.99, matched_given_cells=1.0),
    "fp16": Tolerance(value=None, shared_cells=None, matched_given_cells=0.95),
}


@dataclass
class VerificationReport:
    """What a comparison found.

    Attributes:
        sizes: Height and width in pixels of the inputs, padding included, per batch.
        num_images: Images compared.
        shared_cells: Share of queries that both chose; 1 for learned queries.
        logit_difference: Largest, over queries that stem from the same cell.
        logit_size: Largest absolute value of the model's logits, of the same queries.
        box_difference: Likewise, in 0..1 of the image.
        given_cells: Agreement with the model on the queries that the file chose.
        free: Agreement with the model on queries of its own choice.
        ap: AP of the model on these images; None without ground truth.
        exported_ap: AP of the file.
        problems: What is beyond the tolerance, in words.
    """

    sizes: list[tuple[int, ...]] = field(default_factory=list)
    num_images: int = 0
    shared_cells: float = 1.0
    logit_difference: float = 0.0
    logit_size: float = 0.0
    box_difference: float = 0.0
    given_cells: MatchCounts = field(default_factory=MatchCounts)
    free: MatchCounts = field(default_factory=MatchCounts)
    ap: float | None = None
    exported_ap: float | None = None
    problems: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether everything is within the tolerance."""
        return not self.problems

    @property
    def is_weak(self) -> bool:
        """Whether there were too few detections for the comparison to mean much."""
        return self.free.first < MIN_DETECTIONS

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {
            "passed": self.passed,
            "weak": self.is_weak,
            "problems": self.problems,
            "num_images": self.num_images,
            "input_sizes": self.sizes,
            "shared_cells": self.shared_cells,
            "largest_logit_difference": self.logit_difference,
            "largest_logit": self.logit_size,
            "largest_box_difference": self.box_difference,
            "detections": {
                "threshold": THRESHOLD,
                "model": self.free.first,
                "exported": self.free.second,
                "matched": self.free.share,
                "matched_given_cells": self.given_cells.share,
                "label_flips": self.free.label_flips,
                "lowest_iou": self.free.lowest_iou,
                "largest_score_difference": self.free.largest_score_difference,
            },
            "ap": {"model": self.ap, "exported": self.exported_ap},
        }


def verify(
    model: DetectionModel,
    runner: Runner,
    batches: Iterable[VerificationBatch],
    evaluate: Evaluator,
    *,
    limit: int,
    precision: ExportPrecision,
    enough_images: int | None = None,
) -> VerificationReport:
    """Compare a file with the model on real images.

    Rounding may order near-tied cells differently, which changes queries. So the model decodes
    twice: once with queries of its own choice, and, where the file chose others, once with the
    file's, which compares all queries one by one.

    Args:
        model: In evaluation mode, in full precision, on the CPU.
        runner: The file.
        batches: Images.
        evaluate: Scores detections.
        limit: Detections per image.
        precision: Of the file; sets the tolerance.
        enough_images: Stop after so many images once there are ``MIN_DETECTIONS``; None for all.
    """
    report = VerificationReport()
    own: list[tuple[Sequence[int], Detections]] = []
    exported: list[tuple[Sequence[int], Detections]] = []
    num_shared, num_queries = 0, 0
    for batch in batches:
        rows = slice(len(batch.image_ids))
        found = _detections_of_file(runner.run(batch.images), batch, limit)
        inner = runner.inspect(batch.images)
        free, given = _run_model(model, batch.images, inner.cells)
        num_shared += _count_shared(free, inner, rows)
        num_queries += len(batch.image_ids) * free.logits.shape[1]
        _compare_values(report, given, inner, rows)
        of_free, of_given = (_select(output, batch, limit) for output in (free, given))
        report.free += match_detections(of_free, found)
        report.given_cells += match_detections(of_given, found)
        own.append((batch.image_ids, of_free))
        exported.append((batch.image_ids, found))
        report.sizes.append(tuple(batch.images.pixels.shape[-2:]))
        report.num_images += len(batch.image_ids)
        if enough_images is not None and report.num_images >= enough_images and not report.is_weak:
            break
    report.shared_cells = num_shared / max(num_queries, 1)
    report.ap, report.exported_ap = evaluate(own), evaluate(exported)
    report.problems = _find_problems(report, TOLERANCES[precision])
    return report


@torch.inference_mode()
def _run_model(
    model: DetectionModel, images: ImageBatch, cells: Tensor | None
) -> tuple[ExportedOutput, ExportedOutput]:
    """Compute outputs for the model's own choice of queries, and for the given cells."""
    maps = model.backbone(images.pixels)
    memory = model.encoder(model.neck(maps, images.padding_mask))
    free = _decode(model, memory, None)
    if cells is None or free.cells is None or torch.equal(cells, free.cells):
        return free, free
    return free, _decode(model, memory, cells)


def _decode(model: DetectionModel, memory: Memory, cells: Tensor | None) -> ExportedOutput:
    source = model.query_source
    queries = source(memory, cells) if isinstance(source, TwoStageQueries) else source(memory)
    return ExportedOutput(*model.decoder.detect([queries], memory), queries.cells)


def _count_shared(free: ExportedOutput, exported: ExportedOutput, rows: slice) -> int:
    if free.cells is None or exported.cells is None:
        return free.logits[rows].shape[:2].numel()
    return sum(
        int(torch.isin(one, other).sum())
        for one, other in zip(free.cells[rows], exported.cells[rows], strict=True)
    )


def _compare_values(
    report: VerificationReport, given: ExportedOutput, inner: ExportedOutput, rows: slice
) -> None:
    logits = (given.logits - inner.logits)[rows].abs().max()
    boxes = (given.boxes_cxcywh - inner.boxes_cxcywh)[rows].abs().max()
    report.logit_difference = max(report.logit_difference, float(logits.nan_to_num(torch.inf)))
    report.box_difference = max(report.box_difference, float(boxes.nan_to_num(torch.inf)))
    report.logit_size = max(report.logit_size, float(given.logits[rows].abs().max()))


def _select(output: ExportedOutput, batch: VerificationBatch, limit: int) -> Detections:
    found = select_detections(output.logits, output.boxes_cxcywh, batch.original_hw, limit)
    return _first(found, len(batch.image_ids))


def _detections_of_file(
    outputs: dict[str, Tensor], batch: VerificationBatch, limit: int
) -> Detections:
    mask = batch.images.padding_mask
    found = detections_of_outputs(outputs, mask, batch.original_hw, limit)
    return _first(found, len(batch.image_ids))


def _first(found: Detections, count: int) -> Detections:
    return Detections(found.boxes_xyxy_px[:count], found.scores[:count], found.labels[:count])


def _find_problems(report: VerificationReport, tolerance: Tolerance) -> list[str]:
    problems = []
    sizes = {
        "logits": (report.logit_difference, max(1.0, report.logit_size)),
        "boxes": (report.box_difference, 1.0),
    }
    for name, (difference, size) in sizes.items():
        if tolerance.value is not None and difference > tolerance.value * size:
            allowed = f"{tolerance.value:.0e}" + (f" of {size:.1f}" if size > 1 else "")
            problems.append(f"{name} differ by {difference:.1e}, tolerance {allowed}")
    if tolerance.shared_cells is not None and report.shared_cells < tolerance.shared_cells:
        problems.append(
            f"{report.shared_cells:.2%} of the queries stem from the same cells, expected at "
            f"least {tolerance.shared_cells:.0%}"
        )
    for what, counts, minimum in (
        ("", report.free, tolerance.matched),
        (" from the same cells", report.given_cells, tolerance.matched_given_cells),
    ):
        if counts.share < minimum:
            problems.append(
                f"{counts.share:.2%} of the detections{what} agree, expected at least {minimum:.0%}"
            )
    if report.ap is not None and report.exported_ap is not None:
        change = abs(report.ap - report.exported_ap)
        if change > tolerance.ap:
            problems.append(f"AP differs by {change:.4f}, tolerance {tolerance.ap}")
    return problems
