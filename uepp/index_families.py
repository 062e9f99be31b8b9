"""Families of indexes and their parameters, as one table; and specs, `FAMILY[:name=value,name=value]`.

Faiss answers an unknown parameter with a raw C++ error and names them differently from class to class, so every spec is
checked here first. Nothing heavy is imported: a configuration with a bad spec is refused at once.
"""

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from uepp.errors import InputError

Value = int | float | bool | str
Stage = Literal["build", "search"]

AUTO = "auto"
_CODED = "ivf-pq-fastscan"
_RERANKED = "ivf-pq-fastscan-rerank"
_FLAT_UP_TO = 50_000
_MIN_PQ_PRODUCTS = 16
_MAX_DEFAULT_NPROBE = 512
_PART_DIMENSIONS = 2


@dataclass(frozen=True)
class Parameter:
    """One parameter of a family.

    Attributes:
        name: in a spec.
        kind: what values it takes.
        stage: whether it shapes the index or only how it is searched.
        default: ours; none: it depends on the data, see `_from_data`.
        faiss: what Faiss takes where nothing is said; none: Faiss has to be told, and is told our default.
        low: smallest number.
        high: largest number.
        choices: texts that are allowed.
        tried: values that tuning builds with; of `nlist`: multiples of the default; of `subquantizers`: dimensions of a
            part, see `num_parts`.
        help: one line.
    """

    name: str
    kind: Literal["int", "float", "bool", "choice"]
    stage: Stage
    default: Value | None
    faiss: Value | None
    help: str
    low: float = 1
    high: float = 1_000_000
    choices: tuple[str, ...] = ()
    tried: tuple[Value, ...] = ()

    def parse(self, text: str) -> Value:
        """The value that a text means. Raises `ValueError`, in words, where it means none that is allowed."""
        if self.kind == "choice":
            if text not in self.choices:
                raise ValueError(f"{self.name}={text}: must be {' or '.join(self.choices)}")
            return text
        if self.kind == "bool":
            if text not in ("true", "false"):
                raise ValueError(f"{self.name}={text}: must be true or false")
            return text == "true"
        kind, noun = (int, "a whole number") if self.kind == "int" else (float, "a number")
        try:
            number = kind(text)
        except ValueError:
            number = math.nan
        if not self.low <= number <= self.high:
            raise ValueError(f"{self.name}={text}: must be {noun} from {self.low:,} to {self.high:,}")
        return number


@dataclass(frozen=True)
class Family:
    """A kind of index.

    Attributes:
        name: in a spec.
        parameters: all that can be said of it.
        help: one line.
    """

    name: str
    parameters: tuple[Parameter, ...]
    help: str

    def parameter(self, name: str) -> Parameter:
        """The parameter of a name. Raises `ValueError`, with the nearest name, where there is none."""
        names = [parameter.name for parameter in self.parameters]
        if name in names:
            return self.parameters[names.index(name)]
        if not names:
            raise ValueError(f"{self.name} has no parameters, got {name}")
        nearest = difflib.get_close_matches(name, names, n=1)
        hint = f"; did you mean {nearest[0]}?" if nearest else ""
        raise ValueError(f"{self.name} has no parameter {name}{hint} (it has {', '.join(names)})")


_NLIST = Parameter(
    "nlist", "int", "build", None, None,
    "cells of the k-means that the catalogue is divided into [default: the power of two next to 4·√products]",
    tried=(0.0625, 0.25, 0.5, 1.0, 2.0),
)  # fmt: skip
_NPROBE = Parameter(
    "nprobe", "int", "search", None, 1,
    f"cells that are searched, at most nlist [default: nlist / 8, at most {_MAX_DEFAULT_NPROBE}]",
)  # fmt: skip
_SUBQUANTIZERS = Parameter(
    "subquantizers", "int", "build", None, None,
    "parts that a vector is cut into, each a code of 4 bits, at most its dimensions [default: half the dimensions]",
    low=2, high=4_096, tried=(4, _PART_DIMENSIONS, 1),
)  # fmt: skip
_RESIDUAL = Parameter(
    "residual", "bool", "build", True, False,
    "encode what is left after the cell's centre, not the vector itself", tried=(True, False),
)  # fmt: skip
_PQ = (_NLIST, _SUBQUANTIZERS, _RESIDUAL, _NPROBE)

