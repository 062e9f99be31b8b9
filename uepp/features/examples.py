"""Training examples: the positive interactions of the log, or of a teacher, as ids."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from uepp.config import INTERACTION_TYPES, InteractionType, TrainingConfig
from uepp.data.histories import POINTERS
from uepp.errors import InputError
from uepp.features.bags import Bags
from uepp.features.known_positives import KnownPositives
from uepp.features.raw import PLACE

_MAX_SPAN_WORDS = 5
_TYPE_IDS = {name: position for position, name in enumerate(INTERACTION_TYPES)}


@dataclass(frozen=True)
class Examples:
    """Positive interactions as ids.

    Attributes:
        queries: the Q distinct training queries.
        query_rows: int32 [E], row in `queries`.
        product_index: int32 [E].
        type_ids: int32 [E], position in `INTERACTION_TYPES`.
        request_rows: int32 [E], row in `contexts`; the row after its last: nobody is known to have asked.
        contexts: context and history pointers of the distinct requests, one row each.
        known_positives: every product that had a positive interaction after a query, from examples of all types
            and from the query-product graph.
        known_rows: int32 [Q], row of each query in `known_positives`.
    """

    queries: list[str]
    query_rows: np.ndarray
    product_index: np.ndarray
    type_ids: np.ndarray
    request_rows: np.ndarray
    contexts: pa.Table
    known_positives: KnownPositives
    known_rows: np.ndarray

    def __len__(self) -> int:
        """E."""
        return len(self.query_rows)


def load_examples(mined: Path, product_ids: list[str], config: TrainingConfig) -> Examples:
    """Read the mined examples of the configured types and turn strings into ids.

    A pair has its strongest type. Where that is not configured it counts as the strongest one below it that is: what
    was bought was taken to the cart and looked at, too.

    Raises:
        InputError: no example of these types.
    """
    about_request = ["user_id", *PLACE, *POINTERS]
    table = pq.read_table(
        mined / "examples.parquet", columns=["request_id", "query", "product_id", "type", *about_request]
    )
    graph = pq.read_table(mined / "graph.parquet", columns=["query", "product_id"])
    counted = pa.array([_counted_as(name, config.positive_types) for name in INTERACTION_TYPES], pa.string())
    place = table.schema.get_field_index("type")
    types = counted.take(pc.index_in(table.column("type"), pa.array(INTERACTION_TYPES)).combine_chunks())
    examples = table.set_column(place, "type", types)
    examples = examples.filter(pc.is_valid(examples.column("type")))
    if not examples.num_rows:
        raise InputError(
            f"training.positive_types = {list(config.positive_types)}: no such interaction in the example window; "
            f"it holds {pc.unique(table.column('type')).to_pylist()}"
        )
    queries = pc.unique(examples.column("query"))
    catalogue = pa.array(product_ids)

    pairs_of_examples = table.select(["query", "product_id"])
    known = pa.concat_tables([pairs_of_examples, graph.cast(pairs_of_examples.schema)])
    known = known.filter(pc.is_in(known.column("product_id"), catalogue))
    asked = pc.unique(known.column("query"))
    positives = KnownPositives.of_pairs(
        asked.to_pylist(),
        _numpy(pc.index_in(known.column("query"), asked)),
        _numpy(pc.index_in(known.column("product_id"), catalogue)),
    )
    _, first, request_rows = np.unique(
        np.asarray(examples.column("request_id")), return_index=True, return_inverse=True
    )
    return Examples(
        queries=queries.to_pylist(),
        query_rows=_numpy(pc.index_in(examples.column("query"), queries)),
        product_index=_numpy(pc.index_in(examples.column("product_id"), catalogue)),
        type_ids=np.array([_TYPE_IDS[name] for name in examples.column("type").to_pylist()], np.int32),
        request_rows=request_rows.astype(np.int32),
        contexts=examples.select(about_request).take(first),
        known_positives=positives,
        known_rows=positives.rows_of(queries.to_pylist()),
    )


def _counted_as(strongest: InteractionType, configured: tuple[InteractionType, ...]) -> str | None:
    """The strongest configured type that is no stronger; none: the pair is no example."""
    below = INTERACTION_TYPES[: _TYPE_IDS[strongest] + 1]
    return next((name for name in reversed(below) if name in configured), None)


def with_weak_examples(examples: Examples, queries: list[str], products: Bags, known: Bags) -> Examples:
    """Examples and, as clicks of nobody, the products that a teacher gave for some queries.

    Args:
        examples: those of the log.
        queries: [T] texts, of the log or not.
        products: T bags of product indexes; known positives of their query from now on.
        known: T bags of what else is known to answer the query: the product that a title span was cut from.
    """
    every = list(dict.fromkeys([*examples.queries, *queries]))
    row_of = {query: row for row, query in enumerate(every)}
    weak_rows = np.repeat(np.array([row_of[query] for query in queries], np.int32), products.lengths)
    size = len(weak_rows)
    both = Bags(np.concatenate([products.values, known.values]), np.concatenate([products.lengths, known.lengths]))
    positives = examples.known_positives.joined([*queries, *queries], both)
    nobody = np.full(size, examples.contexts.num_rows, np.int32)
    return replace(
        examples,
        queries=every,
        query_rows=np.concatenate([examples.query_rows, weak_rows]),
        product_index=np.concatenate([examples.product_index, products.values.astype(np.int32)]),
        type_ids=np.concatenate([examples.type_ids, np.full(size, _TYPE_IDS["click"], np.int32)]),
        request_rows=np.concatenate([examples.request_rows, nobody]),
        known_positives=positives,
        known_rows=positives.rows_of(every),
    )


def title_span(title: str, rng: np.random.Generator) -> str:
    """One to five neighbouring words of a title: what somebody who wants the product might type."""
    words = title.split()
    length = int(rng.integers(1, _MAX_SPAN_WORDS + 1))
    begin = int(rng.integers(0, max(len(words) - length, 0) + 1))
    return " ".join(words[begin : begin + length])


def _numpy(column: pa.ChunkedArray) -> np.ndarray:
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return np.asarray(array.to_numpy(zero_copy_only=False), np.int32)
