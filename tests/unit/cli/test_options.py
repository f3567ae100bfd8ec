"""Options offer what the library has; their choices are written out, as torch loads late."""

from __future__ import annotations

from importlib import import_module
from typing import Any, get_args

from msdetr.export.formats import SUFFIXES
from msdetr.export.settings import AttentionOp, ExportFormat, ExportPrecision

options: Any = import_module("msdetr.cli.options")


def choices(option: Any) -> set[str]:
    literal, *_ = get_args(option)
    return set(get_args(literal))


def test_every_export_format_can_be_chosen() -> None:
    assert choices(options.FormatOption) == {*get_args(ExportFormat), "official"}
    assert set(SUFFIXES) == set(get_args(ExportFormat))


def test_every_form_of_an_export_can_be_chosen() -> None:
    assert choices(options.OpOption) == set(get_args(AttentionOp))
    assert choices(options.PrecisionOption) == set(get_args(ExportPrecision))
