"""Search over an export whose towers are a lookup, so that the right answer is known by eye."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from uepp.artifacts import write_manifest
from uepp.config import ExportConfig
from uepp.errors import InputError
from uepp.retrieval.index import build_index, write_index
from uepp.serving.search import Hit, Searcher

PRODUCTS = {
    "east": ("001", "Lamp, facing east"),
    "north": ("2", "Ünïcödé 赤い ランプ"),
    "north-east": ("03", "[bold]Brackets[/bold] & [gift]"),
}
NOW = datetime(2024, 5, 1, tzinfo=UTC)
COLUMNS = {"searches": ("query",), "clicks": ("product_id", "shop_id"), "purchases": ("product_id",)}
HISTORIES: dict[str, list[tuple[Any, ...]]] = {
    "searches": [("anna", 0, "赤い"), ("anna", 1, "east"), ("bert", 0, "east"), ("bert", 1, "赤い")],
    "clicks": [("cleo", 0, "001", "赤い"), ("cleo", 1, "2", "east")],
    "purchases": [("dora", 0, "001"), ("dora", 1, "2"), ("emil", 0, "gone")],
}
"""Users, days, and what they did."""
_HALF = float(np.sqrt(0.5))
VECTORS = np.array([[1, 0], [0, 1], [_HALF, _HALF]], np.float32)


class _Compass(tf.Module):
    """`east` is (1, 0), `赤い` is (0, 1), and any other text has no word in it."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "query")])
    def serve(self, query: tf.Tensor) -> dict[str, tf.Tensor]:
        east, north = (tf.cast(query == word, tf.float32) for word in ("east", "赤い"))
        return {"embedding": tf.stack([east, north], axis=1)}


def direction(words: tf.Tensor) -> tf.Tensor:
    """Words to their sum, [R] or [R, n] strings to [R, 2]."""
    words = tf.reshape(words, [tf.shape(words)[0], -1])
    parts = [tf.reduce_sum(tf.cast(words == word, tf.float32), axis=1) for word in ("east", "赤い")]
    return tf.stack(parts, axis=1)


_TEXT, _NUMBER = tf.TensorSpec([None], tf.string), tf.TensorSpec([None], tf.float32)
_PAST = tf.TensorSpec([None, None], tf.string)
_WHO = {
    "query": _TEXT, "country": _TEXT, "region": _TEXT, "language": _TEXT, "zip": _TEXT,
    "latitude": _NUMBER, "longitude": _NUMBER,
    "recent_searches": _PAST, "recent_shops": _PAST, "recent_titles": _PAST, "purchased_tags": _PAST,
}  # fmt: skip


class _Traveller(tf.Module):
    """Goes where words of the query, the place and the latest events lead; north by latitude and east by longitude."""

    def __init__(self) -> None:
        super().__init__()
        self.serve = tf.function(self._serve).get_concrete_function(
            **{name: tf.TensorSpec(spec.shape, spec.dtype, name) for name, spec in _WHO.items()}
        )

    def _serve(self, **inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        way = tf.zeros([tf.shape(inputs["query"])[0], 2])
        for name, value in inputs.items():
            if value.dtype == tf.string:
                way += direction(value[:, :1] if name.startswith(("recent", "purchased")) else value)
        degrees = tf.stack([inputs["longitude"], inputs["latitude"]], axis=1)
        way += tf.where(tf.math.is_nan(degrees), 0.0, degrees)
        return {"embedding": tf.math.l2_normalize(way, axis=1)}


def make_run(directory: Path, tower: tf.Module | None = None, **settings: Any) -> Path:
    export = directory / "export"
    export.mkdir(parents=True)
    (directory / "config.yaml").write_text("{}\n")
    tower = tower or _Compass()
    tf.saved_model.save(tower, str(export / "query_tower"), signatures={"serving_default": tower.serve})
    products = {"product_id": [one for one, _ in PRODUCTS.values()], "title": [title for _, title in PRODUCTS.values()]}
    tags = pa.array([["east", "of"], ["赤い"], None], pa.list_(pa.string()))
    pq.write_table(pa.table({**products, "tags": tags}), export / "products.parquet")
    for kind, rows in HISTORIES.items():
        columns = {"user_id": [row[0] for row in rows], "timestamp": [NOW + timedelta(days=row[1]) for row in rows]}
        columns |= {name: [row[2 + n] for row in rows] for n, name in enumerate(COLUMNS[kind])}
        schema = pa.schema([("user_id", pa.string()), ("timestamp", pa.timestamp("us", "UTC"))])
        for name in COLUMNS[kind]:
            schema = schema.append(pa.field(name, pa.string()))
        pq.write_table(pa.table(columns, schema), export / f"history_{kind}.parquet")
    write_index(build_index(VECTORS, ExportConfig.model_validate(settings)), export / "index.faiss")
    write_manifest(export, run_id="compass")
    return directory


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("search") / "run")


@pytest.fixture(scope="module")
def travels(tmp_path_factory: pytest.TempPathFactory) -> Searcher:
    """Search that depends on who asks."""
    return Searcher(make_run(tmp_path_factory.mktemp("travels") / "run", _Traveller()))


def hit(name: str, similarity: float) -> Hit:
    return Hit(*PRODUCTS[name], pytest.approx(similarity, abs=1e-6))


