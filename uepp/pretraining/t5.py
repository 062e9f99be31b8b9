"""T5 of KerasHub: made, asked for the loss of teacher forcing, and cut down to its encoder."""

import os
import warnings
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "tensorflow"  # before Keras 3 is imported for the first time

import keras
import keras_hub
import tensorflow as tf

from uepp.config import PretrainingConfig
from uepp.errors import InputError
from uepp.pretraining.encoder import TextEncoder
from uepp.pretraining.sentencepiece_tokens import END, PAD, UNKNOWN, SentencePieceTokens

# KerasHub hands its attention a mask under the name of Keras' own masks, and Keras says that it will not pass it on.
# It has not to: the attention adds it to its scores (tests/pretraining/test_t5.py: nothing depends on padding).
MASK_WARNING = r"Layer '.*' \(of type T5MultiHeadAttention\) was passed an input with a mask"
warnings.filterwarnings("ignore", MASK_WARNING, UserWarning)


def build_t5(config: PretrainingConfig, vocabulary_size: int, precision: str = "float32") -> Any:
    """A T5 in the configured sizes, with new weights drawn by `config.seed`; a `keras_hub.models.T5Seq2SeqLM`.

    Gated GELU and a tied output layer whose input is scaled by d^-1/2, as T5 has them.
    """
    keras.utils.set_random_seed(config.seed)
    backbone = keras_hub.models.T5Backbone(
        vocabulary_size=vocabulary_size,
        num_layers=config.num_layers,
        num_heads=config.num_heads,
        hidden_dim=config.dim,
        intermediate_dim=config.intermediate_dim,
        dropout=config.dropout,
        activation="gelu",
        dtype=precision,
    )
    # KerasHub 0.32 draws embeddings around a mean of 1 (TruncatedNormal's first argument), all nearly the same.
    rows = keras.random.normal((vocabulary_size, config.dim), stddev=1.0, seed=config.seed)
    backbone.token_embedding.embeddings.assign(rows)
    return keras_hub.models.T5Seq2SeqLM(backbone)


def load_t5(preset: str, precision: str = "float32", dropout: float | None = None) -> tuple[Any, bytes]:
    """A pretrained T5 and its SentencePiece model.

    Args:
        preset: name of a KerasHub preset, or a folder that one was saved to.
        precision: of its layers.
        dropout: none: as it was saved.

    Raises:
        InputError: it cannot be loaded, or is no T5 of the usual ids.
    """
    changes = {} if dropout is None else {"dropout": dropout}
    try:
        tokenizer = keras_hub.models.T5Tokenizer.from_preset(preset)
        backbone = keras_hub.models.T5Backbone.from_preset(preset, dtype=precision, **changes)
    except Exception as error:  # whatever downloads, archives and formats raise
        reason = " ".join(str(error).split())[:300]
        raise InputError(
            f"pretraining.preset = {preset!r}: not a T5 that KerasHub can load; give a preset's name or a folder that "
            f"one was saved to ({type(error).__name__}: {reason})"
        ) from None
    ids = (tokenizer.pad_token_id, tokenizer.end_token_id, tokenizer.token_to_id("<unk>"))
    if ids != (PAD, END, UNKNOWN):
        raise InputError(
            f"pretraining.preset = {preset!r}: its padding, end and unknown pieces have the ids {ids}; "
            f"expected {(PAD, END, UNKNOWN)}"
        )
    return keras_hub.models.T5Seq2SeqLM(backbone), tokenizer.proto


def save_t5(model: Any, proto: bytes, directory: Path) -> None:
    """Save what `load_t5` loads again."""
    model.backbone.save_to_preset(str(directory))
    keras_hub.models.T5Tokenizer(proto).save_to_preset(str(directory))


def inputs_of(product_ids: tf.Tensor, query_ids: tf.Tensor) -> dict[str, tf.Tensor]:
    """What the model reads under teacher forcing: the query moved right by one, with padding as its first token.

    Args:
        product_ids: int32 [B, S].
        query_ids: int32 [B, T], end mark included.
    """
    product_ids, query_ids = tf.convert_to_tensor(product_ids), tf.convert_to_tensor(query_ids)
    start = tf.zeros_like(query_ids[:, :1])  # T5 starts its decoder with padding
    return {
        "encoder_token_ids": product_ids,
        "encoder_padding_mask": tf.cast(product_ids != PAD, tf.int32),
        "decoder_token_ids": tf.concat([start, query_ids[:, :-1]], axis=1),
        "decoder_padding_mask": tf.cast(query_ids != PAD, tf.int32),
    }


def query_losses(
    model: Any, product_ids: tf.Tensor, query_ids: tf.Tensor, *, label_smoothing: float = 0.0, training: bool = False
) -> tf.Tensor:
    """Cross-entropy of each piece of the queries, −Σ_v q_v ln p_v with q = (1 − λ) onehot + λ/V.

    Args:
        model: a `T5Seq2SeqLM`.
        product_ids: int32 [B, S].
        query_ids: int32 [B, T], end mark included.
        label_smoothing: λ; with 0 the sum over a query is −ln p(query | product).
        training: whether dropout is on.

    Returns:
        float32 [B, T], 0 where the query has padding.
    """
    logits = tf.cast(model(inputs_of(product_ids, query_ids), training=training), tf.float32)
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(query_ids, logits)
    if label_smoothing:
        spread = tf.reduce_logsumexp(logits, axis=-1) - tf.reduce_mean(logits, axis=-1)
        losses = (1 - label_smoothing) * losses + label_smoothing * spread
    return tf.where(query_ids != PAD, losses, 0.0)


def text_encoder_of(model: Any, proto: bytes, max_tokens: int) -> TextEncoder:
    """The encoder of a T5 (float32) as strings to vectors [B, d]."""
    backbone = model.backbone
    layers = [backbone.token_embedding, *backbone.encoder_transformer_layers, backbone.encoder_layer_norm]
    variables = {id(variable): variable.value for layer in layers for variable in layer.trainable_variables}
    if not backbone.tie_embedding_weights:
        del variables[id(backbone.token_embedding.reverse_embeddings)]  # the decoder's output layer
    return TextEncoder(
        SentencePieceTokens(proto, max_tokens),
        lambda ids, is_token: model.call_encoder(ids, tf.cast(is_token, tf.int32)),
        list(variables.values()),
        max_tokens=max_tokens,
    )
