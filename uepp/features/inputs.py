"""Raw strings and numbers to the ids that the towers read, in the TensorFlow graph.

The same two classes run when the catalogue and the training requests are prepared and inside the
exported towers, so training and serving cannot differ.
"""

from collections.abc import Sequence

import tensorflow as tf

from uepp.config import Config, HistoryConfig
from uepp.features.fitted import SHARED, Fitted
from uepp.features.raw import COORDINATES, PLACE
from uepp.features.text import TEXT_FIELDS, Tokenizer, joined_fields
from uepp.features.text_encoder import TextEncoder, open_text_encoder

Features = dict[str, tf.Tensor]


class ProductFeatures(tf.Module):
    """Product fields to row-aligned entries `product/…` (docs/architecture.md, "batches").

    Args:
        config: `features.groups`, `text` and `model.product_encoders` say what is read.
        fitted: vocabularies, shops, places, and where the text encoder is.
        text_encoder: the loaded one of a model that trains it; none: it is loaded where it is needed.
    """

    def __init__(self, config: Config, fitted: Fitted, text_encoder: TextEncoder | None = None) -> None:
        super().__init__()
        self._encoders = config.model.product_encoders
        self._text = config.text
        self._text_encoder = _text_encoder(self._encoders, fitted, text_encoder)
        self._groups = config.features.groups
        self._tokenizer = Tokenizer(config.features)
        self._table_of_group = [fitted.table_of_group(group) for group in range(len(self._groups))]
        self._tables = {name: vocabulary.lookup_table() for name, vocabulary in fitted.vocabularies.items()}
        self._shops = fitted.shops.lookup_table()
        self._places = fitted.locations.layer()

    @property
    def text_fields(self) -> tuple[str, ...]:
        """Text fields that some group reads."""
        return tuple(field for field in TEXT_FIELDS if any(field in group for group in self._groups))

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the product table that are read."""
        shop = ("shop_id",) if "shop" in self._encoders else ()
        text = self._text.fields if "text" in self._encoders else ()
        return tuple(dict.fromkeys((*self.text_fields, *text, *shop, *(PLACE if "location" in self._encoders else ()))))

    @property
    def signature(self) -> dict[str, tf.TensorSpec]:
        """Inputs by name: [R] strings, [R] float32 degrees, and with the graph encoder [R, n] neighbour queries."""
        specs = {name: _spec(name) for name in self.columns}
        if "graph" in self._encoders:
            specs["neighbor_queries"] = tf.TensorSpec([None, None], tf.string, "neighbor_queries")
        return specs

    def __call__(self, inputs: Features) -> Features:
        """Entries of R products; those of the graph encoder only where `neighbor_queries` is given.

        Args:
            inputs: as in `signature`; an empty string, an empty neighbour and NaN are what is not known.
        """
        features: Features = {}
        if "tokens" in self._encoders:
            for group, fields in enumerate(self._groups):
                table = self._tables[self._table_of_group[group]]
                features |= _bag(f"product/{group}", self._tokenizer.fields(inputs, fields), table)
        if "shop" in self._encoders:
            features["product/shop"] = tf.cast(self._shops.lookup(inputs["shop_id"]), tf.int32)
        if "location" in self._encoders:
            features |= _prefixed("product", self._places(*(inputs[name] for name in PLACE)))
        if self._text_encoder is not None:
            texts = joined_fields(inputs, self._text.fields)
            features["product/text"] = self._text_encoder.entries(texts, self._text.trainable)
        if "neighbor_queries" in inputs:
            features |= _rows_of_texts(
                "product/graph", "graph", inputs["neighbor_queries"], self._tokenizer, self._tables[SHARED]
            )
        return features

    def terms(self, inputs: Features, field: str) -> Features:
        """Bags `values`, `lengths` of one text field in the shared vocabulary, for users' histories."""
        return _bag("terms", self._tokenizer.fields(inputs, [field]), self._tables[SHARED])


