"""The export, its boosting, the service and the evaluation."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator

from uepp.config.base import Stage
from uepp.index_families import parse_spec


class ExportConfig(Stage):
    """SavedModels, vectors and the Faiss index."""

    index: str = Field(
        "auto",
        description="FAMILY[:name=value,…] (uepp/index_families.py), or auto: what uepp tune chose, else by the number "
        "of products",
    )
    embed_batch_size: int = Field(1_024, ge=1)
    fusion_at: tuple[int, ...] = Field(
        (10, 100),
        min_length=1,
        description="K of the Recall@K whose mean the fusion with BM25 is to maximise, on the selection days",
    )

    @field_validator("index")
    @classmethod
    def _known_index(cls, text: str) -> str:
        return str(parse_spec(text))

    @field_validator("fusion_at")
    @classmethod
    def _different(cls, numbers: tuple[int, ...]) -> tuple[int, ...]:
        if min(numbers) < 1 or len(set(numbers)) < len(numbers):
            raise ValueError("must be different numbers of at least 1")
        return tuple(sorted(numbers))


class BoostingConfig(Stage):
    """Quality features beside the vectors, and how far their weights may go (UEPPR IV)."""

    features: tuple[str, ...] | None = Field(
        None, min_length=1, description="quality features; none: all that the data have"
    )
    at: int = Field(100, ge=1, description="K of the Recall@K that the weights maximise")
    num_trials: int = Field(40, ge=1, description="weightings that are tried, for each third of the requests held out")
    max_boost: float = Field(
        0.5,
        gt=0,
        description="the most that quality may set two products apart, as a share of the similarity between the first "
        "and the K-th product of a request",
    )

    @field_validator("features")
    @classmethod
    def _each_once(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if names is not None and len(set(names)) != len(names):
            raise ValueError("each feature only once")
        return names


class ServingConfig(Stage):
    """Search as a service (UEPPR V); none of it changes what was trained."""

    may_be_off: ClassVar[frozenset[str]] = frozenset({"min_similarity"})

    depth: int = Field(
        200, ge=1, description="products that are ranked and cached for a request, at least (with fusion 1,000)"
    )
    max_results: int = Field(1_000, ge=1, description="largest offset + k")
    min_similarity: Annotated[float, Field(ge=-1, le=1)] | Literal["auto"] | None = Field(
        None,
        description="products the towers find below it are left out, whatever their boost; "
        "auto: loss.threshold_negative; none or off: all stay",
    )
    cache: Literal["features", "user", "layered", "none"] = Field(
        "features",
        description="key of a cached ranking: a hash of what the query tower reads, who asks, first who and then that",
    )
    cache_size: int = Field(10_000, ge=1, description="rankings kept in each layer, at most")
    cache_bytes: int = Field(
        268_435_456,
        ge=1_048_576,
        description="of the rankings in each layer, at most: 6 kB each at depth 200, 90 kB at depth 3,200",
    )
    user_ttl_seconds: float = Field(60.0, gt=0, description="how long a ranking is kept for who asked")
    features_ttl_seconds: float = Field(3_600.0, gt=0, description="how long for all with the same features")
    max_batch: int = Field(32, ge=1, description="requests that go through the tower and the index together")
    max_waiting: int = Field(256, ge=1, description="requests that wait for the tower; more are answered with 503")
    timeout_seconds: float = Field(
        10.0, gt=0, description="for a request's headers, then for its body, and again for its answer"
    )
    shutdown_seconds: float = Field(30.0, gt=0, description="how long requests under way may take after SIGTERM")
    max_body_bytes: int = Field(262_144, ge=1_024, description="of a request; larger ones are answered with 413")
    max_connections: int = Field(
        1_000,
        ge=1,
        description="with a request under way at once; more are answered with 503, but for health and readiness",
    )
    threads: int | None = Field(
        None,
        ge=1,
        description="at most, of the tower and of the index each (a search takes one for every eight queries); none: "
        "all cores",
    )
    page: bool = Field(True, description="the page, and the people and suggestions that it shows")
    allowed_hosts: tuple[str, ...] = Field(
        (), description="names the server may be called by besides its address, for a proxy before it; *: any"
    )
    watch_seconds: float = Field(5.0, gt=0, description="with --watch, how often to look for a new export")


class EvaluationConfig(Stage):
    """What the closing table and `metrics.json` hold."""

    recall_at: tuple[int, ...] = Field((10, 100, 1000), min_length=1)
    segments: Literal["auto", "query_count", "rarest_word"] = Field(
        "auto",
        description="head/torso/tail by the query's count in the training window, or, without traffic, "
        "by the training count of its rarest word; auto: query_count where at least a tenth of the requests "
        "have a query that was seen in training",
    )

    @field_validator("recall_at")
    @classmethod
    def _increasing(cls, values: tuple[int, ...]) -> tuple[int, ...]:
        if min(values) < 1 or list(values) != sorted(set(values)):
            raise ValueError("must be increasing and at least 1")
        return values
