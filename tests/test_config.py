"""Settings: what is refused, with which words, and what wins over what."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from uepp.config import INTERACTION_TYPES, Config, Given, RelevanceConfig, load_config, save_config, shipped_configs
from uepp.config.yaml_text import read_yaml
from uepp.errors import InputError


def refused(*arguments: Any, **keywords: Any) -> str:
    """The message of a refusal; always one line."""
    with pytest.raises(InputError) as caught:
        load_config(*arguments, **keywords)
    message = str(caught.value)
    assert message
    assert "\n" not in message
    return message


def write(directory: Path, text: str | bytes) -> str:
    path = directory / "my.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def test_defaults_are_valid() -> None:
    assert load_config() == Config()
    assert Config.model_validate(Config().model_dump()) == Config()
    assert Config().loss.thresholds == (0.7, 0.8, 0.9)
    assert INTERACTION_TYPES == ("click", "cart", "purchase")


def test_settings_cannot_be_changed_later() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Config().training.max_steps = 5  # type: ignore[misc]


def test_every_shipped_configuration_is_valid() -> None:
    names = shipped_configs()
    for name in names:
        assert isinstance(load_config(name), Config)
    assert "demo" in names


def test_a_file_holds_only_what_differs(tmp_path: Path) -> None:
    source = write(tmp_path, "training:\n  max_steps: 7\nfeatures:\n  groups: [[title], [tags, category]]\n")
    config = load_config(source)
    assert config.training.max_steps == 7
    assert config.training.batch_size == Config().training.batch_size
    assert config.features.groups == (("title",), ("tags", "category"))
    assert load_config(write(tmp_path, "")) == Config()
    assert load_config(write(tmp_path, "# nothing\n")) == Config()


@pytest.mark.parametrize(
    ("text", "key", "hint"),
    [
        ("training:\n  batchsize: 5\n", "training.batchsize", "training.batch_size"),
        ("trainning:\n  batch_size: 5\n", "trainning", "training"),
        ("batch_size: 5\n", "batch_size", "training.batch_size"),
        ("model:\n  max_steps: 5\n", "model.max_steps", "training.max_steps"),
        ("loss:\n  treshold_click: 0.5\n", "loss.treshold_click", "loss.threshold_click"),
        ("negatives:\n  num_unifrom: 5\n", "negatives.num_unifrom", "negatives.num_uniform"),
        ("negative:\n  num_uniform: 5\n", "negative", "negatives"),
        ("graph:\n  num_neighbours: 5\n", "graph.num_neighbours", "graph.num_neighbors"),
        ("history:\n  num_search: 5\n", "history.num_search", "history.num_searches"),
        ("training:\n  num_uniform: 5\n", "training.num_uniform", "negatives.num_uniform"),
        ("loss:\n  uniform_weight: 0.5\n", "loss.uniform_weight", "negatives.uniform_weight"),
        ("loss:\n  in_batch_weight: 0.5\n", "loss.in_batch_weight", "negatives.in_batch_weight"),
        ("model:\n  num_heads: 5\n", "model.num_heads", "history.num_heads"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest(tmp_path: Path, text: str, key: str, hint: str) -> None:
    source = write(tmp_path, text)
    assert refused(source) == f"{source}: unknown key {key}; did you mean {hint}?"


def test_an_unknown_key_like_no_other_has_no_hint(tmp_path: Path) -> None:
    source = write(tmp_path, "zzzzqqqq: 1\n")
    assert refused(source) == f"{source}: unknown key zzzzqqqq"


@pytest.mark.parametrize(
    ("setting", "key", "value", "allowed"),
    [
        ("training.batch_size=0", "training.batch_size", "0", "greater than or equal to 2"),
        ("training.batch_size=many", "training.batch_size", "'many'", "integer"),
        ("training.max_steps=1.5", "training.max_steps", "1.5", "integer"),
        ("training.token_dropout=1", "training.token_dropout", "1", "less than 1"),
        ("training.token_dropout=.nan", "training.token_dropout", "nan", "finite"),
        ("training.max_steps=null", "training.max_steps", "None", "integer"),
        ("training.positive_types=[]", "training.positive_types", "[]", "at least 1"),
        ("training.positive_types=[buy]", "training.positive_types.0", "'buy'", "'click', 'cart' or 'purchase'"),
        ("loss.threshold_negative=2", "loss.threshold_negative", "2", "less than or equal to 1"),
        ("loss.power=3", "loss.power", "3", "1 or 2"),
        ("export.index=annoy", "export.index", "'annoy'", "known are flat, hnsw, ivf-flat"),
        ("features.groups=[]", "features.groups", "[]", "at least 1"),
        ("features.groups=[[title], [title]]", "features.groups", "title", "exactly one group"),
        ("features.groups=[[title], []]", "features.groups", "title", "no group is empty"),
        ("features.groups=[[titel]]", "features.groups.0.0", "'titel'", "'title'"),
        ("features.own_tables=[tags]", "features", "['tags']", "first field, ['title', 'category', 'description']"),
        ("features.own_tables=[title, title]", "features", "['title', 'title']", "by their first field"),
        ("features.own_tables=[colour]", "features.own_tables.0", "'colour'", "'title', 'tags', 'category'"),
        ("features.location_buckets=[5, 5]", "features.location_buckets", "[5, 5]", "each k only once"),
        ("features.location_buckets=[0]", "features.location_buckets.0", "0", "greater than or equal to 1"),
        ("features.max_shops=0", "features.max_shops", "0", "greater than or equal to 1"),
        ("graph.num_neighbors=0", "graph.num_neighbors", "0", "greater than or equal to 1"),
        ("graph.sampling=best", "graph.sampling", "'best'", "'uniform' or 'count'"),
        ("graph.gradient=none", "graph.gradient", "'none'", "'frozen' or 'shared'"),
        ("history.num_searches=-1", "history.num_searches", "-1", "greater than or equal to 0"),
        ("history.num_heads=0", "history.num_heads", "0", "greater than or equal to 1"),
        ("model.product_encoders=[]", "model.product_encoders", "[]", "at least 1"),
        ("model.product_encoders=[history]", "model.product_encoders.0", "'history'", "'tokens', 'shop', 'location'"),
        (
            "model.query_encoders=[graph]",
            "model.query_encoders.0",
            "'graph'",
            "'tokens', 'location', 'history' or 'text'",
        ),
        ("model.precision=float16", "model.precision", "'float16'", "'float32' or 'mixed_bfloat16'"),
        ("loss.kind=triplet", "loss.kind", "'triplet'", "'hinge' or 'softmax'"),
        ("loss.temperature=0", "loss.temperature", "0", "greater than 0"),
        ("negatives.in_batch=all", "negatives.in_batch", "'all'", "'uniform' or 'hardest'"),
        ("negatives.num_uniform=-1", "negatives.num_uniform", "-1", "greater than or equal to 0"),
        ("negatives.num_in_batch=0", "negatives.num_in_batch", "0", "greater than or equal to 1"),
        ("negatives.num_dynamic=0", "negatives.num_dynamic", "0", "greater than or equal to 1"),
        ("negatives.dynamic_chunk=0", "negatives.dynamic_chunk", "0", "greater than or equal to 1"),
        ("negatives.uniform_weight=0.5", "negatives.uniform_weight", "0.5", "tuple"),
        ("negatives.uniform_weight=[1]", "negatives.uniform_weight.1", "[1]", "required"),
        ("negatives.uniform_weight=[1, 1, 1]", "negatives.uniform_weight", "[1, 1, 1]", "at most 2 items"),
        ("negatives.in_batch_weight=[-0.1, 1]", "negatives.in_batch_weight.0", "-0.1", "greater than or equal to 0"),
        ("negatives.dynamic_weight=[0, -1]", "negatives.dynamic_weight.1", "-1", "greater than or equal to 0"),
        ("negatives.dynamic_weight=[0, .nan]", "negatives.dynamic_weight.1", "nan", "finite"),
        ("negatives.warmup_steps=-1", "negatives.warmup_steps", "-1", "greater than or equal to 0"),
        ("negatives.ramp_steps=-1", "negatives.ramp_steps", "-1", "greater than or equal to 0"),
        ("negatives.false_negative_temperature=-1", "negatives.false_negative_temperature", "-1", "greater than"),
        ("boosting.features=[clicks, clicks]", "boosting.features", "['clicks', 'clicks']", "each feature only once"),
        ("boosting.features=[]", "boosting.features", "[]", "at least 1 item"),
        ("boosting.max_boost=0", "boosting.max_boost", "0", "greater than 0"),
        ("evaluation.recall_at=[10, 5]", "evaluation.recall_at", "[10, 5]", "increasing"),
        ("evaluation.recall_at=[0, 5]", "evaluation.recall_at", "[0, 5]", "at least 1"),
        ("data.train_end=yesterday", "data.train_end", "'yesterday'", "datetime"),
        ("data.train_end=20240420", "data.train_end", "20240420", "2024-05-01T12:00:00Z) or none, not a number"),
        ("data.train_end='20240420'", "data.train_end", "'20240420'", "not a number"),
        ("data.train_end=1.7e9", "data.train_end", "1.7e9", "not a number"),
        ("data.train_end=yes", "data.train_end", "True", "not true or false"),
        ("training.max_steps=true", "training.max_steps", "True", "must be a whole number, not true or false"),
        ("training.warmup_steps=off", "training.warmup_steps", "False", "must be a whole number"),
        ("loss.temperature=yes", "loss.temperature", "True", "must be a number, not true or false"),
        ("loss.power=true", "loss.power", "True", "must be 1 or 2, not true or false"),
        ("negatives.num_in_batch=true", "negatives.num_in_batch", "True", "a whole number or none"),
        ("negatives.uniform_weight=[true, 1]", "negatives.uniform_weight", "[True, 1]", "must be a list, not true"),
        ("evaluation.recall_at=[true, 10]", "evaluation.recall_at", "[True, 10]", "must be a list, not true"),
        ("data.path=no", "data.path", "False", "must be a text or none, not true or false"),
        ("serving.cache=off", "serving.cache", "False", "must be 'features', 'user', 'layered' or 'none'"),
        ("serving.min_similarity=yes", "serving.min_similarity", "True", "must be a number, 'auto' or none"),
        ("training=true", "training", "True", "must be a mapping of settings"),
        ("training.max_steps=none", "training.max_steps", "'none'", "integer"),
        ("training=5", "training", "5", "TrainingConfig"),
        ("loss.temperature=.inf", "loss.temperature", "inf", "finite"),
        ("training.dense_learning_rate=.inf", "training.dense_learning_rate", "inf", "finite"),
        ("loss.threshold_negative=0.8", "loss", "0.8", "below the thresholds of clicks, carts and purchases, [0.7"),
        ("loss.threshold_click=-1", "loss", "0.2", "must be below"),
        ("negatives={num_uniform: 0, in_batch_weight: [0, 0]}", "negatives", "in_batch_weight", "no negatives"),
        (
            "negatives={uniform_weight: [0, 1], in_batch_weight: [0, 1], ramp_steps: 9}",
            "negatives",
            "first weights",
            "uniform_weight",
        ),
        ("negatives.uniform_weight=[0.1, 1]", "negatives", "[0.1, 1.0]", "give warmup_steps or ramp_steps too"),
        ("model.product_encoders=[tokens, tokens]", "model.product_encoders", "tokens", "each encoder once"),
        ("pretraining.seed=4294967296", "pretraining.seed", "4294967296", "less than 4294967296"),
    ],
)
def test_a_wrong_value_names_key_value_and_what_is_allowed(setting: str, key: str, value: str, allowed: str) -> None:
    message = refused(overrides=[setting])
    assert f"{key} = " in message
    assert value in message
    assert allowed in message


def test_own_tables_are_named_by_the_first_field_of_a_group() -> None:
    groups = "features.groups=[[title, tags], [description]]"
    assert load_config(overrides=[groups, "features.own_tables=[description]"]).features.own_tables == ("description",)
    message = refused(overrides=[groups, "features.own_tables=[category]"])
    assert "own_tables = ['category']: name groups by their first field, ['title', 'description']" in message


def test_shipped_configurations_say_what_their_names_promise() -> None:
    """Base and Large vocab read texts alone; etsy has every part of the paper and nothing beyond it."""
    for name in ("base", "large_vocab"):
        model = load_config(name).model
        assert (model.product_encoders, model.query_encoders) == (("tokens",), ("tokens",))
    etsy = load_config("etsy")
    assert set(etsy.model.product_encoders) == {"tokens", "shop", "location", "graph"}
    assert set(etsy.model.query_encoders) == {"tokens", "location", "history"}
    history = etsy.history
    assert min(
        history.num_searches, history.num_shops, history.num_clicked_products, history.num_purchased_products
    ) > 0  # fmt: skip
    negatives = etsy.negatives
    assert min(negatives.num_uniform, negatives.dynamic_pool, negatives.warmup_steps, negatives.ramp_steps) > 0
    assert negatives.in_batch_weight[0] == negatives.dynamic_weight[0] == 0 < negatives.uniform_weight[0]
    assert negatives.uniform_weight[0] > negatives.uniform_weight[1]
    assert min(negatives.in_batch_weight[1], negatives.dynamic_weight[1]) > 0
    assert (etsy.loss.kind, etsy.loss.power, etsy.graph.gradient) == ("hinge", 1, "frozen")
    assert (etsy.training.token_dropout, etsy.training.title_query_share) == (0.0, 0.0)
    assert negatives.false_negative_temperature == 0.0


def test_no_text_at_all_is_refused() -> None:
    switches = ("word_unigrams", "word_bigrams", "character_trigrams")
    message = refused(overrides=[f"features.{switch}=false" for switch in switches])
    assert "at least one of word_unigrams, word_bigrams, character_trigrams must be true" in message
    assert load_config(overrides=[f"features.{switch}=false" for switch in switches[:2]]).features.character_trigrams


def test_the_message_names_the_file(tmp_path: Path) -> None:
    source = write(tmp_path, "training:\n  max_steps: -1\n")
    message = refused(source)
    assert message.startswith(f"{source}: training.max_steps = -1: ")
    assert "greater than or equal to 1" in message


@pytest.mark.parametrize("setting", ["ranker.top=10001", "ranker.num_leaves=131073"])
def test_what_lightgbm_cannot_do_is_refused(setting: str) -> None:
    """It ended in LightGBM's traceback, after everything was found."""
    assert "input should be less than or equal to" in refused(overrides=[setting])


