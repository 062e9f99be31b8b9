"""The page in a real browser: three columns, what moved between them, keys, a phone, and a run that cannot."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import numpy as np
import pytest
import uvicorn
from browser import NAMES, Browser, find_browser
from compass import directions, make_rose, make_run
from ranked import TOP, make_ranked

from uepp.config import ServingConfig
from uepp.serving.app import create_app
from uepp.serving.metrics import Metrics
from uepp.serving.service import Service

SHOWN = 12


@contextmanager
def served(run_dir: Path, token: str | None = None, **settings: Any) -> Iterator[str]:
    """The address of a server in a thread of its own."""
    listener = socket.create_server(("127.0.0.1", 0))
    service = Service(run_dir, ServingConfig(max_batch=4, **settings), Metrics())
    config = uvicorn.Config(create_app(service, token=token), log_level="warning", lifespan="on")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(60)
        listener.close()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = find_browser()
    if program is None:
        pytest.skip(f"THE PAGE IS NOT TESTED: no browser here, looked for {', '.join(NAMES)}; apt-get install chromium")
    with Browser(program, tmp_path_factory.mktemp("profile")) as browser:
        browser.screen(1_300, 1_000)
        yield browser


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_rose(tmp_path_factory.mktemp("page") / "run")


@pytest.fixture(scope="module")
def rose(run_dir: Path, browser: Browser) -> Iterator[str]:
    with served(run_dir) as address:
        yield address


@pytest.fixture(autouse=True)
def _no_problems(browser: Browser) -> Iterator[None]:
    """Whatever is looked at, the page has nothing to complain of, and asks nobody else."""
    browser.problems.clear()
    browser.requests.clear()
    yield
    assert browser.problems == []
    hosts = {urlsplit(url).hostname for url in browser.requests}
    assert hosts <= {"127.0.0.1"}, hosts
    assert hosts, "requests are seen at all"


def columns(browser: Browser) -> dict[str, list[dict[str, str]]]:
    """What each column shows: rows of product, title and movement."""
    return browser.run("""Object.fromEntries([...document.querySelectorAll("#columns .column")].map((column) => [
        column.id,
        [...column.querySelectorAll(".card")].map((card) => ({
            product: card.dataset.product,
            title: card.querySelector("h3").textContent,
            moved: card.querySelector(".moved").textContent,
        })),
    ]))""")


def text(browser: Browser, selector: str) -> str:
    return browser.run(f"document.querySelector({selector!r}).textContent")


def focus(browser: Browser) -> list[str | None]:
    """Product and column of the card that has the focus, else the id of what has it."""
    return browser.run("""(() => {
        const focused = document.activeElement, card = focused.closest(".card");
        return card ? [card.dataset.product, card.closest(".column").id] : [focused.id];
    })()""")


def address(browser: Browser) -> dict[str, list[str]]:
    return parse_qs(urlsplit(browser.run("location.href")).query)


def ranked(*way: float) -> list[str]:
    """The oracle: products by how near their direction is."""
    order = np.argsort(-(directions() @ np.array(way, np.float32)), kind="stable")
    return [f"p{row:03d}" for row in order]


def movements(ranking: list[str], left: list[str]) -> list[str]:
    """The oracle: how the first products of a ranking stood in the one to its left."""
    shown = []
    for rank, product in enumerate(ranking[:SHOWN]):
        change = left.index(product) - rank
        shown.append("" if change == 0 else f"▲{change}" if change > 0 else f"▼{-change}")
    return shown


PLACE = {"latitude": 30.0, "longitude": 7.0}


def test_three_columns_show_personalisation_grow(browser: Browser, rose: str) -> None:
    browser.open(f"{rose}/?{urlencode({'q': 'east', **PLACE, 'search': 'mug', 'bought': 'p001'})}")
    found = columns(browser)
    assert list(found) == ["alone", "place", "history"]
    # the query leads east; the place adds (7, 30); of the history only the tags of p001 lead anywhere, and that is east
    rankings = [ranked(1, 0), ranked(8, 30), ranked(9, 30)]
    assert len({tuple(ranking[:SHOWN]) for ranking in rankings}) == 3
    for shown, ranking in zip(found.values(), rankings, strict=True):
        assert [row["product"] for row in shown] == ranking[:SHOWN]
    alone, place, history = found.values()
    assert {row["moved"] for row in alone} == {""}
    assert [row["moved"] for row in place] == movements(rankings[1], rankings[0])
    assert [row["moved"] for row in history] == movements(rankings[2], rankings[1])
    assert any(row["moved"].startswith("▲") for row in place)
    assert any(row["moved"].startswith("▼") for row in [*place, *history])
    summary = text(browser, "#place .summary")
    assert "up" in summary or "down" in summary


def test_what_was_far_below_is_new(browser: Browser, run_dir: Path) -> None:
    """New is what was not among the products that the column to the left was asked for: here as few as 5."""
    with served(run_dir, max_results=5) as address:
        browser.open(f"{address}/?{urlencode({'q': 'east', **PLACE})}")
        found = columns(browser)
        assert [row["product"] for row in found["place"]] == ranked(8, 30)[:5]
        assert [row["moved"] for row in found["place"]] == ["new"] * 5
        assert text(browser, "#place .summary") == "5 new"
        assert found["history"] == []
        assert "Nothing is known of what they did before." in text(browser, "#history")


def test_more_products_are_shown_when_wanted(browser: Browser, rose: str) -> None:
    browser.open(f"{rose}/?q=east")
    browser.run("document.querySelector('#more').click()")
    assert [row["product"] for row in columns(browser)["alone"]] == ranked(1, 0)
    assert browser.run("document.querySelector('#more').hidden") is True, "these are all"


def test_titles_are_text_whatever_is_in_them(browser: Browser, rose: str) -> None:
    browser.open(f"{rose}/?q=east")
    assert columns(browser)["alone"][0]["title"] == "<i>Chair</i> number 0"
    assert browser.run("document.querySelectorAll('#columns i').length") == 0


def test_a_search_by_keys_alone(browser: Browser, rose: str) -> None:
    browser.open(rose)
    assert browser.settled() == "idle"
    assert "chair lamp" in text(browser, "#columns"), "what is much asked is offered"
    browser.press("/")
    assert focus(browser) == ["query"]
    browser.type("east")
    browser.press("Enter")
    browser.settled()
    assert address(browser) == {"q": ["east"]}
    browser.press("ArrowDown")
    assert focus(browser) == ["p000", "alone"]
    browser.press("ArrowDown")
    assert focus(browser) == ["p001", "alone"]
    browser.press("c")
    browser.settled()
    # p001 is of the shop east
    assert address(browser) == {"q": ["east"], "clicked": ["p001"], "shop": ["east"]}
    assert text(browser, "#clicked span") == "Lamp number 1"
    assert [row["product"] for row in columns(browser)["history"]] == ranked(2, 0)[:SHOWN]
    assert focus(browser) == ["p001", "alone"], "where one was"
    browser.press("ArrowRight")
    assert focus(browser) == ["p001", "history"], "the column of places has nothing to go to"
    browser.press("b")
    browser.settled()
    assert address(browser)["bought"] == ["p001"]
    browser.press("ArrowUp")
    browser.press("ArrowUp")
    assert focus(browser) == ["query"]
    browser.press("Escape")
    assert browser.run("document.querySelector('#query').value") == ""
    browser.press("ArrowDown")
    browser.press("Escape")
    assert focus(browser) in (["query"], [""])


def test_a_person_is_chosen_shown_and_changed(browser: Browser, rose: str) -> None:
    browser.open(f"{rose}/?q=somewhere")
    browser.run("""(() => {
        const select = document.querySelector("#person");
        select.value = "anna";
        select.dispatchEvent(new Event("change"));
    })()""")
    wait_for(browser, "document.querySelector('#searches li')")
    browser.settled()
    assert address(browser) == {"q": ["somewhere"], "person": ["anna"], "country": ["赤い"], "region": ["CA"],
                                "language": ["en"]}  # fmt: skip
    assert browser.run("[...document.querySelectorAll('#searches span')].map((one) => one.textContent)") == [
        "赤い", "east",
    ]  # fmt: skip
    whole = columns(browser)
    assert len(whole["history"]) == SHOWN
    browser.open(browser.run("location.href"))
    assert columns(browser) == whole, "the address is the view"
    browser.run("document.querySelector('#searches button').click()")
    browser.settled()
    changed = address(browser)
    assert "person" not in changed, "whoever is changed is nobody we know"
    assert (changed["search"], changed["clicked"], changed["bought"]) == (["east"], ["p000"], ["p002"])
    browser.open(browser.run("location.href"))
    assert text(browser, "#clicked span") == "<i>Chair</i> number 0", "titles come with the ids"
    browser.run("history.back()")
    wait_for(browser, "location.search.includes('person=anna')")


def wait_for(browser: Browser, condition: str) -> None:
    browser.run(f"new Promise((done) => {{ const look = () => {condition} ? done() : setTimeout(look, 20); look(); }})")


def test_switches_change_the_search(browser: Browser, rose: str) -> None:
    browser.open(f"{rose}/?q=chair+lamp&{urlencode(PLACE)}")
    assert browser.run("document.querySelector('#boosted-label').hidden") is True, "nothing is boosted here"
    before = columns(browser)
    browser.run("document.querySelector('#fusion').click()")
    browser.settled()
    assert address(browser)["fusion"] == ["1"]
    assert columns(browser) != before


def test_quality_counts_or_not(browser: Browser, tmp_path: Path) -> None:
    quality = [0.0] * len(directions())
    quality[7] = 0.5
    with served(make_rose(tmp_path / "run", quality=quality)) as where:
        browser.open(f"{where}/?q=east")
        assert browser.run("document.querySelector('#boosted').checked") is True
        plain = ranked(1, 0)
        boosted = ["p007", *(product for product in plain if product != "p007")]
        assert [row["product"] for row in columns(browser)["alone"]] == boosted[:SHOWN]
        browser.run("document.querySelector('#boosted').click()")
        browser.settled()
        assert address(browser)["boosted"] == ["0"]
        assert [row["product"] for row in columns(browser)["alone"]] == plain[:SHOWN]


def test_a_ranker_orders_the_first_products_when_wanted(browser: Browser, rose: str, tmp_path: Path) -> None:
    browser.open(f"{rose}/?q=east")
    assert browser.run("document.querySelector('#rerank-label').hidden") is True, "there is no ranker"
    with served(make_ranked(tmp_path / "run")) as where:
        browser.open(f"{where}/?q=east&clicked=p007")
        plain = [row["product"] for row in columns(browser)["alone"]]
        assert plain == ranked(1, 0)[:SHOWN]
        browser.run("document.querySelector('#rerank').click()")
        browser.settled()
        assert address(browser)["rerank"] == ["1"]
        found = {name: [row["product"] for row in rows] for name, rows in columns(browser).items()}
        assert set(found["alone"][:TOP]) == set(plain[:TOP]), "the same products in another order"
        assert found["alone"] != plain
        assert found["alone"][TOP:] == plain[TOP:]
        assert found["history"][0] == "p007", "what was clicked comes first"


def test_a_run_that_reads_only_the_query_says_so(browser: Browser, tmp_path: Path) -> None:
    with served(make_run(tmp_path / "run")) as address:
        browser.open(f"{address}/?q=east")
        found = columns(browser)
        assert [row["product"] for row in found["alone"]] == ["001", "03", "2"]
        assert (found["place"], found["history"]) == ([], [])
        assert "reads no places" in text(browser, "#place .why")
        assert "reads no histories" in text(browser, "#history .why")
        assert browser.run("document.querySelector('#who').hidden") is True


def test_on_a_phone_columns_are_side_by_side_and_the_page_is_not_wider_than_it(browser: Browser, rose: str) -> None:
    browser.screen(390, 844, mobile=True)
    try:
        browser.open(f"{rose}/?{urlencode({'q': 'east', **PLACE, 'search': 'mug'})}")
        assert browser.run("document.documentElement.scrollWidth") <= 390
        lefts = browser.run("[...document.querySelectorAll('.column')].map((one) => one.getBoundingClientRect().left)")
        assert lefts == sorted(lefts)
        assert lefts[0] < 40 < 300 < lefts[1] < 390 < lefts[2], "the next one shows that it is there"
        assert browser.run("document.querySelector('#who').open") is False
        browser.run("document.querySelector('#tabs a:nth-child(2)').click()")
        wait_for(browser, "Math.abs(document.querySelector('#place').getBoundingClientRect().left - 16) < 4")
        size = "(() => { const box = document.querySelector('#ask button').getBoundingClientRect();"
        assert browser.run(f"{size} return Math.min(box.width, box.height); }})()") >= 40
    finally:
        browser.screen(1_300, 1_000)


def test_it_is_dark_where_that_is_wished(browser: Browser, rose: str) -> None:
    def paper() -> Any:
        return browser.run("getComputedStyle(document.documentElement).backgroundColor")

    browser.open(rose)
    light = paper()
    browser.screen(1_300, 1_000, dark=True)
    dark = paper()
    browser.screen(1_300, 1_000)
    assert light != dark


def test_a_locked_server_asks_for_its_token(browser: Browser, run_dir: Path) -> None:
    with served(run_dir, token="open-sesame") as address:
        browser.open(f"{address}/?q=east")
        assert browser.settled() == "problem"
        assert browser.run("document.querySelector('#unlock').hidden") is False
        assert focus(browser) == ["token"]
        browser.problems.clear()  # a 401 is said on the console too
        browser.type("open-sesame")
        browser.press("Enter")
        wait_for(browser, "document.documentElement.dataset.state === 'done'")
        assert len(columns(browser)["alone"]) == SHOWN


def test_a_query_without_a_word_is_explained(browser: Browser, rose: str) -> None:
    browser.open(f"{rose}/?q=%3F%21")
    assert browser.settled() == "problem"
    assert text(browser, "#problem") == "query '?!': no word in it; give letters or digits"
    browser.problems.clear()  # a 422 is said on the console too
