"""How far are the labels of sampled pairs from what they should be? STS-B, by the bi-encoder's own estimate.

    python benchmarks/sampled_labels.py STSB [--bi-encoder minilm] [--negatives 4] [--pools 32,256] [--steps 40]
                                             [--json]
    python benchmarks/sampled_labels.py STSB --train constant|estimate [--seed 1] [--max-steps 720] [--json]

Nobody has graded sampled pairs, so their grade is estimated: an isotonic regression of the training pairs' grades on
their cosines. It is a rough ruler (its rank correlation with the true grades is printed first), and one that hard
samplers choose by, so what is hard has a lower grade than it says; it is the same ruler for all samplers.

Per sampler and pool, over the pairs that it chooses in `--steps` training steps of 32 labelled pairs: their mean
estimated grade, from 0 to 1; the mean label that the sampler gives them; mean and standard deviation of label less
grade, which are the labels' bias and noise; the share whose estimate is above .4, the least grade that is relevant.

With --train a cross-encoder (that of `configs/sts.yaml`) learns from the pairs that `pseudo_labels` chooses in the
largest pool, labelled in another way: all with the mean of θ, or each with its estimate. Which of the two changes the
measures on dev says whether the level or the noise of θ matters (`uepp relevance sts` has those with θ itself).
"""

import argparse
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import scipy.stats
from sklearn.isotonic import IsotonicRegression

from uepp.config import RelevanceConfig, load_config
from uepp.pipeline.relevance import embeddings_of
from uepp.pipeline.sts import measures
from uepp.relevance.candidates import LabelledPairs, Pool, Seed, draw_pool
from uepp.relevance.cross_encoder import make_cross_encoder
from uepp.relevance.pairs import TextPairs
from uepp.relevance.samplers import SampledPairs, make_sampler
from uepp.relevance.steps import Steps
from uepp.relevance.sts import MAX_GRADE, POSITIVE_ABOVE, known_beside, read_sts
from uepp.relevance.training import fit
from uepp.runs.strategies import choose_strategy

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
    parser.add_argument("--train", choices=["constant", "estimate"])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--max-steps", type=int, default=720)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    pairs = read_sts(arguments.directory, "train")
    labelled = LabelledPairs(
        pairs.query, pairs.product, pairs.grades / MAX_GRADE, *embeddings_of(arguments.bi_encoder, pairs, None),
        positive_above=POSITIVE_ABOVE, also_known=known_beside(pairs),
    )  # fmt: skip
    cosines = cosines_of(labelled, labelled.queries, labelled.products)
    estimate = IsotonicRegression(out_of_bounds="clip").fit(cosines, labelled.grades)
    pools = [int(text) for text in arguments.pools.split(",")]
    if arguments.train:
        config = load_config("sts").relevance.model_copy(update={
            "max_steps": arguments.max_steps, "seed": arguments.seed, "batch_size": BATCH, "pool_size": max(pools),
            "num_negatives": arguments.negatives,
        })  # fmt: skip
        label = None if arguments.train == "estimate" else mean_label(labelled, config, arguments.steps)
        found = trained(pairs, labelled, estimate, config, label, read_sts(arguments.directory, "dev"))
        print(json.dumps(found) if arguments.json else "   ".join(f"{key} {value:.2f}" for key, value in found.items()))
        return
    correlation = float(scipy.stats.spearmanr(cosines, labelled.grades)[0])
    rows = [
        row(labelled, estimate, name, pool_size, arguments.negatives, arguments.steps)
        for pool_size in pools
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
    grades, labels = [], []
    for sampled in chosen(labelled, name, pool_size, num_negatives, num_steps):
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


def chosen(
    labelled: LabelledPairs, name: str, pool_size: int, num_negatives: int, num_steps: int
) -> Iterator[SampledPairs]:
    """What a sampler chooses, step by step."""
    sampler = make_sampler(name, num_negatives=num_negatives)
    for step in range(num_steps):
        batch = np.random.default_rng(step).choice(len(labelled), BATCH, replace=False)
        yield sampler(draw_pool(labelled, batch, pool_size, (1, step)), (1, step))


def mean_label(labelled: LabelledPairs, config: RelevanceConfig, num_steps: int) -> float:
    """The mean θ of what `pseudo_labels` chooses."""
    steps = chosen(labelled, "pseudo_labels", config.pairs_in_pool, config.num_negatives, num_steps)
    return float(np.mean(np.concatenate([sampled.labels for sampled in steps])))


def trained(
    pairs: TextPairs, labelled: LabelledPairs, estimate: IsotonicRegression, config: RelevanceConfig,
    label: float | None, reported: TextPairs,
) -> dict[str, float | None]:  # fmt: skip
    """Measures of a cross-encoder whose negatives all have one label, or, without one, their estimated grades."""
    hardest = make_sampler("pseudo_labels", num_negatives=config.num_negatives)

    def sampler(pool: Pool, seed: Seed) -> SampledPairs:
        sampled = hardest(pool, seed)
        if label is not None:
            return sampled._replace(labels=np.full(len(sampled.labels), label, np.float32))
        grades = estimate.predict(cosines_of(labelled, sampled.queries, sampled.products))
        return sampled._replace(labels=grades.astype(np.float32))

    steps = Steps(
        labelled, pairs.queries, pairs.products, sampler,
        batch_size=config.batch_size, pool_size=config.pairs_in_pool, seed=config.seed,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        fitted = fit(
            lambda seed: make_cross_encoder(config, Path(folder), seed), steps, config, Path(folder),
            strategy=choose_strategy(),
        )  # fmt: skip
    return measures(fitted.encoder, reported)


def cosines_of(labelled: LabelledPairs, queries: np.ndarray, products: np.ndarray) -> np.ndarray:
    """Of pairs of rows [P] and [P]: float32 [P]."""
    return np.einsum("pd,pd->p", labelled.query_embeddings[queries], labelled.product_embeddings[products])


if __name__ == "__main__":
    main()
