"""BM25 in three strengths: the opponent in every table, a teacher, and a partner in fusion.

The catalogue is indexed once; `limit` then searches the catalogue as of a day, which is a prefix of
its rows (document frequencies and the mean length stay those of the whole catalogue).

* plain: lower-case words of title and tags;
* stemmed: their Snowball stems;
* tuned: stems of folded words with numbers and units in one spelling; of title and tags also joined
  neighbours and character trigrams; of category, attributes, description and generated queries (document
  expansion, as in docTTTTTquery) the words, with weights that are chosen on selection requests (0 until then).

The score is a weighted sum of one BM25 a component (`TermIndex`); title + tags are one bag. Long fields
give words only: trigrams of a whole description match everything and would be most of the index.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from uepp.artifacts import atomic_directory, read_json, write_json
from uepp.errors import InputError
from uepp.lexical.analysis import Analyzer, Kind, Strength
from uepp.lexical.best import best_of
from uepp.lexical.term_index import Bags, TermIndex

MAIN_FIELDS = ("title", "tags")
EXTRA_FIELDS = ("category", "attributes", "description", "generated")
COMPONENTS = ("word", "joined", "trigram", *EXTRA_FIELDS)

# A query's joined neighbours must meet products' words, and a query's words products' joined
# neighbours: both live in one bag, and the kinds are weighted on the query's side.
_BAGS: dict[str, tuple[Kind, ...]] = {"word": ("word", "joined"), "trigram": ("trigram",)}
_INDEX_OF = {"joined": "word"}
_SETTINGS = "bm25.json"


@dataclass(frozen=True)
class BM25Settings:
    """What `tune` chooses.

    Args:
        k1: saturation of repeated terms, ≥ 0.
        b: length normalisation in [0, 1].
        weights: weight ≥ 0 of each component: the query's `word`, `joined` and `trigram` terms in title and tags,
            and its words in `category`, `attributes`, `description`, `generated`; one that is missing weighs 0.

    Raises:
        ValueError: a value outside its range, or an unknown component.
    """

    k1: float = 1.2
    b: float = 0.75
    weights: Mapping[str, float] = field(default_factory=lambda: {"word": 1.0})

    def __post_init__(self) -> None:
        """Check names and ranges."""
        if not (self.k1 >= 0 and 0 <= self.b <= 1):
            raise ValueError(f"k1 = {self.k1}, b = {self.b}: expected k1 >= 0 and b in [0, 1]")
        for component, weight in self.weights.items():
            if component not in COMPONENTS or not weight >= 0:
                raise ValueError(f"weights: {component} = {weight}: expected {', '.join(COMPONENTS)} with values >= 0")


DEFAULT_SETTINGS: dict[Strength, BM25Settings] = {
    "plain": BM25Settings(),
    "stemmed": BM25Settings(),
    "tuned": BM25Settings(k1=0.6, b=0.5, weights={"word": 1.0, "joined": 0.4, "trigram": 0.4}),
}
"""Used as they are for plain and stemmed, and as the start of the search for tuned."""

_GRID: tuple[tuple[str, tuple[float, ...]], ...] = (
    ("category", (0.0, 0.25, 0.5, 1.0)),
    ("attributes", (0.0, 0.25, 0.5, 1.0)),
    ("description", (0.0, 0.1, 0.25, 0.5, 1.0)),
    ("generated", (0.0, 0.25, 0.5, 1.0, 2.0)),
    ("trigram", (0.0, 0.2, 0.4, 0.8)),
    ("joined", (0.0, 0.2, 0.4, 1.0)),
)
_K1_RANGE, _B_RANGE = (0.1, 3.0), (0.0, 1.0)
_NUM_TRIALS = 20
MIN_GAIN = 1e-3  # a choice that gains less on the selection requests is noise: the earlier one stays


class BM25:
    """A searchable catalogue. Made by `build` or `load`."""

    def __init__(self, strength: Strength, settings: BM25Settings, indexes: dict[str, TermIndex], num_products: int):
        """Put together what `build` and `load` made; `indexes` holds one index a component."""
        self._analyzer = Analyzer.of(strength)
        self.strength = strength
        self.settings = settings
        self.num_products = num_products
        self._indexes = indexes
        self._texts: Mapping[str, Sequence[str]] = {}

    @classmethod
    def build(
        cls,
        texts_by_field: Mapping[str, Sequence[str]],
        strength: Strength = "tuned",
        settings: BM25Settings | None = None,
    ) -> "BM25":
        """Index a catalogue.

        Args:
            texts_by_field: a text a product for any of title, tags (joined by spaces), category, attributes,
                description, generated; empty where a product has none. The lists are kept (not copied) for `tune`.
            strength: plain, stemmed or tuned.
            settings: none: `DEFAULT_SETTINGS` of the strength.

        Raises:
            ValueError: an unknown field or strength, no title and no tags, or lists of different lengths.
        """
        if unknown := set(texts_by_field) - {*MAIN_FIELDS, *EXTRA_FIELDS}:
            raise ValueError(
                f"unknown fields {sorted(unknown)}: expected some of {', '.join(MAIN_FIELDS + EXTRA_FIELDS)}"
            )
        if not set(texts_by_field) & set(MAIN_FIELDS):
            raise ValueError("neither title nor tags given: there is nothing to index")
        lengths = {name: len(texts) for name, texts in texts_by_field.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"fields of different lengths: {lengths}")
        num_products = next(iter(lengths.values()))
        bm25 = cls(strength, settings or DEFAULT_SETTINGS.get(strength, BM25Settings()), {}, num_products)
        bm25._texts = texts_by_field
        bm25._index_main_fields()
        for name in EXTRA_FIELDS:
            if bm25.settings.weights.get(name) and name in texts_by_field:
                bm25._index_extra_field(name)
        return bm25

    def analyze_all(self) -> None:
        """Analyse every field that `tune` may give a weight; it would do that itself."""
        for name in EXTRA_FIELDS:
            if self.strength == "tuned" and self._has_text(name):
                self._index_extra_field(name)

    def without(self, field: str) -> "BM25":
        """The same catalogue without one of the fields beside title and tags. What was analysed is shared.

        So two can be tuned for one analysis (`analyze_all`, first), and each for itself.
        """
        weights = {name: weight for name, weight in self.settings.weights.items() if name != field}
        indexes = {name: index.copy() for name, index in self._indexes.items() if name != field}
        other = BM25(self.strength, replace(self.settings, weights=weights), indexes, self.num_products)
        other._texts = {name: texts for name, texts in self._texts.items() if name != field}
        return other

    def search(
        self,
        queries: Sequence[str],
        k: int,
        limit: int | None = None,
        multiplier: NDArray[np.float32] | None = None,
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Find the best products of each query.

        Args:
            queries: B texts; equal ones are scored once.
            k: results a query, ≥ 1.
            limit: search only the first `limit` products; none: all.
            multiplier: [num_products] > 0, what each product's score is multiplied by before it is ranked; none: 1.

        Returns:
            product_index int32 [B, k] and scores float32 [B, k], best first, ties by product index; -1 and 0
            where fewer than k products have a positive score.
        """
        if k < 1:
            raise ValueError(f"k = {k}: expected at least 1")
        if limit is not None and limit < 0:
            raise ValueError(f"limit = {limit}: expected at least 0")
        limit = self.num_products if limit is None else min(limit, self.num_products)
        product_index = np.full((len(queries), k), -1, np.int32)
        scores = np.zeros((len(queries), k), np.float32)
        first_row: dict[str, int] = {}
        for row, query in enumerate(queries):
            same = first_row.setdefault(query, row)
            if same == row:
                scored = self._score(query)[:limit]
                if multiplier is not None:
                    scored *= multiplier[:limit]
                found, values = best_of(scored, k)
                product_index[row, : len(found)], scores[row, : len(found)] = found, values
            else:
                product_index[row], scores[row] = product_index[same], scores[same]
        return product_index, scores

    def tune(
        self,
        requests: Sequence[tuple[str, Sequence[int]]],
        k: int = 100,
        limit: int | None = None,
        max_requests: int = 1_000,
    ) -> dict[str, Any]:
        """Choose the weights one after the other, then k1 and b together, by Recall@k on selection requests.

        Args:
            requests: (query, product indexes of its targets); -1 is a target that the catalogue lacks, a miss.
            k: results that count.
            limit: the catalogue as of then.
            max_requests: more are thinned by a stable hash.

        Returns:
            For metrics.json: strength, k1, b, weights, `recall@k`, num_requests, and `tried`: each
            setting's values with the recall they gave.

        Raises:
            ValueError: no requests, or the index was loaded from disk (its counts are not stored).
        """
        requests = thinned([(query, targets) for query, targets in requests if len(targets)], max_requests)
        if not requests:
            raise ValueError("no requests with a target: nothing to tune on")
        if not self._texts:
            raise ValueError("a loaded index cannot be tuned; build it from the catalogue")
        best = self._recall(requests, k, limit)
        tried = [{"setting": "start", "value": None, "recall": round(best, 4)}]
        self.analyze_all()
        grid = [(setting, values) for setting, values in _GRID if self._offers(setting)]
        with Progress(transient=True) as progress:
            task = progress.add_task("BM25's settings", total=sum(len(values) for _, values in grid) + _NUM_TRIALS)

            def keep(setting: str, value: Any, recall: float) -> None:
                tried.append({"setting": setting, "value": value, "recall": round(recall, 4)})
                progress.advance(task)

            for setting, values in grid:
                chosen = self.settings
                for value in values:
                    self._set(replace(chosen, weights={**chosen.weights, setting: value}))
                    recall = best if self.settings == chosen else self._recall(requests, k, limit)
                    keep(setting, value, recall)
                    if recall > best + MIN_GAIN:
                        best, chosen = recall, self.settings
                self._set(chosen)
            best = self._tune_saturation(requests, k, limit, best, keep)
        self._indexes = self._used()
        return {
            "strength": self.strength,
            **asdict(self.settings),
            f"recall@{k}": best,
            "num_requests": len(requests),
            "tried": tried,
        }

    def _tune_saturation(
        self,
        requests: Sequence[tuple[str, Sequence[int]]],
        k: int,
        limit: int | None,
        best: float,
        keep: Callable[[str, Any, float], None],
    ) -> float:
        """Choose k1 and b together, by Bayesian optimisation from where they are; returns the recall reached."""
        from skopt import gp_minimize

        start = self.settings

        def loss(point: list[float]) -> float:
            k1, b = (float(value) for value in point)
            self._set(replace(start, k1=k1, b=b))
            recall = self._recall(requests, k, limit)
            keep("k1, b", [round(k1, 3), round(b, 3)], recall)
            return -recall

        found = gp_minimize(
            loss, [_K1_RANGE, _B_RANGE], x0=[start.k1, start.b], y0=-best, n_calls=_NUM_TRIALS, random_state=0
        )
        k1, b = (float(value) for value in found.x)
        is_better = -float(found.fun) > best + MIN_GAIN
        self._set(replace(start, k1=k1, b=b) if is_better else start)
        return -float(found.fun) if is_better else best

    def save(self, directory: Path) -> None:
        """Write the index, atomically; `load` searches it without the catalogue's text."""
        with atomic_directory(directory) as temporary:
            for component, index in self._used().items():
                index.save(temporary / component, show_progress=False)
            facts = {"strength": self.strength, "num_products": self.num_products, "settings": asdict(self.settings)}
            write_json(temporary / _SETTINGS, {**facts, "components": list(self._used())})

    @classmethod
    def load(cls, directory: Path) -> "BM25":
        """Open a saved index, its arrays memory-mapped. Raises `InputError` when the directory is not one."""
        facts = read_json(directory / _SETTINGS)
        try:
            indexes = {
                component: TermIndex.load(directory / component, mmap=True, show_progress=False)
                for component in facts["components"]
            }
            return cls(facts["strength"], BM25Settings(**facts["settings"]), indexes, facts["num_products"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{directory}: not a BM25 index ({' '.join(str(error).split())})") from None

    def _used(self) -> dict[str, TermIndex]:
        """The indexes whose scores count."""
        used = {_INDEX_OF.get(name, name) for name, weight in self.settings.weights.items() if weight}
        return {name: index for name, index in self._indexes.items() if name in used}

    def _score(self, query: str) -> NDArray[np.float32]:
        terms = self._analyzer(query)
        total = np.zeros(self.num_products, np.float32)
        for component, weight in self.settings.weights.items():
            index = self._indexes.get(_INDEX_OF.get(component, component))
            if index is None or weight == 0:
                continue
            index.add_scores(terms.get("word" if component in EXTRA_FIELDS else component, []), weight, total)
        return total

    def _offers(self, component: str) -> bool:
        known = component in EXTRA_FIELDS or component in self._analyzer.kinds
        return known and _INDEX_OF.get(component, component) in self._indexes

    def _recall(self, requests: Sequence[tuple[str, Sequence[int]]], k: int, limit: int | None) -> float:
        found, _ = self.search([query for query, _ in requests], k, limit)
        shares = []
        for row, (_, targets) in zip(found.tolist(), requests, strict=True):
            known = {target for target in targets if target >= 0}
            shares.append(len(known.intersection(row)) / (len(known) + sum(target < 0 for target in targets)))
        return float(np.mean(shares))

    def _index_main_fields(self) -> None:
        fields = [self._texts[name] for name in MAIN_FIELDS if name in self._texts]
        bags = {name: Bags() for name in _BAGS if name in self._analyzer.kinds}
        for texts in zip(*fields, strict=True):
            analysed = [self._analyzer(text) for text in texts]
            for name, bag in bags.items():
                bag.add(term for terms in analysed for kind in _BAGS[name] for term in terms.get(kind, ()))
        for name in list(bags):
            self._indexes[name] = self._index(bags.pop(name))

    def _index_extra_field(self, name: str) -> None:
        if name in self._indexes:
            return
        words_only = replace(self._analyzer, kinds=("word",))
        bags = Bags()
        for text in self._texts[name]:
            bags.add(words_only(text)["word"])
        self._indexes[name] = self._index(bags)

    def _index(self, bags: Bags) -> TermIndex:
        index = TermIndex(k1=self.settings.k1, b=self.settings.b, method="lucene")
        index.index(bags, create_empty_token=False, show_progress=False)
        return index

    def _has_text(self, name: str) -> bool:
        return any(text and not text.isspace() for text in self._texts.get(name, ()))

    def _set(self, settings: BM25Settings) -> None:
        if (settings.k1, settings.b) != (self.settings.k1, self.settings.b):
            for index in self._indexes.values():
                index.weigh(settings.k1, settings.b)
        self.settings = settings


def thinned(requests: list[tuple[str, Sequence[int]]], size: int) -> list[tuple[str, Sequence[int]]]:
    """At most `size` requests, drawn by a hash of query and targets, in the order given."""
    if len(requests) <= size:
        return requests
    keys = [
        hashlib.blake2b(repr((query, list(targets))).encode(), digest_size=8).digest() for query, targets in requests
    ]
    kept = sorted(sorted(range(len(requests)), key=keys.__getitem__)[:size])
    return [requests[position] for position in kept]