@pytest.mark.parametrize(
    ("setting", "attribute", "expected"),
    [
        ("training.max_steps=5", "max_steps", 5),
        ("training.table_learning_rate=1e-1", "table_learning_rate", 0.1),
        ("training.positive_types=[purchase, cart]", "positive_types", ("purchase", "cart")),
    ],
)
def test_set_parses_yaml(setting: str, attribute: str, expected: object) -> None:
    assert getattr(load_config(overrides=[setting]).training, attribute) == expected


def test_set_parses_switches_paths_and_nothing() -> None:
    config = load_config(overrides=["model.batch_norm=false", "data.path=a=b/c.d", "model.hidden_layers=[64, 32]"])
    assert config.model.batch_norm is False
    assert config.data.path == "a=b/c.d"
    assert config.model.hidden_layers == (64, 32)
    assert load_config(overrides=["data.path=x", "data.path=null"]).data.path is None


@pytest.mark.parametrize("setting", ["training.max_steps", "=5", "", "5"])
def test_set_without_key_or_value(setting: str) -> None:
    assert refused(overrides=[setting]) == f"--set {setting}: expected key.path=value"


def test_set_with_broken_yaml() -> None:
    assert refused(overrides=["training.max_steps=[1"]).startswith("--set training.max_steps=[1: ")


