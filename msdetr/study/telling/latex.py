"""The verdicts of a study as a table for a paper; needs the package booktabs."""

from __future__ import annotations

from msdetr.study.arm_findings import ArmFindings
from msdetr.study.interval import Interval, signed
from msdetr.study.study_findings import StudyFindings
from msdetr.study.telling.numbers import metric_title
from msdetr.study.verdict import Verdict

_SPECIAL = {
    "\\": r"\textbackslash{}",
    **{character: "\\" + character for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}


def render_latex(study: StudyFindings) -> str:
    """Return a ``tabular`` with one row per arm."""
    metric = metric_title(study.metric, study.nms_threshold)
    rows = [" & ".join(_cells(arm, study)) + r" \\" for arm in study.arms]
    return "\n".join(
        [
            f"% {metric}: mean and standard deviation over seeds; difference from "
            f"{_escape(study.baseline)} with 95% t interval, paired over seeds; p of the t test, "
            "corrected by Holm's method",
            r"\begin{tabular}{lrrrrl}",
            r"\toprule",
            rf"arm & seeds & {metric} & difference (95\% interval) & $p$ & verdict \\",
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


def _cells(arm: ArmFindings, study: StudyFindings) -> list[str]:
    found = arm.measures["metrics"].get(study.metric)
    value = "--"
    if found is not None and found.mean is not None:
        spread = "" if found.spread is None else rf" $\pm$ {found.spread:.3f}"
        value = f"{found.mean:.3f}{spread}"
    return [_escape(arm.name), str(len(arm.values)), value, *_decision(arm)]


def _decision(arm: ArmFindings) -> list[str]:
    decision = arm.decision
    if decision is None:
        return ["baseline", "", ""]
    found, verdict = decision.comparison, decision.verdict
    if found is None or not isinstance(verdict, Verdict):
        return ["--", "--", "none"]
    difference = f"{_number(found.mean)} ({_between(found.paired)})"
    return [difference, f"{found.holm_t_p:.3f}", str(verdict.outcome)]


def _between(interval: Interval) -> str:
    return f"{_number(interval.low)} to {_number(interval.high)}"


def _number(value: float) -> str:
    return f"${signed(value)}$"


def _escape(text: str) -> str:
    return "".join(_SPECIAL.get(character, character) for character in text)
