"""Mining against a slow plain-Python oracle, written from the definitions of the windows and of a request."""

import json
import tempfile
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from hashlib import md5
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uepp.config import DataConfig
from uepp.data import mining
from uepp.data.windows import Windows, resolve_windows
from uepp.errors import InputError

T = datetime(2024, 3, 10, tzinfo=UTC)
CONFIG = DataConfig(train_end=T, graph_days=6, example_days=3, selection_days=1, report_days=2)
SHOPS = {"p0": "s0", "p1": "s1", "p2": None, "é": "s0"}
CONTEXT = ("country", "region", "language", "zip", "latitude", "longitude")
STRENGTH = ("click", "cart", "purchase")


@dataclass(frozen=True)
class Event:
    """One row of the log; `minute` counts from T."""

    minute: int
    type: str
    query: str
    product_id: str | None
    user_id: str | None = None
    session_id: str | None = None
    country: str | None = None
    latitude: float | None = None
    longitude: float | None = None

    @property
    def timestamp(self) -> datetime:
        return T + timedelta(minutes=self.minute)

    @property
    def key(self) -> tuple[object, ...]:
        if self.session_id is not None:
            return ("session", self.session_id, self.user_id, self.query)
        if self.user_id is not None:
            return ("user", self.user_id, self.timestamp.date(), self.query)
        return ("moment", self.timestamp, self.query)

    @property
    def context(self) -> tuple[object, ...]:
        return (self.country, None, None, None, self.latitude, self.longitude)


def write(directory: Path, events: Sequence[Event], optional: bool = True) -> Path:
    """Write a data set; without the optional columns if asked. What is not known is null or, now and then, empty."""
    columns: dict[str, Any] = {
        "timestamp": pa.array([event.timestamp for event in events], pa.timestamp("us", "UTC")),
        **{
            name: pa.array([getattr(event, name) for event in events], pa.string())
            for name in ("type", "query", "product_id")
        },
    }
    if optional:
        for name in ("user_id", "session_id", "country"):
            texts = [getattr(event, name) or ("" if event.minute % 3 == 0 else None) for event in events]
            columns[name] = pa.array(texts, pa.string())
        for name in ("latitude", "longitude"):
            columns[name] = pa.array([getattr(event, name) for event in events], pa.float64())
    directory.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), directory / "events.parquet")
    products: dict[str, Any] = {"product_id": list(SHOPS), "title": list(SHOPS)}
    if optional:
        products["shop_id"] = [shop or "" for shop in SHOPS.values()]
    pq.write_table(pa.table(products), directory / "products.parquet")
    return directory


