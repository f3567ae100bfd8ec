"""`msdetr inspect-matching`."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from msdetr.inspection.trace import MatchTrace

Msdetr = Callable[..., Any]
OUTPUTS = ["assignments.csv", "matching.html", "pictures", "summary.json", "trace"]


@pytest.fixture(scope="session")
def inspected(
    msdetr: Msdetr, run_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Any]:
    """The finished training inspected: the output directory, which nobody writes to."""
    output = tmp_path_factory.mktemp("inspected") / "out"
    done = msdetr("inspect-matching", "--ckpt", run_dir, "--output", output, "--device", "cpu")
    assert done.code == 0, done.err
    return output, done


@pytest.fixture(scope="session")
def trace(inspected: tuple[Path, Any]) -> Path:
    return inspected[0] / "trace"


@pytest.fixture
def refused_inspection(
    refused_line: Callable[..., str], run_dir: Path, trace: Path, tmp_path: Path
) -> Callable[..., str]:
    """Run a command that must be refused; RUN and TRACE stand for what there is."""
    places = {"RUN": run_dir, "TRACE": trace}

    def run(*options: str) -> str:
        command = [places.get(option, option) for option in options]
        return refused_line("inspect-matching", *command, "--output", tmp_path / "out")

    return run


def assigned(path: Path, column: str) -> set[tuple[int, ...]]:
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row[column] == "1"]
    return {tuple(int(row[k]) for k in ("image", "layer", "target", "query")) for row in rows}


def test_everything_is_written_and_named(inspected: tuple[Path, Any]) -> None:
    output, done = inspected
    assert sorted(path.name for path in output.iterdir()) == OUTPUTS
    assert all(str(output / name) in done.out for name in OUTPUTS)
    summary = json.loads((output / "summary.json").read_text())
    assert [layer["layer"] for layer in summary["layers"]] == [0, 1]
    assert f"{summary['num_targets']} targets of {summary['num_images']} images" in done.out
    assert "<html" in (output / "matching.html").read_text()


def test_rows_are_the_assigners_output(inspected: tuple[Path, Any]) -> None:
    output, _ = inspected
    expected: dict[str, set[tuple[int, ...]]] = {"one_to_one": set(), "one_to_many": set()}
    for image in MatchTrace.load(output / "trace").images:
        for layer, target in (image.one_to_one_queries >= 0).nonzero().tolist():
            query = int(image.one_to_one_queries[layer, target])
            expected["one_to_one"].add((image.image_id, layer, target, query))
        for layer, target, slot in (image.one_to_many_queries >= 0).nonzero().tolist():
            query = int(image.one_to_many_queries[layer, target, slot])
            expected["one_to_many"].add((image.image_id, layer, target, query))
    for column, pairs in expected.items():
        assert assigned(output / "assignments.csv", column) == pairs
        assert len(pairs) > 5


def test_a_stored_trace_gives_the_same_tables(
    msdetr: Msdetr, inspected: tuple[Path, Any], tmp_path: Path
) -> None:
    output, _ = inspected
    again = msdetr("inspect-matching", "--trace", output / "trace", "--output", tmp_path / "again")
    assert again.code == 0, again.err
    for name in ("assignments.csv", "summary.json"):
        assert (tmp_path / "again" / name).read_text() == (output / name).read_text()
    assert not (tmp_path / "again" / "trace").exists()


def test_images_layers_and_pictures_can_be_chosen(
    msdetr: Msdetr, trace: Path, tmp_path: Path
) -> None:
    ids = [image.image_id for image in MatchTrace.load(trace).images if image.num_targets][:2]
    options = ("--image-ids", ",".join(map(str, ids)), "--layers", "1", "--pictures", "1")
    done = msdetr("inspect-matching", "--trace", trace, "--output", tmp_path, *options, "--json")
    assert done.code == 0, done.err
    summary = json.loads(done.out)
    assert summary["num_images"] == 2
    assert [layer["layer"] for layer in summary["layers"]] == [1]
    pairs = assigned(tmp_path / "assignments.csv", "one_to_one")
    assert {pair[:2] for pair in pairs} == {(image_id, 1) for image_id in ids}
    drawn = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert drawn == [f"{ids[0]:012d}_{name}.png" for name in ("layers", "scores", "targets")]


@pytest.mark.parametrize("recipe", ["shapes_tiny", "shapes_tiny_baseline"])
def test_untrained_models_can_be_traced(
    msdetr: Msdetr, tiny: list[str], shapes_root: Path, tmp_path: Path, recipe: str
) -> None:
    """Also a baseline, whose one-to-many assignment is what it would be."""
    assert shapes_root.is_dir()
    command = ("inspect-matching", "--from-scratch", recipe, *tiny, "--output", tmp_path)
    done = msdetr(*command, "--num-images", "2", "--pictures", "0", "--device", "cpu")
    assert done.code == 0, done.err
    is_baseline = recipe == "shapes_tiny_baseline"
    assert ("what that assignment would be" in done.out) == is_baseline
    trace = MatchTrace.load(tmp_path / "trace")
    assert len(trace.images) == 2
    assert trace.info.has_one_to_many != is_baseline
    assert trace.info.weights == "untrained"
    assert assigned(tmp_path / "assignments.csv", "one_to_many")


def test_the_trace_says_what_it_was_made_of(trace: Path, run_dir: Path) -> None:
    info = MatchTrace.load(trace).info
    checkpoint = Path(info.source)
    sums = (checkpoint / "SHA256SUMS").read_text()
    assert checkpoint.parent == run_dir / "checkpoints"
    assert f"{info.source_sha256}  model.safetensors" in sums
    assert info.weights == "trained"
    assert info.recipe["model"]["num_queries"] == info.num_queries == 20


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ((), "needs one of --ckpt, --trace and --from-scratch"),
        (("--from-scratch", "shapes_tiny", "--ckpt", "RUN"), "cannot go with --ckpt or --trace"),
        (("--ckpt", "RUN", "--image-ids", "1,2"), "--image-ids: 1, 2: not among the 4 images"),
        (("--ckpt", "RUN", "--image-ids", "one"), "expected numbers separated by commas"),
        (("--ckpt", "RUN", "--layers", "5"), "--layers: the model has layers 0 to 1, but not 5"),
        (("--ckpt", "RUN", "--layers", "last"), "--layers: expected all, or numbers"),
        (("--ckpt", "RUN", "--set", "supervision.one_to_many.k=21"), "at most model.num_queries"),
        (("--trace", "TRACE", "--image-ids", "7"), "--image-ids: 7: not among the 4 images"),
        (("--trace", "TRACE", "--set", "supervision.one_to_many.k=3"), "sweep-matching"),
        (("--trace", "nowhere"), "nowhere: is no match trace"),
        (("--ckpt", "nowhere"), "nowhere: no such checkpoint"),
    ],
)
def test_bad_options_are_refused(
    refused_inspection: Callable[..., str], options: tuple[str, ...], told: str
) -> None:
    assert told in refused_inspection(*options)


def test_a_trace_of_something_else_is_refused(
    msdetr: Msdetr,
    refused_line: Callable[..., str],
    run_dir: Path,
    tiny: list[str],
    tmp_path: Path,
) -> None:
    def trace_of(name: str, *options: str) -> Path:
        command = ("inspect-matching", "--from-scratch", "shapes_tiny", *tiny, *options)
        done = msdetr(*command, "--num-images", "1", "--pictures", "0", "--output", tmp_path / name)
        assert done.code == 0, done.err
        return tmp_path / name / "trace"

    command = ("inspect-matching", "--ckpt", run_dir, "--output", tmp_path / "out", "--trace")
    other = refused_line(*command, trace_of("other", "--set", "model.num_queries=24"))
    assert "another recipe: its model.num_queries is 24, but 20 in" in other
    assert "made of other weights (from scratch" in refused_line(*command, trace_of("untrained"))


def test_the_trace_of_the_checkpoint_is_accepted(
    msdetr: Msdetr, run_dir: Path, trace: Path, tmp_path: Path
) -> None:
    done = msdetr("inspect-matching", "--ckpt", run_dir, "--trace", trace, "--output", tmp_path)
    assert done.code == 0, done.err


def test_a_damaged_trace_is_refused(
    refused_line: Callable[..., str], trace: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(trace, tmp_path / "trace")
    with (copy / "trace.safetensors").open("ab") as file:
        file.write(b"x")
    line = refused_line("inspect-matching", "--trace", copy, "--output", tmp_path / "out")
    assert "trace.safetensors: is damaged" in line


@pytest.mark.parametrize("empties", ["annotations", "images"])
def test_an_empty_data_set_is_refused(
    refused_line: Callable[..., str],
    run_dir: Path,
    shapes_root: Path,
    tmp_path: Path,
    empties: str,
) -> None:
    content = json.loads((shapes_root / "annotations/instances_val2017.json").read_text())
    content |= {"annotations": [], empties: []}
    file = tmp_path / "empty.json"
    file.write_text(json.dumps(content))
    data = f"{shapes_root / 'val2017'},{file}"
    line = refused_line(
        "inspect-matching", "--ckpt", run_dir, "--data", data, "--output", tmp_path / "out"
    )
    expected = {
        "annotations": "none of the 4 images to trace has a target",
        "images": "the list is empty",
    }
    assert expected[empties] in line


def test_results_are_not_overwritten(
    refused_line: Callable[..., str], trace: Path, tmp_path: Path
) -> None:
    (tmp_path / "summary.json").write_text("mine")
    line = refused_line("inspect-matching", "--trace", trace, "--output", tmp_path)
    assert "holds summary.json already; give another --output, or --force" in line


def test_force_replaces_an_earlier_inspection(msdetr: Msdetr, trace: Path, tmp_path: Path) -> None:
    (first, second, *_) = (image.image_id for image in MatchTrace.load(trace).images)
    command = ("inspect-matching", "--trace", trace, "--output", tmp_path, "--layers", "0")
    assert msdetr(*command, "--image-ids", str(first)).code == 0
    mine = ["groups.csv", "notes.txt", "pictures/mine.png"]
    for name in mine:
        (tmp_path / name).write_text("mine")
    assert msdetr(*command, "--image-ids", str(second), "--force").code == 0
    names = {path.name for path in (tmp_path / "pictures").iterdir()} - {"mine.png"}
    assert names
    assert all(name.startswith(f"{second:012d}_") for name in names)
    # The table of an earlier inspection would be taken for one of this; other files stay.
    assert [name for name in mine if (tmp_path / name).exists()] == mine[1:]
    assert {row["image"] for row in csv.DictReader((tmp_path / "assignments.csv").open())} == {
        str(second)
    }


def test_force_replaces_nothing_of_another_kind(
    refused_line: Callable[..., str], trace: Path, tmp_path: Path
) -> None:
    (tmp_path / "pictures").write_text("mine")
    line = refused_line("inspect-matching", "--trace", trace, "--output", tmp_path, "--force")
    assert f"{tmp_path / 'pictures'}: is no result of an inspection" in line
