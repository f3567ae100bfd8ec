"""The statistics of a trace as a table for the terminal."""

from __future__ import annotations

from collections.abc import Callable

from rich.box import SIMPLE_HEAD
from rich.table import Table

from msdetr.errors import counted
from msdetr.inspection.summary import LayerSummary, MatchingSummary, Spread
from msdetr.inspection.suppression_summary import SuppressionSummary
from msdetr.inspection.trace import SIZE_BINS


def summary_table(summary: MatchingSummary) -> Table:
    """Build a table of one column per decoder layer, one row per statistic."""
    title = f"{counted(summary.num_targets, 'target')} of {counted(summary.num_images, 'image')}"
    if not summary.setting["has_one_to_many_branch"]:
        title += "; no one-to-many branch: what that assignment would be"
    if summary.setting["has_suppressor"]:
        title += "; 1:1 in the last layer: the suppressor's, before it: what it would be"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("decoder layer")
    for layer in summary.layers:
        table.add_column(str(layer.layer), justify="right", no_wrap=True)
    for name, show in _rows(summary.layers[0]).items():
        table.add_row(name, *(show(layer) for layer in summary.layers))
    return table


def _mean(spread: Spread) -> str:
    return "-" if spread.mean is None else f"{spread.mean:.2f}"


def _range(spread: Spread) -> str:
    return "-" if spread.p10 is None else f"{spread.p10:.0f}-{spread.p90:.0f}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}%"


def _of_size(name: str) -> dict[str, Callable[[LayerSummary], str]]:
    return {
        f"  {name}": lambda layer: _mean(layer.positives_per_target_by_size[name]),
        f"    p10-p90, {name}": lambda layer: _range(layer.positives_per_target_by_size[name]),
    }


def _without(cause: str) -> Callable[[LayerSummary], str]:
    return lambda layer: str(layer.targets_without_positives[cause])


# In this order, whatever the order of their counts; other causes follow as they are called.
_CAUSES = {
    "lost_to_target": "lost to another",
    "dropped_by_cap": "by the cap",
}


def _rows(first: LayerSummary) -> dict[str, Callable[[LayerSummary], str]]:
    causes = list(first.targets_without_positives)
    known = [name for name in _CAUSES if name in causes]
    others = [name for name in causes if name not in _CAUSES]
    without = {
        f"no positives: {_CAUSES.get(name, name.replace('_', ' '))}": _without(name)
        for name in [*known, *others]
    }
    cap = {} if first.images_at_cap is None else _CAP
    return {**_BEFORE_CAUSES, **without, **_AFTER_CAUSES, **cap, **_LOSSES}


_BEFORE_CAUSES: dict[str, Callable[[LayerSummary], str]] = {
    "positives per target, mean": lambda s: _mean(s.positives_per_target),
    "  p10-p90": lambda s: _range(s.positives_per_target),
    **{name: show for size in SIZE_BINS for name, show in _of_size(size).items()},
}
_AFTER_CAUSES: dict[str, Callable[[LayerSummary], str]] = {
    "positive queries": lambda s: str(s.positive_queries),
    "  serving two targets": lambda s: str(s.queries_with_two_targets),
    "1:1 pick is a 1:n positive": lambda s: _percent(s.one_to_one_also_one_to_many),
    "1:1 pick has the highest score": lambda s: _percent(s.one_to_one_at_rank_1),
    "rank of the 1:1 pick, mean": lambda s: _mean(s.rank_of_one_to_one),
    "  p10-p90 of the rank": lambda s: _range(s.rank_of_one_to_one),
}
_CAP: dict[str, Callable[[LayerSummary], str]] = {
    "images that hit the cap": lambda s: str(s.images_at_cap),
    "positives dropped by the cap": lambda s: str(s.positives_dropped_by_cap),
}
_LOSSES: dict[str, Callable[[LayerSummary], str]] = {
    "loss per target, 1:1": lambda s: f"{s.loss_one_to_one:.2f}",
    "loss per target, 1:n": lambda s: f"{s.loss_one_to_many:.2f}",
    "loss, 1:n by 1:1": lambda s: "-" if s.loss_ratio is None else f"{s.loss_ratio:.2f}",
    "1:n positives, background for 1:1": lambda s: _percent(s.positives_trained_as_background),
}


def group_table(summary: MatchingSummary) -> Table | None:
    """Show what query groups beside the primary one learn from; None without any."""
    if not summary.query_groups:
        return None
    table = Table(
        title=f"query groups of training, means of {counted(summary.num_images, 'image')}",
        title_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        caption=_noise(summary),
        caption_justify="left",
    )
    table.add_column("group")
    for name in ("layer", "queries", "serve a target", "background", "pairs also 1:n"):
        table.add_column(name, justify="right", no_wrap=True)
    for group in summary.query_groups:
        table.add_row(
            group.name,
            str(group.layer),
            f"{group.queries:.1f}",
            f"{group.serving:.1f}",
            f"{group.background:.1f}",
            _percent(group.also_one_to_many),
        )
    return table


_OUTCOMES = {
    "kept": "kept",
    "duplicate": "suppressed, sees most a query of the same target",
    "neighbour": "suppressed, sees most a query of another target",
    "background": "suppressed, sees most a query of no target",
    "alone": "suppressed, sees no query",
}
_NAMED = 5


def suppression_table(summary: MatchingSummary) -> Table | None:
    """Show what the suppressor does to the queries of targets; None without one."""
    found = summary.suppression
    if found is None:
        return None
    title = f"the suppressor and {found.num_queries} queries of targets"
    table = Table(
        title=title,
        title_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        show_header=False,
        caption=_lost_targets(found),
        caption_justify="left",
    )
    table.add_column("what")
    table.add_column("number", justify="right", no_wrap=True)
    for name, words in _OUTCOMES.items():
        table.add_row(words, str(found.outcomes[name]))
    for name, number in found.targets_kept.items():
        words = {"none": "no query", "one": "one query", "more": "two queries or more"}[name]
        table.add_row(f"targets with {words} kept", str(number))
    table.add_row("one-to-one picks kept", _percent(found.picks_kept))
    table.add_row("attention to queries of the same target", _percent(found.own))
    table.add_row("attention to learned keys", _percent(found.learned))
    return table


def _lost_targets(found: SuppressionSummary) -> str | None:
    wrong = [each for each in found.lost if each.outcome in ("neighbour", "background")]
    if not wrong:
        return None
    listed = [
        f"image {each.image_id} target {each.target}: query {each.query} "
        f"({each.before:.2f} to {each.after:.2f}) by {each.by} ({each.outcome})"
        for each in wrong[:_NAMED]
    ]
    return "\n".join(["lost to a wrong, more confident query:", *listed])


def _noise(summary: MatchingSummary) -> str | None:
    noise = summary.noise
    if noise is None:
        return None
    negative = "" if noise.negative_iou is None else f", {_percent(noise.negative_iou)} (negative)"
    return (
        f"denoising: {noise.slots:.1f} slots per image; IoU with the target "
        f"{_percent(noise.positive_iou)} (positive){negative}; another class in "
        f"{_percent(noise.flipped)}"
    )
