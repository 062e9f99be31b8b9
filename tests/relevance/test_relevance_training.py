"""The loop on a tiny cross-encoder: it learns, resumed and shared work is the same work, CET weighs as it says."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_pairs
import tensorflow as tf
from fresh_process import printed_by
from trained import assert_same_weights, rows

from uepp.errors import InputError
from uepp.relevance.cross_encoder import learn_vocabulary, make_cross_encoder
from uepp.relevance.training import _optimizer, pair_weights


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    run = tmp_path_factory.mktemp("straight") / "run"
    return small_pairs.train(str(run)), run


@pytest.fixture(scope="module")
def straight_cet(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    run = tmp_path_factory.mktemp("cet") / "run"
    return small_pairs.train(str(run), sampler="cet"), run


def test_it_learns_and_logs(straight: tuple[dict[str, Any], Path]) -> None:
    result, run = straight
    assert (result["step"], result["is_complete"], result["best_step"]) == (24, True, 24)
    written = rows(run)
    assert [row["step"] for row in written] == [6, 12, 18, 24]
    assert written[-1]["loss"] < written[0]["loss"]
    assert all(row["pairs_per_second"] > 0 and row["sampler_seconds"] > 0 for row in written)
    rates = [row["learning_rate"] for row in written]
    assert rates[0] > rates[1] > rates[2] > rates[3] == pytest.approx(0.01 / 20), "of the last step"
    assert sorted(path.name for path in (run / "checkpoints").glob("*.index")) == ["ckpt-20.index", "ckpt-24.index"]


def test_it_learns_what_is_labelled(tmp_path: Path) -> None:
    """Its own product is 1, the next colour's ½; what random sampling makes 0 shares no more than a word with it.

    Without a look at which product it is, the mean label, .42, is the best score for all, and the loss is .68.
    """
    sizes = {"dim": 32, "intermediate_dim": 32, "batch_size": 32, "pool_size": 32, "learning_rate": 0.005}
    small_pairs.train(str(tmp_path), sampler="vns", dropout=0.0, max_steps=200, evaluate_every_steps=20, **sizes)
    losses = [row["loss"] for row in rows(tmp_path)]
    assert losses[0] > 0.64
    assert losses[-1] < 0.55


class PowerCutError(Exception):
    """What ends a process in the middle of a step."""


@pytest.mark.parametrize(("sampler", "uncut"), [("bhns", "straight"), ("cet", "straight_cet")])
def test_an_interrupted_run_goes_on_as_if_it_had_not_been(
    sampler: str, uncut: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """The last checkpoint is of step 10; weights, optimisers and dropout go on from there, with the pairs of step 11.

    CET's weights depend on the observer, so it goes on too.
    """
    expected, expected_run = request.getfixturevalue(uncut)
    run = tmp_path / "cut"

    def cut(_: Any) -> float:
        raise PowerCutError

    with pytest.raises(PowerCutError):
        small_pairs.train(str(run), sampler=sampler, validate=cut, evaluate_every_steps=13)
    assert (run / "checkpoints" / "ckpt-10.index").exists()
    assert not (run / "checkpoints" / "ckpt-15.index").exists()
    result = small_pairs.train(str(run), sampler=sampler, resume=True)
    assert_same_weights(result, expected)
    assert rows(run)[-1]["loss"] == pytest.approx(rows(expected_run)[-1]["loss"], rel=1e-5)
    again = small_pairs.train(str(run), sampler=sampler, resume=True)
    assert again == result, "a run that is done trains no more"


def test_two_replicas_learn_what_one_learns(tmp_path: Path) -> None:
    """On one global batch; without dropout, which each replica draws for its own rows (`test_dropout.py`)."""
    settings = {"dropout": 0.0, "max_steps": 12, "evaluate_every_steps": 6}
    samplers = ("bhns", "cet")
    on_two = [
        {"run_dir": str(tmp_path / f"{name} two"), "replicas": 2, "sampler": name} | settings for name in samplers
    ]
    printed = printed_by(small_pairs.__file__, json.dumps(on_two), timeout=400)
    for name, two in zip(samplers, printed[-len(samplers) :], strict=True):
        one = small_pairs.train(str(tmp_path / f"{name} one"), sampler=name, **settings)
        assert_same_weights(one, json.loads(two), tolerance=2e-4)
        losses = [[row["loss"] for row in rows(tmp_path / f"{name} {number}")] for number in ("one", "two")]
        np.testing.assert_allclose(*losses, rtol=1e-4)


def test_it_ends_when_validation_stalls_and_has_the_best_weights(tmp_path: Path) -> None:
    seen: list[list[np.ndarray]] = []
    measures = iter([0.3, 0.7, 0.6, 0.7, 0.9])

    def validate(encoder: Any) -> float:
        seen.append([weight.numpy() for weight in encoder.trainable_variables])
        return next(measures)

    result = small_pairs.train(str(tmp_path), validate=validate, patience=2, max_steps=60, evaluate_every_steps=3)
    assert (result["step"], result["best_step"], result["is_complete"]) == (12, 6, True), "no better twice: .6, .7"
    for weight, best, last in zip(result["weights"], seen[1], seen[3], strict=True):
        np.testing.assert_array_equal(np.array(weight, np.float32), best)
        assert np.abs(best - last).max() > 0
    assert [row["validation"] for row in rows(tmp_path)] == pytest.approx([0.3, 0.7, 0.6, 0.7])


def test_cet_trains_an_observer_beside_it(tmp_path: Path, straight_cet: tuple[dict[str, Any], Path]) -> None:
    result, run = straight_cet
    other = small_pairs.train(str(tmp_path), sampler="vns")
    assert result["is_complete"]
    changed = [
        np.abs(np.array(one) - np.array(two)).max()
        for one, two in zip(result["weights"], other["weights"], strict=True)
    ]
    assert max(changed) > 1e-4, "the same pairs, other weights"
    names = dict(tf.train.list_variables(str(run / "checkpoints" / "ckpt-24")))
    assert {name.split("/")[0] for name in names} >= {"model", "observer_model", "observer_optimizer"}


def test_weights_of_cet_are_the_others_doubts() -> None:
    one, other = tf.Variable([0.0, 3.0, -40.0]), tf.Variable([2.0, 40.0, -1.0])
    is_sampled = tf.constant([False, True, True])
    with tf.GradientTape() as tape:
        first, second = pair_weights([one, other], is_sampled, 1.0)
        total = tf.reduce_sum(first) + tf.reduce_sum(second)
    sigmoid = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
    np.testing.assert_allclose(first, [1, 1 - sigmoid(40.0), 1 - sigmoid(-1.0)], atol=1e-6)
    np.testing.assert_allclose(second, [1, 1 - sigmoid(3.0), 1 - sigmoid(-40.0)], atol=1e-6)
    assert tape.gradient(total, [one, other]) == [None, None], "no model learns to doubt"
    np.testing.assert_array_equal(pair_weights([one], is_sampled, 0.25)[0], [1, 0.25, 0.25])
    less, _ = pair_weights([one, other], is_sampled, 0.25)
    np.testing.assert_allclose(less, [first[0], first[1] / 4, first[2] / 4])


def test_sampled_pairs_count_as_much_as_is_said(tmp_path: Path) -> None:
    """A weighted mean of labelled pairs, which are all that there is without a sampler, and sampled ones."""
    settings = {"max_steps": 1, "evaluate_every_steps": 1, "sampler": "vns", "dropout": 0.0}
    losses = {}
    for weight in (1.0, 0.5):
        small_pairs.train(str(tmp_path / str(weight)), sampled_weight=weight, **settings)
        losses[weight] = rows(tmp_path / str(weight))[0]["loss"]
    small_pairs.train(str(tmp_path / "none"), **settings | {"sampler": "none"})
    labelled = rows(tmp_path / "none")[0]["loss"]
    share = np.mean(small_pairs.steps(small_pairs.config(**settings)).pairs(0).is_sampled)
    sampled = (losses[1.0] - (1 - share) * labelled) / share
    half = np.average([labelled, sampled], weights=[1 - share, share / 2])
    assert losses[0.5] == pytest.approx(half, rel=1e-5)
    assert abs(sampled - labelled) > 5e-4


@pytest.mark.parametrize("max_steps", [1, 24])
def test_a_training_that_diverges_says_so(tmp_path: Path, max_steps: int) -> None:
    """It ended as finished, and the weights were exported. The last step's harm shows in no loss."""
    settings = {"learning_rate": 1e30, "max_gradient_norm": 1e30, "warmup_steps": 0, "max_steps": max_steps}
    name = "sum of the logits" if max_steps == 1 else "loss"
    message = rf"step {min(6, max_steps)}: the {name} is (nan|-?inf), .*one with relevance.learning_rate below 1e\+30"
    with pytest.raises(InputError, match=message):
        small_pairs.train(str(tmp_path), **settings)


