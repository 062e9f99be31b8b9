"""Judged pairs of a data set: human grades, or, on a generated marketplace, its truth in the place of annotators."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from uepp.config import DataConfig, RelevanceConfig
from uepp.data.marketplace.truth import Truth
from uepp.data.schema import TIMESTAMP, connect, open_events
from uepp.data.windows import resolve_windows
from uepp.errors import InputError
from uepp.features.text import product_texts, query_keys
from uepp.relevance.pairs import TextPairs, grade_levels, is_at_least, rows_of


@dataclass(frozen=True, eq=False)
class Judged:
    """What is judged in a data set.

    Attributes:
        pairs: of query and product.
        levels: least grade of strongly relevant, relevant, somewhat relevant.
        truth: of a generated marketplace, for any pair.
        later: keys of queries that nobody asked before T (see `split_by_query`).
    """

    pairs: TextPairs
    levels: tuple[float, float, float]
    truth: Truth | None
    later: frozenset[str] = frozenset()

    def is_false_negative(self, query: np.ndarray, product: np.ndarray) -> np.ndarray:
        """Whether pairs that nobody judged are relevant or strongly relevant in truth: bool [P] of rows [P].

        Raises:
            ValueError: the truth is not known.
        """
        if self.truth is None:
            raise ValueError("no truth")
        found = np.zeros(len(query), bool)
        for row in np.unique(query):
            is_here = query == row
            ids = [self.pairs.product_ids[each] for each in product[is_here]]
            found[is_here] = self.truth.relevance(self.pairs.queries[row], ids) >= self.levels[1]
        return found


def read_judged(directory: Path, products: pa.Table, data: DataConfig, config: RelevanceConfig) -> Judged:
    """The judged pairs of a data set.

    `judgments.parquet` where there is one. Else, on a generated marketplace, what the paper's annotators see (BHNS
    4.2.1): a sample of search queries, each as likely as it displayed products, and for each those that were displayed
    most before T; the grade is the truth's relevance without a person.

    Args:
        directory: of a valid data set.
        products: its catalogue.
        data: says where T is: queries that were first asked later are marked, and a marketplace's displays after it are
            not looked at.
        config: which product fields are read, how many pairs of a marketplace are judged, and levels.

    Raises:
        InputError: the data set has neither, or a judged product is not in its catalogue.
    """
    has_truth = (directory / "truth" / "world.json").is_file()
    truth = Truth.load(directory) if has_truth else None
    path = directory / "judgments.parquet"
    later: frozenset[str] = frozenset()
    if path.is_file():
        table = pq.read_table(path, columns=["query", "product_id", "grade"])
        later = _first_asked_later(directory, data)
    elif truth is not None:
        table = _displayed(directory, resolve_windows(directory, data).train_end, config)
    else:
        raise InputError(
            f"{directory}: nothing is judged; expected judgments.parquet (query, product_id, grade), or a marketplace "
            "that uepp generate made, with its truth/"
        )
    queries, query = rows_of(table.column("query").to_pylist())
    ids, product = rows_of(table.column("product_id").to_pylist())
    place = pc.index_in(
        pa.array(ids, pa.string()), pc.cast(products.column("product_id"), pa.string()).combine_chunks()
    )
    if place.null_count:
        unknown = ids[place.is_null().index(True).as_py()]
        raise InputError(f"{path}: product_id {unknown!r} is not in {directory / 'products.parquet'}")
    texts = product_texts(products.take(place), config.fields)
    grades = np.zeros(len(query))
    if "grade" in table.column_names:
        grades = np.asarray(table.column("grade").cast(pa.float64()))
    elif truth is not None:
        for row, text in enumerate(queries):
            is_here = query == row
            grades[is_here] = truth.relevance(text, [ids[each] for each in product[is_here]])
    levels = _levels(grades, config, path) if path.is_file() else config.truth_levels
    return Judged(TextPairs(queries, ids, texts, query, product, grades), levels, truth, later)


def _levels(grades: np.ndarray, config: RelevanceConfig, path: Path) -> tuple[float, float, float]:
    """Those of the configuration, or of the grades' own range.

    Raises:
        InputError: there are no grades, no range, or none that is relevant.
    """
    if not len(grades):
        raise InputError(f"{path}: has no rows; expected one for each judged query and product")
    levels = config.grade_levels or grade_levels(grades)
    if levels is None:
        raise InputError(
            f"{path}: column grade: {grades[0]:g} in every row; expected grades that differ, or relevance.grade_levels"
        )
    if not is_at_least(grades, levels[1]).any():
        raise InputError(
            f"relevance.grade_levels = {list(levels)}: relevant is at least {levels[1]:g}, and {path} has grades of "
            f"{grades.min():g} to {grades.max():g}; leave it out, or give levels within these"
        )
    return levels


def _first_asked_later(directory: Path, data: DataConfig) -> frozenset[str]:
    """Keys of queries in the log that have no event before T: what the towers are evaluated on and never trained on."""
    import ibis

    try:
        train_end = resolve_windows(directory, data).train_end
    except InputError:
        if data.train_end is not None:  # a slip would let queries of after T be trained on, without a word
            raise
        return frozenset()  # nothing that towers could be trained on, so there are no windows to agree with
    con = connect()
    try:
        events = open_events(con, directory / "events.parquet")
        is_early = events.timestamp < ibis.literal(train_end, type="timestamp('UTC', 6)")
        found = events.group_by("query").agg(is_early=is_early.any()).to_pyarrow().to_pylist()
    finally:
        con.disconnect()
    keys = query_keys([row["query"] for row in found])
    early = {key for key, row in zip(keys, found, strict=True) if row["is_early"]}
    return frozenset(keys) - early


def _displayed(directory: Path, train_end: datetime, config: RelevanceConfig) -> pa.Table:
    """`query` and `product_id`: the most displayed products of a sample of queries, by what was seen before T."""
    path = directory / "events.parquet"
    events = pq.read_table(path, columns=["timestamp", "type", "query", "product_id"])
    is_early = pc.less(events.column("timestamp").cast(TIMESTAMP), pa.scalar(train_end, TIMESTAMP))
    is_shown = pc.and_(is_early, pc.equal(pc.cast(events.column("type"), pa.string()), "impression"))
    shown = events.filter(is_shown).select(["query", "product_id"])
    shown = pa.table({name: pc.cast(shown.column(name), pa.string()) for name in shown.column_names})
    if not shown.num_rows:
        raise InputError(f"{path}: no impressions before {train_end:%F}; the truth judges products that were displayed")
    counts = shown.group_by(["query", "product_id"]).aggregate([([], "count_all")])
    queries = counts.group_by("query").aggregate([("count_all", "sum")]).sort_by("query")
    weight = np.asarray(queries.column("count_all_sum"), np.float64)
    number = min(config.judged_queries, len(weight))
    rng = np.random.default_rng([2, config.split_seed])
    drawn = rng.choice(len(weight), number, replace=False, p=weight / weight.sum())
    of_drawn = pc.is_in(counts.column("query"), queries.column("query").combine_chunks().take(pa.array(np.sort(drawn))))
    order = [("query", "ascending"), ("count_all", "descending"), ("product_id", "ascending")]
    counts = counts.filter(of_drawn).sort_by(order)
    _, row = rows_of(counts.column("query").to_pylist())
    place = np.arange(len(row)) - np.searchsorted(row, row)
    return counts.filter(pa.array(place < config.judged_products)).select(["query", "product_id"])