class QueryFeatures(tf.Module):
    """A query and what is known of who asks to entries `query/…`, `user/…`, `history/…`.

    Args:
        config: `model.query_encoders`, `text` and `history` say what is read.
        fitted: vocabularies, shops, places, and where the text encoder is.
        text_encoder: the loaded one of a model that trains it; none: it is loaded where it is needed.
    """

    def __init__(self, config: Config, fitted: Fitted, text_encoder: TextEncoder | None = None) -> None:
        super().__init__()
        self._encoders = config.model.query_encoders
        self._is_trainable = config.text.trainable
        self._text_encoder = _text_encoder(self._encoders, fitted, text_encoder)
        self._history = config.history
        self._tokenizer = Tokenizer(config.features)
        self._tokens = fitted.vocabularies[SHARED].lookup_table()
        self._shops = fitted.shops.lookup_table()
        self._places = fitted.locations.layer()

    @property
    def signature(self) -> dict[str, tf.TensorSpec]:
        """Inputs by name: [R] strings and float32 degrees; histories [R, n] strings, most recent first."""
        specs = {"query": _spec("query")}
        if "location" in self._encoders:
            specs |= {name: _spec(name) for name in PLACE}
        if "history" in self._encoders:
            specs |= {name: tf.TensorSpec([None, None], tf.string, name) for name in history_inputs(self._history)}
        return specs

    def __call__(self, inputs: Features) -> Features:
        """Entries of R requests from the inputs that are given; an empty string is what is not there."""
        features = self.query(inputs["query"])
        if "location" in self._encoders:
            features |= self.places(inputs)
        if "recent_searches" in inputs:
            features |= _rows_of_texts(
                "history/searches", "searches", self._latest(inputs, "recent_searches"), self._tokenizer, self._tokens
            )
        if "recent_shops" in inputs:
            shops = _not_empty(self._latest(inputs, "recent_shops"))
            rows = shops.with_values(tf.cast(self._shops.lookup(shops.values), tf.int32))
            features |= _entries("history/shops", tf.ragged.boolean_mask(rows, rows >= 0))
        for name, entry, tokens_of in (
            ("recent_titles", "history/clicked", self._tokenizer.text),
            ("purchased_tags", "history/purchased", self._tokenizer.lines),
        ):
            if name in inputs:
                texts = _not_empty(self._latest(inputs, name))
                features |= _bag(entry, texts.with_values(tokens_of(texts.values)).merge_dims(1, 2), self._tokens)
        return features

    def query(self, texts: tf.Tensor) -> Features:
        """Entries `query…` of R queries from their text alone."""
        features = _bag("query", self._tokenizer.text(texts), self._tokens)
        if self._text_encoder is not None:
            features["query/text"] = self._text_encoder.entries(texts, self._is_trainable)
        return features

    def places(self, inputs: Features) -> Features:
        """Entries `user/…` of R requests from their context alone."""
        return _prefixed("user", self._places(*(inputs[name] for name in PLACE)))

    def _latest(self, inputs: Features, name: str) -> tf.Tensor:
        """As many of a history's entries as training looked at."""
        return inputs[name][:, : history_inputs(self._history)[name]]


def history_inputs(config: HistoryConfig) -> dict[str, int]:
    """Inputs of the history encoder, and how many of each are read."""
    numbers = {
        "recent_searches": config.num_searches,
        "recent_shops": config.num_shops,
        "recent_titles": config.num_clicked_products,
        "purchased_tags": config.num_purchased_products,
    }
    return {name: number for name, number in numbers.items() if number}


def _text_encoder(encoders: Sequence[str], fitted: Fitted, loaded: TextEncoder | None) -> TextEncoder | None:
    if "text" not in encoders:
        return None
    if loaded is None and fitted.text_encoder is not None:
        return open_text_encoder(fitted.text_encoder)
    return loaded


def _spec(name: str) -> tf.TensorSpec:
    return tf.TensorSpec([None], tf.float32 if name in COORDINATES else tf.string, name)


def _not_empty(texts: tf.Tensor) -> tf.RaggedTensor:
    """[R, n] strings padded with empty ones to ragged rows without them."""
    return tf.ragged.boolean_mask(texts, texts != "")


def _rows_of_texts(
    entry: str, shared: str, texts: tf.Tensor, tokenizer: Tokenizer, table: tf.lookup.StaticHashTable
) -> Features:
    """[R, n] texts as rows of one list of bags, each text once however often it occurs."""
    rows = _not_empty(texts)
    distinct, position = tf.unique(rows.values)
    return _entries(entry, rows.with_values(position)) | _bag(shared, tokenizer.text(distinct), table)


def _bag(entry: str, tokens: tf.RaggedTensor, table: tf.lookup.StaticHashTable) -> Features:
    return _entries(entry, tokens.with_values(tf.cast(table.lookup(tokens.values), tf.int32)))


def _entries(entry: str, ragged: tf.RaggedTensor) -> Features:
    return {f"{entry}/values": ragged.values, f"{entry}/lengths": tf.cast(ragged.row_lengths(), tf.int32)}


def _prefixed(prefix: str, features: Features) -> Features:
    return {f"{prefix}/{name}": value for name, value in features.items()}
