"""Ids of what a person searched, clicked and bought (UEPPR III-C)."""

import tensorflow as tf

from uepp.config import HistoryConfig
from uepp.features.entries import Features, listed_texts, ragged_entries, token_entries, without_empty
from uepp.features.readers.base import Reader, Sources, list_spec


class UserHistory(Reader):
    """The latest of each kind, most recent first; a kind is read where it is given."""

    def __init__(self, sources: Sources) -> None:
        super().__init__()
        self._numbers = history_inputs(sources.config.history)
        self._tokenizer = sources.tokenizer
        self._tokens = sources.tokens
        self._shops = sources.shops if "recent_shops" in self._numbers else None

    @property
    def signature(self) -> dict[str, tf.TensorSpec]:
        """The kinds that the configuration reads, [R, n] each."""
        return {name: list_spec(name) for name in self._numbers}

    def __call__(self, inputs: Features) -> Features:
        """Bags `history/…`, and `searches` for recent searches."""
        # as many of each kind as training looked at
        latest = {name: inputs[name][:, :number] for name, number in self._numbers.items() if name in inputs}
        features: Features = {}
        if "recent_searches" in latest:
            features |= listed_texts(
                "history/searches", "searches", latest["recent_searches"], self._tokenizer, self._tokens
            )
        if "recent_shops" in latest and self._shops is not None:
            shops = without_empty(latest["recent_shops"])
            rows = shops.with_values(tf.cast(self._shops.lookup(shops.values), tf.int32))
            features |= ragged_entries("history/shops", tf.ragged.boolean_mask(rows, rows >= 0))
        for name, entry, tokens_of in (
            ("recent_titles", "history/clicked", self._tokenizer.text),
            ("purchased_tags", "history/purchased", self._tokenizer.lines),
        ):
            if name in latest:
                texts = without_empty(latest[name])
                tokens = texts.with_values(tokens_of(texts.values)).merge_dims(1, 2)
                features |= token_entries(entry, tokens, self._tokens)
        return features


def history_inputs(config: HistoryConfig) -> dict[str, int]:
    """Inputs of the history encoder, and how many of each are read."""
    numbers = {
        "recent_searches": config.num_searches,
        "recent_shops": config.num_shops,
        "recent_titles": config.num_clicked_products,
        "purchased_tags": config.num_purchased_products,
    }
    return {name: number for name, number in numbers.items() if number}
