"""How long a sweep takes, beside re-matching setting by setting.

    msdetr inspect-matching --from-scratch ddetr_pp_900q --data COCO --output matching
    python benchmarks/sweep_matching.py matching/trace

The grid is 10 values of k, 10 thresholds and 10 IoU weights: 1,000 settings.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from msdetr.inspection.rematch import rematch
from msdetr.inspection.sweep.statistics import SweepGrid, sweep
from msdetr.inspection.trace import MatchTrace

GRID = SweepGrid(
    ks=tuple(range(1, 11)),
    thresholds=tuple(round(0.2 + 0.05 * i, 12) for i in range(10)),
    iou_weights=tuple(round(0.1 * i, 12) for i in range(10)),
    max_positive_fraction=0.25,
)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("trace", type=Path)
    parser.add_argument("--rematched", type=int, default=3, help="settings to re-match one by one")
    arguments = parser.parse_args()
    trace = MatchTrace.load(arguments.trace)
    num_targets = sum(image.num_targets for image in trace.images)
    print(f"{len(trace.images)} images, {num_targets} targets, {trace.info.num_queries} queries")
    start, processor = time.perf_counter(), time.process_time()
    settings = sweep(trace, GRID).settings
    elapsed, busy = time.perf_counter() - start, time.process_time() - processor
    print(f"sweep of {len(settings)} settings: {elapsed:.1f} s, {busy:.1f} s of processor time")
    start = time.process_time()
    for setting in settings[:: len(settings) // arguments.rematched][: arguments.rematched]:
        for image in trace.images:
            rematch(image, setting)
    each = (time.process_time() - start) / arguments.rematched
    print(f"one by one: {each:.2f} s of processor time per setting, {each * len(settings):.0f} s")


if __name__ == "__main__":
    main()
