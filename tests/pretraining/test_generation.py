"""Generated queries: greedy is what the loss says is likeliest, whatever else is in the batch."""

from pathlib import Path

import numpy as np
import pytest
import small_t5
import tensorflow as tf

from uepp.errors import InputError
from uepp.pretraining.generation import QueryWriter
from uepp.pretraining.sentencepiece_tokens import SentencePieceTokens, train_sentencepiece
from uepp.pretraining.t5 import build_t5, inputs_of

TEXTS = [f"{color} {thing}" for color in ("red", "blue", "green") for thing in ("lamp", "chair", "mug")]


@pytest.fixture(scope="module")
def proto() -> bytes:
    return train_sentencepiece(TEXTS, 40)


@pytest.fixture(scope="module")
def writer(proto: bytes) -> QueryWriter:
    return QueryWriter(build_t5(small_t5.config(), 40), proto, 12, 6)


def test_greedy_takes_the_likeliest_piece_each_time(writer: QueryWriter, proto: bytes) -> None:
    """By the plain forward pass, one product and one piece at a time, without KerasHub's cache."""
    tokens = SentencePieceTokens(proto, 12)
    queries = [written[0] for written in writer.write(TEXTS)]
    lengths = []
    for text, query in zip(TEXTS, queries, strict=True):
        product = tokens(tf.constant([text])).numpy()
        pieces: list[int] = []
        while len(pieces) < 6 and 1 not in pieces:
            so_far = np.array([[*pieces, 2, 2]], np.int32)  # the last two are not read by what is before them
            logits = writer._model(inputs_of(product, so_far)).numpy()
            pieces.append(int(np.argmax(logits[0, len(pieces)])))
        lengths.append(len(pieces))
        assert query == tokens.detokenize(np.array([pieces], np.int32)).numpy()[0].decode()
    assert max(lengths) > 1


def test_a_query_does_not_depend_on_the_batch(writer: QueryWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = writer.write(TEXTS)
    assert writer.write(TEXTS[4:5]) == expected[4:5]
    assert writer.write(TEXTS[::-1]) == expected[::-1]
    monkeypatch.setattr("uepp.pretraining.generation._AT_ONCE", 4)
    assert writer.write(TEXTS) == expected


def test_an_empty_text_has_no_query(writer: QueryWriter) -> None:
    assert writer.write(["", "red lamp"])[0] == [""]
    assert writer.write([]) == []


def test_several_queries_are_drawn_by_the_seed(writer: QueryWriter) -> None:
    drawn = writer.write(TEXTS, number=3, sample_from=5)
    assert [len(queries) for queries in drawn] == [3] * len(TEXTS)
    assert any(len(set(queries)) > 1 for queries in drawn)
    assert writer.write(TEXTS, number=3, sample_from=5) == drawn
    assert writer.write(TEXTS, number=3, sample_from=5, seed=9) != drawn


def test_a_search_of_one_beam_is_greedy(writer: QueryWriter) -> None:
    import keras_hub

    assert writer._run(TEXTS, keras_hub.samplers.BeamSampler(num_beams=1)) == writer._run(TEXTS, "greedy")
    assert len(writer.write(TEXTS, num_beams=3)) == len(TEXTS)


def test_a_run_that_has_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no finished run of uepp pretrain \(it has no seq2seq/\)"):
        QueryWriter.load(tmp_path)
