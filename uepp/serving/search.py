"""Search: a query and who asks in, products with their similarity out (UEPPR V)."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from uepp.artifacts import MANIFEST, read_json
from uepp.config import load_config
from uepp.errors import InputError
from uepp.lexical.bm25 import BM25
from uepp.lexical.fusion import DEPTH as FUSION_DEPTH
from uepp.lexical.fusion import FusionSettings
from uepp.relevance.ranker import Ranker, has_ranker, load_lightgbm, read_ranker
from uepp.relevance.ranking_features import Asked
from uepp.retrieval.boosting import read_boosting
from uepp.retrieval.embed import load_tower, tower_inputs
from uepp.retrieval.export import LEXICAL, open_export
from uepp.retrieval.product_index import ProductIndex
from uepp.retrieval.vectors import ProductVectors
from uepp.serving.cache import RankingCache
from uepp.serving.catalogue import Catalogue
from uepp.serving.people import People
from uepp.serving.ranking import Question, Ranking, continued, depth_of, first_of, fused, of_towers, reranked
from uepp.serving.requests import FeatureReader, Request

_AT_ONCE = 256  # requests in one call of the tower


@dataclass(frozen=True)
class Hit:
    """One result.

    Attributes:
        product_id: id of the product.
        title: its title.
        similarity: cosine of query and product, in [-1, 1].
        score: of retrieval: similarity and what quality adds, or with fusion the sum of reciprocal ranks.
        shop_id: of the product, as the next three; none: unknown.
        price: in the catalogue's currency.
        country: where it is.
        region: likewise.
        towers_rank: rank among what the towers found, from 1; none: they did not.
        lexical_rank: rank among what BM25 found, from 1; none: it did not, or was not asked.
        ranker_rank: place that the ranker gave it, from 1, whatever its score; none: it was not asked about it.
    """

    product_id: str
    title: str
    similarity: float
    score: float
    shop_id: str | None = None
    price: float | None = None
    country: str | None = None
    region: str | None = None
    towers_rank: int | None = None
    lexical_rank: int | None = None
    ranker_rank: int | None = None


def _ignore(part: str, seconds: float) -> None:
    """Nobody wants to know how long it took."""


class Searcher:
    """A run's export, loaded once: query tower, index, BM25, products and people.

    Args:
        run_dir: a run with an export; its manifest is checked.
        cache: of rankings; none: each is computed.
        depth: products that are ranked and cached for a request, at least.
        observe: is told the seconds of each part of the work: features, cache, tower, index, lexical (from a thread of
            its own, beside the others), fusion (with the wait for lexical), ranker, hits.
        go_on: see `check_manifest`.

    Attributes:
        manifest: of the export.
        reader: what the query tower reads of requests.
        people: whose histories the export has.
        catalogue: its products.
        index: over the product vectors.
        observe: as given; may be changed.
        has_boosting: whether quality counts (UEPPR IV).
        threshold: ε of negatives: training leaves them alone below this similarity (UEPPR III-E); none: another loss.

    Raises:
        InputError: not a run, not exported, a file that differs from the manifest, or an export or ranker of another
            run.
    """

    def __init__(
        self,
        run_dir: Path,
        *,
        cache: RankingCache | None = None,
        depth: int = 200,
        observe: Callable[[str, float], None] = _ignore,
        go_on: Callable[[], None] = lambda: None,
    ) -> None:
        export = open_export(run_dir, go_on)
        self.manifest: dict[str, Any] = read_json(export / MANIFEST)
        _refuse_other_run(run_dir, self.manifest)
        config = load_config(str(run_dir / "config.yaml"))
        self.threshold = config.loss.threshold_negative if config.loss.kind == "hinge" else None
        self._query_tower = load_tower(export / "query_tower")
        self.index = ProductIndex.open(export)
        self._vectors = ProductVectors.open(export)
        self.has_boosting = read_boosting(export) is not None
        self._lexical = BM25.load(export / LEXICAL) if (export / LEXICAL).is_dir() else None
        self._fusion = FusionSettings.read(export)
        self.catalogue = Catalogue(export)
        self.people = People(export, self.catalogue.products)
        names = tower_inputs(self._query_tower)
        self.reader = FeatureReader(
            names,
            config.history,
            self.people,
            self.catalogue,
            reads_words="text" not in config.model.query_encoders,
        )
        self._ranker: Ranker | None = None
        self._no_ranker = f"this export has no ranker; make one with: uepp relevance rank {run_dir}"
        if has_ranker(export):
            try:
                load_lightgbm()
            except InputError as error:
                self._no_ranker = str(error)  # everything else works without
            else:
                self._ranker = read_ranker(export)
        self._cache = cache
        self._depth = depth
        self._words = ThreadPoolExecutor(1, "uepp-words")
        self.observe = observe

    @property
    def refreshed(self) -> str | None:
        """When the catalogue was last refreshed, an ISO time; none: it is the one that the run was trained with."""
        when: str | None = self.manifest.get("catalogue", {}).get("when")
        return when

    @property
    def has_lexical(self) -> bool:
        """Whether there is a BM25 to fuse with."""
        return self._lexical is not None

    @property
    def has_ranker(self) -> bool:
        """Whether there is a ranker that can be asked."""
        return self._ranker is not None

    def search(self, query: str, k: int = 10, **about: Any) -> list[Hit]:
        """The k best products, best first; fewer where the catalogue is smaller or the threshold leaves out some.

        Args:
            query: text.
            k: results.
            about: who asks and what is wanted: the other attributes of `Request`.

        Raises:
            InputError: see `question`.
        """
        return self.search_many([Request(query, k, **about)])[0]

    def search_many(self, requests: Sequence[Request]) -> list[list[Hit]]:
        """The hits of each request; those that the cache does not know are ranked together."""
        questions = [self.question(request) for request in requests]
        answers: list[Ranking | None] = []
        missing: dict[Any, Question] = {}
        for request, question in zip(requests, questions, strict=True):
            found = None
            if self._cache is not None:
                with self._timed("cache"):
                    found = self._cache.get(request, question)
            answers.append(None if found is None else found.ranking)
            if found is None:
                missing.setdefault(question.key, question)
        rankings = dict(zip(missing, self.rank(list(missing.values())), strict=True))
        hits = []
        for request, question, answer in zip(requests, questions, answers, strict=True):
            if answer is None:
                answer = rankings[question.key]
                if self._cache is not None:
                    answer = self._cache.put(request, question, answer)  # for each: who asks is another's key
            hits.append(self.hits(request, answer))
        return hits

    def question(self, request: Request) -> Question:
        """What a request comes down to, with everything looked up that its ranking depends on.

        Raises:
            InputError: k below 1, an offset below 0, a similarity that is none, fusion without BM25, a ranker that is
                not there, or what `FeatureReader.read` refuses.
        """
        if request.k < 1:
            raise InputError(f"k {request.k}: must be at least 1")
        if request.offset < 0:
            raise InputError(f"offset {request.offset}: must be at least 0")
        threshold = request.min_similarity
        if threshold is not None and not -1 <= threshold <= 1:
            raise InputError(f"min_similarity {threshold}: must be between -1 and 1")
        if request.fusion and self._lexical is None:
            raise InputError("fusion: this export has no BM25 index (lexical/); export the run again")
        if request.rerank and self._ranker is None:
            raise InputError(f"rerank: {self._no_ranker}")
        asked, floor = None, self._depth
        with self._timed("features"):
            features = self.reader.read(request)
            if request.rerank and self._ranker is not None:
                asked = self.reader.asked(request, features, self._ranker.features)
                floor = max(floor, self._ranker.top)  # else a second page would be of another order than the first
        if request.fusion:
            floor = max(floor, FUSION_DEPTH)  # and so would this one be
        needed = request.offset + request.k + len(self.catalogue.rows(set(request.exclude)))
        depth = depth_of(needed, floor, len(self.catalogue))
        boosted = request.boosted and self.has_boosting
        return Question(features, depth, request.fusion, boosted, threshold, asked, floor)

    def rank(self, questions: Sequence[Question]) -> list[Ranking]:
        """Answer questions by one call of the tower, and a search of the index for each depth up to theirs."""
        parts = [questions[begin : begin + _AT_ONCE] for begin in range(0, len(questions), _AT_ONCE)]
        return [ranking for part in parts for ranking in self._rank(part)]

    def hits(self, request: Request, ranking: Ranking) -> list[Hit]:
        """The page of a ranking that a request wants, without what it excludes."""
        with self._timed("hits"):
            excluded = self.catalogue.rows(request.exclude)
            places = np.flatnonzero(~np.isin(ranking.rows, excluded))[request.offset : request.offset + request.k]
            ranker_ranks = [0] * len(places) if ranking.ranker_ranks is None else ranking.ranker_ranks[places].tolist()
            return [
                Hit(
                    **product,
                    similarity=similarity,
                    score=score,
                    towers_rank=towers_rank or None,
                    lexical_rank=lexical_rank or None,
                    ranker_rank=ranker_rank or None,
                )
                for product, similarity, score, towers_rank, lexical_rank, ranker_rank in zip(
                    self.catalogue.shown(ranking.rows[places]),
                    ranking.similarities[places].tolist(),
                    ranking.scores[places].tolist(),
                    ranking.towers_ranks[places].tolist(),
                    ranking.lexical_ranks[places].tolist(),
                    ranker_ranks,
                    strict=True,
                )
            ]

    def warm_up(self, batch_size: int) -> None:
        """Read and try all that is lazy, so that the first real request does not wait for it."""
        self.people.load()
        question = self.question(Request("warm up", fusion=self.has_lexical, rerank=self.has_ranker))
        self.rank([question])
        self.rank([question] * batch_size)

    def _rank(self, questions: Sequence[Question]) -> list[Ranking]:
        # BM25 needs nothing of the tower, and the tower leaves Python alone: one works while the other does.
        by_words = {
            number: self._words.submit(self._found_by_words, self._lexical, question)
            for number, question in enumerate(questions)
            if question.fusion and self._lexical is not None
        }
        try:
            return self._of_all(questions, by_words)
        finally:  # where the tower fails, nobody waits for what is not begun
            for found_by_words in by_words.values():
                found_by_words.cancel()

    def _of_all(self, questions: Sequence[Question], by_words: Mapping[int, Future[np.ndarray]]) -> list[Ranking]:
        """Rankings of the questions, of which some, by number, are fused with what BM25 will have found."""
        with self._timed("tower"):
            inputs = self.reader.inputs([question.features for question in questions])
            vectors = self._query_tower(**inputs)["embedding"].numpy()
        alike: dict[tuple[tuple[int, ...], bool], list[int]] = defaultdict(list)
        for number, question in enumerate(questions):
            alike[question.depths, question.boosted].append(number)
        by_depth: dict[int, list[Ranking]] = {}
        for (depths, boosted), numbers in alike.items():
            with self._timed("index"):
                found = self.index.search_on(vectors[numbers], depths, boosted=boosted)
            for row, number in enumerate(numbers):
                rows, scores, similarities = (part[row] for part in found)
                least = questions[number].min_similarity
                by_depth[number] = [
                    of_towers(rows[:depth], scores[:depth], similarities[:depth], least) for depth in depths
                ]
        for number, found_by_words in by_words.items():
            with self._timed("fusion"):
                rows = found_by_words.result()
                similarities = self._vectors.similarities(vectors[number : number + 1], rows[np.newaxis])[0]
                by_depth[number] = [
                    fused(towers, rows[:depth], similarities[:depth], depth, self._fusion)
                    for towers, depth in zip(by_depth[number], questions[number].depths, strict=True)
                ]
        rankings = {number: of_depths[0] for number, of_depths in by_depth.items()}
        self._rerank(questions, rankings)  # before what only later pages show
        for number, question in enumerate(questions):
            for deeper, depth in zip(by_depth[number][1:], question.depths[1:], strict=True):
                rankings[number] = continued(rankings[number], deeper, depth)
        return [rankings[number] for number in range(len(questions))]

    def _found_by_words(self, lexical: BM25, question: Question) -> np.ndarray:
        """Product indexes int64 [n] that BM25 finds, best first."""
        with self._timed("lexical"):
            rows = lexical.search([question.features.query], question.depth)[0][0]
        return rows[rows >= 0].astype(np.int64)

    def _rerank(self, questions: Sequence[Question], rankings: dict[int, Ranking]) -> None:
        """Order the first products of the rankings that the ranker is asked about, all of them at once."""
        asking = {number: question.asked for number, question in enumerate(questions) if question.asked is not None}
        if not asking or self._ranker is None:
            return
        with self._timed("ranker"):
            rows, similarities = first_of([rankings[number] for number in asking], self._ranker.top)
            orders = self._ranker.order(Asked.together(list(asking.values())), rows, similarities)
            for number, order in zip(asking, orders, strict=True):
                rankings[number] = reranked(rankings[number], order)

    @contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        self.observe(part, time.perf_counter() - begin)


def _refuse_other_run(run_dir: Path, manifest: dict[str, Any]) -> None:
    path = run_dir / "run.json"
    own = read_json(path).get("run_id") if path.exists() else manifest.get("run_id")
    if manifest.get("run_id") != own:
        raise InputError(
            f"{run_dir / 'export' / MANIFEST}: an export of run {manifest.get('run_id')}, but {path} says {own}; "
            "export this run again"
        )
