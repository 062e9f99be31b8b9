"""What a step reads: every pair once an epoch, negatives that nobody labelled, and all of it a function of the step."""

import numpy as np
import pytest
import small_pairs

from uepp.relevance.steps import Steps


@pytest.fixture
def steps() -> Steps:
    return small_pairs.steps(small_pairs.config(sampler="bhns", num_negatives=3))


def test_an_epoch_has_every_pair_once_in_an_order_of_its_own(steps: Steps) -> None:
    """72 pairs are nine steps of eight."""
    epochs = [np.concatenate([steps.batch(step) for step in range(9 * epoch, 9 * epoch + 9)]) for epoch in range(3)]
    for epoch in epochs:
        assert sorted(epoch.tolist()) == list(range(72))
    assert epochs[0].tolist() != epochs[1].tolist() != epochs[2].tolist()


def test_what_does_not_fill_a_step_waits_for_another_epoch() -> None:
    steps = small_pairs.steps(small_pairs.config(batch_size=20, pool_size=20))
    for step in range(12):
        assert len(set(steps.batch(step).tolist())) == 20, "no pair twice in a step"
    left = set(range(72)) - {int(row) for step in range(3) for row in steps.batch(step)}
    assert len(left) == 12
    assert left & {int(row) for step in range(3, 6) for row in steps.batch(step)}, "another epoch leaves others out"


def test_a_step_is_its_labelled_pairs_and_their_negatives(steps: Steps) -> None:
    labelled = small_pairs.labelled()
    known = {
        (int(q), int(p)): float(r) for q, p, r in zip(labelled.queries, labelled.products, labelled.grades, strict=True)
    }
    num_pseudo = 0
    for step in range(5):
        pairs = steps.pairs(step)
        assert pairs.is_sampled.tolist() == [False] * 8 + [True] * (len(pairs.labels) - 8)
        for query, product, label, is_sampled in zip(*pairs, strict=True):
            if is_sampled:
                assert (query, product) not in known
                assert query in pairs.queries[:8]
                num_pseudo += label > 0
            else:
                assert label == known[query, product]
        _, counts = np.unique(pairs.queries[pairs.is_sampled], return_counts=True)
        assert set(counts) == {3}, "K of each query, once"
    assert num_pseudo > 0


def test_a_step_is_a_function_of_seed_and_step(steps: Steps) -> None:
    again = small_pairs.steps(small_pairs.config(sampler="bhns", num_negatives=3))
    again.pairs(0)  # what was asked before changes nothing
    for one, other in zip(steps.pairs(7), again.pairs(7), strict=True):
        assert one.tolist() == other.tolist()
    others = small_pairs.steps(small_pairs.config(sampler="bhns", num_negatives=3, seed=4))
    assert steps.pairs(7).queries.tolist() != others.pairs(7).queries.tolist()


def test_texts_and_the_time_of_the_sampler(steps: Steps) -> None:
    assert steps.sampler_seconds() == 0, "nothing was sampled yet"
    pairs = steps.pairs(0)
    queries, products = steps.texts(pairs)
    assert queries[0].decode() == small_pairs.QUERIES[pairs.queries[0]]
    assert products[-1].decode() == small_pairs.PRODUCTS[pairs.products[-1]]
    assert steps.sampler_seconds() > 0
