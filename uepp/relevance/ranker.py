"""The final ranker: LambdaMART (LightGBM) over the first products that were found for a request (BHNS 4.3)."""

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from uepp.artifacts import MANIFEST, fingerprint, read_json, write_json
from uepp.config import RankerConfig
from uepp.errors import InputError
from uepp.features.text import query_keys
from uepp.relevance.pair_scores import PairScores, trained_queries
from uepp.relevance.ranking_features import SCORES, Asked, RankingFeatures, Relevance

RANKER = "ranker"
"""Folder of an export."""
MODEL, FACTS, CROSS_ENCODER = "model.txt", "ranker.json", "cross_encoder"
NUM_FOLDS = 5
_NDCG_AT = 10


class Lists(NamedTuple):
    """What is learned from: the products that were found for R requests, and which of them were bought.

    Attributes:
        features: float32 [R, K, F].
        is_there: bool [R, K], False where fewer were found.
        is_bought: bool [R, K].
        queries: [R].
    """

    features: np.ndarray
    is_there: np.ndarray
    is_bought: np.ndarray
    queries: Sequence[str]

    @property
    def is_telling(self) -> np.ndarray:
        """Requests with both, a product that was bought and one that was not, bool [R]."""
        return self.is_bought.any(axis=1) & (self.is_there & ~self.is_bought).any(axis=1)


class Trained(NamedTuple):
    """What training gives.

    Attributes:
        model: LightGBM's text.
        num_rounds: trees.
        held_out: float64 [R, K], scores of each list by the models that were not trained on its query, at that many
            trees; NaN where no product is.
        gains: by feature its share of what the splits gained; they sum to 1, or to 0 without a split.
    """

    model: str
    num_rounds: int
    held_out: np.ndarray
    gains: dict[str, float]


def train_ranker(lists: Lists, names: Sequence[str], settings: RankerConfig, seed: int) -> Trained:
    """LambdaMART, with the number of trees that ranks held-out queries best.

    The queries fall into `NUM_FOLDS` folds. A model for each is trained on the other folds; training stops when their
    mean NDCG@10 on what each has not seen has not risen for `settings.patience` trees, and the best number is taken.
    With that the final model is trained on all requests.

    Args:
        lists: what was found, and bought.
        names: of the F features.
        settings: of the trees.
        seed: of the draws; with the same lists and seed the model is the same, whatever the number of threads.

    Raises:
        InputError: fewer than `NUM_FOLDS` queries whose list holds a bought product and another one; no LightGBM.
    """
    lightgbm = load_lightgbm()
    telling = np.flatnonzero(lists.is_telling)
    keys = query_keys(lists.queries)
    queries = [keys[row] for row in telling.tolist()]
    if len(set(queries)) < NUM_FOLDS:
        raise InputError(
            f"{len(set(queries))} queries of the selection window have a bought product among those that were found; a "
            f"ranker needs at least {NUM_FOLDS} (data.selection_days, --top)"
        )
    fold_of = _folds(queries)
    is_there = lists.is_there[telling]
    sizes = is_there.sum(axis=1)
    fold_of_row = np.repeat([fold_of[query] for query in queries], sizes)
    parameters = _parameters(settings, seed)
    data = lightgbm.Dataset(
        lists.features[telling][is_there],
        lists.is_bought[telling][is_there].astype(np.float32),
        group=sizes,
        params=parameters,  # no names: LightGBM changes blanks in them, and refuses what JSON has a use for
        free_raw_data=False,
    )
    rows = [(np.flatnonzero(fold_of_row != fold), np.flatnonzero(fold_of_row == fold)) for fold in range(NUM_FOLDS)]
    stopping = lightgbm.early_stopping(settings.patience, first_metric_only=True, verbose=False)
    found = lightgbm.cv(parameters, data, settings.max_trees, rows, callbacks=[stopping], return_cvbooster=True)
    folds = found["cvbooster"]
    num_rounds = int(folds.best_iteration) if folds.best_iteration > 0 else settings.max_trees
    # a query whose list taught nothing is in no fold: any of the models has not seen it
    number = np.array([fold_of.get(query, 0) for query in keys])
    held_out = np.full(lists.is_there.shape, np.nan)
    for fold, booster in enumerate(folds.boosters):
        part = lists.is_there & (number == fold)[:, np.newaxis]
        if part.any():
            held_out[part] = booster.predict(lists.features[part], num_iteration=num_rounds, num_threads=1)
    booster = lightgbm.train(parameters, data, num_rounds)
    gains = booster.feature_importance("gain")
    shares = gains / max(float(gains.sum()), 1e-12)
    return Trained(booster.model_to_string(), num_rounds, held_out, dict(zip(names, shares.tolist(), strict=True)))


