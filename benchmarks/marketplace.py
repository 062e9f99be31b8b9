"""What is the generated marketplace like? Its speed, its marginals, and what simple systems reach on it.

    python benchmarks/marketplace.py [--products 20000 --events 1000000 --seed 1] [--directory DIR] [--json]

Without --directory a marketplace is generated in a temporary place and its time is printed. Unit of evaluation: a
request (session_id, query) of the report window with a purchase; targets: what was bought in it; catalogue: as of its
day. The systems here are the simplest that deserve their names; they are not the project's opponents.
"""

import argparse
import json
import re
import resource
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import bm25s
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import scipy.sparse as sp
from rich.console import Console
from rich.table import Table

from uepp.data.marketplace import Truth, generate
from uepp.evaluation.locality import FirstResults, Places, of_pairs, places_of

RECALL_AT = (10, 100, 1000)
EVENT_WEIGHTS = {"click": 1.0, "cart": 3.0, "purchase": 6.0}
HEAD_COUNT, TORSO_COUNT = 30, 3  # searches in the 30 days before T
EXAMPLE_DAYS, SELECTION_DAYS = 30, 2


@dataclass(frozen=True)
class Request:
    """One evaluated request."""

    query: str
    user_id: str | None
    time: datetime
    targets: tuple[int, ...]
    segment: str


class Market:
    """A marketplace in memory, and its evaluated requests."""

    def __init__(self, directory: Path, max_requests: int, seed: int) -> None:
        """Read the tables and draw the requests."""
        self.directory = directory
        self.train_end = datetime.fromisoformat(json.loads((directory / "dataset.json").read_text())["train_end"])
        self.products = pq.read_table(directory / "products.parquet")
        self.product_ids = self.products.column("product_id").to_pylist()
        self.rows = {product_id: row for row, product_id in enumerate(self.product_ids)}
        self.created = self.products.column("created_at").to_numpy()
        self.places = places_of(self.products, self.products.num_rows)
        self.events = pq.read_table(directory / "events.parquet")
        self.requests, self.people = self._requests(max_requests, seed)

    def between(self, start: datetime | None, stop: datetime | None, *types: str) -> pa.Table:
        """Events of some types in [start, stop)."""
        mask = pc.is_in(self.events["type"], pa.array(types))
        if start is not None:
            mask = pc.and_(mask, pc.greater_equal(self.events["timestamp"], pa.scalar(start)))
        if stop is not None:
            mask = pc.and_(mask, pc.less(self.events["timestamp"], pa.scalar(stop)))
        return self.events.filter(mask)

    def training_counts(self) -> dict[str, int]:
        """Searches of each query in the example window."""
        window = self.between(self.train_end - timedelta(days=EXAMPLE_DAYS), self.train_end, "search")
        counts = pc.value_counts(window["query"].combine_chunks())
        return dict(zip(counts.field("values").to_pylist(), counts.field("counts").to_pylist(), strict=True))

    def _requests(self, limit: int, seed: int) -> tuple[list[Request], Places]:
        counts = self.training_counts()
        bought = self.between(self.train_end + timedelta(days=SELECTION_DAYS), None, "purchase")
        found: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
        columns = ["session_id", "query", "user_id", "timestamp", "product_id", "latitude", "longitude", "country"]
        for row in bought.select(columns).to_pylist():
            found[row["session_id"], row["query"]].append(row)
        requests = []
        for (_, query), rows in sorted(found.items()):
            count = counts.get(query, 0)
            segment = "head" if count >= HEAD_COUNT else "torso" if count >= TORSO_COUNT else "tail"
            targets = tuple(sorted({self.rows[row["product_id"]] for row in rows}))
            first = rows[0]
            requests.append((Request(query, first["user_id"], first["timestamp"], targets, segment), first))
        order = np.random.default_rng(seed).permutation(len(requests))[:limit]
        drawn, asked = zip(*(requests[i] for i in sorted(order)), strict=True)
        return list(drawn), places_of(pa.Table.from_pylist(asked), len(asked))

    def evaluate(self, score: Callable[[Request], np.ndarray]) -> dict[str, dict[str, float]]:
        """Mean recall by segment, and where the first 100 are; a product that is not there on the day is not found."""
        recalls: dict[str, list[list[float]]] = defaultdict(list)
        first = FirstResults(self.people, self.places)
        for place, request in enumerate(self.requests):
            scores = score(request).astype(np.float64)
            day = np.datetime64(request.time.replace(tzinfo=None, hour=0, minute=0, second=0, microsecond=0))
            scores = np.where((self.created <= day) & (scores > 0), scores, -np.inf)
            # Ties are broken by row, that is by age; nothing with score 0 is returned.
            top = np.argsort(-scores, kind="stable")[: max(RECALL_AT)]
            top = top[np.isfinite(scores[top])]
            hits = np.isin(top, request.targets)
            row = [hits[:k].sum() / len(request.targets) for k in RECALL_AT]
            recalls["all"].append(row)
            recalls[request.segment].append(row)
            first.add(np.array([place]), top[np.newaxis])
        found = {
            segment: {
                **{f"recall@{k}": float(np.mean(rows, axis=0)[i]) for i, k in enumerate(RECALL_AT)},
                "num_queries": len(rows),
            }
            for segment, rows in recalls.items()
        }
        return {**found, "first 100": first.figures()}


