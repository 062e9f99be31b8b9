"""Training batches: ids in, in an order that is a pure function of (seed, element).

A batch is never state: element e of the stream can be made at any time by any process, so a resumed
run meets the examples it would have met.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import tensorflow as tf

from uepp.config import INTERACTION_TYPES, Config, FeaturesConfig
from uepp.features.bags import Bags, BagStore, Column, column_names, take_column
from uepp.features.catalog import Catalog
from uepp.features.entries import Features
from uepp.features.examples import Examples, title_span
from uepp.features.fitted import SHARED, Fitted
from uepp.features.graph import Neighbors, load_neighbors
from uepp.features.histories import Histories, distinct_texts, load_histories, pointers_of
from uepp.features.inputs import QueryFeatures
from uepp.features.raw import as_tensors, table_inputs
from uepp.features.text import Tokenizer, normalized_queries
from uepp.features.vocabulary import Vocabulary

_ROUNDS = 4
_AT_ONCE = 8_192


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


def endless_order(places: np.ndarray, size: int, key: int) -> np.ndarray:
    """Rows that stand at some places of an endless stream over `size` rows, each epoch in an order of its own.

    Place p is place p mod size of epoch p ÷ size, whose order is `permuted` by key + epoch.

    Args:
        places: int64, at least 0, any shape.
        size: how many rows there are.
        key: one stream per key; keys are far enough apart for all epochs.

    Returns:
        int64 of the same shape, in [0, size).
    """
    epochs, within = np.divmod(places, size)
    rows = np.empty(places.shape, np.int64)
    for epoch in np.unique(epochs):
        is_here = epochs == epoch
        rows[is_here] = permuted(within[is_here], size, key + int(epoch))
    return rows


@dataclass(frozen=True)
class RequestFeatures:
    """What is known of who asked, for every training request and for one more of whom nothing is known.

    Attributes:
        contexts: row-aligned entries `user/…` of R + 1 requests; empty where no encoder reads contexts.
        histories: what the requests' pointers stand for; none without the history encoder.
        search_tokens: token ids of `histories.queries`.
    """

    contexts: dict[str, Column]
    histories: Histories | None
    search_tokens: BagStore


def load_request_features(
    config: Config, fitted: Fitted, examples: Examples, mined: Path, catalog: Catalog
) -> RequestFeatures:
    """Turn the contexts and histories of training requests into ids."""
    contexts = _encode_contexts(QueryFeatures(config, fitted), examples.contexts)
    histories, tokens = None, BagStore.concatenate([])
    if "history" in config.model.query_encoders:
        nothing = np.zeros((1, 2), np.int64)
        pointers = {kind: np.concatenate([edges, nothing]) for kind, edges in pointers_of(examples.contexts).items()}
        histories = load_histories(mined, pointers, catalog.product_ids, fitted.shops)
        tokens = tokenize_queries(config.features, fitted.vocabularies[SHARED], histories.queries)
    return RequestFeatures(contexts, histories, tokens)


def _encode_contexts(encode: QueryFeatures, contexts: pa.Table) -> dict[str, Column]:
    if not encode.columns:
        return {}
    # Column by column: a log may say that a place is never missing, and nobody's place always is.
    columns = {name: contexts.column(name) for name in encode.columns}
    contexts = pa.table(
        {
            name: pa.chunked_array([*column.chunks, pa.nulls(1, column.type)], column.type)
            for name, column in columns.items()
        }
    )
    entries = tf.function(encode, reduce_retracing=True)
    parts: dict[str, list[np.ndarray]] = {}
    for begin in range(0, contexts.num_rows, _AT_ONCE):
        inputs = as_tensors(table_inputs(contexts.slice(begin, _AT_ONCE), encode.columns))
        for name, value in entries(inputs).items():
            parts.setdefault(name, []).append(value.numpy())
    return {name: take_column(parts, name) for name in column_names(parts)}


class BatchMaker:
    """Element e of the training stream, as NumPy arrays.

    A batch holds B queries and C candidate products: each query's own positive in the same row, then m
    products drawn uniformly from the catalogue as training knows it, then the M of the dynamic pool.

    Args:
        examples: the positives.
        query_tokens: token ids of `examples.queries`.
        catalog: ids of every product.
        num_seen_products: leading products that exist at the end of training; negatives are drawn among them.
        config: of the run.
        batch_size: B.
        graph: neighbours of every product and the token ids of their queries; none without the graph encoder.
        requests: who asked; none: only the query is encoded.
        query_text: what the text encoder reads of `examples.queries`, Q rows; none: it reads no queries.
    """

    def __init__(
        self,
        examples: Examples,
        query_tokens: BagStore,
        catalog: Catalog,
        num_seen_products: int,
        config: Config,
        batch_size: int,
        *,
        graph: tuple[Neighbors, BagStore] | None = None,
        requests: RequestFeatures | None = None,
        query_text: np.ndarray | None = None,
    ) -> None:
        self._examples = examples
        self._query_tokens = query_tokens
        self._catalog = catalog
        self._num_seen_products = num_seen_products
        self._config = config
        self._graph = graph
        self._requests = requests
        self._query_text = query_text
        self.num_spans = round(config.training.title_query_share * batch_size)
        self.num_examples = batch_size - self.num_spans
        self._num_pool = min(config.negatives.dynamic_pool, num_seen_products)
        if graph is not None:
            self._neighbor_row_of = {query: row for row, query in enumerate(graph[0].queries)}
            self._own_neighbor = self._neighbor_rows(examples.queries)
        self._log_in_batch = self._log_expected_in_batch()

    def make(self, element: int) -> tuple[dict[str, np.ndarray], list[str]]:
        """Batch `element`: its arrays, and the title spans whose entries `query…` are still to be made."""
        examples, training, negatives = self._examples, self._config.training, self._config.negatives
        rng = np.random.Generator(np.random.Philox(key=[training.seed, element]))
        rows = self._example_rows(element)
        spans = rng.integers(0, self._num_seen_products, self.num_spans)
        uniform = rng.integers(0, self._num_seen_products, negatives.num_uniform)
        pool = rng.choice(self._num_seen_products, self._num_pool, replace=False, shuffle=False)
        candidates = np.concatenate([examples.product_index[rows], spans, uniform, pool]).astype(np.int32)
        query_rows = examples.query_rows[rows]
        texts = [title_span(self._catalog.titles[product], rng) for product in spans]
        known = self._known_positives(query_rows, texts, spans)
        log_uniform = np.full(len(uniform), np.log(max(len(uniform), 1) / self._num_seen_products), np.float32)
        purchase = np.full(self.num_spans, len(INTERACTION_TYPES) - 1)

        arrays: dict[str, np.ndarray] = {
            "element": np.array(element, np.int64),
            "candidates": candidates,
            "type_ids": np.concatenate([examples.type_ids[rows], purchase]).astype(np.int32),
            "log_expected_count": np.concatenate(
                [self._log_in_batch[candidates[: len(rows) + self.num_spans]], log_uniform]
            ),
        }
        arrays |= known.entries("known_positives")
        arrays |= self._query_tokens.gather(query_rows).drop(training.token_dropout, rng).entries("query")
        if self._query_text is not None:
            arrays["query/text"] = self._query_text[query_rows]
        arrays |= self._catalog.gather(candidates, training.token_dropout, rng)
        if self._graph is not None:
            arrays |= self._graph_entries(*self._graph, candidates, query_rows, texts, rng)
        if self._requests is not None:
            arrays |= self._request_entries(self._requests, examples.request_rows[rows])
        return arrays, texts

    def _known_positives(self, query_rows: np.ndarray, texts: list[str], products: np.ndarray) -> Bags:
        """What each query and each title span is known to be answered by; a span by its own product too."""
        examples = self._examples
        known = examples.known_positives.gather(examples.known_rows[query_rows])
        if not texts:
            return known
        of_spans = examples.known_positives.gather(examples.known_positives.rows_of(texts))
        row = np.concatenate([np.repeat(np.arange(len(texts)), of_spans.lengths), np.arange(len(texts))])
        pairs = np.unique(np.stack([row, np.concatenate([of_spans.values, products])], axis=1), axis=0)
        lengths = np.bincount(pairs[:, 0], minlength=len(texts)).astype(np.int32)
        return Bags(
            np.concatenate([known.values, pairs[:, 1]]).astype(np.int32), np.concatenate([known.lengths, lengths])
        )

    def _example_rows(self, element: int) -> np.ndarray:
        position = np.arange(element * self.num_examples, (element + 1) * self.num_examples)
        return endless_order(position, len(self._examples), self._config.training.seed << 32)

    def _log_expected_in_batch(self) -> np.ndarray:
        """Log of how often each product is expected among a batch's positives, float32 [N]."""
        share = np.bincount(self._examples.product_index, minlength=len(self._catalog)) / len(self._examples)
        expected = share * self.num_examples
        expected[: self._num_seen_products] += self.num_spans / self._num_seen_products
        return np.log(np.maximum(expected, 1e-12)).astype(np.float32)

    def _graph_entries(
        self,
        neighbors: Neighbors,
        tokens: BagStore,
        candidates: np.ndarray,
        query_rows: np.ndarray,
        texts: list[str],
        rng: np.random.Generator,
    ) -> dict[str, np.ndarray]:
        """Neighbour queries of every candidate; a positive's own query, or title span, is the target of each."""
        targets = np.full(len(candidates), -1, np.int32)
        targets[: len(query_rows)] = self._own_neighbor[query_rows]
        targets[len(query_rows) : len(query_rows) + len(texts)] = self._neighbor_rows(texts)
        rows = neighbors.sample(candidates, targets, self._config.graph, rng)
        return distinct_texts("product/graph", "graph", rows, tokens)

    def _neighbor_rows(self, queries: list[str]) -> np.ndarray:
        """Row of each query among the graph's, int32; -1: not there."""
        return np.array([self._neighbor_row_of.get(text, -1) for text in normalized_queries(queries)], np.int32)

    def _request_entries(self, requests: RequestFeatures, request_rows: np.ndarray) -> dict[str, np.ndarray]:
        """Place and history of every query; nothing is known of who asks for a title span."""
        nobody = self._examples.contexts.num_rows
        rows = np.concatenate([request_rows, np.full(self.num_spans, nobody)]).astype(np.int64)
        entries: dict[str, np.ndarray] = {}
        for name, column in requests.contexts.items():
            entries |= column.gather(rows).entries(name) if isinstance(column, BagStore) else {name: column[rows]}
        if requests.histories is not None:
            entries |= requests.histories.entries(
                rows, self._config.history, requests.search_tokens, self._catalog.terms
            )
        return entries


