"""What tests of several trainings ask of what was trained."""

import csv
from pathlib import Path
from typing import Any

import numpy as np


def rows(run: Path) -> list[dict[str, float]]:
    """The log of a run; of a row, what it has."""
    with (run / "logs" / "training.csv").open(newline="") as stream:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(stream)]


def assert_same_weights(one: dict[str, Any], other: dict[str, Any], tolerance: float = 1e-6) -> None:
    """Compare `weights` of two results."""
    assert len(one["weights"]) == len(other["weights"]) > 15
    for left, right in zip(one["weights"], other["weights"], strict=True):
        np.testing.assert_allclose(left, right, atol=tolerance)
