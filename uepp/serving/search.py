"""Search: a query in, products with their similarity out."""

from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import tensorflow as tf

from uepp.errors import InputError
from uepp.features.text import normalize
from uepp.retrieval.embed import embed_queries, load_tower
from uepp.retrieval.export import open_export
from uepp.retrieval.index import read_index


@dataclass(frozen=True)
class Hit:
    """One result.

    Attributes:
        product_id: id of the product.
        title: its title.
        similarity: cosine of query and product, in [-1, 1].
    """

    product_id: str
    title: str
    similarity: float


class Searcher:
    """A run's query tower, index and product titles, loaded once.

    Args:
        run_dir: a run with an export; its manifest is checked.
    """

    def __init__(self, run_dir: Path) -> None:
        export = open_export(run_dir)
        self._query_tower = load_tower(export / "query_tower")
        self._index = read_index(export / "index.faiss")
        self._products = pq.read_table(export / "products.parquet", columns=["product_id", "title"])

    def search(self, query: str, k: int = 10) -> list[Hit]:
        """The k most similar products, best first; fewer where the catalogue is smaller.

        Raises:
            InputError: k is below 1, or the query is not UTF-8 or holds no word.
        """
        if k < 1:
            raise InputError(f"--k {k}: must be at least 1")
        try:
            query.encode()
        except UnicodeEncodeError:
            raise InputError(f"query {query!r}: not valid UTF-8") from None
        if not normalize(tf.constant(query)).numpy():
            raise InputError(f"query {query!r}: no word in it; give letters or digits")
        vectors = embed_queries(self._query_tower, [query])
        similarity, rows = self._index.search(vectors, min(k, self._products.num_rows))
        found = rows[0][rows[0] >= 0]  # an approximate index may return fewer, marked -1
        products = self._products.take(found).to_pylist()
        return [
            Hit(product["product_id"], product["title"], float(value))
            for product, value in zip(products, similarity[0], strict=False)
        ]
