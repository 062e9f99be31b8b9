"""Configurations as files: found, read, merged with what the command line sets, explained, written."""

import difflib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from uepp.config.run import Config
from uepp.errors import InputError


def load_config(
    source: str | None = None, overrides: Sequence[str] = (), extra: dict[str, Any] | None = None
) -> Config:
    """Read a configuration.

    Args:
        source: path of a YAML file, or the name of a shipped one (`demo`, `base`, …); none: all defaults.
        overrides: `key.path=value` strings, the value in YAML; they win over the file.
        extra: nested settings that win over both (what command-line options set).

    Raises:
        InputError: unreadable file, unknown key (with the nearest valid one), or a value out of range.
    """
    name, settings = ("defaults", {}) if source is None else _read_yaml(_locate(source))
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator or not key:
            raise InputError(f"--set {override}: expected key.path=value")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            raise InputError(f"--set {override}: the value is not valid YAML") from None
        _set_path(settings, key.split("."), value, f"--set {override}")
    settings = merge_settings(settings, extra or {})
    try:
        return Config.model_validate(settings)
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(str(part) for part in problem["loc"])
        given = [override.partition("=")[0] for override in overrides]
        is_override = any(key == path or key.startswith(f"{path}.") or path.startswith(f"{key}.") for path in given)
        raise InputError(f"{'--set' if is_override else name}: {_explain(key, problem)}") from None


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


def _locate(source: str) -> Path:
    path = Path(source)
    if path.is_file():
        return path
    name = path.name.removesuffix(".yaml")
    if name in shipped_configs():
        return Path(str(resources.files("uepp.configs") / f"{name}.yaml"))
    raise InputError(f"{source}: no such configuration; give a YAML file or one of: {', '.join(shipped_configs())}")


def _read_yaml(path: Path) -> tuple[str, dict[str, Any]]:
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from None
    if not isinstance(settings, dict):
        raise InputError(f"{path}: expected a mapping of stages to settings, got {type(settings).__name__}")
    # A stage whose settings are all commented out reads as null.
    return str(path), {stage: {} if value is None else value for stage, value in settings.items()}


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
