"""What options of commands about roles, users, certificates, tokens and shares bring about."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography import x509

from tests.gateway.conftest import ALONE, SHARING, Node
from tests.gateway.shell import Cli, cli
from tests.private_authority import certify

__all__ = ["cli"]  # the fixture

pytestmark = SHARING


@pytest.fixture
def node(shared_node: Node) -> Node:
    """A node of all tests here, each of which has names of its own."""
    return shared_node


async def test_machines(cli: Cli, tmp_path: Path) -> None:
    """A role's limits are as written, its SecretIDs and tokens have them, what is not named stays."""
    lives = ("--token-ttl", "1h", "--token-max-ttl", "2h", "--token-num-uses", "7")
    secret_ids = ("--secret-id-ttl", "30m", "--secret-id-num-uses", "3", "--bound-cidr", "127.0.0.0/8")
    await cli("approle", "write", "web", "--policy", "default", *lives, *secret_ids)
    await cli("approle", "write", "web", "--token-period", "0")
    role = await cli.json("approle", "read", "web")
    assert (role["token_ttl"], role["token_max_ttl"], role["token_num_uses"]) == (3600, 7200, 7)
    assert (role["secret_id_ttl"], role["secret_id_num_uses"]) == (1800, 3)
    assert (role["secret_id_bound_cidrs"], role["bind_secret_id"]) == (["127.0.0.0/8"], True)
    made = await cli.json("approle", "secret-id", "web", "--bound-cidr", "127.0.0.1/32", "--ttl", "5m")
    shown = await cli.json("approle", "secret-ids", "lookup", "web", made["secret_id_accessor"])
    assert (shown["cidr_list"], shown["secret_id_ttl"]) == (["127.0.0.1/32"], 300)
    role_id = (await cli("approle", "role-id", "web", "--plain")).strip()
    token = await cli.json("approle", "login", "--role-id", role_id, stdin=made["secret_id"])
    assert token["lease_duration"] == 3600
    assert (await cli.json("token", "lookup", "--accessor", token["accessor"]))["num_uses"] == 7
    elsewhere = await cli("approle", "secret-id", "web", "--bound-cidr", "192.0.2.1/32", code=1)
    assert "cidr_list goes beyond the role's secret_id_bound_cidrs" in elsewhere


async def test_machines_without_a_secret_id(cli: Cli) -> None:
    """A role needs no SecretID only where networks are bound, and takes one again when told so."""
    assert "bind_secret_id" in await cli("approle", "write", "near", "--no-secret-id", code=1)
    await cli(
        "approle", "write", "near", "--no-secret-id", "--bound-cidr", "127.0.0.1/32", "--token-period", "1h"
    )
    role = await cli.json("approle", "read", "near")
    assert (role["bind_secret_id"], role["token_period"]) == (False, 3600)
    body = {"role_id": (await cli("approle", "role-id", "near", "--plain")).strip()}
    assert (await cli.node.call("POST", "auth/approle/login", "", json=body)).status_code == 200
    await cli("approle", "write", "near", "--bind-secret-id")
    assert (await cli.node.call("POST", "auth/approle/login", "", json=body)).status_code == 400


async def test_people(cli: Cli) -> None:
    """A user's token ends where it was said, and comes from nowhere else."""
    limits = ("--token-ttl", "10m", "--token-max-ttl", "20m", "--bound-cidr", "127.0.0.0/8")
    await cli("user", "write", "ada", "--password-file", "-", *limits, stdin="correct horse")
    shown = await cli.json("user", "read", "ada")
    assert (shown["token_max_ttl"], shown["token_bound_cidrs"]) == (1200, ["127.0.0.0/8"])
    login = ("login", "--method", "userpass", "--username", "ada", "--no-store")
    token = (await cli(*login, stdin="correct horse")).strip()
    renewed = await cli.json("token", "renew", "--increment", "1h", SECRETHUB_TOKEN=token)
    assert 0 < renewed["lease_duration"] <= 1200
    await cli("user", "write", "ada", "--keep-password", "--bound-cidr", "192.0.2.0/24")
    await cli(*login, stdin="correct horse", code=1)


