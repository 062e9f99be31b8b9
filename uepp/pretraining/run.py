"""The stories of `uepp pretrain`: log and catalogue → pairs → pieces → T5 → its encoder; or an encoder as it is."""

from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import sentencepiece
import tensorflow as tf
from rich.console import Console

from uepp.artifacts import atomic_directory, atomic_file, read_json, write_json
from uepp.config import Config
from uepp.data.mining import mine
from uepp.data.schema import read_products
from uepp.data.windows import resolve_windows
from uepp.errors import InputError
from uepp.features.catalog import num_products_before
from uepp.features.text import product_texts
from uepp.features.text_encoder import pretraining_source, refuse_foresight
from uepp.lexical.bm25 import BM25
from uepp.pretraining.bert import MINILM, load_sentence_encoder, locate
from uepp.pretraining.encoder import write_text_encoder
from uepp.pretraining.generation import WRITER, QueryWriter
from uepp.pretraining.loop import TokenPairs, fit, perplexity_of
from uepp.pretraining.pairs import Pairs, load_pairs
from uepp.pretraining.quality import first_words, mean_reciprocal_ranks, searched_texts, unigram_perplexity
from uepp.pretraining.sentencepiece_tokens import SentencePieceTokens, train_sentencepiece
from uepp.pretraining.t5 import build_t5, load_t5, save_t5, text_encoder_of
from uepp.runs.directory import (
    add_facts,
    announced,
    check_run,
    checked_data,
    nothing_left,
    open_run,
    read_costs,
    refuse_changes,
)
from uepp.runs.strategies import batch_of_replica, choose_strategy, refuse_several_workers

_FIXED = ("marketplace", "data", "text")
_FREE = (
    "checkpoint_every_steps", "evaluate_every_steps", "generated_queries", "keep_checkpoints", "max_steps", "patience",
)  # fmt: skip
_NUM_SAMPLES = 12


class Pretrained(NamedTuple):
    """How a pretraining ended.

    Attributes:
        step: steps done since the start of the run.
        is_complete: False where a signal stopped it; resume it to go on.
        metrics: what `metrics.json` holds; none before the end.
    """

    step: int
    is_complete: bool
    metrics: dict[str, Any] | None


