"""The cross-encoder: one BERT reads query and product as one text and says how relevant they are (BHNS 2.2)."""

import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "tensorflow"  # before Keras 3 is imported for the first time

import keras
import keras_hub
import tensorflow as tf
import tensorflow_text as tf_text

from uepp.config import RelevanceConfig
from uepp.errors import InputError
from uepp.pretraining import bert
from uepp.pretraining.pieces import in_pieces

_SPECIAL = 3  # [CLS] and two [SEP]


class PairTokens(tf.Module):
    """Pairs of strings to rows of WordPiece ids: [CLS] query [SEP] product [SEP].

    Args:
        vocabulary: its words.
        max_tokens: T, these three included. Of a pair that is longer the longer text is cut first, piece by piece
            (round robin), so that a long title does not cost the query.

    Attributes:
        num_words: size of the vocabulary.

    Raises:
        InputError: T has no room for a piece of each, or the vocabulary lacks what BERT needs.
    """

    def __init__(self, vocabulary: bert.Vocabulary, max_tokens: int) -> None:
        super().__init__()
        if max_tokens < _SPECIAL + 2:
            raise InputError(f"max_tokens = {max_tokens}: must be at least {_SPECIAL + 2}")
        self._words = bert.WordPieceTokens(vocabulary, max_tokens)
        self._trimmer: Any = tf_text.RoundRobinTrimmer(max_seq_length=max_tokens - _SPECIAL)
        self.num_words = self._words.num_words

    def __call__(self, queries: tf.Tensor, products: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Strings [B] and [B] to ids and segments, int32 [B, S], as long as the longest pair, at most T.

        Ids are filled up with 0; segments are 0 up to the first [SEP] and 1 from there to the second.
        """
        texts = self._trimmer.trim([self._words.pieces(queries), self._words.pieces(products)])
        ids, segments = tf_text.combine_segments(texts, self._words.cls, self._words.sep)
        return ids.to_tensor(0), segments.to_tensor(0)


class CrossEncoder(tf.Module):
    """CE([q; p]): a score for each pair (BHNS Eq. 5).

    The mean of what the encoder says of all tokens, dropout, and one output. BHNS starts from a cross-encoder that
    reads [CLS]; published sentence encoders, and MiniLM among them, have learned their mean instead.

    Args:
        backbone: a `keras_hub.models.BertBackbone`.
        tokens: of the same vocabulary.
        dropout: before the output.
        seed: of the output's first weights.
    """

    # Not the properties of tf.Module: attributes are saved, and so are there in what is loaded.
    variables: Any = ()
    trainable_variables: Any = ()

    def __init__(self, backbone: Any, tokens: PairTokens, *, dropout: float, seed: int) -> None:
        super().__init__()
        states = keras.ops.cast(backbone.output["sequence_output"], "float32")
        mask = next(each for each in backbone.inputs if each.name == "padding_mask")
        weight = keras.ops.expand_dims(keras.ops.cast(mask, "float32"), 2)
        mean = keras.ops.sum(states * weight, axis=1) / keras.ops.sum(weight, axis=1)
        mean = keras.layers.Dropout(dropout, dtype="float32", seed=seed)(mean)
        initializer = keras.initializers.TruncatedNormal(stddev=0.02, seed=seed)
        output = keras.layers.Dense(1, dtype="float32", kernel_initializer=initializer, name="relevance")(mean)
        model = keras.Model(backbone.inputs, output)  # without the pooler, which nothing reads
        self._call = lambda inputs, training: model([inputs[each.name] for each in model.inputs], training=training)
        self._tokens = tokens
        self.variables = [variable.value for variable in model.variables]
        self.trainable_variables = [variable.value for variable in model.trainable_variables]

    def tokenize(self, queries: tf.Tensor, products: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Strings [B] and [B] to ids and segments, int32 [B, S] (see `PairTokens`)."""
        return self._tokens(queries, products)

    def logits(self, ids: tf.Tensor, segments: tf.Tensor, *, training: bool = False) -> tf.Tensor:
        """What the sigmoid is taken of, float32 [B], of ids and segments, int32 [B, S]; 0 in `ids` is padding."""

        def call(ids: tf.Tensor, segments: tf.Tensor) -> tf.Tensor:
            mask = tf.cast(ids != 0, tf.int32)
            return self._call({"token_ids": ids, "segment_ids": segments, "padding_mask": mask}, training)

        return in_pieces(call, ids, segments)[:, 0]

    @tf.function(
        input_signature=[tf.TensorSpec([None], tf.string, "query"), tf.TensorSpec([None], tf.string, "product")]
    )
    def score(self, query: tf.Tensor, product: tf.Tensor) -> dict[str, tf.Tensor]:
        """Of strings [B] and [B]: `score` in (0, 1), the estimated grade, and its `logit`, float32 [B]."""
        logit = self.logits(*self.tokenize(query, product))
        return {"logit": logit, "score": tf.sigmoid(logit)}

    def save(self, directory: Path) -> None:
        """Write a SavedModel with its tokeniser inside: `query`, `product` strings in, `score` and `logit` out."""
        tf.saved_model.save(self, str(directory), signatures={"serving_default": self.score})


def pair_losses(logits: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor | None = None) -> tf.Tensor:
    """Binary cross-entropy with graded labels, −w · (r log σ(x) + (1 − r) log(1 − σ(x))), of each pair.

    It is least where σ(x) = r.

    Args:
        logits: float32 [P], x.
        labels: float32 [P] in [0, 1], r.
        weights: float32 [P], w; none: 1.

    Returns:
        float32 [P].
    """
    losses = tf.nn.sigmoid_cross_entropy_with_logits(labels=labels, logits=logits)
    return losses if weights is None else weights * losses


def make_cross_encoder(config: RelevanceConfig, vocabulary: Path, seed: int) -> CrossEncoder:
    """The cross-encoder that a configuration describes.

    Args:
        config: from which encoder, or in which sizes from scratch.
        vocabulary: folder with `vocab.txt`, from scratch.
        seed: of what is new.

    Raises:
        InputError: the published encoder is not there, or has less than is asked for.
    """
    shared: dict[str, Any] = {
        "max_tokens": config.max_tokens,
        "num_layers": config.num_layers,
        "dropout": config.dropout,
    }
    shared |= {"seed": seed, "precision": config.precision}
    if config.encoder is not None:
        return load_cross_encoder(bert.locate(config.encoder, "relevance.encoder ="), **shared)
    return build_cross_encoder(
        vocabulary, num_heads=config.num_heads, dim=config.dim, intermediate_dim=config.intermediate_dim, **shared
    )


def build_cross_encoder(
    folder: Path,
    *,
    max_tokens: int,
    num_layers: int,
    num_heads: int,
    dim: int,
    intermediate_dim: int,
    dropout: float = 0.1,
    seed: int = 1,
    precision: str = "float32",
) -> CrossEncoder:
    """A cross-encoder from scratch.

    Args:
        folder: with `vocab.txt`, as `learn_vocabulary` writes it.
        max_tokens: T, see `PairTokens`.
        num_layers: ≥ 1.
        num_heads: of attention; divides `dim`.
        dim: of the hidden states.
        intermediate_dim: of the feed-forward layers.
        dropout: in [0, 1).
        seed: of the weights, and of dropout.
        precision: of the encoder's layers, a Keras dtype policy; the output is float32.

    Raises:
        InputError: a value is out of its range.
    """
    if num_layers < 1 or num_heads < 1 or dim % num_heads:
        raise InputError(
            f"num_layers = {num_layers}, num_heads = {num_heads}, dim = {dim}: expected at least 1 layer, and heads "
            "that divide the dimensions"
        )
    tokens = PairTokens(bert.Vocabulary.read(folder), max_tokens)
    keras.utils.set_random_seed(seed)
    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=tokens.num_words,
        num_layers=num_layers,
        num_heads=num_heads,
        hidden_dim=dim,
        intermediate_dim=intermediate_dim,
        dropout=dropout,
        max_sequence_length=max_tokens,
        dtype=precision,
    )
    # KerasHub draws every kernel with BERT's deviation of .02, which is meant for 768 dimensions: attention of a small
    # model would hardly say anything at first, and learning which words are the same would start late. So variance
    # times dimensions is BERT's own .31 in every size. Training wants warm-up and clipped gradients, as BERT's does.
    for variable in backbone.trainable_variables:
        if variable.name == "kernel":
            variable.assign(variable * math.sqrt(768 / dim))
    return CrossEncoder(backbone, tokens, dropout=dropout, seed=seed)


