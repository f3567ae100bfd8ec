"""The block for bug reports, the self-test's verdict, and the forced build."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from msdetr.api import doctor as workflow
from msdetr.ops import SelfTest, native

Msdetr = Callable[..., Any]

# A compiler that has the library ready and hands it out as the result of linking.
READY_COMPILER = """#!/bin/sh
if [ "$1" = --version ]; then echo "ready 1.0"; exit 0; fi
while [ "$1" != -o ]; do shift; done
cp "{library}" "$2"
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home folder with a compiler that takes no time; no cache is named."""
    compiler = tmp_path / "bin/ready"
    compiler.parent.mkdir()
    compiler.write_text(READY_COMPILER.format(library=native.build("cpu")))
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("MSDETR_CACHE", "XDG_CACHE_HOME", "TORCH_HOME"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def run_process(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "msdetr.cli", "doctor", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)


def test_block_names_versions_backends_and_caches(msdetr: Msdetr, shapes_root: Path) -> None:
    done = msdetr("doctor")
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert (lines[0], lines[-1]) == ("```text", "```")
    assert f"  torch          {torch.__version__}" in lines
    assert platform.python_version() in done.out
    for name in ("torchvision", "accelerate", "pycocotools", "c++", "nvcc", "os ", "cpu "):
        assert f"\n  {name}" in done.out
    assert "auto is native" in done.out
    assert str(native.plan_build("cpu").library) in done.out
    assert str(shapes_root) in done.out
    assert "self-test passed" in lines


def test_json_holds_the_same(msdetr: Msdetr) -> None:
    done = msdetr("doctor", "--json")
    assert done.code == 0

    def refuse(constant: str) -> None:
        pytest.fail(f"{constant} is not JSON")

    content = json.loads(done.out, parse_constant=refuse)
    assert content["passed"]
    assert content["versions"]["torch"] == torch.__version__
    cpu = next(entry for entry in content["backends"] if entry["device_type"] == "cpu")
    assert (cpu["auto"], cpu["built"], cpu["problem"]) == ("native", True, "")
    assert {test["backend"] for test in content["self_test"]} == {"native", "reference", "gather"}
    assert all(test["passed"] for test in content["self_test"])


def test_a_failed_self_test_is_exit_code_1(msdetr: Msdetr, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = SelfTest("native", "cpu", "float32", 0.5, 1e-7, 1e-5)
    monkeypatch.setattr(workflow, "run_self_test", lambda: [wrong])
    done = msdetr("doctor")
    assert done.code == 1
    assert "FAILED" in done.out
    assert "self-test FAILED" in done.out
    assert not json.loads(msdetr("doctor", "--json").out)["passed"]


def test_a_compiler_that_fails_is_named_and_exit_code_1(
    msdetr: Msdetr, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = SelfTest("native", "cpu", problem="g++ failed (exit 1):\nno such header")
    right = SelfTest("reference", "cpu", "float32", 1e-7, 1e-7, 1e-5)
    monkeypatch.setattr(workflow, "run_self_test", lambda: [broken, right])
    done = msdetr("doctor")
    assert done.code == 1
    (line,) = [line for line in done.out.splitlines() if line.startswith("  cpu   auto is")]
    assert "auto is reference" in line
    assert "no native kernels: g++ failed (exit 1):" in line
    (line,) = [line for line in done.out.splitlines() if line.startswith("  native  ")]
    assert "FAILED: g++ failed (exit 1):" in line


def test_without_a_compiler_it_says_why_and_passes(
    msdetr: Msdetr, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    done = msdetr("doctor")
    assert done.code == 0
    (line,) = [line for line in done.out.splitlines() if line.startswith("  cpu   auto is")]
    assert "auto is reference" in line
    assert "no C++ compiler (no-such-compiler) on PATH; install g++ or set CXX" in line
    done = msdetr("doctor", "--build")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("error: no C++ compiler (no-such-compiler) on PATH")
    assert len(done.err.splitlines()) == 1


def test_build_is_forced_shown_and_timed_and_the_home_folder_is_not_shown(home: Path) -> None:
    usual = run_process()
    assert usual.returncode == 0, usual.stderr
    (library,) = home.glob(".cache/msdetr/cpu-*/ms_deform_attn_cpu.so")
    before = library.stat().st_mtime_ns
    forced = run_process("--build", "--json")
    assert forced.returncode == 0, forced.stderr
    assert library.stat().st_mtime_ns > before
    first, second, *_ = forced.stderr.splitlines()
    assert first.startswith("msdetr: compiling the cpu kernels (once) ... done in")
    assert second.startswith("built for cpu in ")
    for done in (usual, forced):
        assert "~/.cache/msdetr/cpu-" in done.stdout
        assert "~/.cache/torch/hub/checkpoints" in done.stdout
        assert str(home) not in done.stdout
