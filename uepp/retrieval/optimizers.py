"""Black-box optimisation behind two methods: suggest a point, observe its value."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

Params = dict[str, Any]


@dataclass(frozen=True)
class Axis:
    """What one parameter may be: some values in their order, or a range on a logarithmic scale.

    Attributes:
        name: of the parameter.
        values: allowed ones; empty: a range.
        low: smallest number of a range, above 0.
        high: largest.
        is_whole: whether only whole numbers.
        is_ordered: whether neighbouring values are alike.
    """

    name: str
    values: tuple[Any, ...] = ()
    low: float = 1
    high: float = 1
    is_whole: bool = True
    is_ordered: bool = True


class Optimizer(Protocol):
    """Finds the point of the lowest value."""

    def suggest(self) -> Params:
        """A value for every axis, given what was observed; it may be one that was observed before."""
        ...

    def observe(self, params: Params, value: float) -> None:
        """Tell the value of a point, suggested or not."""
        ...


class SkoptOptimizer:
    """Bayesian optimisation by scikit-optimize.

    Args:
        axes: the space.
        seed: of its draws; the same observations give the same suggestion.
        estimator: `GP` for numbers, `ET` (extremely random trees) where values jump.
        num_random: points observed before the estimator is asked.
    """

    def __init__(self, axes: Sequence[Axis], seed: int, estimator: str = "GP", num_random: int = 2) -> None:
        self._axes = tuple(axes)
        self._seed = seed
        self._estimator = estimator
        self._num_random = num_random
        self._points: list[list[Any]] = []
        self._values: list[float] = []

    def suggest(self) -> Params:
        """See `Optimizer`."""
        from skopt import Optimizer as Skopt

        with warnings.catch_warnings():
            # It says when a kernel's bound is met, and when it would come back to a point: callers see to that.
            warnings.simplefilter("ignore")
            optimizer = Skopt(
                [_dimension(axis) for axis in self._axes],
                base_estimator=self._estimator,
                n_initial_points=self._num_random,
                acq_func="EI",
                acq_optimizer="sampling",
                random_state=self._seed + len(self._points),
            )
            if self._points:
                optimizer.tell(self._points, self._values)
            point = optimizer.ask()
        return {axis.name: _decoded(axis, at) for axis, at in zip(self._axes, point, strict=True)}

    def observe(self, params: Params, value: float) -> None:
        """See `Optimizer`."""
        self._points.append([_encoded(axis, params[axis.name]) for axis in self._axes])
        self._values.append(value)


def _dimension(axis: Axis) -> Any:
    from skopt.space import Categorical, Integer, Real

    if not axis.values:
        return Real(math.log(axis.low), math.log(axis.high))
    places = len(axis.values)
    if axis.is_ordered and places > 1:
        return Integer(0, places - 1)
    return Categorical(list(range(places)))


def _encoded(axis: Axis, value: Any) -> float | int:
    if axis.values:
        return axis.values.index(value)
    return min(max(math.log(value), math.log(axis.low)), math.log(axis.high))


def _decoded(axis: Axis, at: Any) -> Any:
    if axis.values:
        return axis.values[int(at)]
    value = min(max(math.exp(float(at)), axis.low), axis.high)
    return round(value) if axis.is_whole else round(value, 2)
