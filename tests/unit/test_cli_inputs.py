"""What the command line reads: fields, secrets, token file; and how it refuses wrong usage."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from cluster.cli import token_file
from cluster.cli.inputs import read_object, read_pairs, read_secret, read_text
from cluster.cli.kv_path import secret_path
from cluster.cli.main import cli, run


class Stdin(io.TextIOWrapper):
    """Standard input that is no terminal."""

    def __init__(self, content: bytes) -> None:
        super().__init__(io.BytesIO(content), encoding="utf-8")


def test_fields_come_from_arguments_files_and_standard_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file is taken as it is, standard input loses one final newline, a backslash makes a value plain."""
    (tmp_path / "key").write_text("line\n")
    monkeypatch.setattr(sys, "stdin", Stdin(b"pass=word\n\n"))
    pairs = ["a=1=2", f"b=@{tmp_path / 'key'}", "c=-", "d=\\@x", "e=\\-", "f="]
    assert read_pairs(pairs) == {"a": "1=2", "b": "line\n", "c": "pass=word\n", "d": "@x", "e": "-", "f": ""}
    # A key or a header in a file is the line, not the line and its end.
    assert read_pairs([pairs[1]], options=True) == {"b": "line"}


@pytest.mark.parametrize("pairs", [["a"], ["=x"], ["a=1", "a=2"], ["a=-", "b=-"]])
def test_malformed_fields_are_wrong_usage(pairs: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """No key, a key twice and standard input twice are refused."""
    monkeypatch.setattr(sys, "stdin", Stdin(b"x"))
    with pytest.raises(click.UsageError):
        read_pairs(pairs)


def test_a_document_that_is_not_json_is_refused_without_showing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message names place and position; the content may be secret and is not repeated."""
    (tmp_path / "secret.json").write_text('{"password": canary}')
    with pytest.raises(click.ClickException, match="line 1, column 14") as caught:
        read_object(str(tmp_path / "secret.json"))
    assert "canary" not in caught.value.message
    (tmp_path / "secret.json").write_text('{"a": {"password": "canary", "password": "other"}}')
    with pytest.raises(click.ClickException, match="a key twice") as caught:
        read_object(str(tmp_path / "secret.json"))
    assert "password" not in caught.value.message
    monkeypatch.setattr(sys, "stdin", Stdin(b"[1]"))
    with pytest.raises(click.ClickException, match="JSON object"):
        read_object("-")


def test_binary_and_missing_files_are_named(tmp_path: Path) -> None:
    """A file that is not text, or not there, gives one clear line."""
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(click.ClickException, match="not text"):
        read_text(str(tmp_path / "binary"))
    with pytest.raises(click.ClickException, match="No such file"):
        read_text(str(tmp_path / "missing"))


def test_an_empty_secret_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing on standard input is no secret."""
    monkeypatch.setattr(sys, "stdin", Stdin(b"\n"))
    with pytest.raises(click.ClickException, match="nothing was given"):
        read_secret("Token")


def test_the_token_file_is_private_and_replaced_as_a_whole(tmp_path: Path) -> None:
    """Folder 0700, file 0600, no leftovers, and what was stored is loaded."""
    path = tmp_path / "home" / ".secrethub" / "token"
    assert token_file.load(path) is None
    token_file.store(path, "hvs.first")
    token_file.store(path, "hvs.second")
    assert token_file.load(path) == "hvs.second"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [file.name for file in path.parent.iterdir()] == ["token"]


def test_a_token_file_that_others_can_read_is_not_used(tmp_path: Path) -> None:
    """The refusal says how to mend it."""
    path = tmp_path / "token"
    token_file.store(path, "hvs.x")
    path.chmod(0o644)
    with pytest.raises(click.ClickException, match="chmod 600"):
        token_file.load(path)


def test_where_the_token_file_is() -> None:
    """Below the home folder unless named."""
    assert token_file.location({"HOME": "/home/a"}) == Path("/home/a/.secrethub/token")
    assert token_file.location({"HOME": "/home/a", "SECRETHUB_TOKEN_FILE": "/run/t"}) == Path("/run/t")


@pytest.mark.parametrize("path", ["prod/db", "/prod/db/", "secrets/prod/db", "secret/prod/db"])
def test_a_path_may_name_its_mount(path: str) -> None:
    """However the mount is written, the same secret is meant."""
    assert secret_path(path) == "secrets/prod/db"


def test_a_mount_s_name_inside_a_path_is_a_folder() -> None:
    """Only the first segment names the mount."""
    assert secret_path("secrets/secret/a") == "secrets/secret/a"
    assert secret_path("secretsauce/a") == "secrets/secretsauce/a"
    assert secret_path("", whole=True) == secret_path("secrets/", whole=True) == "secrets"


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["statu"], "Did you mean 'status'?"),
        (["kv", "gett"], "Did you mean 'get'?"),
        (["secrets", "list"], "Here it is `secrethub mount`."),
        (["read", "secrets/a"], "Here it is `secrethub kv get`."),
        (["kv", "get", "-field=x", "a"], "Long options have two dashes: --field."),
        (["kv", "put", "a"], "key=value"),
        (["kv", "put", "a", "x=1", "--json", "-"], "--json"),
        (["kv", "put", "", "x=1"], "prod/db"),
        (["kv", "get", "secrets/"], "prod/db"),
        (["kv", "delete", "/"], "prod/db"),
        (["operator", "unseal", "c2hhcmU="], "every user of this machine"),
        (["login", "--method", "approle"], "--role-id"),
        (["status", "--format", "xml"], "xml"),
        (["dev", "--port", "70000"], "70000"),
    ],
)
def test_wrong_usage_exits_with_2_and_says_what_is_right(
    argv: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Usage errors are exit code 2 with a message on standard error."""
    assert run(argv) == 2
    assert said in capsys.readouterr().err


def test_what_is_no_option_is_not_shown_again(capsys: pytest.CaptureFixture[str]) -> None:
    """A value behind one dash by mistake is not taken for an option's name."""
    assert run(["kv", "put", "a", "-pa55word"]) == 2
    assert capsys.readouterr().err.endswith("Error: No such option '-p'.\n")


def test_settings_that_cannot_work_fail_in_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No token, plain HTTP to another host and an unreadable CA file exit with 1 and no traceback."""
    for name in ("SECRETHUB_TOKEN", "VAULT_TOKEN", "SECRETHUB_ADDR", "VAULT_ADDR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SECRETHUB_TOKEN_FILE", str(tmp_path / "none"))
    for argv, said in (
        (["kv", "get", "a"], "secrethub login"),
        (["status", "--address", "http://core.example.com:4000"], "plain HTTP"),
        (["--address", "https://127.0.0.1:1", "status", "--ca-file", str(tmp_path / "none")], "CA file"),
    ):
        assert run(argv) == 1
        err = capsys.readouterr().err
        assert said in err
        assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    "group",
    [
        "dev",
        "server",
        "status",
        "operator",
        "login",
        "kv",
        "policy",
        "approle",
        "token",
        "pki",
        "agent",
        "audit",
    ],
)
def test_every_command_has_help(group: str) -> None:
    """Each command of the table exists and explains itself, with all its own commands."""
    runner = CliRunner()
    result = runner.invoke(cli, [group, "--help"])
    assert result.exit_code == 0
    waiting = [[group]]
    while waiting:
        words = waiting.pop()
        if words in _BECOME_THE_AGENT:
            continue
        command: click.Command | None = cli
        for word in words:
            assert isinstance(command, click.Group)
            command = command.get_command(click.Context(cli), word)
        waiting += [[*words, name] for name in getattr(command, "commands", {})]
        options = [option for parameter in getattr(command, "params", ()) for option in parameter.opts]
        assert len(options) == len(set(options)), words
        shown = runner.invoke(cli, [*words, "--help"])
        assert shown.exit_code == 0
        if len(words) > 1 and not isinstance(command, click.Group):
            assert "--format" in shown.output, words


_BECOME_THE_AGENT = [["agent", "run"], ["agent", "check"]]
"""They replace the process they run in, here that of the tests."""


def test_help_imports_nothing_heavy() -> None:
    """Help loads neither the HTTP client nor any part of the server."""
    heavy = (
        "{'httpx2', 'rich', 'ray', 'sqlalchemy', 'cryptography', 'asyncpg', 'jinja2', 'asyncio', 'msgspec'}"
    )
    code = (
        "import sys; from cluster.cli.main import run; run(['--help']); "
        f"found = {heavy} & set(sys.modules); sys.exit(str(found) if found else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_without_the_server_installed_dev_says_what_to_install() -> None:
    """The base installation answers `dev` and `server` with the command that brings the server."""
    for argv in (["dev"], ["server", "--config", "x.toml"]):
        start = "import sys; sys.modules['pydantic'] = None; from cluster.cli.main import run"
        code = f"{start}; sys.exit(run({argv}))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert "in SecretHub's source folder run: pip install '.[server]'" in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--help > /dev/full", "standard output: No space left on device"),
        ("kv --help > /dev/full", "standard output: No space left on device"),
        ("--help >&-", "standard output: Bad file descriptor"),
        ("kv put a password=- <&-", "standard input: Bad file descriptor"),
        ("login --method token <&-", "standard input: Bad file descriptor"),
    ],
)
def test_streams_that_are_full_or_closed_fail_in_one_line(words: str, said: str) -> None:
    """An answer that could not be written is exit code 1; a closed standard input is no empty secret."""
    start = f'{sys.executable} -c "from cluster.cli.main import main; main()" {words}'
    done = subprocess.run(["/bin/sh", "-c", start], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == f"Error: {said}\n"


@pytest.mark.parametrize(("words", "found"), [("secrethub po", "policy"), ("secrethub kv g", "get")])
def test_the_shell_completes_commands(words: str, found: str) -> None:
    """Completion knows the commands of every group."""
    environment = {
        **os.environ,
        "_SECRETHUB_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }
    code = "from cluster.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment
    )
    assert f"plain,{found}" in done.stdout
