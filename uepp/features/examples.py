"""Training batches: ids in, in an order that is a pure function of (seed, step).

A batch is never state: element e of the stream can be made at any time by any process, so a resumed
run meets the examples it would have met.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import tensorflow as tf

from uepp.config import INTERACTION_TYPES, FeaturesConfig, TrainingConfig
from uepp.errors import InputError
from uepp.features.bags import Bags, BagStore
from uepp.features.catalog import Catalog
from uepp.features.text import Tokenizer
from uepp.features.vocabulary import Vocabulary

Batch = dict[str, tf.Tensor]

_MAX_SPAN_WORDS = 5
_ROUNDS = 4
_TYPE_IDS = {name: position for position, name in enumerate(INTERACTION_TYPES)}


@dataclass(frozen=True)
class Examples:
    """Positive interactions as ids.

    Attributes:
        queries: the Q distinct training queries.
        query_rows: int32 [E], row in `queries`.
        product_index: int32 [E].
        type_ids: int32 [E], position in `INTERACTION_TYPES`.
        known_positives: Q rows: every product that had a positive interaction after the query, from
            examples of all types and from the query-product graph.
    """

    queries: list[str]
    query_rows: np.ndarray
    product_index: np.ndarray
    type_ids: np.ndarray
    known_positives: BagStore

    def __len__(self) -> int:
        """E."""
        return len(self.query_rows)


def load_examples(mined: Path, product_ids: list[str], config: TrainingConfig) -> Examples:
    """Read the mined examples of the configured types and turn strings into ids.

    Raises:
        InputError: no example of these types.
    """
    table = pq.read_table(mined / "examples.parquet", columns=["query", "product_id", "type"])
    graph = pq.read_table(mined / "graph.parquet", columns=["query", "product_id"])
    examples = table.filter(pc.is_in(table.column("type"), pa.array(config.positive_types)))
    if not examples.num_rows:
        raise InputError(
            f"training.positive_types = {list(config.positive_types)}: no such interaction in the example window; "
            f"it holds {pc.unique(table.column('type')).to_pylist()}"
        )
    queries = pc.unique(examples.column("query"))
    catalogue = pa.array(product_ids)

    pairs_of_examples = table.select(["query", "product_id"])
    known = pa.concat_tables([pairs_of_examples, graph.cast(pairs_of_examples.schema)])
    query_rows = pc.index_in(known.column("query"), queries)
    known_products = pc.index_in(known.column("product_id"), catalogue)
    is_known = pc.and_(pc.is_valid(query_rows), pc.is_valid(known_products))
    pairs = np.stack([_numpy(pc.filter(column, is_known)) for column in (query_rows, known_products)], axis=1)
    pairs = np.unique(pairs, axis=0)
    lengths = np.bincount(pairs[:, 0], minlength=len(queries)).astype(np.int32)
    return Examples(
        queries=queries.to_pylist(),
        query_rows=_numpy(pc.index_in(examples.column("query"), queries)),
        product_index=_numpy(pc.index_in(examples.column("product_id"), catalogue)),
        type_ids=np.array([_TYPE_IDS[name] for name in examples.column("type").to_pylist()], np.int32),
        known_positives=BagStore.concatenate([Bags(np.ascontiguousarray(pairs[:, 1]), lengths)]),
    )


def _numpy(column: pa.ChunkedArray) -> np.ndarray:
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return np.asarray(array.to_numpy(zero_copy_only=False), np.int32)


def permuted(position: np.ndarray, size: int, key: int) -> np.ndarray:
    """Positions [0, size) in a keyed pseudo-random order, each computed by itself.

    A balanced Feistel network over the smallest even number of bits, walked until it falls inside:
    an epoch of any length is shuffled without holding it in memory.

    Args:
        position: integers in [0, size), any shape.
        size: how many positions there are.
        key: one order per key.

    Returns:
        int64 of the same shape; over all positions, a permutation.
    """
    half = max(1, (int(size - 1).bit_length() + 1) // 2)
    mask = np.uint64((1 << half) - 1)
    keys = np.random.Generator(np.random.Philox(key=key)).integers(1, 1 << 63, _ROUNDS, dtype=np.uint64)
    result = np.asarray(position).astype(np.uint64)
    is_outside = np.ones(result.shape, bool)
    while is_outside.any():
        value = result[is_outside]
        left, right = value >> np.uint64(half), value & mask
        for round_key in keys:
            mixed = (right + round_key) * np.uint64(0x9E3779B97F4A7C15)
            mixed = (mixed ^ (mixed >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
            left, right = right, left ^ ((mixed >> np.uint64(32)) & mask)
        result[is_outside] = (left << np.uint64(half)) | right
        is_outside = result >= np.uint64(size)
    return result.astype(np.int64)


class BatchMaker:
    """Element e of the training stream, as NumPy arrays.

    A batch holds B queries and C = B + m candidate products: each query's own positive in the same
    row, then m products drawn uniformly from the catalogue as training knows it.
    """

    def __init__(
        self,
        examples: Examples,
        query_tokens: BagStore,
        catalog: Catalog,
        num_seen_products: int,
        config: TrainingConfig,
        batch_size: int,
    ) -> None:
        self._examples = examples
        self._query_tokens = query_tokens
        self._catalog = catalog
        self._num_seen_products = num_seen_products
        self._config = config
        self.num_spans = round(config.title_query_share * batch_size)
        self.num_examples = batch_size - self.num_spans

    def make(self, element: int) -> tuple[dict[str, np.ndarray], list[str]]:
        """Batch `element`: its arrays, and the title spans that still have to become query tokens."""
        config = self._config
        rng = np.random.Generator(np.random.Philox(key=[config.seed, element]))
        position = np.arange(element * self.num_examples, (element + 1) * self.num_examples)
        rows = np.empty(self.num_examples, np.int64)
        for epoch in np.unique(position // len(self._examples)):
            is_here = position // len(self._examples) == epoch
            offset = position[is_here] % len(self._examples)
            rows[is_here] = permuted(offset, len(self._examples), key=(config.seed << 32) + int(epoch))
        span_products = rng.integers(0, self._num_seen_products, self.num_spans)
        negatives = rng.integers(0, self._num_seen_products, config.num_uniform_negatives)
        candidates = np.concatenate([self._examples.product_index[rows], span_products, negatives])
        query_rows = self._examples.query_rows[rows]

        queries = self._query_tokens.gather(query_rows).drop(config.token_dropout, rng)
        arrays = {
            "query/values": queries.values,
            "query/lengths": queries.lengths,
            "type_ids": np.concatenate(
                [self._examples.type_ids[rows], np.full(self.num_spans, len(INTERACTION_TYPES) - 1)]
            ).astype(np.int32),
            "is_known_positive": self._is_known_positive(query_rows, candidates),
        }
        for group, store in enumerate(self._catalog.groups):
            bags = store.gather(candidates).drop(config.token_dropout, rng)
            arrays[f"product/{group}/values"], arrays[f"product/{group}/lengths"] = bags
        return arrays, [self._title_span(product, rng) for product in span_products]

    def _is_known_positive(self, query_rows: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        """Bool [B, C]: the candidate is the query's own positive, or any product known to answer it, by id."""
        batch_size = self.num_examples + self.num_spans
        products, candidate_column = np.unique(candidates, return_inverse=True)
        is_known = np.zeros((batch_size, len(products)), bool)
        is_known[np.arange(batch_size), candidate_column[:batch_size]] = True
        known = self._examples.known_positives.gather(query_rows)
        column = np.minimum(np.searchsorted(products, known.values), len(products) - 1)
        is_here = products[column] == known.values
        row = np.repeat(np.arange(len(query_rows)), known.lengths)
        is_known[row[is_here], column[is_here]] = True
        return is_known[:, candidate_column]

    def _title_span(self, product: int, rng: np.random.Generator) -> str:
        words = self._catalog.titles[product].split()
        length = int(rng.integers(1, _MAX_SPAN_WORDS + 1))
        begin = int(rng.integers(0, max(len(words) - length, 0) + 1))
        return " ".join(words[begin : begin + length])