async def test_certificates(cli: Cli, tmp_path: Path) -> None:
    """What a role of certificates asks for and gives is kept, each under its own name."""
    (tmp_path / "root.pem").write_text(certify("Root", authority=True).pem)
    asks = (
        ("--allowed-name", "allowed_names", "web-*"),
        ("--allowed-common-name", "allowed_common_names", "web-1"),
        ("--allowed-email", "allowed_email_sans", "*@example.com"),
        ("--allowed-uri", "allowed_uri_sans", "spiffe://example.com/*"),
        ("--allowed-unit", "allowed_organizational_units", "shop"),
        ("--required-extension", "required_extensions", "1.2.3.4:*"),
        ("--bound-cidr", "token_bound_cidrs", "127.0.0.0/8"),
    )
    options = [word for option, _, value in asks for word in (option, value)]
    gives = ("--display-name", "shop", "--token-max-ttl", "2h", "--token-period", "30m")
    await cli("cert", "write", "web", "--certificate", str(tmp_path / "root.pem"), *options, *gives)
    role = await cli.json("cert", "read", "web")
    assert {name: role[name] for _, name, _ in asks} == {name: [value] for _, name, value in asks}
    assert (role["display_name"], role["token_max_ttl"], role["token_period"]) == ("shop", 7200, 1800)
    await cli("cert", "write", "ours", "--pki", "pki", "--allowed-name", "*.example.com")
    assert (await cli.json("cert", "read", "ours"))["pki"] == "pki/"
    assert "nowhere" in await cli("cert", "write", "ours", "--pki", "nowhere", code=1)


async def test_tokens(cli: Cli) -> None:
    """A periodic token lives on by its period, and the ledger calls it by the name it was given."""
    made = await cli.json(
        "token", "create", "--policy", "default", "--period", "30m", "--display-name", "nightly"
    )
    seen = await cli.json("token", "lookup", "--accessor", made["accessor"])
    assert (seen["period"], seen["display_name"]) == (1800, "token-nightly")
    again = await cli.json("token", "renew", "--accessor", made["accessor"], "--increment", "9h")
    assert again["lease_duration"] == 1800


async def test_names_of_an_issued_certificate(cli: Cli) -> None:
    """Every further name and address is in the certificate."""
    names = ("--alt-name", "b.example.com", "--alt-name", "c.example.com", "--ip", "192.0.2.7")
    issued = await cli.json("pki", "issue", "a.example.com", *names, "--ttl", "1h")
    found = x509.load_pem_x509_certificate(issued["certificate"].encode())
    alternative = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert alternative.get_values_for_type(x509.DNSName) == [
        "a.example.com",
        "b.example.com",
        "c.example.com",
    ]
    assert [str(ip) for ip in alternative.get_values_for_type(x509.IPAddress)] == ["192.0.2.7"]


@ALONE
async def test_shares_are_replaced_at_once_if_so_wished(own: Node, tmp_path: Path) -> None:
    """Without verification the last share given replaces the old ones."""
    cli = Cli(own, tmp_path)
    options = ("--shares", "1", "--threshold", "1", "--no-verification")
    begun = await cli.json("operator", "rekey", "start", *options)
    assert begun["verification_required"] is False
    given = "\n".join(own.shares[:3])
    made = await cli.json("operator", "rekey", "give", "--nonce", begun["nonce"], stdin=given)
    await cli("operator", "seal")
    await cli("operator", "unseal", stdin=own.shares[0], code=1)
    assert (await cli.json("operator", "unseal", stdin=made["keys_base64"][0]))["sealed"] is False


async def test_a_root_token_is_decoded_by_a_file(cli: Cli, tmp_path: Path) -> None:
    """The one-time password may lie in a file."""
    begun = await cli.json("operator", "generate-root", "start")
    done = await cli.json("operator", "generate-root", "give", stdin="\n".join(cli.node.shares[:3]))
    (tmp_path / "otp").write_text(begun["otp"] + "\n")
    file = ("--otp-file", str(tmp_path / "otp"))
    found = await cli.json("operator", "generate-root", "decode", done["encoded_token"], *file)
    assert (await cli.json("token", "lookup", SECRETHUB_TOKEN=found["token"]))["policies"] == ["root"]
