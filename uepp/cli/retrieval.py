"""`uepp export` and `uepp search`."""

from typing import Annotated

import typer

from uepp.cli.app import JsonOption, RunArgument, app, print_json, progress_console, say, working
from uepp.errors import InputError


@app.command()
def export(
    run: RunArgument,
    index: Annotated[
        str | None, typer.Option("--index", metavar="SPEC", help="flat (exact) or hnsw. [default: export.index]")
    ] = None,
) -> None:
    """Write a trained run's SavedModels, vectors and Faiss index."""
    from uepp import pipeline

    with working():
        if index is None:
            pipeline.export(run, progress_console)
        else:
            pipeline.export_index(run, index, progress_console)
    say("Export: ", (str(run / "export"), "bold"))


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

        hits = Searcher(run).search(query, k, user=user, context=context)
    if as_json:
        print_json({"query": query, "hits": [vars(hit) for hit in hits]})
        return
    for hit in hits:
        say(f"{hit.similarity:6.3f}  {' '.join(hit.title.split())}  ", (hit.product_id, "dim"))
