"""How well are purchases found of products that no training pair had, and of the others?

    python benchmarks/unseen_products.py RUN… [--k 100]

Runs of one data set with an export; requests of the report window, as `uepp evaluate` asks them but without who asks.
Prints one JSON object of rows: share of the purchases that are of seen products, and hit@K of both kinds.
"""

import argparse
import json
from pathlib import Path

import uepp  # noqa: F401  chooses Keras 2 before TensorFlow is imported

import numpy as np  # isort: skip
import pyarrow.parquet as pq  # isort: skip

from uepp.evaluation.baselines import LessPersonal, Towers  # isort: skip
from uepp.evaluation.measures import target_places  # isort: skip
from uepp.evaluation.requests import load_requests  # isort: skip
from uepp.pipeline.stored import read_run  # isort: skip


def found(run_dir: Path, k: int) -> dict[str, object]:
    """Hit@K of a run's purchases by whether the product occurred in a training example."""
    config, _, mined = read_run(run_dir)
    products = pq.read_table(run_dir / "export" / "products.parquet")
    trained = set(pq.read_table(mined / "examples.parquet").column("product_id").to_pylist())
    is_trained = np.array([product in trained for product in products.column("product_id").to_pylist()])
    requests = load_requests(mined / "requests.parquet", "report", products)
    towers = LessPersonal(Towers(run_dir / "export", config.history), has_place=False)
    (places,), _ = target_places(towers, requests, [requests.targets], k)
    is_known = requests.targets.product_index >= 0
    product, is_hit = requests.targets.product_index[is_known], places[is_known] < k
    seen = is_trained[product]
    return {
        "run": run_dir.name,
        "loss": config.loss.kind,
        "num_purchases": len(product),
        "seen_share": float(seen.mean()),
        f"hit@{k}_seen": float(is_hit[seen].mean()),
        f"hit@{k}_unseen": float(is_hit[~seen].mean()),
    }


def main() -> None:
    """Measure each run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--k", type=int, default=100)
    arguments = parser.parse_args()
    print(json.dumps({"rows": [found(run, arguments.k) for run in arguments.runs]}, indent=2))


if __name__ == "__main__":
    main()
