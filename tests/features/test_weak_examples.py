"""What a teacher's answers add to the examples of the log."""

import numpy as np
import pyarrow.parquet as pq
from batches import rows_of
from conftest import Toy

from uepp.features.bags import Bags
from uepp.features.batches import build_batch_maker, tokenize_queries
from uepp.features.examples import Examples, title_span, with_weak_examples
from uepp.pipeline import training


def taught(toy: Toy):  # type: ignore[no-untyped-def]
    known = toy.examples.queries[0]
    answers = Bags(np.array([5, 0, 7, 5], np.int32), np.array([3, 1], np.int32))
    cut_from = Bags(np.array([40, 41], np.int32), np.array([0, 2], np.int32))
    return known, with_weak_examples(toy.examples, [known, "a new query"], answers, cut_from)


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


def known_of(examples: Examples) -> list[list[int]]:
    known = examples.known_positives
    return [known.gather(examples.known_rows[[row]]).values.tolist() for row in range(len(examples.queries))]


def test_answers_are_known_positives_beside_the_others(toy: Toy) -> None:
    """And so are the products that a span was cut from; they are no examples."""
    _, examples = taught(toy)
    before = known_of(toy.examples)
    assert known_of(examples) == [sorted({*before[0], 5, 0, 7}), *before[1:], [5, 40, 41]]
    assert 40 not in examples.product_index[len(toy.examples) :]


def test_what_the_log_knows_of_a_weak_query_is_known(toy: Toy) -> None:
    """Only the graph has this query, and in another spelling."""
    graph_only = next(
        row for row in pq.read_table(toy.mined / "graph.parquet").to_pylist() if row["query"].startswith("old ")
    )
    weak = Bags(np.array([9], np.int32), np.array([1], np.int32))
    nothing = Bags(np.array([], np.int32), np.array([0], np.int32))
    examples = with_weak_examples(toy.examples, [graph_only["query"].upper() + "!"], weak, nothing)
    assert known_of(examples)[-1] == sorted({9, int(graph_only["product_id"])})


def test_batches_of_taught_examples_are_made(toy: Toy) -> None:
    """With every encoder: of who asked a weak query nothing is known, and it has its answers."""
    known, examples = taught(toy)
    maker = build_batch_maker(
        toy.config, toy.fitted, toy.catalog, examples, toy.mined, toy.num_seen_products, batch_size=len(examples)
    )
    arrays, _ = maker.make(0)
    tokens = tokenize_queries(toy.config.features, toy.vocabulary, [known, "a new query"])
    new = tokens.gather(np.array([1])).values.tolist()
    (row,) = (row for row, bag in enumerate(rows_of(arrays, "query")) if bag == new)
    assert arrays["candidates"][row] == 5
    assert rows_of(arrays, "known_positives")[row] == [5, 40, 41]
    for name in ("history/shops", "history/searches", "history/clicked", "user/zip"):
        assert rows_of(arrays, name)[row] == []
    assert any(rows_of(arrays, "history/searches")), "others have a past"


def test_a_teacher_answers_queries_and_spans(toy: Toy) -> None:
    """Every training query and every span is answered by BM25, and a span by its own product."""
    config = toy.config.training.model_copy(update={"teacher_queries": 200, "teacher_depth": 2})
    products = toy.products.slice(0, toy.num_seen_products)
    examples = training._taught(toy.examples, products, config)
    weak = examples.query_rows[len(toy.examples) :]
    asked = {examples.queries[row] for row in weak}
    assert set(toy.examples.queries) <= asked
    spans = asked - set(toy.examples.queries)
    titles = products.column("title").to_pylist()
    assert len(spans) > 50
    assert max(np.bincount(weak)) == 2
    known = dict(zip(examples.queries, known_of(examples), strict=True))
    for span in spans:
        own = [row for row, title in enumerate(titles) if f" {span} " in f" {title} "]
        assert own
        assert set(known[span]) & set(own)
    again = training._taught(toy.examples, products, config)
    np.testing.assert_array_equal(again.product_index, examples.product_index)


def test_a_span_is_one_to_five_neighbouring_words() -> None:
    rng = np.random.default_rng(0)
    words = ["one", "two", "three", "four", "five", "six", "seven"]
    spans = {title_span(" ".join(words), rng) for _ in range(500)}
    possible = {" ".join(words[begin : begin + n]) for n in range(1, 6) for begin in range(len(words) - n + 1)}
    assert spans == possible
    assert title_span("", rng) == ""
