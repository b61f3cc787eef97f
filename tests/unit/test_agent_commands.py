"""Commands of rotations on a host: what their settings may be, and what is kept of what they say."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from urllib.parse import quote

import pytest

from agent.configuration import load
from agent.settings import CommandSettings
from secrethub.errors import Misconfigured
from secrethub.wire.messages import Order
from secrethub.wire.said import LONGEST, without

VALUE = 'p"ä ss/wörd+1'
CORE = '[core]\nurl = "https://core.example.com"\n'


def settings(folder: Path, text: str) -> tuple[CommandSettings, ...]:
    """Return the commands of a file."""
    (folder / "agent.toml").write_text(CORE + text)
    return load(folder / "agent.toml", {}).commands


def test_a_command_has_a_name_and_a_program(tmp_path: Path) -> None:
    """A host with nothing but a command has something to do."""
    found = settings(tmp_path, '[[command]]\nname = "set"\nrun = ["/bin/set", "-q"]\ntimeout = "5s"\n')
    assert found == (CommandSettings(name="set", argv=("/bin/set", "-q"), timeout=5),)


@pytest.mark.parametrize(
    "wrong",
    [
        'run = ["/bin/set"]',
        'name = "a b"\nrun = ["/bin/set"]',
        'name = "set"',
        'name = "set"\nrun = "/bin/set"',
        'name = "set"\nrun = ["set"]',
        'name = "set"\nrun = []',
        'name = "set"\nrun = ["/bin/set"]\ntimeout = "2h"',
        'name = "set"\nrun = ["/bin/set"]\nshell = true',
        'name = "set"\nrun = ["/bin/set"]\n[[command]]\nname = "set"\nrun = ["/bin/other"]',
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, wrong: str) -> None:
    """Among others a program that would be looked for, and two commands of one name."""
    with pytest.raises(Misconfigured):
        settings(tmp_path, f"[[command]]\n{wrong}\n")


@pytest.mark.parametrize(
    "form",
    [
        VALUE,
        json.dumps(VALUE),
        json.dumps(VALUE, ensure_ascii=False),
        quote(VALUE, safe=""),
        base64.b64encode(VALUE.encode()).decode(),
        VALUE.encode().hex(),
    ],
)
def test_values_are_hidden_in_what_is_said(form: str) -> None:
    """However they are usually written."""
    said = without(f"cannot set {form}!\nbye", [VALUE, None])
    assert said in {"cannot set ***!" + " bye", 'cannot set "***"!' + " bye", "cannot set ***=! bye"}


def test_what_is_said_is_one_bounded_line() -> None:
    """Control characters go, lines of a value are hidden one by one, and what is no text is, too."""
    assert without("a\x1b[31m\tb\r\nc", []) == "a [31m b c"
    assert without("first line, then 12345", ["first line\nsecond line", 12345]) == "***, then ***"
    assert len(without("x" * 10_000, [])) == LONGEST


def test_an_order_does_not_show_its_values() -> None:
    """Not in a traceback or a log, either."""
    order = Order(
        order=f"{0:036}/1",
        step="undo",
        attempt=1,
        command="set",
        path="p",
        field="f",
        value=VALUE,
        old_value="old-1",
    )
    assert VALUE not in repr(order)
    assert "old-1" not in repr(order)
