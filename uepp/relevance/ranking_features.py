"""What the final ranker knows of a request and a product that was found for it (BHNS 4.3.1).

How relevant the product is to the query, how it is liked, what it costs, and what it is to the person who asks. All of
it as of the request: what is counted of products is from before T, and what a person did is from before the moment.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from uepp.artifacts import read_json
from uepp.features.catalog import num_products_before
from uepp.features.distance import distance_km
from uepp.features.raw import COORDINATES
from uepp.features.requests import RawRequests
from uepp.retrieval.quality import logged_quality

Score = Literal["similarity", "cross_encoder"]
"""What says how relevant a product is: the towers' cosine, or the logit of a cross-encoder."""
Relevance = Literal["similarity", "cross_encoder", "both"]
SCORES: Mapping[Relevance, tuple[Score, ...]] = {
    "similarity": ("similarity",),
    "cross_encoder": ("cross_encoder",),
    "both": ("similarity", "cross_encoder"),
}
"""The scores that a ranker reads. BHNS puts one in the place of the other; a text's judge and what people bought know
different things, so a ranker of both is one more."""

_PERSONAL = (
    "bought", "clicked", "bought_of_shop", "clicked_of_shop", "bought_of_category", "clicked_of_category",
    "price_taste", "num_bought", "num_clicked", "own_country", "own_region", "distance_km",
)  # fmt: skip
_READ = ("product_id", "shop_id", "category", "price", "created_at", "country", "region", *COORDINATES)


@dataclass(frozen=True, eq=False)
class Asked:
    """B requests, as far as the ranker reads them; a history is everything before the request, in any order.

    Attributes:
        queries: [B] texts, for a cross-encoder.
        clicked: product indexes of clicks, int64 [B] arrays.
        clicked_shops: numbers of the shops of clicks (`RankingFeatures.shops`), likewise.
        bought: product indexes of purchases, likewise.
        country: [B], empty where unknown.
        region: likewise.
        latitude: float64 [B] degrees, NaN where unknown.
        longitude: likewise.
    """

    queries: Sequence[str]
    clicked: Sequence[np.ndarray]
    clicked_shops: Sequence[np.ndarray]
    bought: Sequence[np.ndarray]
    country: Sequence[str]
    region: Sequence[str]
    latitude: np.ndarray
    longitude: np.ndarray

    def __len__(self) -> int:
        """B."""
        return len(self.queries)

    @cached_property
    def digest(self) -> bytes:
        """The same for the same requests only (up to collisions of 128 bits); histories count in their order."""
        digest = hashlib.blake2b(repr((self.queries, self.country, self.region)).encode(), digest_size=16)
        for part in (*self.clicked, *self.clicked_shops, *self.bought, self.latitude, self.longitude):
            digest.update(len(part).to_bytes(8) + part.tobytes())
        return digest.digest()

    @classmethod
    def together(cls, parts: Sequence["Asked"]) -> "Asked":
        """The requests of all parts, in order."""

        def joined(name: str) -> list[object]:
            return [value for part in parts for value in getattr(part, name)]

        lists = {name: joined(name) for name in ("queries", "clicked", "clicked_shops", "bought", "country", "region")}
        return cls(**lists, **{name: np.array(joined(name), float) for name in COORDINATES})  # type: ignore[arg-type]


