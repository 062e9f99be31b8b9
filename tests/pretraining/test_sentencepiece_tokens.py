"""Pieces: the graph gives what the library gives, and rows are what T5 expects."""

import numpy as np
import pytest
import sentencepiece
import tensorflow as tf

from uepp.errors import InputError
from uepp.pretraining.sentencepiece_tokens import SentencePieceTokens, train_sentencepiece

TEXTS = [f"{color} {thing} made of {stuff}" for color in ("red", "Blue", "grün") for thing in ("lamp", "chair", "mug")
         for stuff in ("wood", "glass", "steel")]  # fmt: skip
ODD = ["Red LAMP", "grün chair", "日本 lamp", "ｆｕｌｌ width", "", "   ", "a\nb\tc", "lamp " * 2_000, "🙂"]


@pytest.fixture(scope="module")
def proto() -> bytes:
    return train_sentencepiece(TEXTS, 60)


def test_ids_are_those_of_t5(proto: bytes) -> None:
    library = sentencepiece.SentencePieceProcessor(model_proto=proto)
    assert (library.pad_id(), library.eos_id(), library.unk_id(), library.bos_id()) == (0, 1, 2, -1)
    assert [library.id_to_piece(n) for n in range(3)] == ["<pad>", "</s>", "<unk>"]
    assert 10 < library.vocab_size() <= 60


def test_the_same_texts_give_the_same_pieces(proto: bytes) -> None:
    assert train_sentencepiece(TEXTS, 60) == proto
    assert train_sentencepiece([*TEXTS[::-1], "purple"], 60) != proto


@pytest.mark.parametrize("max_tokens", [2, 5, 64])
def test_the_graph_gives_what_the_library_gives(proto: bytes, max_tokens: int) -> None:
    library = sentencepiece.SentencePieceProcessor(model_proto=proto)
    tokens = SentencePieceTokens(proto, max_tokens)
    rows = tf.function(tokens)(tf.constant(TEXTS + ODD)).numpy()
    assert rows.shape == (len(TEXTS + ODD), max_tokens)
    assert rows.dtype == np.int32
    num_cut = 0
    for text, row in zip(TEXTS + ODD, rows, strict=True):
        pieces = library.encode(text)
        num_cut += len(pieces) > max_tokens - 1
        expected = [*pieces[: max_tokens - 1], 1] if pieces else []
        assert row.tolist() == expected + [0] * (max_tokens - len(expected))
    assert num_cut > 0


def test_bytes_that_are_not_text_do_no_harm(proto: bytes) -> None:
    tokens = SentencePieceTokens(proto, 8)
    rows = tokens(tf.constant([b"red \xff\xfe lamp", "red \ufffd\ufffd lamp", b"\xff", "\ufffd"])).numpy()
    np.testing.assert_array_equal(rows[[0, 2]], rows[[1, 3]])
    assert rows[0, 0] > 2


def test_texts_come_back(proto: bytes) -> None:
    tokens = SentencePieceTokens(proto, 32)
    ids = tokens(tf.constant(["Red  lamp", "blue mug", ""])).numpy()
    assert [text.decode() for text in tokens.detokenize(ids).numpy()] == ["red lamp", "blue mug", ""]
    ids[0, 3:] = 7  # no end mark; and what comes after one is not read
    ids[1, np.argmax(ids[1] == 1) + 1 :] = 7
    assert tokens.detokenize(ids).numpy()[1].decode() == "blue mug"


def test_no_text_is_needed_to_tokenise_nothing(proto: bytes) -> None:
    assert SentencePieceTokens(proto, 4)(tf.zeros([0], tf.string)).shape == (0, 4)


def test_a_vocabulary_below_the_characters_is_refused() -> None:
    with pytest.raises(InputError, match=r"pretraining.vocabulary_size = 16: SentencePiece fails"):
        train_sentencepiece(TEXTS, 16)


def test_a_long_text_is_learned_from() -> None:
    """The library would leave it out."""
    library = sentencepiece.SentencePieceProcessor(model_proto=train_sentencepiece(["zebra " * 3_000, *TEXTS], 80))
    assert "z" in "".join(library.id_to_piece(n) for n in range(library.vocab_size()))
