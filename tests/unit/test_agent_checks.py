"""What ``check`` says about the socket: who is allowed and will not get in."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent import checks
from agent.configuration import load

OTHER = 12_345
OWN = os.geteuid()


def warned(tmp_path: Path, socket: str, entry: str, held: int = 1 << checks.CAP_SYS_PTRACE) -> list[str]:
    """Return the warnings about a socket with this entry; by default the agent may examine others."""
    allow = f'[[socket.allow]]\n{entry}\npaths = ["secrets/a"]\n'
    file = tmp_path / "agent.toml"
    file.write_text(f'[core]\nurl = "https://core:4443"\n[socket]\npath = "/run/a.sock"\n{socket}\n{allow}')
    return checks.warnings(load(file, {}), held)


@pytest.mark.parametrize(
    ("socket", "entry", "fine"),
    [
        ('mode = "0660"', f"user = {OTHER}", False),
        ('mode = "0666"', f"user = {OTHER}", True),
        (f'mode = "0660"\nowner = {OTHER}', f"user = {OTHER}", True),
        (f'mode = "0460"\nowner = {OTHER}', f"user = {OTHER}", False),
        (f'mode = "0660"\ngroup = {OTHER}', f"group = {OTHER}", True),
        (f'mode = "0640"\ngroup = {OTHER}', f"group = {OTHER}", False),
        ('mode = "0660"', f"group = {OTHER}", False),
        (f'mode = "0660"\ngroup = {OTHER}', f"user = {OTHER}\ngroup = {OTHER}", True),
        ('mode = "0600"', f"user = {OWN}", True),
        ('mode = "0600"', "user = 0", True),
        ('mode = "0600"', 'unit = "app.service"', True),
    ],
)
def test_whoever_cannot_open_the_socket_is_named(tmp_path: Path, socket: str, entry: str, fine: bool) -> None:
    """An entry whose user and group may not write to the socket is of no use, and said."""
    found = warned(tmp_path, socket, entry)
    assert len(found) == (0 if fine else 1)
    assert fine or "socket.allow[1]" in found[0]


@pytest.mark.parametrize(("entry", "fine"), [(f"user = {OTHER}", False), (f"user = {OWN}", True)])
def test_the_missing_capability_is_named(tmp_path: Path, entry: str, fine: bool) -> None:
    """Without it an agent can only serve its own user."""
    found = warned(tmp_path, 'mode = "0666"', entry, held=~(1 << checks.CAP_SYS_PTRACE))
    assert ["CAP_SYS_PTRACE" in warning for warning in found] == ([] if fine else [True])


@pytest.mark.parametrize(
    ("entry", "other", "number"),
    [
        ('user = 7\napplication = "a"', 'user = 7\napplication = "b"', 2),
        ('user = 7\napplication = "a"', 'user = 7\nunit = "x.service"\napplication = "b"', 1),
        ('user = 7\napplication = "a"', 'user = 7\napplication = "a"', 0),
        ('user = 7\napplication = "a"', "user = 7", 0),
        ('user = 7\napplication = "a"', 'user = 8\napplication = "b"', 0),
        ('user = 7\napplication = "a"', 'group = 7\napplication = "b"', 0),
    ],
)
def test_who_would_be_two_applications_is_named(tmp_path: Path, entry: str, other: str, number: int) -> None:
    """An entry all of whose processes another application's entry applies to is of no use, and said."""
    found = warned(tmp_path, 'mode = "0666"', f'{entry}\npaths = ["secrets/a"]\n[[socket.allow]]\n{other}')
    assert len(found) == number
    assert all("another application" in warning for warning in found)


@pytest.mark.parametrize(("mode", "fine"), [(0o600, True), (0o640, True), (0o604, False), (0o644, False)])
def test_a_secret_id_that_everybody_may_read_is_named(tmp_path: Path, mode: int, fine: bool) -> None:
    """Without a socket, too; a file that was removed after its use is no matter."""
    secret_id = tmp_path / "secret-id"
    file = tmp_path / "agent.toml"
    file.write_text(
        f'[core]\nurl = "https://core:4443"\n[auth]\nsecret_id_file = "{secret_id}"\n'
        f'[[template]]\ncontent = "x"\ndestination = "{tmp_path / "x"}"\n'
    )
    assert checks.warnings(load(file, {}), 0) == []
    secret_id.write_text("s")
    secret_id.chmod(mode)
    found = checks.warnings(load(file, {}), 0)
    assert [f"chmod 600 {secret_id}" in warning for warning in found] == ([] if fine else [True])


def test_a_root_that_cannot_be_read_is_told_with_the_reason(tmp_path: Path) -> None:
    """A file that is not there, and one that is a folder, are told apart."""
    config = tmp_path / "agent.toml"
    for name, reason in (("none.pem", "No such file"), (".", "Is a directory")):
        config.write_text(
            f'[core]\nurl = "https://core:4443"\nca_file = "{tmp_path / name}"\n'
            f'[[template]]\ncontent = "x"\ndestination = "{tmp_path / "x"}"\n'
        )
        assert reason in checks.check(load(config, {}))[0]
