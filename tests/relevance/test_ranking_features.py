"""Features of the ranker against loops over the raw tables, and that nothing at or after a request is in them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from uepp.config import DataConfig
from uepp.data.mining import mine
from uepp.data.schema import read_products
from uepp.evaluation.requests import Requests, load_requests
from uepp.relevance.ranking_features import Asked, RankingFeatures

T = datetime(2024, 3, 10, tzinfo=UTC)
CONFIG = DataConfig(train_end=T, graph_days=8, example_days=4, selection_days=2, report_days=2)
_TIMESTAMP = pa.timestamp("us", "UTC")
PRODUCTS: dict[str, dict[str, Any]] = {
    f"p{n}": {
        "shop_id": f"s{n % 3}" if n % 5 else None,
        "category": f"Home > {'Lamps' if n % 2 else 'Mugs'}" if n % 7 else None,
        "price": None if n == 3 else 2.5 * n,
        "created_at": T + timedelta(days=n - 9),
        "country": ("DE", " us", "US", None)[n % 4],
        "region": ("CA", None, "ca ", "BY")[n % 4],
        "latitude": None if n % 6 == 5 else 40.0 + n,
        "longitude": None if n % 6 == 5 else -100.0 + 3 * n,
        "quality_stars": None if n == 4 else n / 3,
    }
    for n in range(11)
}
IDS = list(PRODUCTS)  # in the order of their days, which is that of the rows


@dataclass(frozen=True)
class Event:
    """One row of the log; `hours` counts from T."""

    hours: float
    type: str
    query: str
    product_id: str | None = None
    user_id: str | None = None
    country: str | None = None
    region: str | None = None
    latitude: float | None = None
    longitude: float | None = None


def visit(hours: float, query: str, user: str | None, steps: str, **place: Any) -> list[Event]:
    """A search, then `c3` for a click on p3, `b3` for its purchase, a minute each."""
    events = [Event(hours, "search", query, None, user, **place)]
    for number, step in enumerate(steps.split(), 1):
        kind = {"c": "click", "b": "purchase"}[step[0]]
        events.append(Event(hours + number / 60, kind, query, f"p{step[1:]}", user, **place))
    return events


US = {"country": "US", "region": "CA", "latitude": 41.0, "longitude": -99.0}
LOG = [
    *visit(-150, "lamp", "ann", "c1 c2 b2"),
    *visit(-90, "mug", "ann", "c2 c4 b4", **US),
    *visit(-80, "mug", "bob", "c4 c6"),
    *visit(-70, "lamp", None, "c1 b1"),
    *visit(-30, "lamp", "bob", "c1 b1 b3"),
    *visit(2, "lamp", "ann", "c1 b1", **US),
    *visit(5, "mug", "ann", "c4 b4", country="us "),
    *visit(7, "mug", "bob", "c6 b6", country="FR", region="BY"),
    *visit(9, "lamp", None, "b3", latitude=-10.0, longitude=170.0),
    *visit(30, "lamp", "new", "b5", country="de"),
]


def write(directory: Path, events: Sequence[Event]) -> Path:
    directory.mkdir(parents=True)
    columns: dict[str, Any] = {
        "timestamp": pa.array([T + timedelta(hours=event.hours) for event in events], _TIMESTAMP)
    }
    for name in ("type", "query", "product_id", "user_id", "country", "region"):
        columns[name] = pa.array([getattr(event, name) for event in events], pa.string())
    for name in ("latitude", "longitude"):
        columns[name] = pa.array([getattr(event, name) for event in events], pa.float64())
    pq.write_table(pa.table(columns), directory / "events.parquet")
    about = {name: [product[name] for product in PRODUCTS.values()] for name in PRODUCTS["p0"]}
    about["created_at"] = pa.array(about["created_at"], _TIMESTAMP)
    as_of = pa.array([T] * len(PRODUCTS), _TIMESTAMP)
    products = {"product_id": IDS, "title": IDS, **about, "quality_as_of": as_of}
    pq.write_table(pa.table(products), directory / "products.parquet")
    return directory


def read(directory: Path, events: Sequence[Event]) -> tuple[RankingFeatures, Requests]:
    """What the ranker reads of a log's selection requests."""
    data = write(directory / "data", events)
    mined = mine(data, CONFIG, directory / "mined")
    products = read_products(data)
    assert products.column("product_id").to_pylist() == IDS
    pq.write_table(products, mined / "products.parquet")
    return RankingFeatures(mined), load_requests(mined / "requests.parquet", "selection", products)


def matrix(features: RankingFeatures, asked: Asked, rows: np.ndarray, scores: np.ndarray) -> list[Any]:
    found = features.matrix(asked, rows, scores)
    assert found.dtype == np.float32
    names = features.names("similarity")
    return [[dict(zip(names, product, strict=True)) for product in one] for one in found.tolist()]


# The oracle


def known(value: Any) -> bool:
    return value is not None and not math.isnan(value)


