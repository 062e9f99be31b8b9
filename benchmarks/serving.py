"""What does a served query cost, beside the bare tower and the bare index? And what do cache and batches bring?

    python benchmarks/serving.py RUN [--data DIR] [--requests 1000] [--clients 8] [--rate R] [--law log] [--passes 3]
                                     [--k 10] [--seed 1] [--no-fusion] [--set serving.KEY=VALUE …] [--json]

**What is asked** comes from the log that RUN was trained on: the searches of its report days in their order, with their
people, places and what these had done by then (sent along where they have done anything since training). A click on
another page is a view of that page; a click after another click is a view of the page they went back to. So queries
repeat as they do in the log. `--law drawn` draws the queries instead, independently, by their frequency in the
training window. The exponent of Zipf's law and the share of distinct queries of the report days' searches are printed
beside those of as many independent draws, and must be alike.

**One at a time, in this process:** the tower's signature on inputs that are ready and Faiss' search on a vector that is
ready, against the whole `Searcher` without a cache, and with one that knows the query. They take turns at every query,
each first as often as the others. `least` is the p99 of each query's best pass: without what else the cores did.

**Over HTTP:** `uepp serve RUN` as a process of its own on loopback, once a configuration: without cache and batches,
with batches, and with a cache by features and one by who asks. Each is asked, after a warm-up:
by one client (closed loop), by many (closed loop: throughput), and by questions that arrive by a Poisson process at the
same rate for all (open loop). In a closed loop a slow answer keeps the next question from being asked, so it shows the
server at its own pace and understates what people wait (coordinated omission); in the open loop the time of a question
counts from its arrival. Every part asks the next stretch of the log, so a cache knows what was asked before.
`--rate`: by default half of what many clients got without cache and batches. Clients share the machine with the server:
what they cost is printed, and what they take for `/healthz`, which is nothing but HTTP. What the server spent in each
part of a search (features, cache, queue, tower, index, BM25, fusion, hits) is from the histograms of its `/metrics`.

**The cache in the log's time:** in the load test days pass in seconds, and nothing in a cache grows old. So its hits
are also counted by sending the report days through the cache by the log's own clock, from empty. Nor does anybody
ask for their next page before they have the last, as many clients do: of the loads, one client's hits are nearest.

At a million products (measured on one core of two, others busy; 4 GB of disk, 10 GB of memory; the parts are in
benchmarks/README.md):

    uepp generate market1m --products 1000000 --events 8000000          6 minutes
    uepp train demo --data market1m --run run1m                         42 minutes, then the closing table, which may be
                                                                        stopped: uepp evaluate goes on with it
    python benchmarks/serving.py run1m

Goals: p99 of the whole query below 18 ms (the paper's), and at most twice that of the bare tower and the bare index.
Prints tables, or one JSON object with rows {name, value, goal, ok} and all figures.
"""

import argparse
import gc
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import uepp  # isort: skip  chooses Keras 2 before TensorFlow is imported
import faiss
import numpy as np
import pyarrow.parquet as pq
import tensorflow as tf
from rich.console import Console
from rich.table import Table
from serving_client import Load, Question, Server, closed_loop, open_loop, serving
from serving_parts import BARE, SEARCH, replay, summary, time_parts
from serving_stream import View, distinct_share, drawn, read_events, views_of, with_past, zipf_exponent

from uepp.artifacts import read_json
from uepp.config import Config, ServingConfig, load_config
from uepp.data.mining import mine
from uepp.data.windows import resolve_windows
from uepp.errors import InputError
from uepp.retrieval.boosting import read_boosting
from uepp.retrieval.export import check_is_run
from uepp.serving.search import Searcher

_GOAL_MS, _GOAL_RATIO = 18.0, 2.0
_PLAIN = "no cache, no batches"
_CONFIGURATIONS = {
    _PLAIN: ("--cache", "none", "--max-batch", "1"),
    "no cache": ("--cache", "none"),
    "cache by features": ("--cache", "features"),
    "cache by user": ("--cache", "user"),
}
_NUM_STRETCHES = 4  # warm-up, one client, many clients, open loop
_PARTS = ("features", "cache", "queue", "tower", "index", "lexical", "fusion", "hits", "all")