def oracle(market: Market, personal: bool) -> Callable[[Request], np.ndarray]:
    """The truth itself."""
    truth = Truth.load(market.directory)
    return lambda r: truth.relevance(r.query, market.product_ids, r.user_id if personal else None)


def bm25(market: Market) -> Callable[[Request], np.ndarray]:
    """Plain BM25 over title and tags: lower case, no stemming, k1 1.5, b 0.75."""
    texts = [
        f"{title} {' '.join(tags)}"
        for title, tags in zip(
            market.products.column("title").to_pylist(), market.products.column("tags").to_pylist(), strict=True
        )
    ]
    retriever = bm25s.BM25(k1=1.5, b=0.75)
    retriever.index(bm25s.tokenize(texts, stopwords=None, show_progress=False), show_progress=False)

    def score(request: Request) -> np.ndarray:
        words = bm25s.tokenize([request.query], stopwords=None, return_ids=False, show_progress=False)[0]
        known = [word for word in words if word in retriever.vocab_dict]
        result: np.ndarray = retriever.get_scores(known) if known else np.zeros(len(texts))
        return result

    return score


def popularity(market: Market) -> Callable[[Request], np.ndarray]:
    """Interactions in the example window, whatever the query."""
    counts = np.zeros(len(market.rows))
    for kind, weight in EVENT_WEIGHTS.items():
        window = market.between(market.train_end - timedelta(days=EXAMPLE_DAYS), market.train_end, kind)
        np.add.at(counts, [market.rows[p] for p in window["product_id"].to_pylist()], weight)
    return lambda request: counts


def random_walk(market: Market) -> Callable[[Request], np.ndarray]:
    """Query to product, and on over shared products to other queries' products, on 400 days of interactions."""
    table = market.between(None, market.train_end, *EVENT_WEIGHTS)
    texts = table["query"].combine_chunks().dictionary_encode()
    queries = {text: number for number, text in enumerate(texts.dictionary.to_pylist())}
    weights = np.array([EVENT_WEIGHTS[kind] for kind in table["type"].to_pylist()])
    products = np.array([market.rows[p] for p in table["product_id"].to_pylist()])
    shape = (len(queries), len(market.rows))
    edges = sp.csr_matrix((weights, (texts.indices.to_numpy(), products)), shape=shape)
    forward = sp.diags(1 / np.maximum(edges.sum(axis=1).A1, 1e-9)) @ edges
    backward = sp.diags(1 / np.maximum(edges.sum(axis=0).A1, 1e-9)) @ edges.T
    forward, backward = sp.csr_matrix(forward), sp.csr_matrix(backward)

    def score(request: Request) -> np.ndarray:
        if request.query not in queries:
            return np.zeros(shape[1])
        first = forward[queries[request.query]]
        walked: np.ndarray = (first + 0.5 * (first @ backward) @ forward).toarray()[0]
        return walked

    return score


def common_words(market: Market, bought: pa.Table) -> np.ndarray:
    """Of each purchase, whether a word of the query is in title or tags, and whether one is in attributes: bool [P, 2].

    Lower case, whole words.
    """
    titles, tags = market.products.column("title").to_pylist(), market.products.column("tags").to_pylist()
    attributes = market.products.column("attributes").to_pylist()
    values = [" ".join(word for _, words in pairs or [] for word in words) for pairs in attributes]
    titles = [" ".join((title, *tag)) for title, tag in zip(titles, tags, strict=True)]
    words = [[set(re.findall(r"\w+", text.lower())) for text in texts] for texts in (titles, values)]
    pairs = zip(bought["query"].to_pylist(), bought["product_id"].to_pylist(), strict=True)
    asked = [(set(re.findall(r"\w+", query)), market.rows[product]) for query, product in pairs]
    return np.array([[not field[row].isdisjoint(query) for field in words] for query, row in asked])


