from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from msdetr.engine.reporting import StepLine, TrainingReporter

LINE = StepLine(
    epoch=1,
    step_in_epoch=3,
    loss=4.5,
    parts={"one_to_one": 3.0, "proposals": 1.5},
    lr=2e-4,
    images_per_second=12.34,
    memory_mib=2048.2,
    seconds_left=90061.0,
)


def report(*, terminal: bool, quiet: bool = False, log_file: Path | None = None) -> str:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=terminal, width=180)
    reporter = TrainingReporter(
        epochs=5, steps_per_epoch=10, console=console, log_file=log_file, quiet=quiet
    )
    with reporter.running():
        reporter.start_epoch(0, 0)
        reporter.start_epoch(1, 2)
        reporter.advance(3)
        reporter.show_step(LINE)
        reporter.say("epoch 2 done [ap 0.5]")
    return stream.getvalue()


def test_plain_lines_off_a_terminal() -> None:
    assert report(terminal=False).splitlines() == [
        "epoch 2/5  step 3/10  loss 4.500 (one_to_one 3.000, proposals 1.500)  lr 0.0002  "
        "12.3 images/s  1d 01:01:01 left  2048 MiB",
        "epoch 2 done [ap 0.5]",
    ]


def test_a_bar_on_a_terminal() -> None:
    text = report(terminal=True)
    for part in ("\x1b[", "epoch 2/5", "3/10", "one_to_one 3.000", "1d 01:01:01 left"):
        assert part in text
    assert "epoch 2 done [ap 0.5]" in text


def test_the_log_file_gets_every_line(tmp_path: Path) -> None:
    for terminal in (True, False):
        report(terminal=terminal, log_file=tmp_path / "train.log")
    lines = (tmp_path / "train.log").read_text().splitlines()
    assert [line.split(" INFO ")[1][:11] for line in lines] == ["epoch 2/5  ", "epoch 2 don"] * 2


def test_other_processes_are_quiet(tmp_path: Path) -> None:
    assert report(terminal=True, quiet=True, log_file=tmp_path / "train.log") == ""
    assert not (tmp_path / "train.log").exists()
