"""What a query takes in this process by part, beside bare tower and bare index; and what a cache would have known."""

import functools
import math
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import faiss
import numpy as np

from uepp.config import ServingConfig
from uepp.retrieval.boosting import Boosting
from uepp.serving.cache import RankingCache, Strategy
from uepp.serving.ranking import Ranking, depth_of
from uepp.serving.requests import Request
from uepp.serving.schemas import SearchRequest
from uepp.serving.search import Searcher

from serving_stream import View  # isort: skip

BARE = "bare tower + bare index"
SEARCH = "search"
CACHED = "search, cached"
FUSED = "search with fusion"
Times = dict[str, list[float]]


def asked(view: View, searcher: Searcher, *, fusion: bool = False) -> Request:
    """A view as the server's `Searcher` is asked for it."""
    return _as_anybody(SearchRequest(**view.body, fusion=fusion).request(None, None), searcher)


def time_parts(
    searcher: Searcher, views: Sequence[View], depth: int, boosting: Boosting | None, passes: int, fusion: bool
) -> dict[str, Times]:
    """Seconds of each view, one at a time: bare, through the `Searcher`, from a cache that knows it, and with fusion.

    Bare is what no search can do without: the tower's signature on inputs that are ready, and Faiss on a vector that is
    ready, both on as few threads as help a single query: Faiss on one. A cached ranking costs what has to be done
    nevertheless: to look up the features, to find it, and to cut out the page. The ways take turns at every view, and
    each comes first as often as the others.

    Args:
        searcher: without a cache.
        views: whose queries.
        depth: products that are ranked, K of the index.
        boosting: of the export.
        passes: over all views.
        fusion: whether to time it.

    Returns:
        By way, by part (`all`: the whole way) the seconds of every view and pass, pass by pass.
    """
    parts: Times = {}
    searcher.observe = lambda part, seconds: parts.setdefault(part, []).append(seconds)
    tower, index = searcher._query_tower, searcher.index.faiss_index  # what the parts themselves do has no public name

    def bare(inputs: dict[str, Any], vector: np.ndarray) -> Callable[[], None]:
        def run() -> None:
            begin = time.perf_counter()
            tower(**inputs)["embedding"].numpy()
            parts["tower"] = [time.perf_counter() - begin]
            allowed = faiss.omp_get_max_threads()
            faiss.omp_set_num_threads(1)  # a second one only has to be waited for, which would flatter the search
            begin = time.perf_counter()
            index.search(vector, k)
            parts["index"] = [time.perf_counter() - begin]
            faiss.omp_set_num_threads(allowed)

        return run

    def cached(request: Request) -> Callable[[], None]:
        question = searcher.question(request)
        cache.put(request, question, searcher.rank([question])[0])

        def run() -> None:
            question = searcher.question(request)
            begin = time.perf_counter()
            found = cache.get(request, question)
            parts["cache"] = [time.perf_counter() - begin]
            assert found is not None, "it was put there, and nothing made it go"
            searcher.hits(request, found.ranking)

        return run

    cache = RankingCache(size=len(views), num_bytes=1 << 50, features_ttl_seconds=math.inf)
    k = depth_of(1, depth, len(searcher.catalogue))
    ways: list[dict[str, Callable[[], Any]]] = []
    for view in views:
        request = asked(view, searcher)
        inputs = searcher.reader.inputs([searcher.reader.read(request)])
        vector = tower(**inputs)["embedding"].numpy()
        way: dict[str, Callable[[], Any]] = {
            BARE: bare(inputs, vector if boosting is None else boosting.queries(vector)),
            SEARCH: _through(searcher, request),
            CACHED: cached(request),
        }
        if fusion:
            way[FUSED] = _through(searcher, asked(view, searcher, fusion=True))
        ways.append(way)
    times: dict[str, Times] = {name: defaultdict(list) for name in ways[0]}
    for number in range(passes):
        for row, way in enumerate(ways):
            names = list(way)
            shift = (row + number) % len(names)
            for name in names[shift:] + names[:shift]:
                parts.clear()
                begin = time.perf_counter()
                way[name]()
                times[name]["all"].append(time.perf_counter() - begin)
                for part, seconds in parts.items():
                    times[name][part].append(sum(seconds))
    return times


def replay(
    searcher: Searcher, views: Sequence[View], strategy: Strategy, settings: ServingConfig
) -> dict[str, dict[str, float]]:
    """How often a cache would have known the answer had it served the log at the log's own pace, from empty.

    Args:
        searcher: for what the tower would read of each view.
        views: in their order of time.
        strategy: the cache's key.
        settings: its size and times.

    Returns:
        By kind of view, and `all`: `views`, `hit_rate`, `stale_rate` (hits that the features of now would not get).
    """
    now = 0.0
    cache = RankingCache(
        strategy,
        size=settings.cache_size,
        num_bytes=settings.cache_bytes,
        user_ttl_seconds=settings.user_ttl_seconds,
        features_ttl_seconds=settings.features_ttl_seconds,
        clock=lambda: now,
    )
    found: dict[str, list[tuple[bool, bool]]] = defaultdict(list)
    for view in views:
        now = view.moment.timestamp()
        request = SearchRequest(**view.body).request(None, None)
        question = searcher.question(_as_anybody(request, searcher))
        known = cache.get(request, question)
        if known is None:
            cache.put(request, question, _blank(question.depth))
        for kind in (view.kind, "all"):
            found[kind].append((known is not None, known is not None and known.is_stale))
    return {
        kind: {
            "views": len(rows),
            "hit_rate": sum(is_hit for is_hit, _ in rows) / len(rows),
            "stale_rate": sum(is_stale for _, is_stale in rows) / len(rows),
        }
        for kind, rows in found.items()
    }


def summary(seconds: Sequence[float], passes: int) -> dict[str, float]:
    """Milliseconds: `p50` and `p99` of all, and `least`, the p99 of each view's best pass."""
    every = 1_000 * np.asarray(seconds).reshape(passes, -1)
    return {
        "p50": float(np.percentile(every, 50)),
        "p99": float(np.percentile(every, 99)),
        "least": float(np.percentile(every.min(axis=0), 99)),
    }


@functools.cache
def _blank(depth: int) -> Ranking:
    """As large as a real one."""
    return Ranking(*(np.zeros(depth, kind) for kind in (np.int64, np.float32, np.float32, np.int32, np.int32)))


def _as_anybody(request: Request, searcher: Searcher) -> Request:
    """As a server does it: somebody of whom the export knows nothing searches as nobody."""
    return request if request.user is not None and request.user in searcher.people else replace(request, user=None)


def _through(searcher: Searcher, request: Request) -> Callable[[], Any]:
    return lambda: searcher.search_many([request])
