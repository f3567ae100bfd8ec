"""Multi-scale deformable attention: the one door to its backends."""

from __future__ import annotations

from msdetr.ops.dispatch import BACKENDS, ms_deform_attn
from msdetr.ops.native import NativeBuildError, build
from msdetr.ops.report import BackendStatus, backend_report

__all__ = [
    "BACKENDS",
    "BackendStatus",
    "NativeBuildError",
    "backend_report",
    "build",
    "ms_deform_attn",
]
