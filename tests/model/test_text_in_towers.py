"""The layer that reads a pretrained text encoder; whole runs with one are in tests/end_to_end/test_text_towers.py."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from text_encoders import DIM, write_text_encoder

from uepp.features.text_encoder import open_text_encoder
from uepp.model.encoders.text import PretrainedTextEncoder

TEXTS = ["red lamp", "", "mug"]


@pytest.mark.parametrize("length", [0.1, 1.0])
def test_a_frozen_one_passes_vectors_on(length: float) -> None:
    vectors = np.array([[3.0, 4.0], [0.0, 0.0]], np.float32)
    layer = PretrainedTextEncoder("product/text", 2, None, 0.0, length)
    expected = length * np.array([[0.6, 0.8], [0.0, 0.0]])
    np.testing.assert_allclose(layer({"product/text": tf.constant(vectors)}).numpy(), expected, rtol=1e-6)
    assert layer.trainable_variables == []


def test_a_trainable_one_has_the_encoders_weights_and_their_gradients(tmp_path: Path) -> None:
    module = write_text_encoder(tmp_path / "encoder")
    encoder = open_text_encoder(tmp_path / "encoder")
    layer = PretrainedTextEncoder("product/text", DIM, encoder, 0.0, 1.0)
    assert {id(variable) for variable in layer.trainable_variables} == {
        id(variable) for variable in encoder.model.trainable_variables
    }
    with tf.GradientTape() as tape:
        output = layer({"product/text": encoder.entries(tf.constant(TEXTS), trainable=True)})
        loss = tf.reduce_sum(output[:, 0])
    own = module(tf.constant(TEXTS)).numpy()
    expected = own / np.maximum(np.linalg.norm(own, axis=1, keepdims=True), 1e-9)
    np.testing.assert_allclose(output.numpy(), expected, rtol=1e-5)
    np.testing.assert_array_equal(output.numpy()[1], 0)
    gradients = tape.gradient(loss, layer.trainable_variables)
    assert len(gradients) == 2
    assert all(float(tf.reduce_max(tf.abs(tf.convert_to_tensor(gradient)))) > 1e-3 for gradient in gradients)
