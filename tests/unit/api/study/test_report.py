"""What a study says: verdicts, the same bytes every time, what is missing, what is damaged."""

from __future__ import annotations

import csv
import importlib.util
import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from msdetr.api.study.report import FIGURES_FOLDER, FILES, report_study
from msdetr.errors import DataError, MsdetrError, StudyError

Make = Callable[..., Any]
SEEDS = (1, 2, 3)
TWO_ARMS = {"one_to_one": 0.6, "mixed": 0.85}


@pytest.fixture(scope="module")
def made() -> Any:
    """The module ``made_study``."""
    file = Path(__file__).with_name("made_study.py")
    spec = importlib.util.spec_from_file_location("made_study", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["made_study"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def make_study(made: Any, tmp_path: Path) -> Make:
    """Begin a study: chance to find a target by arm, the baseline first; seeds."""

    def make(qualities: dict[str, float], seeds: tuple[int, ...], **fields: Any) -> Any:
        return made.make_study(tmp_path, qualities, seeds, **fields)

    return make


def content_of(folder: Path) -> dict[str, bytes]:
    names = [folder / name for name in FILES] + sorted((folder / FIGURES_FOLDER).iterdir())
    return {str(path.relative_to(folder)): path.read_bytes() for path in names}


def finished(make_study: Make, qualities: dict[str, float], **fields: Any) -> Any:
    study = make_study(qualities, SEEDS, **fields)
    for arm in qualities:
        for seed in SEEDS:
            study.train(arm, seed)
    return study


def test_better_arm_is_said_to_be_better(make_study: Make) -> None:
    study = finished(make_study, TWO_ARMS)
    report = report_study(study.path)
    assert report.findings.notes == []
    arm = report.to_dict()["arms"][1]
    assert arm["verdict"]["outcome"] == "better"
    assert arm["comparison"]["mean"] > 0.05
    assert set(arm["over_images"]) == {"1", "2", "3"}
    assert arm["headline"]["num_seeds"] == 3
    assert arm["headline"]["interval"]["low"] > 0
    page = (study.path / "report.html").read_text()
    sentence = arm["verdict"]["sentence"]
    assert sentence.startswith("mixed is better than one_to_one (")
    assert sentence in page
    assert sentence.split("(")[0] in (study.path / "report.md").read_text().replace("\\", "")
    assert r"mixed &" in (study.path / "table.tex").read_text()
    # With 3 seeds sign flips cannot say so.
    assert "cannot be below 0.25" in page
    assert json.loads((study.path / "study.json").read_text()) == report.to_dict()


def test_arms_are_compared_after_suppression_where_the_design_says_so(make_study: Make) -> None:
    study = finished(make_study, TWO_ARMS, nms_threshold=0.6)
    report = report_study(study.path).to_dict()
    stored = json.loads((study.folder.cell("mixed", 1) / "evaluation/metrics.json").read_text())
    mixed = report["arms"][1]
    after = mixed["measures"]["nms"]["0.6"]
    assert mixed["values"]["1"] > stored["ap"]  # some targets are found twice
    assert mixed["measures"]["metrics"]["ap"]["mean"] == after["mean"]
    assert mixed["comparison"]["mean"] == pytest.approx(after["difference"])
    assert mixed["measures"]["errors"]["duplicate"]["mean"] < 0.001
    assert mixed["measures"]["nms"]["none"]["mean"] < after["mean"]
    page = (study.path / "report.html").read_text()
    assert "AP after NMS at 0.6 of the last evaluation of every cell" in page
    assert "curves over epochs and the table of duplicates are of all detections" in page


def test_same_cells_give_the_same_bytes_wherever_they_lie(make_study: Make, tmp_path: Path) -> None:
    study = finished(make_study, TWO_ARMS)
    report_study(study.path)
    first = content_of(study.path)
    report_study(study.path)
    assert content_of(study.path) == first
    moved = tmp_path / "elsewhere" / "renamed"
    shutil.copytree(study.path, moved)
    report_study(moved, output=tmp_path / "out")
    assert content_of(tmp_path / "out") == first
    for name, content in first.items():
        assert str(tmp_path).encode() not in content, name


def test_model_against_itself_differs_nowhere(make_study: Make) -> None:
    qualities = {"mixed": 0.7, "mixed_again": 0.7}
    study = make_study(qualities, SEEDS)
    for arm in qualities:
        for seed in SEEDS:
            study.train(arm, seed)
    arm = report_study(study.path).to_dict()["arms"][1]
    assert arm["verdict"]["outcome"] == "no difference worth having"
    assert {each["difference"] for each in arm["over_images"].values()} == {0}
    assert arm["headline"]["interval"] == {"low": 0, "high": 0}
    for family, means in arm["measures"].items():
        assert means
        assert {mean["difference"] for mean in means.values()} <= {0, None}, family
    assert {(each["won"], each["lost"]) for each in arm["targets"].values()} == {(0, 0)}
    for group in arm["by_positives"]:
        assert group["found"] == group["found_by_baseline"]


def test_study_without_a_finished_cell(make_study: Make) -> None:
    study = make_study(TWO_ARMS, SEEDS)
    report = report_study(study.path)
    assert "6 of 6 cells are not finished" in report.findings.notes[0]
    said = "mixed and one_to_one: no verdict on methods"
    assert said in (study.path / "report.html").read_text()
    assert len((study.path / "cells.csv").read_text().splitlines()) == 7


def test_missing_failed_and_unanalysed_cells_are_shown(make_study: Make) -> None:
    study = make_study(TWO_ARMS, SEEDS)
    for seed in SEEDS:
        study.train("one_to_one", seed)
    study.train("mixed", 1, analysed=False)
    jobs = study.folder.jobs / "mixed"
    jobs.mkdir(parents=True)
    (jobs / "seed_2.error").write_text("=1+1 /home/me/secret/data.json: <no> space\n")
    report = report_study(study.path)
    notes = " ".join(report.findings.notes)
    assert "mixed/seed_2 failed (=1+1 data.json: <no> space), mixed/seed_3 missing" in notes
    assert "Not analysed with their models yet: mixed/seed_1" in notes
    page = (study.path / "report.html").read_text()
    assert "&lt;no&gt; space" in page
    assert "<no> space" not in page
    rows = list(csv.DictReader((study.path / "cells.csv").open()))
    assert [row["state"] for row in rows] == ["finished"] * 4 + ["failed", "missing"]
    assert rows[4]["error"].startswith("'=1+1")
    assert rows[4]["ap"] == ""
    assert float(rows[0]["ap"]) > 0
    verdict = report.to_dict()["arms"][1]["verdict"]
    assert verdict["outcome"] is None
    assert "there is 1 seed" in verdict["sentence"]


def test_additions_after_results_are_said_to_be(make_study: Make) -> None:
    study = finished(make_study, TWO_ARMS)
    study.begin((*SEEDS, 4))
    report = report_study(study.path)
    assert any(note.startswith("seed 4 was added after results") for note in report.findings.notes)
    assert report.to_dict()["added_after_results"] == {"arms": [], "seeds": [4]}


def test_cells_that_learned_nothing_are_said_to_have(make_study: Make) -> None:
    study = make_study({"one_to_one": -1.0, "mixed": -1.0}, (1, 2))
    for arm in TWO_ARMS:
        for seed in (1, 2):
            study.train(arm, seed)
    report = report_study(study.path)
    assert report.findings.notes[0].startswith(
        "No cell has learned to detect anything: ap is 0.000"
    )


def test_kinds_of_machine_are_told_apart(make_study: Make) -> None:
    study = make_study(TWO_ARMS, (1, 2))
    for seed in (1, 2):
        study.train("one_to_one", seed)
        study.train("mixed", seed, environment={"cpu_capability": "AVX512"})
    report = report_study(study.path)
    assert "2 kinds of machine" in report.findings.notes[0]
    page = (study.path / "report.html").read_text()
    for capability in ("AVX2", "AVX512"):
        assert f"Made Processor, {capability}, 1 thread(s), torch 2.11.0" in page


def test_reasons_are_those_of_the_cells(make_study: Make) -> None:
    study = finished(make_study, TWO_ARMS)
    baseline, arm = report_study(study.path).to_dict()["arms"]
    assert arm["measures"]["errors"]["missed"]["difference"] < -0.05
    gains = [
        each["measures"]["nms"]["0.5"]["mean"] - each["measures"]["nms"]["none"]["mean"]
        for each in (baseline, arm)
    ]
    # The simulated detectors find targets twice, and the better one does so more often.
    assert gains[1] > 0.01
    assert baseline["by_positives"] == []
    assert sum(group["num_targets"] for group in arm["by_positives"]) == 3 * 92
    assert [group["name"] for group in arm["by_positives"]] == ["capped", "0", "1", "2"]
    won = sum(each["won"] for each in arm["targets"].values())
    lost = sum(each["lost"] for each in arm["targets"].values())
    assert won > lost > 0
    assert arm["measures"]["costs"]["train_seconds"]["mean"] == 62
    assert arm["measures"]["costs"]["images_per_second"]["mean"] == pytest.approx(
        800 / 62, rel=0.01
    )
    assert "one_to_many/1" in arm["measures"]["branches"]
    assert "one_to_many/1" not in baseline["measures"]["branches"]


def test_targets_won_and_lost_are_drawn(make_study: Make) -> None:
    study = finished(make_study, TWO_ARMS)
    report_study(study.path)
    names = {path.name for path in (study.path / FIGURES_FOLDER).glob("*.jpg")}
    assert names == {f"targets_mixed_{number}.jpg" for number in range(1, 5)}
    page = (study.path / "report.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 4
    assert re.search(r"<figcaption>mixed, seed 1, \d+\.png: [1-4] won, \d lost</figcaption>", page)
    shutil.rmtree(study.data / "val2017")
    report_study(study.path)
    assert not list((study.path / FIGURES_FOLDER).glob("*.jpg"))
    assert "data:image/jpeg" not in (study.path / "report.html").read_text()


def test_fields_that_differ_are_listed(make_study: Make) -> None:
    study = make_study(TWO_ARMS, SEEDS)
    settings = report_study(study.path).to_dict()["settings"]
    assert settings["supervision.one_to_many.k"] == {"mixed": 2}
    assert settings["model.placement"] == {"one_to_one": "baseline", "mixed": "c"}
    assert "train.seed" not in settings
    assert "train.epochs" not in settings


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("evaluation/predictions.json", "[{", "is not JSON"),
        ("evaluation/predictions.json", None, "cannot be read"),
        ("evaluation/predictions.json", "[]", "is not what metrics.json beside it was"),
        ("evaluation/metrics.json", "[]", "expected a JSON object, got a list"),
        ("evaluation/metrics.json", None, "cannot be read"),
        ("evaluation/metrics.json", "{}", "lacks 'ap'"),
        ("evaluation/metrics.json", '{"ap": "x"}', "ap: expected a number, got 'x'"),
        ("metrics.jsonl", '{"kind": "epoch", "epoch": []}', "epoch: expected a number, got []"),
        ("analysis/analysis.json", "{}", "has no valid format_version"),
        ("analysis/analysis.json", '{"format_version": 1}', "is damaged: KeyError('branches')"),
        ("analysis/positives.csv", "a,b\n", "line 1: expected the columns image_id,"),
    ],
)
def test_damaged_cells_are_named(
    make_study: Make, name: str, content: str | None, expected: str
) -> None:
    study = make_study(TWO_ARMS, (1, 2))
    file = study.train("one_to_one", 1) / name
    file.unlink()
    if content is not None:
        file.write_text(content)
    with pytest.raises((StudyError, DataError)) as raised:
        report_study(study.path)
    assert str(raised.value).startswith(f"{file}: ")
    assert expected in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not (study.path / "report.html").exists()


def test_other_annotations_are_refused(make_study: Make, tmp_path: Path) -> None:
    study = make_study(TWO_ARMS, (1, 2))
    study.train("one_to_one", 1)
    file = study.data / "annotations/instances_val2017.json"
    moved = tmp_path / "moved.json"
    file.rename(moved)
    with pytest.raises(StudyError, match=r"instances_val2017.json: is gone; .*`data`"):
        report_study(study.path)
    report_study(study.path, data=str(moved))
    moved.write_text(moved.read_text() + "\n")
    with pytest.raises(StudyError, match=r"moved.json: is not the annotation file"):
        report_study(study.path, data=str(moved))


def test_command_line(make_study: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = importlib.import_module("msdetr.cli.main").main
    assert run(["study", "report", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {tmp_path}: holds no study")
    assert error.count("\n") == 1
    study = make_study(TWO_ARMS, (1, 2))
    for arm in TWO_ARMS:
        study.train(arm, 1)
    assert run(["study", "report", str(study.path), "--output", str(tmp_path / "out")]) == 0
    assert "no verdict on methods" in " ".join(capsys.readouterr().out.split())
    assert run(["study", "report", str(study.path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["baseline"] == "one_to_one"
    (tmp_path / "file").write_text("")
    assert run(["study", "report", str(study.path), "--output", str(tmp_path / "file")]) == 2
    assert "--output needs a directory" in capsys.readouterr().err


def test_cells_of_another_study_are_refused(make_study: Make) -> None:
    study = make_study(TWO_ARMS, (1, 2))
    run = study.train("one_to_one", 1)
    run.rename(run.with_name("seed_9"))
    with pytest.raises(MsdetrError, match="is no cell of this study"):
        report_study(study.path)
