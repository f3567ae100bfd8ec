"""The process that runs OpenVINO: started by :mod:`msdetr.export.openvino_process` as a script.

Threads of OpenVINO leave a process in a state in which, on processors with AMX, a signal that
Python handles ends it by SIGSEGV. So nothing but this script loads OpenVINO. It imports nothing of
this package, and so neither torch. A message is an object in JSON, followed by the bytes of as many
arrays as its ``arrays`` describe.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from numpy.typing import NDArray

PRECISION_HINT = "INFERENCE_PRECISION_HINT"
PRECISION_PATH = ["runtime_options", PRECISION_HINT]
METADATA_PATH = ["msdetr", "metadata"]

Arrays = Sequence[NDArray[Any]]
Message = dict[str, Any]


def send(connection: Connection, message: Message, arrays: Arrays = ()) -> None:
    """Send a message with arrays."""
    described = [[array.dtype.str, array.shape] for array in arrays]
    connection.send_bytes(json.dumps({**message, "arrays": described}).encode())
    for array in arrays:
        connection.send_bytes(array.tobytes())


def receive(connection: Connection) -> tuple[Message, list[NDArray[Any]]]:
    """Receive a message with its arrays, which may be written to.

    Raises:
        EOFError: Nobody sends any more.
    """
    message: Message = json.loads(connection.recv_bytes())
    arrays = []
    for dtype, shape in message.pop("arrays"):
        content = bytearray(connection.recv_bytes())
        arrays.append(np.ndarray(tuple(shape), dtype, content))
    return message, arrays


class Worker:
    """Does what it is told; OpenVINO is loaded with the first object."""

    def __init__(self) -> None:
        # Importing OpenVINO would tell its makers, by a process that outlives this one.
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
        import openvino  # noqa: PLC0415 - the messages alone, which the other side uses, need none

        self._openvino = openvino
        self._model: Any = None
        self._compiled: dict[str, Any] = {}
        self._threads = 1

    def convert(self, source: str, target: str, metadata: str) -> Message:
        """Turn an ONNX model into ``target`` with its weights beside it; names end as they must."""
        model = self._openvino.Core().read_model(source)
        model.set_rt_info("f32", PRECISION_PATH)
        model.set_rt_info(metadata, METADATA_PATH)
        self._openvino.save_model(model, target, compress_to_fp16=False)
        return {}

    def open(self, model: str, weights: str, threads: int) -> Message:
        """Read a model and say what it is; it is compiled when it first runs."""
        self._model = read = self._openvino.Core().read_model(model, weights)
        self._threads = threads
        shapes = {
            value.any_name: [None if side.is_dynamic else side.get_length() for side in shape]
            for value in read.inputs
            for shape in [value.partial_shape]
        }
        return {"metadata": self._told(METADATA_PATH), "inputs": shapes}

    def run(self, feeds: dict[str, NDArray[Any]]) -> Arrays:
        """Run the model; all outputs in its order."""
        return self._run("plain", feeds)

    def inspect(self, feeds: dict[str, NDArray[Any]], *, raw: bool) -> Arrays:
        """Run the model and return logits, boxes and, of a two-stage model, chosen cells."""
        if "tapped" not in self._compiled:
            tapped = self._model.clone()
            for value in _tap(tapped, raw=raw):
                tapped.add_outputs(value)
            self._compiled["tapped"] = self._compile(tapped)
        # Raw outputs are logits and boxes already.
        first = 0 if raw else len(self._model.outputs)
        return self._run("tapped", feeds)[first:]

    def precision(self) -> Message:
        """Say in which arithmetic the compiled model computes."""
        return {"precision": self._plain().get_property(PRECISION_HINT).to_string()}

    def cpu_time(self) -> Message:
        """Say how long this process has computed, in seconds of all threads together."""
        return {"seconds": time.process_time()}

    def _run(self, name: str, feeds: dict[str, NDArray[Any]]) -> Arrays:
        compiled = self._plain() if name == "plain" else self._compiled[name]
        return compiled(feeds).to_tuple()  # type: ignore[no-any-return]

    def _plain(self) -> Any:  # noqa: ANN401 - OpenVINO is not there to be named
        if "plain" not in self._compiled:
            self._compiled["plain"] = self._compile(self._model)
        return self._compiled["plain"]

    def _compile(self, model: Any) -> Any:  # noqa: ANN401
        options: dict[str, Any] = {"INFERENCE_NUM_THREADS": self._threads}
        hint = self._told(PRECISION_PATH)
        # OpenVINO would choose by the processor, and does not read the hint by itself.
        options[PRECISION_HINT] = "f32" if hint is None else hint
        return self._openvino.Core().compile_model(model, "CPU", options)

    def _told(self, path: list[str]) -> str | None:
        if not self._model.has_rt_info(path):
            return None
        text: str = self._model.get_rt_info(path).astype(str)
        return text


def _tap(model: Any, *, raw: bool) -> list[Any]:  # noqa: ANN401
    """Find the values, beside outputs, that are logits, boxes and, if two-stage, chosen cells."""
    choices = [node for node in model.get_ordered_ops() if node.get_type_name() == "TopK"]
    if raw:
        return [node.output(1) for node in choices]
    results = [result.input_value(0) for result in model.get_results()]
    logits, boxes = _sigmoid_above(results[0]).input_value(0), _sigmoid_above(results[-1]).output(0)
    # Detections are chosen last.
    return [logits, boxes, *(node.output(1) for node in choices[:-1])]


def _sigmoid_above(value: Any) -> Any:  # noqa: ANN401
    node = value.get_node()
    while node.get_type_name() != "Sigmoid":
        node = node.input_value(0).get_node()
    return node


def _answer(worker: Worker, request: Message, arrays: Arrays) -> tuple[Message, Arrays]:
    do, names = request.pop("do"), request.pop("names", [])
    if do in {"run", "inspect"}:
        feeds = dict(zip(names, arrays, strict=True))
        return {}, getattr(worker, do)(feeds, **request)
    return getattr(worker, do)(**request), ()


def serve(connection: Connection) -> None:
    """Answer requests until nobody sends any more; failures are answers, too."""
    worker: Worker | None = None
    while True:
        try:
            request, arrays = receive(connection)
        except EOFError:
            return
        try:
            worker = worker or Worker()
            answer, found = _answer(worker, request, arrays)
        except Exception as error:  # whatever it is, the other side tells the user
            answer, found = {"error": f"{type(error).__name__}: {error}"}, ()
        send(connection, answer, found)


def _end_with_the_parent() -> None:
    """Wait for the end of the input, which comes when whoever started this process has ended."""
    sys.stdin.buffer.read()
    os._exit(1)


def main(descriptor: int) -> None:
    """Serve on an open descriptor."""
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    serve(Connection(descriptor))


if __name__ == "__main__":
    main(int(sys.argv[1]))