def kilometres(one: tuple[Any, Any], other: tuple[Any, Any]) -> float:
    if None in (*one, *other):
        return math.nan
    a, b, c, d = (math.radians(value) for value in (*one, *other))
    cosine = math.sin(a) * math.sin(c) + math.cos(a) * math.cos(c) * math.cos(b - d)
    return 6_371.0088 * math.acos(max(-1.0, min(1.0, cosine)))


def mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def oracle(events: Sequence[Event], first: Event, listed: list[tuple[str, float]], product_id: str) -> dict[str, float]:
    """Features of one product of a list, from the raw tables, for the request that begins with `first`."""
    own = [event for event in events if event.user_id and event.user_id == first.user_id and event.hours < first.hours]
    bought = [str(event.product_id) for event in own if event.type == "purchase"]
    clicked = [str(event.product_id) for event in own if event.type == "click"]
    before = [event for event in events if -8 * 24 <= event.hours < 0]
    it = PRODUCTS[product_id]

    def log_price(name: str) -> float:
        price = PRODUCTS[name]["price"]
        return math.nan if price is None else math.log(1 + price)

    def number(type_: str, key: str, value: Any) -> float:
        return sum(
            event.type == type_ and (event.product_id if key == "id" else PRODUCTS[str(event.product_id)][key]) == value
            for event in before
            if event.product_id
        )

    def rate(key: str, all_values: list[Any], value: Any) -> float:
        """Of the clicked: purchases for each click, drawn to the rate of all by the clicks that one has on average."""
        pairs = {
            one: (number("purchase", key, one), number("click", key, one)) for one in all_values if one is not None
        }
        clicked_ones = [clicks for _, clicks in pairs.values() if clicks]
        if value is None or not pairs[value][1]:
            return math.nan
        share = sum(b for b, _ in pairs.values()) / sum(c for _, c in pairs.values())
        strength = mean(clicked_ones)
        return (pairs[value][0] + strength * share) / (pairs[value][1] + strength)

    def times(names: list[str], key: str) -> float:
        return math.nan if it[key] is None else sum(PRODUCTS[name][key] == it[key] for name in names)

    def same(theirs: str | None, its: str | None) -> float:
        return math.nan if not theirs or not its else float(theirs.strip().lower() == its.strip().lower())

    is_before = it["created_at"] < T
    similarity = dict(listed)[product_id]
    own_country = same(first.country, it["country"])
    own_region = same(first.region, it["region"])
    if own_region == 1:
        names = [(one or "").strip().lower() for one in (first.country, it["country"])]
        own_region = float(names[0] == names[1])
    return {
        "similarity": similarity,
        "similarity_gap": max(score for _, score in listed) - similarity,
        "quality_stars": math.nan if it["quality_stars"] is None else it["quality_stars"],
        "purchases": number("purchase", "id", product_id) if is_before else math.nan,
        "clicks": number("click", "id", product_id) if is_before else math.nan,
        "conversion": rate("id", IDS, product_id),
        "shop_conversion": rate("shop_id", sorted({str(p["shop_id"]) for p in PRODUCTS.values() if p["shop_id"]}),
                                it["shop_id"]),
        "freshness": -max(0.0, (T - it["created_at"]) / timedelta(days=1)),
        "price": math.nan if it["price"] is None else it["price"],
        "price_gap": log_price(product_id) - mean([log_price(name) for name, _ in listed if known(log_price(name))]),
        "bought": bought.count(product_id),
        "clicked": clicked.count(product_id),
        "bought_of_shop": times(bought, "shop_id"),
        "clicked_of_shop": times(clicked, "shop_id"),
        "bought_of_category": times(bought, "category"),
        "clicked_of_category": times(clicked, "category"),
        "price_taste": log_price(product_id) - mean([log_price(name) for name in bought if known(log_price(name))]),
        "num_bought": len(bought),
        "num_clicked": len(clicked),
        "own_country": own_country,
        "own_region": own_region,
        "distance_km": kilometres((first.latitude, first.longitude), (it["latitude"], it["longitude"])),
    }  # fmt: skip


