"""The agent's settings: what is understood, and that nothing wrong gets past the start."""

from __future__ import annotations

import grp
import os
import pwd
import signal
from pathlib import Path

import pytest

from agent.configuration import load
from agent.settings import CommandReload, HttpReload, SignalReload
from secrethub.errors import Misconfigured
from secrethub.wire.messages import MAX_APPLICATIONS

CORE = '[core]\nurl = "https://core.example.com:4443"\n'
OF_ROOT = '[[socket.allow]]\nuser = "root"\n'
FILE = '[[template]]\ncontent = "x"\ndestination = "/run/app/app.env"\n'
SOCKET = '[socket]\npath = "/run/secrethub/agent.sock"\n'
ALLOW = SOCKET + '[[socket.allow]]\nuser = "root"\npaths = ["secrets/a"]\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where a test puts its settings."""
    return tmp_path / "agent.toml"


def refused(file: Path, text: str, **environment: str) -> str:
    """Return the message with which settings are refused."""
    file.write_text(text)
    with pytest.raises(Misconfigured) as caught:
        load(file, environment)
    return caught.value.message


def test_the_example_of_the_interface_is_understood(file: Path) -> None:
    """Every setting that the interface names is read."""
    file.write_text(
        """
        [agent]
        name = "web-1"
        labels = { rack = "7" }
        [core]
        url = ["https://a:4443", "https://b:4443/"]
        ca_sha256 = "AA:%s"
        [auth]
        role_id = "r"
        secret_id_file = "/etc/secrethub/secret-id"
        key_type = "ecdsa-p256"
        keep = true
        [state]
        dir = "/var/lib/secrethub-agent"
        [cache]
        ttl = "5m"
        max_entries = 10
        max_bytes = "64MiB"
        stale = "24h"
        [socket]
        path = "/run/secrethub/agent.sock"
        mode = "0660"
        [[socket.allow]]
        user = "root"
        executable = "/usr/bin/app"
        unit = "app.service"
        paths = ["secrets/prod/app/*"]
        [[template]]
        source = "/etc/secrethub/app.env.j2"
        destination = "/run/app/app.env"
        owner = "root"
        group = 0
        mode = "0440"
        backup = true
        reload = { signal = "SIGHUP", pid_file = "/run/app.pid" }
        """
        % ("00" * 31)
    )
    settings = load(file, {})
    assert settings.core.urls == ("https://a:4443", "https://b:4443")
    assert settings.core.ca_sha256 == "aa" + "00" * 31
    assert (settings.cache.ttl, settings.cache.stale, settings.cache.max_bytes) == (300, 86_400, 64 * 2**20)
    assert settings.socket is not None
    assert settings.socket.allow[0].uid == 0
    assert settings.templates[0].mode == 0o440
    assert settings.templates[0].reload == SignalReload(signal=signal.SIGHUP, pid_file=Path("/run/app.pid"))
    assert settings.host.labels == {"rack": "7"}


def test_the_environment_stands_over_the_file(file: Path) -> None:
    """Short names and nested names replace what the file says."""
    file.write_text(CORE + FILE)
    environment = {
        "SECRETHUB_CORE_URL": "https://other:1, http://127.0.0.1:2",
        "SECRETHUB_ROLE_ID": "role",
        "SECRETHUB_SECRET_ID": "canary",
        "SECRETHUB_CACHE__TTL": "10m",
        "SECRETHUB_CACHE__DISK": "false",
        "SECRETHUB_AGENT__NAME": "db-2",
        "SECRETHUB_DATABASE__POOL": "8",
        "SECRETHUB_ADDR": "https://cli",
    }
    settings = load(file, environment)
    assert settings.core.urls == ("https://other:1", "http://127.0.0.1:2")
    assert (settings.cache.ttl, settings.cache.disk) == (600, False)
    assert settings.host.name == "db-2"
    assert settings.auth.secret_id is not None
    assert settings.auth.secret_id.reveal() == "canary"
    assert "canary" not in repr(settings)


