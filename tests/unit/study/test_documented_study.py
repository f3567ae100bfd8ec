"""The study that docs/comparing.md shows is a valid one."""

from __future__ import annotations

import re
from pathlib import Path
from textwrap import dedent

from msdetr.study.design import load_design

PAGE = Path(__file__).resolve().parents[3] / "docs/comparing.md"


def test_documented_study_is_valid(tmp_path: Path) -> None:
    shown = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    assert len(shown) == 1
    file = tmp_path / "study.yaml"
    file.write_text(dedent(f"   {shown[0].lstrip()}"))
    design = load_design(file)
    assert list(design.arms) == ["one_to_one", "mixed", "mixed_no_cap"]
    assert design.warnings == []
