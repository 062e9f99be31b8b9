"""What encoders share: the tables, and the pretrained text encoder."""

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from uepp.config import Config
from uepp.features.text_encoder import TextEncoder, open_text_encoder, text_encoder_dim
from uepp.model.embedding import EmbeddingTable
from uepp.model.seeds import named_seed

if TYPE_CHECKING:
    from uepp.features.fitted import Fitted


class Tables:
    """Each once, made when an encoder first asks for it: what nothing reads takes no memory.

    Args:
        config: uses `model`, `text` and `training.seed`.
        fitted: sizes, which group reads which vocabulary, and where the text encoder is.
    """

    def __init__(self, config: Config, fitted: "Fitted") -> None:
        self.fitted = fitted
        self._model = config.model
        self._text = config.text
        self._seed = config.training.seed
        self._tokens: dict[str, EmbeddingTable] = {}

    @property
    def shared(self) -> EmbeddingTable:
        """Tokens of queries, and of everything else without a table of its own."""
        return self._of_vocabulary("shared")

    def of_group(self, group: int) -> EmbeddingTable:
        """Tokens of a product field group, by its position in `features.groups`."""
        return self._of_vocabulary(self.fitted.table_of_group(group))

    @cached_property
    def shops(self) -> EmbeddingTable:
        """Shops: a product's, and those of a user's clicks; a catalogue without shops has one unused row."""
        return self._new("shops", max(self.fitted.shops.size, 1), self._model.token_dim)

    @cached_property
    def locations(self) -> EmbeddingTable:
        """Locations of products and users, and zip prefixes."""
        return self._new("locations", self.fitted.locations.num_rows, self._model.location_dim)

    @cached_property
    def text_encoder(self) -> TextEncoder | None:
        """The text encoder that is trained with the towers; none: it is frozen."""
        return open_text_encoder(self._text_directory) if self._text.trainable else None

    @cached_property
    def text_dim(self) -> int:
        """Columns of the text encoder's vectors."""
        return text_encoder_dim(self._text_directory)

    @property
    def _text_directory(self) -> Path:
        if self.fitted.text_encoder is None:
            raise ValueError("the towers have a text encoder, but nothing was fitted for it")
        return self.fitted.text_encoder

    def _of_vocabulary(self, name: str) -> EmbeddingTable:
        if name not in self._tokens:
            vocabulary = self.fitted.vocabularies[name]
            row_scale = vocabulary.inverse_document_frequency() if self._model.idf_start else None
            self._tokens[name] = EmbeddingTable(
                vocabulary.size, self._model.token_dim, name, row_scale, named_seed(self._seed, name)
            )
        return self._tokens[name]

    def _new(self, name: str, num_rows: int, dim: int) -> EmbeddingTable:
        return EmbeddingTable(num_rows, dim, name, None, named_seed(self._seed, name))
