"""From a log to training examples, the query-product graph, histories and evaluation requests (Ibis, on DuckDB).

A request is one query of one session. Its key is session, user and query; without a session, user, UTC day and query;
without both, timestamp and query. Its as-of moment is the timestamp of its first event of any type, so a click that
belongs to the request is never in the request's own history. Its context is that of its first event that has any.
"""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uepp
from uepp.artifacts import atomic_directory, fingerprint, sha256, write_json
from uepp.config import INTERACTION_TYPES, DataConfig
from uepp.data import histories, schema
from uepp.data.windows import Windows, is_between, resolve_windows
from uepp.errors import InputError

_MEMORY_LIMIT = "4GB"
_WHO = ("query", "user_id", "session_id")


def mine(data_dir: Path, config: DataConfig, cache_dir: Path) -> Path:
    """Mine a data set; returns the folder of the result, at once when it is already there.

    The folder is `cache_dir` / a key of the data's content and the settings. It holds, sorted as named:

    * `examples.parquet`: one row per request and product that was interacted with in [examples_start, T), with its
      strongest interaction (the earliest of that type); by `request_id`, `product_id`.
    * `history_searches.parquet`, `history_clicks.parquet`, `history_purchases.parquet`: see `histories`.
    * `graph.parquet`: clicks, carts, purchases and distinct requests per query and product in [graph_start, T).
    * `requests.parquet`: evaluation requests that have a target. A request belongs to the window and UTC day of its
      as-of moment, and only events of that same window are its targets.
    * `query_counts.parquet`: distinct requests (with any event) per query in [examples_start, T).
    * `windows.json`: see `Windows`.

    Raises:
        InputError: no positive events in the example window.
    """
    windows = resolve_windows(data_dir, config)
    settings = config.model_dump(mode="json", exclude={"path", "train_end"})
    sources = [data_dir / "events.parquet", data_dir / "products.parquet"]
    target = cache_dir / fingerprint([sha256(file) for file in sources], settings, windows.to_json(), uepp.__version__)
    if target.is_dir():
        return target
    with atomic_directory(target) as output, _workspace(cache_dir) as (con, scratch):
        events = _with_request_key(schema.open_events(con, data_dir / "events.parquet"))
        histories.write_histories(con, histories.user_histories(con, events, data_dir / "products.parquet"), output)
        mined = events.filter(
            events.type.isin(INTERACTION_TYPES),
            is_between(events.timestamp, windows.examples_start, windows.report_end),
        )
        positives = _stage(
            con, mined.select("request_key", "product_id", "type", "timestamp"), scratch / "positives.parquet"
        )
        requests = _requests(con, events, positives, output, scratch)
        con.to_parquet(_examples(requests, positives, windows), output / "examples.parquet")
        con.to_parquet(_graph(events, windows), output / "graph.parquet")
        con.to_parquet(_query_counts(events, windows), output / "query_counts.parquet")
        evaluated = _evaluation_requests(con, requests, positives, output, config.relevant_types, windows)
        con.to_parquet(_limited(evaluated, config.max_requests_per_day), output / "requests.parquet")
        write_json(output / "windows.json", windows.to_json())
    return target


def mine_requests(events: Path, training: Path, config: DataConfig, output: Path) -> None:
    """Make every request of an events file that has a target an evaluation request.

    Args:
        events: events table; its products may be unknown.
        training: folder with `history_*.parquet` (and `products.parquet`, for the shops of clicks); used as it is.
        config: `relevant_types` says what is a target.
        output: folder to write: `requests.parquet` (window `report`) and `history_*.parquet`, the training histories
            merged with the events of the file. Events that are in both count once.

    Raises:
        InputError: no event of the file is a relevant one.
    """
    _refuse_irrelevant(events, config.relevant_types)
    with atomic_directory(output) as folder, _workspace(output.parent) as (con, scratch):
        table = _with_request_key(schema.open_events(con, events))
        tables = histories.user_histories(con, table, training / "products.parquet")
        for kind, columns in histories.KINDS.items():
            path = histories.history_path(training, kind)
            if path.exists():
                known = schema.open_parquet(con, path).select(*columns)
                known = known.mutate(timestamp=known.timestamp.cast("timestamp('UTC', 6)"))
                tables[kind] = histories.merge(kind, tables[kind], known)
        histories.write_histories(con, tables, folder)
        relevant = table.filter(table.type.isin(config.relevant_types))
        positives = _stage(
            con, relevant.select("request_key", "product_id", "type", "timestamp"), scratch / "positives.parquet"
        )
        requests = _requests(con, table, positives, folder, scratch)
        evaluated = _evaluation_requests(con, requests, positives, folder, config.relevant_types, windows=None)
        con.to_parquet(_numbered(evaluated), folder / "requests.parquet")