def marginals(market: Market) -> dict[str, float]:
    """Zipf, unseen queries, repeats, click-through by position, distances."""
    facts: dict[str, float] = {}
    for kind in ("search", "impression", "click", "cart", "purchase"):
        facts[f"{kind} events"] = market.between(None, None, kind).num_rows
        window = market.between(market.train_end - timedelta(days=EXAMPLE_DAYS), market.train_end, kind)
        facts[f"{kind} events, example window"] = window.num_rows
    counts = np.array(sorted(market.training_counts().values(), reverse=True), np.float64)
    rank = np.arange(1, len(counts) + 1)
    span = (rank >= 3) & (counts >= 5)
    facts["Zipf exponent, example window"] = -float(np.polyfit(np.log(rank[span]), np.log(counts[span]), 1)[0])
    facts["distinct queries, example window"] = len(counts)
    facts["share of searches by the top 100 queries"] = float(counts[:100].sum() / counts.sum())

    seen = set(market.training_counts())
    report = market.train_end + timedelta(days=SELECTION_DAYS)
    searched = market.between(report, None, "search")["query"].to_pylist()
    facts["unseen query share, report searches"] = float(np.mean([query not in seen for query in searched]))
    facts["report requests with a purchase"] = len(market.requests)
    facts["unseen query share, report requests with a purchase"] = float(
        np.mean([request.query not in seen for request in market.requests])
    )
    bought = market.between(None, None, "purchase")
    pairs = [(u, p) for u, p in zip(bought["user_id"].to_pylist(), bought["product_id"].to_pylist(), strict=True) if u]
    by_user = np.unique([u for u, _ in pairs], return_counts=True)[1]
    facts["buying users with several purchases"] = float((by_user > 1).mean())
    facts["purchases that repeat a user's product"] = 1 - len(set(pairs)) / len(pairs)
    is_common = common_words(market, bought)
    facts["purchases that share no word with their query"] = float(np.mean(~is_common[:, 0]))
    facts["purchases with a word of their query in the attributes"] = float(np.mean(is_common[:, 1]))
    facts["… in the attributes alone"] = float(np.mean(is_common[:, 1] & ~is_common[:, 0]))
    facts["anonymous share of searches"] = (
        market.between(None, None, "search")["user_id"].null_count / facts["search events"]
    )

    clicks = market.between(market.train_end - timedelta(days=EXAMPLE_DAYS), None, "click")
    clicked = set(zip(*(clicks[c].to_pylist() for c in ("session_id", "query", "product_id")), strict=True))
    shown = market.between(None, None, "impression")
    position = shown["position"].to_numpy()
    keys = zip(*(shown[c].to_pylist() for c in ("session_id", "query", "product_id")), strict=True)
    was_clicked = np.array([key in clicked for key in keys])
    for place in (0, 1, 2, 4, 9, 19):
        facts[f"click-through at position {place}"] = float(was_clicked[position == place].mean())

    for kind in ("impression", "purchase"):
        table = market.between(market.train_end - timedelta(days=EXAMPLE_DAYS), None, kind)
        product = np.array([market.rows[p] for p in table["product_id"].to_pylist()])
        percentiles = (25, 50, 75, 98)
        found = of_pairs(places_of(table, len(table)), market.places, np.arange(len(table)), product, percentiles)
        for percentile, km in found.percentiles.items():
            facts[f"{kind} distance, percentile {percentile} (km)"] = km
        facts[f"{kind} domestic share"] = found.own_country_share
    return facts


def main() -> None:
    """Generate or read a marketplace and print what it is like."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--products", type=int, default=20_000)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--directory", type=Path, help="an existing marketplace")
    parser.add_argument("--max-requests", type=int, default=3_000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    speed: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as scratch:
        directory = options.directory
        if directory is None:
            directory = Path(scratch) / "marketplace"
            start = time.perf_counter()
            generate(
                directory,
                num_products=options.products,
                num_events=options.events,
                seed=options.seed,
                progress=not options.json,
            )
            speed["generation (s)"] = time.perf_counter() - start
            speed["peak memory (MB)"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        market = Market(directory, options.max_requests, options.seed)
        facts = {**speed, **marginals(market)}
        systems = {
            "oracle, with person": market.evaluate(oracle(market, True)),
            "oracle, query only": market.evaluate(oracle(market, False)),
            "random walk": market.evaluate(random_walk(market)),
            "BM25 plain": market.evaluate(bm25(market)),
            "popularity": market.evaluate(popularity(market)),
        }
    if options.json:
        print(json.dumps({"facts": facts, "systems": systems}, indent=2))
        return
    console = Console()
    table = Table("fact", "value", title="Marginals")
    for name, value in facts.items():
        table.add_row(name, f"{value:,.3f}" if value < 10 else f"{value:,.0f}")
    console.print(table)
    segments = ("all", "head", "torso", "tail")
    table = Table("system", *(f"{segment} @{k}" for segment in segments for k in RECALL_AT), title="Recall")
    for name, result in systems.items():
        cells = [f"{result[s][f'recall@{k}']:.3f}" if s in result else "" for s in segments for k in RECALL_AT]
        table.add_row(name, *cells)
    console.print(table)
    table = Table("system", "distance of the first 100, km: p50", "p98", "of own country")
    for name, result in systems.items():
        where = result["first 100"]
        table.add_row(name, *(f"{where[f'distance_km_p{percentile}']:,.0f}" for percentile in (50, 98)),
                      f"{where['own_country_share']:.3f}")  # fmt: skip
    console.print(table)
    console.print(
        {
            segment: systems["popularity"][segment]["num_queries"]
            for segment in segments
            if segment in systems["popularity"]
        }
    )


if __name__ == "__main__":
    main()
