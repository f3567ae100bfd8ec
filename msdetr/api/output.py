"""Directories that a command writes its results to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from msdetr.errors import UsageError
from msdetr.files import filling_directory


def check_output(output: Path, names: Sequence[str], *, force: bool | None = None) -> None:
    """Refuse to overwrite; called before any work.

    Args:
        output: Directory to write to; need not exist.
        names: Files that will be written there.
        force: Whether files may be replaced; None where there is no such choice.

    Raises:
        UsageError: It is a file, or holds one of the files.
    """
    if output.exists() and not output.is_dir():
        raise UsageError(str(output), "is a file; `output` needs a directory")
    present = [name for name in names if (output / name).exists()]
    if present and not force:
        way_out = "" if force is None else ", or `force=True`"
        raise UsageError(str(output), f"holds {present[0]} already; give another `output`{way_out}")


@contextmanager
def writing(output: Path) -> Iterator[Path]:
    """Write the files of a directory aside, so that either all of them appear or none.

    Args:
        output: The directory; made if need be.

    Yields:
        Where to write them; see :func:`msdetr.files.filling_directory`.

    Raises:
        UsageError: The operating system refuses.
    """
    try:
        with filling_directory(output) as aside:
            yield aside
    except OSError as error:
        reason = error.strerror or str(error)
        raise UsageError(str(output), f"cannot be written: {reason}") from error