class RankingFeatures:
    """Features of (request, product), looked up in arrays of the catalogue.

    | Feature | |
    |---|---|
    | `similarity`, `cross_encoder`, or both | scores of relevance; and `…_gap`, how far below the best of the list |
    | `quality_*` | columns of the catalogue |
    | `purchases`, `clicks`, `conversion`, `shop_conversion`, `freshness` | popularity and more, `logged_quality` |
    | `price`, `price_gap` | and log(1 + price) minus its mean in the list |
    | `bought`, `clicked` | how often the person did that with the product before |
    | `…_of_shop`, `…_of_category` | with a product of its shop, of its category (all levels) |
    | `price_taste` | log(1 + price) minus its mean over what the person bought |
    | `num_bought`, `num_clicked` | length of the history, the same for the whole list |
    | `own_country`, `own_region` | whether the product is where the person is, 1 or 0; regions within countries |
    | `distance_km` | between both |

    What is not known is NaN, which trees have a branch for. A column that the catalogue lacks is known of no product.

    Args:
        export: an export, or a folder that is to become one.
        quality: names of the `quality_*` columns that are read; none: those that the catalogue has.

    Attributes:
        quality: as given.
    """

    def __init__(self, export: Path, quality: Sequence[str] | None = None) -> None:
        path = export / "products.parquet"
        there = pq.read_schema(path).names
        if quality is None:
            quality = [name for name in there if name.startswith("quality_") and name != "quality_as_of"]
        self.quality = tuple(quality)
        names = [name for name in (*_READ, *self.quality) if name in there]
        products = pq.read_table(path, columns=names)
        self.num_products = products.num_rows
        for name in set(_READ) - set(names):
            type_ = pa.timestamp("us", "UTC") if name == "created_at" else pa.string()
            products = products.append_column(name, pa.nulls(self.num_products, type_))
        train_end = datetime.fromisoformat(read_json(export / "windows.json")["train_end"])
        num_known = num_products_before(products, train_end)
        logged = logged_quality(products, pq.read_table(export / "graph.parquet"), train_end, num_known)
        price = _numbers(products, "price")
        values = {name: _numbers(products, name) for name in self.quality} | logged | {"price": price}
        self._own = np.stack(list(values.values()), axis=1).astype(np.float32)
        self._own_names = tuple(values)
        self._log_price = np.log1p(price)
        self._shop, self._shop_codes = _coded(_texts(products, "shop_id"))
        self._category, _ = _coded(_texts(products, "category"))
        country, region = ([_place(name) for name in _texts(products, column)] for column in ("country", "region"))
        self._country, self._country_codes = _coded(country)
        self._region, self._region_codes = _coded(list(map(_within, country, region)))
        self._latitude, self._longitude = (_numbers(products, name) for name in COORDINATES)

    def names(self, relevance: Relevance) -> tuple[str, ...]:
        """Of the columns of `matrix`."""
        scores = (name for score in SCORES[relevance] for name in (score, f"{score}_gap"))
        return (*scores, *self._own_names, "price_gap", *_PERSONAL)

    def shops(self, names: Sequence[str]) -> np.ndarray:
        """Numbers of shops, int64 [n]; those without a product in the catalogue are left out."""
        codes = (self._shop_codes.get(name, -1) for name in names)
        return np.array([code for code in codes if code >= 0], np.int64)

    def shops_of(self, rows: np.ndarray) -> np.ndarray:
        """Numbers of the shops of products, int64 [n]; products without a shop are left out."""
        codes = self._shop[rows]
        return codes[codes >= 0]

    def asked(self, raw: RawRequests) -> Asked:
        """What the ranker reads of stored requests: the rows that they point at are strictly before their moment."""
        nothing = [np.empty(0, np.int64)] * len(raw)
        clicked, bought = nothing, nothing
        if raw.pointers is not None and raw.past is not None:
            clicked, bought = (
                [rows[rows >= 0] for rows in (products[begin:end] for begin, end in raw.pointers[kind])]
                for kind, products in ((kind, raw.past.products[kind]) for kind in ("clicks", "purchases"))
            )
        where: dict[str, list[str]] = {name: [""] * len(raw) for name in ("country", "region")}
        degrees = {name: np.full(len(raw), np.nan) for name in COORDINATES}
        if raw.contexts is not None:
            where = {name: _texts(raw.contexts, name) for name in where}
            degrees = {name: _numbers(raw.contexts, name) for name in COORDINATES}
        shops = [self.shops_of(rows) for rows in clicked]
        return Asked(raw.queries, clicked, shops, bought, where["country"], where["region"], **degrees)

    def matrix(self, asked: Asked, rows: np.ndarray, *scores: np.ndarray) -> np.ndarray:
        """Features of products that were found.

        Args:
            asked: B requests.
            rows: product indexes int64 [B, K]; -1: fewer were found.
            scores: of relevance, float [B, K] each, in the order of `SCORES`; those of missing products do not matter.

        Returns:
            float32 [B, K, F], NaN where something is not known; of missing products all is NaN but what is of the
            request.
        """
        is_there = rows >= 0
        found = np.maximum(rows, 0)
        request = np.broadcast_to(np.arange(len(asked))[:, np.newaxis], rows.shape)
        log_price = np.where(is_there, self._log_price[found], np.nan)
        columns: list[np.ndarray] = []
        for score in scores:
            known = np.where(is_there, score, np.nan)
            columns += [known, _best(known) - known]
        own = np.where(is_there[..., np.newaxis], self._own[found], np.nan)
        columns += [own[..., column] for column in range(own.shape[2])]
        columns.append(log_price - _mean(log_price))

        clicker, clicks = _flat(asked.clicked)
        buyer, purchases = _flat(asked.bought)
        visitor, visits = _flat(asked.clicked_shops)
        products = np.arange(self.num_products)
        columns += [
            _times(buyer, purchases, request, rows, products),
            _times(clicker, clicks, request, rows, products),
            _times(buyer, self._shop[purchases], request, rows, self._shop),
            _times(visitor, visits, request, rows, self._shop),
            _times(buyer, self._category[purchases], request, rows, self._category),
            _times(clicker, self._category[clicks], request, rows, self._category),
            log_price - _mean_by(buyer, self._log_price[purchases], len(asked))[:, np.newaxis],
            np.bincount(buyer, minlength=len(asked))[request],
            np.bincount(clicker, minlength=len(asked))[request],
        ]
        country = [_place(text) for text in asked.country]
        region = list(map(_within, country, map(_place, asked.region)))
        columns += [
            _same(country, self._country_codes, self._country, rows),
            _same(region, self._region_codes, self._region, rows),
            np.where(
                is_there,
                distance_km(
                    asked.latitude[:, np.newaxis],
                    asked.longitude[:, np.newaxis],
                    self._latitude[found],
                    self._longitude[found],
                ),
                np.nan,
            ),
        ]
        return np.stack(columns, axis=2).astype(np.float32)


