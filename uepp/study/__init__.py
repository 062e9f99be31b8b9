"""Studies: named variants × seeds, each a cell that is trained, exported and evaluated once, and kept.

A cell is keyed by the content of its configuration and data, so a study that is started again goes on where it
stopped, and studies share the cells that they have in common.
"""

from uepp.study.definition import Cell, Study, cells_of, encoders_of, load_study, with_other_cells
from uepp.study.running import make_encoders, run_study
from uepp.study.table import differences, markdown, print_study, summary

__all__ = [
    "Cell", "Study", "cells_of", "differences", "encoders_of", "load_study", "make_encoders", "markdown", "print_study",
    "run_study", "summary", "with_other_cells",
]  # fmt: skip