FAMILIES = {
    family.name: family
    for family in (
        Family("flat", (), help="exact: every product is compared"),
        Family(
            "hnsw",
            (
                Parameter(
                    "neighbors", "int", "build", 32, 32, "M, links of a product; the lowest layer has twice as many",
                    low=2, high=512, tried=(16, 32, 64),
                ),
                Parameter(
                    "ef_construction", "int", "build", 80, 40, "candidates that a new product's links are chosen from",
                    high=10_000, tried=(40, 80, 200, 400),
                ),
                Parameter(
                    "ef_search", "int", "search", 128, 16,
                    "a search ends when it knows so many nearer products; below K it loses results",
                ),
            ),
            help="a graph of near products that is walked greedily",
        ),
        Family("ivf-flat", (_NLIST, _NPROBE), help="the cells nearest to the query, compared exactly"),
        Family(_CODED, _PQ, help="the same cells, products as 4-bit codes in registers"),
        Family(
            _RERANKED,
            (
                *_PQ,
                Parameter(
                    "store", "choice", "build", "fp16", None,
                    "what is kept for re-ranking: half precision, or the vectors (flat), which cancels PQ's saving",
                    choices=("fp16", "flat"), tried=("fp16",),
                ),
                Parameter(
                    "rerank", "float", "search", 5.0, 1.0, "r: the best r·K by their codes are ranked anew",
                    high=1_000,
                ),
            ),
            help="the same, and the best r·K ranked anew (UEPPR V)",
        ),
    )
}  # fmt: skip


@dataclass(frozen=True)
class IndexSpec:
    """A family with some of its parameters, or `auto`.

    Attributes:
        family: its name.
        values: parameters by name; what is missing has its default.
    """

    family: str
    values: Mapping[str, Value]

    def __str__(self) -> str:
        """As it is written: parameters in the table's order."""
        if not self.values:
            return self.family
        order = [parameter.name for parameter in FAMILIES[self.family].parameters]
        pairs = (f"{name}={_written(self.values[name])}" for name in order if name in self.values)
        return f"{self.family}:{','.join(pairs)}"

    def only(self, stage: Stage) -> "IndexSpec":
        """The same family with the parameters of one stage."""
        names = {parameter.name for parameter in FAMILIES[self.family].parameters if parameter.stage == stage}
        return IndexSpec(self.family, {name: value for name, value in self.values.items() if name in names})

    def with_values(self, values: Mapping[str, Value]) -> "IndexSpec":
        """The same with other or more parameters."""
        return IndexSpec(self.family, {**self.values, **values})

    def number(self, name: str) -> int:
        """A whole number of a resolved spec."""
        return int(self.values[name])

    @property
    def codes(self) -> "IndexSpec | None":
        """What a family that re-ranks finds its candidates with, by itself; none: it does not re-rank."""
        if self.family != _RERANKED:
            return None
        names = {parameter.name for parameter in FAMILIES[_CODED].parameters}
        return IndexSpec(_CODED, {name: value for name, value in self.values.items() if name in names})

    @property
    def has_exact_scores(self) -> bool:
        """Whether the index's own scores are inner products, up to the rounding of half precision."""
        return self.family != _CODED