def test_decay_pulls_kernels_and_embeddings_alone(tmp_path: Path) -> None:
    """Shifts of attention have a row a head; they were pulled as well."""
    settings = small_pairs.config(weight_decay=0.5, warmup_steps=0)
    learn_vocabulary(small_pairs.QUERIES, tmp_path, 100)
    encoder = make_cross_encoder(settings, tmp_path, 1)
    weights = encoder.trainable_variables
    optimizer = _optimizer(encoder, settings)
    for weight in weights:
        weight.assign(tf.ones_like(weight))
    optimizer.apply_gradients((tf.zeros_like(weight), weight) for weight in weights)
    pulled = {weight.name for weight in weights if (weight.numpy() < 1).all()}
    assert pulled == {weight.name for weight in weights if weight.name.split("/")[-1] in ("kernel:0", "embeddings:0")}
    assert any("query/kernel" in name for name in pulled)
    assert all((weight.numpy() == 1).all() for weight in weights if weight.name not in pulled)


def test_what_is_refused(tmp_path: Path, straight: tuple[dict[str, Any], Path]) -> None:
    with pytest.raises(InputError, match="holds checkpoints of another training"):
        small_pairs.train(str(straight[1]))
    with pytest.raises(InputError, match="does not fit this configuration"):
        small_pairs.train(str(straight[1]), resume=True, dim=20, max_steps=40)
    with pytest.raises(InputError, match=r"relevance.batch_size = 80: must be at most 72"):
        small_pairs.train(str(tmp_path), batch_size=80, pool_size=100)
