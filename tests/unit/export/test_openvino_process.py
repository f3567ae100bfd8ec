"""OpenVINO in a process of its own, with a model of one operator."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest

from msdetr.errors import MsdetrError
from msdetr.export.openvino_process import OpenVinoError, OpenVinoProcess

ROOT = Path(__file__).resolve().parents[3]

# A program that has the worker compute, and then waits for a worker that does not answer.
STUCK = """
import os, signal, sys
import numpy as np
from msdetr.export.openvino_process import OpenVinoProcess

signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
process = OpenVinoProcess("model")
model, weights, told = sys.argv[1:]
process.ask("open", model=model, weights=weights, threads=1)
process.ask("run", [np.ones((1, 2), np.float32)], names=["data"])
if told != "idle":
    os.kill(process.pid, signal.SIGSTOP)
print(process.pid, flush=True)
process.ask("precision") if told != "idle" else signal.pause()
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that doubles its input, converted; ``model.bin`` stands beside it."""
    folder = tmp_path_factory.mktemp("model")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node("Add", ["data", "data"], ["doubled"])],
        "double",
        [helper.make_tensor_value_info("data", kind, ["rows", 2])],
        [helper.make_tensor_value_info("doubled", kind, ["rows", 2])],
    )
    opset = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), folder / "model.onnx")
    process = OpenVinoProcess("model.xml")
    source, target = str(folder / "model.onnx"), str(folder / "model.xml")
    process.ask("convert", source=source, target=target, metadata='{"from": "a test"}')
    process.close()
    return folder / "model.xml"


@pytest.fixture
def process(model: Path) -> Iterator[OpenVinoProcess]:
    opened = OpenVinoProcess("model.xml")
    opened.ask("open", model=str(model), weights=str(model.with_suffix(".bin")), threads=1)
    yield opened
    opened.close()


def is_there(pid: int) -> bool:
    """Tell whether a process runs; one that has ended but not been collected does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


def session_of(pid: int) -> set[int]:
    """Find the processes of a session."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[3]) == pid:
            found.add(int(stat.parent.name))
    return found


def test_model_is_told_and_run(model: Path, process: OpenVinoProcess) -> None:
    told, _ = process.ask(
        "open", model=str(model), weights=str(model.with_suffix(".bin")), threads=1
    )
    assert told["inputs"] == {"data": [None, 2]}
    assert told["metadata"] == '{"from": "a test"}'
    for rows in (1, 3):
        values = np.arange(2 * rows, dtype=np.float32).reshape(rows, 2)
        _, (doubled,) = process.ask("run", [values], names=["data"])
        np.testing.assert_array_equal(doubled, 2 * values)
    assert process.ask("precision")[0] == {"precision": "f32"}


def test_openvino_stays_out_of_this_process(process: OpenVinoProcess) -> None:
    process.ask("run", [np.ones((1, 2), np.float32)], names=["data"])
    assert "openvino" not in sys.modules
    # Telemetry would be another.
    assert session_of(process.pid) == {process.pid}
    maps = Path(f"/proc/{process.pid}/maps").read_text()
    assert "openvino" in maps
    assert "libtorch" not in maps


def test_nothing_but_the_worker_imports_it() -> None:
    imports = re.compile(r"^\s*(import|from) openvino\b", re.MULTILINE)
    found = [
        str(path.relative_to(ROOT))
        for folder in ("msdetr", "cli", "benchmarks", "tests")
        for path in (ROOT / folder).rglob("*.py")
        if imports.search(path.read_text(encoding="utf-8"))
    ]
    assert found == ["msdetr/export/openvino_worker.py"]


def test_what_openvino_cannot_do_is_said(process: OpenVinoProcess) -> None:
    with pytest.raises(OpenVinoError, match=r"^model\.xml: OpenVINO: RuntimeError: ") as caught:
        process.ask("open", model="/nothing.xml", weights="/nothing.bin", threads=1)
    assert "\n" not in str(caught.value)
    # And it goes on.
    assert process.ask("precision")[0] == {"precision": "f32"}


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL, signal.SIGTERM])
def test_lost_process_is_named(number: signal.Signals, process: OpenVinoProcess) -> None:
    os.kill(process.pid, number)
    reason = rf"^model\.xml: the process that runs OpenVINO was ended by {number.name}$"
    with pytest.raises(MsdetrError, match=reason):
        process.ask("precision")


def test_process_ends_with_its_object(process: OpenVinoProcess) -> None:
    pid = process.pid
    process.close()
    assert not is_there(pid)


def run_stuck(model: Path, told: str) -> tuple[subprocess.Popen[str], int]:
    command = [sys.executable, "-c", STUCK, model, model.with_suffix(".bin"), told]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    return parent, int(parent.stdout.readline())


def test_signal_ends_both_also_while_openvino_computes(model: Path) -> None:
    parent, pid = run_stuck(model, "busy")
    parent.send_signal(signal.SIGTERM)
    assert parent.wait(60) == 128 + signal.SIGTERM
    assert wait_for(lambda: not is_there(pid))


def test_process_ends_when_its_parent_is_killed(model: Path) -> None:
    parent, pid = run_stuck(model, "idle")
    assert is_there(pid)
    parent.kill()
    parent.wait()
    assert wait_for(lambda: not is_there(pid))