def build_batch_maker(
    config: Config,
    fitted: Fitted,
    catalog: Catalog,
    examples: Examples,
    mined: Path,
    num_seen_products: int,
    batch_size: int,
) -> BatchMaker:
    """Tokenise queries, read graph and histories as far as the encoders use them, and put the stream together."""
    vocabulary = fitted.vocabularies[SHARED]
    graph = None
    if "graph" in config.model.product_encoders:
        neighbors = load_neighbors(mined, catalog.product_ids)
        graph = neighbors, tokenize_queries(config.features, vocabulary, neighbors.queries)
    return BatchMaker(
        examples,
        tokenize_queries(config.features, vocabulary, examples.queries),
        catalog,
        num_seen_products,
        config,
        batch_size,
        graph=graph,
        requests=load_request_features(config, fitted, examples, mined, catalog),
        query_text=_encode_query_texts(config, fitted, examples.queries),
    )


def _encode_query_texts(config: Config, fitted: Fitted, queries: list[str]) -> np.ndarray | None:
    """What the text encoder of the query tower reads of some queries, one row each; none without one."""
    if "text" not in config.model.query_encoders:
        return None
    encode = tf.function(QueryFeatures(config, fitted), reduce_retracing=True)
    parts = [queries[begin : begin + _AT_ONCE] for begin in range(0, len(queries), _AT_ONCE)]
    return np.concatenate([encode({"query": tf.constant(part, tf.string)})["query/text"].numpy() for part in parts])


