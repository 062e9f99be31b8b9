"""What a teacher's answers add to the examples of the log."""

import numpy as np

from tests.conftest import Toy
from uepp.features.bags import Bags
from uepp.features.examples import title_span, with_weak_examples


def taught(toy: Toy):  # type: ignore[no-untyped-def]
    known = toy.examples.queries[0]
    return known, with_weak_examples(
        toy.examples, [known, "a new query"], Bags(np.array([5, 0, 7, 5]), np.array([3, 1]))
    )


def test_each_answer_is_a_click_of_nobody(toy: Toy) -> None:
    known, examples = taught(toy)
    size = len(toy.examples)
    assert len(examples) == size + 4
    assert [examples.queries[row] for row in examples.query_rows[size:]] == [known] * 3 + ["a new query"]
    assert examples.product_index[size:].tolist() == [5, 0, 7, 5]
    assert examples.type_ids[size:].tolist() == [0] * 4
    assert set(examples.request_rows[size:].tolist()) == {examples.contexts.num_rows}


def test_examples_of_the_log_stay_as_they_are(toy: Toy) -> None:
    _, examples = taught(toy)
    size = len(toy.examples)
    for name in ("query_rows", "product_index", "type_ids", "request_rows"):
        np.testing.assert_array_equal(getattr(examples, name)[:size], getattr(toy.examples, name))
    assert examples.queries[: len(toy.examples.queries)] == toy.examples.queries


def test_answers_are_known_positives_beside_the_others(toy: Toy) -> None:
    _, examples = taught(toy)
    before = [
        set(toy.examples.known_positives.gather(np.array([row])).values.tolist())
        for row in range(len(toy.examples.queries))
    ]
    expected = [before[0] | {5, 0, 7}, *before[1:], {5}]
    for row, products in enumerate(expected):
        found = examples.known_positives.gather(np.array([row])).values.tolist()
        assert found == sorted(products)


def test_batches_of_taught_examples_are_made(toy: Toy) -> None:
    _, examples = taught(toy)
    maker = toy.batch_maker()
    maker._examples = examples
    maker._query_tokens = toy.query_tokens
    nobody = np.array([examples.contexts.num_rows])
    entries = maker._request_entries(maker._requests, nobody)
    assert entries["history/shops/values"].size == 0
    assert entries["history/searches/values"].size == 0


def test_a_span_is_one_to_five_neighbouring_words() -> None:
    rng = np.random.default_rng(0)
    words = ["one", "two", "three", "four", "five", "six", "seven"]
    spans = {title_span(" ".join(words), rng) for _ in range(500)}
    possible = {" ".join(words[begin : begin + n]) for n in range(1, 6) for begin in range(len(words) - n + 1)}
    assert spans == possible
    assert title_span("", rng) == ""
