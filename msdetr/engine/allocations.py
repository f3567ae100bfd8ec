"""What torch allocates on the CPU, to the byte: the same in every run, unlike resident memory."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any, Self

from torch.profiler import ProfilerActivity, profile

_EVENT = "[memory]"


class AllocationGauge:
    """Peak of what torch allocates inside its ``with`` block, freed memory not counted.

    Slows down what it measures.

    Attributes:
        peak_mib: The peak in MiB beyond what there was before, once the block is left.
    """

    def __init__(self) -> None:
        self.peak_mib = 0.0
        # The profiler would tell stderr of itself, and of GPUs that there are not.
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")
        self._profile = profile(activities=[ProfilerActivity.CPU], profile_memory=True)

    def __enter__(self) -> Self:
        """Begin to count."""
        self._profile.__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:  # noqa: ANN401 - what Python passes
        """Read the peak, unless the block failed."""
        self._profile.__exit__(*error)  # type: ignore[no-untyped-call]
        if error[0] is None:
            self.peak_mib = self._find_peak() / 2**20

    def _find_peak(self) -> int:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "trace.json")
            self._profile.export_chrome_trace(str(file))
            events = json.loads(file.read_text(encoding="utf-8", errors="replace"))["traceEvents"]
        changes = sorted(
            (each["ts"], each["args"]["Bytes"]) for each in events if each.get("name") == _EVENT
        )
        peak = total = 0
        for _, num_bytes in changes:
            total += num_bytes
            peak = max(peak, total)
        return peak