def pretrain(config: Config, run_dir: Path, console: Console, *, resume: bool = False, verbose: int = 1) -> Pretrained:
    """Train a T5 to write the query that a product is bought for; write its encoder, in `run_dir`.

    A new run refuses a directory that already holds one; a resumed run continues its own.

    Raises:
        InputError: bad data, settings or directory.
    """
    refuse_several_workers("uepp pretrain")
    strategy = choose_strategy()
    settings = config.pretraining
    batch_of_replica(strategy, "pretraining.batch_size", settings.batch_size)
    check_run(config, run_dir, "pretrain", resume=resume, fixed=_FIXED, free="pretraining.*")
    if resume:
        refuse_changes(config, run_dir, "pretraining", _FREE)

    # ------------------------------------------------------------------------------------------ data
    with announced(console, "data"):
        data_dir, _ = checked_data(config, run_dir, console)
        windows = resolve_windows(data_dir, config.data)
        products = read_products(data_dir)
        if settings.preset is not None:
            _check_preset(settings.preset, data_dir, windows.train_end)  # before anything is written
        num_seen = num_products_before(products, windows.train_end)
        open_run(config, run_dir, "pretrain", resume=resume)  # only now: bad data leaves no half-made run behind
        console.print(f"  {data_dir}: {len(products):,} products", markup=False, soft_wrap=True)

    stage = partial(announced, console, run_dir=run_dir, adds=resume)
    with nothing_left(run_dir, resume):
        # ------------------------------------------------------------------------------------- pairs
        with stage("pairs"):
            mined = mine(data_dir, config.data, run_dir / "mined")
            if read_json(run_dir / "run.json").get("mined", mined.name) != mined.name:
                raise InputError(f"{data_dir}: has changed since this run began; start a new one with --run")
            add_facts(run_dir, data=str(data_dir.resolve()), mined=mined.name)
            source = pretraining_source(data_dir / "events.parquet", windows.train_end)
            pairs = load_pairs(mined, products.column("product_id").to_pylist(), settings)
            texts = product_texts(products, config.text.fields)
            num_held_out, num_reported = int(pairs.is_held_out.sum()), int(pairs.is_reported.sum())
            console.print(
                f"  {len(pairs) - num_held_out:,} products and queries before {windows.train_end:%F}; held out: "
                f"{num_held_out - num_reported:,} more to choose the best step by, {num_reported:,} to report"
            )

        # ------------------------------------------------------------------------------------ pieces
        with stage("pieces"):
            proto = _sentencepiece(texts[:num_seen], pairs, config, run_dir)
            trained, chosen_by, reported = _tokenized(texts, pairs, proto, config)
            num_pieces = (trained.products != 0).sum(axis=1)
            is_cut = float((num_pieces == settings.max_tokens).mean())
            vocabulary_size = _vocabulary_size(proto)
            console.print(
                f"  {vocabulary_size:,}; {num_pieces.mean():.1f} a product, of which {is_cut:.1%} are cut off"
            )

    # -------------------------------------------------------------------------------------- training
    with stage("training"):
        fitted = fit(
            lambda: _model(config, proto, settings.precision),
            trained,
            chosen_by,
            settings,
            run_dir,
            strategy=strategy,
            resume=resume,
            verbose=verbose,
        )
        if not fitted.is_complete:
            return Pretrained(fitted.step, False, None)

    # ------------------------------------------------------------------------------ what was learned
    with stage("held-out products"):
        model = _model(config, proto, "float32")
        for variable, weight in zip(model.trainable_variables, fitted.weights, strict=True):
            variable.assign(weight)
        writer = QueryWriter(model, proto, settings.max_tokens, settings.max_query_tokens)
        metrics = {
            "steps": fitted.step,
            "best_step": fitted.best_step,
            "num_pairs": len(trained),
            "seconds": read_costs(run_dir)["seconds"]["training"],
            "held_out": {
                "num_products": len(reported),
                "num_pieces": int((reported.queries != 0).sum()),
                "perplexity": perplexity_of(model, reported),
                "unigram_perplexity": unigram_perplexity(trained.queries, reported.queries, vocabulary_size),
            },
            **_generated(writer, products, texts, pairs, num_seen),
        }

    # --------------------------------------------------------------------- queries for the whole catalogue
    generated = None
    if settings.generated_queries:
        with stage("queries for the catalogue"):
            queries = writer.write(texts, number=settings.generated_queries, seed=settings.seed)
            column = pa.array(queries, pa.list_(pa.string()))
            generated = pa.table({"product_id": products.column("product_id"), "queries": column})

    # --------------------------------------------------------------------------------------- encoder
    with stage("encoder"):
        with atomic_directory(run_dir / "seq2seq") as folder:
            save_t5(model, proto, folder)
            write_json(
                folder / WRITER,
                {"max_tokens": settings.max_tokens, "max_query_tokens": settings.max_query_tokens, "source": source},
            )
        write_text_encoder(
            run_dir / "encoder",
            text_encoder_of(model, proto, settings.max_tokens),
            kind="doct5query",
            fields=config.text.fields,
            source={
                "run_id": read_json(run_dir / "run.json")["run_id"],
                "data": str(data_dir),
                **source,
                "steps": fitted.best_step,
                "num_pairs": len(trained),
                "parameters": int(sum(np.prod(weight.shape) for weight in fitted.weights)),
                **settings.model_dump(mode="json"),
            },
            metrics={name: value for name, value in metrics.items() if name != "samples"},
            generated=generated,
        )
        write_json(run_dir / "metrics.json", metrics)
    return Pretrained(fitted.step, True, metrics)


def import_encoder(source: str, config: Config, run_dir: Path, console: Console) -> dict[str, Any]:
    """Write a published sentence encoder as `run_dir/encoder`; nothing is trained.

    Args:
        source: `minilm`, a folder or a preset (see `uepp.pretraining.bert.locate`).
        config: `pretraining.max_tokens`.
        run_dir: new or empty.
        console: for progress.

    Returns:
        The content of `encoder.json`.

    Raises:
        InputError: the encoder is not there or of another kind, or the directory is in use.
    """
    check_run(config, run_dir, "pretrain", resume=False, fixed=(), free="")
    published = locate(source)
    with announced(console, "encoder"):
        encoder, facts = load_sentence_encoder(published, config.pretraining.max_tokens)
        open_run(config, run_dir, "pretrain", resume=False)
        kind = MINILM if source == MINILM else "bert"
        write_text_encoder(
            run_dir / "encoder", encoder, kind=kind, fields=(), source={"from": source, **facts}, metrics={}
        )
    facts = read_json(run_dir / "encoder" / "encoder.json")
    return dict(facts)