def test_the_environment_alone_is_not_enough_without_work() -> None:
    """An agent that would deliver nothing to anybody does not start."""
    with pytest.raises(Misconfigured, match="nothing to do"):
        load(None, {"SECRETHUB_CORE_URL": "https://core:4443"})


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('[core]\nurl = "https://a"\nurls = "x"\n' + FILE, "core.urls"),
        (CORE + FILE + "colour = 3\n", "template[1].colour"),
        (CORE + FILE + "reload = { signal = 1 }\n", "template[1].reload.signal"),
        (CORE + "[surprise]\n" + FILE, "surprise"),
        ('[corr]\nurl = "https://a"\n' + FILE, "unknown setting corr"),
        (CORE + ALLOW + "uid = 3\n", "socket.allow[1].uid"),
        (CORE + '[auth]\nsecret_id = "canary"\n' + FILE, "auth.secret_id"),
        (FILE, "core.url"),
        ('[core]\nurl = "ftp://a"\n' + FILE, "core.url"),
        ('[core]\nurl = "https://a/v1"\n' + FILE, "core.url"),
        ('[core]\nurl = "https://u:p@a"\n' + FILE, "core.url"),
        (CORE + '[cache]\nttl = "soon"\n' + FILE, "cache.ttl"),
        (CORE + '[cache]\nmax_bytes = "many"\n' + FILE, "cache.max_bytes"),
        (CORE + "[cache]\nmax_entries = true\n" + FILE, "cache.max_entries"),
        (CORE + '[cache]\nttl = "1h"\nstale = "1m"\n' + FILE, "cache.stale"),
        (CORE + '[auth]\nkey_type = "rsa-1024"\n' + FILE, "auth.key_type"),
        (CORE + '[agent]\nname = "a b"\n' + FILE, "agent.name"),
        (CORE + '[socket]\nmode = "0660"\n' + FILE, "socket.mode"),
        (CORE + SOCKET + "mode = 432\n", "socket.mode"),
        (CORE + '[socket]\npath = "relative"\n', "socket.path"),
        (CORE + f'[socket]\npath = "/run/{"x" * 100}"\n', "socket.path"),
        (CORE + ALLOW.replace("user", "executable").replace("root", "/bin/sh"), "socket.allow[1].user"),
        (CORE + SOCKET + OF_ROOT, "socket.allow[1].paths"),
        (CORE + ALLOW + 'application = "a/b"\n', "socket.allow[1].application"),
        (CORE + ALLOW + 'application = ""\n', "socket.allow[1].application"),
        (CORE + SOCKET + '[[socket.allow]]\nuser = 65534\npaths = ["secrets/a"]\n', "socket.allow[1].user"),
        (CORE + SOCKET + OF_ROOT + 'paths = ["prod/a"]\n', "socket.allow[1].paths"),
        (CORE + SOCKET + OF_ROOT + 'paths = ["secrets/a**"]\n', "socket.allow[1].paths"),
        (CORE + SOCKET + OF_ROOT + 'paths = ["secrets/../a"]\n', "socket.allow[1].paths"),
        (CORE + SOCKET + '[[socket.allow]]\nuser = "no-such-user"\npaths = ["secrets/a"]\n', "no-such-user"),
        (CORE + FILE.replace('content = "x"\n', ""), "template[1].source"),
        (CORE + FILE + 'source = "/etc/x"\n', "template[1].source"),
        (CORE + FILE + FILE, "template[2].destination"),
        (CORE + FILE.replace("/run/app/app.env", "/run/../etc/passwd"), "template[1].destination"),
        (CORE + FILE + 'mode = "abc"\n', "template[1].mode"),
        (CORE + FILE + "reload = {}\n", "template[1].reload needs"),
        (CORE + FILE + 'reload = { signal = "HUP" }\n', "template[1].reload.pid_file"),
        (CORE + FILE + 'reload = { signal = "KILL", pid_file = "/run/x" }\n', "template[1].reload.signal"),
        (CORE + FILE + 'reload = { signal = "HUP", unit = "app" }\n', "template[1].reload.unit"),
        (CORE + FILE + 'reload = { command = "systemctl reload app" }\n', "template[1].reload.command"),
        (CORE + FILE + 'reload = { http = "http://example.com/" }\n', "template[1].reload.http"),
        (CORE + FILE + 'reload = { command = ["a"], http = "https://b" }\n', "template[1].reload needs"),
        ("core = 3\n" + FILE, "core"),
        ("not toml", "TOML"),
    ],
)
def test_what_cannot_work_is_refused_by_name(file: Path, text: str, named: str) -> None:
    """Unknown keys, wrong types and impossible combinations are refused, and the setting is named."""
    assert named in refused(file, text)


