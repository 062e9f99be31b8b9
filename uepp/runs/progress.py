"""Progress of a training on standard error, and the numbers of a row of its log."""

import sys
import time

import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_REFRESH_SECONDS = 0.5
_LINE_SECONDS = 10.0


class StepReport:
    """What is shown of the steps of a run, all of them counted since its start.

    Args:
        max_steps: of the whole run.
        done: steps done before.
        unit: what is counted, in the plural.
        verbose: 0 silent, 1 bar, 2 a line now and then.
    """

    def __init__(self, max_steps: int, done: int, unit: str, verbose: int) -> None:
        self._max_steps = max_steps
        self._unit = unit
        self._verbose = verbose
        self._losses: list[tf.Tensor] = []
        self._num_seen = 0
        self._is_first = True
        self._numbers = ""
        self._row_step = self._first_step = done
        self._row_time = self._first_time = self._shown_time = self._line_time = time.perf_counter()
        self.bar = Progress(
            TextColumn("  "),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[numbers]}"),
            console=Console(stderr=True),
            disable=verbose != 1,
            auto_refresh=False,
        )
        self._task = self.bar.add_task("", total=max_steps, completed=done, numbers="")

    def add(self, loss: tf.Tensor, number: int) -> None:
        """Remember a step: its loss, which is read only for a row, and how many examples it took."""
        self._losses.append(loss)
        if self._is_first:  # it builds the graph, and says nothing of the speed
            self._is_first = False
            self._row_step += 1
            self._row_time = self._first_time = time.perf_counter()
            return
        self._num_seen += number

    def row(self, done: int) -> dict[str, float]:
        """Mean loss, and speed, since the row before."""
        now = time.perf_counter()
        seconds = now - self._row_time
        loss = float(np.mean([float(value) for value in self._losses]))
        steps = done - self._row_step
        speed, each = (self._num_seen / seconds, seconds / steps) if steps else (0.0, 0.0)
        self._losses, self._num_seen, self._row_step, self._row_time = [], 0, done, now
        self._numbers = f"{speed:,.0f} {self._unit}/s  loss {loss:.3f}"
        return {"loss": loss, f"{self._unit}_per_second": speed, "step_seconds": each}

    def show(self, text: str) -> None:
        """Add something to the numbers that are shown; what it took to know it is no training."""
        self._numbers += f"  {text}"
        self._row_time = time.perf_counter()

    def advance(self, done: int, *, is_last: bool) -> None:
        """Move the bar, or print a line now and then."""
        now = time.perf_counter()
        if self._verbose == 1 and (is_last or now - self._shown_time > _REFRESH_SECONDS):
            self._shown_time = now
            self.bar.update(self._task, completed=done, numbers=self._numbers, refresh=True)
        if self._verbose == 2 and (is_last or now - self._line_time > _LINE_SECONDS):
            self._line_time = now
            left = (self._max_steps - done) * (now - self._first_time) / max(1, done - self._first_step - 1)
            print(f"  step {done:,}/{self._max_steps:,}  {left:,.0f} s left  {self._numbers}", file=sys.stderr)
