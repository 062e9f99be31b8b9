"""Where somebody or something is, as rows of one location table (UEPPR §III-B-2).

The paper embeds country, language and zip code, every prefix of the zip code, and the k-means bucket of the
coordinates for several k, in both towers. What it leaves open is settled here:

* Region is a kind of its own: in some markets it is all that is known besides the country.
* A region and a zip code mean something only within their country, so they are keyed with it.
* A name without its own row shares its kind's row for unknown names; an unset one has the row for missing ones.
  An unknown zip prefix has no row: what is left of an unknown zip code are its known prefixes.
* Coordinates are clustered as points of the unit sphere, so neither the date line nor the poles are a border, and
  a point is in the bucket of the nearest centroid along the ground.
* A place counts once for each user who was there: neither many searches of one user nor products move a centroid.
  Requests without a user count a place once, all of them together.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf
import tensorflow_text as tf_text

from uepp.artifacts import atomic_file, read_json, write_json
from uepp.config import FeaturesConfig

_NAMES = "locations.json"
_CENTROIDS = "locations_centroids.npz"

_NAMED = ("country", "region", "language")
_COORDINATES = ("latitude", "longitude")
_MISSING, _UNKNOWN, _FIRST_NAME = 0, 1, 2  # rows of a named kind, from the first of its range
_SEPARATOR = "\n"  # between country and the rest of a key; no normalised name holds it
_MAX_ZIP_LENGTH = 10
_MIN_COUNT = 2  # a name seen once is often a slip of the pen, and its row would only ever fit one example
_MAX_POINTS = 100_000  # 200 points a centroid at k = 500
_SAME_PLACE_DECIMALS = 7  # of unit vectors: points within about a metre are one


@dataclass(frozen=True)
class Locations:
    """The names of places that have a row, and the centroids of the coordinate buckets.

    All rows are in one table: a range for each kind, and one for zip prefixes. A named kind's range starts with
    its row for missing and its row for unknown names, a bucket kind's with its row for missing coordinates.

    Attributes:
        names: normalised names by kind (`country`, `region`, `language`, `zip`), sorted. A region or zip prefix is
            written after its country and a line break.
        centroids: float64 [at most k, 3] unit vectors for each k of `features.location_buckets`.
    """

    names: dict[str, list[str]]
    centroids: dict[int, np.ndarray]

    @property
    def kinds(self) -> tuple[str, ...]:
        """What every place has one row of, in the order of the columns of ids."""
        return (*_NAMED, *(_bucket(k) for k in self.centroids))

    @property
    def num_kinds(self) -> int:
        """S, the columns of ids."""
        return len(self.kinds)

    @property
    def num_rows(self) -> int:
        """Rows of the location table."""
        return self.rows("zip").stop

    def rows(self, kind: str) -> range:
        """The rows of one of `kinds`, or of `zip`."""
        sizes = {name: _FIRST_NAME + len(self.names[name]) for name in _NAMED}
        sizes |= {_bucket(k): 1 + len(points) for k, points in self.centroids.items()}
        sizes["zip"] = len(self.names["zip"])
        kinds = list(sizes)
        first = sum(sizes[other] for other in kinds[: kinds.index(kind)])
        return range(first, first + sizes[kind])

    @classmethod
    def fit(
        cls, config: FeaturesConfig, contexts: pa.Table, seed: int, products: pa.Table | None = None
    ) -> "Locations":
        """Collect names and cluster coordinates.

        Args:
            config: k of each clustering.
            contexts: `country`, `region`, `language`, `zip`, `latitude`, `longitude` (degrees), nulls allowed, of the
                requests before the end of training, and `user_id` where users are known.
            seed: of k-means and of its sample of points.
            products: the same columns of the products known by then; only names are taken from it.
        """
        tables = [contexts] if products is None else [contexts, products]
        points, weights = _sample(_unit_vectors(*_places(contexts)).numpy(), seed)
        return cls(_collect_names(tables), {k: _cluster(points, weights, k, seed) for k in config.location_buckets})

    def save(self, directory: Path) -> None:
        """Write the two files of locations into an existing directory."""
        write_json(directory / _NAMES, self.names)
        arrays: dict[str, Any] = {str(k): points for k, points in self.centroids.items()}
        with atomic_file(directory / _CENTROIDS) as temporary, temporary.open("wb") as stream:
            np.savez(stream, **arrays)

    @classmethod
    def load(cls, directory: Path) -> "Locations":
        """Read what `save` wrote."""
        names = read_json(directory / _NAMES)
        with np.load(directory / _CENTROIDS) as centroids:
            return cls(names, {int(k): centroids[k] for k in centroids.files})

    def layer(self) -> "LocationLayer":
        """Names and coordinates to rows in the graph; travels inside a SavedModel as an attribute of its module."""
        return LocationLayer(self)


class LocationLayer(tf.Module):
    """Names and coordinates to rows of the location table, in the TensorFlow graph."""

    def __init__(self, locations: Locations) -> None:
        super().__init__()
        self._locations = locations
        self._tables = {
            kind: _lookup_table(locations.names[kind], locations.rows(kind).start, is_zip=kind == "zip")
            for kind in (*_NAMED, "zip")
        }

    def __call__(
        self,
        country: tf.Tensor,
        region: tf.Tensor,
        language: tf.Tensor,
        zip_code: tf.Tensor,
        latitude: tf.Tensor,
        longitude: tf.Tensor,
    ) -> dict[str, tf.Tensor]:
        """The rows of R places.

        Args:
            country: string [R]; empty: missing. Case, surrounding blanks and invalid bytes are forgiven.
            region: as country.
            language: as country.
            zip_code: as country; only letters and digits count, at most 10 of them.
            latitude: degrees, float [R], in [-90, 90]; anything else, NaN too: both coordinates are missing.
            longitude: degrees, float [R], in [-180, 180]; as latitude.

        Returns:
            `location/ids` int32 [R, S], a column for each of `kinds`; `zip/values` int32 [T] and `zip/lengths`
            int32 [R]: the known zip prefixes of each place, shortest first.
        """
        country = _normalize(country)
        ids = [
            self._tables["country"].lookup(country),
            self._tables["region"].lookup(_within(country, _normalize(region))),
            self._tables["language"].lookup(_normalize(language)),
        ]
        is_known = (tf.abs(latitude) <= 90) & (tf.abs(longitude) <= 180)
        points = _unit_vectors(tf.where(is_known, latitude, 0), tf.where(is_known, longitude, 0))
        for k, centroids in self._locations.centroids.items():
            bucket = tf.zeros_like(is_known, tf.int64)
            if len(centroids):
                bucket = tf.where(is_known, 1 + tf.argmax(tf.matmul(points, centroids.T), axis=1), 0)
            ids.append(self._locations.rows(_bucket(k)).start + bucket)
        prefixes = tf.stack([self._tables["zip"].lookup(keys) for keys in _zip_prefixes(country, zip_code)], axis=1)
        has_row = prefixes >= 0
        return {
            "location/ids": tf.cast(tf.stack(ids, axis=1), tf.int32),
            "zip/values": tf.cast(tf.boolean_mask(prefixes, has_row), tf.int32),
            "zip/lengths": tf.reduce_sum(tf.cast(has_row, tf.int32), axis=1),
        }


def _bucket(k: int) -> str:
    return f"bucket_{k}"


def _lookup_table(names: Sequence[str], first: int, *, is_zip: bool) -> tf.lookup.StaticHashTable:
    """Keys to int64 rows; the empty key is the missing one."""
    missing, unknown, known = (-1, -1, first) if is_zip else (first + _MISSING, first + _UNKNOWN, first + _FIRST_NAME)
    keys = tf.constant(["", *names], tf.string)
    rows = tf.constant([missing, *range(known, known + len(names))], tf.int64)
    return tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(keys, rows), default_value=unknown)


# Names. The same functions run when names are collected and inside the exported towers.


def _normalize(names: tf.Tensor) -> tf.Tensor:
    """Case-folded, compatibility-normalised, without surrounding blanks; blanks inside become single spaces."""
    names = tf.strings.unicode_transcode(names, "UTF-8", "UTF-8", errors="replace")
    return tf.strings.strip(tf.strings.regex_replace(tf_text.case_fold_utf8(names), r"[\s\pZ\pC]+", " "))


def _within(country: tf.Tensor, names: tf.Tensor) -> tf.Tensor:
    """Keys of names in normalised countries; an empty name stays empty."""
    return tf.where(names == "", "", tf.strings.join([country, names], _SEPARATOR))


def _zip_prefixes(country: tf.Tensor, zip_code: tf.Tensor) -> list[tf.Tensor]:
    """Keys of the prefix of each length, 1 to 10, string [R] each; empty where the zip code is shorter."""
    zip_code = tf.strings.upper(tf.strings.regex_replace(_normalize(zip_code), r"[^\pL\pN]+", ""), "utf-8")
    characters = tf.strings.length(zip_code, "UTF8_CHAR")
    return [
        _within(country, tf.where(characters >= length, tf.strings.substr(zip_code, 0, length, "UTF8_CHAR"), ""))
        for length in range(1, _MAX_ZIP_LENGTH + 1)
    ]


def _collect_names(tables: Sequence[pa.Table]) -> dict[str, list[str]]:
    """Names seen often enough, over all tables together, by kind."""
    country, counts = _distinct(tables, "country")
    regions, region_counts = _distinct(tables, "country", "region")
    languages, language_counts = _distinct(tables, "language")
    zips, zip_counts = _distinct(tables, "country", "zip")
    prefixes = _zip_prefixes(_normalize(zips[0]), zips[1])
    return {
        "country": _frequent(_normalize(country[0]), counts),
        "region": _frequent(_within(*map(_normalize, regions)), region_counts),
        "language": _frequent(_normalize(languages[0]), language_counts),
        "zip": sorted(prefix for keys in prefixes for prefix in _frequent(keys, zip_counts)),
    }


def _distinct(tables: Sequence[pa.Table], *columns: str) -> tuple[list[tf.Tensor], pa.ChunkedArray]:
    """The distinct rows of some columns as string tensors, and how often each occurs; nulls are empty."""
    parts = [
        pa.table({name: pc.fill_null(table.column(name).cast(pa.string()), "") for name in columns}) for table in tables
    ]
    counted = pa.concat_tables(parts).group_by(list(columns)).aggregate([([], "count_all")])
    return [tf.constant(counted.column(name).to_pylist(), tf.string) for name in columns], counted.column("count_all")


def _frequent(keys: tf.Tensor, counts: pa.ChunkedArray) -> list[str]:
    """Keys that occur often enough, given how often each row does, sorted."""
    table = pa.table({"key": pa.array(keys.numpy(), pa.string()), "count": counts})
    table = table.filter(pc.not_equal(table.column("key"), ""))
    summed = table.group_by("key").aggregate([("count", "sum")])
    return sorted(summed.filter(pc.greater_equal(summed.column("count_sum"), _MIN_COUNT)).column("key").to_pylist())


# Coordinates


def _unit_vectors(latitude: tf.Tensor, longitude: tf.Tensor) -> tf.Tensor:
    """Degrees [R] to points of the unit sphere, float64 [R, 3]: in float32, centroids 2 km apart are equally near."""
    radians = np.pi / 180
    latitude, longitude = tf.cast(latitude, tf.float64) * radians, tf.cast(longitude, tf.float64) * radians
    across = tf.cos(latitude)
    return tf.stack([across * tf.cos(longitude), across * tf.sin(longitude), tf.sin(latitude)], axis=1)


def _places(contexts: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Latitudes and longitudes, once for each user who was there, in an order that rows do not change."""
    users = ["user_id"] if "user_id" in contexts.column_names else []
    places = contexts.select([*users, *_COORDINATES])
    latitude, longitude = (places.column(name).cast(pa.float64()) for name in _COORDINATES)
    is_known = pc.and_(pc.less_equal(pc.abs(latitude), 90), pc.less_equal(pc.abs(longitude), 180))
    places = places.filter(is_known).group_by([*users, *_COORDINATES]).aggregate([])
    latitude, longitude = (np.asarray(places.column(name), np.float64) for name in _COORDINATES)
    order = np.lexsort((longitude, latitude))
    return latitude[order], longitude[order]


def _sample(points: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """At most `_MAX_POINTS` of the points, as distinct ones [n, 3] and how often each was drawn [n]."""
    if len(points) > _MAX_POINTS:
        points = points[np.random.default_rng(seed).choice(len(points), _MAX_POINTS, replace=False)]
    return np.unique(points.round(_SAME_PLACE_DECIMALS), axis=0, return_counts=True)


def _cluster(points: np.ndarray, weights: np.ndarray, k: int, seed: int) -> np.ndarray:
    """Unit centroids of k clusters, float64 [min(k, n), 3]."""
    if len(points) <= k:
        return points / np.linalg.norm(points, axis=1, keepdims=True)
    from sklearn.cluster import KMeans  # takes a second to import, and only fitting needs it
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):  # threads add up in any order, and seeds would not repeat
        found = KMeans(k, n_init=1, max_iter=100, random_state=seed).fit(points, sample_weight=weights)
    centroids = found.cluster_centers_
    for cluster in np.flatnonzero(np.linalg.norm(centroids, axis=1) < 1e-6):
        # spread evenly around the globe, its points have no direction in common
        centroids[cluster] = points[np.argmax(found.labels_ == cluster)]
    return centroids / np.linalg.norm(centroids, axis=1, keepdims=True)
