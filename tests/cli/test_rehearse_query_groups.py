"""`--dry-run` and `--overfit` of models with query groups beside the primary one."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from msdetr.api import dry_run
from msdetr.data.batching import Batch, count_cells

Train = Callable[..., Any]


@pytest.fixture
def rehearse(msdetr: Train, tiny: list[str], shapes_root: Path, tmp_path: Path) -> Train:
    """Train a packaged variant of the tiny model with options."""
    assert shapes_root.is_dir()

    def run(variant: str, *options: str) -> Any:
        command = ("train", f"shapes_tiny_{variant}", "--output", tmp_path / "run")
        return msdetr(*command, "--device", "cpu", *tiny, *options)

    return run


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[Batch]:
    """Batches that a dry run measures."""
    batches: list[Batch] = []
    measure = dry_run._measure

    def note(session: Any, model: Any, batch: Batch) -> Any:
        batches.append(batch)
        return measure(session, model, batch)

    monkeypatch.setattr(dry_run, "_measure", note)
    return batches


def most_targets(shapes_root: Path) -> int:
    content = json.loads((shapes_root / "annotations/instances_train2017.json").read_text())
    return max(Counter(entry["image_id"] for entry in content["annotations"]).values())


@pytest.mark.parametrize("variant", ["ms_hybrid", "ms_group", "cdn"])
def test_dry_run(variant: str, rehearse: Train) -> None:
    done = rehearse(variant, "--dry-run")
    assert (done.code, len(done.out.splitlines())) == (0, 3), done.err


def test_dry_run_makes_as_many_denoising_queries_as_the_data_can_ask_for(
    rehearse: Train, measured: list[Batch], shapes_root: Path
) -> None:
    assert rehearse("dn", "--dry-run", "--set", "model.query_groups.denoising.groups=3").code == 0
    rows = []
    for batch in measured:
        assert batch.noised is not None
        rows.append(batch.noised.labels.shape[1])
    assert rows == [3 * most_targets(shapes_root)] * len(measured)


def test_dry_run_without_denoising_has_as_many_targets_as_a_mean_image(
    rehearse: Train, measured: list[Batch], shapes_root: Path
) -> None:
    assert rehearse("hybrid", "--dry-run").code == 0
    assert {batch.noised for batch in measured} == {None}
    assert measured[0].targets.counts.max() < most_targets(shapes_root)


def test_dry_run_measures_images_with_cells_for_all_queries(
    rehearse: Train, measured: list[Batch]
) -> None:
    assert rehearse("hybrid", "--dry-run").code == 0
    sizes = [batch.images.pixels.shape[2:] for batch in measured]
    # 20 primary and 180 hybrid queries.
    assert all(count_cells((h, w), (8, 16, 32, 64)) >= 200 for h, w in sizes)
    assert len(set(sizes)) == 2


@pytest.mark.parametrize("variant", ["ms_hybrid", "ms_group", "dn", "ms_cdn"])
def test_overfit_looks_at_the_primary_queries(
    variant: str, rehearse: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("msdetr.api.overfit.OVERFIT_STEPS", 2)
    done = rehearse(variant, "--overfit", "8")
    assert (done.code, done.out) == (1, "")
    assert "expected more than 0.9; what fails first is the proposals" in done.err
