"""Exports: programs that run without this package, and their comparison with the model."""

from __future__ import annotations

from msdetr.export.program import DetectionProgram, build_program
from msdetr.export.runners import ExportedOutput, Runner
from msdetr.export.settings import ExportSettings
from msdetr.export.verification import VerificationBatch, VerificationReport, verify

__all__ = [
    "DetectionProgram",
    "ExportSettings",
    "ExportedOutput",
    "Runner",
    "VerificationBatch",
    "VerificationReport",
    "build_program",
    "verify",
]
