"""Numbers as the tables of a report show them."""

from __future__ import annotations

from msdetr.study.interval import Interval, signed
from msdetr.study.seed_means import SeedMean

NONE = "–"  # noqa: RUF001 - a dash, not a minus


def metric_title(key: str, nms_threshold: float | None = None) -> str:
    """Write a key of ``metrics.json`` as papers do: ``ap_small`` is AP small."""
    name, _, rest = key.partition("_")
    suppressed = "" if nms_threshold is None else f" after NMS at {nms_threshold:g}"
    return f"{name.upper()} {rest}".strip() + suppressed


def plain(value: float | None, digits: int = 3) -> str:
    """Write a number with so many decimals; a dash for None."""
    return NONE if value is None else f"{value:.{digits}f}"


def share(value: float | None) -> str:
    """Write a share of 1 in per cent."""
    return NONE if value is None else f"{100 * value:.1f}%"


def small(value: float | None) -> str:
    """Write a p value or a correlation with three significant digits."""
    return NONE if value is None else f"{value:.3g}"


def between(interval: Interval | None) -> str:
    """Write the ends of an interval of a difference."""
    return NONE if interval is None else str(interval)


def difference(mean: SeedMean) -> str:
    """Write a difference from the baseline with its interval."""
    if mean.difference is None:
        return NONE
    ends = "" if mean.interval is None else f" ({mean.interval})"
    return signed(mean.difference) + ends


def with_spread(mean: float | None, spread: float | None, digits: int = 3) -> str:
    """Write a mean, and the standard deviation that it has over the seeds."""
    if mean is None or spread is None:
        return plain(mean, digits)
    return f"{mean:.{digits}f} ± {spread:.{digits}f}"


def large(value: float | None) -> str:
    """Write a large number with a letter for its power of 1000: 1.23 G."""
    if value is None:
        return NONE
    for power, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= power:
            return f"{value / power:.3g} {letter}"
    return f"{value:.3g}"


def seconds(value: float | None) -> str:
    """Write a time in hours, minutes and seconds."""
    if value is None:
        return NONE
    minutes, rest = divmod(round(value), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
