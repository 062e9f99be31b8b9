"""The page in a real browser: three columns, what moved between them, keys, a phone, and a run that cannot."""

import asyncio
import json
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
def served(
    run_dir: Path, token: str | None = None, may_load: threading.Event | None = None, **settings: Any
) -> Iterator[str]:
    """The address of a server in a thread of its own, which loads the export before it answers, or when it may."""
    listener = socket.create_server(("127.0.0.1", 0))
    service = Service(run_dir, ServingConfig(max_batch=4, **settings), Metrics())

    async def load() -> None:
        assert may_load is not None
        await asyncio.to_thread(may_load.wait, 60)
        await service.start()

    app = create_app(service, token=token, run=None if may_load is None else load)
    config = uvicorn.Config(app, log_level="warning", lifespan="on")
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
    change(browser, "person", "anna")
    browser.settled()
    assert address(browser) == {"q": ["somewhere"], "person": ["anna"], "country": ["赤い"], "region": ["CA"],
                                "language": ["en"]}  # fmt: skip
    assert chips(browser, "searches") == ["赤い", "east"]
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
    browser.wait_for("location.search.includes('person=anna')")


def change(browser: Browser, field: str, value: str) -> None:
    """Give a field a value and leave it."""
    browser.run(f"""(() => {{
        const field = document.getElementById({field!r});
        field.value = {json.dumps(value)};
        field.dispatchEvent(new Event("change"));
    }})()""")


def submit(browser: Browser, query: str) -> None:
    """Search, without waiting for what is found."""
    browser.run(f"document.querySelector('#query').value = {query!r}")
    browser.run("document.querySelector('#ask').requestSubmit()")


def chips(browser: Browser, part: str) -> list[str]:
    return browser.run(f"[...document.querySelectorAll('#{part} span')].map((one) => one.textContent)")


@contextmanager
def held_back(browser: Browser, part: str) -> Iterator[None]:
    """Answers to addresses with this text in them reach the page when the block ends, those to others as ever."""
    browser.run(f"""(() => {{
        const real = window.fetch;
        let release;
        const released = new Promise((done) => {{ release = done; }});
        window.fetch = async (path, options) => {{
            const response = await real(path, options);
            if (path.includes({part!r})) await released;
            return response;
        }};
        window.release = () => {{ window.fetch = real; release(); }};
    }})()""")
    yield
    browser.run("new Promise((done) => { release(); setTimeout(done, 100); })")
    browser.settled()


def test_whoever_is_chosen_is_where_they_are_known_to_be(browser: Browser, rose: str) -> None:
    browser.open(f"{rose}/?q=somewhere")
    change(browser, "person", "anna")
    browser.wait_for("document.querySelector('#who-summary').textContent.startsWith('anna · 赤い CA · 2 searches')")
    change(browser, "person", "bert")
    browser.wait_for("document.querySelector('#who-summary').textContent.startsWith('bert')")
    browser.settled()
    assert text(browser, "#who-summary") == "bert · 1 searches · 1 clicks", "nobody knows where bert is"
    assert address(browser) == {"q": ["somewhere"], "person": ["bert"]}


def test_an_answer_that_comes_too_late_changes_nothing(browser: Browser, rose: str) -> None:
    browser.open(f"{rose}/?q=east")
    with held_back(browser, "user=anna"):
        change(browser, "person", "anna")
        change(browser, "person", "bert")
        browser.settled()
    assert address(browser) == {"q": ["east"], "person": ["bert"]}
    assert chips(browser, "searches") == ["east"]
    submit(browser, "somewhere")
    browser.settled()
    change(browser, "person", "")
    browser.settled()
    with held_back(browser, "/person"):
        browser.run("history.back()")
        browser.wait_for("location.search.includes('bert')")
        browser.run("history.forward()")
        browser.wait_for("!location.search.includes('bert')")
    assert address(browser) == {"q": ["somewhere"]}
    assert browser.run("document.querySelector('#person').value") == ""
    assert text(browser, "#who-summary") == "nobody in particular"
    with held_back(browser, "/person"):
        change(browser, "person", "anna")
        submit(browser, "east")
    assert address(browser)["q"] == ["east"]
    assert address(browser)["person"] == ["anna"], "both were wanted"
    assert chips(browser, "searches") == ["赤い", "east"]


def test_a_place_that_was_cleared_stays_so_in_the_address(browser: Browser, rose: str) -> None:
    browser.open(f"{rose}/?q=somewhere&person=anna")
    placed = columns(browser)
    change(browser, "place", "")
    browser.settled()
    without = columns(browser)
    assert placed["place"] != []
    assert without["place"] == []
    assert "country" not in address(browser)
    assert chips(browser, "searches") == ["赤い", "east"]
    browser.open(browser.run("location.href"))
    assert columns(browser) == without
    assert chips(browser, "searches") == ["赤い", "east"]