def main() -> None:
    """Measure and print."""
    arguments = _arguments()
    check_is_run(arguments.run)
    config = load_config(str(arguments.run / "config.yaml"), arguments.set)
    say = Console(stderr=True, highlight=False).print
    say("the log and the export …")
    _limit_threads(config.serving.threads)
    searcher = Searcher(arguments.run, depth=config.serving.depth)
    searcher.warm_up(1)
    with_fusion = searcher.has_lexical and arguments.fusion
    log, views, facts = read_stream(arguments, config, searcher)
    stretches = [part.tolist() for part in np.array_split(np.array(views, object), _NUM_STRETCHES)]
    about = {
        "uepp": uepp.__version__, "tensorflow": tf.__version__, "faiss": faiss.__version__, "cores": os.cpu_count(),
        "products": len(searcher.catalogue), "index": str(searcher.index.spec), "depth": config.serving.depth,
        "requests": len(stretches[1]), "clients": arguments.clients, "law": arguments.law,
    }  # fmt: skip

    say("one query at a time, in this process …")
    boosting = read_boosting(arguments.run / "export")
    times = time_parts(searcher, stretches[1], config.serving.depth, boosting, arguments.passes, with_fusion)
    parts = {
        way: {part: summary(of_way[part], arguments.passes) for part in _PARTS if part in of_way}
        for way, of_way in times.items()
    }
    caches = {strategy: replay(searcher, log, strategy, config.serving) for strategy in ("features", "user")}
    del searcher, times  # the servers need the memory
    gc.collect()

    loads = list(measure(arguments, config.serving, stretches, with_fusion, say))
    rows = judged(facts, parts, loads)
    if arguments.json:
        result = {**about, "rows": rows, "stream": facts, "parts": parts, "caches": caches, "loads": loads}
        print(json.dumps(result, indent=2))
        return
    show(about, rows, facts, parts, caches, loads)


def read_stream(
    arguments: argparse.Namespace, config: Config, searcher: Searcher
) -> tuple[list[View], list[View], dict[str, Any]]:
    """All views of the log's report days, those that are asked, and what the latter are like.

    Raises:
        InputError: the report days have next to none.
    """
    data = arguments.data or Path(read_json(arguments.run / "run.json")["data"])
    windows = resolve_windows(data, config.data)
    mined = mine(data, config.data, arguments.run / "mined")
    views = views_of(read_events(data, windows), arguments.k, config.serving.max_results)
    log = with_past(views, mined, windows.train_end, searcher.reader)
    number, least = _NUM_STRETCHES * arguments.requests, 10 * _NUM_STRETCHES
    if len(log) < least:
        raise InputError(f"{data}: {len(log)} views in the report days; a load test needs at least {least}")
    counts = pq.read_table(arguments.run / "export" / "query_counts.parquet")
    rng = np.random.default_rng(arguments.seed)
    asked = log[:number] if arguments.law == "log" else drawn(log, counts, number, rng)
    texts = [view.query for view in log if view.kind == "search"]
    alike = [view.query for view in drawn(log, counts, len(texts), rng)]
    kinds = {f"{kind}_share": sum(view.kind == kind for view in asked) / len(asked) for kind in ("page", "back")}
    return log, asked, {
        "views": len(log), "searches": len(texts), "asked": len(asked), **kinds,
        "known_user_share": sum(view.body.get("user", "") in searcher.people for view in asked) / len(asked),
        "zipf_exponent": zipf_exponent(texts), "distinct_share": distinct_share(texts),
        "drawn_zipf_exponent": zipf_exponent(alike), "drawn_distinct_share": distinct_share(alike),
    }  # fmt: skip


def measure(
    arguments: argparse.Namespace, settings: ServingConfig, stretches: Sequence[Sequence[View]], fusion: bool, say: Any
) -> Iterator[dict[str, Any]]:
    """Every configuration's loads, as facts."""
    rates: dict[bool, float] = {}
    overrides = [part for override in arguments.set for part in ("--set", override)]
    for name, options in _CONFIGURATIONS.items():
        say(f"{name} …")
        with serving(arguments.run, [*options, *overrides]) as server:
            if name == _PLAIN:
                nothing = [Question("/healthz")] * len(stretches[1])
                for clients in sorted({1, arguments.clients}):
                    yield {"configuration": "/healthz", "fusion": False} | _closed(server, nothing, clients)
            for is_fused in (False, True) if fusion else (False,):
                label = {"configuration": name, "fusion": is_fused}
                warm_up, alone, together, arriving = (
                    [Question("/search", json.dumps(view.body | {"fusion": is_fused}).encode()) for view in stretch]
                    for stretch in stretches
                )
                _closed(server, warm_up, arguments.clients)
                yield label | _closed(server, alone, 1)
                many = _closed(server, together, arguments.clients)
                yield label | many
                rate = rates.setdefault(is_fused, arguments.rate or many["per_second"] / 2)
                rng = np.random.default_rng(arguments.seed)
                load = server.loaded(lambda rng=rng, rate=rate, ask=arriving: open_loop(server.address, ask, rate, rng))
                yield label | {"loop": "open", "clients": None, "rate": rate} | load_facts(load)


