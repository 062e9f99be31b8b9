"""What tests of batches share: other settings, batches as lists, and a stream over a handful of products."""

from typing import Any

import numpy as np
import pyarrow as pa
from conftest import Toy

from uepp.config import Config
from uepp.features.bags import Bags, BagStore
from uepp.features.batches import BatchMaker
from uepp.features.catalog import Catalog
from uepp.features.examples import Examples
from uepp.features.known_positives import KnownPositives

PRODUCT_BAGS = ("product/0", "product/1", "product/2", "product/zip", "product/graph")
QUERY_BAGS = ("query", "user/zip", "history/searches", "history/shops", "history/clicked", "history/purchased")


def changed(toy: Toy, **stages: dict[str, Any]) -> Config:
    """The toy's configuration with other settings, given by stage."""
    settings = toy.config.model_dump()
    return Config.model_validate(settings | {name: settings[name] | values for name, values in stages.items()})


def with_training(toy: Toy, **changes: Any) -> Config:
    return changed(toy, training=changes)


def rows_of(arrays: dict[str, np.ndarray], prefix: str) -> list[list[int]]:
    values = iter(arrays[f"{prefix}/values"].tolist())
    rows = [[next(values) for _ in range(length)] for length in arrays[f"{prefix}/lengths"]]
    assert next(values, None) is None
    return rows


def query_bag(toy: Toy, row: int) -> list[int]:
    return toy.query_tokens.gather(np.array([row])).values.tolist()


def product_bag(toy: Toy, product: int, name: str) -> list[int]:
    store = toy.catalog.columns[name]
    assert isinstance(store, BagStore)
    return store.gather(np.array([product])).values.tolist()


def query_rows_of(toy: Toy, arrays: dict[str, np.ndarray]) -> list[int]:
    by_bag = {tuple(query_bag(toy, row)): row for row in range(len(toy.examples.queries))}
    assert len(by_bag) == len(toy.examples.queries)
    return [by_bag[tuple(bag)] for bag in rows_of(arrays, "query")]


def tiny_maker(queries: list[str], pairs: list[tuple[int, int]], titles: list[str], **stages: dict) -> BatchMaker:
    """Examples given as query and product; the only token of query or product n is n."""
    number = max(len(titles), len(queries))
    bag = BagStore.concatenate([Bags(np.arange(number, dtype=np.int32), np.ones(number, np.int32))])
    rows, products = (np.array(column, np.int32) for column in zip(*pairs, strict=True))
    known = KnownPositives.of_pairs(queries, rows, products)
    examples = Examples(
        queries=queries,
        query_rows=np.array([query for query, _ in pairs], np.int32),
        product_index=np.array([product for _, product in pairs], np.int32),
        type_ids=np.zeros(len(pairs), np.int32),
        request_rows=np.arange(len(pairs), dtype=np.int32),
        contexts=pa.table({"user_id": pa.nulls(len(pairs), pa.string())}),
        known_positives=known,
        known_rows=known.rows_of(queries),
    )
    catalog = Catalog([str(n) for n in range(len(titles))], titles, {"product/0": bag}, {})
    config = Config.model_validate(stages)
    return BatchMaker(examples, bag, catalog, len(titles), config, config.training.batch_size)
