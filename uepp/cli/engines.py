"""`uepp publish`."""

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from uepp.cli.app import JsonOption, RunArgument, app, print_json, progress_console, say, working
from uepp.errors import InputError


@app.command()
def publish(
    run: RunArgument,
    parquet: Annotated[
        Path | None, typer.Option("--parquet", metavar="DIR", help="New directory of Parquet shards.")
    ] = None,
    milvus: Annotated[
        str | None,
        typer.Option("--milvus", metavar="URI", help="Milvus server (http://…), or a file NAME.db for Milvus Lite."),
    ] = None,
    collection: Annotated[
        str, typer.Option("--collection", metavar="NAME", help="Milvus: alias to search by.")
    ] = "products",
    index: Annotated[str, typer.Option("--index", help="Milvus: AUTOINDEX, FLAT, HNSW, IVF_FLAT, …")] = "AUTOINDEX",
    parameters: Annotated[
        str | None,
        typer.Option("--index-params", metavar="JSON", help='Milvus: e.g. {"M": 32, "efConstruction": 200}.'),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Give an export's vectors, ids and product columns to another engine: Parquet shards, or Milvus.

    In Milvus the export becomes a new collection, and the alias is moved to it when all products are there. The
    server's token is read from the environment variable MILVUS_TOKEN.
    """
    if (parquet is None) == (milvus is None):
        raise InputError("publish: give one of --parquet DIR and --milvus URI")
    try:
        chosen: Any = json.loads(parameters or "{}")
    except json.JSONDecodeError as error:
        raise InputError(f"--index-params {parameters}: not JSON ({error})") from None
    if not isinstance(chosen, dict):
        raise InputError(f"--index-params {parameters}: expected a JSON object")

    from rich.progress import Progress

    with working(), Progress(console=progress_console, transient=True) as progress:
        from uepp.retrieval import engines

        if parquet is not None:
            result = engines.write_shards(run, parquet, progress)
        else:
            name = engines.load_into_milvus(
                run,
                str(milvus),
                collection,
                progress,
                token=os.environ.get("MILVUS_TOKEN"),
                index=index,
                parameters=chosen,
            )
            result = {"uri": milvus, "alias": collection, "collection": name}
    if as_json:
        print_json(result)
    elif parquet is not None:
        say("Shards: ", (str(parquet), "bold"), f"   ({result['num_products']:,} products, {result['dim']} dimensions)")
    else:
        say("Collection: ", (result["collection"], "bold"), f"   (alias {collection})")
