"""The history encoder: a transformer written out in NumPy without masks, and what it must not depend on."""

import math
from typing import Any

import numpy as np
import oracles
import pytest
import small_model
import tensorflow as tf
from small_model import DIM, Batch, Request, make_config

from uepp.errors import InputError
from uepp.model.encoders.history import EventTransformer, HistoryEncoder, query_history
from uepp.model.tables import Tables


def make_encoder(normalize: bool = True, precision: str = "float32", **history: Any) -> HistoryEncoder:
    """With every variable moved away from a start at zero or one."""
    config = make_config(history=history, model={"normalize_groups": normalize, "precision": precision})
    encoder = query_history(config, Tables(config, small_model.fitted(config)))
    encoder(small_model.batch().features())
    rng = np.random.default_rng(3)
    for variable in encoder.trainable_variables:
        if "embeddings" not in variable.name:
            variable.assign_add(0.3 * rng.standard_normal(variable.shape).astype(np.float32))
    return encoder


def transformer_of(encoder: HistoryEncoder) -> EventTransformer:
    (layer,) = [layer for layer in encoder.submodules if isinstance(layer, EventTransformer)]
    return layer


def weights_of(encoder: HistoryEncoder) -> dict[str, np.ndarray]:
    """By the end of their names: `query/kernel`, `output/gamma`, `types`, `shared_embeddings` and so on."""
    named = {}
    for variable in encoder.variables:
        parts = variable.name.removesuffix(":0").split("/")
        named["/".join(parts[-2:])] = variable.numpy().astype(float)
    return named


def layer_norm(vector: np.ndarray, weights: dict[str, np.ndarray], name: str) -> np.ndarray:
    centred = vector - vector.mean()
    return centred / math.sqrt((centred**2).mean() + 1e-3) * weights[f"{name}/gamma"] + weights[f"{name}/beta"]


def sequence_of(
    request: Request, searches: list[list[int]], w: dict[str, np.ndarray], normalize: bool, lengths: tuple[int, int]
) -> list[np.ndarray]:
    """q, then searches, then shops, most recent first; no padding."""

    def average(tokens: list[int]) -> np.ndarray:
        vector = oracles.bag_average(w["shared_embeddings"], [tokens])[0]
        return oracles.unit(vector) if normalize else vector

    events = [average(request.query) + w["types"][0]]
    for place, search in enumerate(request.searches[: lengths[0]]):
        events.append(average(searches[search]) + w["types"][1] + w["recency"][place])
    for place, shop in enumerate(request.shops[: lengths[1]]):
        events.append(w["shops_embeddings"][shop] + w["types"][2] + w["recency"][place])
    return events


def transformer_oracle(events: list[np.ndarray], w: dict[str, np.ndarray]) -> np.ndarray:
    """Output at position 0 of one pre-norm transformer layer, head by head and event by event."""
    normed = [layer_norm(event, w, "before_attention") for event in events]
    num_heads, head_dim = w["query/kernel"].shape[1:]
    attended = w["attention_output/bias"].copy()
    for head in range(num_heads):
        query = normed[0] @ w["query/kernel"][:, head] + w["query/bias"][head]
        keys = [event @ w["key/kernel"][:, head] + w["key/bias"][head] for event in normed]
        values = [event @ w["value/kernel"][:, head] + w["value/bias"][head] for event in normed]
        logits = [float(query @ key) / math.sqrt(head_dim) for key in keys]
        shares = [math.exp(logit - max(logits)) for logit in logits]
        mixed = sum(share / sum(shares) * value for share, value in zip(shares, values, strict=True))
        attended += mixed @ w["attention_output/kernel"][head]
    hidden = events[0] + attended
    wide = np.maximum(layer_norm(hidden, w, "before_feed_forward") @ w["expand/kernel"] + w["expand/bias"], 0)
    return layer_norm(hidden + wide @ w["contract/kernel"] + w["contract/bias"], w, "output")


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize(("num_searches", "num_shops"), [(2, 3), (4, 1), (2, 0), (0, 3), (1, 2)])
def test_every_part_is_its_oracle(normalize: bool, num_searches: int, num_shops: int) -> None:
    encoder = make_encoder(normalize, num_searches=num_searches, num_shops=num_shops)
    batch = small_model.batch()
    got = encoder(batch.features()).numpy()
    w = weights_of(encoder)
    for row, request in enumerate(batch.requests):
        events = sequence_of(request, batch.searches, w, normalize, (num_searches, num_shops))
        expected = transformer_oracle(events, w) if request.query or len(events) > 1 else np.zeros(DIM)
        np.testing.assert_allclose(got[row, :DIM], expected, atol=2e-5)
        for place, tokens in enumerate((request.clicked, request.purchased), start=1):
            average = oracles.bag_average(w["shared_embeddings"], [tokens])[0]
            expected = oracles.unit(average) if normalize else average
            np.testing.assert_allclose(got[row, place * DIM : (place + 1) * DIM], expected, atol=1e-5)
    assert len(encoder.blocks) == 3
    assert {block.scale for block in encoder.blocks} == {0}


