"""The table for papers: one row per arm, and names that LaTeX takes as text."""

from __future__ import annotations

from collections.abc import Mapping

from msdetr.study.arm_findings import ArmFindings, Decision
from msdetr.study.paired import compare_arms
from msdetr.study.seed_means import mean_over_seeds
from msdetr.study.study_findings import StudyFindings
from msdetr.study.telling.latex import render_latex
from msdetr.study.verdict import NoVerdict, decide


def arm(name: str, values: Mapping[int, float], decision: Decision | None) -> ArmFindings:
    means = mean_over_seeds({seed: {"ap": value} for seed, value in values.items()}, None)
    return ArmFindings(
        name=name,
        values=values,
        curve=(),
        measures={"metrics": means, "errors": {}},
        decision=decision,
        targets={},
        by_positives=(),
        has_one_to_many=None,
        one_to_many=None,
    )


def study(*arms: ArmFindings) -> StudyFindings:
    return StudyFindings(
        description="",
        metric="ap",
        smallest_effect=0.005,
        nms_threshold=None,
        budget="epochs",
        baseline=arms[0].name,
        seeds=(1, 2, 3),
        added_arms=(),
        added_seeds=(),
        arms=arms,
        cells=(),
        settings={},
        num_images=0,
        num_targets=0,
        num_traced=None,
        evaluator="none",
    )


BASE = {1: 0.5, 2: 0.51, 3: 0.52}


def test_rows_of_all_kinds_of_arms() -> None:
    better = {1: 0.6, 2: 0.62, 3: 0.61}
    comparison = compare_arms({"base_line": BASE, "x": better}, "base_line")[0]
    verdict = decide(comparison, 0.005)
    decided = Decision(verdict=verdict, comparison=comparison, over_images={}, headline=None)
    nothing = NoVerdict("rest", "base_line", 1)
    unknown = Decision(verdict=nothing, comparison=None, over_images={}, headline=None)
    text = render_latex(
        study(
            arm("base_line", BASE, None), arm("x", better, decided), arm("rest", {1: 0.4}, unknown)
        )
    )
    rows = [line for line in text.splitlines() if "&" in line]
    assert rows[1] == r"base\_line & 3 & 0.510 $\pm$ 0.010 & baseline &  &  \\"
    p = f"{comparison.holm_t_p:.3f}"
    ends = f"${comparison.paired.low:+.3f}$ to ${comparison.paired.high:+.3f}$"
    assert rows[2] == rf"x & 3 & 0.610 $\pm$ 0.010 & $+0.100$ ({ends}) & {p} & better \\"
    assert rows[3] == r"rest & 1 & 0.400 & -- & -- & none \\"
    assert text.startswith("% AP: mean")
    assert r"\toprule" in text
    assert text.endswith("\\end{tabular}\n")


def test_arms_without_cells() -> None:
    empty = NoVerdict("x", "b", 0)
    decision = Decision(verdict=empty, comparison=None, over_images={}, headline=None)
    text = render_latex(study(arm("b", {}, None), arm("x%&", {}, decision)))
    assert r"x\%\& & 0 & -- & -- & -- & none \\" in text
