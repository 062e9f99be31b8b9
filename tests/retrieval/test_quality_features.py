"""Quality features by loops, and that nothing of them comes from after T."""

import math
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from uepp.artifacts import write_json
from uepp.errors import InputError
from uepp.retrieval.quality import QualityFeature, fit_quality, logged_quality, read_quality, standardized_quality

T = datetime(2024, 5, 1, tzinfo=UTC)
_TIMESTAMP = pa.timestamp("us", "UTC")
AGES = [None, 400.0, 30.0, 30.0, 0.5, -1.0, -2.0]
"""Days before T that a product was created: two came after it, one is of always."""
SHOPS = ["a", "b", "a", None, "b", "a", "c"]
GRAPH = [  # query, product, clicks, purchases
    ("x", "p0", 3, 1),
    ("y", "p0", 1, 1),
    ("x", "p1", 10, 0),
    ("x", "p3", 0, 2),
    ("x", "p4", 6, 3),
    ("x", "gone", 50, 50),
]
KNOWN = 5


def products(**changes: Any) -> pa.Table:
    created = [None if age is None else T - timedelta(days=age) for age in AGES]
    columns = {
        "product_id": pa.array([f"p{row}" for row in range(len(AGES))]),
        "shop_id": pa.array(SHOPS),
        "created_at": pa.array(created, _TIMESTAMP),
        "quality_as_of": pa.array([T] * len(AGES), _TIMESTAMP),
    }
    return pa.table(columns | changes)


def graph(rows: list[tuple[str, str, int, int]] = GRAPH) -> pa.Table:
    names = ("query", "product_id", "clicks", "purchases")
    kinds = (pa.string(), pa.string(), pa.int64(), pa.int64())
    return pa.table(
        {
            name: pa.array([row[n] for row in rows], kind)
            for n, (name, kind) in enumerate(zip(names, kinds, strict=True))
        }
    )


def rate(purchases: float, clicks: float, of: list[tuple[float, float]]) -> float:
    """Purchases for each click, drawn to that of all by the mean clicks of those that have some."""
    if not clicks:
        return math.nan
    clicked = [c for _, c in of if c]
    strength = sum(clicked) / len(clicked)
    overall = sum(p for p, _ in of) / sum(c for _, c in of)
    return (purchases + strength * overall) / (clicks + strength)


def test_what_the_log_says_of_products() -> None:
    values = logged_quality(products(), graph(), T, KNOWN)
    counts = [(2, 4), (0, 10), (0, 0), (2, 0), (3, 6), (0, 0), (0, 0)]
    known = [row < KNOWN for row in range(7)]
    expected: dict[str, list[float]] = {
        "purchases": [p if is_known else math.nan for (p, _), is_known in zip(counts, known, strict=True)],
        "clicks": [c if is_known else math.nan for (_, c), is_known in zip(counts, known, strict=True)],
        "conversion": [rate(*one, counts) for one in counts],
    }
    of_shop = {
        shop: tuple(sum(counts[row][n] for row in range(7) if SHOPS[row] == shop) for n in (0, 1)) for shop in "abc"
    }
    shop_rates = {shop: rate(*counted, list(of_shop.values())) for shop, counted in of_shop.items()}
    expected["shop_conversion"] = [shop_rates.get(shop, math.nan) if shop else math.nan for shop in SHOPS]
    expected["freshness"] = [math.nan if age is None else -max(age, 0.0) for age in AGES]
    assert values.keys() == expected.keys()
    for name, column in expected.items():
        np.testing.assert_allclose(values[name], column, rtol=1e-6, err_msg=name)
    # a new product of a known shop has that shop's rate; one of a new shop has none
    assert values["shop_conversion"][5] == values["shop_conversion"][0]
    assert np.isnan(values["shop_conversion"][6])


def test_a_log_without_clicks_or_shops_says_less() -> None:
    no_shops = products(shop_id=pa.nulls(len(AGES), pa.string()))
    values = logged_quality(no_shops, graph([("x", "p1", 0, 4)]), T, KNOWN)
    assert values["purchases"][:KNOWN].tolist() == [0, 4, 0, 0, 0]
    for name in ("conversion", "shop_conversion"):
        assert np.isnan(values[name]).all()
    names = [feature.name for feature in fit_quality(values, KNOWN)]
    assert names == ["purchases", "freshness"], "clicks are all 0, and so say nothing"
    assert fit_quality(logged_quality(no_shops, graph([]), T, 0), 0) == []


