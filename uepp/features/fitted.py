"""What features learn from training data before any model: vocabularies, shops and places."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf
from rich.progress import Progress

from uepp.config import FeaturesConfig
from uepp.features.location import Locations
from uepp.features.raw import product_batches
from uepp.features.text import Tokenizer
from uepp.features.vocabulary import Vocabulary, VocabularyCounter

SHARED = "shared"
"""Name of the vocabulary (and table) of queries and of every group without one of its own."""

TEXT_ENCODER = "text_encoder"
"""Folder of a run's text encoder."""

_QUERIES_AT_ONCE = 4_096


@dataclass(frozen=True)
class Fitted:
    """The fitted parts, all of them from before the end of training.

    Attributes:
        groups: `features.groups` that they were fitted for.
        vocabularies: `shared`, and one for each of `features.own_tables`.
        shops: shop ids; a shop that is not in it has no row.
        locations: names of places, and k-means centroids.
        text_encoder: directory of the pretrained text encoder; none: no tower has one.
    """

    groups: tuple[tuple[str, ...], ...]
    vocabularies: dict[str, Vocabulary]
    shops: Vocabulary
    locations: Locations
    text_encoder: Path | None = None

    def table_of_group(self, group: int) -> str:
        """Name of the vocabulary that reads a group of product fields."""
        return _table_of(self.groups[group], self.vocabularies)

    def save(self, directory: Path) -> None:
        """Write into an existing directory: the shared vocabulary itself, the others in folders.

        A text encoder is not written: it is copied into a run once, and an export has it in its towers.
        """
        for name, vocabulary in self.vocabularies.items():
            vocabulary.save(_made(_vocabulary_folder(directory, name)))
        self.shops.save(_made(directory / "shops"))
        self.locations.save(directory)

    @classmethod
    def load(cls, directory: Path, config: FeaturesConfig) -> "Fitted":
        """Read what `save` wrote."""
        names = (SHARED, *config.own_tables)
        return cls(
            groups=config.groups,
            vocabularies={name: Vocabulary.load(_vocabulary_folder(directory, name)) for name in names},
            shops=Vocabulary.load(directory / "shops"),
            locations=Locations.load(directory),
            text_encoder=directory / TEXT_ENCODER if (directory / TEXT_ENCODER).is_dir() else None,
        )


def fit_features(
    config: FeaturesConfig,
    products: pa.Table,
    queries: Sequence[str],
    contexts: pa.Table,
    num_seen_products: int,
    seed: int,
) -> Fitted:
    """Count tokens, shops and places, and cluster users' coordinates.

    Args:
        config: tokens, sizes, buckets.
        products: the catalogue in product-index order.
        queries: distinct training queries.
        contexts: context columns (and `user_id`) of training requests.
        num_seen_products: leading rows that exist at the end of training (later ones would leak).
        seed: of k-means.
    """
    seen = products.slice(0, num_seen_products)
    return Fitted(
        groups=config.groups,
        vocabularies=_fit_vocabularies(config, seen, queries),
        shops=_fit_shops(config, seen.column("shop_id")),
        locations=Locations.fit(config, contexts, products=seen, seed=seed),
    )


def _fit_vocabularies(config: FeaturesConfig, products: pa.Table, queries: Sequence[str]) -> dict[str, Vocabulary]:
    """A token counts once a text; a product's groups that share a table are one text."""
    tokenizer = Tokenizer(config)
    counters = {name: VocabularyCounter() for name in (SHARED, *config.own_tables)}
    fields: dict[str, list[str]] = {name: [] for name in counters}
    for group in config.groups:
        fields[_table_of(group, counters)] += group

    @tf.function(reduce_retracing=True)
    def product_tokens(batch: dict[str, tf.Tensor]) -> dict[str, tf.RaggedTensor]:
        return {name: tokenizer.fields(batch, names) for name, names in fields.items() if names}

    query_tokens = tf.function(tokenizer.text, reduce_retracing=True)
    every_field = [field for group in config.groups for field in group]
    with Progress(transient=True) as progress:
        task = progress.add_task("vocabulary", total=products.num_rows + len(queries))
        for batch, size in product_batches(products, every_field):
            for name, tokens in product_tokens(batch).items():
                counters[name].add(tokens.numpy())
            progress.advance(task, size)
        for begin in range(0, len(queries), _QUERIES_AT_ONCE):
            part = list(queries[begin : begin + _QUERIES_AT_ONCE])
            counters[SHARED].add(query_tokens(tf.constant(part, tf.string)).numpy())
            progress.advance(task, len(part))
    sizes = config.vocabulary_size, config.min_count, config.num_oov_buckets
    return {name: counter.vocabulary(*sizes) for name, counter in counters.items()}


def _fit_shops(config: FeaturesConfig, shop_ids: pa.ChunkedArray) -> Vocabulary:
    """The shops with the most products.

    An empty id is what a tower takes for a missing one, and one with a line break could not be saved: both have no row.
    """
    counted = pc.value_counts(shop_ids.drop_null())
    ids, counts = counted.field("values"), np.asarray(counted.field("counts"), np.int64)
    known = [(id_.encode(), count) for id_, count in zip(ids.to_pylist(), counts.tolist(), strict=True)]
    known = [pair for pair in known if pair[0] and b"\n" not in pair[0]]
    known = sorted(known, key=lambda pair: (-pair[1], pair[0]))[: config.max_shops]
    return Vocabulary([id_ for id_, _ in known], np.array([n for _, n in known], np.int64), len(shop_ids), 0)


def _table_of(group: Sequence[str], tables: Iterable[str]) -> str:
    return group[0] if group[0] in set(tables) else SHARED


def _vocabulary_folder(directory: Path, name: str) -> Path:
    return directory if name == SHARED else directory / "tables" / name


def _made(directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    return directory
