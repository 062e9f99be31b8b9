"""Where the data is, and how it becomes ids."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from uepp.config.base import InteractionType, Stage, TextField

_MOST_DAYS = 36_500  # a century: all of any log, and dates still have a year


class MarketplaceConfig(Stage):
    """The generated marketplace that is used when `data.path` is not set."""

    num_products: int = Field(20_000, ge=50, description="products in the catalogue")
    num_events: int = Field(1_000_000, ge=1_000, description="rows of the log, impressions included")
    seed: int = Field(1, ge=0)


class DataConfig(Stage):
    """Where the data is, and the windows of mining and evaluation, in days around T = end of training."""

    path: str | None = Field(None, description="data set directory; none: generate the marketplace")
    train_end: datetime | None = Field(
        None, description="T (UTC); none: from the data set, else its last day minus the evaluation windows"
    )
    graph_days: int = Field(400, ge=1, le=_MOST_DAYS, description="query-product graph: [T - graph_days, T)")
    example_days: int = Field(30, ge=1, le=_MOST_DAYS, description="training examples: [T - example_days, T)")
    selection_days: int = Field(2, ge=1, le=_MOST_DAYS, description="everything that is tuned: [T, T + selection_days)")
    report_days: int = Field(5, ge=1, le=_MOST_DAYS, description="what is reported: the days after selection")
    max_requests_per_day: int = Field(11_000, ge=1, description="evaluated requests a day, drawn by stable hash")
    relevant_types: tuple[InteractionType, ...] = Field(
        ("purchase",), min_length=1, description="interactions that make a product a target of its request"
    )


class FeaturesConfig(Stage):
    """Text to token ids."""

    word_unigrams: bool = True
    word_bigrams: bool = True
    character_trigrams: bool = True
    vocabulary_size: int = Field(200_000, ge=1, description="most frequent tokens kept, the rest is hashed")
    min_count: int = Field(2, ge=1, description="rarer tokens are hashed")
    num_oov_buckets: int = Field(5_000, ge=1, description="rows shared by tokens outside the vocabulary")
    max_words_per_field: int = Field(100, ge=1, description="words read of a text; the rest of it is ignored")
    category_text: bool = Field(False, description="the words of a category's levels too, not only its level tokens")
    groups: tuple[tuple[TextField, ...], ...] = Field(
        (("title", "tags"), ("category", "attributes"), ("description",)),
        min_length=1,
        description="product fields; each group is averaged by itself, then the groups are concatenated",
    )

    own_tables: tuple[TextField, ...] = Field(
        (), description="groups with a vocabulary and a table of their own, each named by its first field"
    )
    location_buckets: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (50, 100, 500), description="k of each k-means clustering of training users' coordinates"
    )
    max_shops: int = Field(1_000_000, ge=1, description="shops with the most products kept; others count as none")

    @field_validator("location_buckets")
    @classmethod
    def _each_clustering_once(cls, sizes: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(sizes)) != len(sizes):
            raise ValueError("each k only once")
        return sizes

    @field_validator("groups")
    @classmethod
    def _each_field_once(cls, groups: tuple[tuple[str, ...], ...]) -> tuple[tuple[str, ...], ...]:
        fields = [field for group in groups for field in group]
        if len(set(fields)) != len(fields) or not all(groups):
            raise ValueError("each field belongs to exactly one group and no group is empty")
        return groups

    @model_validator(mode="after")
    def _some_text(self) -> "FeaturesConfig":
        if not (self.word_unigrams or self.word_bigrams or self.character_trigrams):
            raise ValueError("at least one of word_unigrams, word_bigrams, character_trigrams must be true")
        return self

    @model_validator(mode="after")
    def _own_tables_are_groups(self) -> "FeaturesConfig":
        first_fields = [group[0] for group in self.groups]
        if len(set(self.own_tables)) != len(self.own_tables) or not set(self.own_tables) <= set(first_fields):
            raise ValueError(f"own_tables = {list(self.own_tables)}: name groups by their first field, {first_fields}")
        return self


class GraphConfig(Stage):
    """The query-product graph as the graph encoder reads it (UEPPR III-A-2)."""

    num_neighbors: int = Field(8, ge=1, description="neighbour queries sampled for a product")
    sampling: Literal["uniform", "count"] = Field(
        "uniform", description="count: a query is drawn in proportion to its interactions with the product"
    )
    target_query: Literal["excluded", "leave_one_out"] = Field(
        "excluded",
        description="whether a positive's own query is its neighbour in training: never, or where others asked it too",
    )
    gradient: Literal["frozen", "shared"] = Field(
        "frozen", description="shared: the graph also moves the token table that it shares with the query (over-fits)"
    )


class HistoryConfig(Stage):
    """What the query tower knows of a person (UEPPR III-C); 0 switches a part off."""

    num_searches: int = Field(8, ge=0, description="recent searches in the transformer's sequence")
    num_shops: int = Field(8, ge=0, description="shops of recent clicks in the transformer's sequence")
    num_clicked_products: int = Field(8, ge=0, description="recently clicked products whose title's terms are read")
    num_purchased_products: int = Field(50, ge=0, description="latest purchased products whose tags are read")
    num_heads: int = Field(4, ge=1, description="attention heads")
    feed_forward_dim: int = Field(256, ge=1, description="width of the transformer's feed-forward layer")
