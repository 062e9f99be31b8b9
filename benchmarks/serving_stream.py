"""What a log's shop would have asked a server: views of result pages, in their order, with who asked and their past."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from uepp.data import schema
from uepp.data.histories import KINDS, history_path
from uepp.data.windows import Windows, is_between
from uepp.serving.requests import FeatureReader

Kind = Literal["search", "page", "back"]
PLACE = ("country", "region", "language", "zip", "latitude", "longitude")
_EVENT = ("timestamp", "type", "query", "user_id", "session_id", "position", *PLACE)
_PARTS = {"searches": "recent_searches", "clicks": "clicked_products", "purchases": "purchased_products"}
_COLUMN = {"searches": "query", "clicks": "product_id", "purchases": "product_id"}
_FIRST_RANK, _LEAST_COUNT, _LEAST_RANKS = 3, 5, 20
_MOST = 100  # entries of a part of the history that a server takes


@dataclass(frozen=True)
class View:
    """Somebody sees a page of results.

    Attributes:
        moment: when, in the log.
        kind: of a new search, of a further page, or after going back to one that was left for a product.
        body: what `POST /search` is asked.
    """

    moment: datetime
    kind: Kind
    body: dict[str, Any]

    @property
    def query(self) -> str:
        """Its text."""
        return str(self.body["query"])


def read_events(data: Path, windows: Windows) -> list[dict[str, Any]]:
    """The events of a log's report days, by time."""
    con = schema.connect()
    try:
        events = schema.open_events(con, data / "events.parquet")
        wanted = events.filter(is_between(events.timestamp, windows.selection_end, windows.report_end))
        wanted = wanted.filter(wanted.type != "impression")  # a page that was shown was asked for before
        table = wanted.select(*_EVENT, "product_id").order_by("timestamp", "session_id", "type", "product_id")
        return table.to_pyarrow().select(_EVENT).to_pylist()
    finally:
        con.disconnect()


