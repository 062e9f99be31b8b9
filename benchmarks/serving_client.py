"""A server of its own, and many clients at once for it: closed loop and open loop over kept HTTP/1.1 connections."""

import asyncio
import json
import math
import os
import re
import resource
import selectors
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import h11
import numpy as np

_CHUNK = 65_536
_STOP_SECONDS = 60.0
_MOST_CONNECTIONS = 500
_BUCKET = re.compile(r"uepp_part_seconds_bucket\{(.*)\}")
_LABEL = re.compile(r'(\w+)="([^"]*)"')


class Question(NamedTuple):
    """A request as it goes over the wire; without a body it is a GET."""

    path: str
    body: bytes | None = None


class Reply(NamedTuple):
    """An answer.

    Attributes:
        seconds: from the moment when it was meant to be asked; in a closed loop that is when it was asked.
        late_seconds: from when it was meant to be asked until it was: timers, and a client without a processor.
        status: of HTTP; 0: the connection broke.
        body: as it came.
    """

    seconds: float
    late_seconds: float
    status: int
    body: bytes


@dataclass
class Load:
    """What clients saw.

    Attributes:
        seconds: from the first question to the last answer.
        replies: one a question, in the questions' order.
        client_seconds: of processor time in this process.
        others: processors that were busy for neither client nor server, on average; none: not known here.
        server: what the server's counters counted, by name and labels.
    """

    seconds: float
    replies: list[Reply]
    client_seconds: float
    others: float | None = None
    server: dict[str, float] = field(default_factory=dict)

    @property
    def per_second(self) -> float:
        """Answers."""
        return len(self.replies) / self.seconds

    def milliseconds(self, percentile: float) -> float:
        """Of the answers' time."""
        return 1_000 * float(np.percentile([reply.seconds for reply in self.replies], percentile))

    def problems(self) -> dict[int, int]:
        """How often each status came that is not 200."""
        statuses, counts = np.unique([reply.status for reply in self.replies], return_counts=True)
        return {int(status): int(count) for status, count in zip(statuses, counts, strict=True) if status != 200}

    def answers(self) -> list[dict[str, Any]]:
        """The content of those that came."""
        return [json.loads(reply.body) for reply in self.replies if reply.status == 200]

    def parts(self) -> dict[str, dict[str, float]]:
        """What the server spent in each part of a search: `count`, and milliseconds as `mean`, `p50` and `p99`.

        Percentiles are as exact as its histogram: within a bucket every time is taken to be as frequent.
        """
        counts, sums = self._by_part("count"), self._by_part("sum")
        buckets: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for name, value in self.server.items():
            if found := _BUCKET.fullmatch(name):
                labels = dict(_LABEL.findall(found[1]))
                buckets[labels["part"]].append((float(labels["le"]), value))
        return {
            part: {
                "count": count,
                "mean": 1_000 * sums[part] / count,
                **{f"p{percent}": 1_000 * _percentile(sorted(buckets[part]), count, percent) for percent in (50, 99)},
            }
            for part, count in counts.items()
            if count
        }

    def _by_part(self, figure: str) -> dict[str, float]:
        name = f'uepp_part_seconds_{figure}{{part="'
        return {key[len(name) : -2]: value for key, value in self.server.items() if key.startswith(name)}


class Connection:
    """One kept connection; it is opened again where the other side has closed it."""

    def __init__(self, address: str) -> None:
        split = urlsplit(address)
        self._host, self._port = str(split.hostname), int(split.port or 80)
        self._state: h11.Connection | None = None
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, question: Question) -> tuple[int, bytes]:
        """Status and body; status 0 where the connection breaks.

        A kept connection that breaks is opened again, once: servers close those that were idle for some time.
        """
        for is_kept in (True, False) if self._streams is not None else (False,):
            try:
                return await self._ask(question)
            except (OSError, h11.RemoteProtocolError):
                await self.close()
                if not is_kept:
                    break
        return 0, b""

    async def close(self) -> None:
        """Let go of it."""
        if self._streams is not None:
            writer, self._streams = self._streams[1], None
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _ask(self, question: Question) -> tuple[int, bytes]:
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, self._port)
            self._state = h11.Connection(h11.CLIENT)
        (reader, writer), state = self._streams, self._state
        assert state is not None
        headers = [("host", f"{self._host}:{self._port}")]
        if question.body is not None:
            headers += [("content-type", "application/json"), ("content-length", str(len(question.body)))]
        request = h11.Request(method="GET" if question.body is None else "POST", target=question.path, headers=headers)
        events: list[h11.Event] = [request, h11.EndOfMessage()]
        if question.body is not None:
            events.insert(1, h11.Data(question.body))
        writer.write(b"".join(state.send(event) or b"" for event in events))
        status, parts = 0, []
        while True:
            event = state.next_event()
            if event is h11.NEED_DATA:
                state.receive_data(await reader.read(_CHUNK))
            elif isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                parts.append(bytes(event.data))
            elif isinstance(event, h11.EndOfMessage):
                break
            else:
                raise h11.RemoteProtocolError("closed before the answer was whole")
        if state.our_state is h11.MUST_CLOSE or state.their_state is h11.MUST_CLOSE:
            await self.close()
        else:
            state.start_next_cycle()
        return status, b"".join(parts)


