"""MS-DETR: Deformable-DETR trained with one-to-one and one-to-many supervision.

``import msdetr`` loads no torch; the names below load what they need on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from msdetr.version import __version__

__all__ = ["Detector", "ImageDetections", "__version__", "evaluate", "load_recipe", "train"]

_HOMES = {
    "Detector": "msdetr.api.detector",
    "ImageDetections": "msdetr.api.detection.image_detections",
    "evaluate": "msdetr.api.evaluate",
    "load_recipe": "msdetr.recipe",
    "train": "msdetr.api.train",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - module attributes have any type
    if name not in _HOMES:
        raise AttributeError(f"module 'msdetr' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
