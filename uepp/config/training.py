"""The towers, the loss, the negatives and the steps."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from uepp.config.base import INTERACTION_TYPES, InteractionType, ProductEncoder, QueryEncoder, Stage, Weights


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

    @field_validator("product_encoders", "query_encoders")
    @classmethod
    def _once(cls, encoders: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(encoders)) != len(encoders):
            raise ValueError("each encoder once")
        return encoders


class LossConfig(Stage):
    """Multi-part hinge (UEPPR III-E), or softmax. Similarities are cosines in [-1, 1]."""

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

    @model_validator(mode="after")
    def _positives_are_above_negatives(self) -> "LossConfig":
        if self.kind == "hinge" and self.threshold_negative >= min(self.thresholds):
            raise ValueError(
                f"threshold_negative = {self.threshold_negative}: must be below the thresholds of clicks, carts and "
                f"purchases, {list(self.thresholds)}"
            )
        return self


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

    @model_validator(mode="after")
    def _something_pushes(self) -> "NegativesConfig":
        """Without negatives all similarities may become 1."""
        weights = {"in_batch_weight": self.in_batch_weight}
        weights |= {"uniform_weight": self.uniform_weight} if self.num_uniform else {}
        weights |= {"dynamic_weight": self.dynamic_weight} if self.dynamic_pool else {}
        for place, moment in enumerate(("first", "last")):
            if not any(pair[place] for pair in weights.values()):
                raise ValueError(
                    f"no negatives: {moment} weights of all sources that there are ({', '.join(weights)}) are 0"
                )
        for name, (first, last) in weights.items():
            if first != last and not (self.warmup_steps or self.ramp_steps):
                raise ValueError(f"{name} = [{first}, {last}]: give warmup_steps or ramp_steps too")
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
    table_learning_rate: float = Field(0.02, gt=0, description="Adagrad, tables of tokens, shops and places")
    dense_learning_rate: float = Field(0.001, gt=0, description="Adam, everything else")
    text_learning_rate: float = Field(0.0001, gt=0, description="Adam, a trainable text encoder")
    warmup_steps: int = Field(100, ge=0, description="both rates rise from 0 over these, then fall to 0 at max_steps")
    token_dropout: float = Field(
        0.0, ge=0, lt=1, description="share of tokens dropped from each logged query and product text while training"
    )
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