def test_only_the_query_attending_equals_the_full_layer() -> None:
    layer = transformer_of(make_encoder())
    features = small_model.batch().features()
    events, is_event = layer.sequence(features)
    assert events.shape == (3, 1 + 2 + 3, DIM)
    np.testing.assert_array_equal(is_event, [[1, 1, 1, 1, 1, 1], [1, 0, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0]])
    full = layer.transform(events, events, is_event)
    assert full.shape == events.shape
    np.testing.assert_allclose(full[:, 0], layer(features), atol=1e-6)
    assert not np.allclose(full[0, 1], full[0, 0], atol=1e-2)


def test_padding_may_hold_anything_anywhere() -> None:
    """What is masked can be permuted and replaced; what is not masked can't."""
    layer = transformer_of(make_encoder())
    events, is_event = layer.sequence(small_model.batch().features())
    events, is_event = events[2:].numpy(), is_event[2:].numpy()
    assert is_event[0].tolist() == [True, True, False, False, False, False]
    expected = layer.transform(events[:, :1], events, is_event)
    order = [0, 3, 1, 5, 2, 4]
    permuted = layer.transform(events[:, :1], events[:, order], is_event[:, order])
    np.testing.assert_allclose(permuted, expected, atol=1e-6)
    other = np.where(is_event[..., np.newaxis], events, 100 * np.random.default_rng(1).standard_normal(events.shape))
    np.testing.assert_allclose(layer.transform(events[:, :1], other, is_event), expected, atol=1e-6)
    unmasked = layer.transform(events[:, :1], other, np.ones_like(is_event))
    assert not np.allclose(unmasked, expected, atol=1e-2)


def test_longer_histories_of_others_do_not_matter() -> None:
    """A row alone gives what it gives beside others."""
    encoder, batch = make_encoder(), small_model.batch()
    together = encoder(batch.features()).numpy()
    for row, request in enumerate(batch.requests):
        alone = Batch([request], batch.products, batch.graph, batch.searches)
        np.testing.assert_allclose(encoder(alone.features())[0], together[row], atol=1e-6)


def outputs(requests: list[Request], encoder: HistoryEncoder) -> np.ndarray:
    batch = small_model.batch()
    return encoder(Batch(requests, batch.products, batch.graph, batch.searches).features()).numpy()


def test_recency_and_type_matter() -> None:
    encoder = make_encoder()
    forward, backward, searched, visited, shops, spohs = outputs(
        [
            Request([1], searches=[0, 2]),
            Request([1], searches=[2, 0]),
            Request([1], searches=[0]),
            Request([1], searches=[0], shops=[3]),
            Request([1], shops=[3, 1]),
            Request([1], shops=[1, 3]),
        ],
        encoder,
    )
    pairs = [(forward, backward), (searched, visited), (forward, searched), (shops, spohs)]
    assert all(np.abs(one - other).max() > 1e-2 for one, other in pairs)
    types = next(variable for variable in encoder.trainable_variables if variable.name.endswith("types:0"))
    types.assign_add(tf.eye(3, DIM) * [[0.0], [0.0], [1.0]])
    again = outputs([Request([1], shops=[3, 1]), Request([1], searches=[0])], encoder)
    assert np.abs(again[0] - shops).max() > 1e-2
    np.testing.assert_allclose(again[1], searched, atol=1e-6)


def test_events_beyond_the_sequence_are_cut_and_stay_in_their_row() -> None:
    encoder = make_encoder(num_searches=2, num_shops=2)
    long = [Request([1], searches=[0, 1, 2, 2], shops=[1, 2, 3, 4, 5]), Request([2]), Request([3], searches=[1, 1, 1])]
    cut = [Request([1], searches=[0, 1], shops=[1, 2]), Request([2]), Request([3], searches=[1, 1])]
    np.testing.assert_allclose(outputs(long, encoder), outputs(cut, encoder), atol=1e-6)


def test_empty_histories() -> None:
    encoder = make_encoder()
    known, nobody, no_query = outputs([Request([1]), Request([]), Request([], shops=[2])], encoder)
    assert known[:DIM].any()
    assert not known[DIM:].any()
    assert not nobody.any(), "neither a query nor a history: zeros, so that the tower gives zeros"
    assert no_query[:DIM].any()


