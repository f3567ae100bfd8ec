"""The process of one cell: trains it, or goes on with it, and analyses the result.

It is started by :mod:`msdetr.api.study.cell_job` and ends with it.
"""

from __future__ import annotations

import json
import signal
import sys
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path

from msdetr.errors import FaultElsewhereError, InterruptedRunError, MsdetrError
from msdetr.files import replace_text
from msdetr.launched import end_with, is_launched, report_failure, settle_in
from msdetr.terminal import LiteralConsole

_MODULE = "msdetr.api.study.cell_process"


@dataclass(frozen=True)
class CellOrder:
    """What a cell's process is to do.

    Attributes:
        recipe: File of the cell's recipe.
        output: Run directory.
        device: "auto", "cpu", "cuda" or "cuda:N".
        error_file: Where to say, in one line, why it failed.
        parent: The process that waits for it.
        processes: How many processes train; this one starts them if there are several.
    """

    recipe: str
    output: str
    device: str
    error_file: str
    parent: int
    processes: int = 1

    def command(self) -> list[str]:
        """Return the command line that carries it out."""
        return [sys.executable, *self.words()]

    def words(self) -> list[str]:
        """Return what follows ``python`` there."""
        return ["-m", _MODULE, json.dumps(asdict(self))]


def main(order: CellOrder) -> int:
    """Carry out an order.

    Returns:
        The exit code, as of ``msdetr train``.
    """
    if is_launched():
        settle_in()
    elif not end_with(order.parent):
        return 128 + signal.SIGTERM
    # Clusters send them to every process of a job; the one that waits for this one answers.
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    try:
        return _work(order)
    except InterruptedRunError as error:
        if not report_failure(str(error)):
            LiteralConsole(stderr=True).say(str(error))
        return error.exit_code
    except MsdetrError as error:
        is_elsewhere = isinstance(error, FaultElsewhereError)
        if not report_failure(str(error), is_elsewhere=is_elsewhere):
            LiteralConsole(stderr=True).say(f"error: {error}")
            _note(order, str(error))
        return error.exit_code
    except Exception as error:  # whatever it is, the study must name it
        traceback.print_exc()
        message = f"{type(error).__name__}: {error}"
        if not report_failure(message):
            _note(order, message)
        return 1


def _work(order: CellOrder) -> int:
    """Train, alone or by several processes, and analyse; several processes only train."""
    if order.processes > 1 and not is_launched():
        code = _launch(order)
        if code:
            return code
    else:
        _train(order)
    if not is_launched():
        from msdetr.api.study.cell_analysis import analyse_cell  # noqa: PLC0415 - as below

        analyse_cell(Path(order.output), device=order.device)
    return 0


def _train(order: CellOrder) -> None:
    from msdetr.api.train import train  # noqa: PLC0415 - after signals are set
    from msdetr.recipe import load_recipe  # noqa: PLC0415

    recipe = load_recipe(order.recipe)
    train(recipe, output=Path(order.output), resume=True, device=order.device)


def _launch(order: CellOrder) -> int:
    from msdetr.api.launch import count_processes  # noqa: PLC0415 - after signals are set
    from msdetr.engine.launcher import launch  # noqa: PLC0415

    return launch(order.words(), count_processes(str(order.processes), device=order.device))


def _note(order: CellOrder, error: str) -> None:
    replace_text(Path(order.error_file), " ".join(error.split()) + "\n")


if __name__ == "__main__":
    sys.exit(main(CellOrder(**json.loads(sys.argv[1]))))
