"""What is lost and what it costs: accuracy against loops, times against a clock that the test winds."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from uepp.index_families import IndexSpec, parse_spec, resolve
from uepp.retrieval import ann
from uepp.retrieval import index as index_module
from uepp.retrieval.ann import Builds, Reference, accuracy, compare, latency, search_all, time_queries
from uepp.retrieval.boosting import Boosting
from uepp.retrieval.index import TooLongError, build_index, search_exact
from uepp.retrieval.product_index import Found, ProductIndex
from uepp.retrieval.vectors import ProductVectors

RNG = np.random.default_rng(5)


def unit(number: int, dim: int = 8) -> np.ndarray:
    vectors = RNG.standard_normal((number, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


VECTORS, QUERIES = unit(400), unit(30)


def reference(at: int = 20, boosting: Boosting | None = None) -> Reference:
    """Each request bought what stands at the place of its number among the exact results; some bought more."""
    exact, _ = search_exact(QUERIES, VECTORS, 400)
    request = np.array([*range(len(QUERIES)), 3, 3])
    bought = np.array([*(exact[row, row] for row in range(len(QUERIES))), -1, exact[3, 399]])
    return Reference.make(QUERIES, ProductVectors([VECTORS], boosting), boosting, request, bought, at)


def test_the_reference_is_exact_search_over_what_is_indexed() -> None:
    np.testing.assert_array_equal(reference().exact, search_exact(QUERIES, VECTORS, 20)[0])
    quality = RNG.standard_normal((400, 1)).astype(np.float32)
    boosted = reference(boosting=Boosting(("stars",), np.array([0.5], np.float32), quality))
    scores = QUERIES @ VECTORS.T + 0.5 * quality[:, 0]
    np.testing.assert_array_equal(boosted.exact, np.argsort(-scores, axis=1)[:, :20])


def test_accuracy_is_what_the_words_say() -> None:
    known = reference()
    found = known.exact.copy()
    found[::2, 3:9] = -1  # an index that misses six of twenty for every other request
    found[1] = np.arange(400, 420)  # and all of them for one
    figures = accuracy(found, known, [5, 20])
    for k in (5, 20):
        overlaps, before, after = [], [], []
        for row in range(len(QUERIES)):
            wanted, got = known.exact[row, :k].tolist(), set(found[row, :k].tolist())
            overlaps.append(sum(product in got for product in wanted) / k)
            bought = known.product_index[known.request == row].tolist()
            before.append(sum(product in wanted for product in bought) / len(bought))
            after.append(sum(product >= 0 and product in got for product in bought) / len(bought))
        assert figures[f"overlap@{k}"] == pytest.approx(np.mean(overlaps))
        assert figures[f"recall@{k}"] == pytest.approx(np.mean(after))
        assert figures[f"recall_loss@{k}"] == pytest.approx(1 - np.mean(after) / np.mean(before))
        assert 0 < figures[f"recall_loss@{k}"] < 1


def test_exact_results_lose_nothing_in_whatever_order() -> None:
    known = reference()
    figures = accuracy(known.exact[:, ::-1], known, [20])
    assert (figures["overlap@20"], figures["recall_loss@20"]) == (1, 0)


def test_without_purchases_there_is_overlap_only() -> None:
    none = np.empty(0, np.int64)
    known = Reference(QUERIES, reference().exact, none, none)
    figures = accuracy(known.exact, known, [20])
    assert figures["overlap@20"] == 1
    assert np.isnan(figures["recall@20"])
    assert np.isnan(figures["recall_loss@20"])


def test_a_catalogue_smaller_than_k_can_be_found_whole() -> None:
    exact = np.array([[2, 0, 1, -1, -1]])
    known = Reference(QUERIES[:1], exact, np.array([0]), np.array([1]))
    assert accuracy(exact, known, [5])["overlap@5"] == 1
    assert accuracy(np.array([[2, -1, -1, -1, -1]]), known, [5])["overlap@5"] == pytest.approx(1 / 3)


# Times


class Clock:
    """Stands still but for what searching costs."""

    now = 0.0

    def perf_counter(self) -> float:
        return self.now

    monotonic = perf_counter


class Index:
    """Takes so many milliseconds for a query as its first number says."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.searched: list[float] = []
        self.threads: set[int] = set()

    def search(self, queries: np.ndarray, k: int) -> Found:
        self.searched += queries[:, 0].tolist()
        self.threads |= {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "openmp"}
        self._clock.now += float(queries[:, 0].sum()) / 1_000
        rows = np.tile(np.arange(k), (len(queries), 1))
        return Found(rows, rows.astype(np.float32), rows.astype(np.float32))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(ann, "time", made)
    return made


def costs(*milliseconds: float) -> np.ndarray:
    return np.array([[value, 0] for value in milliseconds], np.float32)