def read(folder: Path, name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(folder / f"{name}.parquet").to_pylist()
    return rows


# The oracle


@dataclass
class Request:
    """A request of the log and its events, in order."""

    events: list[Event]

    @property
    def moment(self) -> datetime:
        return min(event.timestamp for event in self.events)

    @property
    def context(self) -> tuple[object, ...]:
        """That of the first event that has any; among events of one moment, nulls last, then the smallest."""
        with_any = [event for event in self.events if any(value is not None for value in event.context)]
        first = min(with_any, key=lambda event: (event.timestamp, nulls_last(event.context)), default=None)
        return first.context if first else (None,) * 6


def nulls_last(values: Sequence[object]) -> tuple[object, ...]:
    return tuple((value is None, value if value is not None else 0) for value in values)


def requests_of(events: Sequence[Event]) -> list[Request]:
    groups: dict[object, list[Event]] = defaultdict(list)
    for event in events:
        groups[event.key].append(event)
    return [Request(group) for group in groups.values()]


def between(moment: datetime, start_days: int, end_days: int) -> bool:
    return T + timedelta(days=start_days) <= moment < T + timedelta(days=end_days)


def oracle_examples(events: Sequence[Event]) -> list[tuple[object, ...]]:
    rows = []
    for request in requests_of(events):
        strongest: dict[str, Event] = {}
        for event in request.events:
            if event.type in STRENGTH and between(event.timestamp, -3, 0):
                assert event.product_id is not None
                best = strongest.get(event.product_id)
                if best is None or rank(event) < rank(best):
                    strongest[event.product_id] = event
        for product_id, event in strongest.items():
            who = (event.query, event.user_id, event.session_id)
            rows.append((*who, product_id, event.type, event.timestamp, request.moment, *request.context))
    return sorted(rows, key=repr)


def rank(event: Event) -> tuple[int, int]:
    """Strongest first, then earliest."""
    return -STRENGTH.index(event.type), event.minute


def oracle_history(
    events: Sequence[Event], kind: str, user_id: str | None, moment: datetime
) -> list[tuple[object, ...]]:
    """What the user did strictly before the moment, in order."""
    rows: list[tuple[Any, ...]] = []
    for event in events:
        if user_id is None or event.user_id != user_id or event.timestamp >= moment:
            continue
        if kind == "searches" and event.type == "search":
            rows.append((event.timestamp, event.query))
        if kind == "clicks" and event.type == "click":
            rows.append((event.timestamp, event.product_id, SHOPS[event.product_id or ""]))
        if kind == "purchases" and event.type == "purchase":
            rows.append((event.timestamp, event.product_id))
    return sorted(rows, key=lambda row: (row[0], row[1]))


def oracle_requests(
    events: Sequence[Event], relevant: Sequence[str], everything: bool = False, known: Sequence[Event] = ()
) -> list[tuple[object, ...]]:
    """Evaluation requests; `known` are further events that count as history only."""
    rows = []
    for request in requests_of(events):
        for window, start, end in (("selection", 0, 1), ("report", 1, 3)):
            if everything and window == "selection":
                continue
            if not everything and not between(request.moment, start, end):
                continue
            inside = [event for event in request.events if everything or between(event.timestamp, start, end)]
            targets = sorted({event.product_id or "" for event in inside if event.type in relevant})
            first = request.events[0]
            bought = {
                event.product_id
                for event in (*events, *known)
                if event.type == "purchase"
                and event.user_id == first.user_id
                and event.user_id is not None
                and event.timestamp < request.moment
            }
            if targets:
                who = (first.query, first.user_id, first.session_id)
                new = [target for target in targets if target not in bought]
                moment = request.moment
                rows.append((window, moment.date(), moment, *who, *request.context, tuple(targets), tuple(new)))
    return sorted(rows, key=repr)


def found_requests(folder: Path) -> list[tuple[object, ...]]:
    names = ("window", "day", "timestamp", "query", "user_id", "session_id", *CONTEXT)
    rows = read(folder, "requests")
    found = [(*(row[name] for name in names), tuple(row["targets"]), tuple(row["non_repeat_targets"])) for row in rows]
    return sorted(found, key=repr)


def assert_histories(folder: Path, events: Sequence[Event], rows: Sequence[dict[str, Any]], moment: str) -> None:
    for kind in ("searches", "clicks", "purchases"):
        history = [tuple(row.values()) for row in read(folder, f"history_{kind}")]
        assert [row[:2] for row in history] == sorted(row[:2] for row in history)
        for row in rows:
            own = history[row[f"{kind}_begin"] : row[f"{kind}_end"]]
            assert [user for user, *_ in own] == [row["user_id"]] * len(own)
            assert [tuple(rest) for _, *rest in own] == oracle_history(events, kind, row["user_id"], row[moment])


# Random logs: three users and nobody, few sessions and moments, so that everything collides


def logs(first_day: int = -8, last_day: int = 4) -> st.SearchStrategy[list[Event]]:
    moments = st.one_of(
        st.integers(first_day * 24, last_day * 24 - 1).map(lambda hour: hour * 60),
        st.sampled_from([day * 1440 + minute for day in (-6, -3, 0, 1, 3) for minute in (-1, 0)]),
    ).filter(lambda minute: first_day * 1440 <= minute < last_day * 1440)
    place = st.sampled_from([(None, None), (1.5, 2.0), (1.5, -2.0)])
    event = st.builds(
        lambda minute, type_, query, product, user, session, country, place: Event(
            minute, type_, query, None if type_ == "search" else product, user, session, country, *place
        ),
        moments,
        st.sampled_from(["search", "impression", "click", "cart", "purchase", "purchase"]),
        st.sampled_from(["a", "b", "1:u"]),
        st.sampled_from(list(SHOPS)),
        st.sampled_from([None, "u", "v", " "]),
        st.sampled_from([None, "s", "t", " "]),
        st.sampled_from([None, "DE", "US"]),
        place,
    )
    return st.lists(event, min_size=1, max_size=50)


ANCHOR = Event(-1, "click", "anchor", "p0", "w", "anchor")
"""A positive event in the example window, so that there is something to learn from."""


@settings(deadline=None, max_examples=20)
@given(log=logs(), relevant=st.sampled_from([("purchase",), ("purchase", "cart"), ("click",)]))
def test_mined_tables_agree_with_the_oracle(log: list[Event], relevant: tuple[str, ...]) -> None:
    events = [*log, ANCHOR]
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        config = CONFIG.model_copy(update={"relevant_types": relevant})
        folder = mining.mine(write(root / "data", events), config, root / "cache")

        examples = read(folder, "examples")
        columns = ("query", "user_id", "session_id", "product_id", "type", "timestamp", "request_timestamp", *CONTEXT)
        found = sorted((tuple(row[column] for column in columns) for row in examples), key=repr)
        assert found == oracle_examples(events)
        assert [(row["request_id"], row["product_id"]) for row in examples] == sorted(
            {(row["request_id"], row["product_id"]) for row in examples}
        )
        assert len({row["request_id"] for row in examples}) == len({example_key(row) for row in examples})
        assert_histories(folder, events, examples, "request_timestamp")

        assert found_requests(folder) == oracle_requests(events, relevant)
        requests = read(folder, "requests")
        assert [row["request_id"] for row in requests] == list(range(len(requests)))
        assert_histories(folder, events, requests, "timestamp")

        pairs: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        requests_of: dict[tuple[str, str], set[Any]] = defaultdict(set)
        for event in events:
            if event.type in STRENGTH and between(event.timestamp, -6, 0):
                pairs[event.query, event.product_id or ""][event.type] += 1
                requests_of[event.query, event.product_id or ""].add(event.key)
        graph = [
            (*pair, *(counts[kind] for kind in STRENGTH), len(requests_of[pair]))
            for pair, counts in sorted(pairs.items())
        ]
        assert [tuple(row.values()) for row in read(folder, "graph")] == graph

        in_window = {event.key: event.query for event in events if between(event.timestamp, -3, 0)}
        counts = sorted(Counter(in_window.values()).items())
        assert [tuple(row.values()) for row in read(folder, "query_counts")] == counts
        assert not list(root.glob("cache/.*"))


def example_key(row: dict[str, Any]) -> tuple[object, ...]:
    who = (row["query"], row["user_id"], row["session_id"])
    if row["session_id"] is not None:
        return who
    moment = row["request_timestamp"]
    return (*who, moment.date() if row["user_id"] is not None else moment)


@settings(deadline=None, max_examples=10)
@given(log=logs(), added=logs(), minute=st.integers(-3 * 1440, 3 * 1440 - 1))
def test_what_happens_at_or_after_a_moment_never_changes_its_history(
    log: list[Event], added: list[Event], minute: int
) -> None:
    """Requests whose moment is not after `minute` have the same histories in a log that differs only from there on."""
    before = [*log, ANCHOR, Event(minute, "purchase", "target", "p1", "u", "the request")]
    before.append(Event(minute - 1, "purchase", "earlier", "p0", "u", "the request"))
    # The later part is replaced: what was there is gone, and other events come.
    later = [replace(event, minute=abs(event.minute) % 4000 + minute, session_id="later") for event in added]
    kept = [event for event in before if event.minute < minute or event.session_id in ("the request", "anchor")]
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        histories = []
        for number, events in enumerate((before, [*kept, *later])):
            folder = mining.mine(write(root / str(number), events), CONFIG, root / "cache")
            histories.append(history_of_target(folder))
        assert histories[0] == histories[1]
        assert histories[0]["purchases"][-1]["product_id"] is not None


def history_of_target(folder: Path) -> dict[str, list[dict[str, Any]]]:
    row = next(row for name in ("examples", "requests") for row in read(folder, name) if row["query"] == "target")
    return {
        kind: read(folder, f"history_{kind}")[row[f"{kind}_begin"] : row[f"{kind}_end"]]
        for kind in ("searches", "clicks", "purchases")
    }


@settings(deadline=None, max_examples=10)
@given(log=logs(-8, 0), unseen=logs(0, 4), share=st.booleans())
def test_requests_of_an_events_file_agree_with_the_oracle(log: list[Event], unseen: list[Event], share: bool) -> None:
    training = [*log, ANCHOR]
    unseen = [*unseen, Event(100, "purchase", "x", "p0", "u", "last")]
    file = [*training, *unseen] if share else unseen
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        mined = mining.mine(write(root / "data", training), CONFIG, root / "cache")
        pq.write_table(pq.read_table(root / "data" / "products.parquet"), mined / "products.parquet")
        write(root / "new", file)
        mining.mine_requests(root / "new" / "events.parquet", mined, CONFIG, root / "out")
        known = () if share else training
        expected = oracle_requests(file, ("purchase",), everything=True, known=known)
        assert found_requests(root / "out") == expected
        # Every event counts once, whether the file repeats the training events or not.
        assert_histories(root / "out", [*training, *unseen], read(root / "out", "requests"), "timestamp")


def test_an_event_in_both_sources_counts_once_and_a_double_one_twice(tmp_path: Path) -> None:
    old = [
        Event(-9, kind, "a", None if kind == "search" else "p0", "u", "s") for kind in ("search", "click", "purchase")
    ]
    training = [*old, *old, ANCHOR]
    file = [*old, *training, Event(5, "purchase", "b", "p1", "u", "t")]
    mined = mining.mine(write(tmp_path / "data", training), CONFIG, tmp_path / "cache")
    write(tmp_path / "new", file)
    mining.mine_requests(tmp_path / "new" / "events.parquet", mined, CONFIG, tmp_path / "out")
    request = next(row for row in read(tmp_path / "out", "requests") if row["query"] == "b")
    # Twice in training, three times in the file: three.
    assert {
        kind: request[f"{kind}_end"] - request[f"{kind}_begin"] for kind in ("searches", "clicks", "purchases")
    } == {
        "searches": 3,
        "clicks": 3,
        "purchases": 3,
    }
    # The file does not know the shop (there is no catalogue beside the histories); the training history does.
    assert [row["shop_id"] for row in read(tmp_path / "out", "history_clicks") if row["user_id"] == "u"][:2] == [
        "s0"
    ] * 2


def test_an_events_file_without_targets_is_refused(tmp_path: Path) -> None:
    write(tmp_path, [Event(0, "click", "a", "p0")])
    with pytest.raises(InputError, match="no event is purchase; nothing to evaluate"):
        mining.mine_requests(tmp_path / "events.parquet", tmp_path, CONFIG, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_unknown_product_stays_a_target(tmp_path: Path) -> None:
    write(tmp_path, [Event(0, "purchase", "a", "nobody knows it", "u")])
    mining.mine_requests(tmp_path / "events.parquet", tmp_path / "empty", CONFIG, tmp_path / "out")
    assert [row["targets"] for row in read(tmp_path / "out", "requests")] == [["nobody knows it"]]


def test_the_click_of_a_request_is_not_in_its_own_history(tmp_path: Path) -> None:
    events = [
        Event(-60, "search", "a", None, "u", "s"),
        Event(-59, "click", "a", "p1", "u", "s"),
        Event(-58, "purchase", "a", "p1", "u", "s"),
        Event(-30, "purchase", "b", "p1", "u", "s"),
    ]
    folder = mining.mine(write(tmp_path, events), CONFIG, tmp_path / "cache")
    first, second = read(folder, "examples")
    assert (first["type"], first["timestamp"]) == ("purchase", events[2].timestamp)
    assert (first["clicks_begin"], first["clicks_end"]) == (0, 0)
    assert (second["clicks_begin"], second["clicks_end"]) == (0, 1)
    assert (second["purchases_begin"], second["purchases_end"]) == (0, 1)


def test_a_request_that_began_before_an_edge_is_not_evaluated_after_it(tmp_path: Path) -> None:
    events = [
        Event(-1, "click", "a", "p0", "u", "s"),
        Event(1, "purchase", "a", "p0", "u", "s"),
        Event(1439, "purchase", "a", "p1", "u", "t"),
        Event(1440, "purchase", "a", "p2", "u", "t"),
    ]
    folder = mining.mine(write(tmp_path, events), CONFIG, tmp_path / "cache")
    assert [(row["type"], row["product_id"]) for row in read(folder, "examples")] == [("click", "p0")]
    assert [(row["window"], row["targets"]) for row in read(folder, "requests")] == [("selection", ["p1"])]


def test_the_days_quota_is_drawn_by_a_stable_hash(tmp_path: Path) -> None:
    sessions = [f"session {number}" for number in range(40)]
    events = [Event(day * 1440, "purchase", "a", "p0", None, session) for day in (0, 1, 2) for session in sessions]
    events = [replace(event, session_id=f"{event.session_id} on {event.minute}") for event in events]
    config = CONFIG.model_copy(update={"max_requests_per_day": 7})
    folder = mining.mine(write(tmp_path / "one", [*events, ANCHOR]), config, tmp_path / "cache")
    rows = read(folder, "requests")
    assert Counter(row["day"] for row in rows) == {date(2024, 3, day): 7 for day in (10, 11, 12)}
    keys = {event.session_id: f"s{len(event.session_id or '')}:{event.session_id}-a" for event in events}
    for day in (0, 1, 2):
        of_day = [event.session_id for event in events if event.minute == day * 1440]
        drawn = sorted(of_day, key=lambda session: md5(keys[session].encode(), usedforsecurity=False).hexdigest())[:7]
        assert {row["session_id"] for row in rows if row["timestamp"] == T + timedelta(days=day)} == set(drawn)


def test_results_do_not_depend_on_the_order_of_rows(tmp_path: Path) -> None:
    events = [
        replace(
            ANCHOR, minute=-minute % 97 - 100, product_id=f"p{minute % 3}", user_id=f"u{minute % 5}", session_id=None
        )
        for minute in range(300)
    ]
    events += [replace(event, minute=event.minute + 2000, type="purchase") for event in events]
    events += [replace(event, type="search", product_id=None) for event in events]
    folders = [
        mining.mine(write(tmp_path / name, rows), CONFIG, tmp_path / "cache")
        for name, rows in (("one", events), ("two", events[::-1]))
    ]
    assert folders[0] != folders[1]
    for file in sorted(folders[0].glob("*.parquet")):
        assert pq.read_table(file).num_rows
        assert pq.read_table(file).equals(pq.read_table(folders[1] / file.name)), file.name


def test_optional_columns_may_be_absent(tmp_path: Path) -> None:
    events = [Event(-5, "click", "a", "p0"), Event(-5, "click", "a", "p1"), Event(5, "purchase", "a", "p0")]
    folder = mining.mine(write(tmp_path, events, optional=False), CONFIG, tmp_path / "cache")
    examples = read(folder, "examples")
    # Without session and user, the events of one query at one moment are one request.
    assert [(row["request_id"], row["product_id"]) for row in examples] == [(0, "p0"), (0, "p1")]
    assert {row[name] for row in examples for name in ("user_id", "session_id", *CONTEXT)} == {None}
    (request,) = read(folder, "requests")
    assert request["targets"] == request["non_repeat_targets"] == ["p0"]
    assert read(folder, "history_clicks") == []


def test_names_of_folders_are_no_columns(tmp_path: Path) -> None:
    """A folder `country=DE` is a partition to DuckDB, which would put its value in place of the file's."""
    events = [Event(-60, "purchase", "a", "p1", "u", "s", "US"), Event(30, "purchase", "b", "p1", "u", "t", "FR")]
    plain = mining.mine(write(tmp_path / "plain", events), CONFIG, tmp_path / "cache")
    for name in ("country=DE", "type=click", "user_id=5", "product_id=1"):
        folder = tmp_path / name
        mined = mining.mine(write(folder, events), CONFIG, folder / "cache")
        for table in ("examples", "requests", "history_purchases", "graph"):
            assert read(mined, table) == read(plain, table), (name, table)


def test_schemas_are_stable(tmp_path: Path) -> None:
    """Also of empty tables: here there is no evaluation request and no known user."""
    folder = mining.mine(write(tmp_path, [Event(-5, "click", "a", "p0")], optional=False), CONFIG, tmp_path / "cache")
    moment = pa.timestamp("us", "UTC")
    context = {name: pa.string() for name in CONTEXT[:4]} | {name: pa.float64() for name in CONTEXT[4:]}
    pointers = {
        f"{kind}_{edge}": pa.int64() for kind in ("searches", "clicks", "purchases") for edge in ("begin", "end")
    }
    text = pa.string()
    expected = {
        "examples": {"request_id": pa.int64(), "query": text, "product_id": text, "type": text, "timestamp": moment,
                     "request_timestamp": moment, "user_id": text, "session_id": text} | context | pointers,
        "requests": {"request_id": pa.int64(), "window": text, "day": pa.date32(), "timestamp": moment, "query": text,
                     "user_id": text, "session_id": text} | context
                    | {"targets": pa.list_(text), "non_repeat_targets": pa.list_(text)} | pointers,
        "graph": {"query": text, "product_id": text}
                 | {name: pa.int64() for name in ("clicks", "carts", "purchases", "requests")},
        "query_counts": {"query": text, "count": pa.int64()},
        "history_searches": {"user_id": text, "timestamp": moment, "query": text},
        "history_clicks": {"user_id": text, "timestamp": moment, "product_id": text, "shop_id": text},
        "history_purchases": {"user_id": text, "timestamp": moment, "product_id": text},
    }  # fmt: skip
    for name, types in expected.items():
        table = pq.read_table(folder / f"{name}.parquet")
        assert table.column_names == list(types), name
        assert [normal(field.type) for field in table.schema] == list(types.values()), name


def normal(type_: pa.DataType) -> pa.DataType:
    """A list type without the name of its element."""
    return pa.list_(type_.value_type) if pa.types.is_list(type_) else type_


def test_the_result_is_kept_until_data_or_settings_change(tmp_path: Path) -> None:
    data, cache = write(tmp_path / "data", [ANCHOR]), tmp_path / "cache"
    first = mining.mine(data, CONFIG, cache)
    written = (first / "examples.parquet").stat().st_mtime_ns
    assert mining.mine(data, CONFIG, cache) == first
    assert (first / "examples.parquet").stat().st_mtime_ns == written
    assert mining.mine(data, CONFIG.model_copy(update={"graph_days": 5}), cache) != first
    assert mining.mine(write(data, [replace(ANCHOR, product_id="p1")]), CONFIG, cache) != first
    assert len(list(cache.iterdir())) == 3


# Windows


def test_windows_around_a_given_moment(tmp_path: Path) -> None:
    write(tmp_path, [ANCHOR])
    windows = resolve_windows(tmp_path, CONFIG)
    days = {"graph_start": -6, "examples_start": -3, "train_end": 0, "selection_end": 1, "report_end": 3}
    assert windows == Windows(**{name: T + timedelta(days=day) for name, day in days.items()})
    assert Windows.from_json(json.loads(json.dumps(windows.to_json()))) == windows
    folder = mining.mine(tmp_path, CONFIG, tmp_path / "cache")
    assert Windows.from_json(json.loads((folder / "windows.json").read_text())) == windows


def test_the_end_of_training_comes_from_settings_then_facts_then_the_last_event(tmp_path: Path) -> None:
    lengths: dict[str, Any] = {"example_days": 30, "selection_days": 1, "report_days": 2}
    write(
        tmp_path,
        [Event(minute, "click", "a", "p0") for minute in range(-9 * 1440, 30, 1440)] + [Event(30, "click", "a", "p0")],
    )
    # The last event is on T's day, so the day after it is T + 1, minus three days.
    assert resolve_windows(tmp_path, DataConfig(**lengths)).train_end == T - timedelta(days=2)
    (tmp_path / "dataset.json").write_text(json.dumps({"train_end": "2024-03-05"}))
    assert resolve_windows(tmp_path, DataConfig(**lengths)).train_end == datetime(2024, 3, 5, tzinfo=UTC)
    given_end = datetime(2024, 3, 4, 6)
    assert resolve_windows(tmp_path, DataConfig(train_end=given_end, **lengths)).train_end == given_end.replace(
        tzinfo=UTC
    )


def test_windows_beyond_the_calendar_are_refused(tmp_path: Path) -> None:
    write(tmp_path, [ANCHOR])
    (tmp_path / "dataset.json").write_text(json.dumps({"train_end": "0001-01-02"}))
    with pytest.raises(InputError, match=r"data\.train_end = 0001-01-02.* leave the years 1 to 9999"):
        resolve_windows(tmp_path, DataConfig())
    with pytest.raises(ValueError, match="less than or equal to 36500"):
        DataConfig(graph_days=1_000_000)


def test_a_training_window_without_positives_is_refused(tmp_path: Path) -> None:
    minute = -3 * 1440
    write(
        tmp_path,
        [Event(minute - 1, "click", "a", "p0"), Event(-5, "impression", "a", "p0"), Event(0, "click", "a", "p0")],
    )
    with pytest.raises(
        InputError, match=r"no click, cart or purchase in the example window 2024-03-07.*data\.train_end"
    ):
        mining.mine(tmp_path, CONFIG, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
    write(tmp_path, [Event(minute, "click", "a", "p0")])
    assert len(read(mining.mine(tmp_path, CONFIG, tmp_path / "cache"), "examples")) == 1
