"""The report of a run: one page that says how much better than BM25, for whom, how sure, and at what cost."""

from uepp.report.making import make_report

__all__ = ["make_report"]
