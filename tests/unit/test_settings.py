"""The settings of a node: where they come from, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cluster.settings import Settings, is_loopback, load
from secrethub.errors import Misconfigured

MINIMAL = 'database_url = "postgresql://db/x"\ncluster_key_file = "/etc/secrethub/cluster.key"\n'


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("SECRETHUB_", "DATABASE_URL")):
            monkeypatch.delenv(name)


def read(tmp_path: Path, text: str) -> Settings:
    """Load a settings file with this text."""
    file = tmp_path / "secrethub.toml"
    file.write_text(text)
    return load(file)


def private(file: Path, text: str) -> None:
    """Write a file that its owner alone can read."""
    file.touch(0o600)
    file.write_text(text)


def test_defaults_are_the_documented_ports(tmp_path: Path) -> None:
    """A minimal file gives a head with the fixed ports, plain doors on loopback."""
    settings = read(tmp_path, MINIMAL)
    assert settings.role == "head"
    assert (settings.http.port, settings.tls.port, settings.agents.port) == (4000, 4443, 4665)
    assert (settings.serve.port, settings.metrics.port, settings.ray.dashboard_port) == (8000, 9090, 8265)
    assert {settings.http.host, settings.serve.host, settings.metrics.host, settings.ray.host} == {
        "127.0.0.1"
    }


def test_environment_beats_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A nested variable overrides one setting and leaves its neighbours."""
    monkeypatch.setenv("SECRETHUB_TLS__PORT", "0")
    settings = read(tmp_path, MINIMAL + '[tls]\nport = 5000\nhost = "127.0.0.1"\n')
    assert settings.tls.port == 0
    assert settings.tls.host == "127.0.0.1"


def test_lists_in_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list in a variable is written with commas or as JSON, at every level; a whole section is JSON."""
    monkeypatch.setenv("SECRETHUB_TRUSTED_PROXIES", "10.0.0.7, 10.1.0.0/16")
    monkeypatch.setenv("SECRETHUB_TLS__NAMES", "core.example.com")
    monkeypatch.setenv("SECRETHUB_AUDIT__DIRS", '["/var/a", "/var/b,c"]')
    monkeypatch.setenv("SECRETHUB_OUTBOUND", '{"allowed_networks": ["127.0.0.0/8"]}')
    settings = read(tmp_path, MINIMAL)
    assert settings.trusted_proxies == ("10.0.0.7/32", "10.1.0.0/16")
    assert settings.tls.names == ("core.example.com",)
    assert settings.audit.dirs == (Path("/var/a"), Path("/var/b,c"))
    assert settings.outbound.allowed_networks == ("127.0.0.0/8",)


@pytest.mark.parametrize("variable", ["SECRETHUB_TLS__NAMES", "SECRETHUB_TLS", "SECRETHUB_KEY_SERVICES"])
def test_a_variable_that_cannot_be_read_is_named(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broken list or section is told by its variable alone, without what it holds."""
    monkeypatch.setenv(variable, '["hunter2"')
    monkeypatch.setenv("SECRETHUB_HTTP__PORT", "0")
    with pytest.raises(Misconfigured) as caught:
        read(tmp_path, MINIMAL)
    assert caught.value.message.startswith(f"{variable}: a list is written as a,b")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("variable", ["DATABASE_URL", "SECRETHUB_DATABASE_URL"])
