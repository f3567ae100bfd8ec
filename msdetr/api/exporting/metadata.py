"""What an exported file says of itself."""

from __future__ import annotations

import json
from typing import Any

from msdetr.api.checkpoints.loaded import LoadedCheckpoint
from msdetr.data.transforms import MIN_SIDE_PX
from msdetr.export import ExportSettings
from msdetr.recipe import recipe_to_dict
from msdetr.version import __version__

METADATA_VERSION = 1


def describe_export(
    loaded: LoadedCheckpoint, settings: ExportSettings, detections: int
) -> dict[str, str]:
    """Return the metadata of a file: JSON texts by name.

    Args:
        loaded: The model.
        settings: Form of the file.
        detections: Detections per image.
    """
    document = {
        "metadata_version": METADATA_VERSION,
        "msdetr_version": __version__,
        "class_names": loaded.label_space.names_by_label,
        "category_ids": loaded.label_space.category_id_by_label,
        "preprocessing": _preprocessing(loaded, settings),
        "op": settings.op,
        "precision": settings.precision,
        "outputs": settings.output_names,
        "box_format": "cxcywh_relative" if settings.raw else "xyxy_px_of_input",
        "detections": None if settings.raw else detections,
        "recipe": recipe_to_dict(loaded.recipe),
    }
    return {name: json.dumps(value) for name, value in document.items()}


def _preprocessing(loaded: LoadedCheckpoint, settings: ExportSettings) -> dict[str, Any]:
    data, collator = loaded.recipe.data, loaded.collator
    resize: dict[str, Any]
    if settings.static_hw is None:
        resize = {
            "short_side": data.eval_size,
            "long_side": data.eval_max_size,
            "least_side": MIN_SIDE_PX,
        }
    else:
        resize = {"height": settings.static_hw[0], "width": settings.static_hw[1]}
    return {
        "channels": "RGB",
        "resize": {**resize, "filter": "Pillow bilinear, 8 bit"},
        "scale": 1 / 255,
        "mean": data.mean,
        "std": data.std,
        "padding": "zeros after normalisation, at the right and bottom",
        "pad_multiple": collator.pad_multiple if settings.static_hw is None else 1,
        "strides": collator.strides,
        "least_side": settings.min_side,
        "least_cells": collator.min_cells,
    }