def test_set_with_unknown_key() -> None:
    message = refused(overrides=["training.max_step=5"])
    assert "unknown key training.max_step; did you mean training.max_steps?" in message


@pytest.mark.parametrize("setting", ["training.max_steps.more=5", "features.groups.0=[title]"])
def test_set_below_a_setting(tmp_path: Path, setting: str) -> None:
    source = write(tmp_path, "training:\n  max_steps: 7\nfeatures:\n  groups: [[title]]\n")
    assert setting.rsplit(".", 1)[0].split(".")[-1] in refused(source, [setting])


def test_what_wins(tmp_path: Path) -> None:
    source = write(tmp_path, "training:\n  max_steps: 1\n  seed: 1\n  batch_size: 4\ndata:\n  path: file\n")
    given = [Given("--data", {"training": {"seed": 3}, "data": {"path": "option"}})]
    config = load_config(source, ["training.max_steps=2", "training.seed=2", "training.max_steps=3"], given)
    assert (config.training.max_steps, config.training.seed, config.training.batch_size) == (3, 3, 4)
    assert config.data.path == "option"


def test_set_reaches_into_a_stage_that_the_file_leaves_empty(tmp_path: Path) -> None:
    """`training:` with everything under it commented out is an empty stage."""
    source = write(tmp_path, "training:\n  # max_steps: 5\nmodel:\n  token_dim: 4\n")
    assert load_config(source).training == Config().training
    assert load_config(source, ["training.max_steps=9"]).training.max_steps == 9