def test_the_most_similar_products_come_first(run: Path) -> None:
    searcher = Searcher(run)
    assert searcher.search("east", 3) == [hit("east", 1), hit("north-east", _HALF), hit("north", 0)]
    assert searcher.search("赤い", 2) == [hit("north", 1), hit("north-east", _HALF)]


@pytest.mark.parametrize("index", ["flat", "hnsw"])
def test_more_results_than_products(tmp_path: Path, index: str) -> None:
    found = Searcher(make_run(tmp_path / "run", index=index)).search("east", 1_000)
    assert found == [hit("east", 1), hit("north-east", _HALF), hit("north", 0)]


@pytest.mark.parametrize("k", [0, -1])
def test_k_below_1_is_refused(run: Path, k: int) -> None:
    with pytest.raises(InputError, match=f"--k {k}: must be at least 1"):
        Searcher(run).search("east", k)


@pytest.mark.parametrize("query", ["", " ", "?!"])
def test_a_query_without_a_word_is_refused(run: Path, query: str) -> None:
    with pytest.raises(InputError, match="no word in it"):
        Searcher(run).search(query)


def test_a_query_that_is_not_text_is_refused(run: Path) -> None:
    """What a shell passes on that is not UTF-8 arrives as lone surrogates."""
    with pytest.raises(InputError, match=r"query 'ring .udcff': not valid UTF-8"):
        Searcher(run).search("ring \udcff")


# Who asks


def first(searcher: Searcher, query: str = "somewhere", **who: Any) -> str:
    """Name of the first product; `nowhere` where nothing is known that leads anywhere."""
    best, second, *_ = searcher.search(query, 3, **who)
    if best.similarity == second.similarity:
        return "nowhere"
    return next(name for name, about in PRODUCTS.items() if about[0] == best.product_id)


@pytest.mark.parametrize(
    ("user", "expected"),
    # cleo's last click was in shop `east`, on the product titled Ünïcödé; dora's last purchase is tagged 赤い.
    [("anna", "east"), ("bert", "north"), ("cleo", "east"), ("dora", "north"), ("emil", "nowhere"), (None, "nowhere")],
)
def test_the_latest_events_of_the_user_count(travels: Searcher, user: str | None, expected: str) -> None:
    assert first(travels, user=user) == expected


@pytest.mark.parametrize("name", ["country", "region", "language", "zip"])
def test_a_place_counts(travels: Searcher, name: str) -> None:
    assert first(travels, context={name: "east"}) == "east"
    assert first(travels, context={name: "赤い"}) == "north"


def test_coordinates_count(travels: Searcher) -> None:
    assert first(travels, context={"latitude": 60.0, "longitude": 0.0}) == "north"
    assert first(travels, context={"latitude": 0, "longitude": 180}) == "east"
    assert first(travels, context={"latitude": 0.0, "longitude": 0.0}) == "nowhere"


def test_query_user_and_place_count_together(travels: Searcher) -> None:
    assert first(travels, "east", user="anna", context={"country": "赤い"}) == "north-east"
    assert first(travels, "east", user="anna", context={"country": "east"}) == "east"
    assert first(travels, "east", user="bert") == "north-east"
    assert first(travels, "east") == "east", "the search before leaves nothing behind"


def test_who_asks_is_refused_where_the_tower_would_not_look(run: Path) -> None:
    assert refused(Searcher(run), user="bert") == (
        "--user bert: this run's query tower has no history encoder (model.query_encoders)"
    )
    assert refused(Searcher(run), context={"country": "赤い"}) == (
        "--country: this run's query tower has no location encoder (model.query_encoders)"
    )


def refused(travels: Searcher, **who: Any) -> str:
    with pytest.raises(InputError) as caught:
        travels.search("east", **who)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_unknown_user_is_refused(travels: Searcher) -> None:
    expected = "--user zoe: no events of this user before the end of training"
    assert refused(travels, user="zoe") == expected


@pytest.mark.parametrize(
    ("context", "expected"),
    [
        ({"latitude": 90.1, "longitude": 0.0}, "latitude 90.1: must be between -90 and 90 degrees"),
        ({"latitude": 0.0, "longitude": -181}, "longitude -181: must be between -180 and 180 degrees"),
        ({"latitude": float("nan"), "longitude": 0.0}, "latitude nan: must be between -90 and 90 degrees"),
        ({"latitude": 0.0, "longitude": float("inf")}, "longitude inf: must be between -180 and 180 degrees"),
        ({"latitude": 1.0}, "latitude and longitude: give both or neither"),
        ({"longitude": 1.0, "country": "US"}, "latitude and longitude: give both or neither"),
    ],
)
def test_bad_coordinates_are_refused(travels: Searcher, context: dict[str, Any], expected: str) -> None:
    assert refused(travels, context=context) == expected


# What cannot be searched


def test_what_is_not_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"{tmp_path}: not a run directory"):
        Searcher(tmp_path)


def test_a_damaged_index_is_refused(tmp_path: Path) -> None:
    """Faiss itself loads a damaged index without complaint."""
    index = make_run(tmp_path / "run") / "export" / "index.faiss"
    content = bytearray(index.read_bytes())
    content[-1] ^= 1
    index.write_bytes(content)
    with pytest.raises(InputError, match=f"{index}: differs from its SHA-256"):
        Searcher(tmp_path / "run")
