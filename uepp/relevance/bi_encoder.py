"""The frozen bi-encoder: all queries and products to vectors, once, before anything is sampled (BHNS 2.1.1).

It is one of three: `minilm`, a text encoder (`uepp pretrain` makes one), or the towers of a finished run.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import tensorflow as tf
from rich.progress import track

from uepp.artifacts import MANIFEST, check_manifest, fingerprint, read_json
from uepp.config import load_config
from uepp.errors import InputError
from uepp.features.requests import RawRequests
from uepp.features.text import query_keys
from uepp.features.text_encoder import check_text_encoder, open_text_encoder
from uepp.pretraining.bert import MINILM, load_sentence_encoder, locate
from uepp.relevance.pairs import TextPairs
from uepp.retrieval.embed import embed_queries, load_tower, read_vectors

_AT_ONCE = 128
_MAX_TOKENS = 128
_OPTION = "relevance.bi_encoder ="


class Embeddings(NamedTuple):
    """Vectors of the bi-encoder.

    Attributes:
        queries: float32 [Nq, D].
        products: float32 [Np, D].
    """

    queries: np.ndarray
    products: np.ndarray


def no_embeddings(pairs: TextPairs) -> Embeddings:
    """For samplers that look at no similarity."""
    return Embeddings(np.zeros((len(pairs.queries), 1), np.float32), np.zeros((len(pairs.products), 1), np.float32))


def check_bi_encoder(source: str) -> str:
    """What a bi-encoder is known by: a name or a digest of its content.

    Raises:
        InputError: it is none of the three, or a file differs from its manifest.
    """
    if source == MINILM:
        locate(MINILM, _OPTION)
        return MINILM
    path = Path(source)
    if (path / "encoder.json").is_file():
        check_text_encoder(path)
        return fingerprint(read_json(path / MANIFEST))
    if (path / "export" / MANIFEST).is_file():
        return fingerprint(check_manifest(path / "export"))
    raise InputError(f"{_OPTION} {source!r}: must be {MINILM}, a text encoder (uepp pretrain), or an exported run")


def embed_pairs(source: str, pairs: TextPairs) -> Embeddings:
    """Vectors of all queries and products.

    Args:
        source: see the module.
        pairs: texts; a run's towers know products by id.

    Raises:
        InputError: what `check_bi_encoder` refuses, or the run's export lacks a product.
    """
    check_bi_encoder(source)
    if (Path(source) / "export" / MANIFEST).is_file():
        return _embed_by_towers(Path(source), pairs)
    if source == MINILM:
        encoder, _ = load_sentence_encoder(locate(MINILM, _OPTION), _MAX_TOKENS)
        encode: Callable[[tf.Tensor], Any] = encoder
    else:
        encode = open_text_encoder(Path(source)).model
    return Embeddings(_embed(encode, pairs.queries, "queries"), _embed(encode, pairs.products, "products"))


def trained_on(source: str, queries: Sequence[str]) -> np.ndarray | None:
    """Whether a bi-encoder was trained on what somebody did after each query: bool [Nq]; none where that is not known.

    MiniLM has seen no shop's log. Towers have seen the interactions before T, which their graph holds. Where its window
    is shorter than that of their examples, whatever was asked in the latter counts as well: an export does not say
    which of these queries led to something. What a text encoder was trained on, it does not say query by query.

    Args:
        source: see the module.
        queries: [Nq] texts.
    """
    if source == MINILM:
        return np.zeros(len(queries), bool)
    export = Path(source) / "export"
    if not (export / "graph.parquet").is_file():
        return None
    names = ["graph.parquet"] if _graph_has_examples(export) else ["graph.parquet", "query_counts.parquet"]
    seen = [pq.read_table(export / name, columns=["query"]).column(0) for name in names]
    known = {key for column in seen for key in query_keys(pc.unique(column).to_pylist())}
    return np.array([key in known for key in query_keys(queries)], bool)


def _graph_has_examples(export: Path) -> bool:
    """Whether the graph's window begins no later than that of the examples."""
    windows = read_json(export / "windows.json")
    return datetime.fromisoformat(windows["graph_start"]) <= datetime.fromisoformat(windows["examples_start"])


def _embed(encode: Callable[[tf.Tensor], Any], texts: Sequence[str], name: str) -> np.ndarray:
    """Texts of like length go together, since a batch costs what its longest one does."""
    order = np.argsort([len(text) for text in texts], kind="stable")
    vectors: np.ndarray | None = None
    for begin in track(range(0, len(texts), _AT_ONCE), f"embed {name}", transient=True):
        rows = order[begin : begin + _AT_ONCE]
        found = encode(tf.constant([texts[row] for row in rows], tf.string)).numpy()
        if vectors is None:
            vectors = np.empty((len(texts), found.shape[1]), np.float32)
        vectors[rows] = found
    return np.zeros((0, 1), np.float32) if vectors is None else vectors


def _embed_by_towers(run_dir: Path, pairs: TextPairs) -> Embeddings:
    """Queries by the query tower, of whom nothing else is known; products from the export's vectors."""
    export = run_dir / "export"
    known = pq.read_table(export / "product_ids.parquet").column("product_id").cast(pa.string()).combine_chunks()
    rows = pc.index_in(pa.array(pairs.product_ids, pa.string()), known)
    if rows.null_count:
        unknown = pairs.product_ids[rows.is_null().index(True).as_py()]
        raise InputError(
            f"{_OPTION} {str(run_dir)!r}: its export has no product {unknown!r}; it must be of the same data set"
        )
    history = load_config(str(run_dir / "config.yaml")).history
    tower = load_tower(export / "query_tower")
    queries = embed_queries(tower, RawRequests(list(pairs.queries)), history)
    return Embeddings(queries, np.asarray(read_vectors(export)[np.asarray(rows, np.int64)], np.float32))