@pytest.mark.parametrize(
    ("off", "num_blocks", "with_transformer"),
    [
        ((), 3, True),
        (("num_searches",), 3, True),
        (("num_shops",), 3, True),
        (("num_searches", "num_shops"), 2, False),
        (("num_clicked_products",), 2, True),
        (("num_clicked_products", "num_purchased_products"), 1, True),
        (("num_searches", "num_shops", "num_purchased_products"), 1, False),
    ],
)
def test_a_part_that_is_off_is_absent(off: tuple[str, ...], num_blocks: int, with_transformer: bool) -> None:
    """And its entries need not be in the batch."""
    entries = {
        "num_searches": ("history/searches", "searches"),
        "num_shops": ("history/shops",),
        "num_clicked_products": ("history/clicked",),
        "num_purchased_products": ("history/purchased",),
    }
    features = small_model.batch().features()
    for part in off:
        for name in entries[part]:
            del features[f"{name}/values"], features[f"{name}/lengths"]
    config = make_config(history=dict.fromkeys(off, 0))
    encoder = query_history(config, Tables(config, small_model.fitted(config)))
    assert encoder(features).shape == (3, num_blocks * DIM)
    assert len(encoder.blocks) == num_blocks
    assert any(isinstance(layer, EventTransformer) for layer in encoder.submodules) == with_transformer
    assert any("shops" in v.name for v in encoder.variables) == ("num_shops" not in off)
    assert any("attention" in v.name for v in encoder.variables) == with_transformer


OFF = dict.fromkeys(("num_searches", "num_shops", "num_clicked_products", "num_purchased_products"), 0)


def test_history_without_any_part_is_left_out_of_the_tower() -> None:
    with_tokens = small_model.make_model(history=OFF, model={"query_encoders": ("tokens", "history")})
    without = small_model.make_model(model={"query_encoders": ("tokens",)})
    features = small_model.batch().features()
    for one, other in zip(with_tokens(features), without(features), strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(InputError, match=r"model.query_encoders = \['history'\].*history.num_searches"):
        small_model.make_model(history=OFF, model={"query_encoders": ("history",)})


def test_gradient_reaches_events_only() -> None:
    encoder = make_encoder()
    with tf.GradientTape() as tape:
        output = encoder(small_model.batch().features(), training=True)
        loss = tf.reduce_sum(output[:, :DIM] * tf.random.stateless_normal([3, DIM], [1, 2]))
    gradients = {
        v.name: g
        for v, g in zip(encoder.trainable_variables, tape.gradient(loss, encoder.trainable_variables), strict=True)
    }
    shared, shops = gradients["shared_embeddings:0"], gradients["shops_embeddings:0"]
    assert isinstance(shared, tf.IndexedSlices)
    assert isinstance(shops, tf.IndexedSlices)
    queries, searches = {1, 2, 3}, {1, 26, 2, 24, 25}
    moved = tf.convert_to_tensor(shared).numpy().any(axis=1)
    assert set(np.nonzero(moved)[0]) == queries | searches
    assert set(np.nonzero(tf.convert_to_tensor(shops).numpy().any(axis=1))[0]) == {1, 3}
    dense = [small_model.dense(gradient, None) for name, gradient in gradients.items() if gradient is not None]
    assert all(np.isfinite(gradient).all() for gradient in dense)
    unreached = {name for name, gradient in gradients.items() if gradient is None}
    assert unreached == set()


def test_more_heads_than_columns_divide() -> None:
    encoder = make_encoder(num_heads=3)
    kernel = weights_of(encoder)["query/kernel"]
    assert kernel.shape == (DIM, 3, 3)
    batch = small_model.batch()
    events = sequence_of(batch.requests[0], batch.searches, weights_of(encoder), True, (2, 3))
    got = encoder(batch.features())[0, :DIM]
    np.testing.assert_allclose(got, transformer_oracle(events, weights_of(encoder)), atol=2e-5)


def test_mixed_precision_is_close_and_its_output_float32() -> None:
    exact, mixed = make_encoder(), make_encoder(precision="mixed_bfloat16")
    features = small_model.batch().features()
    assert mixed(features).dtype == tf.float32
    assert {variable.dtype for variable in mixed.variables} == {tf.float32}
    np.testing.assert_allclose(mixed(features), exact(features), atol=0.06)
    assert np.abs(mixed(features) - exact(features)).max() > 0, "something is computed in bfloat16"
