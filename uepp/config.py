"""Every setting of a run: one frozen model a stage, with its default, unit and range.

A YAML file holds only what differs from the defaults here. `--set a.b=value` goes through the same
models, so a setting is checked the same way wherever it comes from.
"""

import difflib
from collections.abc import Sequence
from datetime import datetime
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from uepp.errors import InputError
from uepp.index_families import parse_spec

InteractionType = Literal["click", "cart", "purchase"]
INTERACTION_TYPES: tuple[InteractionType, ...] = get_args(InteractionType)
"""Positive interactions, weakest first; the position is the type's id in batches."""

TextField = Literal["title", "tags", "category", "attributes", "description"]
ProductEncoder = Literal["tokens", "shop", "location", "graph", "text"]
QueryEncoder = Literal["tokens", "location", "history", "text"]
Weights = tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]]
"""A weight at the start of training and at its end."""


class Stage(BaseModel):
    """Base of all settings: immutable, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


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
    graph_days: int = Field(400, ge=1, description="query-product graph: [T - graph_days, T)")
    example_days: int = Field(30, ge=1, description="training examples: [T - example_days, T)")
    selection_days: int = Field(2, ge=1, description="everything that is tuned: [T, T + selection_days)")
    report_days: int = Field(5, ge=1, description="what is reported: the days after selection")
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


class TextConfig(Stage):
    """A pretrained text encoder in the towers (UEPPR III-A-1)."""

    encoder: str | None = Field(None, description="directory of a text encoder, as `uepp pretrain` writes it")
    fields: tuple[TextField, ...] = Field(
        ("title", "tags"), min_length=1, description="product fields it reads, joined in this order"
    )
    trainable: bool = Field(
        False, description="train it with the towers; else every product's vector is computed once, before training"
    )


class PretrainingConfig(Stage):
    """A T5 that learns to write the query that a product is bought for (docT5query, UEPPR III-A-1)."""

    weakest_interaction: InteractionType = Field(
        "click", description="products without a purchase: take the query of most carts or clicks, down to this one"
    )
    queries_per_product: int = Field(1, ge=1, description="most purchased queries of a product that are trained on")
    held_out_share: float = Field(0.05, gt=0, lt=1, description="products kept for perplexity, drawn by stable hash")
    preset: str | None = Field(
        None, description="a T5 of KerasHub, by name or local folder; none: from scratch in the sizes below"
    )
    vocabulary_size: int = Field(4_000, ge=16, description="SentencePiece pieces, learned from the catalogue")
    max_tokens: int = Field(48, ge=2, description="T, pieces read of a product's text, end mark included")
    max_query_tokens: int = Field(16, ge=2, description="pieces of a query, end mark included")
    dim: int = Field(128, ge=1, description="d, columns of the encoder's output")
    num_layers: int = Field(2, ge=1, description="transformer layers of the encoder, and of the decoder")
    num_heads: int = Field(4, ge=1, description="attention heads; divide dim")
    intermediate_dim: int = Field(256, ge=1, description="width of the feed-forward layers")
    dropout: float = Field(0.1, ge=0, lt=1)
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of the target spread over all pieces")
    precision: Literal["float32", "mixed_bfloat16"] = Field(
        "float32", description="mixed_bfloat16: layers compute in bfloat16, weights and loss stay float32"
    )
    seed: int = Field(1, ge=0)
    batch_size: int = Field(64, ge=1, description="pairs a step, over all replicas")
    max_steps: int = Field(1_500, ge=0, description="0: the encoder as it starts, to compare with")
    learning_rate: float = Field(0.002, gt=0, description="Adam's highest rate")
    warmup_steps: int = Field(200, ge=0, description="the rate rises from 0 over these, then falls to 0 at max_steps")
    max_gradient_norm: float = Field(1.0, gt=0, description="gradients are scaled down to this norm")
    evaluate_every_steps: int = Field(250, ge=1, description="held-out perplexity; the best weights are kept")
    patience: int = Field(4, ge=1, description="evaluations in a row without a better one that end the training")
    checkpoint_every_steps: int = Field(500, ge=1)
    keep_checkpoints: int = Field(2, ge=1)
    generated_queries: int = Field(
        0, ge=0, description="queries written for every product at the end; 1: the likeliest, more: drawn"
    )

    @model_validator(mode="after")
    def _heads_divide_dim(self) -> "PretrainingConfig":
        if self.preset is None and self.dim % self.num_heads:
            raise ValueError(f"num_heads = {self.num_heads}: must divide dim = {self.dim}")
        return self


class ModelConfig(Stage):
    """The two towers."""

    product_encoders: tuple[ProductEncoder, ...] = Field(
        ("tokens", "shop", "location", "graph"), min_length=1, description="what the product tower pools"
    )
    query_encoders: tuple[QueryEncoder, ...] = Field(
        ("tokens", "location", "history"), min_length=1, description="what the query-user tower pools"
    )
    token_dim: int = Field(128, ge=1, description="columns of the token tables and of the shop table")
    location_dim: int = Field(16, ge=1, description="columns of the location table")
    output_dim: int = Field(128, ge=1, description="d, size of both tower outputs")
    hidden_layers: tuple[Annotated[int, Field(ge=1)], ...] = Field((), description="widths of the feed-forward layers")
    batch_norm: bool = True
    precision: Literal["float32", "mixed_bfloat16"] = Field(
        "float32", description="mixed_bfloat16: feed-forward layers and transformer compute in bfloat16"
    )
    initial_projection: Literal["independent", "equal"] = Field(
        "equal", description="equal: both towers start as the same projection of the token average"
    )
    idf_start: bool = Field(True, description="scale initial token embeddings by inverse document frequency")
    normalize_groups: bool = Field(True, description="L2-normalise each group's average before concatenation")


class LossConfig(Stage):
    """Multi-part hinge (UEPPR III-E), or softmax for comparison. Similarities are cosines in [-1, 1]."""

    kind: Literal["hinge", "softmax"] = Field("hinge", description="softmax: sampled, with logQ correction")
    power: Literal[1, 2] = Field(2, description="1: the paper's linear hinge; 2: squared")
    threshold_click: float = Field(0.7, ge=-1, le=1)
    threshold_cart: float = Field(0.8, ge=-1, le=1)
    threshold_purchase: float = Field(0.9, ge=-1, le=1)
    threshold_negative: float = Field(0.2, ge=-1, le=1)
    temperature: float = Field(0.05, gt=0, description="softmax: similarities are divided by it")

    @property
    def thresholds(self) -> tuple[float, ...]:
        """Thresholds in the order of `INTERACTION_TYPES`."""
        return (self.threshold_click, self.threshold_cart, self.threshold_purchase)


class NegativesConfig(Stage):
    """Where negatives come from, and how much each source counts over time (UEPPR III-D).

    A weight stays at its first value for `warmup_steps`, then moves linearly to its second in `ramp_steps`.
    """

    num_uniform: int = Field(512, ge=0, description="catalogue products drawn uniformly, per replica and step")
    in_batch: Literal["uniform", "hardest"] = Field("uniform", description="which in-batch negatives a query gets")
    num_in_batch: int | None = Field(None, ge=1, description="in-batch negatives a query; none: all")
    dynamic_pool: int = Field(0, ge=0, description="products drawn to find hard ones in, per replica and step")
    num_dynamic: int = Field(8, ge=1, description="K, hardest of the pool a query")
    dynamic_chunk: int = Field(2_048, ge=1, description="products of the pool encoded at once")
    uniform_weight: Weights = (0.25, 0.25)
    in_batch_weight: Weights = (0.25, 0.25)
    dynamic_weight: Weights = (0.25, 0.25)
    warmup_steps: int = Field(0, ge=0, description="steps at the first weights")
    ramp_steps: int = Field(0, ge=0, description="steps from the first weights to the second")
    false_negative_temperature: float = Field(
        0.0, ge=0, description="tau of BHNS Eq. 7, which keeps likely false negatives from being chosen; 0: off"
    )
    gather: bool = Field(False, description="a query also meets the in-batch and uniform candidates of other replicas")

    @model_validator(mode="after")
    def _choices_have_an_effect(self) -> "NegativesConfig":
        is_hardest = self.in_batch == "hardest"
        if is_hardest and self.num_in_batch is None:
            raise ValueError(
                "in_batch = hardest: give num_in_batch too, how many a query gets; without it all are taken"
            )
        if self.false_negative_temperature and not (is_hardest or self.dynamic_pool):
            raise ValueError(
                f"false_negative_temperature = {self.false_negative_temperature}: it changes which hard negatives are "
                "chosen; set in_batch: hardest or a dynamic_pool"
            )
        return self


class TrainingConfig(Stage):
    """Optimisation. One step is one global batch."""

    seed: int = Field(1, ge=0, lt=2**32)
    positive_types: tuple[InteractionType, ...] = Field(INTERACTION_TYPES, min_length=1)
    batch_size: int = Field(512, ge=2, description="examples a step, over all replicas")
    max_steps: int = Field(3_000, ge=1)
    table_optimizer: Literal["adagrad", "rowwise_adagrad"] = Field(
        "adagrad", description="rowwise_adagrad: one slot a row, which nearly halves the memory of the tables"
    )
    table_learning_rate: float = Field(0.02, gt=0, description="Adagrad, sparse token tables")
    dense_learning_rate: float = Field(0.001, gt=0, description="Adam, everything else")
    text_learning_rate: float = Field(0.0001, gt=0, description="Adam, a trainable text encoder")
    warmup_steps: int = Field(100, ge=0, description="both rates rise from 0 over these, then fall to 0 at max_steps")
    token_dropout: float = Field(0.0, ge=0, lt=1, description="share of tokens dropped from each bag while training")
    title_query_share: float = Field(
        0.0, ge=0, lt=1, description="share of a batch whose query is a span of a product's own title"
    )
    deterministic: bool = Field(False, description="same bits on every run of the same machine, somewhat slower")
    teacher_queries: int = Field(
        0, ge=0, description="title spans that BM25 answers; they and the training queries become weak examples"
    )
    teacher_depth: int = Field(5, ge=1, description="BM25's best products taken as clicks of each such query")
    checkpoint_every_steps: int = Field(1_000, ge=1)
    keep_checkpoints: int = Field(2, ge=1)


class ExportConfig(Stage):
    """SavedModels, vectors and the Faiss index."""

    index: str = Field("flat", description="FAMILY[:name=value,…] (uepp/index_families.py), or auto")
    embed_batch_size: int = Field(1_024, ge=1)

    @field_validator("index")
    @classmethod
    def _known_index(cls, text: str) -> str:
        return str(parse_spec(text))


class BoostingConfig(Stage):
    """Quality features beside the vectors, and how far their weights may go (UEPPR IV)."""

    features: tuple[str, ...] | None = Field(
        None, min_length=1, description="quality features; none: all that the data have"
    )
    at: int = Field(100, ge=1, description="K of the Recall@K that the weights maximise")
    num_trials: int = Field(40, ge=1, description="weightings that are tried, for each third of the requests held out")
    max_boost: float = Field(
        0.5,
        gt=0,
        description="the most that quality may set two products apart, as a share of the similarity between the first "
        "and the K-th product of a request",
    )

    @field_validator("features")
    @classmethod
    def _each_once(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if names is not None and len(set(names)) != len(names):
            raise ValueError("each feature only once")
        return names


class ServingConfig(Stage):
    """Search as a service (UEPPR V); none of it changes what was trained."""

    depth: int = Field(200, ge=1, description="products that are ranked and cached for a request, at least")
    max_results: int = Field(1_000, ge=1, description="largest offset + k")
    min_similarity: Annotated[float, Field(ge=-1, le=1)] | Literal["auto"] | None = Field(
        None,
        description="products the towers find below it are left out, whatever their boost; "
        "auto: loss.threshold_negative; none: all stay",
    )
    cache: Literal["features", "user", "layered", "none"] = Field(
        "features",
        description="key of a cached ranking: a hash of what the query tower reads, who asks, first who and then that",
    )
    cache_size: int = Field(10_000, ge=1, description="rankings kept in each layer, about 5 kB each at depth 200")
    user_ttl_seconds: float = Field(60.0, gt=0, description="how long a ranking is kept for who asked")
    features_ttl_seconds: float = Field(3_600.0, gt=0, description="how long for all with the same features")
    max_batch: int = Field(32, ge=1, description="requests that go through the tower and the index together")
    max_waiting: int = Field(256, ge=1, description="requests that wait for the tower; more are answered with 503")
    timeout_seconds: float = Field(10.0, gt=0, description="for a request's body, and again for its answer")
    shutdown_seconds: float = Field(30.0, gt=0, description="how long requests under way may take after SIGTERM")
    max_body_bytes: int = Field(262_144, ge=1_024, description="of a request; larger ones are answered with 413")
    max_connections: int = Field(1_000, ge=1, description="open at once; more are answered with 503")
    threads: int | None = Field(None, ge=1, description="of the tower and of the index each; none: all cores")
    page: bool = Field(True, description="the page, and the people and suggestions that it shows")
    allowed_hosts: tuple[str, ...] = Field(
        (), description="names the server may be called by besides its address, for a proxy before it; *: any"
    )
    watch_seconds: float = Field(5.0, gt=0, description="with --watch, how often to look for a new export")


class EvaluationConfig(Stage):
    """What the closing table and `metrics.json` hold."""

    recall_at: tuple[int, ...] = Field((10, 100, 1000), min_length=1)
    segments: Literal["auto", "query_count", "rarest_word"] = Field(
        "auto",
        description="head/torso/tail by the query's count in the training window, or, without traffic, "
        "by the training count of its rarest word; auto: query_count where at least a tenth of the requests "
        "have a query that was seen in training",
    )

    @field_validator("recall_at")
    @classmethod
    def _increasing(cls, values: tuple[int, ...]) -> tuple[int, ...]:
        if min(values) < 1 or list(values) != sorted(set(values)):
            raise ValueError("must be increasing and at least 1")
        return values


class Config(Stage):
    """The whole run."""

    marketplace: MarketplaceConfig = MarketplaceConfig()
    data: DataConfig = DataConfig()
    features: FeaturesConfig = FeaturesConfig()
    graph: GraphConfig = GraphConfig()
    history: HistoryConfig = HistoryConfig()
    text: TextConfig = TextConfig()
    pretraining: PretrainingConfig = PretrainingConfig()
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    negatives: NegativesConfig = NegativesConfig()
    training: TrainingConfig = TrainingConfig()
    export: ExportConfig = ExportConfig()
    boosting: BoostingConfig = BoostingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    serving: ServingConfig = ServingConfig()

    @model_validator(mode="after")
    def _text_encoder_is_read(self) -> "Config":
        is_read = "text" in (*self.model.product_encoders, *self.model.query_encoders)
        if is_read and self.text.encoder is None:
            raise ValueError("text.encoder = None: give the directory of a text encoder (uepp pretrain makes one)")
        if self.text.encoder is not None and not is_read:
            raise ValueError(
                f"text.encoder = {self.text.encoder!r}: no tower reads it; add text to model.product_encoders"
            )
        return self


def load_config(
    source: str | None = None, overrides: Sequence[str] = (), extra: dict[str, Any] | None = None
) -> Config:
    """Read a configuration.

    Args:
        source: path of a YAML file, or the name of a shipped one (`demo`, `base`, …); none: all defaults.
        overrides: `key.path=value` strings, the value in YAML; they win over the file.
        extra: nested settings that win over both (what command-line options set).

    Raises:
        InputError: unreadable file, unknown key (with the nearest valid one), or a value out of range.
    """
    name, settings = ("defaults", {}) if source is None else _read_yaml(_locate(source))
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator or not key:
            raise InputError(f"--set {override}: expected key.path=value")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            raise InputError(f"--set {override}: the value is not valid YAML") from None
        _set_path(settings, key.split("."), value, f"--set {override}")
    settings = merge_settings(settings, extra or {})
    try:
        return Config.model_validate(settings)
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(str(part) for part in problem["loc"])
        given = [override.partition("=")[0] for override in overrides]
        is_override = any(key == path or key.startswith(f"{path}.") or path.startswith(f"{key}.") for path in given)
        raise InputError(f"{'--set' if is_override else name}: {_explain(key, problem)}") from None


def save_config(config: Config, path: Path) -> None:
    """Write every setting with its resolved value."""
    from uepp.artifacts import atomic_file

    with atomic_file(path) as temporary:
        temporary.write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False), encoding="utf-8")


def shipped_configs() -> list[str]:
    """Names of the configurations that are installed with the package."""
    return sorted(file.name[:-5] for file in resources.files("uepp.configs").iterdir() if file.name.endswith(".yaml"))


def shipped_studies() -> list[str]:
    """Names of the studies that are installed with the package."""
    folder = resources.files("uepp.configs") / "studies"
    return sorted(file.name[:-5] for file in folder.iterdir() if file.name.endswith(".yaml"))


def _locate(source: str) -> Path:
    path = Path(source)
    if path.is_file():
        return path
    name = path.name.removesuffix(".yaml")
    if name in shipped_configs():
        return Path(str(resources.files("uepp.configs") / f"{name}.yaml"))
    raise InputError(f"{source}: no such configuration; give a YAML file or one of: {', '.join(shipped_configs())}")


def _read_yaml(path: Path) -> tuple[str, dict[str, Any]]:
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from None
    if not isinstance(settings, dict):
        raise InputError(f"{path}: expected a mapping of stages to settings, got {type(settings).__name__}")
    # A stage whose settings are all commented out reads as null.
    return str(path), {stage: {} if value is None else value for stage, value in settings.items()}


def _set_path(settings: dict[str, Any], path: list[str], value: Any, where: str) -> None:
    for key in path[:-1]:
        settings = settings.setdefault(key, {})
        if not isinstance(settings, dict):
            raise InputError(f"{where}: {key} is a setting, not a stage")
    settings[path[-1]] = value


def merge_settings(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    """Nested settings; what `top` has wins."""
    merged = dict(base)
    for key, value in top.items():
        merged[key] = (
            merge_settings(merged[key], value)
            if isinstance(value, dict) and isinstance(merged.get(key), dict)
            else value
        )
    return merged


def _all_keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    keys = []
    for name, field in model.model_fields.items():
        keys.append(prefix + name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            keys += _all_keys(field.annotation, f"{prefix}{name}.")
    return keys


def _explain(key: str, problem: Any) -> str:
    """A problem in words: key, value received, what is allowed."""
    if problem["type"] == "extra_forbidden":
        known = _all_keys(Config)
        by_tail: dict[str, list[str]] = {}
        for candidate in known:
            by_tail.setdefault(candidate.rsplit(".", 1)[-1], []).append(candidate)
        name = key.rsplit(".", 1)[-1]
        nearest = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
        tail = difflib.get_close_matches(name, list(by_tail), n=1, cutoff=0.6)
        if tail and (name in by_tail or not nearest):
            nearest = [min(by_tail[tail[0]], key=len)]  # of several stages with that setting, the one without a prefix
        hint = nearest[0] if nearest else None
        return f"unknown key {key}" + (f"; did you mean {hint}?" if hint else "")
    message = problem["msg"].removeprefix("Value error, ")
    if not key:
        return str(message)
    return f"{key} = {problem['input']!r}: {message[0].lower()}{message[1:]}"