def test_round_trip(tmp_path: Path) -> None:
    config = load_config(
        None,
        [
            "training.max_steps=5",
            "features.groups=[[title], [description]]",
            "features.own_tables=[description]",
            "negatives.uniform_weight=[1, 0.25]",
            "negatives.ramp_steps=3",
            "negatives.num_in_batch=7",
            "history.num_shops=0",
            "data.train_end=2024-05-01T12:00:00Z",
            "data.path=ünï",
        ],
    )
    assert config.data.train_end == datetime(2024, 5, 1, 12, tzinfo=UTC)
    for number, one in enumerate((Config(), config)):
        path = tmp_path / f"{number}" / "config.yaml"
        save_config(one, path)
        assert load_config(str(path)) == one
        saved = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert saved["training"].keys() == one.training.model_dump().keys(), "every setting with its value"


def optional_keys() -> list[str]:
    """All settings that may be null, by pydantic's own judgement: null is accepted."""
    found = []
    for stage, field in Config.model_fields.items():
        for name in type(field.default).model_fields:
            problems: list[Any] = []
            try:
                type(field.default).model_validate({name: None})
            except ValidationError as error:
                problems = [problem for problem in error.errors() if problem["loc"] == (name,)]
            found += [] if problems else [f"{stage}.{name}"]
    return found


