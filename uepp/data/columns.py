"""The columns of a data set's tables: what the contract says, and nothing that acts on it."""

from dataclasses import dataclass

import pyarrow as pa

EVENT_TYPES = ("search", "impression", "click", "cart", "purchase")
TIMESTAMP = pa.timestamp("us", "UTC")
STRINGS = pa.list_(pa.string())
ATTRIBUTES = pa.map_(pa.string(), STRINGS)


@dataclass(frozen=True)
class Column:
    """One column: its canonical type, whether the file must have it, whether it may be null, and its range."""

    name: str
    type: pa.DataType
    required: bool = False
    nullable: bool = True
    low: float = -float("inf")
    high: float = float("inf")
    choices: tuple[str, ...] = ()
    can_be_empty: bool = True

    @property
    def empty_is_null(self) -> bool:
        """Whether an empty text means that nothing is known, as csv files have it."""
        return self.type == pa.string() and self.nullable and self.can_be_empty

    @property
    def allowed(self) -> str:
        """What a value may be, in words."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        if pa.types.is_floating(self.type) or pa.types.is_integer(self.type):
            kind = "a finite number" if pa.types.is_floating(self.type) else "a whole number"
            if self.low > -float("inf"):
                kind += (
                    f" from {self.low:g} to {self.high:g}" if self.high < float("inf") else f" of at least {self.low:g}"
                )
            return kind
        if not self.can_be_empty:
            return "a non-empty string"
        return {STRINGS: "a list of strings", ATTRIBUTES: "a map from string to list of strings"}.get(
            self.type, "a timestamp" if self.type == TIMESTAMP else "a string"
        )


def _key(name: str, nullable: bool = False) -> Column:
    return Column(name, pa.string(), required=True, nullable=nullable, can_be_empty=False)


_PLACE = (
    *(Column(name, pa.string()) for name in ("country", "region", "language", "zip")),
    Column("latitude", pa.float64(), low=-90, high=90),
    Column("longitude", pa.float64(), low=-180, high=180),
)
PRODUCTS = (
    _key("product_id"),
    Column("title", pa.string(), required=True, nullable=False),
    Column("tags", STRINGS),
    *(Column(name, pa.string()) for name in ("description", "category")),
    Column("attributes", ATTRIBUTES),
    Column("shop_id", pa.string()),
    Column("price", pa.float64(), low=0),
    Column("created_at", TIMESTAMP),
    *_PLACE,
    Column("quality_as_of", TIMESTAMP),
)
EVENTS = (
    Column("timestamp", TIMESTAMP, required=True, nullable=False),
    Column("user_id", pa.string()),
    Column("session_id", pa.string()),
    Column("type", pa.string(), required=True, nullable=False, choices=EVENT_TYPES),
    Column("query", pa.string(), required=True, nullable=False),
    _key("product_id", nullable=True),
    Column("position", pa.int32(), low=0, high=2**31 - 1),
    *_PLACE,
)
JUDGMENTS = (
    Column("query", pa.string(), required=True, nullable=False),
    _key("product_id"),
    Column("grade", pa.float64(), required=True, nullable=False),
)
CONTEXT = tuple(column.name for column in _PLACE)
"""Names of the context columns of an event."""
