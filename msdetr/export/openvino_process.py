"""OpenVINO in a process of its own, fed through a pipe."""

from __future__ import annotations

import signal
import subprocess
import sys
import weakref
from collections.abc import Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

from numpy.typing import NDArray

from msdetr.errors import MsdetrError
from msdetr.export import openvino_worker
from msdetr.export.openvino_worker import Message, receive, send

# Time to end by itself once nobody sends any more.
_PATIENCE_S = 2.0


class OpenVinoError(MsdetrError):
    """OpenVINO could not do what it was asked for.

    Args:
        name: What it worked on.
        reason: What it says.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: OpenVINO: {reason}")
        self.reason = reason


class OpenVinoProcess:
    """A process that does one thing after the other with OpenVINO.

    It ends with this object, or with the process that made it, however that ends. Signals of the
    terminal do not reach it.

    Args:
        name: What it works on, for messages.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        ours, theirs = Pipe()
        # Without this package's folder on the path, whose names are those of other modules.
        command = [sys.executable, "-P", openvino_worker.__file__, str(theirs.fileno())]
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        finally:
            theirs.close()
        self._connection = ours
        self._end = weakref.finalize(self, _end, self._process, ours)

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._process.pid

    def ask(
        self, do: str, arrays: Sequence[NDArray[Any]] = (), **request: object
    ) -> tuple[Message, list[NDArray[Any]]]:
        """Have something done by a method of ``openvino_worker.Worker``.

        Args:
            do: Name of the method.
            arrays: Inputs, in the order of ``names``.
            **request: Further arguments, as JSON values.

        Raises:
            OpenVinoError: OpenVINO could not do it.
            MsdetrError: The process has ended.
        """
        try:
            send(self._connection, {"do": do, **request}, arrays)
            answer, found = receive(self._connection)
        except (EOFError, ConnectionError) as error:
            raise MsdetrError(f"{self._name}: {self._how_it_ended()}") from error
        if "error" in answer:
            raise OpenVinoError(self._name, " ".join(str(answer["error"]).split()))
        return answer, found

    def close(self) -> None:
        """End the process."""
        self._end()

    def _how_it_ended(self) -> str:
        try:
            code = self._process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            return "the process that runs OpenVINO does not answer"
        how = f"with exit code {code}" if code >= 0 else f"by {signal.Signals(-code).name}"
        return f"the process that runs OpenVINO was ended {how}"


def _end(process: subprocess.Popen[bytes], connection: Connection) -> None:
    connection.close()
    assert process.stdin is not None
    process.stdin.close()
    try:
        process.wait(_PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
