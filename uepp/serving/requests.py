"""What is asked: a request as it comes, and what the query tower reads of it."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import tensorflow as tf

from uepp.config import HistoryConfig
from uepp.errors import InputError
from uepp.features.raw import COORDINATES, PLACE, as_tensors
from uepp.features.readers.history import history_inputs
from uepp.features.text import normalize
from uepp.relevance.ranking_features import Asked, RankingFeatures
from uepp.serving.catalogue import Catalogue
from uepp.serving.people import People

Value = str | float | tuple[str, ...]
_ASCII_WORD = re.compile("[a-z0-9]+")


@dataclass(frozen=True)
class Request:
    """A query, who asks, and what of the answer is wanted.

    Attributes:
        query: text.
        k: results.
        offset: results left out at the start, for the next page.
        user: id of a person; what they did before the end of training is their history.
        session: id of a visit, for the cache only.
        context: where they are: any of country, region, language, zip, latitude, longitude (degrees).
        recent_searches: queries, latest first; where given it replaces this part of the user's history, as do the next.
        recent_shops: shop ids of clicks, latest first; without it, the shops of `clicked_products`.
        clicked_products: product ids, latest first.
        purchased_products: product ids, latest first.
        exclude: product ids that are left out.
        min_similarity: products that the towers find below this cosine are left out; none: all stay.
        fusion: fuse with BM25 by reciprocal ranks.
        boosted: rank by similarity and quality; False: by similarity alone.
        rerank: let the run's ranker order the first products that were found.
    """

    query: str
    k: int = 10
    offset: int = 0
    user: str | None = None
    session: str | None = None
    context: Mapping[str, str | float] = field(default_factory=dict)
    recent_searches: Sequence[str] | None = None
    recent_shops: Sequence[str] | None = None
    clicked_products: Sequence[str] | None = None
    purchased_products: Sequence[str] | None = None
    exclude: Sequence[str] = ()
    min_similarity: float | None = None
    fusion: bool = False
    boosted: bool = True
    rerank: bool = False

    @property
    def who(self) -> tuple[str | None, str | None] | None:
        """What a cache may know the person by; none: nobody in particular."""
        return None if self.user is None and self.session is None else (self.user, self.session)


@dataclass(frozen=True)
class Features:
    """All that the query tower reads of a request.

    Attributes:
        values: by the tower's input: a text, degrees (NaN where unknown), or past texts, latest first.
        words: of the query, where they are all that the tower reads of it; none: it reads the text as it is.
    """

    values: Mapping[str, Value]
    words: str | None = None

    @property
    def query(self) -> str:
        """The text."""
        return str(self.values["query"])

    @property
    def told_apart(self) -> str:
        """What the tower tells the query from others by: "Lamp!" and "lamp" may be the same to it."""
        return self.query if self.words is None else self.words

    @cached_property
    def digest(self) -> bytes:
        """The same for the same features only (up to collisions of 128 bits)."""
        values = {**self.values, "query": self.told_apart}
        return hashlib.blake2b(repr(sorted(values.items())).encode(), digest_size=16).digest()


class FeatureReader:
    """Looks up what the query tower reads of requests (UEPPR V: before the cache is asked).

    Args:
        names: inputs of the tower.
        history: the run's settings, how many past events it reads.
        people: stored histories.
        catalogue: for titles, shops and tags of products.
        reads_words: whether all that the tower reads of a query is its words; else it has a text encoder too, which may
            tell cases and signs apart.
    """

    def __init__(
        self,
        names: Sequence[str],
        history: HistoryConfig,
        people: People,
        catalogue: Catalogue,
        *,
        reads_words: bool = False,
    ) -> None:
        numbers = history_inputs(history)
        self._reads_words = reads_words
        self._names = tuple(names)
        self._numbers = {name: numbers[name] for name in names if name in numbers}
        self._people = people
        self._catalogue = catalogue

    @property
    def reads_places(self) -> bool:
        """Whether it matters where somebody is."""
        return bool(set(self._names) & set(PLACE))

    @property
    def reads_histories(self) -> bool:
        """Whether it matters what somebody did before."""
        return bool(self._numbers)

    def read(self, request: Request) -> Features:
        """Everything that the tower will see; parts of a history that is too long are gone already.

        Raises:
            InputError: the query holds no word, the user or a key of the context is unknown, a coordinate is missing
                or out of range, or neither the tower nor a ranker that is asked for reads people or places.
        """
        query, words = _checked_query(request.query)
        context = _checked_context(request.context)
        past = self._given(request)
        if context and not (self.reads_places or request.rerank):
            raise InputError(f"{', '.join(context)}: this run's query tower has no location encoder")
        who = [*([f"user {request.user}"] if request.user is not None else []), *past]
        if who and not (self.reads_histories or request.rerank):
            raise InputError(f"{', '.join(who)}: this run's query tower has no history encoder")
        if request.user is not None and request.user not in self._people:
            raise InputError(f"user {request.user}: no events of this user before the end of training")
        values: dict[str, Value] = {}
        for name in self._names:
            if name == "query":
                values[name] = query
            elif name in COORDINATES:
                values[name] = float(np.float32(context.get(name, float("nan"))))
            elif name in PLACE:
                values[name] = str(context.get(name, ""))
            else:
                values[name] = self._past(name, request, past)
        return Features(values, words if self._reads_words else None)

    def asked(self, request: Request, features: Features, ranking: RankingFeatures) -> Asked:
        """What the ranker reads of a request that `read` let pass: the place, and a whole history.

        Parts of the history that come with the request replace the user's, as for the tower.

        Args:
            request: as it came.
            features: of it.
            ranking: of the ranker.
        """

        def rows(given: Sequence[str] | None, kind: str) -> np.ndarray:
            if given is None:
                return np.empty(0, np.int64) if request.user is None else self._people.rows(request.user, kind)
            return self._catalogue.rows(given)

        clicked, shops = rows(request.clicked_products, "clicks"), request.recent_shops
        latitude, longitude = (float(request.context.get(name, float("nan"))) for name in COORDINATES)
        return Asked(
            queries=[features.query],
            clicked=[clicked],
            clicked_shops=[ranking.shops_of(clicked) if shops is None else ranking.shops(shops)],
            bought=[rows(request.purchased_products, "purchases")],
            country=[str(request.context.get("country", ""))],
            region=[str(request.context.get("region", ""))],
            latitude=np.array([latitude]),
            longitude=np.array([longitude]),
        )

    def unknown_products(self, request: Request) -> list[str]:
        """Clicked and purchased products that the catalogue lacks; they are read as nothing."""
        return self._catalogue.unknown([*(request.clicked_products or ()), *(request.purchased_products or ())])

    def inputs(self, features: Sequence[Features]) -> dict[str, tf.Tensor]:
        """Inputs of the query tower: string or float32 [R], histories string [R, n] padded with empty strings."""
        columns: dict[str, list[str] | np.ndarray] = {}
        for name in self._names:
            values = [one.values[name] for one in features]
            if name in COORDINATES:
                columns[name] = np.array(values, np.float32)
            elif name in self._numbers:
                width = max(1, *(len(past) for past in values if isinstance(past, tuple)), 1)
                columns[name] = [[*past, *[""] * (width - len(past))] for past in values]  # type: ignore[arg-type, misc]
            else:
                columns[name] = [str(value) for value in values]
        return as_tensors(columns)

    def _given(self, request: Request) -> dict[str, tuple[str, ...]]:
        """Parts of the history that come with the request, by name of the request's field."""
        names = ("recent_searches", "recent_shops", "clicked_products", "purchased_products")
        given = {name: getattr(request, name) for name in names}
        for name, texts in (*given.items(), ("exclude", request.exclude)):
            if isinstance(texts, str):
                raise InputError(f"{name} {texts!r}: expected a list of texts")
        return {name: tuple(texts) for name, texts in given.items() if texts is not None}

    def _past(self, name: str, request: Request, past: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
        number = self._numbers[name]
        clicked = past.get("clicked_products")
        if name == "purchased_tags" and "purchased_products" in past:
            return tuple(self._catalogue.tags(past["purchased_products"][:number]))
        if name == "recent_titles" and clicked is not None:
            return tuple(self._catalogue.titles(clicked[:number]))
        if name == "recent_shops" and clicked is not None and name not in past:
            return tuple(self._catalogue.shops(clicked[:number]))
        if name in past:
            return past[name][:number]
        return () if request.user is None else self._people.latest(request.user, name, number)


def _checked_query(query: str) -> tuple[str, str]:
    """The text with single spaces, and its words as the towers' tokens are made of them."""
    try:
        query.encode()
    except UnicodeEncodeError:
        raise InputError(f"query {query!r}: not valid UTF-8") from None
    words = words_of(query)
    if not words:
        raise InputError(f"query {query!r}: no word in it; give letters or digits")
    return " ".join(query.split()), words


def words_of(query: str) -> str:
    """What `normalize` makes of a text; of ASCII without TensorFlow, which takes longer than a hit of the cache."""
    if query.isascii():
        return " ".join(_ASCII_WORD.findall(query.lower()))
    return str(normalize(tf.constant(query)).numpy().decode())


def _checked_context(context: Mapping[str, str | float]) -> dict[str, str | float]:
    for name in context:
        if name not in PLACE:
            raise InputError(f"context {name}: unknown; known are {', '.join(PLACE)}")
    for name, limit in (("latitude", 90), ("longitude", 180)):
        value = context.get(name, 0.0)
        if isinstance(value, str) or not -limit <= value <= limit:
            raise InputError(f"{name} {value}: must be between -{limit} and {limit} degrees")
    if ("latitude" in context) != ("longitude" in context):
        raise InputError("latitude and longitude: give both or neither")
    return dict(context)
