"""Exceptions that a user meets, each with the exit code of the command line.

A message says where the problem is, what was expected, what was found and what to do. Parameters
that a command shares with its workflow stand in backquotes under their names in Python, alone or
with a value, in messages as in sources: ```output```, ```force=True```, ```recipe='ddetr_300q'```.
The command line shows its options in their places (``MsdetrError.text``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass


class MsdetrError(Exception):
    """Base of all errors that are reported without a traceback."""

    exit_code = 1

    def text(self, rename: Callable[[str], str]) -> str:
        """Return the message with other names of the parameters.

        Args:
            rename: Rewrites a piece of the message: the source, the place or the description of
                a problem.
        """
        return rename(str(self))


@dataclass(frozen=True)
class Problem:
    """One line of an invalid-input report.

    Attributes:
        where: Place inside the source: a line, a dotted key, an annotation id. May be empty.
        message: What was expected, what was found, what to do.
    """

    where: str
    message: str


class InvalidInputError(MsdetrError):
    """Something the user gave is invalid: a file, an option, a combination.

    Args:
        source: The file or option at fault.
        problems: One entry per problem; a string stands for a problem without a place.
    """

    exit_code = 2

    def __init__(self, source: str, problems: Sequence[Problem | str] | str) -> None:
        entries = [problems] if isinstance(problems, str) else list(problems)
        self.source = source
        self.problems = tuple(Problem("", p) if isinstance(p, str) else p for p in entries)
        super().__init__(_format(source, self.problems))

    def text(self, rename: Callable[[str], str]) -> str:
        """Return the message with other names of the parameters, laid out anew."""
        renamed = [Problem(rename(p.where), rename(p.message)) for p in self.problems]
        return _format(rename(self.source), renamed)


class RecipeError(InvalidInputError):
    """A recipe, an override or a combination of fields is invalid."""


class DataError(InvalidInputError):
    """A data set, an annotation file or an image is missing or malformed."""


class UnreadableImageError(DataError):
    """The file of an image is missing or damaged."""


class AssignerError(InvalidInputError):
    """The file of an assigner is missing, broken or changed, or does not return what it must."""


class CheckpointError(InvalidInputError):
    """A checkpoint is missing, damaged, unsafe or belongs to another model."""


class TraceError(InvalidInputError):
    """A match trace is missing, damaged or belongs to something else."""


class RunDirectoryError(InvalidInputError):
    """A run directory cannot be used as asked."""


class StudyError(InvalidInputError):
    """A study is not valid, was changed since it began, or its folder holds something else."""


class UsageError(InvalidInputError):
    """A command-line option or an argument of a workflow is invalid."""


class DataWorkerError(MsdetrError):
    """A process that reads images died, or cannot hand over what it made."""


class DivergedError(MsdetrError):
    """Training produced a loss that is not finite."""

    exit_code = 3


class VerificationError(MsdetrError):
    """A result differs from its reference beyond the tolerance."""

    exit_code = 4


class FaultElsewhereError(MsdetrError):
    """Another process of the run failed or is gone; one that failed says more itself."""


class InterruptedRunError(MsdetrError):
    """Training stopped on a signal after saving its state.

    Args:
        signal_number: The signal that asked for the stop (2 or 15).
        message: What was saved and how to go on.
    """

    def __init__(self, signal_number: int, message: str) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


def _format(source: str, given: Sequence[Problem]) -> str:
    source = on_one_line(source)
    problems = [Problem(on_one_line(p.where), on_one_line(p.message)) for p in given]
    if len(problems) == 1:
        return ": ".join(part for part in (source, problems[0].where, problems[0].message) if part)
    width = max((len(p.where) for p in problems), default=0)
    lines = [f"  {p.where:<{width}}   {p.message}" if width else f"  {p.message}" for p in problems]
    return "\n".join([f"{source}: {len(problems)} problems", *lines])


def counted(number: int, noun: str) -> str:
    """Say how many there are, with the noun in its number: ``1 image``, ``2 boxes``.

    Args:
        number: How many.
        noun: One of them; its plural takes an s, or es after an x or s.
    """
    ending = "es" if noun.endswith(("x", "s")) else "s"
    return f"{number} {noun}{'' if number == 1 else ending}"


def first_line(error: BaseException) -> str:
    """Return the first line of what an error of a library says, or else its kind."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def on_one_line(text: str) -> str:
    """Escape what files may hold but a line must not: breaks, control and half characters."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
