"""Quality of products, independent of any query: what boosting adds to similarity (UEPPR IV).

UEPPR names high product rating, product freshness and shop conversion rate. What a rating is, the data set says in
its `quality_*` columns; the other features are counted here, from the time before T alone.
"""

from dataclasses import asdict, dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from uepp.artifacts import read_json
from uepp.data.schema import check_quality
from uepp.errors import InputError
from uepp.features.catalog import num_products_before

CLIP = 3.0
"""Standardised values are cut to [-CLIP, CLIP]: no single product is boosted without limit."""
Transform = Literal["identity", "log"]
_HEAVY_TAIL = (
    1.0  # skewness from which a column is taken as a logarithm: that of a normal one is 0, an exponential one 2
)
_LOGGED: dict[str, Transform] = {
    "purchases": "log",
    "clicks": "log",
    "conversion": "identity",
    "shop_conversion": "identity",
    "freshness": "log",
}
_SECONDS_A_DAY = 86_400


@dataclass(frozen=True)
class QualityFeature:
    """How the values of a feature become f(p).

    f = clip((t(value) - mean) / std, -CLIP, CLIP), and 0, the mean, where the value is missing.

    Attributes:
        name: a `quality_*` column, or a feature of `logged_quality`.
        transform: t; `log`: sign(x) · log(1 + |x|), which tames heavy tails.
        mean: of t(value) over the products that are known before T and have one.
        std: likewise, > 0.
        missing_share: of those products.
    """

    name: str
    transform: Transform
    mean: float
    std: float
    missing_share: float

    def standardize(self, values: np.ndarray) -> np.ndarray:
        """f(p), float32 [N] in [-CLIP, CLIP], of float64 [N] with NaN where missing."""
        standardized = np.clip((_transformed(values, self.transform) - self.mean) / self.std, -CLIP, CLIP)
        return np.nan_to_num(standardized, nan=0.0).astype(np.float32)

    def to_json(self) -> dict[str, Any]:
        """Its settings."""
        return asdict(self)

    @classmethod
    def from_json(cls, facts: dict[str, Any]) -> "QualityFeature":
        """Of its settings, with whatever else is said of it."""
        return cls(**{field.name: facts[field.name] for field in fields(cls)})


def fit_quality(values: dict[str, np.ndarray], num_known: int) -> list[QualityFeature]:
    """Means, deviations and transforms, from products known before T only.

    Counts and ages are taken as logarithms, and so are columns with a heavy right tail (skewness above 1). A feature
    that has the same value for all of them, or none, says nothing and is left out.

    Args:
        values: by name, float64 [N], NaN where missing.
        num_known: leading rows that were there before T.
    """
    features = []
    for name, column in values.items():
        known = column[:num_known]
        present = known[~np.isnan(known)]
        if not len(present):
            continue
        transform = _LOGGED.get(name) or ("log" if _skewness(present) > _HEAVY_TAIL else "identity")
        transformed = _transformed(present, transform)
        std = float(transformed.std())
        if std > 1e-9 * max(1.0, float(np.abs(transformed).max())):
            missing = 1 - len(present) / len(known)
            features.append(QualityFeature(name, transform, float(transformed.mean()), std, missing))
    return features


def standardized_quality(values: dict[str, np.ndarray], features: list[QualityFeature]) -> np.ndarray:
    """f(p) of every product, float32 [N, F]."""
    return np.stack([feature.standardize(values[feature.name]) for feature in features], axis=1)


def read_quality(export: Path, names: tuple[str, ...] | None = None) -> tuple[dict[str, np.ndarray], int]:
    """Every quality feature that an export has the data for, and the number of products that were there before T.

    Args:
        export: an export.
        names: the features wanted; none: all.

    Returns:
        float64 [N] by name, NaN where missing, and the number of products known before T.

    Raises:
        InputError: quality measured after T, or a wanted feature that is not there.
    """
    products, graph, train_end = _read(export)
    check_quality(products, train_end)
    values, num_known = _values(products, graph, train_end)
    for name in names or ():
        if name not in values:
            raise InputError(f"boosting.features: {name}: this data has no such feature; it has {', '.join(values)}")
    return {name: values[name] for name in names or values}, num_known


def refreshed_quality(folder: Path, features: list[dict[str, Any]]) -> np.ndarray:
    """f(p) of a catalogue that is newer than training, float32 [N, F].

    What the products' own columns say is as new as the catalogue. What is counted is as of T, and so are means,
    deviations and transforms: weights were tuned for these.

    Args:
        folder: what is to become an export, with a catalogue that `check_has_quality` let pass.
        features: of `boosting.json`.
    """
    values, _ = _values(*_read(folder))
    return standardized_quality(values, [QualityFeature.from_json(facts) for facts in features])