@pytest.mark.parametrize("key", optional_keys())
@pytest.mark.parametrize("word", ["none", "None", "NONE", "null", "~", "'none'"])
def test_none_is_null(tmp_path: Path, key: str, word: str) -> None:
    """As the documents write it; but a cache and a sampler have a choice of that name."""
    stage, name = key.split(".")
    expected = "none" if key in ("serving.cache", "relevance.sampler") else None
    rest = ["relevance.sampler=vns"] if key == "relevance.bi_encoder" else []
    source = write(tmp_path, f"{stage}: {{{name}: {word}}}\n")
    for config in (load_config(source, rest), load_config(None, [*rest, f"{key}={word}"])):
        assert getattr(getattr(config, stage), name) == expected


def test_what_may_be_none() -> None:
    keys = optional_keys()
    assert {"data.path", "negatives.num_in_batch", "relevance.learning_rate", "serving.cache"} <= set(keys)
    assert not {"training.max_steps", "graph.gradient", "features.groups"} & set(keys)


@pytest.mark.parametrize("word", ["off", "no", "false", "'off'", "none", "OFF"])
def test_no_threshold_at_all(tmp_path: Path, word: str) -> None:
    """YAML's off is false, which pydantic takes for 0: half of all cosines would be cut off."""
    setting = f"serving.min_similarity={word}"
    assert load_config(None, ["serving.min_similarity=0.5", setting]).serving.min_similarity is None
    assert load_config(write(tmp_path, f"serving: {{min_similarity: {word}}}")).serving.min_similarity is None
    assert load_config(None, ["serving.min_similarity=0"]).serving.min_similarity == 0.0
    assert load_config(None, ["serving.min_similarity=auto"]).serving.min_similarity == "auto"


