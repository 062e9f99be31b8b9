"""Judged pairs with their labels and the part of the split that each belongs to; `pairs.parquet` of a run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from uepp.artifacts import atomic_file
from uepp.config import RelevanceConfig
from uepp.errors import InputError
from uepp.features.text import query_numbers
from uepp.relevance.bi_encoder import Embeddings
from uepp.relevance.candidates import LabelledPairs
from uepp.relevance.judged import Judged
from uepp.relevance.pairs import (
    PARTS,
    POSITIVE_ABOVE,
    SOFT_LABELS,
    TextPairs,
    random_pairs,
    rows_of,
    soft_labels,
    split_by_query,
)

_COLUMNS = ("query", "product_id", "product", "part", "is_random", "grade", "label", "evaluation_label")


@dataclass(frozen=True, eq=False)
class PartPairs:
    """N judged and random pairs.

    Attributes:
        texts: the pairs; the grade of a random one is NaN.
        part: int64 [N], position in `PARTS`; all pairs of a query are in one.
        is_random: bool [N].
        labels: float32 [N], what training sees.
        evaluation_labels: float32 [N], gains of NDCG; at least .5 is relevant.
    """

    texts: TextPairs
    part: NDArray[np.int64]
    is_random: NDArray[np.bool_]
    labels: NDArray[np.float32]
    evaluation_labels: NDArray[np.float32]

    def rows(self, part: str) -> NDArray[np.int64]:
        """Pairs of a part of the split."""
        return np.flatnonzero(self.part == PARTS.index(part))

    def labelled(self, part: str, embeddings: Embeddings, positive_above: float | None) -> LabelledPairs:
        """Pairs of a part as samplers take them, with rows of all texts; `positive_above` none: `POSITIVE_ABOVE`."""
        rows = self.rows(part)
        return LabelledPairs(
            self.texts.query[rows], self.texts.product[rows], self.labels[rows], *embeddings,
            positive_above=POSITIVE_ABOVE if positive_above is None else positive_above,
            also_known=_known_of_other_spellings(self.texts, rows),
        )  # fmt: skip

    def levels(self) -> dict[str, tuple[int, float]]:
        """Of what was judged, by level that occurs, the highest first: how many pairs it has, and their least grade."""
        judged = ~self.is_random
        found = {}
        for name, (label, _) in SOFT_LABELS.items():
            grades = self.texts.grades[judged & (self.labels == np.float32(label))]
            if len(grades):
                found[name] = len(grades), float(grades.min())
        return found

    def save(self, path: Path) -> None:
        """Write `pairs.parquet`."""
        texts = self.texts
        columns = {
            "query": [texts.queries[row] for row in texts.query],
            "product_id": [texts.product_ids[row] for row in texts.product],
            "product": [texts.products[row] for row in texts.product],
            "part": [PARTS[part] for part in self.part],
            "is_random": self.is_random,
            "grade": pa.array(texts.grades, from_pandas=True),
            "label": self.labels,
            "evaluation_label": self.evaluation_labels,
        }
        with atomic_file(path) as temporary:
            pq.write_table(pa.table(columns), temporary, compression="zstd")

    @classmethod
    def load(cls, path: Path) -> "PartPairs":
        """Read `pairs.parquet`.

        Raises:
            InputError: it is missing, or not such a table.
        """
        try:
            table = pq.read_table(path, columns=list(_COLUMNS))
        except (OSError, pa.ArrowException) as error:
            raise InputError(f"{path}: not a readable table of pairs ({' '.join(str(error).split())})") from None
        queries, query = rows_of(table.column("query").to_pylist())
        ids, product = rows_of(table.column("product_id").to_pylist())
        products = table.column("product").to_pylist()
        first = np.unique(product, return_index=True)[1]
        grades = np.asarray(table.column("grade").fill_null(float("nan")), np.float64)
        return cls(
            TextPairs(queries, ids, [products[row] for row in first], query, product, grades),
            np.array([PARTS.index(part) for part in table.column("part").to_pylist()], np.int64),
            np.asarray(table.column("is_random"), bool),
            np.asarray(table.column("label"), np.float32),
            np.asarray(table.column("evaluation_label"), np.float32),
        )


def _known_of_other_spellings(texts: TextPairs, rows: NDArray[np.int64]) -> tuple[list[int], list[int]]:
    """What is judged for a query as it is written in one way is no negative where it is written in another.

    Likewise of products with the same text, which a cross-encoder cannot tell apart.

    Returns:
        Rows of queries and of products.
    """
    same_query, same_product = _of_the_same_text(texts.queries), _of_the_same_text(texts.products)
    queries, products = [], []
    for row in rows.tolist():
        query, product = int(texts.query[row]), int(texts.product[row])
        if query not in same_query and product not in same_product:
            continue
        for other in same_query.get(query, [query]):
            for another in same_product.get(product, [product]):
                queries.append(other)
                products.append(another)
    return queries, products


def _of_the_same_text(texts: Sequence[str]) -> dict[int, list[int]]:
    """By row, all rows of the same text but for case, accents and punctuation, where there are several."""
    number = query_numbers(texts)
    members: dict[int, list[int]] = {}
    for row in np.flatnonzero(np.bincount(number)[number] > 1).tolist():
        members.setdefault(int(number[row]), []).append(row)
    return {row: rows for rows in members.values() for row in rows}


def part_pairs(judged: Judged, config: RelevanceConfig) -> PartPairs:
    """Split by query, map grades to soft labels, add random pairs to each part (BHNS 4.2.1).

    Raises:
        InputError: a part would have no query.
    """
    pairs = judged.pairs
    validation_share = config.validation_share if config.patience else 0.0
    of_query = split_by_query(pairs.queries, config.evaluation_share, validation_share, config.split_seed, judged.later)
    query, product = [pairs.query], [pairs.product]
    for part in range(len(PARTS)):
        rows = np.flatnonzero(of_query == part)
        if len(rows):
            drawn = random_pairs(pairs, rows, config.random_share, (3, config.split_seed, part))
            query.append(drawn[0])
            product.append(drawn[1])
    train, evaluation = soft_labels(pairs.grades, judged.levels)
    all_queries = np.concatenate(query)
    zeros = np.zeros(len(all_queries) - len(pairs), np.float32)
    found = PartPairs(
        TextPairs(
            pairs.queries, pairs.product_ids, pairs.products, all_queries, np.concatenate(product),
            np.concatenate([pairs.grades, np.full(len(zeros), np.nan)]),
        ),
        of_query[all_queries],
        np.arange(len(all_queries)) >= len(pairs),
        np.concatenate([train, zeros]),
        np.concatenate([evaluation, zeros]),
    )  # fmt: skip
    return found
