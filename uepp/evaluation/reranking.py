"""What a ranker makes of lists that were found: measures of the list, and of its order alone (BHNS Table 5)."""

from collections.abc import Sequence

import numpy as np

from uepp.evaluation.measures import Measured
from uepp.evaluation.requests import Requests
from uepp.evaluation.slices import Slices, Wanted
from uepp.metrics import auroc, ndcg_at, precision_at, recall_at, reciprocal_rank, target_positions


def measure_lists(ranking: np.ndarray, requests: Requests, slices: Slices, ks: Sequence[int], top: int) -> Measured:
    """Measures of given lists, whose first `top` products a ranker has ordered.

    NDCG, Precision, MRR and Recall are those of `uepp.evaluation.measures`: a purchase that was not found is a miss,
    whoever ranks. `auc@top` is of the ranker's order alone, as in the paper: how often a purchase that is among
    these products stands above another one of them; NaN where none is.

    Args:
        ranking: int [R, K] product indexes, best first; -1: fewer were found.
        requests: R.
        slices: of these requests, without grades.
        ks: increasing, at most K.
        top: at most K.
    """
    num_results = np.count_nonzero(ranking[:, :top] >= 0, axis=1)
    position_of = {
        id(table): target_positions(ranking, table.request, table.product_index)
        for table in {id(wanted.among): wanted.among for wanted in slices.wanted.values()}.values()
    }
    return Measured(
        {
            name: _measures(wanted, position_of[id(wanted.among)][wanted.pairs], num_results, ks, top)
            for name, wanted in slices.wanted.items()
        }
    )


def measure_names(ks: Sequence[int], top: int) -> list[str]:
    """In the order of the paper's Table 5, then Recall of what is ranked, which no order of it changes."""
    cut = [f"{name}@{k}" for name in ("ndcg", "precision") for k in ks]
    return [f"auc@{top}", f"mrr@{top}", *cut, f"recall@{top}"]


def _measures(
    wanted: Wanted, positions: np.ndarray, num_results: np.ndarray, ks: Sequence[int], top: int
) -> dict[str, np.ndarray]:
    request, size = wanted.request, len(num_results)
    is_ranked = positions < top
    in_list = np.ones(int(is_ranked.sum()), bool)
    values = {
        f"auc@{top}": auroc(positions[is_ranked], in_list, request[is_ranked], num_results, num_results),
        f"mrr@{top}": reciprocal_rank(top, positions, request, size),
    }
    values |= {f"ndcg@{k}": ndcg_at(k, positions, request, size) for k in ks}
    values |= {f"precision@{k}": precision_at(k, positions, request, size) for k in ks}
    values |= {f"recall@{k}": recall_at(k, positions, request, size) for k in (*ks, top)}
    return {name: values[name] for name in dict.fromkeys([*measure_names(ks, top), *values])}