def parse_spec(text: str) -> IndexSpec:
    """Read `FAMILY[:name=value,…]`.

    Raises:
        ValueError: in words, without the text itself: unknown family or parameter, or a value out of its range.
    """
    name, colon, rest = text.partition(":")
    if name == AUTO and not colon:
        return IndexSpec(AUTO, {})
    if name not in FAMILIES:
        raise ValueError(f"unknown family; known are {', '.join(FAMILIES)}, {AUTO}, the last without parameters")
    family, values = FAMILIES[name], {}
    for pair in rest.split(",") if colon else ():
        key, equals, value = (part.strip() for part in pair.partition("="))
        if not equals:
            raise ValueError(f"expected {name}:name=value,… and got {pair!r} for a pair")
        parameter = family.parameter(key)
        if key in values:
            raise ValueError(f"{key}: given twice")
        values[key] = parameter.parse(value)
    return IndexSpec(name, values)


def resolve(spec: IndexSpec, num_products: int, dim: int) -> IndexSpec:
    """A spec with a value for every parameter, checked against the data.

    Args:
        spec: of a family, not `auto`.
        num_products: N.
        dim: d of the vectors that are indexed.

    Raises:
        InputError: more cells than products, more cells searched than there are, more sub-quantisers than dimensions,
            or fewer products than 4-bit codes need.
    """
    family = FAMILIES[spec.family]
    values = dict(spec.values)
    for parameter in family.parameters:
        if parameter.name not in values:
            default = parameter.default
            values[parameter.name] = (
                _from_data(parameter.name, values, num_products, dim) if default is None else default
            )
    resolved = IndexSpec(spec.family, values)
    if "subquantizers" in values:
        if num_products < _MIN_PQ_PRODUCTS:
            raise InputError(f"index {spec}: needs at least {_MIN_PQ_PRODUCTS} products, there are {num_products}")
        if resolved.number("subquantizers") > dim:
            raise InputError(
                f"index {spec}: subquantizers={values['subquantizers']}: must be at most the {dim} dimensions"
            )
    if "nlist" in values:
        if resolved.number("nlist") > num_products:
            raise InputError(f"index {spec}: nlist={values['nlist']}: must be at most the {num_products:,} products")
        if resolved.number("nprobe") > resolved.number("nlist"):
            raise InputError(f"index {spec}: nprobe={values['nprobe']}: must be at most nlist, {values['nlist']}")
    return resolved


def faiss_defaults(family: str, num_products: int, dim: int) -> IndexSpec:
    """What Faiss does where it is told nothing it need not be told; its guidelines' nlist, our choice of codes."""
    given = {
        parameter.name: parameter.faiss for parameter in FAMILIES[family].parameters if parameter.faiss is not None
    }
    return resolve(IndexSpec(family, given), num_products, dim)


def num_parts(dim: int, width: int) -> int:
    """Sub-quantisers of which each encodes `width` dimensions, the last one perhaps fewer.

    All parts of Faiss' product quantiser have the same width, and what they lack is filled up with zeros: 67 parts of
    135 dimensions are 3 wide, and 22 of them would encode nothing.
    """
    return max(2, -(-dim // width))


def choose_family(num_products: int) -> str:
    """What `auto` means where nothing was tuned.

    Up to 50,000 products an exact search takes one or two milliseconds (128 dimensions, one core), and loses nothing.
    Above that, what the paper came to: at K = 1000 re-ranked FastScan is ahead of HNSW in recall, time and memory.
    """
    return "flat" if num_products <= _FLAT_UP_TO else _RERANKED


def _from_data(name: str, values: Mapping[str, Value], num_products: int, dim: int) -> int:
    if name == "nlist":
        wanted = 2 ** round(math.log2(4 * math.sqrt(num_products)))
        return max(1, min(wanted, num_products // 39))  # Faiss asks for 39 training points a centroid
    if name == "nprobe":
        return max(1, min(int(values["nlist"]) // 8, _MAX_DEFAULT_NPROBE))
    return num_parts(dim, _PART_DIMENSIONS)


def _written(value: Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.12g}" if isinstance(value, float) else str(value)
