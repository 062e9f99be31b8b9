"""Token ids of product fields and of the query (UEPPR III-A-3, III-B-1)."""

import tensorflow as tf

from uepp.features.entries import Features, token_entries
from uepp.features.readers.base import Reader, Sources, column_spec
from uepp.features.text import TEXT_FIELDS


class ProductTokens(Reader):
    """Fields of `features.groups`."""

    def __init__(self, sources: Sources) -> None:
        super().__init__()
        self._groups = sources.config.features.groups
        self._tokenizer = sources.tokenizer
        tables = [sources.fitted.table_of_group(group) for group in range(len(self._groups))]
        self._tables = [sources.tokens_of(table) for table in tables]
        self.columns = tuple(field for field in TEXT_FIELDS if any(field in group for group in self._groups))

    def __call__(self, inputs: Features) -> Features:
        """A bag `product/g` for group g."""
        features: Features = {}
        for group, (fields, table) in enumerate(zip(self._groups, self._tables, strict=True)):
            features |= token_entries(f"product/{group}", self._tokenizer.fields(inputs, fields), table)
        return features


class QueryTokens(Reader):
    """The query's text."""

    def __init__(self, sources: Sources) -> None:
        super().__init__()
        self._tokenizer = sources.tokenizer
        self._table = sources.tokens

    @property
    def signature(self) -> dict[str, tf.TensorSpec]:
        """`query`, [R]."""
        return {"query": column_spec("query")}

    def __call__(self, inputs: Features) -> Features:
        """The bag `query`."""
        return token_entries("query", self._tokenizer.text(inputs["query"]), self._table)
