"""Numbers as the page writes them."""

import math
from datetime import datetime
from typing import Any

from uepp.evaluation import table

MISSING = "–"


def recall(value: float | None) -> str:
    """`.866`; 1 is `1.000`."""
    return measure("recall", value)


def measure(name: str, value: float | None) -> str:
    """A figure of a measure or of `locality` by its name: `.866`, a small precision `.0012`, kilometres `4,184`."""
    if value is None or math.isnan(value):
        return MISSING
    return table.fixed(value, table.decimals(name, value))


def share(value: float | None, decimals: int = 1) -> str:
    """`86.6%`."""
    return MISSING if value is None or math.isnan(value) else f"{100 * value:.{decimals}f}%"


def points(value: float | None) -> str:
    """Percentage points with their sign: `+36.5`."""
    return MISSING if value is None or math.isnan(value) else _sign(100 * value, 1)


def signed(value: float | None, decimals: int = 3) -> str:
    """`+.365`."""
    if value is None or math.isnan(value):
        return MISSING
    text = _sign(value, decimals)
    return text.replace("0.", ".", 1) if abs(value) < 1 else text


def signed_between(ends: list[float | None] | None) -> str:
    """An interval of differences: `+.346 to +.383`."""
    return MISSING if ends is None or None in ends else f"{signed(ends[0])} to {signed(ends[1])}"


def points_between(ends: list[float | None] | None) -> str:
    """An interval of differences in percentage points."""
    return MISSING if ends is None or None in ends else f"{points(ends[0])} to {points(ends[1])}"


def p_value(value: float | None) -> str:
    """`≤ .0001`, the least that the test can give, or `.0312`."""
    return MISSING if value is None or math.isnan(value) else table.p_value(value)


def p_clause(value: float | None) -> str:
    """`p ≤ .0001` or `p = .0312`, in one line."""
    text = f"p = {MISSING}" if value is None or math.isnan(value) else table.p_clause(value)
    return text.replace(" ", "\u00a0")


def count(value: float | None) -> str:
    """`2,798`."""
    return MISSING if value is None else f"{value:,.0f}"


def kilometres(value: float | None) -> str:
    """`4,184 km`."""
    return MISSING if value is None or math.isnan(value) else f"{value:,.0f} km"


def size(num_bytes: float) -> str:
    """`10.2 MB`, of a thousand each."""
    units = ["bytes", "kB", "MB", "GB", "TB"]
    while num_bytes >= 1_000 and len(units) > 1:
        num_bytes /= 1_000
        units.pop(0)
    unit = units[0]
    return f"{num_bytes:,.0f} {unit}" if unit == "bytes" or num_bytes >= 100 else f"{num_bytes:.1f} {unit}"


def duration(seconds: float) -> str:
    """`7 min 43 s`, `3 h 20 min`."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def moment(at: datetime) -> str:
    """`2024-05-04`, with the time where it is not midnight."""
    return f"{at:%Y-%m-%d}" if (at.hour, at.minute, at.second) == (0, 0, 0) else f"{at:%Y-%m-%d %H:%M}"


def listed(words: list[str]) -> str:
    """`a, b and c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else ""


def setting(value: Any) -> str:
    """A value of a configuration, as YAML has it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(setting(one) for one in value)}]"
    return str(value)


def _sign(value: float, decimals: int) -> str:
    """With a sign, unless it is 0 as it is written."""
    text = f"{value:+.{decimals}f}"
    return text[1:] if float(text) == 0 else text.replace("-", "−")