def _refuse_irrelevant(events: Path, relevant_types: Sequence[str]) -> None:
    """Raise `InputError` if no event is a relevant one, before anything is written."""
    con = schema.connect()
    try:
        table = schema.open_events(con, events)
        if not table.filter(table.type.isin(relevant_types)).count().to_pyarrow().as_py():
            raise InputError(f"{events}: column type: no event is {' or '.join(relevant_types)}; nothing to evaluate")
    finally:
        con.disconnect()


@contextmanager
def _workspace(parent: Path) -> Iterator[tuple[Any, Path]]:
    """A DuckDB connection that spills into a scratch folder, and that folder."""
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".mining-", dir=parent) as folder:
        con = schema.connect(memory_limit=_MEMORY_LIMIT, temp_directory=str(Path(folder) / "spill"))
        try:
            yield con, Path(folder)
        finally:
            con.disconnect()


def _stage(con: Any, table: Any, path: Path) -> Any:
    """Compute a table once, into a file, so that it needs no memory and is not computed again."""
    con.to_parquet(table, path)
    return schema.open_parquet(con, path)


def _with_request_key(events: Any) -> Any:
    """Add `request_key`, unique to a request. Lengths keep apart the parts, whatever characters they hold."""
    import ibis

    def part(text: Any) -> Any:
        return ibis.coalesce(text.length().cast("string") + ":" + text, "-")

    user, query = part(events.user_id), events.query
    by_session = ibis.literal("s") + part(events.session_id) + user + query
    by_day = ibis.literal("u") + user + events.timestamp.strftime("%Y-%m-%d") + query
    by_moment = ibis.literal("t") + events.timestamp.strftime("%Y-%m-%dT%H:%M:%S.%f") + query
    key = ibis.cases((events.session_id.notnull(), by_session), (events.user_id.notnull(), by_day), else_=by_moment)
    return events.mutate(request_key=key)


def _requests(con: Any, events: Any, positives: Any, histories_dir: Path, scratch: Path) -> Any:
    """One row per request that has a positive: who, what, as-of moment, context, history pointers."""
    import ibis

    touched = events.semi_join(positives.select("request_key").distinct(), "request_key")
    touched = _stage(
        con, touched.select("request_key", *_WHO, "timestamp", *schema.CONTEXT), scratch / "touched.parquet"
    )
    # Who is the same in all rows of a key, so any of them will do.
    requests = touched.group_by("request_key").agg(
        **{name: touched[name].arbitrary() for name in _WHO}, request_timestamp=touched.timestamp.min()
    )
    has_context = ibis.or_(*(touched[name].notnull() for name in schema.CONTEXT))
    contexts = touched.filter(has_context)
    in_time = ibis.window(group_by="request_key", order_by=["timestamp", *schema.CONTEXT])
    contexts = contexts.mutate(nth=ibis.row_number().over(in_time))
    contexts = contexts.filter(contexts.nth == 0).select("request_key", *schema.CONTEXT)
    names = ["request_key", *_WHO, "request_timestamp", *schema.CONTEXT]
    requests = _stage(con, requests.left_join(contexts, "request_key").select(*names), scratch / "as_of.parquet")
    return _stage(con, histories.add_pointers(con, requests, histories_dir), scratch / "requests.parquet")


def _numbered(requests: Any) -> Any:
    """Replace the key by `request_id`, 0, 1, … in the order of time."""
    import ibis

    in_time = ibis.window(order_by=["request_timestamp", "request_key"])
    numbered = requests.mutate(request_id=ibis.row_number().over(in_time).cast("int64"))
    if "targets" not in requests.columns:
        return numbered
    columns = [
        "request_id", "window", "day", "timestamp", *_WHO, *schema.CONTEXT, "targets", "non_repeat_targets",
        *histories.POINTERS,
    ]  # fmt: skip
    return numbered.mutate(timestamp=numbered.request_timestamp).select(*columns).order_by("request_id")


