"""A person's own history as a retriever: what they bought or clicked before, then more of the same places and kinds."""

import numpy as np
import pyarrow as pa

from uepp.evaluation.popularity import Popularity, best_rows, padded
from uepp.features.requests import RawRequests

_KINDS = ("purchases", "clicks")
_NOBODY_TOOK_IT = 1e-3


class OwnHistory:
    """A person's products, then products of their shops and categories, then popular ones, whatever was asked.

    1. the products that the person bought or clicked before the request, most purchases first, then most clicks;
    2. products of the shops and categories of those, by (interactions with its shop + with its category) · popularity;
    3. popular products.

    The history of a request is what the mined pointers say, strictly before its moment. So this has no leak, and sees
    what happened since T as the towers do. Who is unknown gets popularity.

    Args:
        products: the catalogue in product-index order.
        popularity: what to back off to.
    """

    def __init__(self, products: pa.Table, popularity: Popularity) -> None:
        self._popularity = popularity
        self._weight = popularity.scores + _NOBODY_TOOK_IT
        self._groups = [_codes(products.column(name)) for name in ("shop_id", "category")]

    def rank(self, requests: RawRequests, k: int, num_products: int) -> np.ndarray:
        """See `uepp.evaluation.baselines.System`."""
        popular = best_rows(self._popularity.scores[:num_products], k)
        ranking = np.tile(padded(popular, k), (len(requests), 1))
        if requests.pointers is None or requests.past is None:
            return ranking
        has_history = np.any([requests.pointers[kind][:, 1] > requests.pointers[kind][:, 0] for kind in _KINDS], axis=0)
        for row in np.flatnonzero(has_history):
            events = []
            for kind in _KINDS:
                begin, end = requests.pointers[kind][row]
                products = requests.past.products[kind][begin:end]
                events.append(products[(products >= 0) & (products < num_products)])
            ranking[row] = padded(self._of_person(events, popular, k, num_products), k)
        return ranking

    def _of_person(self, events: list[np.ndarray], popular: np.ndarray, k: int, num_products: int) -> np.ndarray:
        """Product indexes, best first, of purchased and clicked products, one an event."""
        both = np.concatenate(events)
        own = np.unique(both)
        purchases, clicks = (np.bincount(np.searchsorted(own, one), minlength=len(own)) for one in events)
        scores = np.zeros(num_products)
        for codes, num_codes in self._groups:
            interactions = np.bincount(codes[both], minlength=num_codes).astype(float)
            interactions[0] = 0.0
            scores += interactions[codes[:num_products]]
        scores *= self._weight[:num_products]
        alike = best_rows(scores, k + len(own))
        ranked = np.concatenate([own[np.lexsort((own, -clicks, -purchases))], alike, popular])
        _, first = np.unique(ranked, return_index=True)
        return ranked[np.sort(first)][:k]


def _codes(column: pa.ChunkedArray) -> tuple[np.ndarray, int]:
    """A number for each product's value, 0 where it has none, and how many numbers there are."""
    encoded = column.combine_chunks().dictionary_encode()
    codes = np.asarray(encoded.indices.fill_null(-1), np.int64) + 1
    return codes, len(encoded.dictionary) + 1
