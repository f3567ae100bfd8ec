"""The process of one cell: trains it, or goes on with it, and analyses the result.

It is started by :mod:`msdetr.api.study.cell_job` and ends with it.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path

from msdetr.errors import InterruptedRunError, MsdetrError
from msdetr.files import replace_text
from msdetr.terminal import LiteralConsole

_MODULE = "msdetr.api.study.cell_process"
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class CellOrder:
    """What a cell's process is to do.

    Attributes:
        recipe: File of the cell's recipe.
        output: Run directory.
        device: "auto", "cpu", "cuda" or "cuda:N".
        error_file: Where to say, in one line, why it failed.
        parent: The process that waits for it.
    """

    recipe: str
    output: str
    device: str
    error_file: str
    parent: int

    def command(self) -> list[str]:
        """Return the command line that carries it out."""
        return [sys.executable, "-m", _MODULE, json.dumps(asdict(self))]


def main(order: CellOrder) -> int:
    """Carry out an order.

    Returns:
        The exit code, as of ``msdetr train``.
    """
    if not _end_with(order.parent):
        return 128 + signal.SIGTERM
    # Clusters send them to every process of a job; the one that waits for this one answers.
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    try:
        _train_and_analyse(order)
    except InterruptedRunError as error:
        LiteralConsole(stderr=True).say(str(error))
        return error.exit_code
    except MsdetrError as error:
        LiteralConsole(stderr=True).say(f"error: {error}")
        return _report(order, str(error), error.exit_code)
    except Exception as error:  # whatever it is, the study must name it
        traceback.print_exc()
        return _report(order, f"{type(error).__name__}: {error}", 1)
    return 0


def _train_and_analyse(order: CellOrder) -> None:
    from msdetr.api.study.cell_analysis import analyse_cell  # noqa: PLC0415 - after signals are set
    from msdetr.api.train import train  # noqa: PLC0415
    from msdetr.recipe import load_recipe  # noqa: PLC0415

    output = Path(order.output)
    train(load_recipe(order.recipe), output=output, resume=True, device=order.device)
    analyse_cell(output, device=order.device)


def _end_with(parent: int) -> bool:
    """Have the kernel send SIGTERM when the parent dies; False if it is dead already."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    return os.getppid() == parent


def _report(order: CellOrder, error: str, code: int) -> int:
    replace_text(Path(order.error_file), " ".join(error.split()) + "\n")
    return code


if __name__ == "__main__":
    sys.exit(main(CellOrder(**json.loads(sys.argv[1]))))
