"""What a run learned, as one HTML file to look at."""

from albef.report.report import write_report

__all__ = ["write_report"]