def test_no_message_repeats_a_secret(file: Path) -> None:
    """A secret that stands in the wrong place is not shown in the message."""
    assert "canary" not in refused(file, CORE + '[auth]\nsecret_id = "canary"\n' + FILE)


@pytest.mark.parametrize("host", ["core.example.com", "10.0.0.1", "127.0.0.1.example.com", "[2001:db8::1]"])
def test_plain_http_is_for_this_machine_only(file: Path, host: str) -> None:
    """No setting makes the agent talk plain HTTP to another machine."""
    assert "https" in refused(file, f'[core]\nurl = "http://{host}:4000"\n' + FILE)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
def test_plain_http_to_this_machine_is_accepted(file: Path, host: str) -> None:
    """Plain HTTP to loopback is accepted."""
    file.write_text(f'[core]\nurl = "http://{host}:4000"\n' + FILE)
    assert load(file, {}).core.urls == (f"http://{host}:4000",)


def test_the_example_of_the_documentation_is_read(file: Path) -> None:
    """Every setting that the documentation shows is known, for users that exist."""
    text = (Path(__file__).parents[2] / "docs" / "agent.md").read_text("utf-8")
    example = text.partition("```toml\n")[2].partition("```")[0]
    user, group = pwd.getpwuid(os.geteuid()).pw_name, grp.getgrgid(os.getegid()).gr_name
    file.write_text(example.replace('group = "app"', f'group = "{group}"').replace('"app"', f'"{user}"'))
    settings = load(file, {})
    assert settings.socket is not None
    assert settings.socket.gid == os.getegid()
    assert [template.backup for template in settings.templates] == [False]


def test_reloads_are_read(file: Path) -> None:
    """A command and an HTTP hook are read with their time limits."""
    other = FILE.replace("app.env", "b")
    file.write_text(
        CORE
        + FILE
        + 'reload = { command = ["systemctl", "reload", "app"], timeout = "5s" }\n'
        + other
        + 'reload = { http = "http://127.0.0.1:8080/-/reload" }\n'
    )
    first, second = load(file, {}).templates
    assert first.reload == CommandReload(argv=("systemctl", "reload", "app"), timeout=5)
    assert second.reload == HttpReload(url="http://127.0.0.1:8080/-/reload", timeout=30)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """A file that was asked for and is not there is an error, not an empty one."""
    with pytest.raises(Misconfigured, match="no such file"):
        load(tmp_path / "none.toml", {"SECRETHUB_CORE_URL": "https://core:4443"})


@pytest.mark.parametrize(("count", "fine"), [(MAX_APPLICATIONS, True), (MAX_APPLICATIONS + 1, False)])
def test_so_many_applications_as_a_connection_may_name(file: Path, count: int, fine: bool) -> None:
    """More names than Core takes on one connection are refused at the start, not at the last one's read."""
    entries = [f'{OF_ROOT}paths = ["secrets/a"]\napplication = "a{number}"\n' for number in range(count)]
    text = CORE + SOCKET + "".join(entries)
    if not fine:
        assert "socket.allow" in refused(file, text)
        return
    file.write_text(text)
    settings = load(file, {})
    assert settings.socket is not None
    assert len({grant.application for grant in settings.socket.allow}) == count
