"""What a run saves, says and raises when it is stopped, fails or diverges."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

from msdetr.engine.failures import explain_failure, explain_stop
from msdetr.engine.processes import Processes
from msdetr.engine.reporting import TrainingReporter
from msdetr.engine.roll_call import LostProcessError, RollCall
from msdetr.engine.run_directory import RunDirectory
from msdetr.engine.run_state import RunState
from msdetr.engine.signals import StopRequest, StopSignalError
from msdetr.engine.step_report import StepDivergedError
from msdetr.errors import InterruptedRunError, MsdetrError


class Save(Protocol):
    """Writes a checkpoint of the present state."""

    def __call__(self, directory: Path, **more_info: object) -> None:
        """Write it to the directory, with further JSON values."""
        ...


class Recovery:
    """The run's policy for failures: nothing that was reached is lost, and one line says why.

    Args:
        save: Saves the run.
        directory: Where to.
        reporter: Says what was saved.
        processes: The processes of the run.
        roll_call: Tells which of them is gone.
        stop: What asks for the run's stop.
    """

    def __init__(
        self,
        *,
        save: Save,
        directory: RunDirectory,
        reporter: TrainingReporter,
        processes: Processes,
        roll_call: RollCall,
        stop: StopRequest,
    ) -> None:
        self._save = save
        self._directory = directory
        self._reporter = reporter
        self._processes = processes
        self._roll_call = roll_call
        self._stop = stop

    @contextmanager
    def undone_on_failure(self, state: RunState) -> Iterator[None]:
        """Guard work that leaves weights and state alone; what was reached is saved if it fails.

        Args:
            state: What was reached.

        Raises:
            InterruptedRunError: A signal stopped the work.
            StepDivergedError: As raised by the work; nothing is saved.
            Exception: Any other failure of the work, in one line where its cause is known.
        """
        # One of several processes must not leave while the others wait for it.
        is_alone = self._processes.num_processes == 1
        try:
            with self._at_once() if is_alone else nullcontext():
                yield
        except StopSignalError as stop:
            raise self._save_and_stop(stop, state) from stop
        except StepDivergedError:
            raise
        except Exception as error:
            self._save_after_failure(state)
            raise explain_failure(error, self._roll_call) from error

    @contextmanager
    def evaluating(self, state: RunState) -> Iterator[None]:
        """Guard an evaluation, which may take long: a run stopped in it goes on with it.

        Args:
            state: What was reached; saved before.

        Raises:
            InterruptedRunError: A signal stopped the evaluation, on any process.
            LostProcessError: Another process is gone.
            Exception: Any other failure of it, in one line where its cause is known.
        """
        self._save(self._directory.last)
        try:
            asked = max(self._processes.gather(self._stop.number or 0))
            if asked:
                raise StopSignalError(asked)
            with self._at_once():
                yield
        except StopSignalError as stop:
            # A launcher that lost a process tells the others to stop.
            lost = self._roll_call.find_lost()
            if lost:
                self._say_saved(state)
                raise LostProcessError(lost) from stop
            raise explain_stop(stop.number, state, self._directory.last) from stop
        except Exception as error:
            self._say_saved(state)
            raise explain_failure(error, self._roll_call) from error

    def keep_divergence(self, error: StepDivergedError) -> None:
        """Keep the state before a diverged step, so that the step can be repeated.

        Args:
            error: What diverged.
        """
        micro_batches = [asdict(entry) for entry in error.micro_batches]
        place = self._directory.diverged
        try:
            self._save(place, divergence={"micro_batches": micro_batches})
        except MsdetrError as failure:  # the divergence is the news, not the full disk
            self._reporter.say(str(failure))
        else:
            self._reporter.say(
                f"the state before the diverged step is kept in {place}; to see where it stops "
                f"being finite: msdetr replay {place}"
            )

    @contextmanager
    def _at_once(self) -> Iterator[None]:
        """Leave the ``with`` block as soon as a signal comes, whatever the block makes of it."""
        try:
            with self._stop.immediate():
                yield
        except Exception:
            # Compiled code that is interrupted may raise an error of its own instead.
            self._stop.raise_if_noted()
            raise

    def _save_and_stop(self, stop: StopSignalError, state: RunState) -> InterruptedRunError:
        self._save(self._directory.last)
        # A launcher ends all processes as soon as the first has left.
        self._processes.wait()
        return explain_stop(stop.number, state, self._directory.last)

    def _save_after_failure(self, state: RunState) -> None:
        try:
            self._save(self._directory.last)
        except Exception as failure:  # the first failure is the news, not what follows from it
            self._reporter.say(str(failure))
        else:
            self._say_saved(state)

    def _say_saved(self, state: RunState) -> None:
        self._reporter.say(
            f"the state after step {state.step} (epoch {state.epoch + 1}) is saved in "
            f"{self._directory.last}, from where a resumed run goes on"
        )