def tokenize_queries(config: FeaturesConfig, vocabulary: Vocabulary, queries: list[str]) -> BagStore:
    """Token ids of queries, one row each."""
    tokenizer, table = Tokenizer(config), vocabulary.lookup_table()

    def query_ids(batch: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        tokens = tokenizer.text(batch)
        return tf.cast(table.lookup(tokens.values), tf.int32), tf.cast(tokens.row_lengths(), tf.int32)

    # Traced once, for texts of any number: TensorFlow would warn of a function that is made anew with each vocabulary.
    query_ids = tf.function(query_ids).get_concrete_function(tf.TensorSpec([None], tf.string))
    parts = []
    for begin in range(0, len(queries), _AT_ONCE):
        values, lengths = query_ids(tf.constant(queries[begin : begin + _AT_ONCE], tf.string))
        parts.append(Bags(values.numpy(), lengths.numpy()))
    return BagStore.concatenate(parts)


def batch_dataset(maker: BatchMaker, encode: QueryFeatures, elements: tf.data.Dataset) -> tf.data.Dataset:
    """The stream as tf.data: one batched `numpy_function` an element, spans tokenised in the graph.

    Args:
        maker: makes elements.
        encode: makes the entries of spans; built outside of a strategy's scope, since a text encoder that is loaded
            within one runs on its replicas only.
        elements: int64 numbers of the elements, in the order to give them.
    """
    arrays, _ = maker.make(0)
    names = sorted(arrays)
    batch_size = maker.num_examples + maker.num_spans

    def make_arrays(element: np.ndarray) -> list[np.ndarray]:
        made, spans = maker.make(int(element))
        return [made[name] for name in names] + [np.array([span.encode() for span in spans], object)]

    def make_batch(element: tf.Tensor) -> Features:
        dtypes = [tf.as_dtype(arrays[name].dtype) for name in names]
        *tensors, spans = tf.numpy_function(make_arrays, [element], [*dtypes, tf.string], stateful=False)
        batch = dict(zip(names, tensors, strict=True))
        for name, tensor in batch.items():
            tensor.set_shape([None] if _varies(name) else arrays[name].shape)
        if maker.num_spans:
            spans.set_shape([maker.num_spans])
            for name, value in encode({"query": spans}).items():
                batch[name] = tf.concat([batch[name], value], axis=0)
                if not _varies(name):
                    batch[name] = tf.ensure_shape(batch[name], [batch_size, *batch[name].shape[1:]])
        return batch

    return elements.map(make_batch, num_parallel_calls=2, deterministic=True).prefetch(4)


def _varies(name: str) -> bool:
    """Whether an entry's length differs from batch to batch: ids of bags, and lists of distinct texts."""
    return name.endswith("/values") or name.startswith(("graph/", "searches/"))
