"""What a ranker makes of lists that were found: measures of the list, and of its order alone (BHNS Table 5)."""

from collections.abc import Sequence

import numpy as np

from uepp.evaluation.measures import Measured
from uepp.evaluation.requests import Requests
from uepp.evaluation.slices import Slices, Wanted
from uepp.metrics import NOT_FOUND, auroc, ndcg_at, precision_at, recall_at, reciprocal_rank, target_positions


def measure_lists(ranking: np.ndarray, requests: Requests, slices: Slices, ks: Sequence[int]) -> Measured:
    """Measures of given lists.

    NDCG, Precision, MRR and Recall are those of `uepp.evaluation.measures`: a purchase that was not found is a miss,
    whoever ranks. `auc@K` is of the order alone, as in the paper: how often a purchase that was found stands above
    another product of the list; NaN where none was found.

    Args:
        ranking: int [R, K] product indexes, best first; -1: fewer were found.
        requests: R.
        slices: of these requests, without grades.
        ks: increasing, below K.
    """
    num_results = np.count_nonzero(ranking >= 0, axis=1)
    position_of = {
        id(table): target_positions(ranking, table.request, table.product_index)
        for table in {id(wanted.among): wanted.among for wanted in slices.wanted.values()}.values()
    }
    return Measured(
        {
            name: _measures(wanted, position_of[id(wanted.among)][wanted.pairs], num_results, ranking.shape[1], ks)
            for name, wanted in slices.wanted.items()
        }
    )


def measure_names(ks: Sequence[int], width: int) -> list[str]:
    """In the order of the paper's Table 5, then Recall at the width of the lists, which no order of them changes."""
    cut = [f"{name}@{k}" for name in ("ndcg", "precision") for k in ks]
    return [f"auc@{width}", f"mrr@{width}", *cut, f"recall@{width}"]


def _measures(
    wanted: Wanted, positions: np.ndarray, num_results: np.ndarray, width: int, ks: Sequence[int]
) -> dict[str, np.ndarray]:
    request, size = wanted.request, len(num_results)
    is_found = positions < NOT_FOUND
    in_list = np.ones(int(is_found.sum()), bool)
    values = {
        f"auc@{width}": auroc(positions[is_found], in_list, request[is_found], num_results, num_results),
        f"mrr@{width}": reciprocal_rank(width, positions, request, size),
    }
    values |= {f"ndcg@{k}": ndcg_at(k, positions, request, size) for k in ks}
    values |= {f"precision@{k}": precision_at(k, positions, request, size) for k in ks}
    values |= {f"recall@{k}": recall_at(k, positions, request, size) for k in (*ks, width)}
    return {name: values[name] for name in dict.fromkeys([*measure_names(ks, width), *values])}
