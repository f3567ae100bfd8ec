"""Batches made in worker processes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch.utils.data import DataLoader, Dataset

from msdetr.data.batching import Batch, Collator
from msdetr.data.sample import Sample
from msdetr.data.sampling import Key
from msdetr.data.worker_faults import WorkerReasons, leaving_child_signal
from msdetr.errors import DataError, Problem


@dataclass(frozen=True)
class _Failure:
    """A DataError passed out of a worker as a value: torch would turn an exception into text."""

    source: str
    problems: tuple[Problem, ...]


class _SafeDataset(Dataset["Sample | _Failure"]):
    def __init__(self, dataset: Dataset[Sample]) -> None:
        self.dataset = dataset

    def __getitem__(self, key: Key) -> Sample | _Failure:
        try:
            return self.dataset[key]
        except DataError as error:
            return _Failure(error.source, error.problems)


@dataclass(frozen=True)
class _SafeCollator:
    collator: Collator

    def __call__(self, samples: Sequence[Sample | _Failure]) -> Batch | _Failure:
        failure = next((entry for entry in samples if isinstance(entry, _Failure)), None)
        return failure or self.collator([s for s in samples if isinstance(s, Sample)])


class BatchLoader:
    """Decodes, transforms and batches images, in worker processes if there are any.

    Workers live until the loader is dropped, over all epochs. Nothing is drawn from the global
    random generator.

    Args:
        dataset: Samples by (epoch, position).
        collator: Makes batches.
        num_workers: Worker processes; 0 works in the calling process.
        pin_memory: Put batches in page-locked memory, for asynchronous copies to a GPU.
    """

    def __init__(
        self,
        dataset: Dataset[Sample],
        collator: Collator,
        *,
        num_workers: int,
        pin_memory: bool = False,
    ) -> None:
        self._batches: list[list[Key]] = []
        self._reasons = WorkerReasons() if num_workers else None
        self._loader: DataLoader[Sample | _Failure] = DataLoader(
            _SafeDataset(dataset),
            batch_sampler=self._batches,
            collate_fn=_SafeCollator(collator),
            num_workers=num_workers,
            pin_memory=pin_memory,
            persistent_workers=num_workers > 0,
            worker_init_fn=None if self._reasons is None else self._reasons.start,
            generator=torch.Generator(),
        )

    def load(self, batches: Iterable[Sequence[Key]]) -> Iterator[Batch]:
        """Yield the batches made of the given keys, in order.

        Args:
            batches: For each batch the (epoch, position) of its images.

        Raises:
            DataError: If an image cannot be used.
            DataWorkerError: If workers lack shared memory or file descriptors.
        """
        self._batches[:] = [list(batch) for batch in batches]
        with nullcontext() if self._reasons is None else self._reasons.explaining():
            with leaving_child_signal():
                made = iter(self._loader)
            for batch in made:
                if isinstance(batch, _Failure):
                    raise DataError(batch.source, batch.problems)
                yield batch
