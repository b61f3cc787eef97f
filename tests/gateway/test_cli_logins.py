"""``secrethub user``, ``approle`` and ``login`` against a real server, as a shell runs them."""

from __future__ import annotations

import json
from pathlib import Path

from tests.gateway.client_certificates import until_trusted
from tests.gateway.conftest import Node
from tests.gateway.shell import Cli, cli
from tests.gateway.test_tls import root_of, until_issued
from tests.private_authority import certify

__all__ = ["cli"]  # the fixture


async def test_users(cli: Cli, tmp_path: Path) -> None:
    """A user is made with a password from a file, logs in from standard input, is locked and let in again."""
    (tmp_path / "password").write_text("canary one\n")
    await cli("user", "write", "ada", "--password-file", str(tmp_path / "password"), "--policy", "ops")
    assert "ada" in await cli("user", "list")
    told = await cli.json("user", "read", "ada")
    assert told["token_policies"] == ["ops"]
    login = ("login", "--method", "userpass", "--username", "ada")
    stored = await cli(*login, stdin="canary one\n", SECRETHUB_TOKEN="")
    assert "stored in" in stored
    assert "userpass-ada" in await cli("token", "lookup", SECRETHUB_TOKEN="")
    await cli("user", "password", "ada", stdin="canary two")
    await cli("user", "write", "ada", "--keep-password", "--token-ttl", "5m")
    token = await cli(*login, "--no-store", stdin="canary two")
    assert token.startswith("hvs.")
    for _ in range(5):
        assert "invalid username or password" in await cli(*login, stdin="wrong", code=1)
    assert "ada" in await cli("user", "locked")
    await cli(*login, stdin="canary two", code=1)
    await cli("user", "unlock", "ada")
    await cli(*login, "--no-store", stdin="canary two")
    assert "deleted" in await cli("user", "delete", "ada")
    await cli("login", "--method", "userpass", code=2)


async def test_another_mount(cli: Cli) -> None:
    """Everything about machines is asked of the mount that is named, and of no other."""
    await cli("auth", "enable", "approle", "--path", "team/machines")
    mount = ("approle", "--mount", "team/machines")
    await cli(*mount, "write", "web", "--policy", "default")
    assert "web" in await cli("approle", "--mount", "auth/team/machines/", "list")
    await cli("approle", "read", "web", code=1)
    assert "names have no `/`" in await cli("approle", "write", "UPPER/x", code=1)
    role_id = (await cli(*mount, "role-id", "web", "--plain")).strip()
    secret_id = (await cli(*mount, "secret-id", "web", "--plain")).strip()
    login = ("login", "--role-id", role_id)
    assert (await cli.json(*mount, *login, "--secret-id-file", "-", stdin=secret_id))["client_token"]
    await cli("approle", *login, "--secret-id-file", "-", stdin=secret_id, code=1)
    (accessor,) = await cli.json(*mount, "secret-ids", "list", "web")
    await cli(*mount, "secret-ids", "destroy", "web", accessor)
    await cli(*mount, "secret-ids", "tidy")
    assert "deleted" in await cli(*mount, "delete", "web")
    await cli("pki", "issue", "a.example.com", "--mount", "nowhere", code=1)


async def test_wrapped_secret_ids(cli: Cli) -> None:
    """A wrapped SecretID logs in once, if its token comes from where it should."""
    await cli("approle", "write", "web", "--token-type", "batch", "--token-bound-cidr", "127.0.0.1/32")
    role_id = (await cli("approle", "role-id", "web", "--plain")).strip()
    path = "auth/approle/role/web/secret-id"
    wrapped = await cli.json("approle", "secret-id", "web", "--wrap-ttl", "1m")
    login = ("approle", "login", "--role-id", role_id, "--wrapped-from", path)
    auth = json.loads(await cli(*login, "--format", "json", stdin=wrapped["token"]))
    assert auth["client_token"].startswith("hvb.")
    assert "was used" in await cli(*login, stdin=wrapped["token"], code=1)
    swapped = await cli("wrap", "secret_id=attacker-made", "--plain")
    refused = await cli(*login, stdin=swapped, code=1)
    assert "sys/wrapping/wrap" in refused
    assert "attacker-made" in await cli("unwrap", stdin=swapped)
    (accessor,) = await cli.json("approle", "secret-ids", "list", "web")
    assert (await cli.json("approle", "secret-ids", "lookup", "web", accessor))["secret_id_ttl"] == 0
    await cli("approle", "secret-ids", "destroy", "web", accessor)
    await cli("approle", "secret-ids", "lookup", "web", accessor, code=1)
    await cli("approle", "secret-ids", "tidy")


