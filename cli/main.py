"""The ``msdetr`` command: registers the commands, turns errors into messages and exit codes.

A command is one line below: its function, or its group, and the examples of its help.
Torch is imported inside commands only, so that help and messages come at once.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from typing import Annotated

import typer

from msdetr.errors import FaultElsewhereError, MsdetrError, UsageError
from msdetr.launched import report_failure, settle_in
from msdetr.terminal import make_streams_lenient

from . import (
    candidates,
    compare,
    data,
    doctor,
    inspect_matching,
    plot,
    predict,
    recipes,
    replay,
    runs,
    stability,
    study,
    sweep_matching,
    train,
)
from . import eval as evaluation
from . import export as exporting
from . import import_official as importing
from .bugs import explain_bug
from .flags import in_flags
from .groups import DATA, LOOK, SHARE, TRAIN, CommandGroup
from .options import examples
from .say import say

DEBUG = "--debug"
NAME = "msdetr"

app = typer.Typer(
    name=NAME,
    cls=CommandGroup,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=examples(
        "msdetr recipes list",
        "msdetr train shapes_tiny",
        "msdetr eval --ckpt runs/shapes_tiny",
    ),
)
app.add_typer(recipes.app, name="recipes", rich_help_panel=TRAIN)
app.command(epilog=train.EXAMPLES, rich_help_panel=TRAIN)(train.train)
app.command(epilog=replay.EXAMPLES, rich_help_panel=TRAIN)(replay.replay)
app.add_typer(study.app, name="study", rich_help_panel=TRAIN)
app.add_typer(runs.app, name="runs", rich_help_panel=LOOK)
app.command("eval", epilog=evaluation.EXAMPLES, rich_help_panel=LOOK)(evaluation.evaluate)
app.command(epilog=compare.EXAMPLES, rich_help_panel=LOOK)(compare.compare)
app.command(epilog=predict.EXAMPLES, rich_help_panel=LOOK)(predict.predict)
app.command(epilog=plot.EXAMPLES, rich_help_panel=LOOK)(plot.plot)
app.command("inspect-matching", epilog=inspect_matching.EXAMPLES, rich_help_panel=LOOK)(
    inspect_matching.inspect_matching
)
app.command(epilog=candidates.EXAMPLES, rich_help_panel=LOOK)(candidates.candidates)
app.command("sweep-matching", epilog=sweep_matching.EXAMPLES, rich_help_panel=LOOK)(
    sweep_matching.sweep_matching
)
app.command(epilog=stability.EXAMPLES, rich_help_panel=LOOK)(stability.stability)
app.command(epilog=exporting.EXAMPLES, rich_help_panel=SHARE)(exporting.export)
app.command("import-official", epilog=importing.EXAMPLES, rich_help_panel=SHARE)(
    importing.import_official
)
app.add_typer(data.app, name="data", rich_help_panel=DATA)
app.command(epilog=doctor.EXAMPLES, rich_help_panel=DATA)(doctor.doctor)


def _print_version(asked: bool) -> None:
    if asked:
        say(f"{NAME} {version(NAME)}")
        raise typer.Exit


@app.callback()
def _root(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
    _debug: Annotated[
        bool, typer.Option(DEBUG, help="Show tracebacks; may stand anywhere in the command.")
    ] = False,
) -> None:
    """Object detection with MS-DETR: train, evaluate and use it, from recipes."""


def main(arguments: Sequence[str]) -> int:
    """Run one command line.

    Args:
        arguments: What follows ``msdetr``.

    Returns:
        The exit code: 0 done, 1 failed, 2 invalid usage, recipe or data, 3 diverged,
        4 verification failed, 130 interrupted, 143 terminated.
    """
    debug = DEBUG in arguments
    make_streams_lenient()
    with _raising_on_sigterm():
        return _run(arguments, debug=debug)


@contextmanager
def _raising_on_sigterm() -> Iterator[None]:
    """Let SIGTERM end a command as Ctrl-C does, so that nothing half-written remains."""
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _run(arguments: Sequence[str], *, debug: bool) -> int:
    try:
        _refuse_empty(arguments)
        words = [argument for argument in arguments if argument != DEBUG]
        app(words, prog_name=NAME, obj=tuple(arguments))
        sys.stdout.flush()
    except MsdetrError as error:
        is_elsewhere = isinstance(error, FaultElsewhereError)
        _explain(error.text(in_flags), debug=debug, is_elsewhere=is_elsewhere)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else int(done.code is not None)
    except BrokenPipeError:
        # Whoever read stdout has had enough; what is left must not fail again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:  # a bug: one line for the user, everything else for its report
        _explain(repr(error) if debug else explain_bug(error), debug=debug)
        is_usage = isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG
        return UsageError.exit_code if is_usage else 1
    return 0


def _explain(message: str, *, debug: bool, is_elsewhere: bool = False) -> None:
    """Say why a command fails, or let the one say it that has started this process."""
    if debug:
        say(traceback.format_exc(), err=True)
    if not report_failure(message, is_elsewhere=is_elsewhere) and not debug:
        say(f"error: {message}", err=True)


def _refuse_empty(arguments: Sequence[str]) -> None:
    """Refuse an empty argument, which would mean the current folder: mostly an unset variable."""
    for position, argument in enumerate(arguments):
        if not argument:
            before = arguments[position - 1] if position else ""
            where = before if before.startswith("-") else f"argument {position + 1}"
            raise UsageError(where, "is empty; is a variable of the shell not set?")


def run() -> None:
    """Run the ``msdetr`` command."""
    settle_in()
    sys.exit(main(sys.argv[1:]))