def test_days_and_times_are_taken() -> None:
    for text in ("2024-04-20", "2024-04-20T00:00:00", "'2024-04-20'", "2024-04-20 00:00:00"):
        moment = load_config(None, [f"data.train_end={text}"]).data.train_end
        assert moment is not None
        assert moment.replace(tzinfo=None) == datetime(2024, 4, 20)


def test_missing_file(tmp_path: Path) -> None:
    message = refused(str(tmp_path / "absent.yaml"))
    assert message.startswith(f"{tmp_path / 'absent.yaml'}: no such file")
    assert all(name in message for name in shipped_configs())
    assert "no such file" in refused(str(tmp_path))
    assert refused("dmo").startswith("dmo: no such configuration; give a YAML file or one of: ")


def test_a_mistyped_path_is_not_a_shipped_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`my/experiments/base.yaml` that is not there was read as the shipped `base`."""
    monkeypatch.chdir(tmp_path)
    for source in ("my/experiments/base.yaml", "../base", str(tmp_path / "base.yaml"), "configs/base/base.yaml"):
        assert refused(source).startswith(f"{source}: no such file")
    expected = load_config("base")
    assert expected != Config()
    assert load_config("base.yaml") == load_config("configs/base.yaml") == expected
    (tmp_path / "base.yaml").write_text("training: {max_steps: 7}")
    assert load_config("base.yaml").training.max_steps == 7, "a file that is there comes first"


def test_a_key_twice_is_refused(tmp_path: Path) -> None:
    """YAML's loaders take the last: a whole `training:` block was dropped."""
    source = write(tmp_path, "training:\n  max_steps: 5\nmodel:\n  token_dim: 4\ntraining:\n  seed: 2\n")
    assert refused(source) == f"{source}: line 5: key training is there a second time"
    source = write(tmp_path, 'training:\n  seed: 5\n  "seed": 4\n')
    assert refused(source) == f"{source}: line 3: key seed is there a second time"
    setting = "training={seed: 1, seed: 2}"
    assert refused(None, [setting]) == f"--set {setting}: key seed is there a second time"


def test_merged_keys_may_be_set_again(tmp_path: Path) -> None:
    """Also where what is merged has been merged itself, on whatever level."""
    text = "a: {b: &two {<<: &one {x: 1, y: 1}, y: 2}}\nc: {<<: *two, y: 3}\nd: {<<: [*two, *one], x: 4}\n"
    expected = {"a": {"b": {"x": 1, "y": 2}}, "c": {"x": 1, "y": 3}, "d": {"x": 4, "y": 2}}
    assert yaml.safe_load(text) == expected
    (tmp_path / "merged.yaml").write_text(text)
    assert read_yaml(tmp_path / "merged.yaml") == expected


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("2024-13-01", "2024-13-01 is no timestamp (month must be in 1..12)"),
        ("2024-02-30T00:00:00", "2024-02-30T00:00:00 is no timestamp (day"),
        ("!!bool perhaps", "perhaps is no bool"),
        ("!!timestamp soon", "soon is no timestamp"),
        ("!!int many", "many is no int"),
    ],
)
def test_a_value_that_cannot_be(tmp_path: Path, value: str, problem: str) -> None:
    """The loader let Python's own errors out."""
    assert refused(None, [f"data.train_end={value}"]).startswith(f"--set data.train_end={value}: {problem}")
    source = write(tmp_path, f"data:\n  train_end: {value}\n")
    assert refused(source).startswith(f"{source}: line 2: {problem}")


