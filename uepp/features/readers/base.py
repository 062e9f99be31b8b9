"""What a reader is: raw inputs to the entries of one encoder."""

import tensorflow as tf

from uepp.config import Config
from uepp.features.entries import Features
from uepp.features.fitted import SHARED, Fitted
from uepp.features.location import LocationLayer
from uepp.features.raw import COORDINATES
from uepp.features.text import Tokenizer
from uepp.features.text_encoder import TextEncoder, open_text_encoder


class Sources:
    """What readers look things up in, made once for all readers of a tower, before any function is traced.

    Each reader keeps what it needs. This is no `tf.Module`: a SavedModel would read every property of one, and so load
    and hold what no reader asked for, a text encoder in the query tower for instance.

    Args:
        config: of the run.
        fitted: vocabularies, shops, places, and where the text encoder is.
        text_encoder: the loaded one of a model that trains it; none: it is loaded when a reader asks for it.

    Attributes:
        tokens: the shared vocabulary, of queries and of every group without one of its own.
    """

    def __init__(self, config: Config, fitted: Fitted, text_encoder: TextEncoder | None = None) -> None:
        self.config = config
        self.fitted = fitted
        self.tokenizer = Tokenizer(config.features)
        self.tokens = fitted.vocabularies[SHARED].lookup_table()
        self._tables = {SHARED: self.tokens}
        self._shops: tf.lookup.StaticHashTable | None = None
        self._places: LocationLayer | None = None
        self._text_encoder = text_encoder

    def tokens_of(self, vocabulary: str) -> tf.lookup.StaticHashTable:
        """Token to row of its table."""
        if vocabulary not in self._tables:
            self._tables[vocabulary] = self.fitted.vocabularies[vocabulary].lookup_table()
        return self._tables[vocabulary]

    @property
    def shops(self) -> tf.lookup.StaticHashTable:
        """Shop id to row, −1 for one that is not in the table."""
        if self._shops is None:
            self._shops = self.fitted.shops.lookup_table()
        return self._shops

    @property
    def places(self) -> LocationLayer:
        """Context columns to rows of the location table."""
        if self._places is None:
            self._places = self.fitted.locations.layer()
        return self._places

    @property
    def text_encoder(self) -> TextEncoder:
        """The run's pretrained text encoder."""
        if self._text_encoder is None:
            assert self.fitted.text_encoder is not None, "the run's features have no text encoder"
            self._text_encoder = open_text_encoder(self.fitted.text_encoder)
        return self._text_encoder


class Reader(tf.Module):
    """Raw inputs by name to entries of the feature dictionary, in the TensorFlow graph.

    It runs when the catalogue and the training requests are prepared, and inside the exported tower. It is called
    where at least one of its inputs is given.

    Attributes:
        columns: of its inputs, those that are columns of the product table, or of the requests' contexts.
    """

    columns: tuple[str, ...] = ()

    @property
    def signature(self) -> dict[str, tf.TensorSpec]:
        """Every input by name; here, the columns."""
        return {name: column_spec(name) for name in self.columns}

    def __call__(self, inputs: Features) -> Features:
        """Entries of R products or requests; an empty string and NaN are what is not known."""
        raise NotImplementedError


def column_spec(name: str) -> tf.TensorSpec:
    """One value a row: [R] strings, or float32 degrees."""
    return tf.TensorSpec([None], tf.float32 if name in COORDINATES else tf.string, name)


def list_spec(name: str) -> tf.TensorSpec:
    """Texts of a row: [R, n] strings padded with empty ones."""
    return tf.TensorSpec([None, None], tf.string, name)
