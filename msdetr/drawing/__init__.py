"""Pictures: boxes and captions on images. No matplotlib is loaded until a plot is drawn."""

from __future__ import annotations
