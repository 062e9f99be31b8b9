"""Text to SentencePiece pieces: learned from a catalogue, applied in the TensorFlow graph."""

import io
from collections.abc import Sequence
from typing import Any

import sentencepiece
import tensorflow as tf
import tensorflow_text as tf_text

from uepp.errors import InputError

PAD, END, UNKNOWN = 0, 1, 2
"""Ids of T5."""

_MAX_TEXTS = 1_000_000
_MAX_CHARACTERS = 1_000  # more of a text is never read


def train_sentencepiece(texts: Sequence[str], vocabulary_size: int) -> bytes:
    """Learn a unigram vocabulary; the same texts give the same one.

    Text is compatibility-normalised and case-folded. A small corpus gives fewer pieces than asked for.

    Args:
        texts: what to learn from; of more than a million every n-th.
        vocabulary_size: pieces at most, the three special ones included.

    Returns:
        The serialised model, with the ids of T5: 0 padding, 1 end, 2 unknown.

    Raises:
        InputError: the vocabulary is too small for the characters of the texts.
    """
    step = -(-len(texts) // _MAX_TEXTS)
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=(text[:_MAX_CHARACTERS].replace("\0", " ") for text in texts[::step]),
            model_writer=model,
            model_type="unigram",
            vocab_size=vocabulary_size,
            hard_vocab_limit=False,
            character_coverage=0.9999,
            normalization_rule_name="nmt_nfkc_cf",
            max_sentence_length=4 * _MAX_CHARACTERS,
            num_threads=1,
            pad_id=PAD,
            eos_id=END,
            unk_id=UNKNOWN,
            bos_id=-1,
            pad_piece="<pad>",
            eos_piece="</s>",
            unk_piece="<unk>",
            minloglevel=3,
        )
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"pretraining.vocabulary_size = {vocabulary_size}: SentencePiece fails ({reason})") from None
    return model.getvalue()


class SentencePieceTokens(tf.Module):
    """Strings to rows of T ids.

    Args:
        proto: serialised SentencePiece model with the ids of T5.
        max_tokens: T, the end mark included.
    """

    def __init__(self, proto: bytes, max_tokens: int) -> None:
        super().__init__()
        self.max_tokens = max_tokens
        self._size = sentencepiece.SentencePieceProcessor(model_proto=proto).vocab_size()
        self._tokenizer: Any = tf_text.SentencepieceTokenizer(model=proto, out_type=tf.int32)

    def __call__(self, texts: tf.Tensor) -> tf.Tensor:
        """The first T − 1 pieces of each text and an end mark, filled up with 0: [B] strings to int32 [B, T].

        A text without any piece is padding only. Bytes that are not UTF-8 become U+FFFD.
        """
        texts = tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8", errors="replace")
        pieces = self._tokenizer.tokenize(texts)[:, : self.max_tokens - 1]
        end = tf.ragged.boolean_mask(tf.fill([pieces.nrows(), 1], END), tf.expand_dims(pieces.row_lengths() > 0, 1))
        return tf.concat([pieces, end], axis=1).to_tensor(PAD, shape=[None, self.max_tokens])

    def detokenize(self, ids: tf.Tensor) -> tf.Tensor:
        """Texts of int32 [B, T]; what comes after the first end mark or padding is left out, and what is no piece.

        T5's own presets have more rows than pieces.
        """
        is_before = tf.math.cumsum(tf.cast((ids == END) | (ids == PAD), tf.int32), axis=1) == 0
        return self._tokenizer.detokenize(tf.ragged.boolean_mask(ids, is_before & (ids < self._size)))