def test_the_database_comes_from_either_variable(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both variables of the database's URL count, over the file."""
    monkeypatch.setenv(variable, "postgresql://elsewhere/y")
    url = read(tmp_path, MINIMAL).database_url
    assert url is not None
    assert url.get_secret_value() == "postgresql://elsewhere/y"


def test_secrets_come_from_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable with _FILE names a file that holds the secret."""
    private(tmp_path / "url", "postgresql://from-file/z\n")
    private(tmp_path / "password", "hunter2\n")
    monkeypatch.setenv("DATABASE_URL_FILE", str(tmp_path / "url"))
    monkeypatch.setenv("SECRETHUB_RAY__REDIS_PASSWORD_FILE", str(tmp_path / "password"))
    settings = read(tmp_path, MINIMAL + '[ray]\nredis_address = "rediss://redis:6379"\n')
    assert settings.database_url is not None
    assert settings.database_url.get_secret_value() == "postgresql://from-file/z"
    assert settings.ray.redis_password is not None
    assert settings.ray.redis_password.get_secret_value() == "hunter2"
    assert "hunter2" not in repr(settings)
    assert "from-file" not in repr(settings)


def test_the_settings_file_may_name_files_of_secrets(tmp_path: Path) -> None:
    """In the settings file too, a secret may come from a file."""
    private(tmp_path / "url", "postgresql://from-file/z\n")
    text = f'database_url_file = "{tmp_path}/url"\ncluster_key_file = "/k"\n'
    url = read(tmp_path, text).database_url
    assert url is not None
    assert url.get_secret_value() == "postgresql://from-file/z"


@pytest.mark.parametrize("by", ["file", "environment"])
def test_a_file_of_a_secret_must_be_private(by: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that others can read is refused by the name of the setting, without what it holds."""
    private(tmp_path / "url", "postgresql://from-file/z\n")
    (tmp_path / "url").chmod(0o644)
    text = 'cluster_key_file = "/k"\n'
    if by == "file":
        text += f'database_url_file = "{tmp_path}/url"\n'
    else:
        monkeypatch.setenv("DATABASE_URL_FILE", str(tmp_path / "url"))
    with pytest.raises(Misconfigured, match=r"(?i)database_url_file: .*0600") as refused:
        read(tmp_path, text)
    assert "from-file" not in str(refused.value)


def test_trusted_proxies_are_networks(tmp_path: Path) -> None:
    """Addresses and networks of proxies are taken in one form, and nobody is trusted by default."""
    assert read(tmp_path, MINIMAL).trusted_proxies == ()
    given = 'trusted_proxies = ["10.0.0.7", "::ffff:192.0.2.0/120", "fd00::1/64"]\n'
    assert read(tmp_path, MINIMAL + given).trusted_proxies == ("10.0.0.7/32", "192.0.2.0/24", "fd00::/64")


def test_a_missing_file_is_told_once(tmp_path: Path) -> None:
    """Messages about files say the reason in words, and the path once."""
    with pytest.raises(Misconfigured, match="No such file or directory") as refused:
        load(tmp_path / "none.toml")
    assert str(refused.value).count("none.toml") == 1
    assert "Errno" not in str(refused.value)
    with pytest.raises(Misconfigured, match="No such file or directory") as refused:
        read(tmp_path, f'database_url_file = "{tmp_path}/none"\ncluster_key_file = "/k"\n')
    assert str(refused.value).count("none") == 1
    assert "Errno" not in str(refused.value)


def test_a_secret_and_its_file_exclude_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Giving a secret twice is refused, for nobody could say which one counts."""
    monkeypatch.setenv("DATABASE_URL", "postgresql://a/b")
    monkeypatch.setenv("DATABASE_URL_FILE", str(tmp_path / "url"))
    with pytest.raises(Misconfigured, match="DATABASE_URL_FILE"):
        read(tmp_path, MINIMAL)


def test_relative_paths_are_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path means the directory the command was started in."""
    monkeypatch.chdir(tmp_path)
    assert read(tmp_path, MINIMAL + 'state_dir = "state"\n').state_dir == tmp_path / "state"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("colour = 1", "colour"),
        ("[tls]\nprot = 4443", "tls.prot"),
        ("[tls]\nport = 70000", "tls.port"),
        ('role = "boss"', "role"),
        ('node = "a/b"', "node"),
        ('[tls]\ncertificate_file = "/c.pem"', "tls.key_file"),
        ("[http]\nenabled = false\n[tls]\nenabled = false", "http.enabled"),
        ('role = "worker"', "ray.address"),
        ('role = "worker"\n[ray]\naddress = "127.0.0.1:6379"', "ray.token_file"),
        ('[ray]\naddress = "127.0.0.1:6379"', "ray.address"),
        ('[ray]\nhost = "10.0.0.1"', "ray.tls"),
        ('[ray]\nhost = "127.0.0.2"', "ray.tls"),
        ('role = "worker"\n[ray]\ntoken_file = "/t"\naddress = "10.0.0.1:6379"', "ray.tls"),
        ('[ray]\nredis_address = "127.0.0.1:6379"', "ray.redis_password"),
        ('[ray]\nredis_address = "10.0.0.9:6379"\nredis_password = "p"', "ray.redis_address"),
        ("[ray]\nreconnect_timeout = 1", "ray.reconnect_timeout"),
        ('trusted_proxies = ["proxy.internal"]', "trusted_proxies"),
        ('trusted_proxies = ["10.0.0.0/33"]', "trusted_proxies"),
        ("[htp]\nport = 1", "htp: there is no such setting"),
        ("[http]\nprt = 1", "http.prt: there is no such setting"),
    ],
)
def test_what_cannot_work_is_refused_by_name(tmp_path: Path, text: str, named: str) -> None:
    """Unknown settings, wrong values and wrong combinations are refused, and the setting is named."""
    with pytest.raises(Misconfigured, match=named.replace(".", r"\.")):
        read(tmp_path, MINIMAL + text)


@pytest.mark.parametrize("missing", ["database_url", "cluster_key_file"])
def test_a_node_needs_database_and_key(tmp_path: Path, missing: str) -> None:
    """Without the database or the cluster's key a node does not start."""
    kept = [line for line in MINIMAL.splitlines() if not line.startswith(missing)]
    with pytest.raises(Misconfigured, match=missing):
        read(tmp_path, "\n".join(kept))


def test_messages_hold_no_values(tmp_path: Path) -> None:
    """A refused value is not repeated in the message, for it may be a secret."""
    with pytest.raises(Misconfigured) as refused:
        read(tmp_path, MINIMAL + '[limits]\nmax_body = "s3cr3t-value"\n')
    assert "s3cr3t-value" not in str(refused.value)
    assert refused.value.__cause__ is None


def test_a_misspelt_section_in_the_environment_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A nested variable of an unknown section does not pass unnoticed."""
    monkeypatch.setenv("SECRETHUB_TSL__PORT", "1")
    with pytest.raises(Misconfigured, match="TSL__PORT"):
        read(tmp_path, MINIMAL)


def test_a_misspelt_variable_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A variable of no setting is named in a warning; those of other parts of SecretHub are not."""
    for name in ("SECRETHUB_STATEDIR", "SECRETHUB_ADDR", "SECRETHUB_ROLE_ID_FILE"):
        monkeypatch.setenv(name, "/x")
    monkeypatch.setenv("SECRETHUB_STATE_DIR", "/state")
    assert read(tmp_path, MINIMAL).state_dir == Path("/state")
    assert [record.args for record in caplog.records] == [("SECRETHUB_STATEDIR",)]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost"])
def test_loopback(host: str) -> None:
    """Loopback addresses and localhost are this machine's own."""
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "10.0.0.1", "localhost.example.com", ""])
def test_not_loopback(host: str) -> None:
    """Everything else is reached by others, or a name that somebody else resolves."""
    assert not is_loopback(host)
