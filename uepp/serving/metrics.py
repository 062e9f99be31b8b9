"""What a server counts, in the text format of Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from uepp.serving.cache import Found

_SECONDS = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
_AGES = (1, 5, 15, 60, 300, 900, 3_600, 14_400, 86_400)
_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """Counters of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter("uepp_requests", "answered requests", ["endpoint", "status"], registry=registry)
        self.seconds = Histogram(
            "uepp_request_seconds", "from request to answer", ["endpoint"], buckets=_SECONDS, registry=registry
        )
        self._part = Histogram(
            "uepp_part_seconds",
            "parts of a search: features, cache (one request), queue (one that the cache does not know), tower and "
            "index (a batch), lexical (BM25) and fusion (one request), ranker (a batch), hits (one request)",
            ["part"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.batch = Histogram(
            "uepp_batch_size", "requests in a call of the tower", buckets=_BATCHES, registry=registry
        )
        self.waiting = Gauge("uepp_waiting_requests", "requests that wait for the tower", registry=registry)
        self._cache = Counter(
            "uepp_cache_lookups", "by the layer that knew the answer; none: a miss", ["layer"], registry=registry
        )
        self.joined = Counter(
            "uepp_cache_joined", "misses that waited for the same question of somebody else", registry=registry
        )
        self._stale = Counter(
            "uepp_cache_stale_hits",
            "hits whose ranking was computed for other features than those of now",
            registry=registry,
        )
        self._age = Histogram(
            "uepp_cache_hit_age_seconds",
            "age of a ranking when it is a hit",
            ["layer"],
            buckets=_AGES,
            registry=registry,
        )
        self.cache_size = Gauge("uepp_cache_rankings", "rankings in the cache", ["layer"], registry=registry)
        self.cache_bytes = Gauge(
            "uepp_cache_bytes", "memory of the rankings in the cache", ["layer"], registry=registry
        )
        self.reloads = Counter("uepp_reloads", "by result: loaded, unchanged, refused", ["result"], registry=registry)
        self.products = Gauge("uepp_products", "products that are searched", registry=registry)
        self.loaded = Gauge("uepp_export_loaded_timestamp_seconds", "when the export was loaded", registry=registry)
        self.info = Gauge(
            "uepp_export_info", "the export that is served", ["run_id", "uepp_version"], registry=registry
        )
        ProcessCollector(registry=registry)

    def part(self, part: str, seconds: float) -> None:
        """A part of a search took so long."""
        self._part.labels(part).observe(seconds)

    def looked_up(self, found: Found | None) -> None:
        """The cache was asked."""
        self._cache.labels("none" if found is None else found.layer).inc()
        if found is not None:
            self._age.labels(found.layer).observe(found.age_seconds)
            self._stale.inc(found.is_stale)

    def text(self) -> bytes:
        """Everything, for Prometheus."""
        return generate_latest(self.registry)
