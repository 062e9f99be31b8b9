"""The resident catalogue: every product's ids in memory-mapped columns, made once.

Row order is the product index everywhere: by `created_at` (unknown first), then `product_id`. So the
catalogue as of a moment is a prefix of the rows.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf
from rich.progress import Progress

from uepp.artifacts import read_json, write_json
from uepp.config import Config
from uepp.features.bags import BagStore, Column, column_names, take_column
from uepp.features.fitted import Fitted
from uepp.features.inputs import ProductFeatures
from uepp.features.raw import product_batches

_COLUMNS = "columns.json"
_TERMS = {"title": "terms/title", "tags": "terms/tags"}


@dataclass(frozen=True)
class Catalog:
    """Ids of N products.

    Attributes:
        product_ids: [N] product ids by product index.
        titles: [N] titles, for title spans.
        columns: the row-aligned entries of a batch by name (a bag's without `/values` and `/lengths`), N rows each.
        terms: ids of `title` and `tags` in the shared vocabulary, for users' histories, where these are read.
    """

    product_ids: list[str]
    titles: list[str]
    columns: dict[str, Column]
    terms: dict[str, BagStore]

    def __len__(self) -> int:
        """N."""
        return len(self.product_ids)

    def gather(self, rows: np.ndarray, token_dropout: float, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """The entries of some products.

        Args:
            rows: [C] product indexes, repeats allowed.
            token_dropout: share of the ids dropped from each text.
            rng: of the dropout.
        """
        entries: dict[str, np.ndarray] = {}
        for name, column in self.columns.items():
            if isinstance(column, BagStore):
                bags = column.gather(rows)
                is_text = name.removeprefix("product/").isdigit()
                entries |= bags.drop(token_dropout, rng).entries(name) if is_text else bags.entries(name)
            else:
                entries[name] = column[rows]
        return entries


def num_products_before(products: pa.Table, moment: Any) -> int:
    """How many leading rows the catalogue had at a moment: products without `created_at` or created before it."""
    created = products.column("created_at")
    is_there = pc.or_kleene(pc.is_null(created), pc.less(created, pa.scalar(moment, created.type)))
    return int(pc.sum(is_there).as_py() or 0)


def build_catalog(config: Config, fitted: Fitted, products: pa.Table, directory: Path) -> Catalog:
    """Turn every product into ids once, write them to `directory` and return the memory-mapped catalogue."""
    encode = ProductFeatures(config, fitted)
    terms = _terms(config)

    @tf.function(reduce_retracing=True)
    def entries(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        made = encode(batch)
        for field in terms:
            for part, value in encode.terms(batch, field).items():
                made[part.replace("terms", _TERMS[field], 1)] = value
        return made

    parts: dict[str, list[np.ndarray]] = {}
    names = tuple(dict.fromkeys((*encode.columns, *terms)))
    with Progress(transient=True) as progress:
        task = progress.add_task("catalogue", total=products.num_rows)
        for batch, size in product_batches(products, names):
            for name, value in entries(batch).items():
                parts.setdefault(name, []).append(value.numpy())
            progress.advance(task, size)
    directory.mkdir(parents=True, exist_ok=True)
    kinds: dict[str, str] = {}
    for name in column_names(parts):
        column, stem = take_column(parts, name), _stem(directory, name)
        if isinstance(column, BagStore):
            kinds[name] = "bags"
            column.save(stem)
        else:
            kinds[name] = "array"
            np.save(stem.with_name(stem.name + ".npy"), column)
    write_json(directory / _COLUMNS, kinds)
    return load_catalog(products, directory)


def load_catalog(products: pa.Table, directory: Path) -> Catalog:
    """Memory-map the catalogue that `build_catalog` wrote for these products."""
    columns: dict[str, Column] = {}
    for column, kind in read_json(directory / _COLUMNS).items():
        stem = _stem(directory, column)
        is_array = kind == "array"
        columns[column] = (
            np.load(stem.with_name(stem.name + ".npy"), mmap_mode="r") if is_array else BagStore.load(stem)
        )
    terms = {field: columns.pop(column) for field, column in _TERMS.items() if column in columns}
    return Catalog(
        product_ids=products.column("product_id").to_pylist(),
        titles=products.column("title").to_pylist(),
        columns=columns,
        terms=terms,  # type: ignore[arg-type]  # terms are always bags
    )


def read_text_vectors(config: Config, directory: Path) -> np.ndarray | None:
    """What a frozen text encoder made of each product, float32 [N, d], memory-mapped; none: no tower reads such."""
    if "text" not in config.model.product_encoders or config.text.trainable:
        return None
    vectors: np.ndarray = np.load(_stem(directory, "product/text").with_suffix(".npy"), mmap_mode="r")
    return vectors


def _stem(directory: Path, column: str) -> Path:
    return directory / column.replace("/", "_")


def _terms(config: Config) -> tuple[str, ...]:
    """Text fields that users' histories read."""
    if "history" not in config.model.query_encoders:
        return ()
    read = {"title": config.history.num_clicked_products, "tags": config.history.num_purchased_products}
    return tuple(field for field, number in read.items() if number)
