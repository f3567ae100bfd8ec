"""Documents for machines."""

from __future__ import annotations

import importlib
import json

import pytest

say = importlib.import_module("msdetr.cli.say")


def test_json_has_null_where_a_number_is_not_finite(capsys: pytest.CaptureFixture[str]) -> None:
    say.say_json({"a": float("nan"), "b": [1.5, float("-inf")], "c": ({"d": float("inf")},)})

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    found = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert found == {"a": None, "b": [1.5, None], "c": [{"d": None}]}
