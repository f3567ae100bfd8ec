from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from msdetr.ops import NativeBuildError, backend_report, native

# A compiler that is quick: it appends to a log and writes something to its output.
FAKE_COMPILER = """#!/bin/sh
if [ "$1" = --version ]; then echo "fake 1.0"; exit 0; fi
echo run >> "{log}"
{before}
while [ "$1" != -o ]; do shift; done
echo compiled > "$2"
{after}
"""


@pytest.fixture
def compiler_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MSDETR_CACHE", str(tmp_path / "cache"))
    native.version_of.cache_clear()
    log = tmp_path / "log"
    log.touch()
    return log


def use_fake_compiler(
    log: Path, monkeypatch: pytest.MonkeyPatch, *, before: str = "", after: str = ""
) -> None:
    path = log.with_name("fake-compiler")
    path.write_text(FAKE_COMPILER.format(log=log, before=before, after=after))
    path.chmod(0o755)
    monkeypatch.setenv("CXX", str(path))


def runs(log: Path) -> int:
    return len(log.read_text().splitlines())


def test_builds_once_and_again_when_forced(
    compiler_log: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use_fake_compiler(compiler_log, monkeypatch)
    library = native.build()
    assert library.read_text() == "compiled\n"
    assert library.is_relative_to(compiler_log.parent / "cache")
    assert "compiling the cpu kernels (once) ... done in" in capsys.readouterr().err
    compile_and_link = runs(compiler_log)
    assert native.build() == library
    assert runs(compiler_log) == compile_and_link
    assert native.build(force=True) == library
    assert runs(compiler_log) == 2 * compile_and_link


def test_place_in_the_cache_follows_from_what_the_code_depends_on(
    compiler_log: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use_fake_compiler(compiler_log, monkeypatch)
    usual = native.plan_build("cpu").library
    assert native.plan_build("cpu").library == usual
    assert native.plan_build("cpu", strict=True).library != usual

    with monkeypatch.context() as patch:
        patch.setattr(native.torch, "__version__", "99.0")
        assert native.plan_build("cpu").library != usual
    with monkeypatch.context() as patch:
        patch.setattr(native, "_processor", lambda: "another")
        assert native.plan_build("cpu").library != usual

    changed = tmp_path / "sources"
    shutil.copytree(native.plan_build("cpu").source.parent, changed)
    monkeypatch.setattr(native, "_source_folder", lambda: changed)
    assert native.plan_build("cpu").library == usual
    (changed / "cuda.cu").write_text("// only the CUDA library depends on this\n")
    assert native.plan_build("cpu").library == usual
    (changed / "sample.h").write_text("// changed\n")
    assert native.plan_build("cpu").library != usual


def test_an_interrupted_build_leaves_nothing_that_is_trusted(
    compiler_log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_fake_compiler(compiler_log, monkeypatch, after="kill -9 $PPID")
    command = [sys.executable, "-c", "from msdetr.ops import build; build()"]
    killed = subprocess.run(command, check=False, capture_output=True)
    assert killed.returncode == -signal.SIGKILL
    library = native.plan_build("cpu").library
    assert (library.parent / "building").is_dir()
    assert not library.exists()
    use_fake_compiler(compiler_log, monkeypatch)
    assert native.build().read_text() == "compiled\n"
    assert not (library.parent / "building").exists()


def test_concurrent_processes_wait_for_one_builder(
    compiler_log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_fake_compiler(compiler_log, monkeypatch, before="sleep 1")
    command = [sys.executable, "-c", "from msdetr.ops import build; print(build())"]
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=60) for process in processes]
    assert outputs[0][0] == outputs[1][0] != ""
    assert runs(compiler_log) == 2  # one compiled and linked
    assert sum("compiling" in err for _, err in outputs) == 1


@pytest.mark.parametrize(
    "damage",
    [
        lambda library: library.write_bytes(library.read_bytes()[:-1]),  # cut short
        lambda library: library.write_bytes(b"C" + library.read_bytes()[1:]),  # of the same size
        lambda library: library.write_bytes(b""),
        lambda library: library.unlink(),
        lambda library: library.with_name("SHA256SUMS").unlink(),  # of an earlier release
        lambda library: library.with_name("SHA256SUMS").write_bytes(b"\xff"),
    ],
)
def test_what_is_not_as_it_was_compiled_is_built_again(
    compiler_log: Path, monkeypatch: pytest.MonkeyPatch, damage: Callable[[Path], object]
) -> None:
    use_fake_compiler(compiler_log, monkeypatch)
    library = native.build()
    compile_and_link = runs(compiler_log)
    damage(library)
    assert not backend_report()[0].built
    assert native.build().read_text() == "compiled\n"
    assert runs(compiler_log) == 2 * compile_and_link
    assert native.plan_build("cpu").is_built
    assert sorted(entry.name for entry in library.parent.iterdir()) == [
        "SHA256SUMS",
        "lock",
        library.name,
    ]


def test_a_library_is_flushed_before_it_has_its_name(
    compiler_log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_fake_compiler(compiler_log, monkeypatch)
    flushed: list[str] = []
    flush = os.fsync

    def flushing(descriptor: int) -> None:
        flushed.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", flushing)
    library = native.build()
    assert flushed[:1] == [f"{library.name}.new"]
    assert "SHA256SUMS.new" in flushed


def test_compiler_errors_are_shown(compiler_log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_fake_compiler(compiler_log, monkeypatch, before="echo 'no such vector'; exit 3")
    with pytest.raises(NativeBuildError, match=r"(?s)failed \(exit 3\):.*no such vector"):
        native.build()
    assert not native.plan_build("cpu").library.exists()


def test_cache_that_cannot_be_written(
    compiler_log: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use_fake_compiler(compiler_log, monkeypatch)
    (tmp_path / "file").touch()
    monkeypatch.setenv("MSDETR_CACHE", str(tmp_path / "file"))
    with pytest.raises(NativeBuildError, match=r"cannot build in .*file"):
        native.build()


def test_a_damaged_library_is_reported(compiler_log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_fake_compiler(compiler_log, monkeypatch)
    native.load.cache_clear()
    with pytest.raises(NativeBuildError, match=r"cannot load .*doctor --build"):
        native.load("cpu")


def test_without_a_compiler_auto_goes_on_with_one_line(tmp_path: Path) -> None:
    program = (
        "import torch\n"
        "from msdetr.ops import ms_deform_attn\n"
        "inputs = torch.rand(1, 4, 1, 8), [(2, 2)], torch.rand(1, 3, 1, 1, 2, 2)\n"
        "for _ in range(2):\n"
        "    print(ms_deform_attn(*inputs, torch.rand(1, 3, 1, 1, 2)).shape)\n"
    )
    environment = {**os.environ, "PATH": str(tmp_path), "MSDETR_CACHE": str(tmp_path / "cache")}
    environment.pop("CXX", None)
    result = subprocess.run(
        [sys.executable, "-c", program],
        check=True,
        capture_output=True,
        text=True,
        env=environment,
    )
    assert result.stdout == "torch.Size([1, 3, 8])\n" * 2
    assert result.stderr.splitlines() == [
        "deformable attention on cpu is slow: no C++ compiler (g++, clang++, c++) on PATH; "
        "install g++ or set CXX"
    ]


def test_report_names_library_and_problem(
    compiler_log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_fake_compiler(compiler_log, monkeypatch)
    before = backend_report()[0]
    assert (before.device_type, before.built, before.compiler) == ("cpu", False, "fake 1.0")
    library = native.build()
    after = backend_report()[0]
    assert (after.built, after.library, after.problem) == (True, str(library), "")
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert "no C++ compiler (no-such-compiler)" in backend_report()[0].problem


@pytest.mark.slow
def test_cpu_sources_compile_without_warnings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MSDETR_CACHE", str(tmp_path))
    assert native.build("cpu", strict=True).exists()


def why_cuda_cannot_be_compiled() -> str:
    try:
        native.find_nvcc()
    except NativeBuildError as error:
        return str(error)
    return ""


# Where nvcc is found, .ci/run fails if this is skipped.
@pytest.mark.slow
@pytest.mark.skipif(why_cuda_cannot_be_compiled() != "", reason=why_cuda_cannot_be_compiled())
def test_cuda_sources_compile_without_warnings_and_register(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MSDETR_CACHE", str(tmp_path))
    library = native.build("cuda", strict=True, architectures=("80", "90"))
    program = (
        "import ctypes, sys, torch, msdetr.ops\n"
        "ctypes.CDLL(sys.argv[1])\n"
        "for name in ('msdetr::ms_deform_attn', 'msdetr::ms_deform_attn_backward'):\n"
        "    assert torch._C._dispatch_has_kernel_for_dispatch_key(name, 'CUDA'), name\n"
    )
    subprocess.run([sys.executable, "-c", program, str(library)], check=True)