def _examples(requests: Any, positives: Any, windows: Windows) -> Any:
    import ibis

    rows = positives.filter(is_between(positives.timestamp, windows.examples_start, windows.train_end))
    strongest_first = INTERACTION_TYPES[::-1]
    earliest = {name: rows.timestamp.min(where=rows.type == name) for name in strongest_first}
    pairs = rows.group_by("request_key", "product_id").agg(**earliest)
    pairs = pairs.select(
        "request_key",
        "product_id",
        type=ibis.cases(*((pairs[name].notnull(), name) for name in strongest_first)),
        timestamp=ibis.coalesce(*(pairs[name] for name in strongest_first)),
    )
    numbered = _numbered(requests.semi_join(pairs.select("request_key").distinct(), "request_key"))
    columns = [
        "request_id", "query", "product_id", "type", "timestamp", "request_timestamp", "user_id", "session_id",
        *schema.CONTEXT, *histories.POINTERS,
    ]  # fmt: skip
    return pairs.inner_join(numbered, "request_key").select(*columns).order_by("request_id", "product_id")


def _graph(events: Any, windows: Windows) -> Any:
    rows = events.filter(
        events.type.isin(INTERACTION_TYPES), is_between(events.timestamp, windows.graph_start, windows.train_end)
    )
    counts = {f"{name}s": rows.count(where=rows.type == name).cast("int64") for name in INTERACTION_TYPES}
    requests = rows.request_key.nunique().cast("int64")
    return rows.group_by("query", "product_id").agg(**counts, requests=requests).order_by("query", "product_id")


def _query_counts(events: Any, windows: Windows) -> Any:
    rows = events.filter(is_between(events.timestamp, windows.examples_start, windows.train_end))
    requests = rows.select("query", "request_key").distinct()
    return requests.group_by("query").agg(count=requests.count().cast("int64")).order_by("query")


def _evaluation_requests(
    con: Any, requests: Any, positives: Any, histories_dir: Path, relevant_types: Sequence[str], windows: Windows | None
) -> Any:
    """Requests with `window`, `day`, `targets` and `non_repeat_targets`; without windows, all are of the report."""
    import ibis

    def window_of(timestamp: Any) -> Any:
        if windows is None:
            return ibis.literal("report")
        return ibis.cases(
            (is_between(timestamp, windows.train_end, windows.selection_end), "selection"),
            (is_between(timestamp, windows.selection_end, windows.report_end), "report"),
        )

    requests = requests.mutate(window=window_of(requests.request_timestamp))
    requests = requests.filter(requests.window.notnull())
    rows = positives.filter(positives.type.isin(tuple(relevant_types)))
    rows = rows.select("request_key", "product_id", target_window=window_of(rows.timestamp))
    pairs = rows.inner_join(requests, "request_key")
    pairs = pairs.filter(pairs.target_window == pairs.window)
    pairs = pairs.select("request_key", "product_id", "user_id", "request_timestamp").distinct()
    purchases = schema.open_parquet(con, histories.history_path(histories_dir, "purchases"))
    first_purchases = purchases.group_by("user_id", "product_id").agg(
        first_purchase=purchases.timestamp.cast("timestamp('UTC', 6)").min()
    )
    pairs = pairs.left_join(first_purchases, ["user_id", "product_id"])
    is_new = pairs.first_purchase.isnull() | (pairs.first_purchase >= pairs.request_timestamp)
    targets = pairs.group_by("request_key").agg(
        targets=pairs.product_id.collect(order_by="product_id"),
        non_repeat_targets=ibis.coalesce(
            pairs.product_id.collect(where=is_new, order_by="product_id"), ibis.literal([], type="array<string>")
        ),
    )
    return requests.inner_join(targets, "request_key").mutate(day=requests.request_timestamp.date())


def _limited(requests: Any, max_per_day: int) -> Any:
    """At most so many requests a window and day, drawn by a hash of their key that never changes."""
    import ibis

    drawn = requests.mutate(draw=requests.request_key.hexdigest("md5"))
    by_draw = ibis.window(group_by=["window", "day"], order_by=["draw", "request_key"])
    drawn = drawn.mutate(nth=ibis.row_number().over(by_draw))
    return _numbered(drawn.filter(drawn.nth < max_per_day).drop("draw", "nth"))
