"""Configurations as files: found, read, merged with what the command line sets, explained, written."""

import copy
import difflib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml
from pydantic import BaseModel, ValidationError

from uepp.config.run import Config
from uepp.config.yaml_text import parse_yaml, read_yaml
from uepp.errors import InputError


class Given(NamedTuple):
    """Settings that come from elsewhere than the configuration's file.

    Attributes:
        origin: what a message names when they are wrong: an option, a study and its variant.
        settings: nested.
    """

    origin: str
    settings: dict[str, Any]


def load_config(
    source: str | None = None,
    overrides: Sequence[str] = (),
    given: Sequence[Given] = (),
) -> Config:
    """Read a configuration.

    Args:
        source: path of a YAML file, or the name of a shipped one (`demo`, `base`, …); none: all defaults.
        overrides: `key.path=value` strings, the value in YAML; they win over the file.
        given: settings that win over both, what command-line options and studies set; the later ones win.

    Raises:
        InputError: unreadable file, unknown key (with the nearest valid one), or a value out of range; it names where
            that comes from.
    """
    name, settings = ("defaults", {}) if source is None else _read_file(locate(source, "configuration"))
    layers = [Given(name, settings)]
    if overrides:
        layers.append(Given("--set", _with_overrides(settings, overrides)))
    for layer in given:
        layers.append(Given(layer.origin, merge_settings(layers[-1].settings, layer.settings)))
    try:
        return Config.model_validate(layers[-1].settings)
    except ValidationError as error:
        problem = error.errors()[0]
        # The first settings to have that problem brought it, whichever keys they set: it may be a pair that is wrong.
        origin = next(layer.origin for layer in layers if _identity(problem) in _problems(layer.settings))
        raise InputError(f"{origin}: {_explain('.'.join(map(str, problem['loc'])), problem)}") from None


def save_config(config: Config, path: Path) -> None:
    """Write every setting with its resolved value."""
    from uepp.artifacts import atomic_file

    with atomic_file(path) as temporary:
        temporary.write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False), encoding="utf-8")


def shipped_configs() -> list[str]:
    """Names of the configurations that are installed with the package."""
    return sorted(file.name[:-5] for file in resources.files("uepp.configs").iterdir() if file.name.endswith(".yaml"))


def shipped_studies() -> list[str]:
    """Names of the studies that are installed with the package."""
    folder = resources.files("uepp.configs") / "studies"
    return sorted(file.name[:-5] for file in folder.iterdir() if file.name.endswith(".yaml"))


def locate(source: str, kind: Literal["configuration", "study"]) -> Path:
    """The file that is meant: one that is there, else the shipped one of that name.

    Args:
        source: path of a file; or `NAME`, `NAME.yaml`, or the path of a shipped file in a clone of the project.
        kind: of what.

    Raises:
        InputError: neither; a path of one's own that is mistyped is not taken for the shipped file of that name.
    """
    path = Path(source)
    if path.is_file():
        return path
    names, folder = (
        (shipped_configs(), "configs") if kind == "configuration" else (shipped_studies(), "configs/studies")
    )
    for name in names:
        if source in (name, f"{name}.yaml", f"{folder}/{name}.yaml"):
            return Path(str(resources.files("uepp.configs"))).joinpath(*folder.split("/")[1:], f"{name}.yaml")
    missing = "no such file" if len(path.parts) > 1 or path.suffix else f"no such {kind}"
    raise InputError(f"{source}: {missing}; give a YAML file or one of: {', '.join(names)}")


def _read_file(path: Path) -> tuple[str, dict[str, Any]]:
    settings = read_yaml(path) or {}
    if not isinstance(settings, dict):
        raise InputError(f"{path}: expected a mapping of stages to settings, got {type(settings).__name__}")
    # A stage whose settings are all commented out reads as null.
    return str(path), {stage: {} if value is None else value for stage, value in settings.items()}


def _with_overrides(settings: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    settings = copy.deepcopy(settings)
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator or not key:
            raise InputError(f"--set {override}: expected key.path=value")
        value = parse_yaml(text, f"--set {override}")
        _set_path(settings, key.split("."), value, f"--set {override}")
    return settings


def _set_path(settings: dict[str, Any], path: list[str], value: Any, where: str) -> None:
    for key in path[:-1]:
        settings = settings.setdefault(key, {})
        if not isinstance(settings, dict):
            raise InputError(f"{where}: {key} is a setting, not a stage")
    settings[path[-1]] = value


def merge_settings(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    """Nested settings; what `top` has wins."""
    merged = dict(base)
    for key, value in top.items():
        merged[key] = (
            merge_settings(merged[key], value)
            if isinstance(value, dict) and isinstance(merged.get(key), dict)
            else value
        )
    return merged


def _problems(settings: dict[str, Any]) -> list[tuple[str, ...]]:
    """What all is wrong with settings."""
    try:
        Config.model_validate(settings)
    except ValidationError as error:
        return [_identity(problem) for problem in error.errors()]
    return []


def _identity(problem: Any) -> tuple[str, ...]:
    """By which a problem is found again where further settings are merged in."""
    value = "" if isinstance(problem["input"], dict) else repr(problem["input"])  # others may be merged into it
    return (repr(problem["loc"]), problem["msg"], value)


def _all_keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    keys = []
    for name, field in model.model_fields.items():
        keys.append(prefix + name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            keys += _all_keys(field.annotation, f"{prefix}{name}.")
    return keys


def _explain(key: str, problem: Any) -> str:
    """A problem in words: key, value received, what is allowed."""
    if problem["type"] == "extra_forbidden":
        known = _all_keys(Config)
        by_tail: dict[str, list[str]] = {}
        for candidate in known:
            by_tail.setdefault(candidate.rsplit(".", 1)[-1], []).append(candidate)
        name = key.rsplit(".", 1)[-1]
        nearest = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
        tail = difflib.get_close_matches(name, list(by_tail), n=1, cutoff=0.6)
        if tail and (name in by_tail or not nearest):
            nearest = [min(by_tail[tail[0]], key=len)]  # of several stages with that setting, the one without a prefix
        hint = nearest[0] if nearest else None
        return f"unknown key {key}" + (f"; did you mean {hint}?" if hint else "")
    message = problem["msg"].removeprefix("Value error, ")
    if not key:
        return str(message)
    return f"{key} = {problem['input']!r}: {message[0].lower()}{message[1:]}"
