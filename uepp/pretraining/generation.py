"""Queries written by a trained T5: for the eye, and for whole catalogues (document expansion)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras_hub
import numpy as np
import tensorflow as tf

from uepp.artifacts import read_json
from uepp.errors import InputError
from uepp.pretraining.loop import without_padding
from uepp.pretraining.sentencepiece_tokens import END, PAD, SentencePieceTokens
from uepp.pretraining.t5 import load_t5

WRITER = "writer.json"
"""Beside a saved T5: how much it reads and writes, and what it was pretrained on."""

_AT_ONCE = 256


class QueryWriter:
    """Product texts to queries.

    Args:
        model: a `T5Seq2SeqLM`, float32.
        proto: its SentencePiece model.
        max_tokens: pieces read of a product's text.
        max_query_tokens: pieces of a query at most, end mark included.
    """

    def __init__(self, model: Any, proto: bytes, max_tokens: int, max_query_tokens: int) -> None:
        self._model = model
        self._tokens = SentencePieceTokens(proto, max_tokens)
        self._max_query_tokens = max_query_tokens

    @classmethod
    def load(cls, run_dir: Path) -> "QueryWriter":
        """The model of a finished run of `uepp pretrain`.

        Raises:
            InputError: it has none.
        """
        if not (run_dir / "seq2seq" / WRITER).exists():
            raise InputError(f"{run_dir}: no finished run of uepp pretrain (it has no seq2seq/)")
        facts = read_json(run_dir / "seq2seq" / WRITER)
        model, proto = load_t5(str(run_dir / "seq2seq"))
        return cls(model, proto, facts["max_tokens"], facts["max_query_tokens"])

    def write(
        self, texts: Sequence[str], *, number: int = 1, num_beams: int = 1, sample_from: int = 10, seed: int = 1
    ) -> list[list[str]]:
        """Queries for each text.

        Args:
            texts: product fields, joined as for training.
            number: queries a text; 1: the likeliest one as far as the search finds it; more are sampled.
            num_beams: width of the search; 1: greedy.
            sample_from: more than one query: each next piece is drawn from so many likeliest ones.
            seed: of the sampling.

        Returns:
            `number` queries a text; an empty one for an empty text.
        """
        if number == 1:
            name = "greedy" if num_beams == 1 else keras_hub.samplers.BeamSampler(num_beams=num_beams)
            return [[query] for query in self._run(texts, name)]
        rounds = [self._run(texts, keras_hub.samplers.TopKSampler(k=sample_from, seed=seed + n)) for n in range(number)]
        return [list(queries) for queries in zip(*rounds, strict=True)]

    def _run(self, texts: Sequence[str], sampler: Any) -> list[str]:
        if not texts:
            return []
        self._model.compile(sampler=sampler)
        # KerasHub's loop needs to know the number of rows when it is traced, and that of its beam search the columns.
        size = min(_AT_ONCE, len(texts))
        is_beam = isinstance(sampler, keras_hub.samplers.BeamSampler)
        spec = tf.TensorSpec([size, self._tokens.max_tokens if is_beam else None], tf.int32)
        generate = tf.function(self._generate, input_signature=[spec], autograph=False)
        ids = np.concatenate(
            [self._tokens(tf.constant(texts[n : n + 4_096])).numpy() for n in range(0, len(texts), 4_096)]
        )
        queries = np.empty(len(texts), object)
        by_length = np.argsort((ids != PAD).sum(axis=1), kind="stable")
        for begin in range(0, len(texts), size):
            rows = by_length[min(begin, len(texts) - size) :][:size]
            written = self._tokens.detokenize(generate(ids[rows] if is_beam else without_padding(ids[rows]))).numpy()
            queries[rows] = [text.decode("utf-8", "replace") for text in written]
        queries[(ids == PAD).all(axis=1)] = ""
        return queries.tolist()

    def _generate(self, ids: tf.Tensor) -> tf.Tensor:
        """Query ids int32 [B, T] without the start."""
        shape = [ids.shape[0], self._max_query_tokens + 1]
        is_start = tf.tile(tf.one_hot([0], shape[1], dtype=tf.int32), [shape[0], 1])
        inputs = {
            "encoder_token_ids": ids,
            "encoder_padding_mask": tf.cast(ids != PAD, tf.int32),
            "decoder_token_ids": tf.zeros(shape, tf.int32),  # T5 starts with padding
            "decoder_padding_mask": is_start,
        }
        return self._model.generate_step(inputs, stop_token_ids=[END])["decoder_token_ids"][:, 1:]
