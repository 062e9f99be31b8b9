"""The JSON of the server: what may be asked, and what is answered."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from uepp.serving.requests import Request

_Text = Annotated[str, Field(max_length=1_000)]
_Id = Annotated[str, Field(min_length=1, max_length=200)]
_Texts = Annotated[list[_Text], Field(max_length=100)]
_Ids = Annotated[list[_Id], Field(max_length=100)]


class SearchRequest(BaseModel):
    """A query, who asks, and what of the answer is wanted."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    query: str = Field(max_length=1_000, description="what a customer typed; letters or digits are in it")
    k: int = Field(10, ge=1, description="results")
    offset: int = Field(0, ge=0, description="results left out at the start, for the next page")
    user: _Id | None = Field(None, description="id of a person; their history before the end of training counts")
    session: _Id | None = Field(None, description="id of a visit, for the cache only")
    country: _Text | None = None
    region: _Text | None = None
    language: _Text | None = None
    zip: _Text | None = None
    latitude: float | None = Field(None, ge=-90, le=90, description="degrees; with longitude")
    longitude: float | None = Field(None, ge=-180, le=180, description="degrees; with latitude")
    recent_searches: _Texts | None = Field(
        None, description="latest first; replaces this part of the user's history, as the next ones do"
    )
    recent_shops: _Ids | None = Field(None, description="shops clicked; none: those of clicked_products")
    clicked_products: _Ids | None = Field(None, description="product ids, latest first")
    purchased_products: _Ids | None = Field(None, description="product ids, latest first")
    exclude: Annotated[list[_Id], Field(max_length=1_000)] = Field([], description="product ids to leave out")
    min_similarity: float | Literal["auto", "off"] | None = Field(
        None,
        description="leave out what the towers find below this cosine, whatever its boost; auto: what negatives were "
        "trained to stay below; off: leave out nothing; none: the server's setting. With fusion, what BM25 finds "
        "stays, however low its cosine",
    )
    fusion: bool = Field(
        False,
        description="fuse with BM25 by reciprocal ranks; brings back products that min_similarity leaves out, where "
        "BM25 finds them",
    )
    boosted: bool = Field(True, description="let quality count, where the export has a boosting")
    rerank: bool = Field(False, description="let the run's ranker order the first products that were found")

    def request(self, threshold: float | None, default: float | Literal["auto"] | None) -> Request:
        """For a `Searcher`.

        Args:
            threshold: what `auto` stands for; none: the same as `off`.
            default: the server's setting.
        """
        fields = self.model_dump(exclude_none=True)
        place = ("country", "region", "language", "zip", "latitude", "longitude")
        context = {name: fields.pop(name) for name in place if name in fields}
        wanted: Any = fields.pop("min_similarity", default)
        wanted = threshold if wanted == "auto" else None if wanted == "off" else wanted
        return Request(**fields, context={k: v for k, v in context.items() if v != ""}, min_similarity=wanted)


class HitModel(BaseModel):
    """One result."""

    product_id: str
    title: str
    similarity: float = Field(description="cosine of query and product")
    score: float = Field(
        description="of retrieval, whatever the ranker says: similarity and quality, or with fusion the sum of "
        "reciprocal ranks"
    )
    shop_id: str | None
    price: float | None
    country: str | None
    region: str | None
    towers_rank: int | None = Field(description="rank among what the towers found, from 1; null: they did not")
    lexical_rank: int | None = Field(description="rank among what BM25 found, from 1; null: it did not")
    ranker_rank: int | None = Field(
        description="place that the ranker gave it, from 1; null: it was not asked about it"
    )


class CacheModel(BaseModel):
    """Where the ranking came from."""

    layer: Literal["user", "features"] | None = Field(description="null: it was computed")
    age_seconds: float | None


class SearchResponse(BaseModel):
    """Products, best first, and how they came about."""

    query: str
    hits: list[HitModel]
    run_id: str
    known_user: bool | None = Field(description="whether the user's history counted; null: no user was given")
    unknown_products: list[str] = Field(description="clicked or purchased ones that the catalogue lacks: not counted")
    cache: CacheModel
    seconds: float = Field(description="spent in the server")


class Problem(BaseModel):
    """Why not, in one line."""

    detail: str


class ReloadRequest(BaseModel):
    """Which export to take up."""

    model_config = ConfigDict(extra="forbid")

    any_run: bool = Field(False, description="also that of another run than the one that is served")


class ReloadResponse(BaseModel):
    """What is served now."""

    reloaded: bool = Field(description="false: it was served already")
    run_id: str
    num_products: int


class About(BaseModel):
    """What is served, and what it can do."""

    run_id: str
    uepp_version: str | None
    num_products: int
    refreshed: str | None = Field(description="when the catalogue was last refreshed; null: it is that of training")
    reads_places: bool = Field(description="whether it matters where somebody is")
    reads_histories: bool = Field(description="whether it matters what somebody did before")
    has_fusion: bool = Field(description="whether there is a BM25 to fuse with")
    has_boosting: bool = Field(description="whether quality can count")
    has_ranker: bool = Field(description="whether there is a ranker to ask")
    index: str = Field(description="the vector index")
    threshold: float | None = Field(description="what min_similarity auto stands for; null: nothing, off")
    cache: Literal["features", "user", "layered", "none"]
    max_results: int


class Product(BaseModel):
    """A product as it is shown."""

    product_id: str
    title: str
    shop_id: str | None
    price: float | None
    country: str | None
    region: str | None


class PersonSummary(BaseModel):
    """Somebody the export knows, and how many events of theirs."""

    user: str
    searches: int
    clicks: int
    purchases: int


class Person(BaseModel):
    """What the export knows of somebody, latest first."""

    user: str
    place: dict[str, str | float]
    recent_searches: list[str]
    recent_shops: list[str]
    clicked_products: list[Product]
    purchased_products: list[Product]
