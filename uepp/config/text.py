"""Pretrained text encoders."""

from typing import Literal

from pydantic import Field, model_validator

from uepp.config.base import InteractionType, Stage, TextField


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
    held_out_share: float = Field(
        0.05, gt=0, lt=1, description="products kept by stable hash: half choose the best step, half are reported"
    )
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
    seed: int = Field(1, ge=0, lt=2**32)
    batch_size: int = Field(64, ge=1, description="pairs a step, over all replicas")
    max_steps: int = Field(1_500, ge=0, description="0: the encoder as it starts, to compare with")
    learning_rate: float = Field(0.002, gt=0, description="Adam's highest rate")
    warmup_steps: int = Field(200, ge=0, description="the rate rises from 0 over these, then falls to 0 at max_steps")
    max_gradient_norm: float = Field(1.0, gt=0, description="gradients are scaled down to this norm")
    evaluate_every_steps: int = Field(
        250, ge=1, description="perplexity of the half that chooses; the best weights are kept"
    )
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
