"""Texts of options become values, or are refused under the option's name."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest

from msdetr.errors import UsageError

parsing: Any = import_module("msdetr.cli.parsing")


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (parsing.parse_size, None, None),
        (parsing.parse_size, "480x640", (480, 640)),
        (parsing.parse_ids, None, ()),
        (parsing.parse_ids, "139,285", (139, 285)),
        (parsing.parse_layers, "all", None),
        (parsing.parse_layers, "0,5", (0, 5)),
        (parsing.parse_numbers, None, None),
        (parsing.parse_numbers, "0.2:0.6:0.2,1", (0.2, 0.4, 0.6, 1.0)),
        (parsing.parse_whole_numbers, None, None),
        (parsing.parse_whole_numbers, "2:6:2", (2, 4, 6)),
        (parsing.parse_share, "none", None),
        (parsing.parse_share, "0.25", 0.25),
    ],
)
def test_text_becomes_a_value(
    parse: Callable[[str, str | None], object], text: str | None, value: object
) -> None:
    assert parse("--option", text) == value


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        *((parsing.parse_size, text) for text in ("640", "0x640", "640 x 640", "640x640x3")),
        *((parsing.parse_ids, text) for text in ("", "1,x", "1.5")),
        *((parsing.parse_layers, text) for text in ("none", "0;1", "")),
        *((parsing.parse_numbers, text) for text in ("high", "0:1", "1:0:1", "0:1:0", "nan")),
        (parsing.parse_numbers, "0:1:1e-9"),
        (parsing.parse_whole_numbers, "1.5"),
        *((parsing.parse_share, text) for text in ("0", "1.5", "0.1,0.2", "all")),
    ],
)
def test_other_text_is_refused(parse: Callable[[str, str], object], text: str) -> None:
    with pytest.raises(UsageError, match=r"^--option: expected .*got ") as refused:
        parse("--option", text)
    assert repr(text) in str(refused.value)