def test_standardised_over_what_was_known_before_t() -> None:
    column = np.array([1.0, 2.0, math.nan, 4.0, 5.0, 1e9, math.nan])
    (feature,) = fit_quality({"quality_rating": column}, KNOWN)
    assert (feature.name, feature.transform) == ("quality_rating", "identity")
    assert feature.mean == pytest.approx(3.0)
    assert feature.std == pytest.approx(math.sqrt((4 + 1 + 1 + 4) / 4))
    assert feature.missing_share == pytest.approx(1 / 5)
    quality = standardized_quality({"quality_rating": column}, [feature])
    expected = [(value - feature.mean) / feature.std for value in (1, 2, 3, 4, 5)]
    assert quality.dtype == np.float32
    np.testing.assert_allclose(quality[:5, 0], expected, atol=1e-6)  # the missing one is the mean, 0
    assert quality[5:, 0].tolist() == [3.0, 0.0], "a later product is cut off, or has the mean"


def test_heavy_tails_are_logarithms() -> None:
    rng = np.random.default_rng(1)
    values = {
        "quality_sales": np.floor(rng.pareto(1.0, 2_000) * 10),
        "quality_stars": rng.normal(4, 0.3, 2_000),
        "quality_returns": -rng.pareto(1.0, 2_000),
        "freshness": -rng.uniform(0, 900, 2_000),
        "purchases": np.zeros(2_000) + (np.arange(2_000) < 1_000),
    }
    features = {feature.name: feature for feature in fit_quality(values, 2_000)}
    assert {name: feature.transform for name, feature in features.items()} == {
        "quality_sales": "log",
        "quality_stars": "identity",
        "quality_returns": "identity",
        "freshness": "log",
        "purchases": "log",
    }
    sales = features["quality_sales"].standardize(values["quality_sales"])
    logs = np.array([math.log(1 + value) for value in values["quality_sales"]])
    np.testing.assert_allclose(sales, np.clip((logs - logs.mean()) / logs.std(), -3, 3), atol=1e-5)
    assert sales.max() == 3, "the tail is cut off too"
    # whatever the transform, better stays better
    for name, feature in features.items():
        order = np.argsort(values[name], kind="stable")
        assert (np.diff(feature.standardize(values[name][order])) >= 0).all(), name


def test_constant_and_empty_columns_are_left_out() -> None:
    values = {
        "quality_same": np.full(6, 0.1),
        "quality_none": np.full(6, math.nan),
        "quality_new": np.array([1.0, 1, 1, 1, 1, 7]),
        "quality_two": np.array([0.0, 0, 0, 0, 1, math.nan]),
    }
    assert [feature.name for feature in fit_quality(values, 5)] == ["quality_two"]


def write_export(directory: Path, table: pa.Table) -> Path:
    pq.write_table(table, directory / "products.parquet")
    pq.write_table(graph(), directory / "graph.parquet")
    write_json(directory / "windows.json", {"train_end": T.isoformat()})
    return directory


def test_an_export_has_columns_and_what_was_logged(tmp_path: Path) -> None:
    stars = pa.array([1.0, None, 3.0, 4.0, 5.0, 2.0, None])
    export = write_export(tmp_path, products(quality_stars=stars))
    values, num_known = read_quality(export)
    assert num_known == KNOWN
    logged = ["purchases", "clicks", "conversion", "shop_conversion", "freshness"]
    assert list(values) == ["quality_stars", *logged]
    np.testing.assert_array_equal(values["quality_stars"], [1, math.nan, 3, 4, 5, 2, math.nan])
    chosen, _ = read_quality(export, ("freshness", "quality_stars"))
    assert list(chosen) == ["freshness", "quality_stars"]
    with pytest.raises(InputError, match=r"boosting.features: stars: .* it has quality_stars, purchases"):
        read_quality(export, ("stars",))


def test_quality_from_after_t_is_refused(tmp_path: Path) -> None:
    late = pa.array([T] * 6 + [T + timedelta(microseconds=1)], _TIMESTAMP)
    stars = pa.array([1.0] * len(AGES))
    export = write_export(tmp_path, products(quality_stars=stars, quality_as_of=late))
    with pytest.raises(InputError, match=r"quality_as_of, product_id 'p6'.*leakage"):
        read_quality(export)


def test_a_feature_is_what_its_json_says() -> None:
    feature = QualityFeature("quality_x", "log", 1.0, 2.0, 0.25)
    assert QualityFeature(**feature.to_json()) == feature
    f = feature.standardize(np.array([-(math.e**2 - 1), 0.0, math.e**3 - 1, math.nan]))
    np.testing.assert_allclose(f, [(-2 - 1) / 2, -0.5, 1.0, 0.0], atol=1e-6)
