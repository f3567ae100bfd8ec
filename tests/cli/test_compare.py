"""`msdetr compare`: runs, evaluations and results files of any detector."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Msdetr = Callable[..., Any]
FEW = ("--resamples", "100")


@pytest.fixture
def annotations(shapes_root: Path) -> Path:
    return shapes_root / "annotations/instances_val2017.json"


@pytest.fixture
def perfect(annotations: Path, tmp_path: Path) -> Path:
    truth = json.loads(annotations.read_text())
    keys = ("image_id", "category_id", "bbox")
    results = [{**{k: entry[k] for k in keys}, "score": 0.9} for entry in truth["annotations"]]
    path = tmp_path / "perfect.json"
    path.write_text(json.dumps(results))
    return path


def test_run_against_results_file(msdetr: Msdetr, run_dir: Path, perfect: Path) -> None:
    done = msdetr("compare", perfect, "--with", run_dir, "--json", *FEW)
    assert done.code == 0, done.err
    report = json.loads(done.out)
    metrics = json.loads((run_dir / "evaluation/metrics.json").read_text())
    ap = report["differences"][0]
    assert ap["metric"] == "ap"
    assert ap["difference"] == pytest.approx(1 - metrics["ap"], abs=1e-6)
    assert report["targets"]["won"] > 0
    assert report["targets"]["lost"] == 0


def test_evaluation_against_its_run(msdetr: Msdetr, run_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "again"
    command = ("eval", "--ckpt", run_dir / "checkpoints/last", "--device", "cpu", "--output", out)
    assert msdetr(*command).code == 0
    done = msdetr("compare", run_dir, "--with", out, *FEW)
    assert done.code == 0, done.err
    assert "+0.0 to +0.0" in done.out
    assert "cannot tell whether one method is better" in " ".join(done.out.split())


def test_run_against_itself(msdetr: Msdetr, run_dir: Path) -> None:
    done = msdetr("compare", run_dir, "--with", run_dir, "--json", *FEW)
    assert done.code == 0, done.err
    assert {each["difference"] for each in json.loads(done.out)["differences"]} == {0}


def test_evaluation_of_the_first_images_counts_only_those(
    msdetr: Msdetr, run_dir: Path, tmp_path: Path
) -> None:
    out = tmp_path / "few"
    command = ("eval", "--ckpt", run_dir, "--device", "cpu", "--set", "data.val.limit=2")
    assert msdetr(*command, "--output", out).code == 0
    report = json.loads(msdetr("compare", out, "--with", run_dir, "--json", *FEW).out)
    assert report["num_images"] == 2
    metrics = json.loads((out / "metrics.json").read_text())
    assert report["nms_sweep"][0][0]["ap"] == metrics["ap"]


def test_two_results_files_need_data(
    msdetr: Msdetr, perfect: Path, annotations: Path, refused_line: Callable[..., str]
) -> None:
    command = ("compare", perfect, "--with", perfect, *FEW)
    assert "the two name no annotation file" in refused_line(*command)
    assert msdetr(*command, "--data", annotations).code == 0


def test_other_images_are_refused(
    perfect: Path,
    run_dir: Path,
    shapes_root: Path,
    tmp_path: Path,
    refused_line: Callable[..., str],
) -> None:
    other = tmp_path / "other"
    shutil.copytree(run_dir / "evaluation", other)
    train = shapes_root / "annotations/instances_train2017.json"
    (other / "metrics.json").write_text(
        json.dumps({"setting": {"annotations": str(train), "num_images": 8}})
    )
    line = refused_line("compare", run_dir, "--with", other)
    assert f"was scored against {train}" in line
    gone = tmp_path / "gone.json"
    (other / "metrics.json").write_text(
        json.dumps({"setting": {"annotations": str(gone), "num_images": 4}})
    )
    assert f"{gone} is gone" in refused_line("compare", perfect, "--with", other)


def test_directory_without_predictions_is_refused(
    run_dir: Path, tmp_path: Path, refused_line: Callable[..., str]
) -> None:
    line = refused_line("compare", run_dir, "--with", tmp_path)
    assert f"{tmp_path}: expected a results file" in line


def test_output_shows_what_was_won(
    msdetr: Msdetr, run_dir: Path, perfect: Path, annotations: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = ("compare", perfect, "--with", run_dir, *FEW)
    done = msdetr(*command, "--output", out, "--json")
    assert done.code == 0, done.err
    report = json.loads((out / "comparison.json").read_text())
    listed = report.pop("images")
    assert report == json.loads(done.out)
    assert sum(len(image["won"]) for image in listed) == report["targets"]["won"]
    counts = [len(image["won"]) + len(image["lost"]) for image in listed]
    assert counts == sorted(counts, reverse=True)
    assert len(list((out / "pictures").iterdir())) == len(listed)
    page = (out / "comparison.html").read_text()
    assert page.count('src="data:image/jpeg;base64,') == len(listed)
    assert f"{counts[0]} won, 0 lost" in page
    # Without the folder of the images there are no pictures, and the page says why.
    alone = tmp_path / "alone.json"
    alone.write_bytes(annotations.read_bytes())
    bare = tmp_path / "bare"
    assert msdetr(*command, "--data", alone, "--output", bare).code == 0
    assert list((bare / "pictures").iterdir()) == []
    assert "No pictures" in (bare / "comparison.html").read_text()


def test_output_is_not_overwritten(
    perfect: Path, run_dir: Path, tmp_path: Path, refused_line: Callable[..., str]
) -> None:
    (tmp_path / "comparison.json").write_text("{}")
    line = refused_line("compare", perfect, "--with", run_dir, "--output", tmp_path)
    assert "holds comparison.json already" in line