def by_scores(scores: np.ndarray, is_there: np.ndarray) -> np.ndarray:
    """Places of a list, best first: int64 [B, K] of float [B, K]; ties stay in order, missing products go last."""
    order: np.ndarray = np.argsort(np.where(is_there, -scores, np.inf), axis=1, kind="stable")
    return order


class Ranker:
    """A trained ranker with what it looks up; ranking is safe from several threads.

    Args:
        model: LightGBM's text.
        names: of its columns, in their order.
        features: of the catalogue.
        relevance: the scores that it was trained with.
        top: products of a list that are ranked; the rest stay as they are.
        pairs: the cross-encoder; none: the ranker reads the similarity alone.

    Raises:
        InputError: no LightGBM, or a model of other features.
    """

    def __init__(
        self,
        model: str,
        names: Sequence[str],
        features: RankingFeatures,
        relevance: Relevance,
        top: int,
        pairs: PairScores | None = None,
    ) -> None:
        lightgbm = load_lightgbm()
        try:
            self._booster = lightgbm.Booster(model_str=model)
        except lightgbm.basic.LightGBMError as error:
            raise InputError(f"not a model of LightGBM ({' '.join(str(error).split())})") from None
        expected = features.names(relevance)
        if tuple(names) != expected or self._booster.num_feature() != len(expected):
            raise InputError(
                f"a model of the features {', '.join(names)} ({self._booster.num_feature()} columns); "
                f"expected {', '.join(expected)}"
            )
        self.features = features
        self.relevance = relevance
        self.top = top
        self._pairs = pairs

    def order(self, asked: Asked, rows: np.ndarray, similarities: np.ndarray) -> np.ndarray:
        """The places of each list, best first, int64 [B, K].

        Args:
            asked: B requests.
            rows: product indexes int64 [B, K], as retrieval orders them; -1: none.
            similarities: cosines, float32 [B, K].
        """
        found = {"similarity": similarities}
        if self._pairs is not None:
            found["cross_encoder"] = self._pairs.logits(asked.queries, rows)
        matrix = self.features.matrix(asked, rows, *(found[score] for score in SCORES[self.relevance]))
        return by_scores(self.scores(matrix), rows >= 0)

    def scores(self, matrix: np.ndarray) -> np.ndarray:
        """Of features float32 [B, K, F]: float64 [B, K]."""
        # a search has a few dozen rows: more threads would only wait for each other
        scores: np.ndarray = self._booster.predict(matrix.reshape(-1, matrix.shape[2]), num_threads=1)
        return scores.reshape(matrix.shape[:2])


def write_ranker(folder: Path, model: str, facts: Mapping[str, Any], cross_encoder: Path | None = None) -> None:
    """Put a ranker into a folder that is to become an export; the manifest comes after it.

    Args:
        folder: of the export.
        model: LightGBM's text.
        facts: content of `ranker.json`: `run_id`, `towers` (`towers_key`), `relevance`, `top`, `quality`, `features`.
        cross_encoder: a SavedModel, which is copied; none: it reads the similarity alone.
    """
    remove_ranker(folder)
    (folder / RANKER).mkdir()
    (folder / RANKER / MODEL).write_text(model, encoding="utf-8")
    write_json(folder / RANKER / FACTS, dict(facts))
    if cross_encoder is not None:
        PairScores.copy(cross_encoder, folder / RANKER / CROSS_ENCODER)