def test_the_message_names_what_brought_the_problem(tmp_path: Path) -> None:
    """Not the file, where an option is wrong; not the option, where the file is."""
    source = write(tmp_path, "training: {max_steps: 5}\nrelevance: {dim: 6, num_heads: 4}\n")
    bad_file = f"{source}: relevance = "
    assert refused(source).startswith(bad_file)
    assert refused(source, ["training.seed=2"]).startswith(bad_file)
    layers = Given("--layers", {"relevance": {"num_layers": 1}})
    assert refused(source, ["relevance.seed=2"], given=[layers]).startswith(bad_file)

    source = write(tmp_path, "training: {max_steps: 5}\nrelevance: {num_heads: 3, dim: 6}\n")
    sampler = Given("--sampler", {"relevance": {"sampler": "bsns"}})
    assert refused(source, given=[layers, sampler]).startswith("--sampler: relevance.sampler = 'bsns': ")
    assert refused(source, given=[sampler, layers]).startswith("--sampler: relevance.sampler = 'bsns': ")
    pair = refused(source, ["relevance.dim=8"], given=[layers])
    assert pair.startswith("--set: relevance = "), "with the file alone 3 divides 6"
    assert refused(source, ["trainin.seed=1"]).startswith("--set: unknown key trainin; did you mean training?")
    typo = write(tmp_path, "trainin: {seed: 1}")
    assert refused(typo, ["trainin.max_steps=1"]) == f"{typo}: unknown key trainin; did you mean training?"
    source = write(tmp_path, "training: {max_steps: 5}")
    changed = Given("mine.yaml: variant a", {"training": {"max_step": 5}})
    assert refused(source, given=[changed]) == (
        "mine.yaml: variant a: unknown key training.max_step; did you mean training.max_steps?"
    )
    assert load_config(
        source, ["relevance.sampler=bsns"], given=[Given("--sampler", {"relevance": {"sampler": "vns"}})]
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("training: [\n", "not valid YAML"),
        ("a: b: c\n", "not valid YAML"),
        (b"\xff\xfe\x00", "not valid YAML"),
        ("- 1\n- 2\n", "expected a mapping of stages to settings, got list"),
        ("just text\n", "expected a mapping of stages to settings, got str"),
        ("1: 2\n", "1"),
        ("training:\n  1: 2\n", "training.1"),
        ("training: [1]\n", "training"),
    ],
)
def test_a_file_that_is_no_configuration(tmp_path: Path, text: str | bytes, problem: str) -> None:
    source = write(tmp_path, text)
    message = refused(source)
    assert message.startswith(f"{source}: ")
    assert problem in message


@pytest.mark.parametrize(
    ("settings", "rate"),
    [
        ({}, 5e-4),
        ({"encoder": "minilm", "num_layers": 3}, 3e-4),
        ({"encoder": "minilm", "num_layers": 4}, 5e-5),
        ({"encoder": "minilm", "learning_rate": 0.002}, 0.002),
    ],
)
def test_a_cross_encoders_rate_is_that_of_its_start(settings: dict[str, Any], rate: float) -> None:
    assert RelevanceConfig(**settings).peak_learning_rate == rate


def test_candidates_are_in_batch_unless_a_pool_is_asked_for() -> None:
    """A number as default would be refused beside a larger batch."""
    assert RelevanceConfig(batch_size=64).pairs_in_pool == 64
    assert RelevanceConfig(batch_size=64, pool_size=100).pairs_in_pool == 100