def check_depth(published: bert.Published, num_layers: int) -> None:
    """Refuse more layers than a published encoder has.

    Raises:
        InputError: naming how many it has.
    """
    if not 1 <= num_layers <= published.num_layers:
        raise InputError(
            f"num_layers = {num_layers}: must be 1 to {published.num_layers}, the layers of {published.source}"
        )


def load_cross_encoder(
    published: bert.Published,
    *,
    max_tokens: int,
    num_layers: int | None = None,
    dropout: float = 0.1,
    seed: int = 1,
    precision: str = "float32",
) -> CrossEncoder:
    """A cross-encoder that starts from the first layers of a published BERT; its output is new.

    Args:
        published: of `uepp.pretraining.bert.locate`.
        max_tokens: T, see `PairTokens`; at most the positions that it was trained with.
        num_layers: its first layers, n; none: all.
        dropout: in [0, 1).
        seed: of the output's weights, and of dropout.
        precision: of the encoder's layers.

    Raises:
        InputError: it cannot be loaded, or has fewer layers or positions.
    """
    all_layers, positions = published.num_layers, published.num_positions
    num_layers = all_layers if num_layers is None else num_layers
    check_depth(published, num_layers)
    if max_tokens > positions:
        raise InputError(f"max_tokens = {max_tokens}: must be at most {positions}, the positions of {published.source}")
    tokens = PairTokens(published.vocabulary, max_tokens)
    whole = published.backbone()
    keras.utils.set_random_seed(seed)
    config = whole.get_config() | {"num_layers": num_layers, "dropout": dropout, "dtype": precision}
    backbone = keras_hub.models.BertBackbone(**{key: config[key] for key in config if key not in ("name", "trainable")})
    for layer in backbone.layers:
        if layer.weights:  # the seeds of dropout are none
            layer.set_weights(whole.get_layer(layer.name).get_weights())
    if published.has_exact_gelu:
        bert.use_exact_gelu(backbone)
    return CrossEncoder(backbone, tokens, dropout=dropout, seed=seed)


def learn_vocabulary(texts: Iterable[str], folder: Path, size: int) -> int:
    """Learn WordPiece from texts, lower-cased as BERT does it, and write `vocab.txt`.

    Args:
        texts: queries and products known before T.
        folder: is made.
        size: words at most, special ones included; some fewer are usual.

    Returns:
        The number of words.
    """
    special = [bert.PAD, bert.UNKNOWN, bert.CLS, bert.SEP]
    dataset = tf.data.Dataset.from_tensor_slices(list(texts)).batch(1_000)
    words = keras_hub.tokenizers.compute_word_piece_vocabulary(
        dataset.map(lambda batch: bert.normalized(batch, is_lower=True)), size, reserved_tokens=special
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    return len(words)
