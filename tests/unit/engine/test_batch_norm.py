"""Statistics of batch norm over micro-batches and processes."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from msdetr.engine.batch_norm import RunningStatistics
from msdetr.engine.processes import Processes


class OneProcess:
    process_index = 0
    num_processes = 1


def follow(model: nn.Module) -> RunningStatistics:
    return RunningStatistics(model, Processes(cast("Accelerator", OneProcess())))


def statistics_of(model: nn.Module) -> dict[str, list[Any]]:
    return {name: buffer.tolist() for name, buffer in model.named_buffers()}


@pytest.fixture
def micro_batches() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(size, 3, generator=generator) * size for size in (4, 8, 5)]


def test_a_step_moves_them_once_by_the_mean(micro_batches: list[Tensor]) -> None:
    norm = nn.BatchNorm1d(3, momentum=0.25)
    norm.running_mean = torch.tensor([1.0, 2.0, 3.0])
    expected_mean = 0.75 * norm.running_mean + 0.25 * torch.stack(
        [batch.mean(0) for batch in micro_batches]
    ).mean(0)
    expected_var = 0.75 + 0.25 * torch.stack([batch.var(0) for batch in micro_batches]).mean(0)
    statistics = follow(norm)
    statistics.begin_step()
    for batch in micro_batches:
        norm(batch)
        statistics.take_micro_batch()
    statistics.share(len(micro_batches))
    statistics.finish_step()
    torch.testing.assert_close(norm.running_mean, expected_mean)
    torch.testing.assert_close(norm.running_var, expected_var)
    assert norm.num_batches_tracked is not None
    assert norm.num_batches_tracked.item() == 1


def test_a_discarded_step_leaves_no_trace(micro_batches: list[Tensor]) -> None:
    norm = nn.BatchNorm1d(3)
    before = statistics_of(norm)
    statistics = follow(norm)
    statistics.begin_step()
    norm(micro_batches[0])
    statistics.take_micro_batch()
    norm(micro_batches[1])
    assert statistics_of(norm) != before
    statistics.restore()
    assert statistics_of(norm) == before


def test_frozen_statistics_and_other_norms_are_left_alone(micro_batches: list[Tensor]) -> None:
    model = nn.Sequential(nn.BatchNorm1d(3).eval(), nn.LayerNorm(3))
    before = statistics_of(model)
    statistics = follow(model)
    statistics.begin_step()
    model(micro_batches[0])
    statistics.take_micro_batch()
    statistics.share(1)
    statistics.finish_step()
    assert statistics_of(model) == before
