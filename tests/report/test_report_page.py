"""The page: what it says, what it does not let in, and how it looks in a real browser."""

import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from reported import BOOSTING, NASTY, STUDY, TUNING, facts_of, metrics_of, products, requests, sample_of

from uepp.config import Config, DataConfig
from uepp.report import page
from uepp.report.drawing import Drawn, canvas

VOID = {"meta", "link", "br", "img", "input", "hr"}
Render = Callable[..., tuple[str, list[Drawn]]]


class Elements(HTMLParser):
    """All elements with their attributes and the text within, in order; what is open must be closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None], list[str]]] = []
        self._open: list[tuple[str, dict[str, str | None], list[str]]] = []
        self.feed(html)
        self.close()
        assert not self._open, [name for name, *_ in self._open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = (tag, dict(attrs), list[str]())
        self.found.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs), []))

    def handle_endtag(self, tag: str) -> None:
        assert self._open[-1][0] == tag, (tag, [name for name, *_ in self._open])
        self._open.pop()

    def handle_data(self, data: str) -> None:
        for _, _, texts in self._open:
            texts.append(data)

    def named(self, *tags: str) -> list[tuple[dict[str, str | None], str]]:
        return [(attributes, "".join(texts)) for tag, attributes, texts in self.found if tag in tags]


@pytest.fixture(scope="module")
def render(tmp_path_factory: pytest.TempPathFactory) -> Render:
    directory = tmp_path_factory.mktemp("report")
    metrics = metrics_of(requests())

    def rendered(*, has_places: bool = True, **changes: Any) -> tuple[str, list[Drawn]]:
        sample = sample_of(requests(has_places=has_places), products(has_places=has_places))
        return page.render(facts_of(directory, metrics, **changes), sample)

    return rendered


@pytest.fixture(scope="module")
def full(render: Render) -> tuple[str, list[Drawn]]:
    return render(studies={"encoders <i>": STUDY}, boosting=BOOSTING, tuning=TUNING)


@pytest.fixture(scope="module")
def elements(full: tuple[str, list[Drawn]]) -> Elements:
    return Elements(full[0])


def test_the_answer_comes_first(elements: Elements) -> None:
    ((_, heading),) = elements.named("h1")
    ours, theirs = (
        f"{100 * metrics_of(requests())['systems'][name]['all']['recall@5']:.1f}%" for name in ("uepp", "bm25")
    )
    assert heading == f"Among its first 5 results, this run has {ours} of what people bought; tuned BM25 has {theirs}."
    levels = [int(tag[1]) for tag, *_ in elements.found if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels)), "no level is left out"


def test_every_part_is_there(elements: Elements) -> None:
    anchors = {str(attributes["href"]) for attributes, _ in elements.named("a")}
    ids = {f"#{attributes['id']}" for attributes, _ in elements.named("h2")}
    assert anchors == ids
    assert {"#whom", "#sure", "#systems", "#examples", "#distance", "#ablations", "#boosting", "#index"} <= ids
    text = "".join(text for _, text in elements.named("main"))
    for said in (
        "not recorded",
        "42 s",
        "2.3 GB",
        "0.3 and 0.5 ms",
        "4.32 and 9.88 ms",
        "1 h 1 min",
        "1,234",
        "data.report_days",
        "98% within",
        "2,600 miles",
        "Differences seed by seed",
        "−.045 ± .007",
        ".0100",
    ):
        assert said in text, said
    better = [text for attributes, text in elements.named("article")]
    assert len(better) % 2 == 0
    assert better


def test_what_comes_from_data_is_text(full: tuple[str, list[Drawn]], elements: Elements) -> None:
    html = full[0]
    text = "".join(text for _, text in elements.named("main"))
    for said in (NASTY, "<em>lamp</em> & ", "<i>BY</i>", "first <u>search</u>", "A <b>study</b>", "encoders <i>"):
        assert said in text, said
    assert "<b>not</b> by count" in text
    assert Counter(tag for tag, *_ in elements.found)["script"] == 1, "the page's own"
    assert not {"em", "u", "b"} & {tag for tag, *_ in elements.found}
    assert "{{ 7 * 7 }}" in html


def test_nothing_comes_from_outside(full: tuple[str, list[Drawn]], elements: Elements) -> None:
    for tag, attributes, _ in elements.found:
        for name in ("href", "src", "xlink:href", "action", "data", "srcset"):
            value = attributes.get(name)
            assert value is None or value.startswith(("#", "data:")), (tag, name, value)
    html = full[0]
    assert set(re.findall(r"https?://[^\s\"'<)]+", html)) <= {
        "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
    }  # fmt: skip
    assert all(address.startswith("#") for address in re.findall(r"url\(([^)]*)\)", html))
    assert "@import" not in html
    policy = next(attributes for attributes, _ in elements.named("meta") if attributes.get("http-equiv"))
    assert str(policy["content"]).startswith("default-src 'none'")


def test_figures_and_tables_have_names(elements: Elements) -> None:
    ids = [str(attributes["id"]) for _, attributes, _ in elements.found if "id" in attributes]
    assert Counter(ids).most_common(1)[0][1] == 1, "ids are of one element each, over all figures"
    images = [attributes for attributes, _ in elements.named("svg")]
    assert len(images) == 8
    titles = {attributes["id"]: text for attributes, text in elements.named("title") if "id" in attributes}
    for image in images:
        assert image["role"] == "img"
        assert titles[image["aria-labelledby"]]
    assert all(text.strip() for _, text in elements.named("figcaption"))
    for attributes, _ in elements.named("table"):
        assert attributes["aria-label"]
    assert {attributes.get("scope") for attributes, _ in elements.named("th")} == {"col", "row"}
    assert elements.named("html")[0][0]["lang"] == "en"


def test_references_within_figures_are_whole(full: tuple[str, list[Drawn]]) -> None:
    html = full[0]
    ids = set(re.findall(r'\bid="([^"]+)"', html))
    used = set(re.findall(r'(?:xlink:)?href="#([^"]+)"', html)) | set(re.findall(r"url\(#([^)]+)\)", html))
    assert used <= ids
    assert any("-" in one for one in used)


def test_figures_take_the_pages_colours_and_letters(full: tuple[str, list[Drawn]]) -> None:
    for drawn in full[1]:
        assert "var(--ours)" in drawn.inline
        assert "font-family" not in drawn.inline
        assert "DejaVu" not in drawn.inline
        left = set(re.findall(r"#[0-9a-fA-F]{6}\b", drawn.inline))
        assert left <= {"#000000"}, (drawn.name, left)
        assert drawn.svg.startswith("<?xml")
        assert "var(" not in drawn.svg, "as a file it has colours of its own"
        assert drawn.png.startswith(b"\x89PNG")


def test_the_same_numbers_give_the_same_figures(render: Render) -> None:
    one, other = (render()[1] for _ in range(2))
    assert [drawn.inline for drawn in one] == [drawn.inline for drawn in other]
    assert len(one) == 5


def test_any_letters_may_stand_in_a_figure(tmp_path: Path) -> None:
    with canvas("odd", NASTY, 100) as one:
        one.figure.add_subplot().set_xlabel(NASTY)
    drawn = one.done()
    assert "&lt;script&gt;" in drawn.inline
    assert "$x_1$" in drawn.inline, "no formula"
    Elements(drawn.inline)
    drawn.write(tmp_path / "new")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["odd.png", "odd.svg"]


def test_without_places_the_distance_is_skipped_with_a_sentence(render: Render) -> None:
    html, drawn = render(has_places=False)
    assert "Skipped: no request and product of this data set both have a latitude and a longitude." in html
    assert not {"distance", "map"} & {one.name for one in drawn}
    assert "No study was given" in html
    assert "uepp tune measures it" in html


def test_a_boosting_that_brought_nothing_is_told(render: Render) -> None:
    tried = {key: value for key, value in BOOSTING.items() if key != "trade_off"}
    html, _ = render(boosting=tried | {"is_boosted": False, "report": None})
    assert "Was tried, and brought nothing on the held-out requests: the run is not boosted." in html
    assert "with and without boosting" not in html


def test_a_boosting_of_an_earlier_version_has_no_p_value(render: Render) -> None:
    before = {part: dict(scores) for part, scores in BOOSTING["report"].items()}
    for scores in before.values():
        scores["recall@5"] = {key: value for key, value in scores["recall@5"].items() if key != "p_value"}
    html, _ = render(boosting=BOOSTING | {"report": before})
    assert "with and without boosting" in html


def test_many_days_are_folded_below_their_figure(tmp_path: Path) -> None:
    metrics = metrics_of(requests())
    first = next(iter(metrics["days"].values()))
    metrics["days"] = {f"2024-05-{day:02}": first for day in range(1, 23)}
    html, _ = page.render(facts_of(tmp_path, metrics), sample_of(requests(), products()))
    elements = Elements(html)
    assert "the means of every seven days" in "".join(text for _, text in elements.named("figcaption"))
    (folded,) = (text for _, text in elements.named("details") if text.startswith("Figures of each day"))
    assert "2024-05-22" in folded


def test_a_studys_figure_is_of_one_k(render: Render) -> None:
    """Its title took the run's K, its axis the study's."""
    cells = {"seed": 1, "seconds": {}, "report": {"all": {"recall@1000": 0.5}}}
    study = {"variants": {"a": [cells]}, "opponents": {"bm25": {"report": {"all": {"recall@1000": 0.5}}}}}
    html, drawn = render(studies={"s": study})
    (figure,) = (one for one in drawn if one.name == "study-1")
    assert figure.title == "s: recall@1,000 of each variant"
    assert "recall@1,000, report days" in figure.svg
    assert "Squares: other systems" in html


def test_a_studys_rows_without_towers_do_not_squeeze_the_others(render: Render) -> None:
    """BM25 with generated queries was a row like the others, and all differences between towers were one dot wide."""
    cells = {
        name: [{"seed": 1, "seconds": {}, "report": {"all": {"recall@10": value}}}]
        for name, value in {"a": 0.8, "b": 0.82, "BM25 with queries": 0.3}.items()
    }
    study = {"variants": cells, "lexical": ["BM25 with queries"], "opponents": {}}
    html, drawn = render(studies={"s": study})
    (figure,) = (one for one in drawn if one.name == "study-1")
    assert "BM25 with queries" not in figure.svg
    assert "BM25 with queries" in html, "the table has it"


def test_the_one_group_that_is_behind_stands_at_the_top(tmp_path: Path) -> None:
    """The last sentence was left out there: with one group that is the one about it."""
    metrics = metrics_of(requests())
    compared = metrics["comparisons"]["bm25"]
    compared["new_products"] = {"recall@5": {"difference": -0.2, "interval": [-0.3, -0.1], "p_value": 0.001}}
    metrics["comparisons"]["bm25"] = {name: compared[name] for name in ("all", "new_products")}
    html, _ = page.render(facts_of(tmp_path, metrics), sample_of(requests(), products()))
    top = html[html.index("<h1>") : html.index("<h2")]
    assert "Behind for new products" in top


def test_human_grades_have_a_table_where_there_are_any(tmp_path: Path) -> None:
    metrics = metrics_of(requests())
    facts, drawn = facts_of(tmp_path, metrics), sample_of(requests(), products())
    assert "human grades" not in page.render(facts, drawn)[0]
    for place, one in enumerate(metrics["systems"].values()):
        one["judged"] = {"ndcg@5": 0.25 + place / 8, "ndcg@10": None, "num_queries": 12, "num_requests": 34}
    said = page.render(facts, drawn)[0]
    assert "NDCG by human grades: 34 requests with 12 judged queries" in said
    table = said[said.index('aria-label="NDCG by human grades') :]
    table = table[: table.index("</table>")]
    assert [f">{0.25 + place / 8:.3f}<".replace("0.", ".") in table for place in range(2)] == [True, True]
    for one in metrics["systems"].values():
        one["judged"]["num_requests"] = 0
    assert "human grades" not in page.render(facts, drawn)[0]


def test_what_counts_is_called_by_its_name(render: Render) -> None:
    html, _ = render(config=Config(data=DataConfig(relevant_types=("click", "cart"))))
    said = "".join(text for _, text in Elements(html).named("main"))
    assert "of what people clicked or put in the cart; tuned" in said
    assert "bought;" not in said


def test_a_run_behind_bm25_says_so(tmp_path: Path) -> None:
    metrics = metrics_of(requests())
    systems, compared = metrics["systems"], metrics["comparisons"]["bm25"]
    systems["uepp"], systems["bm25"] = systems["bm25"], systems["uepp"]
    for of_slice in compared.values():
        for one in of_slice.values():
            if one["difference"] is not None:
                one["difference"] *= -1
                one["interval"] = [end and -end for end in reversed(one["interval"])]  # none with few queries
    html, _ = page.render(facts_of(tmp_path, metrics), sample_of(requests(), products()))
    said = "".join(text for _, text in Elements(html).named("main"))
    assert re.search(r"That is −\d+\.\d points of Recall@5", said)
    assert "Behind for " in said


# In a browser.


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[1] / "serving"))
        from browser import NAMES, Browser, find_browser
    program = find_browser()
    if program is None:
        pytest.skip(f"THE REPORT IS NOT LOOKED AT: no browser here, looked for {', '.join(NAMES)}")
    with Browser(program, tmp_path_factory.mktemp("profile")) as one:
        yield one


@pytest.fixture(scope="module")
def address(full: tuple[str, list[Drawn]], tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(full[0], encoding="utf-8")
    return path.as_uri()


def opened(browser: Any, address: str, width: int, *, dark: bool = False) -> None:
    browser.screen(width, 900, mobile=width < 600, dark=dark)
    browser.problems.clear()
    browser.requests.clear()
    browser.command("Page.navigate", url=address)
    browser.wait_for("document.readyState === 'complete' && location.protocol === 'file:'")


@pytest.mark.parametrize("width", [320, 390, 768, 1_280])
def test_nothing_hangs_over_the_edge(browser: Any, address: str, width: int) -> None:
    opened(browser, address, width)
    assert browser.run("document.documentElement.scrollWidth") <= width
    over = browser.run("""[...document.querySelectorAll("main *")].filter((one) =>
        !one.closest(".wide") && !one.closest("svg") && one.getBoundingClientRect().right > innerWidth + 1
    ).map((one) => one.outerHTML.slice(0, 80))""")
    assert over == []
    sizes = browser.run(
        """[...document.querySelectorAll("figure svg")].map((one) => one.getBoundingClientRect().width)"""
    )
    assert len(sizes) == 8
    assert min(sizes) > 0.8 * min(width - 40, 500), "figures fill a phone"
    assert browser.problems == []
    assert [url for url in browser.requests if not url.startswith(("file:", "data:"))] == []
    assert len(browser.requests) >= 1


def test_letters_of_figures_are_inside_them(browser: Any, address: str) -> None:
    opened(browser, address, 1_280)
    assert browser.run("document.querySelectorAll('figure svg text').length") > 50
    outside = browser.run("""[...document.querySelectorAll("figure svg")].flatMap((svg) => {
        const edge = svg.getBoundingClientRect();
        return [...svg.querySelectorAll("text")].filter((text) => {
            const box = text.getBoundingClientRect();
            return box.left < edge.left - 6 || box.right > edge.right + 6;
        }).map((text) => text.textContent);
    })""")
    assert outside == []


def test_light_and_dark_have_their_own_colours(browser: Any, address: str) -> None:
    seen = []
    for dark in (False, True):
        opened(browser, address, 1_280, dark=dark)
        seen.append(
            browser.run("""[
                getComputedStyle(document.documentElement).backgroundColor, getComputedStyle(document.body).color,
                ...[...document.querySelectorAll("#groups-axes_1 [style*='--ours']")].slice(0, 1).map((one) =>
                    getComputedStyle(one).fill + getComputedStyle(one).stroke),
                getComputedStyle(document.querySelector("figure text")).fill,
            ]""")
        )
    light, dark_ones = seen
    assert len(light) == 4
    assert all(one != other for one, other in zip(light, dark_ones, strict=True)), seen


def test_the_table_of_systems_is_sorted_by_a_click(browser: Any, address: str) -> None:
    opened(browser, address, 1_280)
    column = """[...document.querySelectorAll("table.sortable")][0]"""
    values = f"""[...{column}.tBodies[0].rows].map((row) => Number(row.cells[1].dataset.value))"""
    press = f"""{column}.tHead.rows[0].cells[1].querySelector("button").click()"""
    before = browser.run(values)
    assert len(set(before)) == 3
    browser.run(press)
    assert browser.run(values) == sorted(before, reverse=True)
    browser.run(press)
    assert browser.run(values) == sorted(before)
    assert browser.run(f"{column}.tHead.rows[0].cells[1].getAttribute('aria-sort')") == "ascending"
    assert browser.problems == []


def test_on_paper_it_is_light_and_nothing_is_folded(browser: Any, address: str) -> None:
    opened(browser, address, 1_280, dark=True)
    folded = "document.querySelectorAll('details:not([open])').length"
    assert browser.run(folded) > 0
    browser.run("dispatchEvent(new Event('beforeprint'))")
    assert browser.run(folded) == 0
    browser.command("Emulation.setEmulatedMedia", media="print")
    assert browser.run("getComputedStyle(document.documentElement).backgroundColor") == "rgb(255, 255, 255)"
    browser.command("Emulation.setEmulatedMedia", media="")
    browser.run("dispatchEvent(new Event('afterprint'))")
    assert browser.run(folded) > 0
