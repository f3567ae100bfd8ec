"""The policy alone; ``test_loop_resume`` shows what it comes to in a training."""

from __future__ import annotations

import io
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from msdetr.engine.processes import Processes, create_accelerator
from msdetr.engine.recovery import Recovery
from msdetr.engine.reporting import TrainingReporter
from msdetr.engine.roll_call import LostProcessError, RollCall
from msdetr.engine.run_directory import RunDirectory
from msdetr.engine.run_state import RunState
from msdetr.engine.signals import StopRequest, StopSignalError
from msdetr.engine.step_report import BadMicroBatch, StepDivergedError
from msdetr.engine.task import MicroBatchPlace
from msdetr.errors import InterruptedRunError, MsdetrError

RUN = RunDirectory(Path("run"))
STATE = RunState(epoch=1, step=7, step_in_epoch=2)
DIVERGED = StepDivergedError(MicroBatchPlace(0, 1, 7, 0), [BadMicroBatch(0, [4], {"a": "nan"})])


class Kit:
    """A recovery over fakes, and what it did."""

    def __init__(self, *, save_fails: bool = False) -> None:
        self.saved: list[tuple[Path, dict[str, object]]] = []
        self.stop = StopRequest()
        self._said = io.StringIO()
        self._save_fails = save_fails
        processes = Processes(create_accelerator(device="cpu"))
        self.roll_call = RollCall(processes)
        self.recovery = Recovery(
            save=self._save,
            directory=RUN,
            reporter=TrainingReporter(
                epochs=3, steps_per_epoch=5, console=Console(file=self._said)
            ),
            processes=processes,
            roll_call=self.roll_call,
            stop=self.stop,
        )

    def _save(self, directory: Path, **more_info: object) -> None:
        if self._save_fails:
            raise MsdetrError(f"{directory}: No space left on device")
        self.saved.append((directory, more_info))

    @property
    def said(self) -> str:
        return self._said.getvalue()

    def undo(self, failure: BaseException | None = None) -> None:
        with self.recovery.undone_on_failure(STATE):
            if failure is not None:
                raise failure

    def evaluate(self, failure: BaseException | None = None) -> None:
        with self.recovery.evaluating(STATE):
            if failure is not None:
                raise failure


def test_work_that_succeeds_saves_and_says_nothing() -> None:
    kit = Kit()
    kit.undo()
    assert (kit.saved, kit.said) == ([], "")


def test_a_failure_saves_what_was_reached_and_says_so() -> None:
    kit = Kit()
    with pytest.raises(ValueError, match="bad image"):
        kit.undo(ValueError("bad image"))
    assert kit.saved == [(RUN.last, {})]
    assert kit.said == (
        f"the state after step 7 (epoch 2) is saved in {RUN.last}, from where a resumed run "
        "goes on\n"
    )


def test_a_failure_is_the_news_where_saving_fails_too() -> None:
    kit = Kit(save_fails=True)
    with pytest.raises(ValueError, match="bad image"):
        kit.undo(ValueError("bad image"))
    assert kit.said == f"{RUN.last}: No space left on device\n"


def test_a_divergence_is_left_to_its_own_place() -> None:
    kit = Kit()
    with pytest.raises(StepDivergedError):
        kit.undo(DIVERGED)
    assert (kit.saved, kit.said) == ([], "")
    kit.recovery.keep_divergence(DIVERGED)
    entry = {"index": 0, "image_ids": [4], "values": {"a": "nan"}}
    assert kit.saved == [(RUN.diverged, {"divergence": {"micro_batches": [entry]}})]
    assert f"msdetr replay {RUN.diverged}" in kit.said


def test_a_divergence_on_a_full_disk_says_that_it_is_not_kept() -> None:
    kit = Kit(save_fails=True)
    kit.recovery.keep_divergence(DIVERGED)
    assert kit.said == f"{RUN.diverged}: No space left on device\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("work", [Kit.undo, Kit.evaluate])
def test_a_stop_is_saved_once_and_explained(number: int, work: Callable[..., None]) -> None:
    kit = Kit()
    with pytest.raises(
        InterruptedRunError, match=r"after step 7 .* continue with `resume=True`"
    ) as e:
        work(kit, StopSignalError(number))
    assert kit.saved == [(RUN.last, {})]
    assert e.value.exit_code == 128 + number


@pytest.mark.parametrize("work", ["undone_on_failure", "evaluating"])
def test_an_error_that_takes_the_place_of_a_stop_is_a_stop(work: str) -> None:
    kit = Kit()

    def interrupt() -> None:
        with kit.stop, getattr(kit.recovery, work)(STATE):
            try:
                signal.raise_signal(signal.SIGTERM)
            except StopSignalError:
                raise SystemError("returned a result with an exception set") from None

    with pytest.raises(InterruptedRunError, match="stopped by SIGTERM after step 7 "):
        interrupt()
    assert kit.saved == [(RUN.last, {})]


def test_an_evaluation_does_not_begin_when_a_stop_was_asked_for() -> None:
    kit = Kit()
    kit.stop.number = signal.SIGTERM
    with pytest.raises(InterruptedRunError):
        kit.evaluate(AssertionError("the evaluation was begun"))
    assert kit.saved == [(RUN.last, {})]


def test_a_failed_evaluation_says_where_its_state_is() -> None:
    kit = Kit()
    with pytest.raises(ValueError, match="no boxes"):
        kit.evaluate(ValueError("no boxes"))
    assert kit.saved == [(RUN.last, {})]  # before it began, and not once more
    assert kit.said.startswith("the state after step 7 (epoch 2) is saved")


def test_a_stop_because_of_a_lost_process_names_the_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kit = Kit()
    monkeypatch.setattr(kit.roll_call, "find_lost", lambda: "process 1 of 2 is gone")
    with pytest.raises(LostProcessError, match=r"^process 1 of 2 is gone$"):
        kit.evaluate(StopSignalError(signal.SIGTERM))
    assert kit.said.startswith("the state after step 7 (epoch 2) is saved")
