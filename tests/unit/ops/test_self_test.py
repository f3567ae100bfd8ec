from __future__ import annotations

from collections.abc import Callable

import pytest
from torch import Tensor

from msdetr.ops import NativeBuildError, SelfTest, native, run_self_test, self_test
from msdetr.ops.dispatch import ms_deform_attn


def on_cpu() -> list[SelfTest]:
    return [test for test in run_self_test() if test.device == "cpu"]


def test_every_backend_is_tested_and_right() -> None:
    tests = on_cpu()
    assert {(test.backend, test.dtype) for test in tests} == {
        (backend, dtype)
        for backend in ("native", "reference", "gather")
        for dtype in ("float32", "float64", "bfloat16")
    }
    assert all(test.passed for test in tests)
    by_precision = {test.dtype: test for test in tests if test.backend == "native"}
    for dtype in ("float32", "bfloat16"):
        # A test that computed nothing, or compared a backend with itself, would see no rounding.
        assert by_precision[dtype].forward > 1e-9
        assert by_precision[dtype].backward > 1e-9


@pytest.mark.parametrize(
    ("spoil", "forward_fails", "backward_fails"),
    [
        (lambda output: output * 1.05, True, True),
        (lambda output: output.detach() + 1.05 * (output - output.detach()), False, True),
        (lambda output: output * float("nan"), True, True),
    ],
    ids=["scaled", "scaled gradient", "nan"],
)
def test_a_backend_that_computes_wrong_fails(
    spoil: Callable[[Tensor], Tensor],
    forward_fails: bool,
    backward_fails: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def wrong(*args: object, backend: str) -> Tensor:
        output = ms_deform_attn(*args, backend=backend)  # type: ignore[arg-type]
        return spoil(output) if backend == "native" else output

    monkeypatch.setattr(self_test, "ms_deform_attn", wrong)
    tests = on_cpu()
    assert {test.backend for test in tests if not test.passed} == {"native"}
    for test in (test for test in tests if test.backend == "native"):
        assert not test.passed
        assert (test.forward <= test.tolerance) != forward_fails
        assert (test.backward <= test.tolerance) != backward_fails


def test_a_backend_that_raises_fails_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object, backend: str) -> Tensor:
        if backend == "gather":
            raise RuntimeError("no kernel image\nand more")
        return ms_deform_attn(*args, backend=backend)  # type: ignore[arg-type]

    monkeypatch.setattr(self_test, "ms_deform_attn", broken)
    failed = [test for test in on_cpu() if not test.passed]
    assert {test.backend for test in failed} == {"gather"}
    assert {test.problem for test in failed} == {"no kernel image"}


def test_without_a_compiler_the_other_backends_are_tested(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    first, *others = on_cpu()
    assert (first.backend, first.usable, first.passed) == ("native", False, True)
    assert "no-such-compiler" in first.problem
    assert {test.backend for test in others} == {"reference", "gather"}
    assert all(test.passed for test in others)


def test_a_compiler_that_fails_is_a_failed_test(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(device_type: str) -> None:
        raise NativeBuildError(f"g++ failed for {device_type}")

    monkeypatch.setattr(native, "load", fail)
    first, *others = on_cpu()
    assert (first.backend, first.usable, first.passed) == ("native", True, False)
    assert first.problem == "g++ failed for cpu"
    assert {test.backend for test in others} == {"reference", "gather"}