def test_queries_are_timed_one_by_one_on_one_thread(clock: Clock) -> None:
    index: Any = Index(clock)
    queries = costs(*range(1, 16))
    times = time_queries(index, queries, 5, passes=3)
    np.testing.assert_allclose(times, [list(range(1, 16))] * 3, rtol=1e-5)
    assert index.searched == [*range(1, 11), *[*range(1, 16)] * 3], "ten to warm up, then pass by pass"
    assert index.threads <= {1}
    assert max(pool["num_threads"] for pool in threadpool_info()) > 0


def test_what_is_far_too_slow_is_given_up(clock: Clock) -> None:
    slow: Any = Index(clock)
    assert time_queries(slow, costs(*[50] * 40), 5, passes=3, give_up_ms=49).shape == (1, 20)
    assert len(slow.searched) == 10 + 20
    quick: Any = Index(clock)
    assert time_queries(quick, costs(*[50] * 40), 5, passes=3, give_up_ms=51).shape == (3, 40)


def test_percentiles_are_over_queries_at_their_best() -> None:
    times = np.full((3, 200), 7.0)
    times[0, :] = 100  # another process had the core
    times[:, 7:10] = 20  # three of 200 queries are slow by nature
    figures = latency(times)
    assert figures == {"p50_ms": 7.0, "p99_ms": 20.0, "p99_all_ms": 100.0}


def test_queries_a_second(clock: Clock) -> None:
    index: Any = Index(clock)
    rows, queries_per_second = search_all(index, costs(*[2] * 600), 4)
    assert rows.shape == (600, 4)
    assert queries_per_second == pytest.approx(500)


# Indexes on disk


@pytest.fixture
def builds(tmp_path: Path) -> Builds:
    return Builds(tmp_path / "indexes", ProductVectors([VECTORS]), None)


def spec(text: str) -> IndexSpec:
    return resolve(parse_spec(text), len(VECTORS), VECTORS.shape[1])


