"""Search for many at once: cache, batches, and an export that can be replaced while requests are under way."""

import asyncio
import math
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from uepp.artifacts import MANIFEST, read_json
from uepp.config import ServingConfig
from uepp.errors import InputError
from uepp.serving.batching import Batcher, UnavailableError
from uepp.serving.cache import RankingCache
from uepp.serving.metrics import Metrics
from uepp.serving.ranking import Question, Ranking
from uepp.serving.requests import Request
from uepp.serving.search import Hit, Searcher
from uepp.serving.suggestions import Suggestions

_NUM_EXAMPLES = 100
_MOST_DOUBLINGS = 6  # of the time between two tries to reload


class RefusedError(Exception):
    """A reload that was not done; what was served before still is.

    Args:
        reason: in one line.
        is_final: whether the export itself is why, so that another try would end like this one; else it is what goes on
            here (no memory, too many open files, another reload).
    """

    def __init__(self, reason: str, *, is_final: bool = False) -> None:
        super().__init__(reason)
        self.is_final = is_final


class Answer(NamedTuple):
    """Hits and how they came about.

    Attributes:
        hits: best first.
        run_id: of the export that answered.
        is_known_user: whether the user's history was read; none: no user was given.
        unknown_products: clicked or bought ones that the catalogue lacks.
        cache_layer: which layer of the cache knew the ranking; none: it was computed.
        cache_age_seconds: how long ago it had been computed.
    """

    hits: list[Hit]
    run_id: str
    is_known_user: bool | None
    unknown_products: list[str]
    cache_layer: str | None
    cache_age_seconds: float | None


@dataclass
class _Work:
    """A ranking that is being computed, and how many wait for it."""

    task: asyncio.Task[Ranking]
    num_waiting: int = 0


class PageData(NamedTuple):
    """What only the page asks for.

    Attributes:
        suggestions: while somebody types.
        examples: users with long histories, the longest first.
    """

    suggestions: Suggestions
    examples: list[str]


@dataclass
class _Generation:
    """An export in use, and what belongs to it.

    BM25 takes as long as tower and index together, and goes question by question. So those that are fused have a thread
    of their own, and no other waits for them.
    """

    searcher: Searcher
    page: PageData | None
    cache: RankingCache
    batcher: Batcher[Question, Ranking]
    fusing_batcher: Batcher[Question, Ranking]
    under_way: dict[Any, _Work] = field(default_factory=dict)
    num_users: int = 0
    is_retired: bool = False
    is_free: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def num_waiting(self) -> int:
        """Questions that wait for a thread."""
        return self.batcher.num_waiting + self.fusing_batcher.num_waiting

    async def rank(self, question: Question) -> Ranking:
        """The answer, of the thread that is for such questions."""
        return await (self.fusing_batcher if question.fusion else self.batcher).ask(question)

    async def close(self) -> None:
        """Answer what waits, then end the threads."""
        await asyncio.gather(self.batcher.close(), self.fusing_batcher.close())