def _texts(table: pa.Table, name: str) -> list[str]:
    """A column of texts, empty where null or absent."""
    if name not in table.column_names:
        return [""] * table.num_rows
    return [text or "" for text in table.column(name).to_pylist()]


def _numbers(table: pa.Table, name: str) -> np.ndarray:
    """A column as float64, NaN where null or absent."""
    if name not in table.column_names:
        return np.full(table.num_rows, np.nan)
    column = pc.cast(table.column(name), pa.float64(), safe=False).combine_chunks()
    return np.array(column.to_numpy(zero_copy_only=False), np.float64)


def _coded(texts: Sequence[str]) -> tuple[np.ndarray, dict[str, int]]:
    """A number for each text, int64, -1 where it is empty; and the numbers by text."""
    codes = {text: code for code, text in enumerate(dict.fromkeys(text for text in texts if text))}
    return np.array([codes.get(text, -1) for text in texts], np.int64), codes


def _place(name: str) -> str:
    """Case and blanks do not matter, as for the towers."""
    return name.strip().casefold()


def _within(country: str, region: str) -> str:
    """A region means something within its country only."""
    return f"{country}\n{region}" if region else ""


def _flat(lists: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Number of the list, and value, of every entry: int64 both."""
    lengths = [len(one) for one in lists]
    values = np.concatenate(lists) if lists else np.empty(0, np.int64)
    return np.repeat(np.arange(len(lists)), lengths), values.astype(np.int64)


def _times(
    who: np.ndarray, codes: np.ndarray, request: np.ndarray, rows: np.ndarray, code_of: np.ndarray
) -> np.ndarray:
    """How many events of a request's person have the code of each product, float64 [B, K]; NaN where it has none.

    Args:
        who: request of each event, int64 [E].
        codes: of the events, int64 [E]; negative: none.
        request: int64 [B, K].
        rows: product indexes int64 [B, K]; -1: none.
        code_of: of each product, int64 [N]; negative: none.
    """
    wanted = np.where(rows >= 0, code_of[np.maximum(rows, 0)], -1)
    size = 1 + int(max(wanted.max(initial=0), codes.max(initial=0)))
    is_known = codes >= 0
    seen, counts = np.unique(who[is_known] * size + codes[is_known], return_counts=True)
    keys = request * size + np.maximum(wanted, 0)
    place = np.minimum(np.searchsorted(seen, keys), max(0, len(seen) - 1))
    times = np.where(seen[place] == keys, counts[place], 0) if len(seen) else np.zeros(keys.shape)
    return np.where(wanted >= 0, times, np.nan)


def _best(scores: np.ndarray) -> np.ndarray:
    """The highest of each list, [B, 1]; NaN of one without any."""
    highest = np.max(np.where(np.isnan(scores), -np.inf, scores), axis=1, keepdims=True, initial=-np.inf)
    return np.where(np.isinf(highest), np.nan, highest)


def _mean(values: np.ndarray) -> np.ndarray:
    """Of what is known in each list, [B, 1]; NaN of one without any."""
    is_known = ~np.isnan(values)
    numbers = is_known.sum(axis=1, keepdims=True)
    sums = np.where(is_known, values, 0.0).sum(axis=1, keepdims=True)
    return np.divide(sums, numbers, out=np.full(sums.shape, np.nan), where=numbers > 0)


def _mean_by(who: np.ndarray, values: np.ndarray, size: int) -> np.ndarray:
    """Of what is known of each one's values, [size]; NaN without any."""
    is_known = ~np.isnan(values)
    numbers = np.bincount(who[is_known], minlength=size)
    sums = np.bincount(who[is_known], values[is_known], size)
    return np.divide(sums, numbers, out=np.full(size, np.nan), where=numbers > 0)


def _same(names: Sequence[str], codes: dict[str, int], code_of: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Whether products are where the person is: 1 or 0, float64 [B, K], NaN where either is not known."""
    of_person = np.array([codes.get(name, -2) if name else -1 for name in names], np.int64)[:, np.newaxis]
    of_product = np.where(rows >= 0, code_of[np.maximum(rows, 0)], -1)
    return np.where((of_person == -1) | (of_product == -1), np.nan, of_person == of_product)
