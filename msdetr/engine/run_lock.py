"""One training run per directory: the lock that its first process holds from start to end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from msdetr.engine.processes import Processes
from msdetr.engine.run_directory import RunDirectory
from msdetr.errors import RunDirectoryError
from msdetr.files import making_directory
from msdetr.process_lock import HeldError, hold
from msdetr.terminal import LiteralConsole


@contextmanager
def holding_run(directory: RunDirectory, processes: Processes) -> Iterator[None]:
    """Keep other training runs out of a directory inside the ``with`` block.

    The main process holds the lock for all. Folders that were made for it are removed at the end
    if nothing was written to them. Where the file system has no locks, a line says so.

    Args:
        directory: The run's directory; made if need be.
        processes: The processes of this run; all must enter.

    Raises:
        RunDirectoryError: Another run trains in it, or it cannot be written.
        OtherProcessError: The same, on the processes that are not the main one.
    """
    with ExitStack() as held:

        def enter() -> None:
            if processes.is_main:
                held.enter_context(_holding(directory))

        processes.together(enter)
        yield


@contextmanager
def _holding(directory: RunDirectory) -> Iterator[None]:
    directory.check_writable()
    if directory.path.is_file():
        directory.check_free()  # which says so
    with ExitStack() as held:
        try:
            held.enter_context(making_directory(directory.path))
        except OSError as error:
            raise RunDirectoryError(
                str(directory.path), f"cannot be written: {error.strerror}; give another `output`"
            ) from error
        try:
            held.enter_context(hold(directory.lock_file, keep_file=False))
        except HeldError as error:
            raise RunDirectoryError(
                str(directory.path),
                f"is being trained by {error}; wait for it to end, or give another `output`",
            ) from None
        except OSError as error:
            # Such file systems exist; training on them is better than no training.
            LiteralConsole(stderr=True).say(
                f"{directory.lock_file}: cannot be locked ({error.strerror}); make sure that no "
                "second training run uses this directory"
            )
        yield