def check_has_quality(products: pa.Table, features: list[dict[str, Any]]) -> None:
    """Refuse a catalogue without a column that a boosting weighs.

    Args:
        products: the catalogue.
        features: of `boosting.json`.

    Raises:
        InputError: naming the column.
    """
    names = (facts["name"] for facts in features)
    for name in names:
        if name.startswith("quality_") and name not in products.column_names:
            raise InputError(
                f"products.parquet: no column {name}, which this run is boosted by; give it, or take the boosting out "
                "with: uepp boost RUN --off"
            )


def _read(export: Path) -> tuple[pa.Table, pa.Table, datetime]:
    """What quality is read of: columns of the products, graph, T."""
    path = export / "products.parquet"
    names = [
        name
        for name in pq.read_schema(path).names
        if name.startswith("quality_") or name in ("product_id", "shop_id", "created_at")
    ]
    train_end = datetime.fromisoformat(read_json(export / "windows.json")["train_end"])
    return pq.read_table(path, columns=names), pq.read_table(export / "graph.parquet"), train_end


def _values(products: pa.Table, graph: pa.Table, train_end: datetime) -> tuple[dict[str, np.ndarray], int]:
    """Every feature that there is, and the number of products that were there before T."""
    num_known = num_products_before(products, train_end)
    columns = [name for name in products.column_names if name.startswith("quality_") and name != "quality_as_of"]
    values = {name: _floats(products.column(name)) for name in columns}
    return values | logged_quality(products, graph, train_end, num_known), num_known


def logged_quality(products: pa.Table, graph: pa.Table, train_end: datetime, num_known: int) -> dict[str, np.ndarray]:
    """What the time before T says of each product, as far as the log goes.

    * `purchases`, `clicks`: their number in the graph window; missing for products that came after T.
    * `conversion`: purchases for each click, shrunk: (purchases + m · r) / (clicks + m), with r the rate of all
      products and m the mean clicks of a clicked one; missing without a click.
    * `shop_conversion`: the same of all products of the shop, so that new products of a known shop have it.
    * `freshness`: minus the age at T in days, 0 for what came after T; missing without `created_at`.

    Args:
        products: the catalogue in product-index order.
        graph: mined; `product_id`, `clicks`, `purchases`.
        train_end: T.
        num_known: leading products that were there before T.

    Returns:
        float64 [N] by name, NaN where missing.
    """
    row = pc.index_in(graph.column("product_id"), pa.array(products.column("product_id").to_pylist(), pa.string()))
    is_known = np.asarray(pc.less(pc.fill_null(row, num_known), num_known))
    rows = np.asarray(pc.fill_null(row, 0))[is_known]
    clicks, purchases = (
        np.bincount(rows, np.asarray(graph.column(name), float)[is_known], minlength=products.num_rows)
        for name in ("clicks", "purchases")
    )
    is_there = np.arange(products.num_rows) < num_known
    values = {
        "purchases": np.where(is_there, purchases, np.nan),
        "clicks": np.where(is_there, clicks, np.nan),
        "conversion": _rate(purchases, clicks),
    }
    shop = np.asarray(pc.fill_null(products.column("shop_id").combine_chunks().dictionary_encode().indices, -1))
    of_shop = np.full(products.num_rows, np.nan)
    if (shop >= 0).any():
        has_shop = shop >= 0
        totals = [np.bincount(shop[has_shop], counts[has_shop]) for counts in (purchases, clicks)]
        of_shop[has_shop] = _rate(*totals)[shop[has_shop]]
    values["shop_conversion"] = of_shop
    created = _floats(pc.cast(pc.cast(products.column("created_at"), pa.timestamp("s", "UTC"), safe=False), pa.int64()))
    values["freshness"] = -np.maximum(train_end.timestamp() - created, 0.0) / _SECONDS_A_DAY
    return values


def _rate(purchases: np.ndarray, clicks: np.ndarray) -> np.ndarray:
    """Purchases for each click, drawn to the rate of all by as many clicks as a clicked one has on average."""
    is_clicked = clicks > 0
    if not is_clicked.any():
        return np.full(len(clicks), np.nan)
    rate, strength = purchases.sum() / clicks.sum(), clicks[is_clicked].mean()
    return np.where(is_clicked, (purchases + strength * rate) / (clicks + strength), np.nan)


def _transformed(values: np.ndarray, transform: Transform) -> np.ndarray:
    return np.sign(values) * np.log1p(np.abs(values)) if transform == "log" else values


def _skewness(values: np.ndarray) -> float:
    deviations = values - values.mean()
    std = float(deviations.std())
    return float(np.mean((deviations / std) ** 3)) if std > 0 else 0.0


def _floats(column: pa.ChunkedArray) -> np.ndarray:
    """A column as float64, NaN where null."""
    return np.asarray(pc.cast(column, pa.float64(), safe=False).combine_chunks().to_numpy(zero_copy_only=False), float)
