"""Batches form while the worker is busy; the worker here is held by events, so nothing depends on time."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from uepp.serving.batching import Batcher, UnavailableError

SECONDS = 60.0  # a test that hangs fails


class Worker:
    """Doubles numbers; a batch is answered when it is let go."""

    def __init__(self, *, held: bool = True) -> None:
        self.batches: list[list[int]] = []
        self.threads: set[str] = set()
        self.started = threading.Semaphore(0)
        self._gate = threading.Semaphore(0)
        self._held = held

    def __call__(self, numbers: Sequence[int]) -> list[int]:
        self.batches.append(list(numbers))
        self.threads.add(threading.current_thread().name)
        self.started.release()
        if self._held:
            assert self._gate.acquire(timeout=SECONDS)
        if 13 in numbers:
            raise ZeroDivisionError("13")
        return [2 * number for number in numbers]

    def let_go(self, batches: int = 1) -> None:
        for _ in range(batches):
            self._gate.release()

    async def has_started(self) -> None:
        assert await asyncio.to_thread(self.started.acquire, timeout=SECONDS)


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), SECONDS))


def asking(batcher: Batcher[int, int], *numbers: int) -> list[asyncio.Task[int]]:
    return [asyncio.ensure_future(batcher.ask(number)) for number in numbers]


async def turn() -> None:
    """Let every task that can go on go on."""
    for _ in range(5):
        await asyncio.sleep(0)


def test_one_alone_is_answered_at_once() -> None:
    async def test() -> None:
        worker = Worker(held=False)
        batcher = Batcher(worker, max_batch=4, max_waiting=10)
        assert await batcher.ask(21) == 42
        assert await batcher.ask(1) == 2
        assert worker.batches == [[21], [1]]
        await batcher.close()

    run(test)


def test_who_comes_while_the_worker_is_busy_is_the_next_batch() -> None:
    async def test() -> None:
        worker, sizes, waits = Worker(), [], []
        batcher = Batcher(worker, max_batch=3, max_waiting=10, on_batch=sizes.append, on_wait=waits.append)
        first = asking(batcher, 1)
        await worker.has_started()
        rest = asking(batcher, 2, 3, 4, 5)
        await turn()
        assert batcher.num_waiting == 4
        worker.let_go(3)
        assert await asyncio.gather(*first, *rest) == [2, 4, 6, 8, 10]
        assert worker.batches == [[1], [2, 3, 4], [5]]
        assert sizes == [1, 3, 1]
        assert len(waits) == 5
        assert len(worker.threads) == 1
        await batcher.close()

    run(test)


def test_as_many_wait_as_may() -> None:
    async def test() -> None:
        worker = Worker()
        batcher = Batcher(worker, max_batch=8, max_waiting=2)
        first = asking(batcher, 1)
        await worker.has_started()
        waiting = asking(batcher, 2, 3)
        await turn()
        with pytest.raises(UnavailableError, match="2 requests wait already"):
            await batcher.ask(4)
        worker.let_go(2)
        assert await asyncio.gather(*first, *waiting) == [2, 4, 6]
        worker.let_go()
        assert await batcher.ask(4) == 8, "there is room again"
        await batcher.close()

    run(test)


def test_who_gives_up_makes_room() -> None:
    """They counted until the batch ended, and others were turned away though nobody waited."""

    async def test() -> None:
        worker = Worker()
        batcher = Batcher(worker, max_batch=8, max_waiting=2)
        first = asking(batcher, 1)
        await worker.has_started()
        gone = asking(batcher, 2, 3)
        await turn()
        for one in gone:
            one.cancel()
        await turn()
        assert batcher.num_waiting == 0
        others = asking(batcher, 4, 5)
        await turn()
        assert batcher.num_waiting == 2
        worker.let_go(2)
        assert await asyncio.gather(*first, *others) == [2, 8, 10]
        await batcher.close()

    run(test)


def test_who_gives_up_is_not_computed() -> None:
    async def test() -> None:
        worker = Worker()
        batcher = Batcher(worker, max_batch=8, max_waiting=10)
        first = asking(batcher, 1)
        await worker.has_started()
        gone, stays = asking(batcher, 2, 3)
        await turn()
        gone.cancel()
        await turn()
        worker.let_go(2)
        assert await asyncio.gather(*first, stays) == [2, 6]
        assert worker.batches == [[1], [3]]
        await batcher.close()

    run(test)


def test_who_gives_up_in_the_middle_does_not_harm_the_others() -> None:
    async def test() -> None:
        worker = Worker()
        batcher = Batcher(worker, max_batch=8, max_waiting=10)
        first = asking(batcher, 1)
        await worker.has_started()
        gone, stays = asking(batcher, 2, 3)
        worker.let_go()
        await worker.has_started()
        gone.cancel()
        await turn()
        worker.let_go()
        assert await asyncio.gather(*first, stays) == [2, 6]
        assert gone.cancelled()
        await batcher.close()

    run(test)


def test_one_bad_question_does_not_spoil_its_batch() -> None:
    async def test() -> None:
        worker = Worker()
        batcher = Batcher(worker, max_batch=8, max_waiting=10)
        first = asking(batcher, 1)
        await worker.has_started()
        rest = asking(batcher, 2, 13, 3)
        await turn()
        worker.let_go(10)
        answers = await asyncio.gather(*first, *rest, return_exceptions=True)
        assert [answers[0], answers[1], answers[3]] == [2, 4, 6]
        assert isinstance(answers[2], ZeroDivisionError)
        assert worker.batches == [[1], [2, 13, 3], [2], [13], [3]]
        assert await batcher.ask(5) == 10, "the worker lives on"
        await batcher.close()

    run(test)


def test_closing_answers_what_waits() -> None:
    async def test() -> None:
        worker = Worker()
        batcher = Batcher(worker, max_batch=1, max_waiting=10)
        asked = asking(batcher, 1, 2)
        await worker.has_started()
        closing = asyncio.ensure_future(batcher.close())
        await turn()
        assert not closing.done()
        worker.let_go(2)
        await closing
        assert await asyncio.gather(*asked) == [2, 4]

    run(test)


def test_what_is_prepared_is_prepared_in_the_thread() -> None:
    async def test() -> None:
        names: list[str] = []

        def note() -> None:
            names.append(threading.current_thread().name)

        worker = Worker(held=False)
        batcher = Batcher(worker, max_batch=1, max_waiting=1, prepare=note)
        await batcher.run(note)
        await batcher.ask(1)
        assert names == [*worker.threads, *worker.threads]
        await batcher.close()

    run(test)
