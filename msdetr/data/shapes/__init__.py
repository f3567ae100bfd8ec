"""The embedded data set of shapes: generated, never downloaded."""

from __future__ import annotations

from msdetr.data.shapes.dataset import Progress, default_folder, ensure

__all__ = ["Progress", "default_folder", "ensure"]
