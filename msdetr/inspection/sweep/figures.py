"""Heat maps of a sweep."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from msdetr.assignment import OneToManyAssigner
from msdetr.drawing.heat_maps import HeatMap, HeatMapAxes, draw_heat_maps
from msdetr.inspection.sweep.statistics import SweepGrid
from msdetr.inspection.sweep.tables import ALL_LAYERS, Row

CAVEAT = "Predicts the supervision of this model's queries, not the AP of a training run."


@dataclass(frozen=True)
class _Quantity:
    column: str
    title: str
    percent: bool = False


FIGURES: Mapping[str, _Quantity] = {
    "positives_per_target": _Quantity("positives_per_target", "Positives per target"),
    "targets_without_positives": _Quantity(
        "share_without_positives", "Targets without positives", percent=True
    ),
    "mean_iou": _Quantity("mean_iou", "Mean IoU of positives"),
    "mean_probability": _Quantity(
        "mean_probability", "Mean probability of positives at the target's class"
    ),
    "iou_below_0.5": _Quantity(
        "share_iou_below_0.5", "Positives with an IoU below 0.5", percent=True
    ),
    "conflicts": _Quantity("conflicts", "Queries that serve several targets (all layers)"),
    "duplicates": _Quantity(
        "share_duplicates",
        "Positives whose box has IoU ≥ 0.9 with a better one of the same target",
        percent=True,
    ),
    "images_capped": _Quantity("share_images_capped", "Images that hit the cap", percent=True),
    "pairs_lost_to_cap": _Quantity(
        "share_pairs_lost_to_cap", "Pairs that the cap removes", percent=True
    ),
}
"""Quantity of every picture, by name."""

_NAMES = {"k": "k", "threshold": "threshold", "iou_weight": "IoU weight"}


def draw_sweep(rows: Sequence[Row], grid: SweepGrid, own: OneToManyAssigner) -> dict[str, Figure]:
    """Draw a picture per quantity: maps over the threshold and the IoU weight, one per k.

    Where one of the two has a single value, k takes its place.

    Args:
        rows: Of ``sweep_rows``.
        grid: Settings of the sweep.
        own: Setting of the trace, to be framed.
    """
    total = [row for row in rows if row["layer"] == ALL_LAYERS]
    by_setting = {tuple(row[name] for name in _NAMES): row for row in total}
    layout = _Layout.of(grid)
    return {name: layout.draw(by_setting, quantity, own) for name, quantity in FIGURES.items()}


@dataclass(frozen=True)
class _Layout:
    """Which setting runs along which axis."""

    values: Mapping[str, Sequence[float]]
    panel: str
    x: str
    y: str

    @classmethod
    def of(cls, grid: SweepGrid) -> _Layout:
        values = {"k": grid.ks, "threshold": grid.thresholds, "iou_weight": grid.iou_weights}
        if len(grid.iou_weights) == 1:
            return cls(values, panel="iou_weight", x="threshold", y="k")
        if len(grid.thresholds) == 1:
            return cls(values, panel="threshold", x="iou_weight", y="k")
        return cls(values, panel="k", x="threshold", y="iou_weight")

    def draw(
        self,
        rows: Mapping[tuple[str | int | float | None, ...], Row],
        quantity: _Quantity,
        own: OneToManyAssigner,
    ) -> Figure:
        maps = [self._map(rows, quantity, own, panel) for panel in self.values[self.panel]]
        axes = HeatMapAxes(
            x_label=_NAMES[self.x],
            x=self.values[self.x],
            y_label=_NAMES[self.y],
            y=self.values[self.y],
        )
        footer = f"Frame: the trace's own setting. {CAVEAT}"
        return draw_heat_maps(
            maps, axes, title=quantity.title, footer=footer, percent=quantity.percent
        )

    def _map(
        self,
        rows: Mapping[tuple[str | int | float | None, ...], Row],
        quantity: _Quantity,
        own: OneToManyAssigner,
        panel: float,
    ) -> HeatMap:
        values, marked = [], None
        for i, y in enumerate(self.values[self.y]):
            values.append([math.nan] * len(self.values[self.x]))
            for j, x in enumerate(self.values[self.x]):
                setting = {self.panel: panel, self.x: x, self.y: y}
                value = rows[tuple(setting[name] for name in _NAMES)][quantity.column]
                values[i][j] = math.nan if value is None else float(value)
                if all(getattr(own, name) == setting[name] for name in _NAMES):
                    marked = (i, j)
        return HeatMap(title=f"{_NAMES[self.panel]} = {panel:g}", values=values, marked=marked)