def tokenize_queries(config: FeaturesConfig, vocabulary: Vocabulary, queries: list[str]) -> BagStore:
    """Token ids of queries, one row each."""
    tokenizer, table = Tokenizer(config), vocabulary.lookup_table()

    @tf.function(reduce_retracing=True)
    def query_ids(batch: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        tokens = tokenizer.text(batch)
        return tf.cast(table.lookup(tokens.values), tf.int32), tf.cast(tokens.row_lengths(), tf.int32)

    parts = []
    for begin in range(0, len(queries), 8_192):
        values, lengths = query_ids(tf.constant(queries[begin : begin + 8_192], tf.string))
        parts.append(Bags(values.numpy(), lengths.numpy()))
    return BagStore.concatenate(parts)


def batch_dataset(
    maker: BatchMaker,
    features: FeaturesConfig,
    vocabulary: Vocabulary,
    first_element: int,
    num_elements: int,
) -> tf.data.Dataset:
    """The stream as tf.data: one batched `numpy_function` an element, spans tokenised in the graph.

    Args:
        maker: makes elements.
        features: how spans become tokens.
        vocabulary: token ids.
        first_element: where to start (a resumed run starts where it stopped).
        num_elements: how many to give.
    """
    tokenizer, table = Tokenizer(features), vocabulary.lookup_table()
    arrays, _ = maker.make(0)
    names = sorted(arrays)
    batch_size = maker.num_examples + maker.num_spans

    def make_arrays(element: np.ndarray) -> list[np.ndarray]:
        made, spans = maker.make(int(element))
        return [made[name] for name in names] + [np.array([span.encode() for span in spans], object)]

    def make_batch(element: tf.Tensor) -> Batch:
        dtypes = [tf.as_dtype(arrays[name].dtype) for name in names]
        *tensors, spans = tf.numpy_function(make_arrays, [element], [*dtypes, tf.string], stateful=False)
        batch = dict(zip(names, tensors, strict=True))
        for name, tensor in batch.items():
            tensor.set_shape([None] * arrays[name].ndim if name.endswith("values") else arrays[name].shape)
        if maker.num_spans:
            spans.set_shape([maker.num_spans])
            tokens = tokenizer.text(spans)
            ids = tf.cast(table.lookup(tokens.values), tf.int32)
            batch["query/values"] = tf.concat([batch["query/values"], ids], axis=0)
            lengths = tf.concat([batch["query/lengths"], tf.cast(tokens.row_lengths(), tf.int32)], axis=0)
            batch["query/lengths"] = tf.ensure_shape(lengths, [batch_size])
        return batch

    elements = tf.data.Dataset.range(first_element, first_element + num_elements)
    return elements.map(make_batch, num_parallel_calls=2, deterministic=True).prefetch(4)