def test_of_an_address_with_somebody_unknown_the_rest_is_shown(browser: Browser, rose: str) -> None:
    browser.open(f"{rose}/?q=east&country=US&person=zoe")
    assert text(browser, "#problem") == "user zoe: no events of this user before the end of training"
    assert browser.run("document.querySelector('#query').value") == "east"
    assert [row["product"] for row in columns(browser)["alone"]] == ranked(1, 0)[:SHOWN]
    assert len(columns(browser)["place"]) == SHOWN
    assert text(browser, "#who-summary") == "US"
    browser.problems.clear()  # a 422 is said on the console too


def test_what_is_typed_is_taken_when_it_is_whole(browser: Browser, rose: str) -> None:
    browser.open(f"{rose}/?q=east")
    browser.run("document.querySelector('#searches-input').focus()")
    browser.type("lam")
    browser.wait_for("document.querySelector('#searches-list option[value=lamp]')")
    browser.type("p")  # now it is a suggestion
    browser.type(" shade")
    browser.press("Enter")
    browser.settled()
    assert chips(browser, "searches") == ["lamp shade"]
    browser.type("lam")
    browser.wait_for("document.querySelector('#searches-list option[value=lamp]')")
    browser.run("""(() => { // as when it is chosen from the list
        const input = document.querySelector("#searches-input");
        input.value = "lamp";
        input.dispatchEvent(new Event("input"));
    })()""")
    browser.settled()
    assert chips(browser, "searches") == ["lamp", "lamp shade"]
    browser.run("document.querySelector('#place').focus()")
    browser.type("赤い CA")
    browser.wait_for("document.querySelector('#place-list option')")
    browser.press("Enter")
    browser.settled()
    assert address(browser)["region"] == ["CA"]


def test_searches_that_were_given_up_leave_nothing_behind(browser: Browser, rose: str) -> None:
    busy = "document.querySelector('#columns').hasAttribute('aria-busy')"
    browser.open(rose)
    with held_back(browser, "/search"):
        submit(browser, "east")
        assert browser.run(busy)
        submit(browser, "")
        assert browser.settled() == "idle"
        assert not browser.run(busy)
    assert "Much asked" in text(browser, "#columns")
    with held_back(browser, "/suggest"):
        submit(browser, "")
        submit(browser, "east")
        browser.settled()
    assert len(columns(browser)["alone"]) == SHOWN
    assert browser.run("document.querySelector('#tabs').hidden") is False
    submit(browser, "?!")
    assert browser.settled() == "problem"
    assert browser.run("document.querySelector('#tabs').hidden") is True, "they lead to columns that are gone"
    browser.problems.clear()  # a 422 is said on the console too


def test_it_recovers_when_the_server_has_loaded(browser: Browser, run_dir: Path) -> None:
    may_load = threading.Event()
    with served(run_dir, may_load=may_load) as address:
        try:
            browser.open(f"{address}/?q=east")
            assert "being loaded" in text(browser, "#problem")
            browser.problems.clear()  # a 503 is said on the console too
        finally:
            may_load.set()
        browser.run("""(async () => { while (!(await fetch("/healthz")).ok || !(await fetch("/about")).ok); })()""")
        browser.problems.clear()
        submit(browser, "somewhere")
        assert browser.settled() == "done"
        assert len(columns(browser)["alone"]) == SHOWN
        assert "24 products" in text(browser, "#about")


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
        browser.wait_for("Math.abs(document.querySelector('#place').getBoundingClientRect().left - 16) < 4")
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
        browser.type("open-sesame\u200b")  # as it may be copied; no header can hold it
        browser.press("Enter")
        assert browser.run("document.querySelector('#token').matches(':invalid')")
        assert browser.run("sessionStorage.getItem('token')") is None
        browser.run("document.querySelector('#token').value = ''")
        browser.type("open-sesame")
        browser.press("Enter")
        browser.wait_for("document.documentElement.dataset.state === 'done'")
        assert len(columns(browser)["alone"]) == SHOWN


def test_it_is_unlocked_again_when_the_token_has_changed(browser: Browser, run_dir: Path) -> None:
    with served(run_dir, token="open-sesame") as address:
        browser.open(f"{address}/?q=east")
        for _ in range(2):
            browser.type("open-sesame")
            browser.press("Enter")
            browser.wait_for("document.documentElement.dataset.state === 'done'")
            people = browser.run("[...document.querySelector('#person').options].map((option) => option.value)")
            assert people == ["", "anna", "bert"]
            browser.run("sessionStorage.setItem('token', 'the-old-one')")
            submit(browser, "somewhere")
            assert browser.settled() == "problem"
        browser.problems.clear()  # a 401 is said on the console too


def test_a_query_without_a_word_is_explained(browser: Browser, rose: str) -> None:
    browser.open(f"{rose}/?q=%3F%21")
    assert browser.settled() == "problem"
    assert text(browser, "#problem") == "query '?!': no word in it; give letters or digits"
    browser.problems.clear()  # a 422 is said on the console too
