"""`uepp` commands in the process of a test: nothing but the command line is patched."""

import json
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from uepp import cli


class Outcome(NamedTuple):
    """What a command left behind: exit code and the two streams."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """What a command that is done printed."""
        assert self.code == 0, self.err
        return json.loads(self.out)

    @property
    def error(self) -> str:
        """The last line of a refusal, which prints nothing else on standard output."""
        assert (self.code, self.out) == (2, ""), self.err
        return self.err.splitlines()[-1]


Call = Callable[..., Outcome]


def run_command(streams: Any, *arguments: object) -> Outcome:
    """Run a command.

    Args:
        streams: has `readouterr`, as pytest's capsys.
        arguments: of `uepp`.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["uepp", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_info:
            cli.main()
    out, err = streams.readouterr()
    return Outcome(int(exit_info.value.code or 0), out, err)
