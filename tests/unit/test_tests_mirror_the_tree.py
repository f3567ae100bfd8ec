"""Every module has its test where a newcomer looks, or says which test covers it."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# What covers modules without a test of their own: whole commands and scenes that they are part
# of, or tests of the one module that uses them.
COVERED_BY = {
    "tests/cli/test_compare.py": ("api/compare", "api/comparison_output"),
    "tests/cli/test_data_check.py": (
        "api/data_check",
        "data/report",
    ),
    "tests/cli/test_data_convert.py": (
        "api/data_convert",
        "data/coco_writing",
    ),
    "tests/cli/test_doctor.py": (
        "api/doctor",
        "ops/report",
    ),
    "tests/cli/test_eval.py": (
        "api/datasets",
        "api/detection/checkpoint_detections",
        "api/evaluate",
        "evaluation/settings",
    ),
    "tests/cli/test_eval_predictions.py": (
        "api/evaluate_predictions",
        "api/evaluation_report",
    ),
    "tests/cli/test_export.py": (
        "api/export",
        "api/exporting/metadata",
        "api/exporting/verification_images",
        "export/formats",
        "export/onnx_file",
        "export/onnx_model",
        "export/openvino_file",
        "export/openvino_program",
        "export/runners",
        "export/settings",
        "export/torch_export_file",
        "export/tracing",
    ),
    "tests/cli/test_import_official.py": (
        "api/checkpoints/official",
        "api/checkpoints/official_recipes",
    ),
    "tests/cli/test_inspect_matching.py": (
        "api/inspect_matching",
        "api/traces/epoch_traces",
    ),
    "tests/cli/test_own_assigner.py": ("api/checkpoints/assigner_file",),
    "tests/cli/test_plot.py": (
        "api/plot",
        "api/training/run_report",
    ),
    "tests/cli/test_predict.py": (
        "api/predict",
        "drawing/detections",
    ),
    "tests/cli/test_predict_exported.py": (
        "api/exporting/inputs",
        "export/onnx_session",
        "export/outputs",
    ),
    "tests/unit/export/test_openvino_process.py": ("export/openvino_worker",),
    "tests/unit/api/test_detector.py": ("api/detection/image_detector",),
    "tests/cli/test_mds.py": ("api/traces/suppression_traces",),
    "tests/cli/test_query_groups.py": ("api/traces/group_traces",),
    "tests/cli/test_replay.py": ("api/replay",),
    "tests/cli/test_runs.py": ("api/runs",),
    "tests/cli/test_study_analysis.py": (
        "api/study/cell_analysis",
        "study/stored_analysis",
    ),
    "tests/cli/test_trace_commands.py": (
        "api/candidates",
        "api/stability",
        "api/traces/make_trace",
    ),
    "tests/cli/test_study.py": (
        "api/study/estimate",
        "api/study/progress",
        "api/study/status",
    ),
    "tests/cli/test_train.py": (
        "api/dry_run",
        "api/output",
        "api/overfit",
        "api/progress",
        "api/train",
        "api/training/session",
        "engine/records",
    ),
    "tests/unit/api/study/test_report.py": (
        "api/study/stored_cells",
        "api/study/target_pictures",
        "study/arm_findings",
        "study/cell_findings",
        "study/study_findings",
        "study/telling/deciding",
        "study/telling/figures",
        "study/telling/reasons",
        "study/telling/section",
        "study/telling/setup",
        "study/telling/whole",
    ),
    "tests/unit/data/shapes/test_scene.py": (
        "data/shapes/layout",
        "data/shapes/textures",
    ),
    "tests/unit/data/test_batching.py": ("data/sample",),
    "tests/unit/data/test_coco_file.py": ("data/coco_values",),
    "tests/unit/data/test_yolo_layout.py": ("data/foreign",),
    "tests/unit/drawing/test_denoising.py": ("drawing/panels",),
    "tests/unit/drawing/test_matching.py": ("drawing/matching_sheets",),
    "tests/unit/engine/test_loop.py": ("engine/settings",),
    "tests/unit/engine/test_run_directory.py": ("engine/environment",),
    "tests/unit/evaluation/test_weighted_metrics.py": ("evaluation/image_matches",),
    "tests/unit/inspection/sweep/test_statistics.py": ("inspection/sweep/scores",),
    "tests/unit/inspection/sweep/test_tables.py": ("inspection/sweep/figures",),
    "tests/unit/inspection/test_summary.py": ("inspection/summary_table",),
    "tests/unit/inspection/test_trace.py": ("inspection/trace_files",),
    "tests/unit/losses/test_criterion.py": ("structures",),
    "tests/unit/model/test_decoder.py": ("model/precision",),
    "tests/unit/model/test_pretrained.py": ("model/weight_files",),
    "tests/unit/ops/test_dispatch.py": (
        "ops/gather",
        "ops/reference",
    ),
    "tests/unit/recipe/test_conflicts.py": ("recipe/group_conflicts",),
    "tests/unit/recipe/test_loading.py": ("recipe/validation",),
    "tests/unit/recipe/test_schema.py": (
        "recipe/data",
        "recipe/inspection",
        "recipe/model",
        "recipe/section",
        "recipe/supervision",
        "recipe/training",
    ),
    "tests/unit/recipe/test_scheme.py": ("recipe/assigners",),
    "tests/unit/stored_runs/test_stored_run.py": ("stored_runs/checkpoint_info",),
    "tests/unit/study/test_folder.py": ("study/lock",),
    "tests/unit/study/test_headline.py": ("study/interval",),
    "tests/unit/test_build.py": (
        "build/data",
        "build/model",
        "build/supervision",
        "build/training",
    ),
    "tests/unit/test_packaging.py": ("version",),
}
LISTED = [module for modules in COVERED_BY.values() for module in modules]


def modules() -> set[str]:
    package = ROOT / "msdetr"
    files = (path for path in package.rglob("*.py") if path.name != "__init__.py")
    return {path.relative_to(package).with_suffix("").as_posix() for path in files}


def mirror_of(module: str) -> Path:
    path = Path(module)
    return ROOT / "tests" / "unit" / path.with_name(f"test_{path.name}.py")


def test_every_module_has_a_test_or_says_what_covers_it() -> None:
    without = {module for module in modules() if not mirror_of(module).is_file()}
    assert sorted(LISTED) == sorted(without)


@pytest.mark.parametrize("file", COVERED_BY)
def test_what_covers_a_module_exists(file: str) -> None:
    assert (ROOT / file).is_file()
