"""Does our assembly of bm25s cost anything? Building and searching against plain bm25s, same text, same run.

    python benchmarks/bm25.py [--products 50000] [--queries 500] [--seed 1]

Both get the same generated titles, already cut into words, and the same k1 and b; the ratios are ours / bm25s
(below 1: ours is faster; bm25s selects the best among all products, ours among those above what a sample says of the
k-th, or with a positive score). The tuned strength is timed beside them: what the strongest opponent costs.
Prints one JSON object of rows {name, value or ratio, goal, ok}.
"""

import argparse
import json
import resource
import time
from collections.abc import Callable
from typing import Any

import bm25s
import numpy as np

from uepp.lexical.analysis import Analyzer
from uepp.lexical.bm25 import BM25


def generated_texts(rng: np.random.Generator, shapes: list[tuple[int, int]]) -> list[list[str]]:
    """Lists of (number, words) texts, all of one vocabulary of pronounceable words with Zipf frequencies."""
    syllables = [consonant + vowel for consonant in "bcdfghjklmnprstvwz" for vowel in "aeiou"]
    vocabulary = ["".join(rng.choice(syllables, rng.integers(2, 5))) for _ in range(20_000)]
    frequency = 1 / np.arange(1, len(vocabulary) + 1) ** 0.9
    frequency /= frequency.sum()
    return [
        [" ".join(vocabulary[word] for word in row) for row in rng.choice(len(vocabulary), shape, p=frequency)]
        for shape in shapes
    ]


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """The result and the seconds it took."""
    start = time.perf_counter()
    result = work()
    return result, time.perf_counter() - start


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--products", type=int, default=50_000)
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    titles, queries = generated_texts(rng, [(arguments.products, 12), (arguments.queries, 3)])
    k = min(1_000, arguments.products)

    def build_peer() -> bm25s.BM25:
        peer = bm25s.BM25(k1=1.2, b=0.75, method="lucene")
        analyzer = Analyzer.of("plain")
        peer.index([analyzer(title)["word"] for title in titles], show_progress=False)
        return peer

    def search_peer() -> Any:
        return peer.retrieve([query.split() for query in queries], k=k, show_progress=False)

    ours, build_ours = timed(lambda: BM25.build({"title": titles}, "plain"))
    peer, build_theirs = timed(build_peer)
    (_, our_scores), search_ours = timed(lambda: ours.search(queries, k))
    their_results, search_theirs = timed(search_peer)
    assert our_scores.any(), "no query found anything: nothing was measured"
    np.testing.assert_allclose(our_scores, their_results.scores, rtol=1e-4, atol=1e-4)
    tuned, build_tuned = timed(lambda: BM25.build({"title": titles}, "tuned"))
    _, search_tuned = timed(lambda: tuned.search(queries, k))
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    rows: list[dict[str, Any]] = [
        {"name": "build plain: ours / bm25s", "ratio": build_ours / build_theirs, "goal": 1.2},
        {"name": "search plain: ours / bm25s", "ratio": search_ours / search_theirs, "goal": 1.2},
        {"name": "build tuned, seconds", "value": build_tuned},
        {"name": "search tuned, milliseconds a query", "value": 1_000 * search_tuned / len(queries)},
        {"name": "peak memory, MB", "value": megabytes},
    ]
    for row in rows:
        if "ratio" in row:
            row["ok"] = row["ratio"] <= row["goal"]
    print(json.dumps({"products": arguments.products, "queries": len(queries), "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