def load_facts(load: Load) -> dict[str, Any]:
    """What a load test found, times in milliseconds."""
    answers, number = load.answers(), len(load.replies)
    searched = [answer for answer in answers if "hits" in answer]
    batches = load.server.get("uepp_batch_size_count", 0.0)
    return {
        "per_second": load.per_second,
        "p50_ms": load.milliseconds(50),
        "p99_ms": load.milliseconds(99),
        "server_p99_ms": _percentile([1_000 * answer["seconds"] for answer in searched], 99),
        "late_p99_ms": _percentile([1_000 * reply.late_seconds for reply in load.replies], 99),
        "hit_rate": _mean([answer["cache"]["layer"] is not None for answer in searched]),
        "stale_rate": load.server.get("uepp_cache_stale_hits_total", 0.0) / number if searched else None,
        "batch": load.server["uepp_batch_size_sum"] / batches if batches else None,
        "server_cpu_ms": 1_000 * load.server["process_cpu_seconds_total"] / number,
        "client_cpu_ms": 1_000 * load.client_seconds / number,
        "others": load.others,
        "problems": load.problems(),
        "parts": load.parts(),
    }


def judged(
    facts: dict[str, Any], parts: dict[str, dict[str, dict[str, float]]], loads: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """The figures that have a goal; all of them are better the lower they are."""

    def load(configuration: str, loop: str, clients: int | None) -> dict[str, Any]:
        wanted = {"configuration": configuration, "fusion": False, "loop": loop, "clients": clients}
        return next(one for one in loads if all(one[name] == value for name, value in wanted.items()))

    many = max(one["clients"] or 0 for one in loads)
    bare, whole = parts[BARE]["all"], parts[SEARCH]["all"]
    alone = load("no cache", "closed", 1)["p99_ms"]
    plain, cached = load(_PLAIN, "closed", many), load("cache by features", "closed", many)
    values = [
        ("search in this process, p99 ms", whole["p99"], _GOAL_MS),
        ("search in this process / bare, p99", whole["p99"] / bare["p99"], _GOAL_RATIO),
        ("search in this process / bare, p99 of each query's best", whole["least"] / bare["least"], _GOAL_RATIO),
        ("over HTTP, one client, no cache, p99 ms", alone, _GOAL_MS),
        ("over HTTP, one client, no cache / bare, p99", alone / bare["p99"], _GOAL_RATIO),
        ("seconds an answer, cache by features and batches / without", plain["per_second"] / cached["per_second"], 1.0),
        ("the server's processor time, likewise", cached["server_cpu_ms"] / plain["server_cpu_ms"], 1.0),
        ("questions without an answer", sum(sum(one["problems"].values()) for one in loads), 0),
    ]
    exponents = facts["zipf_exponent"], facts["drawn_zipf_exponent"]
    if None not in exponents:  # a short log does not tell
        values.append(
            ("Zipf exponent of the report days' searches, from drawn ones'", abs(np.subtract(*exponents)), 0.1)
        )
    return [
        {"name": name, "value": float(value), "goal": goal, "ok": bool(value <= goal)} for name, value, goal in values
    ]


def show(
    about: dict[str, Any],
    rows: Sequence[dict[str, Any]],
    facts: dict[str, Any],
    parts: dict[str, dict[str, dict[str, float]]],
    caches: dict[str, dict[str, dict[str, float]]],
    loads: Sequence[dict[str, Any]],
) -> None:
    """Print the tables."""
    console = Console(width=160, highlight=False)
    console.print(", ".join(f"{name} {value}" for name, value in about.items()))
    console.print(", ".join(f"{name} {_shown(value)}" for name, value in facts.items()))

    table = Table(
        "way", "part", "p50 ms", "p99 ms", "p99 ms, least", "/ bare, p99", "/ bare, least", title="one at a time"
    )
    bare = parts[BARE]["all"]
    for way, of_way in parts.items():
        for part, found in of_way.items():
            is_whole = part == "all"
            ratios = [f"{found[name] / bare[name]:.2f}" if is_whole else "" for name in ("p99", "least")]
            figures = [f"{found[name]:.2f}" for name in ("p50", "p99", "least")]
            table.add_row(way, part, *figures, *ratios, end_section=is_whole)
    console.print(table)

    heads = {
        "per_second": "answers/s", "p50_ms": "p50 ms", "p99_ms": "p99 ms", "server_p99_ms": "in server",
        "late_p99_ms": "late", "hit_rate": "hits", "stale_rate": "stale", "batch": "batch",
        "server_cpu_ms": "server CPU", "client_cpu_ms": "client CPU", "others": "others' cores", "problems": "not 200",
    }  # fmt: skip
    table = Table("configuration", "fusion", "asked by", *heads.values(), title="over HTTP")
    last = None
    for load in loads:
        if last is not None and last != load["configuration"]:
            table.add_section()
        last = load["configuration"]
        table.add_row(last, "yes" if load["fusion"] else "", _asker(load), *(_shown(load[name]) for name in heads))
    console.print(table)

    table = Table("configuration", "fusion", "asked by", *_PARTS[:-1], title="in the server by part: p50 / p99, ms")
    for load in loads:
        if load["parts"]:
            found = (load["parts"].get(part) for part in _PARTS[:-1])
            figures = ("" if one is None else f"{one['p50']:.2f} / {one['p99']:.2f}" for one in found)
            table.add_row(load["configuration"], "yes" if load["fusion"] else "", _asker(load), *figures)
    console.print(table)

    table = Table("cache", *(f"{kind}: hits (stale)" for kind in ("search", "page", "back", "all")), title="log's time")
    for strategy, kinds in caches.items():
        found = [kinds.get(kind) for kind in ("search", "page", "back", "all")]
        shares = ("" if one is None else f"{one['hit_rate']:.1%} ({one['stale_rate']:.1%})" for one in found)
        table.add_row(strategy, *shares)
    console.print(table)

    table = Table("figure", "value", "goal", "", title="goals")
    for row in rows:
        table.add_row(row["name"], f"{row['value']:.2f}", f"{row['goal']:g}", "ok" if row["ok"] else "missed")
    console.print(table)


def _closed(server: Server, questions: Sequence[Question], clients: int) -> dict[str, Any]:
    load = server.loaded(lambda: closed_loop(server.address, questions, clients))
    return {"loop": "closed", "clients": clients, "rate": None} | load_facts(load)


def _asker(load: dict[str, Any]) -> str:
    return f"{load['clients']} clients" if load["loop"] == "closed" else f"{load['rate']:.0f} arrivals/s"


def _limit_threads(number: int | None) -> None:
    """As the server does it."""
    if number is not None:
        tf.config.threading.set_intra_op_parallelism_threads(number)
        tf.config.threading.set_inter_op_parallelism_threads(number)
        faiss.omp_set_num_threads(number)


def _percentile(values: Sequence[float], percentile: float) -> float | None:
    return float(np.percentile(values, percentile)) if len(values) else None


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if len(values) else None


def _shown(value: Any) -> str:
    if not isinstance(value, int | float):
        return str(value or "–")
    return str(value) if isinstance(value, int) else f"{value:.2f}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", type=Path, help="its data set, where it is not where it was")
    parser.add_argument("--requests", type=int, default=1_000, help="of each load, and one at a time")
    parser.add_argument("--clients", type=int, default=8, help="at once, in the closed loop of many")
    parser.add_argument("--rate", type=float, help="arrivals a second in the open loop")
    parser.add_argument("--law", choices=("log", "drawn"), default="log", help="where the queries come from")
    parser.add_argument("--passes", type=int, default=3, help="one at a time, over all queries")
    parser.add_argument("--k", type=int, default=10, help="results a page")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-fusion", dest="fusion", action="store_false")
    parser.add_argument("--set", action="append", default=[], metavar="serving.KEY=VALUE")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    for name in ("requests", "clients", "passes", "k"):
        if getattr(arguments, name) < 1:
            parser.error(f"--{name} {getattr(arguments, name)}: must be at least 1")
    if arguments.rate is not None and not arguments.rate > 0:
        parser.error(f"--rate {arguments.rate:g}: must be above 0")
    for override in arguments.set:
        if not override.startswith("serving."):
            parser.error(f"--set {override}: a server has the serving settings only")
    return arguments


if __name__ == "__main__":
    main()