def remove_ranker(folder: Path) -> None:
    """Take the ranker out of a folder that is to become an export."""
    shutil.rmtree(folder / RANKER, ignore_errors=True)


def has_ranker(export: Path) -> bool:
    """Whether an export has one."""
    return (export / RANKER / FACTS).is_file()


def queries_known_to_ranker(export: Path) -> frozenset[str]:
    """Keys (`query_keys`) of what the cross-encoder of an export's ranker was trained on, as far as is known."""
    return trained_queries(export / RANKER / CROSS_ENCODER) or frozenset()


def read_ranker(export: Path) -> Ranker | None:
    """The ranker of an export whose manifest was checked; none where it has none.

    Raises:
        InputError: it is of another run or of other towers, is not complete, or there is no LightGBM.
    """
    if not has_ranker(export):
        return None
    path = export / RANKER / FACTS
    facts, manifest = read_json(path), read_json(export / MANIFEST)
    try:
        run_id, towers, top = facts["run_id"], facts["towers"], int(facts["top"])
        relevance, model = facts["relevance"], (path.parent / MODEL).read_text(encoding="utf-8")
        quality, names = (tuple(map(str, facts[name])) for name in ("quality", "features"))
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise InputError(f"{path}: not a ranker ({' '.join(str(error).split())})") from None
    if relevance not in [*SCORES] or top < 2:
        raise InputError(f"{path}: relevance {relevance}, top {top}; allowed are {', '.join(SCORES)}, and at least 2")
    again = "train it for this export with: uepp relevance rank RUN"
    if run_id != manifest.get("run_id"):
        raise InputError(f"{path}: a ranker of run {run_id}, but the export is of {manifest.get('run_id')}; {again}")
    if towers != towers_key(manifest):
        raise InputError(f"{path}: a ranker of other towers than the export's; {again}")
    pairs = PairScores(path.parent / CROSS_ENCODER, export) if "cross_encoder" in SCORES[relevance] else None
    try:
        return Ranker(model, names, RankingFeatures(export, quality), relevance, top, pairs)
    except InputError as error:
        raise InputError(f"{path.parent / MODEL}: {error}") from None


def towers_key(manifest: Mapping[str, Any]) -> str:
    """What a ranker belongs to: the weights of both towers, as a checked manifest has their SHA-256.

    Not the catalogue, which may be refreshed; nor the boosting: a ranker orders whatever was found.
    """
    files = manifest["files"]
    return fingerprint({name: files[name] for name in sorted(files) if "_tower/variables/variables.data-" in name})


def load_lightgbm() -> Any:
    """The library, which is an extra.

    Raises:
        InputError: it is not installed, or does not load.
    """
    try:
        import lightgbm
    except ModuleNotFoundError as error:
        if error.name != "lightgbm":
            raise
        raise InputError('the final ranker needs lightgbm: pip install "uepp[rank]"') from None
    except OSError as error:
        raise InputError(f"lightgbm does not load ({error}); it needs OpenMP's library, libgomp") from None
    return lightgbm


def _folds(queries: Sequence[str]) -> dict[str, int]:
    """The fold of each query, by its key: they are put in the order of their hash, and dealt out."""
    distinct = sorted(set(queries), key=lambda query: hashlib.md5(query.encode(), usedforsecurity=False).digest())
    return {query: number % NUM_FOLDS for number, query in enumerate(distinct)}


def _parameters(settings: RankerConfig, seed: int) -> dict[str, Any]:
    return {
        "objective": "lambdarank",
        "metric": "ndcg",
        "eval_at": [_NDCG_AT],
        "label_gain": [0, 1],
        "lambdarank_truncation_level": 30,
        "learning_rate": settings.learning_rate,
        "num_leaves": settings.num_leaves,
        "min_data_in_leaf": settings.min_products_in_leaf,
        "lambda_l2": settings.l2,
        "feature_fraction": 0.8,
        "seed": seed % 2**31,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": settings.threads,
        "verbosity": -1,
    }
