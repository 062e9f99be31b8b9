"""The stories that the commands tell: each function puts stages together in the order of the data."""

from uepp.pipeline.boosting import boost, unboost
from uepp.pipeline.evaluation import OPPONENTS, evaluate_run
from uepp.pipeline.exporting import export, export_index
from uepp.pipeline.refreshing import refresh
from uepp.pipeline.training import Trained, train
from uepp.pipeline.tuning import tune

__all__ = [
    "OPPONENTS", "Trained", "boost", "evaluate_run", "export", "export_index", "refresh", "train", "tune", "unboost",
]  # fmt: skip
