"""How figures of the report look, and how a drawn one becomes part of a page that may be light or dark."""

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup, escape

from uepp.artifacts import atomic_file

# Okabe and Ito's colours, which differ for those who do not see red or green. In the page each is a variable that has
# another value in the dark (style.css).
OURS, THEIRS, THIRD, FOURTH = "#0072b2", "#d55e00", "#009e73", "#cc79a7"
INK, SOFT, LINE = "#1f1e1b", "#6a675f", "#dcd8ce"
_VARIABLES = {
    OURS: "--ours", THEIRS: "--theirs", THIRD: "--third", FOURTH: "--fourth", INK: "--ink", SOFT: "--soft",
    LINE: "--line",
}  # fmt: skip
WIDTH = 390
"""Units of a figure's width: about the pixels of a phone, so that letters keep their size there."""
_SETTINGS: Any = {
    "svg.hashsalt": "uepp",
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 10.5,
    "axes.labelsize": 10.5,
    "axes.titlesize": 11,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10.5,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": SOFT,
    "axes.titlecolor": INK,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "ytick.labelcolor": INK,
    "text.color": INK,
    "grid.color": LINE,
    "grid.linewidth": 0.7,
    "axes.grid": True,
    "axes.grid.axis": "x",
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "ytick.major.size": 0,
    "xtick.major.size": 3,
    "legend.frameon": False,
    "legend.fontsize": 10.5,
    "lines.linewidth": 1.8,
}


class Drawn(NamedTuple):
    """A figure in its three forms.

    Attributes:
        name: of its files.
        title: what it shows, also for those who do not see it.
        inline: SVG for the page, its colours and letters those of the page.
        svg: as a file.
        png: as a file.
    """

    name: str
    title: str
    inline: Markup
    svg: str
    png: bytes

    def write(self, directory: Path) -> None:
        """Write `NAME.svg` and `NAME.png`."""
        with atomic_file(directory / f"{self.name}.svg") as path:
            path.write_text(self.svg, encoding="utf-8")
        with atomic_file(directory / f"{self.name}.png") as path:
            path.write_bytes(self.png)


class Canvas:
    """A figure that is being drawn.

    Attributes:
        figure: of matplotlib.
        drawn: what became of it, once the block of `canvas` has ended.
    """

    def __init__(self, figure: Any) -> None:
        self.figure = figure
        self.drawn: Drawn | None = None

    def done(self) -> Drawn:
        """The drawn figure."""
        assert self.drawn is not None
        return self.drawn


@contextmanager
def canvas(name: str, title: str, height: float) -> Iterator[Canvas]:
    """A figure to draw on; when the block ends it is rendered.

    Args:
        name: of its files, and a prefix of its ids in the page.
        title: what it shows.
        height: units.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_SETTINGS), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # names come from data, in any script
        figure = Figure(figsize=(WIDTH / 72, height / 72), layout="constrained")
        FigureCanvasAgg(figure)
        one = Canvas(figure)
        yield one
        as_text, as_pixels = io.StringIO(), io.BytesIO()
        figure.savefig(as_text, format="svg", transparent=True, metadata={"Date": None, "Title": title})
        figure.savefig(as_pixels, format="png", dpi=200, facecolor="white")
    svg = as_text.getvalue()
    one.drawn = Drawn(name, title, inline(svg, name, title), svg, as_pixels.getvalue())


def inline(svg: str, name: str, title: str) -> Markup:
    """An SVG file of matplotlib as an element of a page.

    Its ids get a prefix, so that figures do not share them; sizes give way to the page's; colours become variables;
    letters are the page's; and it is an image with a name.
    """
    body = re.sub(r"<metadata>.*?</metadata>|<title>.*?</title>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    head, _, rest = body.partition(">")
    view = re.search(r'viewBox="[^"]*"', head)
    assert view is not None, "matplotlib writes a viewBox"
    rest = re.sub(r'\bid="', f'id="{name}-', rest)
    rest = re.sub(r'(xlink:href|href)="#', f'href="#{name}-', rest)
    rest = re.sub(r"url\(#", f"url(#{name}-", rest)
    rest = re.sub(r"\bfont: ((?:\w+ )*)([\d.]+px) [^;\"]*", r"font-size: \2", rest)
    rest = re.sub(r"font-family: [^;\"]*;?", "", rest)
    for color, variable in _VARIABLES.items():
        rest = re.sub(color, f"var({variable})", rest, flags=re.IGNORECASE)
    opening = f'<svg {view.group()} role="img" aria-labelledby="{name}-title" xmlns="http://www.w3.org/2000/svg">'
    return Markup(f'{opening}<title id="{name}-title">{escape(title)}</title>{rest}')
