"""The server's interface: JSON over HTTP, the page, metrics."""

import asyncio
import difflib
import hashlib
import time
from collections.abc import AsyncIterator, Callable, Collection, Coroutine
from contextlib import asynccontextmanager
from importlib import resources
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Query, Request, Response, Security
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException

import uepp
from uepp.errors import InputError
from uepp.serving import schemas
from uepp.serving.batching import UnavailableError
from uepp.serving.guard import Guard
from uepp.serving.service import Answer, RefusedError, Service
from uepp.serving.suggestions import Kind

_PAGE = {
    "index.html": "text/html",
    "app.js": "text/javascript",
    "state.js": "text/javascript",
    "view.js": "text/javascript",
    "style.css": "text/css",
    "icon.svg": "image/svg+xml",
}
_GONE = 499  # nginx's number for it; only the metrics see it
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": schemas.Problem, "description": description}
    for status, description in {
        401: "no token, or a wrong one",
        422: "what was asked makes no sense",
        503: "nothing is loaded yet, or too many wait",
        504: "not answered in time",
    }.items()
}


def create_app(
    service: Service,
    *,
    token: str | None = None,
    hosts: Collection[str] | None = None,
    may_reload: bool = True,
    run: Callable[[], Any] | None = None,
) -> FastAPI:
    """The application.

    Args:
        service: started when the application starts, if it is not yet, and closed with it.
        token: bearer token that everything but health and the page's own files needs; none: nothing needs one.
        hosts: names that requests may be for; none: any.
        may_reload: whether `/reload` is there.
        run: makes a coroutine that runs beside the server from its start to its end; for `uepp serve`.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        beside = None if run is None else asyncio.create_task(run())
        if run is None and not service.is_ready:
            await service.start()
        try:
            yield
        finally:
            if beside is not None:
                beside.cancel()
                await asyncio.gather(beside, return_exceptions=True)
            await service.close()

    app = FastAPI(
        title="uepp",
        summary="Personalised product search.",
        version=uepp.__version__,
        lifespan=lifespan,
        # their pages load scripts from elsewhere; /openapi.json is what they show
        docs_url=None,
        redoc_url=None,
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.include_router(_health(service))
    app.include_router(_api(service, may_reload))
    if service.settings.page:
        app.include_router(_page(service))
    app.add_middleware(
        Guard,
        metrics=service.metrics,
        token=token,
        hosts=hosts,
        max_body_bytes=service.settings.max_body_bytes,
        timeout_seconds=service.settings.timeout_seconds,
        max_requests=service.settings.max_connections,
    )
    _explain_problems(app, service.settings.timeout_seconds)
    return app


def _health(service: Service) -> APIRouter:
    router = APIRouter(tags=["health"])

    @router.get("/healthz", summary="Whether the server runs")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @router.get("/readyz", summary="Whether searches are answered", responses={503: {"model": schemas.Problem}})
    async def readyz() -> dict[str, str]:
        return {"status": "ok", "run_id": str(service.searcher.manifest["run_id"])}

    return router


def _api(service: Service, may_reload: bool) -> APIRouter:
    # the scheme is for /openapi.json; the guard checks the token
    router = APIRouter(dependencies=[Security(HTTPBearer(auto_error=False))], responses=_PROBLEMS)
    searched: dict[str, Any] = {"tags": ["search"], "response_model": schemas.SearchResponse}

    @router.post("/search", summary="Products for a query and who asks", **searched)
    async def search(asked: schemas.SearchRequest, http: Request) -> Response:
        return await _search(service, asked, http)

    @router.get("/search", summary="The same with the request in the address", **searched)
    async def search_by_address(asked: Annotated[schemas.SearchRequest, Query()], http: Request) -> Response:
        return await _search(service, asked, http)

    @router.get("/about", summary="What is served, and what it can do", tags=["search"])
    async def about() -> schemas.About:
        searcher = service.searcher
        return schemas.About(
            run_id=searcher.manifest["run_id"],
            uepp_version=searcher.manifest.get("uepp_version"),
            num_products=len(searcher.catalogue),
            refreshed=searcher.refreshed,
            reads_places=searcher.reader.reads_places,
            reads_histories=searcher.reader.reads_histories,
            has_fusion=searcher.has_lexical,
            has_boosting=searcher.has_boosting,
            has_ranker=searcher.has_ranker,
            index=str(searcher.index.spec),
            threshold=searcher.threshold,
            cache=service.settings.cache,
            max_results=service.settings.max_results,
        )

    @router.get("/metrics", summary="Counters for Prometheus", tags=["health"])
    async def metrics() -> Response:
        service.refresh_gauges()
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    if may_reload:

        @router.post(
            "/reload",
            summary="Take up the export that is there now",
            tags=["health"],
            responses={409: {"model": schemas.Problem, "description": "refused; what was served still is"}},
        )
        async def reload(asked: schemas.ReloadRequest) -> schemas.ReloadResponse:
            is_new = await service.reload(any_run=asked.any_run)
            searcher = service.searcher
            return schemas.ReloadResponse(
                reloaded=is_new, run_id=searcher.manifest["run_id"], num_products=len(searcher.catalogue)
            )

    return router


async def _search(service: Service, asked: schemas.SearchRequest, http: Request) -> Response:
    begin = time.perf_counter()
    if asked.offset + asked.k > service.settings.max_results:
        raise InputError(
            f"offset {asked.offset} + k {asked.k}: must be at most {service.settings.max_results} (serving.max_results)"
        )
    request = asked.request(service.searcher.threshold, service.settings.min_similarity)
    async with asyncio.timeout(service.settings.timeout_seconds):
        answer = await _unless_gone(http, service.search(request))
    if answer is None:
        return Response(status_code=_GONE)
    return JSONResponse(_answered(asked.query, answer, time.perf_counter() - begin))


async def _unless_gone(http: Request, answer: Coroutine[Any, Any, Answer]) -> Answer | None:
    """The answer, or none as soon as who asked has closed the connection: then nobody waits for it any more."""

    async def gone() -> None:
        while (await http.receive())["type"] != "http.disconnect":
            pass

    answering, leaving = asyncio.ensure_future(answer), asyncio.ensure_future(gone())
    try:
        await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
        return answering.result() if answering.done() else None
    finally:
        answering.cancel()
        leaving.cancel()


def _answered(query: str, answer: Answer, seconds: float) -> dict[str, Any]:
    """The fields of `SearchResponse`; what we made ourselves is not checked once more."""
    return {
        "query": query,
        "hits": [vars(hit) for hit in answer.hits],
        "run_id": answer.run_id,
        "known_user": answer.is_known_user,
        "unknown_products": answer.unknown_products,
        "cache": {"layer": answer.cache_layer, "age_seconds": answer.cache_age_seconds},
        "seconds": seconds,
    }


def _page(service: Service) -> APIRouter:
    router = APIRouter(dependencies=[Security(HTTPBearer(auto_error=False))], tags=["page"], responses=_PROBLEMS)
    folder = resources.files("uepp.serving") / "page"
    files = {name: (folder / name).read_bytes() for name in _PAGE}

    def served(name: str, request: Request) -> Response:
        content = files[name]
        tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
        headers = {"etag": tag, "cache-control": "no-cache"}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(content, media_type=_PAGE[name], headers=headers)

    @router.get("/", include_in_schema=False)
    async def index(request: Request) -> Response:
        return served("index.html", request)

    @router.get("/page/{name}", include_in_schema=False)
    async def asset(name: str, request: Request) -> Response:
        if name not in files:
            raise HTTPException(404, "no such file")
        return served(name, request)

    @router.get("/people", summary="People with long histories")
    async def people(limit: Annotated[int, Query(ge=1, le=100)] = 12) -> list[schemas.PersonSummary]:
        known = service.searcher.people
        users = service.page.examples[:limit]
        return [schemas.PersonSummary(user=user, **known.counts(user)) for user in users]

    @router.get("/person", summary="What the export knows of somebody")
    async def person(
        user: Annotated[str, Query(min_length=1, max_length=200)], limit: Annotated[int, Query(ge=1, le=100)] = 8
    ) -> schemas.Person:
        known, catalogue = service.searcher.people, service.searcher.catalogue
        if user not in known:
            raise InputError(f"user {user}: no events of this user before the end of training")

        def products(kind: str) -> list[schemas.Product]:
            rows = catalogue.rows(known.products(user, kind, limit))
            return [schemas.Product(**product) for product in catalogue.shown(rows)]

        return schemas.Person(
            user=user,
            place=known.place(user),
            recent_searches=list(known.latest(user, "recent_searches", limit)),
            recent_shops=[shop for shop in known.latest(user, "recent_shops", limit) if shop],
            clicked_products=products("clicks"),
            purchased_products=products("purchases"),
        )

    @router.get("/products", summary="Products by id; those that the catalogue lacks are left out")
    async def products(
        ids: Annotated[list[str], Query(alias="id", min_length=1, max_length=100)],
    ) -> list[schemas.Product]:
        catalogue = service.searcher.catalogue
        return [schemas.Product(**product) for product in catalogue.shown(catalogue.rows(ids))]

    @router.get("/suggest", summary="Queries, shops, products and places by a part of their name")
    async def suggest(
        kind: Kind,
        part: Annotated[str, Query(max_length=200)] = "",
        limit: Annotated[int, Query(ge=1, le=100)] = 8,
    ) -> list[dict[str, Any]]:
        return await asyncio.to_thread(service.page.suggestions.of, kind, part, limit)

    return router


def _explain_problems(app: FastAPI, timeout_seconds: float) -> None:
    """Every problem is `{"detail": "one line"}`."""

    def problem(status: int, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
        text = " ".join(detail.splitlines())  # what was asked may have more than one
        text = text.encode(errors="backslashreplace").decode()  # a lone surrogate is no JSON
        return JSONResponse({"detail": text}, status, headers)

    @app.exception_handler(InputError)
    async def bad_input(_: Request, error: InputError) -> Response:
        return problem(422, str(error))

    @app.exception_handler(RequestValidationError)
    async def bad_request(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        asked = schemas.ReloadRequest if request.url.path == "/reload" else schemas.SearchRequest
        return problem(400 if first["type"] == "json_invalid" else 422, _in_words(first, asked.model_fields))

    @app.exception_handler(UnavailableError)
    async def unavailable(_: Request, error: UnavailableError) -> Response:
        return problem(503, str(error), {"retry-after": "1"})

    @app.exception_handler(TimeoutError)
    async def late(_: Request, error: TimeoutError) -> Response:
        return problem(504, f"not answered within {timeout_seconds:g} s (serving.timeout_seconds)")

    @app.exception_handler(Exception)
    async def broken(_: Request, error: Exception) -> Response:
        return problem(500, "something is wrong here; the server's standard error says what")

    @app.exception_handler(RefusedError)
    async def refused(_: Request, error: RefusedError) -> Response:
        return problem(409, str(error))


def _in_words(problem: Any, fields: Collection[str] = ()) -> str:
    """What pydantic found: field, value received, what is allowed.

    Args:
        problem: of a validation.
        fields: that a request may have.
    """
    field = ".".join(str(part) for part in problem["loc"][1:]) or "body"
    if problem["type"] == "json_invalid":
        return f"body: not JSON ({problem.get('ctx', {}).get('error', problem['msg'])})"
    if isinstance(problem.get("input"), bytes):
        return "body: send JSON, with the header content-type: application/json"
    if problem["type"] == "missing":
        return f"{field}: {problem['msg']}"
    if problem["type"] == "extra_forbidden":
        nearest = difflib.get_close_matches(field, fields, n=1)
        return f"unknown field {field[:80]}" + (f"; did you mean {nearest[0]}?" if nearest else "")
    given = repr(problem.get("input"))
    return f"{field} {given if len(given) <= 80 else given[:80] + '…'}: {problem['msg']}"
