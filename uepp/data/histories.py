"""User histories, one sorted table a kind, and the pointers that make them as-of.

A request's history of a kind is the rows [begin, end) of that table: the rows of its user strictly before its moment.
So a history costs two integers, and nothing at or after the moment can be in it.
"""

from pathlib import Path
from typing import Any

from uepp.data import schema

KINDS: dict[str, tuple[str, ...]] = {
    "searches": ("user_id", "timestamp", "query"),
    "clicks": ("user_id", "timestamp", "product_id", "shop_id"),
    "purchases": ("user_id", "timestamp", "product_id"),
}
"""Columns of `history_<kind>.parquet`, in the order by which its rows are sorted."""

POINTERS = tuple(f"{kind}_{edge}" for kind in KINDS for edge in ("begin", "end"))
"""Names of the pointer columns."""

_EVENT_TYPE = {"searches": "search", "clicks": "click", "purchases": "purchase"}


def user_histories(con: Any, events: Any, products_path: Path) -> dict[str, Any]:
    """The events of known users by kind, as Ibis tables; a click knows its product's shop where the catalogue does."""
    import ibis

    known = events.filter(events.user_id.notnull())
    tables = {kind: known.filter(known.type == event_type) for kind, event_type in _EVENT_TYPE.items()}
    shops = None
    if products_path.exists():
        products = schema.open_parquet(con, products_path)
        if "shop_id" in products.columns:
            shops = products.select(product_id=products.product_id, shop_id=products.shop_id.cast("string").nullif(""))
    if shops is None:
        tables["clicks"] = tables["clicks"].mutate(shop_id=ibis.null("string"))
    else:
        tables["clicks"] = tables["clicks"].left_join(shops, "product_id")
    return {kind: tables[kind].select(*columns) for kind, columns in KINDS.items()}


def merge(kind: str, one: Any, other: Any) -> Any:
    """Both histories of a kind; an event that is in both counts once, one that occurs twice in either counts twice."""
    import ibis

    same = [name for name in KINDS[kind] if name != "shop_id"]
    numbered = [
        table.mutate(occurrence=ibis.row_number().over(ibis.window(group_by=same, order_by=same)))
        for table in (one, other)
    ]
    both = ibis.union(*numbered)
    if kind == "clicks":
        # The same click may know its shop in one source only.
        return both.group_by(*same, "occurrence").agg(shop_id=both.shop_id.max()).select(*KINDS[kind])
    return both.distinct().select(*KINDS[kind])


def write_histories(con: Any, tables: dict[str, Any], directory: Path) -> None:
    """Write `history_<kind>.parquet`, sorted by user, time and then everything else."""
    for kind, columns in KINDS.items():
        con.to_parquet(tables[kind].order_by(*columns), history_path(directory, kind))


def history_path(directory: Path, kind: str) -> Path:
    """Where the history of a kind is kept."""
    return directory / f"history_{kind}.parquet"


def add_pointers(con: Any, requests: Any, directory: Path) -> Any:
    """Add the six pointer columns to requests (with `user_id` and `request_timestamp`).

    `begin` is the user's first row and `end` the row after the last one strictly before the moment; both are 0 for
    an anonymous request and for a user without such events.
    """
    import ibis

    for kind in KINDS:
        history = schema.open_parquet(con, history_path(directory, kind), file_row_number=True)
        history = history.select(
            "user_id", history.timestamp.cast("timestamp('UTC', 6)").name("moment"), "file_row_number"
        )
        last = history.group_by("user_id", "moment").agg(last_row=history.file_row_number.max())
        first = history.group_by("user_id").agg(first_row=history.file_row_number.min())
        names = requests.columns
        joined = requests.asof_join(
            last, requests.request_timestamp > last.moment, predicates=["user_id"], rname="{name}_last"
        )
        joined = joined.select(*names, "last_row").left_join(first, "user_id", rname="{name}_first")
        begin = ibis.coalesce(joined.first_row, 0)
        requests = joined.select(
            *names,
            begin.cast("int64").name(f"{kind}_begin"),
            ibis.coalesce(joined.last_row + 1, begin).cast("int64").name(f"{kind}_end"),
        )
    return requests
