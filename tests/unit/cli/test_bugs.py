"""What nobody expected is one line, a file, and exit code 1."""

from __future__ import annotations

import errno
import importlib
import re
from pathlib import Path

import pytest

main = importlib.import_module("msdetr.cli.main")  # mypy does not see the mapped package
bugs = importlib.import_module("msdetr.cli.bugs")


@pytest.fixture
def fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("of what\nand more")

    monkeypatch.setattr(main, "app", fail)
    return monkeypatch


@pytest.mark.usefixtures("fails")
def test_a_bug_is_one_line_and_a_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main.main(["train"]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    (line,) = shown.err.splitlines()
    assert line.startswith("error: ZeroDivisionError: of what; this is a bug in msdetr")
    (file,) = tmp_path.glob("msdetr-bug-*.txt")
    assert str(file) in line
    details = file.read_text()
    assert re.search(r"Traceback .*\n(.*\n)+ZeroDivisionError: of what", details)
    assert "msdetr " in details


@pytest.mark.usefixtures("fails")
def test_debug_shows_everything_and_writes_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main.main(["train", "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_no_second_error(
    fails: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "no")

    fails.setattr("tempfile.NamedTemporaryFile", refuse)
    assert main.main(["train"]) == 1
    assert "run again with --debug" in capsys.readouterr().err


def test_a_full_disk_is_no_bug() -> None:
    said = bugs.explain_bug(OSError(errno.ENOSPC, "No space left on device", "out.json"))
    assert said == "out.json: no space is left on the device"
