"""Micro-batching: requests that come while the worker is busy are its next batch.

A request that finds the worker idle starts at once, so nothing is ever delayed in the hope of company; the busier the
server, the larger the batches.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

Q = TypeVar("Q")
A = TypeVar("A")


class UnavailableError(Exception):
    """Nothing is wrong with the request; it may be sent again later."""


def _ignore(value: float) -> None:
    """Nobody counts."""


class Batcher(Generic[Q, A]):
    """One thread that answers questions in batches; all methods are for one event loop.

    Args:
        work: answers some questions, in their order.
        max_batch: questions at once.
        max_waiting: questions that wait for the thread; one more is refused.
        prepare: called first of all in the thread.
        on_batch: is told the size of each batch.
        on_wait: is told the seconds that each question waited.
    """

    def __init__(
        self,
        work: Callable[[Sequence[Q]], Sequence[A]],
        *,
        max_batch: int,
        max_waiting: int,
        prepare: Callable[[], None] | None = None,
        on_batch: Callable[[float], None] = _ignore,
        on_wait: Callable[[float], None] = _ignore,
    ) -> None:
        self._work = work
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._on_batch, self._on_wait = on_batch, on_wait
        self._waiting: dict[asyncio.Future[A], tuple[Q, float]] = {}  # in the order in which they came
        self._thread = ThreadPoolExecutor(1, "uepp-search", initializer=prepare)
        self._running: asyncio.Task[None] | None = None

    @property
    def num_waiting(self) -> int:
        """Questions that wait for the thread."""
        return len(self._waiting)

    async def ask(self, question: Q) -> A:
        """The answer. Who gives up waiting takes their question out of the queue.

        Raises:
            UnavailableError: too many wait already.
        """
        if len(self._waiting) >= self._max_waiting:
            raise UnavailableError(f"{len(self._waiting)} requests wait already (serving.max_waiting); try again later")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[A] = loop.create_future()
        self._waiting[answer] = question, loop.time()
        if self._running is None or self._running.done():
            self._running = loop.create_task(self._run())
        try:
            return await answer
        finally:
            self._waiting.pop(answer, None)

    async def run(self, function: Callable[[], None]) -> None:
        """Run something in the thread, between batches."""
        await asyncio.get_running_loop().run_in_executor(self._thread, function)

    async def close(self) -> None:
        """Answer what waits, then end the thread."""
        if self._running is not None:
            await self._running
        self._thread.shutdown()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while batch := self._next_batch():
            self._on_batch(len(batch))
            for _, _, since in batch:
                self._on_wait(loop.time() - since)
            try:
                await self._answer(batch)
            except Exception as error:
                if len(batch) == 1:
                    self._fail(batch[0][1], error)
                else:
                    await self._answer_singly(batch)

    def _next_batch(self) -> list[tuple[Q, asyncio.Future[A], float]]:
        batch: list[tuple[Q, asyncio.Future[A], float]] = []
        while self._waiting and len(batch) < self._max_batch:
            answer = next(iter(self._waiting))
            question, since = self._waiting.pop(answer)
            if not answer.done():  # else whoever asked is about to take it out
                batch.append((question, answer, since))
        return batch

    async def _answer(self, batch: Sequence[tuple[Q, asyncio.Future[A], float]]) -> None:
        questions = [question for question, _, _ in batch]
        answers = await asyncio.get_running_loop().run_in_executor(self._thread, self._work, questions)
        for (_, future, _), answer in zip(batch, answers, strict=True):
            if not future.done():
                future.set_result(answer)

    async def _answer_singly(self, batch: Sequence[tuple[Q, asyncio.Future[A], float]]) -> None:
        """What failed together is tried one by one, so that one question does not spoil the others' answers."""
        for entry in batch:
            try:
                await self._answer([entry])
            except Exception as error:
                self._fail(entry[1], error)

    @staticmethod
    def _fail(future: asyncio.Future[A], error: Exception) -> None:
        if not future.done():
            future.set_exception(error)
