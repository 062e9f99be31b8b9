"""`uepp search` and `uepp serve`."""

import contextlib
import functools
import signal
import sys
from pathlib import Path
from typing import Annotated, TextIO

import typer

from uepp.cli.app import JsonOption, RunArgument, SetOption, app, given_by, print_json, progress_console, say, working
from uepp.config import load_config
from uepp.errors import InputError

_SERVER_PACKAGES = ("fastapi", "uvicorn", "prometheus_client", "starlette")


@app.command()
def search(
    run: RunArgument,
    query: Annotated[str, typer.Argument(metavar="QUERY", help="What a customer would type.")],
    k: Annotated[int, typer.Option("--k", help="Number of results.")] = 10,
    user: Annotated[
        str | None, typer.Option("--user", metavar="ID", help="Search as this user, with their history.")
    ] = None,
    country: Annotated[str | None, typer.Option("--country", help="Where they are.")] = None,
    region: Annotated[str | None, typer.Option("--region")] = None,
    language: Annotated[str | None, typer.Option("--language")] = None,
    zip_code: Annotated[str | None, typer.Option("--zip")] = None,
    latitude: Annotated[float | None, typer.Option("--latitude", help="Degrees.")] = None,
    longitude: Annotated[float | None, typer.Option("--longitude", help="Degrees.")] = None,
    fusion: Annotated[bool, typer.Option("--fusion", help="Fuse with BM25 by reciprocal ranks.")] = False,
    unboosted: Annotated[bool, typer.Option("--unboosted", help="Rank by similarity alone.")] = False,
    rerank: Annotated[
        bool, typer.Option("--rerank", help="Let the run's ranker order the first of them (uepp relevance rank).")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Search a run's catalogue, for anybody or for somebody."""
    if k < 1:
        raise InputError(f"--k {k}: must be at least 1")
    given: dict[str, str | float | None] = {
        "country": country, "region": region, "language": language, "zip": zip_code,
        "latitude": latitude, "longitude": longitude,
    }  # fmt: skip
    context = {name: value for name, value in given.items() if value is not None}
    with working():
        from uepp.serving.search import Searcher

        hits = Searcher(run).search(
            query, k, user=user, context=context, fusion=fusion, boosted=not unboosted, rerank=rerank
        )
    if as_json:
        print_json({"query": query, "hits": [vars(hit) for hit in hits]})
        return
    for hit in hits:
        say(f"{hit.similarity:6.3f}  {' '.join(hit.title.split())}  ", (hit.product_id, "dim"))


@app.command()
def serve(
    run: RunArgument,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65_535, help="0: any that is free.")] = 8080,
    token_file: Annotated[
        Path | None,
        typer.Option("--token-file", metavar="FILE", help="Bearer token that requests need. \\[default: UEPP_TOKEN]"),
    ] = None,
    cache: Annotated[
        str | None, typer.Option("--cache", metavar="KEY", help="features, user, layered or none (serving.cache).")
    ] = None,
    max_batch: Annotated[
        int | None, typer.Option("--max-batch", help="Requests that share a call of the tower (serving.max_batch).")
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Take up new exports as they appear.")] = False,
    no_page: Annotated[bool, typer.Option("--no-page", help="The API alone (serving.page).")] = False,
    set_: SetOption = None,
) -> None:
    """Serve a run: a JSON API, a page to try it on, metrics. SIGHUP takes up a new export, SIGTERM ends it."""
    given = given_by(
        {
            "--cache": ("serving.cache", cache),
            "--max-batch": ("serving.max_batch", max_batch),
            "--no-page": ("serving.page", False if no_page else None),
        }
    )
    for override in set_ or []:
        if not override.startswith("serving."):
            raise InputError(f"--set {override}: a server has the serving settings only")
    announce = functools.partial(_tell, file=sys.stdout)
    # Until the server listens to it: it asks for what the start does anyway, and would end the process.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with working():
        from uepp.retrieval.export import check_is_run

        check_is_run(run)
        settings = load_config(str(run / "config.yaml"), set_ or [], given=given).serving
        try:
            from uepp.serving import server
        except ModuleNotFoundError as error:
            if error.name not in _SERVER_PACKAGES:
                raise
            raise InputError(f'uepp serve needs {error.name}: pip install "uepp[serve]"') from None
        token = server.read_token(token_file)
        progress_console.print(f"loading {run} …", markup=False, highlight=False, soft_wrap=True)
        server.serve(
            run,
            settings,
            host=host,
            port=port,
            token=token,
            watch=watch,
            announce=lambda address: announce(f"Serving {run} at {address}"),
            report=lambda line: _tell(line, sys.stderr),
        )


def _tell(line: str, file: TextIO) -> None:
    """Print a line; a server serves on where nobody can read it any more (a closed terminal, `2>&1 | head`)."""
    with contextlib.suppress(OSError):
        print(line, file=file, flush=True)
