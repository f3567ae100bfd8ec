from __future__ import annotations

from msdetr.data.findings import NUM_EXAMPLES, Finding, present


def test_nothing_affected_is_no_finding() -> None:
    assert Finding.of("a", "error", "things are odd", []) is None
    found = Finding.of("a", "error", "things are odd", [3])
    assert present([None, found, None]) == (found,)


def test_line_counts_all_and_lists_a_few() -> None:
    few = Finding.of("a", "warning", "things are odd", ["x", "y"])
    many = Finding.of("a", "warning", "things are odd", list(range(9)))
    assert few is not None
    assert many is not None
    assert few.line() == "things are odd: 2 (x, y)"
    assert len(many.examples) == NUM_EXAMPLES
    assert many.line() == "things are odd: 9 (0, 1, 2, 3, 4, ...)"
    assert Finding("a", "error", "file.json: is odd", 1).line() == "file.json: is odd"


def test_json_values() -> None:
    found = Finding.of("a", "error", "things are odd", [3])
    assert found is not None
    assert found.to_dict() == {
        "check": "a",
        "severity": "error",
        "message": "things are odd",
        "count": 1,
        "examples": ["3"],
    }
