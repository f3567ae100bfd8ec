"""How a command ends when it is told to."""

from __future__ import annotations

import importlib
import signal
import threading
from pathlib import Path

import pytest

main = importlib.import_module("msdetr.cli.main")  # mypy does not see the mapped package


def test_sigterm_ends_a_command_as_an_exception(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def write(*_: object, **__: object) -> None:
        (tmp_path / "aside").touch()
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            (tmp_path / "aside").unlink()

    monkeypatch.setattr(main, "app", write)
    assert main.main(["export"]) == 143
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr() == ("", "")
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_whoever_handles_sigterm_already_goes_on_doing_so(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: calls.append(number))
    try:
        monkeypatch.setattr(main, "app", lambda *_, **__: signal.raise_signal(signal.SIGTERM))
        assert main.main(["export"]) == 0
        assert calls == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_other_threads_go_without(monkeypatch: pytest.MonkeyPatch) -> None:
    codes: list[int] = []
    monkeypatch.setattr(main, "app", lambda *_, **__: None)
    thread = threading.Thread(target=lambda: codes.append(main.main(["export"])))
    thread.start()
    thread.join()
    assert codes == [0]
