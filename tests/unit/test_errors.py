from __future__ import annotations

import pytest

from msdetr.errors import InvalidInputError, Problem, counted, first_line


@pytest.mark.parametrize(
    "text", ["a\nb", "a\rb", "a\x85b", "a\u2028b", "\x1b[2Jb", "a\0b", "\ud800b"], ids=ascii
)
def test_a_problem_is_one_printable_line_whatever_a_file_holds(text: str) -> None:
    for error in (
        InvalidInputError(text, text),
        InvalidInputError("file", [Problem(text, text)]),
    ):
        assert str(error).isprintable()
        assert str(error).endswith("b")
    lines = str(InvalidInputError(text, [Problem(text, "x"), Problem("y", text)])).split("\n")
    assert len(lines) == 3
    assert all(line.isprintable() for line in lines)


def test_printable_text_is_left_as_it_is() -> None:
    message = str(InvalidInputError("größe.yaml", [Problem("line 1", "50 % — 'ok' 💥")]))
    assert message == "größe.yaml: line 1: 50 % — 'ok' 💥"


@pytest.mark.parametrize(
    ("number", "noun", "text"),
    [(1, "error", "1 error"), (0, "warning", "0 warnings"), (2, "box", "2 boxes")],
)
def test_nouns_follow_their_numbers(number: int, noun: str, text: str) -> None:
    assert counted(number, noun) == text


@pytest.mark.parametrize(
    ("message", "line"),
    [("\n no such node \nat: x", "no such node "), (" \n", "OSError"), ("", "OSError")],
)
def test_the_first_line_of_an_error_or_its_kind(message: str, line: str) -> None:
    assert first_line(OSError(message)) == line
