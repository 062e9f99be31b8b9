"""A changed catalogue for an export: the towers stay, and only what they would read otherwise is encoded again."""

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from uepp.artifacts import MANIFEST, read_json
from uepp.config import Config
from uepp.errors import InputError
from uepp.features.raw import COORDINATES
from uepp.retrieval.boosting import BOOSTING, QUALITY
from uepp.retrieval.embed import NEIGHBORS, Kept, load_tower, tower_inputs, write_vectors
from uepp.retrieval.export import LEXICAL, write_neighbors
from uepp.retrieval.product_index import INDEX, SERVING
from uepp.retrieval.quality import refreshed_quality
from uepp.retrieval.vectors import ProductVectors

_OF_CATALOGUE = (
    "products.parquet", "product_ids.parquet", "neighbors.parquet", "vectors", QUALITY, LEXICAL, INDEX, SERVING,
    MANIFEST,
)  # fmt: skip
_AT_ONCE = 4_096


class Changes(NamedTuple):
    """How many products differ from those of the export before.

    Attributes:
        added: they were not there.
        changed: the product tower reads something else of them.
        unchanged: it reads the same; their vectors are those of before.
        gone: they are not there any more.
    """

    added: int
    changed: int
    unchanged: int
    gone: int


def copy_fitted(export: Path, folder: Path) -> None:
    """Copy what does not depend on the catalogue: towers, vocabularies, graph, histories, tuned settings."""

    def of_catalogue(directory: str, names: list[str]) -> list[str]:
        return [name for name in names if name in _OF_CATALOGUE] if Path(directory) == export else []

    shutil.copytree(export, folder, dirs_exist_ok=True, copy_function=shutil.copyfile, ignore=of_catalogue)


def write_catalogue(export: Path, folder: Path, products: pa.Table, config: Config) -> Changes:
    """Write products, their neighbours, vectors and quality into a folder that is to become an export.

    A vector is copied, bit by bit, where the product tower would read the same of a product: its columns, and its
    neighbours. A text encoder is part of the tower, so it runs for the other products only, too.

    Args:
        export: the one before.
        folder: with what `copy_fitted` copies.
        products: the new catalogue in product-index order.
        config: of the run.
    """
    pq.write_table(products, folder / "products.parquet")
    pq.write_table(products.select(["product_id"]), folder / "product_ids.parquet")
    neighbors = write_neighbors(folder, config, products, folder)
    tower = load_tower(folder / "product_tower")
    changes, kept = _compare(export, folder, tower_inputs(tower))
    write_vectors(tower, products, neighbors, folder, config.export.embed_batch_size, kept)
    if (folder / BOOSTING).exists():
        np.save(folder / QUALITY, refreshed_quality(folder, read_json(folder / BOOSTING)["features"]))
    return changes


def refuse_refreshed(export: Path, what: str) -> None:
    """Raise `InputError` where an export has another catalogue than the run was trained with.

    Args:
        export: checked.
        what: what needs the run's own catalogue.
    """
    catalogue = read_json(export / MANIFEST).get("catalogue")
    if catalogue is not None:
        raise InputError(
            f"{export}: its catalogue was refreshed on {catalogue['when']}; {what} needs the one that the run was "
            f"trained with: uepp export {export.parent}"
        )


def _compare(export: Path, folder: Path, names: Sequence[str]) -> tuple[Changes, Kept]:
    """What changed between two exports' catalogues, and the vectors that still hold.

    Args:
        export: the one before.
        folder: the new one, so far.
        names: inputs of the product tower.
    """
    before, now = (pq.read_table(path / "product_ids.parquet").column(0) for path in (export, folder))
    found = pc.fill_null(pc.index_in(now.cast(pa.string()), before.cast(pa.string()).combine_chunks()), -1)
    rows = np.asarray(found, np.int64)
    is_known = rows >= 0
    read_before, read_now = (_digests(path, names) for path in (export, folder))
    is_same = is_known & (read_before[rows] == read_now).all(axis=1)
    num_known, num_same = int(is_known.sum()), int(is_same.sum())
    changes = Changes(len(now) - num_known, num_known - num_same, num_same, len(before) - num_known)
    return changes, Kept(ProductVectors.open(export), np.where(is_same, rows, -1))


def _digests(export: Path, names: Sequence[str]) -> np.ndarray:
    """128 bits of all that the product tower reads of each product, uint64 [N, 2].

    They are of the columns that its inputs are made of. Only the hash itself is a step of Python for each product.
    """
    digests = bytearray()
    for columns in _columns(export, names):
        rows = pc.binary_join_element_wise(*map(_told_apart, columns), b"").to_pylist()
        digests += b"".join([hashlib.blake2b(row, digest_size=16).digest() for row in rows])
    return np.frombuffer(digests, np.uint64).reshape(-1, 2)


def _columns(export: Path, names: Sequence[str]) -> Iterator[list[pa.Array]]:
    """What a catalogue's inputs are made of, some thousand products at a time."""
    columns = [name for name in names if name != NEIGHBORS]
    neighbors = pq.read_table(export / "neighbors.parquet").column("queries") if NEIGHBORS in names else None
    first = 0
    with pq.ParquetFile(export / "products.parquet") as file:
        for batch in file.iter_batches(_AT_ONCE, columns=["product_id", *columns]):
            values = [_bits(batch.column(name)) if name in COORDINATES else batch.column(name) for name in columns]
            if neighbors is not None:
                values.append(neighbors.slice(first, batch.num_rows).combine_chunks())
            yield values
            first += batch.num_rows


def _bits(degrees: pa.Array) -> pa.Array:
    """Those of the float32 that is read."""
    return degrees.cast(pa.float32()).view(pa.int32())


def _told_apart(column: pa.Array) -> pa.Array:
    """Each value as bytes that tell where it ends, so that what is written side by side stays apart.

    Null is an empty text or list, as the tower reads it.
    """
    kind = column.type
    if pa.types.is_map(kind):
        pairs = pa.struct([("key", kind.key_type), ("value", kind.item_type)])
        return _told_apart(column.cast(pa.list_(pairs)))
    if pa.types.is_list(kind):
        edges = np.append(0, np.cumsum(np.asarray(pc.fill_null(pc.list_value_length(column), 0))))
        content = pc.binary_join(pa.ListArray.from_arrays(edges.astype(np.int32), _told_apart(column.flatten())), b"")
    elif pa.types.is_struct(kind):
        content = pc.binary_join_element_wise(*map(_told_apart, column.flatten()), b"")
    else:
        content = pc.fill_null(column.cast(pa.string()), "").cast(pa.binary())
    length = pc.binary_length(content).cast(pa.string()).cast(pa.binary())
    return pc.binary_join_element_wise(length, content, b":")
