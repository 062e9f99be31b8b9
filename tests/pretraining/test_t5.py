"""The T5: its loss by the book, and that padding changes nothing."""

from pathlib import Path

import numpy as np
import pytest
import small_t5
import tensorflow as tf

from uepp.errors import InputError
from uepp.pretraining.sentencepiece_tokens import train_sentencepiece
from uepp.pretraining.t5 import build_t5, inputs_of, load_t5, query_losses, save_t5, text_encoder_of

TEXTS = [f"{color} {thing}" for color in ("red", "blue", "green") for thing in ("lamp", "chair", "mug", "ring")]


@pytest.fixture(scope="module")
def proto() -> bytes:
    return train_sentencepiece(TEXTS, 40)


def padded(ids: np.ndarray, number: int) -> np.ndarray:
    return np.pad(ids, ((0, 0), (0, number)))


def test_new_embeddings_tell_pieces_apart() -> None:
    """KerasHub 0.32 draws them around 1 with a spread of .05, where all pieces are nearly the same."""
    rows = small_t5.model(dim=64).backbone.token_embedding.embeddings.numpy()
    assert abs(rows.mean()) < 0.1
    assert rows.std() == pytest.approx(1.0, abs=0.1)
    other = small_t5.model(dim=64, seed=4).backbone.token_embedding.embeddings.numpy()
    assert not np.allclose(rows, other)
    np.testing.assert_array_equal(rows, small_t5.model(dim=64).backbone.token_embedding.embeddings.numpy())


def test_teacher_forcing_by_eye() -> None:
    inputs = inputs_of(tf.constant([[5, 6, 1, 0]]), tf.constant([[7, 8, 1, 0]]))
    assert inputs["encoder_padding_mask"].numpy().tolist() == [[1, 1, 1, 0]]
    assert inputs["decoder_token_ids"].numpy().tolist() == [[0, 7, 8, 1]], "padding starts the query"
    assert inputs["decoder_padding_mask"].numpy().tolist() == [[1, 1, 1, 0]]


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_the_loss_is_the_cross_entropy_with_the_smoothed_target(smoothing: float) -> None:
    model, pairs = small_t5.model(), small_t5.pairs(5)
    logits = model(inputs_of(tf.constant(pairs.products), tf.constant(pairs.queries))).numpy().astype(np.float64)
    losses = query_losses(model, pairs.products, pairs.queries, label_smoothing=smoothing).numpy()
    assert losses.shape == pairs.queries.shape
    for row, query in enumerate(pairs.queries):
        for place, piece in enumerate(query):
            if piece == 0:
                assert losses[row, place] == 0
                continue
            scores = logits[row, place]
            log_probabilities = scores - scores.max() - np.log(np.exp(scores - scores.max()).sum())
            target = np.full(len(scores), smoothing / len(scores))
            target[piece] += 1 - smoothing
            assert losses[row, place] == pytest.approx(-(target * log_probabilities).sum(), rel=1e-4)
    assert (losses > 0).sum() == (pairs.queries != 0).sum() > 5


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_the_loss_does_not_depend_on_padding(precision: str) -> None:
    """KerasHub warns that T5's attention does not support masks; it means those of Keras, and adds the one it gets."""
    model, pairs = small_t5.model(precision=precision), small_t5.pairs(6)
    expected = query_losses(model, pairs.products, pairs.queries).numpy()
    tolerance = 1e-5 if precision == "float32" else 1e-2  # relative, too
    more = query_losses(model, padded(pairs.products, 5), padded(pairs.queries, 3)).numpy()
    np.testing.assert_allclose(more[:, :4], expected, rtol=tolerance, atol=tolerance)
    assert not more[:, 4:].any()
    for row in range(6):
        products, queries = pairs.rows(np.array([row]))
        alone = query_losses(model, products, queries).numpy()
        np.testing.assert_allclose(alone[0], expected[row, : alone.shape[1]], rtol=tolerance, atol=tolerance)
    other = np.where(pairs.products == 0, 0, np.roll(pairs.products, 1, axis=0))
    assert not np.allclose(query_losses(model, other, pairs.queries).numpy(), expected, atol=0.05), "products matter"


def test_padding_has_no_gradient() -> None:
    """The row of piece 0 is read at the start of queries only, so what is padding in products must not move it."""
    model = small_t5.model()
    embeddings = model.backbone.token_embedding.embeddings.value

    def gradient(products: np.ndarray) -> np.ndarray:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(query_losses(model, products, pairs.queries))
        return tf.convert_to_tensor(tape.gradient(loss, embeddings)).numpy()

    pairs = small_t5.pairs(4)
    expected = gradient(pairs.products)
    np.testing.assert_allclose(gradient(padded(pairs.products, 6)), expected, atol=1e-5)
    assert np.abs(expected).max() > 0.1


def test_a_piece_sees_only_what_is_before_it() -> None:
    model, pairs = small_t5.model(), small_t5.pairs(4)
    queries = np.tile([[5, 6, 7, 1]], (4, 1)).astype(np.int32)
    changed = queries.copy()
    changed[:, 2] = 9
    one, other = (query_losses(model, pairs.products, each).numpy() for each in (queries, changed))
    np.testing.assert_allclose(one[:, :2], other[:, :2], atol=1e-6)
    assert (np.abs(one[:, 2:] - other[:, 2:]) > 1e-4).all()


def test_the_encoder_does_not_depend_on_padding(proto: bytes) -> None:
    encoder = text_encoder_of(small_t5.model(vocabulary_size=40), proto, 12)
    ids = encoder.tokenize(tf.constant(TEXTS)).numpy() % small_t5.VOCABULARY_SIZE
    expected = encoder.encode(ids).numpy()
    assert expected.shape == (len(TEXTS), 8)
    np.testing.assert_allclose(encoder.encode(padded(ids, 9)).numpy(), expected, atol=1e-5)
    for row in range(len(TEXTS)):
        own = ids[row : row + 1, : (ids[row] != 0).sum()]
        np.testing.assert_allclose(encoder.encode(own).numpy()[0], expected[row], atol=1e-5)
    empty = np.concatenate([ids, np.zeros_like(ids[:1])])
    np.testing.assert_allclose(encoder.encode(empty).numpy(), [*expected, np.zeros(8)], atol=1e-5)
    assert np.abs(np.diff(expected, axis=0)).max() > 0.1


def test_the_vector_is_the_mean_of_what_the_encoder_says_of_tokens(proto: bytes) -> None:
    model, pairs = small_t5.model(), small_t5.pairs(5)
    states = model.backbone(inputs_of(pairs.products, pairs.queries))["encoder_sequence_output"].numpy()
    encoder = text_encoder_of(model, proto, 8)
    for row, vector in enumerate(encoder.encode(pairs.products).numpy()):
        np.testing.assert_allclose(vector, states[row][pairs.products[row] != 0].mean(axis=0), atol=1e-5)


def test_a_saved_t5_is_a_preset(tmp_path: Path, proto: bytes) -> None:
    model = build_t5(small_t5.config(), 40)
    save_t5(model, proto, tmp_path / "t5")
    loaded, same_proto = load_t5(str(tmp_path / "t5"), dropout=0.5)
    assert same_proto == proto
    assert loaded.backbone.dropout == 0.5
    pairs = small_t5.pairs(4)
    np.testing.assert_allclose(
        query_losses(loaded, pairs.products, pairs.queries).numpy(),
        query_losses(model, pairs.products, pairs.queries).numpy(),
        atol=1e-6,
    )


def test_a_preset_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"pretraining.preset = '.*nothing': not a T5 that KerasHub can load"):
        load_t5(str(tmp_path / "nothing"))