def views_of(events: Iterable[dict[str, Any]], page_size: int, max_results: int) -> list[View]:
    """Views that a log tells of, without anybody's past.

    A `search`, or the first event of a request (session, user, query), is a view of its first page. A click on a later
    page, or an earlier one, is a view of that page; any other click but the first is a view of the same page again,
    since its person had left it for the product that they clicked before.

    Args:
        events: by time.
        page_size: results a page.
        max_results: no page ends beyond.
    """
    views: list[View] = []
    pages: dict[tuple[Any, ...], int] = {}
    left: set[tuple[Any, ...]] = set()
    for event in events:
        key = _request_key(event)
        if event["type"] == "search" or key not in pages:
            views.append(_view(event, "search", 0, page_size))
            pages[key] = 0
            left.discard(key)
        if event["type"] != "click":
            continue
        position = event["position"]
        page = pages[key] if position is None else min(position // page_size, max_results // page_size - 1)
        if page != pages[key] or key in left:
            views.append(_view(event, "page" if page != pages[key] else "back", page * page_size, page_size))
        pages[key] = page
        left.add(key)
    return views


def with_past(views: Sequence[View], mined: Path, train_end: datetime, reader: FeatureReader) -> list[View]:
    """Views with what their people had done since the end of training, as a shop's session would know it.

    A part of the history is sent where it has grown; all else a server has in its export. What the run's query tower
    does not read is left out.

    Args:
        views: of `views_of`.
        mined: folder with `history_*.parquet` of the whole log.
        train_end: T.
        reader: of the run.
    """
    bodies = [dict(view.body) for view in views]
    if not reader.reads_places:
        bodies = [{name: value for name, value in body.items() if name not in PLACE} for body in bodies]
    if reader.reads_histories:
        users = pa.array(sorted({body["user"] for body in bodies if "user" in body}), pa.string())
        for kind in KINDS:
            past = _Past(history_path(mined, kind), _COLUMN[kind], users)
            for view, body in zip(views, bodies, strict=True):
                grown = past.latest(body["user"], view.moment, train_end) if "user" in body else []
                if grown:
                    body[_PARTS[kind]] = grown
    else:
        bodies = [{name: value for name, value in body.items() if name != "user"} for body in bodies]
    return [replace(view, body=body) for view, body in zip(views, bodies, strict=True)]


def drawn(views: Sequence[View], counts: pa.Table, number: int, rng: np.random.Generator) -> list[View]:
    """Views of people of the log with queries drawn from a law of their own, independently.

    Args:
        views: people, places and pages, each drawn with the same probability.
        counts: `query`, `count`: what a query's probability is proportional to.
        number: of views.
        rng: for both.
    """
    queries = counts.column("query").to_pylist()
    weights = np.asarray(counts.column("count"), np.float64)
    texts = rng.choice(len(queries), number, p=weights / weights.sum())
    people = rng.integers(len(views), size=number)
    return [
        replace(views[who], body=views[who].body | {"query": queries[text]})
        for text, who in zip(texts.tolist(), people.tolist(), strict=True)
    ]


def zipf_exponent(texts: Iterable[str]) -> float | None:
    """The s by which the r-th most frequent text comes r^-s times; none: hardly any text comes often enough to tell.

    Fitted by least squares to the logarithms, as in docs/marketplace.md: from the third rank on (the first ones follow
    no law), where a text comes at least five times (below, ranks are chance).
    """
    counts = np.array(sorted(Counter(texts).values(), reverse=True), np.float64)
    ranks = np.arange(1, len(counts) + 1)
    is_fitted = (ranks >= _FIRST_RANK) & (counts >= _LEAST_COUNT)
    if np.count_nonzero(is_fitted) < _LEAST_RANKS:
        return None
    return -float(np.polyfit(np.log(ranks[is_fitted]), np.log(counts[is_fitted]), 1)[0])


def distinct_share(texts: Sequence[str]) -> float:
    """How many of them are no repeat of an earlier one."""
    return len(set(texts)) / len(texts)


class _Past:
    """One kind of history of some people, of the whole log."""

    def __init__(self, path: Path, column: str, users: pa.Array) -> None:
        names = ["user_id", "timestamp", column]
        table = pq.read_table(path, columns=names, filters=pc.is_in(pc.field("user_id"), users))
        self._texts = table.column(column).to_pylist()
        self._moments = np.asarray(table.column("timestamp").cast(pa.timestamp("us", "UTC")).cast(pa.int64()))
        owners = table.column("user_id").to_pylist()
        self._rows: dict[str, tuple[int, int]] = {}
        for row, user in enumerate(owners):
            self._rows[user] = (self._rows.get(user, (row, row))[0], row + 1)

    def latest(self, user: str, moment: datetime, since: datetime) -> list[str]:
        """What somebody did strictly before a moment, the latest first; nothing where all of it was before `since`."""
        begin, end = self._rows.get(user, (0, 0))
        moments = self._moments[begin:end]
        now, then = (begin + int(np.searchsorted(moments, _microseconds(edge))) for edge in (moment, since))
        return [] if now <= then else self._texts[max(begin, now - _MOST) : now][::-1]


def _microseconds(moment: datetime) -> int:
    return int(pa.scalar(moment, pa.timestamp("us", "UTC")).value)


def _request_key(event: dict[str, Any]) -> tuple[Any, ...]:
    """As in mining: session, user, query; without a session user, day, query; without both each event is a request."""
    if event["session_id"] is None and event["user_id"] is None:
        return (event["timestamp"], event["query"])
    day = event["timestamp"].date() if event["session_id"] is None else None
    return (event["session_id"], event["user_id"], day, event["query"])


def _view(event: dict[str, Any], kind: Kind, offset: int, size: int) -> View:
    about = {"user": event["user_id"], "session": event["session_id"], **{name: event[name] for name in PLACE}}
    known = {name: value for name, value in about.items() if value is not None and value != ""}
    return View(event["timestamp"], kind, {"query": event["query"], "k": size, "offset": offset, **known})