class Service:
    """A run, served; all methods are for one event loop.

    Args:
        run_dir: a run with an export.
        settings: the `serving` settings of its configuration.
        metrics: what is counted.
    """

    def __init__(self, run_dir: Path, settings: ServingConfig, metrics: Metrics) -> None:
        self.run_dir = run_dir
        self.settings = settings
        self.metrics = metrics
        self._now: _Generation | None = None
        self._loading = asyncio.Lock()
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def searcher(self) -> Searcher:
        """Of the export in use. Raises `UnavailableError` before there is one."""
        return self._current().searcher

    @property
    def page(self) -> PageData:
        """What only the page asks for; there only with `serving.page`."""
        page = self._current().page
        assert page is not None, "the page's paths are there only with it"
        return page

    @property
    def is_ready(self) -> bool:
        """Whether requests can be answered."""
        return self._now is not None

    async def start(self) -> None:
        """Load the export and answer a first query with it. Raises `InputError` where that fails."""
        async with self._loading:
            try:
                self._now = await self._load()
            except Exception as error:
                raise InputError(self._reason(error)) from error

    async def search(self, request: Request) -> Answer:
        """Answer a request.

        Raises:
            InputError: see `Searcher.question`.
            UnavailableError: nothing is loaded yet, or too many wait.
        """
        async with self._in_use() as generation:
            searcher = generation.searcher
            asked = _as_anybody(request, searcher)
            question = searcher.question(asked)
            begin = time.perf_counter()
            found = generation.cache.get(request, question)
            self.metrics.part("cache", time.perf_counter() - begin)
            self.metrics.looked_up(found)
            if found is not None:
                ranking = found.ranking
            else:
                ranking = await self._ranked(generation, request, question)
            return Answer(
                hits=searcher.hits(request, ranking),
                run_id=str(searcher.manifest["run_id"]),
                is_known_user=None if request.user is None else asked.user is not None,
                unknown_products=searcher.reader.unknown_products(request),
                cache_layer=None if found is None else found.layer,
                cache_age_seconds=None if found is None else found.age_seconds,
            )

    async def reload(self, *, any_run: bool = False, wait: bool = False) -> bool:
        """Take up the export that is there now; requests under way end with the old one.

        Args:
            any_run: also take the export of another run than the one that is served.
            wait: for a reload that is under way, and then look whether it took up what is there; else it is refused.

        Returns:
            False where it is the one that is served already.

        Raises:
            RefusedError: it does not fit or does not load, or another reload is under way.
        """
        if self._loading.locked() and not wait:
            raise RefusedError("a reload is under way already")
        async with self._loading:
            old = self._current()
            try:
                if not self._is_new(old, any_run):
                    self.metrics.reloads.labels("unchanged").inc()
                    return False
                self._now = await self._load()
            except Exception as error:  # whatever is wrong with the new one, the old one still serves
                self.metrics.reloads.labels("refused").inc()
                raise RefusedError(
                    self._reason(error),
                    # a file that cannot be opened now is told as bad input too
                    is_final=isinstance(error, InputError) and not isinstance(error.__context__, OSError),
                ) from error
            self.metrics.reloads.labels("loaded").inc()
            self._retire(old)
            return True

    async def watch(self, report: Callable[[str], None]) -> None:
        """Reload whenever the manifest changes, for ever; what fails for no fault of the export is tried again.

        Args:
            report: is told in a line what happened.
        """
        loop = asyncio.get_running_loop()
        tried, failures, again_at = None, 0, 0.0
        while True:
            await asyncio.sleep(self.settings.watch_seconds)
            try:
                manifest = await asyncio.to_thread(_manifest, self.run_dir)
            except InputError:
                continue  # an export is being put there
            if manifest != tried:
                tried, failures, again_at = manifest, 0, 0.0
            if not self.is_ready or loop.time() < again_at:
                continue
            try:
                if await self.reload(wait=True):
                    when = self.searcher.refreshed
                    about = "" if when is None else f", catalogue refreshed on {when}"
                    report(f"reloaded: {len(self.searcher.catalogue):,} products{about}")
                failures = 0
            except RefusedError as error:
                wait = math.inf if error.is_final else self.settings.watch_seconds * 2 ** min(failures, _MOST_DOUBLINGS)
                failures, again_at = failures + 1, loop.time() + wait
                report(f"not reloaded: {error}" + ("" if error.is_final else f"; tried again in {wait:g} s"))

    async def close(self) -> None:
        """Answer what is under way, then let go of everything."""
        if self._now is not None:
            self._retire(self._now)
            self._now = None
        await asyncio.gather(*self._closing)

    def refresh_gauges(self) -> None:
        """Bring the metrics up to date that are values of now."""
        if self._now is not None:
            self.metrics.waiting.set(self._now.num_waiting)
            for layer, size in self._now.cache.sizes.items():
                self.metrics.cache_size.labels(layer).set(size)
            for layer, num_bytes in self._now.cache.num_bytes.items():
                self.metrics.cache_bytes.labels(layer).set(num_bytes)

    def _current(self) -> _Generation:
        if self._now is None:
            raise UnavailableError("the export is being loaded; try again later")
        return self._now

    @asynccontextmanager
    async def _in_use(self) -> AsyncIterator[_Generation]:
        generation = self._current()
        generation.num_users += 1
        try:
            yield generation
        finally:
            generation.num_users -= 1
            if generation.is_retired and not generation.num_users:
                generation.is_free.set()

    async def _ranked(self, generation: _Generation, request: Request, question: Question) -> Ranking:
        """Compute a ranking; whoever asks the same meanwhile waits for it too."""
        key = question.key
        work = generation.under_way.get(key)
        if work is None:
            work = _Work(asyncio.get_running_loop().create_task(generation.rank(question)))
            generation.under_way[key] = work
        else:
            self.metrics.joined.inc()
        work.num_waiting += 1
        try:
            ranking = await asyncio.shield(work.task)  # one who gives up must not take the answer from the others
        finally:
            work.num_waiting -= 1
            if not work.num_waiting:
                work.task.cancel()  # has no effect where it is done
                if generation.under_way.get(key) is work:
                    del generation.under_way[key]
        return generation.cache.put(request, question, ranking)  # for each: who asks is another's key

    async def _load(self) -> _Generation:
        settings = self.settings
        cache = RankingCache(
            settings.cache,
            size=settings.cache_size,
            num_bytes=settings.cache_bytes,
            user_ttl_seconds=settings.user_ttl_seconds,
            features_ttl_seconds=settings.features_ttl_seconds,
        )
        before = await asyncio.to_thread(_manifest, self.run_dir)
        is_over = threading.Event()
        try:
            searcher, page = await asyncio.to_thread(self._read_export, is_over)
        finally:
            is_over.set()  # a thread cannot be cancelled, and a process that is to end would wait for it
        batcher, fusing_batcher = self._batcher(searcher), self._batcher(searcher)
        try:
            await batcher.run(lambda: searcher.warm_up(settings.max_batch))
            # only now: what is lazy was read in the warm-up
            if await asyncio.to_thread(_manifest, self.run_dir) != before or searcher.manifest != before:
                raise InputError(f"{self.run_dir / 'export'}: was replaced while it was loaded; reload again")
        except BaseException:
            await batcher.close()
            raise
        searcher.observe = self.metrics.part  # only now: the first calls take long
        self.metrics.products.set(len(searcher.catalogue))
        self.metrics.loaded.set(time.time())
        self.metrics.info.clear()
        self.metrics.info.labels(str(searcher.manifest.get("run_id")), str(searcher.manifest.get("uepp_version"))).set(
            1
        )
        return _Generation(searcher, page, cache, batcher, fusing_batcher)

    def _reason(self, error: Exception) -> str:
        """Why the export was not loaded, in one line."""
        reason = " ".join(str(error).split()) or type(error).__name__
        return reason if isinstance(error, InputError) else f"{self.run_dir / 'export'}: does not load ({reason})"

    def _batcher(self, searcher: Searcher) -> Batcher[Question, Ranking]:
        return Batcher(
            searcher.rank,
            max_batch=self.settings.max_batch,
            max_waiting=self.settings.max_waiting,
            prepare=lambda: _limit_threads(self.settings.threads),
            on_batch=self.metrics.batch.observe,
            on_wait=lambda seconds: self.metrics.part("queue", seconds),
        )

    def _read_export(self, is_over: threading.Event) -> tuple[Searcher, PageData | None]:
        def go_on() -> None:
            if is_over.is_set():
                raise UnavailableError("nobody waits for the export any more")

        searcher = Searcher(self.run_dir, depth=self.settings.depth, go_on=go_on)
        if not self.settings.page:
            return searcher, None
        suggestions = Suggestions(self.run_dir / "export", searcher.catalogue, searcher.people)
        return searcher, PageData(suggestions, searcher.people.most_active(_NUM_EXAMPLES))

    def _is_new(self, old: _Generation, any_run: bool) -> bool:
        """Whether the export that is there is another one. Raises `InputError` where it is of another run."""
        manifest = _manifest(self.run_dir)
        served = old.searcher.manifest
        if manifest == served:
            return False
        if manifest.get("run_id") != served.get("run_id") and not any_run:
            raise InputError(
                f"{self.run_dir / 'export' / MANIFEST}: of run {manifest.get('run_id')}, served is "
                f"{served.get('run_id')}; restart the server, or reload with any_run"
            )
        return True

    def _retire(self, generation: _Generation) -> None:
        """Close a generation when its last request is answered."""
        generation.is_retired = True
        if not generation.num_users:
            generation.is_free.set()

        async def close() -> None:
            await generation.is_free.wait()
            await generation.close()

        task = asyncio.get_running_loop().create_task(close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


def _as_anybody(request: Request, searcher: Searcher) -> Request:
    """Without a user of whom the export knows nothing: new people search too."""
    reads = searcher.reader.reads_histories or request.rerank
    is_known = request.user is not None and reads and request.user in searcher.people
    return request if is_known else replace(request, user=None)


def _manifest(run_dir: Path) -> dict[str, Any]:
    return read_json(run_dir / "export" / MANIFEST)


def _limit_threads(number: int | None) -> None:
    if number is not None:
        import faiss

        faiss.omp_set_num_threads(number)  # counts for the thread that calls it