def _check_preset(preset: str, data_dir: Path, train_end: datetime) -> None:
    """Refuse a T5 that cannot be loaded, or one of an earlier pretraining that has seen what comes after T."""
    load_t5(preset)
    if (Path(preset) / WRITER).is_file():
        source = read_json(Path(preset) / WRITER).get("source", {})
        refuse_foresight(source, f"pretraining.preset = {preset!r}", data_dir / "events.parquet", train_end)


def _sentencepiece(texts: list[str], pairs: Pairs, config: Config, run_dir: Path) -> bytes:
    """The run's SentencePiece model: the preset's, or learned from the catalogue before T and the training queries."""
    path = run_dir / "sentencepiece.model"
    if not path.exists():
        if config.pretraining.preset is not None:
            _, proto = load_t5(config.pretraining.preset)
        else:
            queries = [query for query, is_out in zip(pairs.queries, pairs.is_held_out, strict=True) if not is_out]
            known = [text for text in texts if text]
            proto = train_sentencepiece([*known, *queries], config.pretraining.vocabulary_size)
        with atomic_file(path) as temporary:
            temporary.write_bytes(proto)
    return path.read_bytes()


def _tokenized(
    texts: list[str], pairs: Pairs, proto: bytes, config: Config
) -> tuple[TokenPairs, TokenPairs, TokenPairs]:
    """Ids of the pairs to train on, of those that choose the best step, and of those that are reported."""
    settings = config.pretraining
    product_ids = _ids(SentencePieceTokens(proto, settings.max_tokens), [texts[row] for row in pairs.product_index])
    query_ids = _ids(SentencePieceTokens(proto, settings.max_query_tokens), pairs.queries)
    parts = []
    for is_here, name in (
        (~pairs.is_held_out, "train on"),
        (pairs.is_held_out & ~pairs.is_reported, "choose the best step by"),
        (pairs.is_reported, "report"),
    ):
        # A query of characters that the pieces lack altogether may come out empty, as a product's text may be.
        rows = np.flatnonzero(is_here & (query_ids[:, 0] != 0) & (product_ids[:, 0] != 0))
        if not len(rows):
            raise InputError(f"text.fields = {list(config.text.fields)}: no product to {name} has any text there")
        parts.append(TokenPairs(product_ids[rows], query_ids[rows]))
    return parts[0], parts[1], parts[2]


def _ids(tokens: SentencePieceTokens, texts: list[str]) -> np.ndarray:
    return np.concatenate([tokens(tf.constant(texts[n : n + 4_096])).numpy() for n in range(0, len(texts), 4_096)])


def _model(config: Config, proto: bytes, precision: str) -> Any:
    settings = config.pretraining
    if settings.preset is not None:
        return load_t5(settings.preset, precision, settings.dropout)[0]
    return build_t5(settings, _vocabulary_size(proto), precision)


def _vocabulary_size(proto: bytes) -> int:
    return int(sentencepiece.SentencePieceProcessor(model_proto=proto).vocab_size())


def _generated(
    writer: QueryWriter, products: pa.Table, texts: list[str], pairs: Pairs, num_seen: int
) -> dict[str, Any]:
    """How well queries find their product, of those that are reported, by BM25; and some of them."""
    rows = np.flatnonzero(pairs.is_reported & (pairs.product_index < num_seen))
    index = pairs.product_index[rows]
    titles = [" ".join(products.column("title")[int(product)].as_py().split()) for product in index]
    queries = {
        "generated": [written[0] for written in writer.write([texts[product] for product in index])],
        "title_start": [first_words(title) for title in titles],
        "true_query": [pairs.queries[row] for row in rows],
    }
    some = np.unique(np.linspace(0, len(rows) - 1, min(_NUM_SAMPLES, len(rows))).astype(int))
    return {
        "reciprocal_rank": {
            name: mean_reciprocal_ranks(BM25.build(texts_by_field), queries, index, num_seen)
            for name, texts_by_field in searched_texts(products).items()
        },
        "samples": [
            {
                "product_id": products.column("product_id")[int(index[n])].as_py(),
                "title": titles[n],
                "true_query": queries["true_query"][n],
                "generated_query": queries["generated"][n],
            }
            for n in some
        ],
    }  # fmt: skip
