"""How far are the labels of sampled pairs from what they should be? STS-B, by the bi-encoder's own estimate.

    python benchmarks/sampled_labels.py STSB [--bi-encoder minilm] [--negatives 4] [--pools 32,256] [--steps 40]
                                             [--json]

Nobody has graded sampled pairs, so their grade is estimated: an isotonic regression of the training pairs' grades on
their cosines. It is a rough ruler (its rank correlation with the true grades is printed first), and one that hard
samplers choose by, so what is hard has a lower grade than it says; it is the same ruler for all samplers.

Per sampler and pool, over the pairs that it chooses in `--steps` training steps of 32 labelled pairs: their mean
estimated grade, from 0 to 1; the mean label that the sampler gives them; mean and standard deviation of label less
grade, which are the labels' bias and noise; the share whose estimate is above .4, the least grade that is relevant.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import scipy.stats
from sklearn.isotonic import IsotonicRegression

from uepp.pipeline.relevance import embeddings_of
from uepp.relevance.candidates import LabelledPairs, draw_pool
from uepp.relevance.samplers import make_sampler
from uepp.relevance.sts import MAX_GRADE, POSITIVE_ABOVE, known_beside, read_sts

BATCH, RELEVANT = 32, 0.4
NAMES = ("vns", "false", "star", "hns", "regularized", "pseudo_labels", "bhns")  # cet's pairs are those of vns


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--bi-encoder", default="minilm")
    parser.add_argument("--negatives", type=int, default=4)
    parser.add_argument("--pools", default="32,256")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    pairs = read_sts(arguments.directory, "train")
    labelled = LabelledPairs(
        pairs.query, pairs.product, pairs.grades / MAX_GRADE, *embeddings_of(arguments.bi_encoder, pairs, None),
        positive_above=POSITIVE_ABOVE, also_known=known_beside(pairs),
    )  # fmt: skip
    cosines = cosines_of(labelled, labelled.queries, labelled.products)
    estimate = IsotonicRegression(out_of_bounds="clip").fit(cosines, labelled.grades)
    correlation = float(scipy.stats.spearmanr(cosines, labelled.grades)[0])
    rows = [
        row(labelled, estimate, name, pool_size, arguments.negatives, arguments.steps)
        for pool_size in (int(text) for text in arguments.pools.split(","))
        for name in NAMES
    ]
    if arguments.json:
        print(json.dumps({"rank_correlation": correlation, "rows": rows}))
        return
    print(f"cosines and grades of the training pairs: rank correlation {correlation:.3f}")
    for each in rows:
        numbers = "   ".join(f"{key} {value:.3f}" for key, value in each.items() if isinstance(value, float))
        print(f"{each['pool']:>6} {each['sampler']:14} {numbers}")


def row(
    labelled: LabelledPairs, estimate: IsotonicRegression, name: str, pool_size: int, num_negatives: int, num_steps: int
) -> dict[str, Any]:
    """What a sampler chooses, and what it says of it."""
    sampler = make_sampler(name, num_negatives=num_negatives)
    grades, labels = [], []
    for step in range(num_steps):
        batch = np.random.default_rng(step).choice(len(labelled), BATCH, replace=False)
        sampled = sampler(draw_pool(labelled, batch, pool_size, (1, step)), (1, step))
        grades.append(estimate.predict(cosines_of(labelled, sampled.queries, sampled.products)))
        labels.append(sampled.labels)
    grade, label = np.concatenate(grades), np.concatenate(labels)
    return {
        "pool": pool_size,
        "sampler": name,
        "grade": float(grade.mean()),
        "label": float(label.mean()),
        "bias": float((label - grade).mean()),
        "noise": float((label - grade).std()),
        "share_relevant": float((grade > RELEVANT).mean()),
    }


def cosines_of(labelled: LabelledPairs, queries: np.ndarray, products: np.ndarray) -> np.ndarray:
    """Of pairs of rows [P] and [P]: float32 [P]."""
    return np.einsum("pd,pd->p", labelled.query_embeddings[queries], labelled.product_embeddings[products])


if __name__ == "__main__":
    main()
