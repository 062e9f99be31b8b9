"""The windows of mining and evaluation around T, the end of training (docs/architecture.md, "windows")."""

from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

from uepp.config import INTERACTION_TYPES, DataConfig
from uepp.data import schema
from uepp.errors import InputError


@dataclass(frozen=True)
class Windows:
    """Edges in UTC. Every window is half-open, [start, end).

    Graph: [graph_start, train_end) · examples: [examples_start, train_end) · selection: [train_end, selection_end) ·
    report: [selection_end, report_end).
    """

    graph_start: datetime
    examples_start: datetime
    train_end: datetime
    selection_end: datetime
    report_end: datetime

    @classmethod
    def around(cls, train_end: datetime, config: DataConfig) -> "Windows":
        """The windows around T, with the lengths of the configuration."""
        train_end = schema.as_utc(train_end)
        selection_end = train_end + timedelta(days=config.selection_days)
        return cls(
            graph_start=train_end - timedelta(days=config.graph_days),
            examples_start=train_end - timedelta(days=config.example_days),
            train_end=train_end,
            selection_end=selection_end,
            report_end=selection_end + timedelta(days=config.report_days),
        )

    @classmethod
    def from_json(cls, value: dict[str, str]) -> "Windows":
        """The inverse of `to_json`."""
        return cls(**{name: datetime.fromisoformat(text) for name, text in value.items()})

    def to_json(self) -> dict[str, str]:
        """Edges as ISO strings."""
        return {name: edge.isoformat() for name, edge in asdict(self).items()}


def resolve_windows(data_dir: Path, config: DataConfig) -> Windows:
    """Find T and the windows of a data set.

    T is `config.train_end`; else `train_end` of the data set's `dataset.json`; else 00:00 UTC of the day after the
    last event, minus the days of selection and report.

    Raises:
        InputError: no event is a positive one in the example window.
    """
    con = schema.connect()
    try:
        events = schema.open_events(con, data_dir / "events.parquet")
        train_end = config.train_end or schema.read_dataset_facts(data_dir).get("train_end")
        if train_end is None:
            last_day = _scalar(events.aggregate(last=events.timestamp.max().date()))
            if last_day is None:
                raise InputError(f"{data_dir / 'events.parquet'}: empty table (0 rows); at least one row is expected")
            train_end = _midnight(last_day) + timedelta(days=1 - config.selection_days - config.report_days)
        try:
            windows = Windows.around(train_end, config)
        except OverflowError:
            raise InputError(
                f"data.train_end = {train_end}: windows of {config.graph_days} days before and "
                f"{config.selection_days + config.report_days} after it leave the years 1 to 9999"
            ) from None
        positives = events.filter(
            events.type.isin(INTERACTION_TYPES), is_between(events.timestamp, windows.examples_start, windows.train_end)
        )
        if not _scalar(positives.aggregate(count=positives.count())):
            span = events.aggregate(first=events.timestamp.min(), last=events.timestamp.max()).to_pyarrow().to_pylist()
            raise InputError(
                f"{data_dir / 'events.parquet'}: no {', '.join(INTERACTION_TYPES[:-1])} or {INTERACTION_TYPES[-1]} in "
                f"the example window {windows.examples_start.isoformat()} to {windows.train_end.isoformat()}; the "
                f"events span {span[0]['first']} to {span[0]['last']}: set data.train_end or data.example_days"
            )
    finally:
        con.disconnect()
    return windows


def is_between(timestamp: Any, start: datetime, end: datetime) -> Any:
    """Ibis expression: start <= timestamp < end."""
    import ibis

    moment = {edge: ibis.literal(edge, type="timestamp('UTC', 6)") for edge in (start, end)}
    return (timestamp >= moment[start]) & (timestamp < moment[end])


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), tzinfo=UTC)


def _scalar(table: Any) -> Any:
    return table.to_pyarrow().column(0)[0].as_py()
