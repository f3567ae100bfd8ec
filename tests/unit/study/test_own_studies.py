"""The studies of the repository can be run as they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from msdetr.study.design import load_design, resolve_arms

STUDIES = sorted((Path(__file__).resolve().parents[3] / "studies").glob("*.yaml"))


def test_there_are_studies() -> None:
    assert len(STUDIES) >= 4


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.stem)
def test_study_is_valid_and_compares_different_methods(file: Path) -> None:
    design = load_design(file)
    assert not design.warnings
    assert design.description
    recipes = resolve_arms(design, file)
    texts = {name: recipe.model_dump_json() for name, recipe in recipes.items()}
    assert len(set(texts.values())) == len(design.arms)
    assert f"msdetr study run studies/{file.name} " in file.read_text()
