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


def check_results(
    output: Path, *, files: Sequence[str], folders: Sequence[str] = (), of: str, force: bool
) -> None:
    """Refuse to overwrite all but the results of an earlier call, and those without ``force``.

    Args:
        output: Directory to write to; need not exist.
        files: Files that will be written there.
        folders: Folders that will be written there.
        of: What makes such results, as in "a prediction".
        force: Whether results may be replaced.

    Raises:
        UsageError: As for :func:`check_output`, or one of them is a link or of the other kind.
    """
    check_output(output, (*files, *folders), force=force)
    for path, is_usable in (
        *((output / name, Path.is_file) for name in files),
        *((output / name, Path.is_dir) for name in folders),
    ):
        if path.is_symlink() or (path.exists() and not is_usable(path)):
            raise UsageError(str(path), f"is no result of {of}; give another `output`")


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
