"""Users' histories as ids: what a request's pointers into the mined tables stand for (UEPPR III-C)."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from uepp.config import HistoryConfig
from uepp.data.histories import KINDS, history_path
from uepp.features.bags import Bags, BagStore
from uepp.features.vocabulary import Vocabulary


@dataclass(frozen=True)
class Histories:
    """One entry a row of the mined history tables, and how requests point at them.

    Attributes:
        queries: distinct queries of the searches.
        search_rows: int32 [searches], position in `queries`, -1 for a search without text.
        shop_rows: int32 [clicks], row of the shop's table, -1 where it has none.
        clicked: int32 [clicks], product index, -1 where the catalogue lacks it.
        purchased: int32 [purchases], likewise.
        pointers: int64 [R, 2] by kind: a request's history is rows [begin, end), earliest first.
    """

    queries: list[str]
    search_rows: np.ndarray
    shop_rows: np.ndarray
    clicked: np.ndarray
    purchased: np.ndarray
    pointers: dict[str, np.ndarray]

    def latest(self, kind: str, values: np.ndarray, requests: np.ndarray, number: int) -> Bags:
        """The latest entries of requests, most recent first; entries of -1 are left out.

        Args:
            kind: of the table that `values` belongs to.
            values: one a row of that table.
            requests: [R] requests.
            number: entries looked at for a request.
        """
        begin, end = self.pointers[kind][requests].T
        lengths = np.minimum(end - begin, number)
        row = np.repeat(np.arange(len(requests)), lengths)
        place = np.arange(len(row)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        found = values[end[row] - 1 - place]
        is_known = found >= 0
        return Bags(found[is_known], np.bincount(row[is_known], minlength=len(requests)).astype(np.int32))

    def entries(
        self, requests: np.ndarray, config: HistoryConfig, search_tokens: BagStore, terms: dict[str, BagStore]
    ) -> dict[str, np.ndarray]:
        """Entries `history/…` and `searches/…` of a batch.

        Args:
            requests: [R] requests.
            config: which parts, and how many entries of each.
            search_tokens: token ids of `queries`.
            terms: token ids of the catalogue's `title` and `tags`.
        """
        entries: dict[str, np.ndarray] = {}
        if config.num_searches:
            searches = self.latest("searches", self.search_rows, requests, config.num_searches)
            entries |= distinct_texts("history/searches", "searches", searches, search_tokens)
        if config.num_shops:
            entries |= self.latest("clicks", self.shop_rows, requests, config.num_shops).entries("history/shops")
        if config.num_clicked_products:
            clicked = self.latest("clicks", self.clicked, requests, config.num_clicked_products)
            entries |= _merged(terms["title"], clicked).entries("history/clicked")
        if config.num_purchased_products:
            purchased = self.latest("purchases", self.purchased, requests, config.num_purchased_products)
            entries |= _merged(terms["tags"], purchased).entries("history/purchased")
        return entries


def load_histories(
    mined: Path, pointers: dict[str, np.ndarray], product_ids: list[str], shops: Vocabulary
) -> Histories:
    """Read the mined history tables.

    Args:
        mined: folder of mined tables.
        pointers: see `Histories`.
        product_ids: the catalogue in product-index order.
        shops: shop ids by row.
    """
    catalogue = pa.array(product_ids)
    known_shops = pa.array([shop.decode() for shop in shops.tokens], pa.string())

    def column(kind: str, name: str) -> pa.Array:
        values = pq.read_table(history_path(mined, kind), columns=[name]).column(name)
        return values.cast(pa.large_string()).combine_chunks()  # a long log's texts are more than 2 GB

    def rows(values: pa.Array, among: pa.Array) -> np.ndarray:
        found = pc.index_in(values, among.cast(pa.large_string()), skip_nulls=True)
        return np.asarray(pc.fill_null(found, -1), np.int32)

    searched = column("searches", "query")
    queries = pc.unique(searched)
    queries = queries.filter(pc.not_equal(queries, ""))  # an empty text is no search where a tower is served
    return Histories(
        queries=queries.to_pylist(),
        search_rows=rows(searched, queries),
        shop_rows=rows(column("clicks", "shop_id"), known_shops),
        clicked=rows(column("clicks", "product_id"), catalogue),
        purchased=rows(column("purchases", "product_id"), catalogue),
        pointers=pointers,
    )


def pointers_of(requests: pa.Table) -> dict[str, np.ndarray]:
    """The pointer columns of mined requests: int64 [R, 2] by kind, rows [begin, end) of its history table."""
    return {
        kind: np.stack([np.asarray(requests.column(f"{kind}_{edge}"), np.int64) for edge in ("begin", "end")], axis=1)
        for kind in KINDS
    }


def distinct_texts(entry: str, shared: str, rows: Bags, tokens: BagStore) -> dict[str, np.ndarray]:
    """Bags of texts as bags of positions in one list of distinct texts, and the tokens of that list."""
    distinct, position = np.unique(rows.values, return_inverse=True)
    local = Bags(position.astype(np.int32), rows.lengths)
    return local.entries(entry) | tokens.gather(distinct).entries(shared)


def _merged(store: BagStore, products: Bags) -> Bags:
    """One bag a request out of the bags of its products."""
    bags = store.gather(products.values)
    row = np.repeat(np.arange(len(products.lengths)), products.lengths)
    lengths = np.bincount(row, weights=bags.lengths, minlength=len(products.lengths))
    return Bags(bags.values, lengths.astype(np.int32))
