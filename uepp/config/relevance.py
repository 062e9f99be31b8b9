"""A cross-encoder that judges query and product as a pair (BHNS)."""

from typing import Literal, get_args

from pydantic import Field, model_validator

from uepp.config.base import Stage, TextField

SamplerName = Literal["none", "vns", "hns", "star", "false", "cet", "regularized", "pseudo_labels", "bhns"]
SAMPLER_NAMES: tuple[SamplerName, ...] = get_args(SamplerName)
"""Negative samplers, as `uepp.relevance.samplers` makes them, in the order of tables."""

BLIND_SAMPLERS: frozenset[SamplerName] = frozenset({"none", "vns", "cet"})
"""Those that look at no similarity, so they need no bi-encoder."""

Levels = tuple[float, float, float]

_FEW_LAYERS = 3  # of a published encoder: they are cut out of it, and learn their new task at a higher rate


class RelevanceConfig(Stage):
    """Training of a cross-encoder with sampled negatives (BHNS 2.2 to 4.2)."""

    encoder: str | None = Field(
        None,
        description="minilm, the folder of a published BERT, or a BERT preset of KerasHub: its first layers are the "
        "start; none: from scratch in the sizes below",
    )
    num_layers: int = Field(2, ge=1, description="transformer layers: the first ones of a published BERT, or new ones")
    dim: int = Field(128, ge=1, description="columns of the hidden states, from scratch")
    num_heads: int = Field(4, ge=1, description="attention heads, from scratch; divide dim")
    intermediate_dim: int = Field(256, ge=1, description="width of the feed-forward layers, from scratch")
    vocabulary_size: int = Field(4_000, ge=16, description="WordPiece words, learned from training texts, from scratch")
    max_tokens: int = Field(96, ge=5, description="T, tokens of query and product together, three marks included")
    dropout: float = Field(0.1, ge=0, lt=1)
    precision: Literal["float32", "mixed_bfloat16"] = Field(
        "float32", description="mixed_bfloat16: layers compute in bfloat16, weights, output and loss stay float32"
    )
    fields: tuple[TextField, ...] = Field(
        ("title", "tags", "category", "attributes"), min_length=1, description="product fields that are read, joined"
    )
    bi_encoder: str | None = Field(
        "minilm",
        description="frozen, guides the sampling: minilm, a text encoder, or a finished run of uepp train with its "
        "export; none: only for samplers that look at no similarity",
    )
    sampler: SamplerName = Field("bhns", description="who chooses negatives and their labels")
    num_negatives: int = Field(4, ge=1, description="K, negatives of a query in a step")
    sampled_weight: float | None = Field(
        None,
        gt=0,
        description="of a sampled pair in the loss, where a labelled one has 1; none: 1 / K, so at most half of the "
        "loss is theirs",
    )
    temperature: float = Field(2.0, ge=0, description="τ of (1 − θ)^τ (BHNS Eq. 7)")
    max_similarity: float = Field(0.3, ge=-1, le=1, description="of FALSE: candidates nearer to a positive are dropped")
    pool_size: int | None = Field(
        None,
        ge=1,
        description="labelled pairs whose products are candidates, those of the step among them; none: only those, so "
        "in-batch as in the paper. The hardest of more are harder, and more often false",
    )
    positive_above: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="labels above it are positive in θ and for FALSE; none: .4, so relevant or better; on STS-B 0",
    )
    grade_levels: Levels | None = Field(
        None,
        description="least grade of strongly relevant, relevant and somewhat relevant; below: not relevant; none: "
        "83.5%, 66.5% and half of the way from the lowest grade to the highest, so 2.67, 2.33 and 2 of 1 to 3",
    )
    truth_levels: Levels = Field(
        (0.75, 0.5, 0.2), description="the same of a generated marketplace's true relevance, 0 to 1"
    )
    judged_queries: int = Field(2_000, ge=2, description="queries of a marketplace that its truth judges")
    judged_products: int = Field(10, ge=1, description="most displayed products that are judged for each of them")
    random_share: float = Field(0.2, ge=0, le=1, description="random pairs labelled 0, added to each part's pairs")
    evaluation_share: float = Field(
        0.2, gt=0, lt=1, description="of the queries, about, that are never trained on; more where more are new at T"
    )
    validation_share: float = Field(0.1, gt=0, lt=1, description="of the others, queries for early stopping")
    split_seed: int = Field(1, ge=0, lt=2**32, description="judged queries of a marketplace, split, random pairs")
    seed: int = Field(1, ge=0, lt=2**32, description="first values, order, pools, negatives, dropout")
    batch_size: int = Field(32, ge=1, description="labelled pairs a step, over all replicas")
    max_steps: int = Field(1_000, ge=1, description="steps of the whole run")
    learning_rate: float | None = Field(
        None,
        gt=0,
        description="AdamW's highest rate; none: .0005 from scratch, .0003 from up to 3 layers of a published encoder, "
        ".00005 from more",
    )
    weight_decay: float = Field(0.01, ge=0, description="of kernels and embeddings, as a share of the rate")
    warmup_steps: int = Field(
        100, ge=0, description="the rate rises over these, then falls in a line to 0 at max_steps"
    )
    max_gradient_norm: float = Field(1.0, gt=0, description="gradients are scaled down to this norm")
    patience: int = Field(
        0, ge=0, description="validations in a row without a better NDCG@10 that end the training; 0: no validation"
    )
    evaluate_every_steps: int = Field(250, ge=1, description="a row of the log, and a validation")
    checkpoint_every_steps: int = Field(500, ge=1)
    keep_checkpoints: int = Field(2, ge=1)

    @property
    def peak_learning_rate(self) -> float:
        """`learning_rate`, or what it is by default."""
        if self.learning_rate is not None:
            return self.learning_rate
        if self.encoder is None:
            return 5e-4
        return 3e-4 if self.num_layers <= _FEW_LAYERS else 5e-5

    @property
    def weight_of_sampled(self) -> float:
        """`sampled_weight`, or what it is by default."""
        return 1.0 / self.num_negatives if self.sampled_weight is None else self.sampled_weight

    @property
    def pairs_in_pool(self) -> int:
        """`pool_size`, or what it is by default."""
        return self.batch_size if self.pool_size is None else self.pool_size

    @model_validator(mode="after")
    def _fits(self) -> "RelevanceConfig":
        if self.encoder is None and self.dim % self.num_heads:
            raise ValueError(f"num_heads = {self.num_heads}: must divide dim = {self.dim}")
        if self.bi_encoder is None and self.sampler not in BLIND_SAMPLERS:
            raise ValueError(f"bi_encoder = None: sampler {self.sampler} looks at similarities; give minilm or a path")
        if self.pairs_in_pool < self.batch_size:
            raise ValueError(f"pool_size = {self.pool_size}: must be at least batch_size = {self.batch_size}")
        for name in ("grade_levels", "truth_levels"):
            levels = getattr(self, name)
            if levels is not None and not levels[0] > levels[1] > levels[2]:
                raise ValueError(f"{name} = {list(levels)}: must fall from each to the next")
        return self
