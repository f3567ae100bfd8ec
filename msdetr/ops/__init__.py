"""Multi-scale deformable attention: the one door to its backends."""

from __future__ import annotations

from msdetr.ops.dispatch import BACKENDS, default_backend, ms_deform_attn
from msdetr.ops.native import NativeBuildError, build
from msdetr.ops.report import BackendStatus, backend_report

__all__ = [
    "BACKENDS",
    "BackendStatus",
    "NativeBuildError",
    "backend_report",
    "build",
    "default_backend",
    "ms_deform_attn",
]
