"""Raw strings and numbers to the ids that the towers read, in the TensorFlow graph.

The same two classes run when the catalogue and the training requests are prepared and inside the
exported towers, so training and serving cannot differ.
"""

from collections.abc import Sequence

import tensorflow as tf

from uepp.config import Config
from uepp.features.entries import Features, token_entries
from uepp.features.fitted import Fitted
from uepp.features.readers import PRODUCT_READERS, QUERY_READERS
from uepp.features.readers.base import Reader, Sources
from uepp.features.readers.text import ProductText, ProductTextVectors
from uepp.features.text_encoder import TextEncoder


class Inputs(tf.Module):
    """Readers side by side."""

    def __init__(self, sources: Sources, readers: Sequence[Reader]) -> None:
        super().__init__()
        self._sources = sources
        self._readers = list(readers)

    @property
    def columns(self) -> tuple[str, ...]:
        """Inputs that are columns of the product table, or of the requests' contexts."""
        return tuple(dict.fromkeys(name for reader in self._readers for name in reader.columns))

    @property
    def signature(self) -> dict[str, tf.TensorSpec]:
        """Every input by name."""
        return {name: spec for reader in self._readers for name, spec in reader.signature.items()}

    def __call__(self, inputs: Features) -> Features:
        """Entries of R products or requests from the inputs that are given.

        Args:
            inputs: as in `signature`, or those of some readers; an empty string and NaN are what is not known.
        """
        features: Features = {}
        for reader in self._readers:
            if inputs.keys() & reader.signature.keys():
                features |= reader(inputs)
        return features


class ProductFeatures(Inputs):
    """Product fields to row-aligned entries `product/…`; those of neighbours are made for an export only.

    Args:
        config: `model.product_encoders` says what is read.
        fitted: vocabularies, shops, places, and where the text encoder is.
        text_encoder: the loaded one of a model that trains it; none: it is loaded where it is needed.
    """

    def __init__(self, config: Config, fitted: Fitted, text_encoder: TextEncoder | None = None) -> None:
        sources = Sources(config, fitted, text_encoder)
        super().__init__(sources, [PRODUCT_READERS[name](sources) for name in config.model.product_encoders])

    def with_text_vectors(self) -> Inputs:
        """The same, given a frozen text encoder's vectors in place of the texts."""
        vectors = ProductTextVectors(self._sources)
        return Inputs(self._sources, [vectors if isinstance(r, ProductText) else r for r in self._readers])

    def terms(self, inputs: Features, field: str) -> Features:
        """Bags `terms` of one text field in the shared vocabulary, for users' histories."""
        return token_entries("terms", self._sources.tokenizer.fields(inputs, [field]), self._sources.tokens)


class QueryFeatures(Inputs):
    """A query and what is known of who asks to entries `query…`, `user/…`, `history/…`.

    The query's tokens are read whatever the encoders are, since a history is read from the query's side.

    Args:
        config: `model.query_encoders` says what is read.
        fitted: vocabularies, shops, places, and where the text encoder is.
        text_encoder: the loaded one of a model that trains it; none: it is loaded where it is needed.
    """

    def __init__(self, config: Config, fitted: Fitted, text_encoder: TextEncoder | None = None) -> None:
        sources = Sources(config, fitted, text_encoder)
        names = dict.fromkeys(("tokens", *config.model.query_encoders))
        super().__init__(sources, [QUERY_READERS[name](sources) for name in names])