async def closed_loop(address: str, questions: Sequence[Question], clients: int) -> list[Reply]:
    """Each client asks as soon as it has its answer; together they ask every question once, in their order."""
    replies: list[Reply | None] = [None] * len(questions)
    left = iter(range(len(questions)))

    async def client() -> None:
        connection = Connection(address)
        for number in left:
            begin = time.perf_counter()
            status, body = await connection.ask(questions[number])
            replies[number] = Reply(time.perf_counter() - begin, 0.0, status, body)
        await connection.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    return [reply for reply in replies if reply is not None]


async def open_loop(address: str, questions: Sequence[Question], rate: float, rng: np.random.Generator) -> list[Reply]:
    """Questions arrive by a Poisson process, whatever became of those before them.

    An answer's time counts from the question's arrival. So a question that waits behind a slow one, here or in the
    server, is as late as its person would find it; in a closed loop it would not have been asked yet (coordinated
    omission).

    Args:
        address: of the server.
        questions: in the order of their arrivals.
        rate: arrivals a second, on average.
        rng: for them.
    """
    arrivals = time.perf_counter() + np.cumsum(rng.exponential(1 / rate, len(questions)))
    idle: list[Connection] = []
    room = asyncio.Semaphore(_MOST_CONNECTIONS)

    async def one(question: Question, arrival: float) -> Reply:
        async with room:
            connection = idle.pop() if idle else Connection(address)
            late = time.perf_counter() - arrival
            status, body = await connection.ask(question)
            idle.append(connection)
        return Reply(time.perf_counter() - arrival, late, status, body)

    tasks = []
    for question, arrival in zip(questions, arrivals.tolist(), strict=True):
        while (wait := arrival - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        tasks.append(asyncio.create_task(one(question, arrival)))
    replies = await asyncio.gather(*tasks)
    for connection in idle:
        await connection.close()
    return list(replies)


class Server:
    """A running `uepp serve`.

    Attributes:
        address: of it.
    """

    def __init__(self, process: subprocess.Popen[str], address: str) -> None:
        self._process = process
        self.address = address

    def loaded(self, ask: Callable[[], Awaitable[list[Reply]]]) -> Load:
        """What happens when clients ask; the server's counters are those of the meantime."""
        before, busy, own = self.counters(), _busy_seconds(), _own_seconds()
        begin = time.perf_counter()
        replies = _run(ask())
        seconds = time.perf_counter() - begin
        client = _own_seconds() - own
        after, all_busy = self.counters(), _busy_seconds()
        server = {name: value - before.get(name, 0.0) for name, value in after.items()}
        others = None
        if busy is not None and all_busy is not None:
            others = max(0.0, (all_busy - busy - client - server["process_cpu_seconds_total"]) / seconds)
        return Load(seconds, replies, client, others, server)

    def counters(self) -> dict[str, float]:
        """What `/metrics` says, by name and labels as they stand there."""
        (answer,) = _run(closed_loop(self.address, [Question("/metrics")], 1))
        lines = [line.rsplit(" ", 1) for line in answer.body.decode().splitlines() if line and not line.startswith("#")]
        return {name: float(value) for name, value in lines}


@contextmanager
def serving(run: Path, options: Sequence[str]) -> Iterator[Server]:
    """`uepp serve RUN` in a process of its own, on a free port of this machine, from its start to its end.

    Raises:
        RuntimeError: it does not start.
    """
    command = [sys.executable, "-m", "uepp.cli", "serve", str(run), "--port", "0", "--no-page", *options]
    environment = {name: value for name, value in os.environ.items() if name != "UEPP_TOKEN"}  # clients have none
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            line = process.stdout.readline() if process.stdout is not None else ""
            if " at http://" not in line:
                raise RuntimeError(f"{' '.join(command)}: did not start")
            yield Server(process, line.rsplit(" at ", 1)[1].strip())
        finally:
            process.terminate()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


def _percentile(buckets: Sequence[tuple[float, float]], count: float, percent: float) -> float:
    """Of upper edges and how many were not above them; beyond the last finite edge, that."""
    wanted, lower, below = count * percent / 100, 0.0, 0.0
    for edge, at_most in buckets:
        if at_most >= wanted:
            return lower if math.isinf(edge) else lower + (edge - lower) * (wanted - below) / (at_most - below)
        lower, below = edge, at_most
    return lower


def _run(asked: Awaitable[Any]) -> Any:
    """In a loop whose timers are exact: that of epoll rounds them up to whole milliseconds."""

    async def main() -> Any:
        return await asked

    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selectors.SelectSelector())) as runner:
        return runner.run(main())


def _own_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _busy_seconds() -> float | None:
    """Seconds of all processors that were not idle, of this machine since its start."""
    path = Path("/proc/stat")
    if not path.exists():
        return None
    user, nice, system, _idle, _wait, irq, soft_irq, *_ = map(int, path.read_text().split("\n", 1)[0].split()[1:])
    return (user + nice + system + irq + soft_irq) / os.sysconf("SC_CLK_TCK")
