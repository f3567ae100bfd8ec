"""Errors that nobody expected: one line, and a file with everything else."""

from __future__ import annotations

import errno
import sys
import tempfile
import traceback
from contextlib import suppress
from importlib.metadata import version

_NO_BUGS = {
    errno.ENOSPC: "no space is left on the device",
    errno.EDQUOT: "the quota of the disk is used up",
    errno.ENAMETOOLONG: "a part of this path, or all of it, is longer than the system allows",
    errno.EMFILE: "too many files are open; raise the limit (ulimit -n 65536)",
    errno.ENFILE: "too many files are open on this machine",
}


def explain_bug(error: Exception) -> str:
    """Say in one line what went wrong, and write the traceback to a file.

    Args:
        error: What a command raised though it is no ``MsdetrError``.

    Returns:
        The line, which names the file.
    """
    if isinstance(error, OSError) and error.errno in _NO_BUGS:
        return f"{error.filename or 'stdout'}: {_NO_BUGS[error.errno]}"
    lines = str(error).splitlines()
    said = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    where = "run again with --debug for the details"
    with suppress(OSError):
        where = f"the details are in {_write_details(error)}"
    return f"{said}; this is a bug in msdetr, {where}"


def _write_details(error: Exception) -> str:
    with tempfile.NamedTemporaryFile(
        "w", prefix="msdetr-bug-", suffix=".txt", delete=False, errors="backslashreplace"
    ) as file:
        file.write(f"msdetr {version('msdetr')}, Python {sys.version}\n{sys.argv}\n\n")
        file.writelines(traceback.format_exception(error))
    return file.name
