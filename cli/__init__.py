"""The command line: one file per command, no logic."""

from __future__ import annotations

import sys


def run() -> None:
    """Run the ``msdetr`` command; Ctrl-C while its modules load ends it without a traceback."""
    try:
        from .main import run as run_command
    except KeyboardInterrupt:
        sys.exit(130)
    run_command()
