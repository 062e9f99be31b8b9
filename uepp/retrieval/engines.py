"""An export for other engines: Parquet shards of vectors and metadata, and a Milvus collection.

What an engine gets is what our own index holds: inner product with hydrated vectors where the export is boosted
(UEPPR IV). Its queries are hydrated likewise, see docs/engines.md.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.progress import Progress

from uepp.artifacts import MANIFEST, atomic_directory, fingerprint, read_json, write_json
from uepp.errors import InputError
from uepp.retrieval.boosting import read_boosting
from uepp.retrieval.export import open_export
from uepp.retrieval.replacing import refuse_replaced
from uepp.retrieval.vectors import ProductVectors

METADATA = (
    "title", "category", "shop_id", "price", "created_at", "country", "region", "language", "zip", "latitude",
    "longitude",
)  # fmt: skip
"""Product columns that go along, where the catalogue has them."""

_SHARD_ROWS = 100_000
_MILVUS_ROWS = 1_000
_MILVUS_MAX_BYTES = 65_535


def write_shards(run_dir: Path, directory: Path, progress: Progress) -> dict[str, Any]:
    """Write `part-00000.parquet`, … and `collection.json`, whole or not at all.

    A shard has `product_id` string, `vector` fixed-size list of float32, and those columns of `METADATA` that the
    catalogue has.

    Args:
        run_dir: a run with an export.
        directory: new.
        progress: a task is added to it.

    Returns:
        The content of `collection.json`: `run_id`, `num_products`, `dim`, `metric`, `hydrated` (features beyond the
        tower's dimensions), `shards`.

    Raises:
        InputError: not a run with an export, or the directory exists.
    """
    if directory.exists():
        raise InputError(f"{directory}: exists already; give a new directory")
    export = _open(run_dir)
    facts = export.facts
    task = progress.add_task("shards", total=facts["num_products"])
    with atomic_directory(directory) as folder:
        for shard, table in enumerate(_tables(export, _SHARD_ROWS)):
            facts["shards"].append(f"part-{shard:05}.parquet")
            pq.write_table(table, folder / facts["shards"][-1])
            progress.advance(task, table.num_rows)
        write_json(folder / "collection.json", facts)
    return facts


def load_into_milvus(
    run_dir: Path,
    uri: str,
    collection: str,
    progress: Progress,
    *,
    token: str | None = None,
    index: str = "AUTOINDEX",
    parameters: dict[str, Any] | None = None,
) -> str:
    """Load an export into Milvus, and point the alias `collection` at it when all of it is there.

    The products go into a new collection with an index by inner product; its name is that of the alias, the run's id
    and a digest of the export. The alias moves only after every product was counted, and the collection that it
    named before is dropped after that, with what loads for this alias left that were stopped. So those who search by
    the alias never see a part of an export, and nothing of one stays. One load for an alias at a time.

    Args:
        run_dir: a run with an export.
        uri: of a server (`http://…`), or a file for Milvus Lite.
        collection: alias to search by.
        progress: a task is added to it.
        token: of the server.
        index: kind of Milvus' index: AUTOINDEX, FLAT, HNSW, …
        parameters: of that index.

    Returns:
        Name of the new collection.

    Raises:
        InputError: no export, no such server, a name that Milvus refuses, or a collection without alias in the way.
    """
    if not re.fullmatch(r"[A-Za-z_]\w{0,200}", collection, re.ASCII):
        raise InputError(
            f"--collection {collection}: must be letters, digits and underscores, a letter first, 201 at most"
        )
    try:
        from pymilvus import DataType, MilvusClient, MilvusException
    except ImportError:
        raise InputError("--milvus: needs the package pymilvus; install it with: pip install 'uepp[milvus]'") from None
    export = _open(run_dir)
    facts = export.facts
    client: Any = None
    try:
        client = MilvusClient(uri, token=token or "", timeout=30)
        before = _behind(client, collection)
        name = f"{collection}_{facts['run_id'][:8]}_{facts['content'][:8]}"
        if before == name:
            _drop_left(client, collection, name)
            return name
        if client.has_collection(name):  # what a load that was stopped left
            client.drop_collection(name)
        schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("product_id", DataType.VARCHAR, is_primary=True, max_length=_MILVUS_MAX_BYTES)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=facts["dim"])
        first = next(_tables(export, 1))
        for field in first.schema:
            if field.name in METADATA:
                is_number = pa.types.is_floating(field.type)
                kind, options = (
                    (DataType.DOUBLE, {}) if is_number else (DataType.VARCHAR, {"max_length": _MILVUS_MAX_BYTES})
                )
                schema.add_field(field.name, kind, nullable=True, **options)
        how = client.prepare_index_params()
        how.add_index("vector", index_type=index, metric_type="IP", params=parameters or {})
        client.create_collection(name, schema=schema, index_params=how)
        task = progress.add_task(f"Milvus: {name}", total=facts["num_products"])
        for table in _tables(export, _MILVUS_ROWS):
            client.insert(name, _milvus_rows(table))
            progress.advance(task, table.num_rows)
        client.flush(name)
        client.load_collection(name)
        # by default a server answers as of some seconds ago, when not all was there
        counted = client.query(name, filter="", output_fields=["count(*)"], consistency_level="Strong")
        found = int(counted[0]["count(*)"])
        if found != facts["num_products"]:
            raise InputError(f"{uri}: collection {name} has {found:,} of {facts['num_products']:,} products")
        (client.alter_alias if before else client.create_alias)(name, collection)
        if before:
            client.drop_collection(before)
        _drop_left(client, collection, name)
    except MilvusException as error:
        raise InputError(f"{uri}: Milvus says: {' '.join(str(error.message).split())}") from None
    finally:
        if client is not None:
            client.close()
    return name


def _behind(client: Any, alias: str) -> str | None:
    """The collection that an alias names; none: there is no such alias."""
    names = client.list_collections()
    if alias in names:
        raise InputError(f"--collection {alias}: a collection has this name, so no alias can; choose another")
    for name in names:
        if alias in client.list_aliases(name)["aliases"]:
            return str(name)
    return None


def _drop_left(client: Any, alias: str, name: str) -> None:
    """Drop what loads left that did not end: but for `name`, collections named as ours for this alias, without one."""
    ours = re.compile(rf"{re.escape(alias)}_[0-9a-f]{{8}}_[0-9a-f]{{8}}")
    for other in client.list_collections():
        if other != name and ours.fullmatch(other) and not client.list_aliases(other)["aliases"]:
            client.drop_collection(other)


class _Opened(NamedTuple):
    """An export to publish.

    Attributes:
        facts: content of `collection.json`, without shards yet.
        products: the catalogue.
        vectors: of its products, hydrated where the export is boosted.
    """

    facts: dict[str, Any]
    products: pq.ParquetFile
    vectors: ProductVectors


def _open(run_dir: Path) -> _Opened:
    """Open all files of a run's export before any is read: what replaces it meanwhile has other products at its rows.

    Raises:
        InputError: no export, a damaged one, or one that is replaced just now.
    """
    export = open_export(run_dir)
    manifest = read_json(export / MANIFEST)
    boosting = read_boosting(export)
    vectors = ProductVectors.open(export)
    products = pq.ParquetFile(export / "products.parquet", memory_map=True)
    refuse_replaced(export, manifest)
    facts = {
        "run_id": manifest["run_id"],
        "content": fingerprint(manifest["files"]),  # a refreshed or boosted export of one run is another collection
        "num_products": manifest["num_products"],
        "dim": vectors.dim,
        "metric": "inner product",
        "hydrated": list(boosting.features) if boosting else [],
        "shards": [],
    }
    return _Opened(facts, products, vectors)


def _tables(export: _Opened, num_rows: int) -> Iterator[pa.Table]:
    """Products with their vectors, so many rows at a time, in product-index order."""
    columns = ["product_id", *(name for name in METADATA if name in export.products.schema_arrow.names)]
    first = 0
    for batch in export.products.iter_batches(num_rows, columns=columns):
        rows = np.concatenate(list(export.vectors.chunks(first, first + batch.num_rows)))
        first += batch.num_rows
        table = pa.Table.from_batches([batch])
        yield table.add_column(1, "vector", pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), rows.shape[1]))


def _milvus_rows(table: pa.Table) -> list[dict[str, Any]]:
    dim = table.column("vector").type.list_size
    vectors = table.column("vector").combine_chunks().flatten().to_numpy().reshape(-1, dim)
    others = table.drop_columns(["vector"]).to_pylist()
    return [
        {"vector": vector, **{name: _milvus_value(value) for name, value in row.items()}}
        for vector, row in zip(vectors, others, strict=True)
    ]


def _milvus_value(value: Any) -> Any:
    """Numbers as they are, moments as ISO 8601, texts cut at Milvus' limit of bytes (never within a character)."""
    if value is None or isinstance(value, float):
        return value
    text = value.isoformat() if hasattr(value, "isoformat") else str(value)
    return text.encode("utf-8")[:_MILVUS_MAX_BYTES].decode("utf-8", "ignore")