def test_a_build_is_made_once(builds: Builds, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def build(vectors: ProductVectors, wanted: IndexSpec, build_index: Any = ann.build_index, **rest: Any) -> Any:
        made.append(str(wanted.only("build")))
        return build_index(vectors, wanted, **rest)

    monkeypatch.setattr(ann, "build_index", build)
    few, many = spec("ivf-flat:nlist=8,nprobe=1"), spec("ivf-flat:nlist=8,nprobe=8")
    found = {str(one): builds.index(one).search(QUERIES, 100).rows for one in (few, many, few)}
    assert (found[str(few)] < 0).any()
    assert not (found[str(many)] < 0).any()
    builds.index(spec("flat"))
    again = Builds(tmp_path / "indexes", ProductVectors([VECTORS]), None)
    np.testing.assert_array_equal(again.index(few).search(QUERIES, 100).rows, found[str(few)])
    assert made == ["ivf-flat:nlist=8", "flat"]
    assert again.facts(few)["build_seconds"] == builds.facts(few)["build_seconds"] > 0
    assert again.facts(few)["bytes_per_vector"] == again.path(few).stat().st_size / len(VECTORS)


def test_what_builds_have_in_common_is_made_once(
    builds: Builds, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cells of ivf-flat are those of the codes, and what is re-ranked is an index that was there."""
    made: list[str] = []

    def noted(name: str, number: int) -> Any:
        original = getattr(ann, name)

        def call(*arguments: Any, **rest: Any) -> Any:
            made.append(f"{name} {arguments[number]}")
            return original(*arguments, **rest)

        return call

    for name, number in (("train_cells", 1), ("build_index", 1), ("with_store", 2)):
        monkeypatch.setattr(ann, name, noted(name, number))
    texts = ("ivf-flat:nlist=8", "ivf-pq-fastscan-rerank:nlist=8", "ivf-pq-fastscan:nlist=8", "ivf-flat:nlist=6")
    found = [builds.index(spec(text)).search(QUERIES, 20) for text in texts]
    assert [line.split()[0] for line in made] == [
        "train_cells", "build_index", "build_index", "with_store", "train_cells", "build_index"
    ]  # fmt: skip
    seconds = [builds.facts(spec(text))["build_seconds"] for text in texts]
    assert seconds[1] > seconds[2] > 0, "as if each had been made from nothing"
    monkeypatch.undo()
    for text, kept in zip(texts, found, strict=True):
        alone = ProductIndex(build_index(ProductVectors([VECTORS]), spec(text)), spec(text), ProductVectors([VECTORS]))
        np.testing.assert_array_equal(alone.search(QUERIES, 20).rows, kept.rows)


def test_what_is_in_memory_is_more_than_the_index_file(builds: Builds, tmp_path: Path) -> None:
    """The codes' own scores are rough, so a search reads the vectors; one that re-ranks has a store in its file."""
    read = {}
    for text in ("flat", "ivf-pq-fastscan:nlist=8", "ivf-pq-fastscan-rerank:nlist=8"):
        facts = builds.facts(spec(text))
        read[text.partition(":")[0]] = facts["memory_per_vector"] - facts["bytes_per_vector"]
    assert read == {"flat": 0, "ivf-pq-fastscan": 4 * 8, "ivf-pq-fastscan-rerank": 0}
    boosting = Boosting(("stars",), np.array([0.5], np.float32), np.ones((400, 1), np.float32))
    boosted = Builds(tmp_path / "boosted", ProductVectors([VECTORS], boosting), boosting)
    facts = boosted.facts(resolve(parse_spec("ivf-pq-fastscan:nlist=8"), 400, 9))
    assert facts["memory_per_vector"] - facts["bytes_per_vector"] == 4 * 8 + 4


def test_what_takes_too_much_of_the_disk_goes_oldest_first(tmp_path: Path) -> None:
    texts = ["ivf-flat:nlist=4", "ivf-flat:nlist=5", "ivf-flat:nlist=6", "ivf-flat:nlist=7"]
    specs = [spec(text) for text in texts]
    folder = tmp_path / "indexes"
    size = 0
    for number, one in enumerate(specs):
        builds = Builds(folder, ProductVectors([VECTORS]), None)
        builds.index(one)
        size += builds.path(one).stat().st_size
        os.utime(builds.path(one), (number, number))
    kept = Builds(folder, ProductVectors([VECTORS]), None, max_bytes=size)
    kept.trim([])
    assert len(list(folder.glob("*.faiss"))) == 4, "there is room"
    small = Builds(folder, ProductVectors([VECTORS]), None, max_bytes=size // 2)
    small.index(specs[1])
    small.trim([specs[0], specs[0].with_values({"nprobe": 2})])
    left = {path.name for path in folder.glob("*.faiss")}
    assert left == {small.path(one).name for one in specs[:2]}, "the one that is wanted, the one that is loaded"
    assert {path.stem for path in folder.glob("*.json")} == {Path(name).stem for name in left}
    assert small.facts(specs[1])["build_seconds"] > 0
    assert small.index(specs[3]).search(QUERIES, 3).rows.shape == (30, 3), "built again"


def test_a_graph_that_takes_too_long_is_given_up(builds: Builds, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(index_module, "time", clock)
    monkeypatch.setattr(index_module, "_GROWN_AT_ONCE", 100)
    grown: list[int] = []

    def slow(index: Any, chunks: Any, add: Any = index_module.add) -> None:
        grown.append(index.ntotal)
        clock.now += 1
        add(index, chunks)

    monkeypatch.setattr(index_module, "add", slow)
    wanted = spec("hnsw:neighbors=4")
    with pytest.raises(TooLongError) as caught:
        builds.index(wanted, max_seconds=4.0)
    assert caught.value.seconds == pytest.approx(4 * np.log(400) / np.log(100)), "400 products, 100 of them in a second"
    assert grown == [0]
    assert not builds.path(wanted).exists()
    assert builds.index(wanted, max_seconds=6.0).search(QUERIES, 3).rows.shape == (30, 3)
    assert grown == [0, 0, 100, 200, 300]
    again = Builds(builds.path(wanted).parent, ProductVectors([VECTORS]), None)
    assert again.index(wanted, max_seconds=0.0).num_products == 400, "it is there"


def test_a_build_that_was_not_finished_is_made_again(builds: Builds) -> None:
    wanted = spec("ivf-flat:nlist=8")
    builds.path(wanted).parent.mkdir()
    builds.path(wanted).write_bytes(b"half of an index")
    assert builds.index(wanted).search(QUERIES, 3).rows.shape == (30, 3)
    assert json.loads(builds.path(wanted).with_suffix(".json").read_text())["index"] == "ivf-flat:nlist=8"


def test_points_are_measured_turn_by_turn(builds: Builds, monkeypatch: pytest.MonkeyPatch) -> None:
    turns: list[str] = []

    def timed(index: Any, queries: np.ndarray, k: int) -> np.ndarray:
        turns.append(str(index.spec))
        return np.full((1, len(queries)), float(len(turns)))

    monkeypatch.setattr(ann, "time_queries", timed)
    specs = [spec(text) for text in ("ivf-flat:nlist=8,nprobe=2", "flat", "ivf-flat:nlist=8,nprobe=8")]
    steps: list[None] = []
    rows = compare(specs, builds, reference(), [5, 20], timed=9, rounds=2, on_step=lambda: steps.append(None))
    flat, few, many = "flat", str(specs[0]), str(specs[2])
    assert turns == [flat, few, many, many, few, flat]
    assert len(steps) == 6
    assert [row["index"] for row in rows] == [few, flat, many]
    assert [row["p99_ms"] for row in rows] == [2, 1, 3], "the least of the rounds"
    assert rows[1]["overlap@20"] == rows[2]["overlap@20"] == 1 > rows[0]["overlap@20"]
    assert {"recall_loss@5", "p50_ms", "queries_per_second", "build_seconds", "bytes_per_vector"} <= rows[0].keys()
