"""Multi-scale deformable attention: the only entry point to its backends."""

from __future__ import annotations

from msdetr.ops.dispatch import BACKENDS, default_backend, ms_deform_attn
from msdetr.ops.native import NativeBuildError, build, cache_directory
from msdetr.ops.report import BackendStatus, backend_report, compiler_versions
from msdetr.ops.self_test import SelfTest, run_self_test

__all__ = [
    "BACKENDS",
    "BackendStatus",
    "NativeBuildError",
    "SelfTest",
    "backend_report",
    "build",
    "cache_directory",
    "compiler_versions",
    "default_backend",
    "ms_deform_attn",
    "run_self_test",
]
