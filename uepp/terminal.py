"""Tables on a terminal."""

from collections.abc import Collection, Iterable, Sequence

from rich.cells import cell_len
from rich.console import JustifyMethod
from rich.table import Table
from rich.text import Text

_NARROWEST = 15  # column of names
_BORDER = 3  # a column's blanks and line


def in_parts(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    names: Collection[str],
    width: int,
    title: str | None = None,
    caption: str | None = None,
) -> list[Table]:
    """A table, or several where its columns do not fit beside each other, each with the names and a figure at least.

    Args:
        head: headings.
        rows: texts, which are shown as they are.
        names: headings of what a row is called, in every part.
        width: of the terminal.
        title: above the first part.
        caption: below the last one.
    """
    named = [place for place, heading in enumerate(head) if heading in names]
    needs = [_width([*heading.split(), *(row[place] for row in rows)]) for place, heading in enumerate(head)]
    left = width - 1
    widest = max(need for place, need in enumerate(needs) if place not in named)
    for place in named:
        share = (width - 1 - widest) // len(named)
        needs[place] = min(needs[place], max(_NARROWEST, width // (2 * len(named))), max(share, _BORDER + 1))
        left -= needs[place]
    parts: list[list[int]] = [[]]
    for place in range(len(head)):
        if place not in named:
            if parts[-1] and sum(needs[column] for column in parts[-1]) + needs[place] > left:
                parts.append([])
            parts[-1].append(place)
    tables = []
    for part in parts:
        table = Table(
            title=Text(title, "table.title") if title and part is parts[0] else None,
            caption=caption if part is parts[-1] else None,
        )
        for place in (*named, *part):
            justify: JustifyMethod = "left" if place in named else "right"
            room = needs[place] - _BORDER
            table.add_column(Text(head[place]), justify=justify, min_width=room, max_width=room)
        for row in rows:
            table.add_row(*(Text(row[place]) for place in (*named, *part)))
        tables.append(table)
    return tables


def _width(texts: Iterable[str]) -> int:
    """Of a column whose cells hold texts, with its border."""
    return max(cell_len(text) for text in texts) + _BORDER
