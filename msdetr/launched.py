"""What a process knows of the command that started it as one of several.

``msdetr.engine.launcher`` starts them. This module loads no torch: the first thing that such a
process does is to tie itself to the one that waits for it.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

_LAUNCHER = "MSDETR_LAUNCHER"
# Torch's launcher names one for every process, and reads it when the process has failed.
_ERROR_FILE = "TORCHELASTIC_ERROR_FILE"
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Failure:
    """Why a process failed, as it says itself.

    Attributes:
        message: What there is to tell the user.
        is_elsewhere: Whether another process is at fault, which says more itself.
        timestamp: When it failed, in seconds.
    """

    message: str
    is_elsewhere: bool
    timestamp: float

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Self | None:
        """Read what a process has left; None if it has left nothing."""
        with suppress(TypeError):
            return cls(**content)
        return None


def launcher_variables() -> dict[str, str]:
    """Return the variables that tell processes that this one has started them."""
    return {_LAUNCHER: str(os.getpid())}


def is_launched() -> bool:
    """Tell whether a command of msdetr has started this process as one of several."""
    return os.environ.get(_LAUNCHER) == str(os.getppid())


def settle_in() -> None:
    """Begin as one of several processes, where that is what this one is.

    It ends with the one that waits for it, and only the first of them prints results.
    """
    if not is_launched():
        if _is_orphan():
            sys.exit(128 + signal.SIGTERM)
        return
    if not end_with(int(os.environ[_LAUNCHER])):
        sys.exit(128 + signal.SIGTERM)
    if os.environ.get("RANK") != "0":
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _is_orphan() -> bool:
    """Tell whether the command that started this process has ended before this one began."""
    launcher = os.environ.get(_LAUNCHER)
    if launcher is None or sys.platform != "linux":
        return False
    try:
        state = Path(f"/proc/{launcher}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state == "Z"  # ended, and nobody has asked how


def end_with(parent: int) -> bool:
    """Have the kernel send SIGTERM to this process when its parent dies.

    Args:
        parent: The parent's id.

    Returns:
        False if the parent is dead already.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    return os.getppid() == parent


def report_failure(message: str, *, is_elsewhere: bool = False) -> bool:
    """Leave to the one that started this process what it says for all of them.

    Args:
        message: Why this process fails.
        is_elsewhere: Whether another process is at fault.

    Returns:
        Whether it will be said: False if this process was started alone.
    """
    if not is_launched():
        return False
    content = asdict(Failure(message, is_elsewhere, time.time()))
    try:
        Path(os.environ[_ERROR_FILE]).write_text(json.dumps(content))
    except (KeyError, OSError):
        return False
    return True
