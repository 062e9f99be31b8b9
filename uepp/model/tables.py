"""The tables that encoders share."""

from functools import cached_property
from typing import TYPE_CHECKING

from uepp.config import Config
from uepp.model.embedding import EmbeddingTable
from uepp.model.seeds import named_seed

if TYPE_CHECKING:
    from uepp.features.fitted import Fitted


class Tables:
    """Each table once, made when an encoder first asks for it: a table that nothing reads takes no memory.

    Args:
        config: uses `model` and `training.seed`.
        fitted: sizes, and which group reads which vocabulary.
    """

    def __init__(self, config: Config, fitted: "Fitted") -> None:
        self.fitted = fitted
        self._model = config.model
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
