"""What could be known of a person's next purchase in a generated marketplace, from each thing that they leave behind?

    python benchmarks/personal_signals.py DIR [--requests 1500] [--seed 1] [--json]

DIR is of `uepp generate`. For purchases of the last five days, the bought product stands against up to 60 others that
serve the query at least half as well in truth. A signal orders them; what is printed is how often the bought product
comes before another one (.5: it tells nothing), for all people and by how many products they touched before. Truth's
own parts (taste, nearness, all of appeal) beside profiles made of what was observed before these days, with the
products' true concepts: no encoder of words could know more of them.
"""

import argparse
import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from uepp.data.marketplace import Truth
from uepp.data.marketplace.geography import CITY_COUNTRY
from uepp.data.marketplace.relevance import Latents, Persons, appeal
from uepp.data.marketplace.world import make_world

_DAYS = 5
_NUM_OTHERS = 60
_LEAST_OTHERS = 10
_RECENT = (8, 20)
_LENGTHS = (0, 5, 30, 100)


def _latents(path: Path, kind: type) -> tuple[list[str], Latents | Persons]:
    """Ids and columns of `truth/products.parquet` or `truth/users.parquet`."""
    table = pq.read_table(path)
    columns = {}
    for name in table.column_names[1:]:
        column = table.column(name).combine_chunks()
        is_wide = pa.types.is_fixed_size_list(column.type)
        columns[name] = column.flatten().to_numpy().reshape(len(column), -1) if is_wide else column.to_numpy()
    return table.column(0).to_pylist(), kind(**columns)


class Signals:
    """Scores of candidates by what is known of a person."""

    def __init__(self, directory: Path) -> None:
        """Read the market, and what everybody touched before the last days."""
        self.truth = Truth.load(directory)
        self.world = make_world(json.loads((directory / "truth" / "world.json").read_text())["seed"])
        self.product_ids, self.products = _latents(directory / "truth" / "products.parquet", Latents)
        self.user_ids, self.persons = _latents(directory / "truth" / "users.parquet", Persons)
        self.row = {product_id: row for row, product_id in enumerate(self.product_ids)}
        self.user = {user_id: row for row, user_id in enumerate(self.user_ids)}
        events = pq.read_table(
            directory / "events.parquet", columns=["timestamp", "user_id", "type", "query", "product_id"]
        )
        start = pc.subtract(pc.max(events["timestamp"]), pa.scalar(timedelta(days=_DAYS)))
        signed_in = events.filter(pc.is_valid(events["user_id"]))
        is_late = pc.greater_equal(signed_in["timestamp"], start)
        asked = pc.fill_null(pc.greater(pc.utf8_length(signed_in["query"]), 0), False)
        bought = pc.and_(pc.equal(signed_in["type"], "purchase"), asked)
        self.purchases = signed_in.filter(pc.and_(is_late, bought)).select(["user_id", "query", "product_id"])
        touched = pc.is_in(signed_in["type"], pa.array(["click", "cart", "purchase"]))
        before = signed_in.filter(pc.and_(pc.invert(is_late), touched)).sort_by("timestamp")
        self.touched: dict[str, list[int]] = {}
        for user_id, product_id in zip(before["user_id"].to_pylist(), before["product_id"].to_pylist(), strict=True):
            self.touched.setdefault(user_id, []).append(self.row[product_id])
        everything = np.array([row for rows in self.touched.values() for row in rows])
        self.share = self._concept_counts(everything) / len(everything)

    def _concept_counts(self, rows: np.ndarray) -> np.ndarray:
        """How many of the products have each concept; none counts in the last place."""
        concepts = self.products.concepts[rows]
        counts: np.ndarray = np.bincount(
            np.where(concepts < 0, self.persons.taste.shape[1] - 1, concepts).ravel(),
            minlength=self.persons.taste.shape[1],
        )
        return counts

    def scores(self, user_id: str, candidates: np.ndarray) -> tuple[int, dict[str, np.ndarray]]:
        """Number of products touched before, and the candidates' scores by each signal."""
        user, latents = self.user[user_id], self.products
        home = self.persons.city[user]
        cities = latents.city[candidates]
        concepts = latents.concepts[candidates]
        rows = np.array(self.touched.get(user_id, []), np.int64)
        scores = {
            "truth: all of appeal": appeal(self.world, latents, self.persons, np.array([user]), candidates[np.newaxis])[
                0
            ],
            "truth: taste": self.persons.taste[user][concepts].sum(axis=1),
            "truth: nearness and country": 1.1 * (CITY_COUNTRY[cities] == CITY_COUNTRY[home])
            - 0.3 * np.log1p(self.world.distance[home, cities] / 50.0),
            "concepts of all touched products": self._by_concepts(rows, concepts),
            **{f"concepts of the latest {n}": self._by_concepts(rows[-n:], concepts) for n in _RECENT},
            "a shop touched before": np.isin(latents.shop[candidates], latents.shop[rows]).astype(float),
            "a shop of the latest 8": np.isin(latents.shop[candidates], latents.shop[rows[-8:]]).astype(float),
        }
        return len(rows), scores

    def _by_concepts(self, rows: np.ndarray, concepts: np.ndarray) -> np.ndarray:
        """Sum over a candidate's concepts of how much more often than others the person touched each."""
        if not len(rows):
            return np.zeros(len(concepts))
        more = (self._concept_counts(rows) / len(rows) - self.share) / np.sqrt(self.share + 1e-3)
        more[-1] = 0.0
        summed: np.ndarray = more[concepts].sum(axis=1)
        return summed

    def cases(self, number: int, seed: int) -> Iterator[tuple[str, np.ndarray]]:
        """User, and candidates of which the first was bought."""
        rng = np.random.default_rng(seed)
        order = rng.permutation(self.purchases.num_rows)[:number]
        for purchase in self.purchases.take(np.sort(order)).to_pylist():
            relevance = self.truth.relevance(purchase["query"], self.product_ids)
            bought = self.row[purchase["product_id"]]
            others = np.flatnonzero(relevance >= relevance[bought] / 2)
            others = others[others != bought]
            if relevance[bought] > 0 and len(others) >= _LEAST_OTHERS:
                drawn = rng.choice(others, min(_NUM_OTHERS, len(others)), replace=False)
                yield purchase["user_id"], np.concatenate([[bought], drawn])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--requests", type=int, default=1_500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    signals = Signals(arguments.directory)
    wins: dict[str, list[float]] = {}
    lengths = []
    for user_id, candidates in signals.cases(arguments.requests, arguments.seed):
        length, scores = signals.scores(user_id, candidates)
        lengths.append(length)
        for name, values in scores.items():
            won = (values[0] > values[1:]).mean() + (values[0] == values[1:]).mean() / 2
            wins.setdefault(name, []).append(float(won))
    seen = np.array(lengths)
    result = {
        name: {f"at least {least}": float(np.mean(np.array(values)[seen >= least])) for least in _LENGTHS}
        for name, values in wins.items()
    }
    if arguments.json:
        quartiles = np.quantile(seen, [0.25, 0.5, 0.75]).tolist()
        print(json.dumps({"num_requests": len(seen), "touched_quartiles": quartiles, "signals": result}, indent=2))
        return
    table = Table("signal", *(f"≥ {least} touched" for least in _LENGTHS), title=f"{len(seen):,} purchases")
    for name, row in result.items():
        table.add_row(name, *(f"{value:.3f}" for value in row.values()))
    Console().print(table)


if __name__ == "__main__":
    main()
