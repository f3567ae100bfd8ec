"""How a command ends when it is told to."""

from __future__ import annotations

import errno
import importlib
import os
import signal
import sys
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


class Interrupting:
    """Finds no module, but is interrupted when it looks for one."""

    def find_spec(self, name: str, *_: object) -> None:
        if name == "msdetr.cli.main":
            raise KeyboardInterrupt


def test_ctrl_c_while_modules_load_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "msdetr.cli.main")
    monkeypatch.setattr(sys, "meta_path", [Interrupting(), *sys.meta_path])
    with pytest.raises(SystemExit) as caught:
        importlib.import_module("msdetr.cli").run()
    assert caught.value.code == 130


@pytest.mark.parametrize(
    "words",
    [
        ("train", "shapes_tiny", "--output", "{}"),
        ("eval", "--ckpt", "{}"),
        ("predict", "{}", "--ckpt", "x"),
        ("recipes", "validate", "{}"),
        ("recipes", "copy", "shapes_tiny", "{}"),
        ("plot", "{}"),
        ("inspect-matching", "--trace", "{}", "--output", "x"),
        ("import-official", "{}", "--recipe", "ddetr_300q", "--output", "x"),
        ("data", "check", "shapes_tiny", "--set", "data.source=coco", "--set", "data.root={}"),
    ],
)
@pytest.mark.parametrize("long", ["a" * 256, "ä" * 128 + "/b", "/".join(["c" * 200] * 25)])
def test_names_that_are_too_long_are_one_line(
    words: tuple[str, ...], long: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main.main([word.format(long) for word in words]) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert "bug" not in said


def test_a_full_disk_behind_stdout_is_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with Path("/dev/full").open("w") as full, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", full)
        assert main.main(["recipes", "show", "shapes_tiny"]) == 1
        patch.undo()
        os.dup2(os.open(os.devnull, os.O_WRONLY), full.fileno())
    assert capfd.readouterr().err == "error: stdout: no space is left on the device\n"


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.EDQUOT])
def test_limits_of_the_machine_are_no_bugs(
    number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), "a.json")

    monkeypatch.setattr(main, "app", fail)
    assert main.main(["plot"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: a.json: ")
    assert "bug" not in said
