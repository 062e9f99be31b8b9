"""A cache of rankings, with both keys of UEPPR V.

* `user`: who asks (user and session id), the query and the place, kept for a short time. It answers what a person asks
  again though they have clicked something since, so going back to a page shows the same page, and a page deeper than
  what is kept goes on with the same list; but what they did in between counts only when the time is over.
* `features`: a hash of everything that the query tower reads, and the ranker where it is asked, kept for long. It never
  answers with anything but what would be computed now, and people who look alike to both share it.
* `layered`: `user`, and where that knows nothing, `features`.

Requests that name nobody are kept by their features under every strategy: an answer made for one person is never
another's, unless the tower sees no difference.
"""

import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from cachetools import TTLCache

from uepp.serving.ranking import Question, Ranking, continued
from uepp.serving.requests import Request

Layer = Literal["user", "features"]
Strategy = Literal["features", "user", "layered", "none"]
_ENTRY_BYTES = 1_000  # key, entry and what the cache itself keeps of it
_LAYERS: dict[Strategy, tuple[Layer, ...]] = {
    "features": ("features",),
    "user": ("user",),
    "layered": ("user", "features"),
    "none": (),
}


class Found(NamedTuple):
    """A ranking from the cache.

    Attributes:
        ranking: the answer.
        layer: which layer knew it.
        age_seconds: since it was computed.
        is_stale: whether some of it was computed for other features than those of now: of what `user` has only.
    """

    ranking: Ranking
    layer: Layer
    age_seconds: float
    is_stale: bool


@dataclass(frozen=True)
class _Entry:
    """A ranking, how deep it is, for which features it was computed (none: its parts for different ones), and when."""

    ranking: Ranking
    depth: int
    digest: bytes | None
    computed: float

    @property
    def num_bytes(self) -> int:
        return _ENTRY_BYTES + self.ranking.num_bytes

    def continued(self, other: "_Entry") -> "_Entry":
        """This ranking, then what only a deeper one has."""
        if other.depth <= self.depth:
            return self
        return _Entry(
            continued(self.ranking, other.ranking, other.depth),
            other.depth,
            self.digest if self.digest == other.digest else None,
            min(self.computed, other.computed),
        )


class RankingCache:
    """Rankings by who asks, by features, or by both; for several threads.

    Args:
        strategy: which layers there are.
        size: rankings in each, at most; the one that was asked for longest ago goes first.
        num_bytes: of the rankings in each, at most; likewise. A larger one is not kept.
        user_ttl_seconds: how long a ranking stays in the layer `user`.
        features_ttl_seconds: how long in `features`.
        clock: seconds, never going back.
    """

    def __init__(
        self,
        strategy: Strategy = "features",
        *,
        size: int = 10_000,
        num_bytes: int = 1 << 28,
        user_ttl_seconds: float = 60.0,
        features_ttl_seconds: float = 3_600.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        seconds: dict[Layer, float] = {"user": user_ttl_seconds, "features": features_ttl_seconds}
        self._layers: dict[Layer, TTLCache[Hashable, _Entry]] = {
            layer: TTLCache(num_bytes, seconds[layer], timer=clock, getsizeof=lambda entry: entry.num_bytes)
            for layer in _LAYERS[strategy]
        }
        self._size, self._num_bytes = size, num_bytes
        self._clock = clock
        self._lock = threading.Lock()

    @property
    def sizes(self) -> dict[Layer, int]:
        """Rankings in each layer; some may have had their time."""
        with self._lock:
            return {layer: len(kept) for layer, kept in self._layers.items()}

    @property
    def num_bytes(self) -> dict[Layer, int]:
        """Of the rankings in each layer, likewise; one that is in both counts in both."""
        with self._lock:
            return {layer: int(kept.currsize) for layer, kept in self._layers.items()}

    def get(self, request: Request, question: Question) -> Found | None:
        """The ranking of a question, if a layer has it; what `features` knows, `user` then knows too."""
        keys = self._keys(request, question)
        with self._lock:
            for layer, kept in self._layers.items():
                entry = kept.get(keys[layer])
                if entry is not None and entry.depth >= question.depth:
                    if layer == "features":
                        entry = self._shown(keys["user"], entry)
                    is_stale = entry.digest != question.digest
                    return Found(entry.ranking, layer, self._clock() - entry.computed, is_stale)
        return None

    def put(self, request: Request, question: Question, ranking: Ranking) -> Ranking:
        """Keep a ranking that was just computed.

        Returns:
            The answer: the ranking, or what `user` has of a list that was begun for who asks, and then what only the
            ranking has.
        """
        keys = self._keys(request, question)
        with self._lock:
            entry = _Entry(ranking, question.depth, question.digest, self._clock())
            if "features" in self._layers:
                self._keep("features", keys["features"], entry)
            return self._shown(keys["user"], entry).ranking

    def _shown(self, key: Hashable, entry: _Entry) -> _Entry:
        """What who asks is shown: the list that was begun for them goes on, and is kept for as long again."""
        if "user" not in self._layers:
            return entry
        begun = self._layers["user"].get(key)
        shown = entry if begun is None else begun.continued(entry)
        if shown is not begun:
            self._keep("user", key, shown)
        return shown

    def _keep(self, layer: Layer, key: Hashable, entry: _Entry) -> None:
        kept = self._layers[layer]
        if entry.num_bytes > self._num_bytes:
            return
        if key not in kept:
            while len(kept) >= self._size:
                kept.popitem()
        kept[key] = entry

    @staticmethod
    def _keys(request: Request, question: Question) -> dict[Layer, Hashable]:
        place = tuple(sorted(request.context.items()))
        by_user = (request.who, question.features.told_apart, place, *question.options)
        return {"user": question.key if request.who is None else by_user, "features": question.key}