def lists_of(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Lists of different lengths, all products in some, and scores."""
    rng = np.random.default_rng(5)
    rows = np.stack([rng.permutation(len(IDS)) for _ in range(size)]).astype(np.int64)
    for number in range(size):
        rows[number, len(IDS) - number % 3 :] = -1
    return rows, rng.random(rows.shape).astype(np.float32)


def test_features_are_those_of_the_raw_tables(tmp_path: Path) -> None:
    features, requests = read(tmp_path, LOG)
    asked = features.asked(requests.raw)
    rows, scores = lists_of(len(requests))
    found = matrix(features, asked, rows, scores)
    firsts = [event for event in LOG if event.type == "search" and event.hours >= 0]
    assert len(requests) == len(firsts) == 5
    told: dict[str, set[float]] = {name: set() for name in features.names("similarity")}
    for request, first in enumerate(firsts):
        assert requests.queries[request] == first.query
        listed = [
            (IDS[row], float(score)) for row, score in zip(rows[request], scores[request], strict=True) if row >= 0
        ]
        for place, (product_id, _) in enumerate(listed):
            expected = oracle(LOG, first, listed, product_id)
            assert found[request][place].keys() == expected.keys()
            for name, value in expected.items():
                assert found[request][place][name] == pytest.approx(value, rel=1e-4, abs=1e-5, nan_ok=True), name
                told[name].add(round(value, 3) if known(value) else math.inf)
    assert min(len(values - {math.inf}) for values in told.values()) > 1, "every feature tells something here"


def test_nothing_at_or_after_the_request_counts(tmp_path: Path) -> None:
    """What she does from that very moment on, and what others do since T, is in later requests only."""
    moment = next(event.hours for event in LOG if event.type == "search" and event.hours >= 0)
    steps = ["click", "purchase"]
    later = [Event(moment + n / 90, steps[n % 2], "bowl", IDS[n % 11], "ann", **US) for n in range(30)]
    later += [Event(hours, type_, "bowl", name, "bob") for hours in (0, 1, 20) for type_ in steps for name in IDS]
    found = {}
    for name, log in (("as it was", LOG), ("and then", [*LOG, *later])):
        features, requests = read(tmp_path / name, log)
        kept = [n for n, query in enumerate(requests.queries) if query != "bowl"]
        asked = features.asked(requests.raw.take(np.array(kept)))
        assert asked.queries == [event.query for event in LOG if event.type == "search" and event.hours >= 0]
        rows, scores = lists_of(len(asked))
        found[name] = features.matrix(asked, rows, scores)
    np.testing.assert_array_equal(found["as it was"][0], found["and then"][0])
    assert (found["as it was"][1] != found["and then"][1]).any(), "her next request knows of it"


def test_missing_products_are_nothing(tmp_path: Path) -> None:
    """They are NaN but for what is the request's, and they change nothing of the others."""
    features, requests = read(tmp_path, LOG)
    asked = features.asked(requests.raw)
    rows, scores = lists_of(len(requests))
    short = rows.copy()
    short[:, 6:] = -1
    cut = features.matrix(asked, rows[:, :6], scores[:, :6])
    filled = features.matrix(asked, short, np.where(short >= 0, scores, np.float32(9)))
    np.testing.assert_array_equal(filled[:, :6], cut)
    names = features.names("similarity")
    own = [names.index(name) for name in ("num_bought", "num_clicked")]
    assert np.isnan(np.delete(filled[:, 6:], own, axis=2)).all()
    nothing = features.matrix(asked, np.full((len(requests), 2), -1), np.zeros((len(requests), 2)))
    assert np.isnan(np.delete(nothing, own, axis=2)).all()


def test_requests_do_not_touch_each_other(tmp_path: Path) -> None:
    features, requests = read(tmp_path, LOG)
    asked = features.asked(requests.raw)
    rows, scores = lists_of(len(requests))
    together = features.matrix(asked, rows, scores)
    alone = [features.asked(requests.raw.take(np.array([n]))) for n in range(len(requests))]
    for number, one in enumerate(alone):
        np.testing.assert_array_equal(
            features.matrix(one, rows[number : number + 1], scores[number : number + 1])[0], together[number]
        )
    np.testing.assert_array_equal(features.matrix(Asked.together(alone), rows, scores), together)
    assert len({one.digest for one in alone}) == len(alone)
    assert alone[0].digest == features.asked(requests.raw.take(np.array([0]))).digest


def test_two_scores_have_two_columns_each(tmp_path: Path) -> None:
    features, requests = read(tmp_path, LOG)
    asked = features.asked(requests.raw)
    rows, scores = lists_of(len(requests))
    rows[0, 1] = -1
    logits = np.where(rows >= 0, 3 - 2 * scores, np.nan)
    plain, judged = features.matrix(asked, rows, scores), features.matrix(asked, rows, logits)
    both = features.matrix(asked, rows, scores, logits)
    names = features.names("both")
    assert names[:4] == ("similarity", "similarity_gap", "cross_encoder", "cross_encoder_gap")
    assert names == (*features.names("similarity")[:2], *features.names("cross_encoder"))
    np.testing.assert_array_equal(both, np.concatenate([plain[..., :2], judged], axis=2))


def test_a_catalogue_without_a_column_is_one_that_does_not_know_it(tmp_path: Path) -> None:
    """The contract of a data set: a column may be absent or null."""
    features, requests = read(tmp_path, LOG)
    (export,) = (tmp_path / "mined").glob("*/")
    rows, scores = lists_of(len(requests))
    names = ["shop_id", "category", "price", "country", "region", "latitude", "longitude", "quality_stars"]
    products = pq.read_table(export / "products.parquet")
    found = []
    for change in ("absent", "null"):
        changed = products.drop_columns(names)
        if change == "null":
            for name in names:
                changed = changed.append_column(name, pa.nulls(changed.num_rows, products.schema.field(name).type))
        pq.write_table(changed, export / "products.parquet")
        again = RankingFeatures(export, features.quality)
        assert again.names("cross_encoder") == features.names("cross_encoder")
        found.append(again.matrix(again.asked(requests.raw), rows, scores))
    np.testing.assert_array_equal(*found)
    assert np.isnan(found[0][..., features.names("similarity").index("quality_stars")]).all()
