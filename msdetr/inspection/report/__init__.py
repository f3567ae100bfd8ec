"""One self-contained HTML page of a match trace, with the assignment recomputed in the browser."""

from msdetr.inspection.report.writer import ReportSize, write_report

__all__ = ["ReportSize", "write_report"]