async def test_certificates(cli: Cli, node: Node, tmp_path: Path) -> None:
    """A role trusts an authority's file, its client logs in over TLS, and renews with the same key."""
    ours = await root_of(node)
    await until_issued(node, ours)
    root = certify("Root", authority=True)
    client = certify("web-1", root, dns=("web-1.example.com",))
    (tmp_path / "root.pem").write_text(root.pem)
    certificate, key = (str(path) for path in client.files(tmp_path))
    made = ("cert", "write", "web", "--certificate", str(tmp_path / "root.pem"), "--policy", "ops")
    await cli(*made, "--allowed-dns-name", "*.example.com", "--token-ttl", "10m")
    assert await cli.json("cert", "list") == ["web"]
    told = await cli.json("cert", "read", "web")
    assert (told["token_policies"], told["allowed_dns_sans"]) == (["ops"], ["*.example.com"])
    await until_trusted(node, client, tmp_path)
    (tmp_path / "ca.pem").write_text(ours)
    assert node.settings.tls is not None
    secure = {
        "SECRETHUB_ADDR": f"https://127.0.0.1:{node.settings.tls.port}",
        "SECRETHUB_CACERT": str(tmp_path / "ca.pem"),
        "SECRETHUB_TOKEN": "",
    }
    login = ("login", "--method", "cert", "--client-cert", certificate)
    assert "stored in" in await cli(*login, "--client-key", key, "--role", "web", **secure)
    shown = {"SECRETHUB_CLIENT_CERT": certificate, "VAULT_CLIENT_KEY": key}
    assert "cert-web" in await cli("token", "lookup", **secure)
    await cli("token", "renew", **secure, **shown)
    await cli("token", "renew", code=1, **secure)
    # Mistakes are named before anything is sent.
    assert "https://" in await cli(*login, "--client-key", key, code=1)
    await cli("login", "--method", "cert", code=2, **secure)
    assert "no certificate with its key" in await cli(*login, code=1, **secure)
    assert "No such file" in await cli(*login, "--client-key", str(tmp_path / "none"), code=1, **secure)
    assert "invalid certificate" in await cli(*login, "--client-key", key, "--role", "x", code=1, **secure)
    assert "deleted" in await cli("cert", "delete", "web")
    assert await cli("cert", "delete", "web") == ""


async def test_mounts_of_people_by_either_spelling(cli: Cli) -> None:
    """A mount of people is named with or without `auth/`, as it is shown, by all who take one."""
    await cli("auth", "enable", "userpass", "--path", "people")
    shown = ("--mount", "auth/people/")
    await cli("user", "write", "ada", *shown, "--password-file", "-", stdin="correct horse")
    assert (await cli.json("user", "list", "--mount", "people")) == ["ada"]
    await cli(
        "login", "--method", "userpass", *shown, "--username", "ada", "--no-store", stdin="correct horse"
    )
    for _ in range(5):
        await cli("login", "--method", "userpass", *shown, "--username", "ada", stdin="wrong", code=1)
    assert "Ada may log in again" in await cli("user", "unlock", "Ada", *shown)
    # Whoever mistypes a name would think that it is done.
    assert "adda was not locked" in await cli("user", "unlock", "adda", *shown)
