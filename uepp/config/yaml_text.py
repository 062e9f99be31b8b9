"""YAML that is read with care: nothing in it is dropped, and what is wrong is one line."""

from pathlib import Path
from typing import Any

import yaml

from uepp.errors import InputError

_MERGE = "tag:yaml.org,2002:merge"


class _ContentError(yaml.MarkedYAMLError):
    """YAML by its form, but of no use."""


class _Loader(yaml.SafeLoader):
    """`yaml.SafeLoader` takes the last of two equal keys, and lets Python's own errors out."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        # Here and not where mappings are constructed: there, `<<` has already added the keys of others.
        node = super().compose_mapping_node(anchor)
        keys = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == _MERGE:
                continue
            if (key.tag, key.value) in keys:
                raise _ContentError(problem=f"key {key.value} is there a second time", problem_mark=key.start_mark)
            keys.add((key.tag, key.value))
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError, AttributeError) as error:  # 2024-13-01, !!bool maybe, !!timestamp soon
            reason = f" ({error})" if isinstance(error, ValueError) else ""
            kind = node.tag.rpartition(":")[2]
            raise _ContentError(problem=f"{node.value} is no {kind}{reason}", problem_mark=node.start_mark) from None


def parse_yaml(text: str, where: str, *, is_file: bool = False) -> Any:
    """The content of a YAML text.

    Args:
        text: of a file, or the value of a setting.
        where: what to name in a message.
        is_file: also name the line.

    Raises:
        InputError: not YAML, a key that is there twice, or a value that cannot be, such as the 13th month.
    """
    try:
        return yaml.load(text, _Loader)
    except _ContentError as error:
        line = f"line {error.problem_mark.line + 1}: " if is_file and error.problem_mark else ""
        raise InputError(f"{where}: {line}{error.problem}") from None
    except (yaml.YAMLError, RecursionError) as error:
        detail = f" ({' '.join(str(error).split())})" if is_file else ""
        raise InputError(f"{where}: not valid YAML{detail}") from None


def read_yaml(path: Path) -> Any:
    """The content of a YAML file; `InputError` as of `parse_yaml`, or where it is no text."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid YAML ({error})") from None
    return parse_yaml(text, str(path), is_file=True)
