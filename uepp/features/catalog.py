"""The resident catalogue: every product's token ids in memory-mapped columns, made once.

Row order is the product index everywhere: by `created_at` (unknown first), then `product_id`. So the
catalogue as of a moment is a prefix of the rows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf
from rich.progress import Progress

from uepp.config import FeaturesConfig
from uepp.features.bags import Bags, BagStore
from uepp.features.text import TEXT_FIELDS, Tokenizer
from uepp.features.vocabulary import Vocabulary, VocabularyCounter

_BATCH = 4_096


@dataclass(frozen=True)
class Catalog:
    """Token ids of N products.

    Attributes:
        product_ids: [N] product ids by product index.
        titles: [N] titles, for title spans.
        groups: one `BagStore` of N rows for each group of fields.
    """

    product_ids: list[str]
    titles: list[str]
    groups: list[BagStore]

    def __len__(self) -> int:
        """N."""
        return len(self.product_ids)


def product_texts(products: pa.Table) -> dict[str, list[str]]:
    """A product table's text fields as the towers take them: one string a product and field.

    Tags are joined by newlines, attributes written one `key: value` a line, missing text is empty.
    """
    columns: dict[str, list[str]] = {}
    for field in TEXT_FIELDS:
        values = products.column(field).to_pylist()
        if field == "tags":
            columns[field] = ["\n".join(tags or ()) for tags in values]
        elif field == "attributes":
            columns[field] = [_attribute_lines(pairs or ()) for pairs in values]
        else:
            columns[field] = [text or "" for text in values]
    return columns


def _attribute_lines(pairs: Sequence[tuple[str, Sequence[str] | None]]) -> str:
    lines = (f"{key}: {value}" for key, values in pairs for value in values or () if value)
    return "\n".join(line.replace("\n", " ") for line in lines)


def num_products_before(products: pa.Table, moment: Any) -> int:
    """How many leading rows the catalogue had at a moment: products without `created_at` or created before it."""
    created = products.column("created_at")
    is_there = pc.or_kleene(pc.is_null(created), pc.less(created, pa.scalar(moment, created.type)))
    return int(pc.sum(is_there).as_py() or 0)


def build_vocabulary(
    config: FeaturesConfig, products: pa.Table, queries: Sequence[str], num_seen_products: int
) -> Vocabulary:
    """Count tokens over the products known in training and the training queries; keep the frequent ones.

    Args:
        config: tokens and sizes.
        products: the catalogue in product-index order.
        queries: distinct training queries.
        num_seen_products: leading rows that exist at the end of training (later ones would leak).
    """
    tokenizer = Tokenizer(config)
    fields = [field for group in config.groups for field in group]
    counter = VocabularyCounter()

    @tf.function(reduce_retracing=True)
    def product_tokens(batch: dict[str, tf.Tensor]) -> tf.RaggedTensor:
        return tokenizer.fields(batch, fields)

    query_tokens = tf.function(tokenizer.text, reduce_retracing=True)
    with Progress(transient=True) as progress:
        task = progress.add_task("vocabulary", total=num_seen_products + len(queries))
        for batch in _product_batches(products.slice(0, num_seen_products)):
            counter.add(product_tokens(batch).numpy())
            progress.advance(task, _BATCH)
        for begin in range(0, len(queries), _BATCH):
            counter.add(query_tokens(tf.constant(list(queries[begin : begin + _BATCH]), tf.string)).numpy())
            progress.advance(task, _BATCH)
    return counter.vocabulary(config.vocabulary_size, config.min_count, config.num_oov_buckets)


def build_catalog(config: FeaturesConfig, vocabulary: Vocabulary, products: pa.Table, directory: Path) -> Catalog:
    """Tokenise every product once, write its ids to `directory` and return the memory-mapped catalogue."""
    tokenizer = Tokenizer(config)
    table = vocabulary.lookup_table()

    @tf.function(reduce_retracing=True)
    def product_ids(batch: dict[str, tf.Tensor]) -> list[tuple[tf.Tensor, tf.Tensor]]:
        bags = []
        for group in config.groups:
            tokens = tokenizer.fields(batch, group)
            bags.append((tf.cast(table.lookup(tokens.values), tf.int32), tokens.row_lengths()))
        return bags

    parts: list[list[Bags]] = [[] for _ in config.groups]
    with Progress(transient=True) as progress:
        task = progress.add_task("catalogue", total=products.num_rows)
        for batch in _product_batches(products):
            for group, (values, lengths) in enumerate(product_ids(batch)):
                parts[group].append(Bags(values.numpy(), lengths.numpy().astype(np.int32)))
            progress.advance(task, _BATCH)
    directory.mkdir(parents=True, exist_ok=True)
    for group, bags in enumerate(parts):
        BagStore.concatenate(bags).save(directory / f"group_{group}")
        bags.clear()
    return load_catalog(config, products, directory)


def load_catalog(config: FeaturesConfig, products: pa.Table, directory: Path) -> Catalog:
    """Memory-map the catalogue that `build_catalog` wrote for these products."""
    return Catalog(
        product_ids=products.column("product_id").to_pylist(),
        titles=products.column("title").to_pylist(),
        groups=[BagStore.load(directory / f"group_{group}") for group in range(len(config.groups))],
    )


def _product_batches(products: pa.Table) -> Iterator[dict[str, tf.Tensor]]:
    for begin in range(0, products.num_rows, _BATCH):
        texts = product_texts(products.slice(begin, _BATCH))
        yield {field: tf.constant(values, tf.string) for field, values in texts.items()}
