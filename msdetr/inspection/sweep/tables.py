"""Rows of a sweep: one per setting and decoder layer, and one per setting for all layers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from msdetr.assignment import OneToManyAssigner
from msdetr.csv_files import CsvWriter
from msdetr.inspection.sweep.statistics import SweepStatistics, quantile_of_counts

ALL_LAYERS = "all"
Row = dict[str, str | int | float | None]


def sweep_rows(statistics: SweepStatistics) -> Iterator[Row]:
    """Make the rows of ``sweep.csv``.

    A share or a mean is None where it is one of nothing.

    Args:
        statistics: Of all settings.
    """
    num_layers = statistics.histogram.shape[1]
    for index, setting in enumerate(statistics.settings):
        sums = {name: value[index] for name, value in statistics.sums.items()}
        histogram = statistics.histogram[index]
        for layer in range(num_layers):
            values = {name: float(value[layer]) for name, value in sums.items()}
            images, targets = statistics.num_images, statistics.num_targets
            place = _row(setting, layer, images=images, targets=targets)
            yield {**place, **_numbers(place, values, histogram[layer])}
        values = {name: float(value.sum()) for name, value in sums.items()}
        place = _row(
            setting,
            ALL_LAYERS,
            images=statistics.num_images * num_layers,
            targets=statistics.num_targets * num_layers,
        )
        yield {**place, **_numbers(place, values, histogram.sum(dim=0))}


def write_sweep_csv(path: Path, rows: list[Row]) -> None:
    """Write ``sweep.csv``; numbers that do not exist are empty."""
    with path.open("w", newline="", encoding="utf-8") as file:
        CsvWriter(file).write_mappings(
            {k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows
        )


def _row(setting: OneToManyAssigner, layer: int | str, *, images: int, targets: int) -> Row:
    fraction = setting.max_positive_fraction
    return {
        "k": setting.k,
        "threshold": setting.threshold,
        "iou_weight": setting.iou_weight,
        "class_weight": setting.class_weight,
        "max_positive_fraction": "none" if fraction is None else fraction,
        "layer": layer,
        "images": images,
        "targets": targets,
    }


def _numbers(place: Row, sums: dict[str, float], histogram: Tensor) -> Row:
    counts: list[int] = histogram.tolist()
    targets, images, pairs = int(sum(counts)), place["images"], sums["positives"]
    assert isinstance(images, int)
    return {
        "positives": int(pairs),
        "positives_per_target": pairs / targets,
        "positives_p10": quantile_of_counts(counts, 0.1),
        "positives_p90": quantile_of_counts(counts, 0.9),
        "targets_without_positives": int(sums["targets_without_positives"]),
        "share_without_positives": sums["targets_without_positives"] / targets,
        "mean_iou": _ratio(sums["iou"], pairs),
        "mean_probability": _ratio(sums["probability"], pairs),
        "share_iou_below_0.5": _ratio(sums["low_iou"], pairs),
        "conflicts": int(sums["conflicts"]),
        "duplicates": int(sums["duplicates"]),
        "share_duplicates": _ratio(sums["duplicates"], pairs),
        "images_capped": int(sums["images_capped"]),
        "share_images_capped": sums["images_capped"] / images,
        "queries_capped": int(sums["queries_capped"]),
        "pairs_lost_to_cap": int(sums["pairs_lost_to_cap"]),
        "share_pairs_lost_to_cap": _ratio(
            sums["pairs_lost_to_cap"], pairs + sums["pairs_lost_to_cap"]
        ),
        "targets_emptied_by_cap": int(sums["targets_emptied_by_cap"]),
    }


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None
