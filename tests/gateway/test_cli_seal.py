"""``secrethub operator rekey`` and ``generate-root`` against a real server, as a shell runs them."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from secrethub.node import Listener
from serve.tls_certificate import boot_identity
from tests.gateway.conftest import Node, node_settings, running
from tests.gateway.shell import Cli


@pytest.fixture
def cli(node: Node, tmp_path: Path) -> Cli:
    """The command line for the node."""
    return Cli(node, tmp_path)


async def test_rekey(cli: Cli, node: Node, tmp_path: Path) -> None:
    """Start, status, cancel, shares by pipe and by file, the new ones to a file, their verification."""
    begun = await cli.json("operator", "rekey", "start", "--shares", "3", "--threshold", "2")
    assert (await cli.json("operator", "rekey", "status"))["nonce"] == begun["nonce"]
    await cli("operator", "rekey", "cancel")
    assert "nothing is under way" in await cli("operator", "rekey", "give", stdin=node.shares[0], code=1)
    begun = await cli.json("operator", "rekey", "start", "--shares", "3", "--threshold", "2")
    wrong = await cli("operator", "rekey", "give", stdin=f"{'00' * 32}07\n", code=1)
    assert "share in line 1" in wrong
    first = await cli("operator", "rekey", "give", stdin=node.shares[0], SECRETHUB_TOKEN="")
    assert "1 of 3 shares" in first
    out, rest = tmp_path / "new.json", tmp_path / "old"
    rest.write_text("\n".join(node.shares[1:3]))
    out.write_text("precious")
    words = ("operator", "rekey", "give", "--file", str(rest), "--out", str(out), "--nonce", begun["nonce"])
    assert "exists" in await cli(*words, code=1)
    out.unlink()
    told = await cli(*words)
    assert out.stat().st_mode & 0o777 == 0o600
    made = json.loads(out.read_text())
    assert made["keys_base64"][0] not in told
    assert "stay until" in told
    assert "1 of 2" in await cli("operator", "rekey", "verify", stdin=made["keys_base64"][0])
    assert "have replaced" in await cli("operator", "rekey", "verify", "--file", str(out))
    await cli("operator", "seal")
    await cli("operator", "unseal", stdin=f"{node.shares[0]}\n", code=1)
    assert "nor shares" in await cli("operator", "unseal", stdin='{"keys_base64": 5}', code=1)
    assert "Sealed       false" in await cli("operator", "unseal", "--file", str(out))


async def test_before_init_no_share_is_read(sealed_node: Node, tmp_path: Path) -> None:
    """Whoever gives shares to a cluster that nobody has initialised is told so, whatever they look like."""
    cli = Cli(sealed_node, tmp_path)
    for share in ("no share at all", f"{'00' * 32}07"):
        said = await cli("operator", "unseal", stdin=share, code=1)
        assert "not initialised" in said
        assert "operator init" in said
    await sealed_node.initialise()
    assert "hexadecimal" in await cli("operator", "unseal", stdin="no share at all", code=1)


async def test_init_from_another_address(database_url: str, tmp_path: Path) -> None:
    """From beyond loopback init wants the one-time token of the node's file, and says so; it is good once."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.99", 9))
        except OSError:
            pytest.skip("this machine has no address but loopback")
        address = probe.getsockname()[0]
    file, given = tmp_path / "init-token", tmp_path / "given"
    for one in (file, given):
        one.touch(mode=0o600)
        one.write_text("only-once\n")
    settings = node_settings(tmp_path, database_url)
    assert settings.tls is not None
    port = settings.tls.port
    settings = msgspec.structs.replace(
        settings, tls=Listener("0.0.0.0", port), tls_addresses=(address,), init_token_file=str(file)
    )
    async with running(settings) as node:
        cli = Cli(node, tmp_path)
        chain, _ = boot_identity(settings)
        pin = x509.load_pem_x509_certificate(chain).fingerprint(hashes.SHA256()).hex()
        there = {"SECRETHUB_ADDR": f"https://{address}:{port}", "SECRETHUB_CA_SHA256": pin}
        init = ("operator", "init", "--shares", "1", "--threshold", "1")
        assert "--init-token-file" in await cli(*init, code=1, **there)
        wrong = await cli(*init, "--init-token-file", "-", stdin="another", code=1, **there)
        assert "init_token_file" in wrong
        made = await cli.json(*init, "--init-token-file", str(given), **there)
        assert not file.exists()
        assert "init_token_file" in await cli(*init, "--init-token-file", str(given), code=1, **there)
        assert (await cli.json("operator", "unseal", stdin=made["keys"][0], **there))["sealed"] is False


async def test_generate_root(cli: Cli, node: Node) -> None:
    """Start, give, decode: the token works, and neither it nor the password is an argument of any process."""
    begun = await cli.json("operator", "generate-root", "start", SECRETHUB_TOKEN="")
    await cli("operator", "generate-root", "cancel", SECRETHUB_TOKEN="")
    begun = await cli.json("operator", "generate-root", "start", SECRETHUB_TOKEN="")
    assert begun["nonce"] in await cli("operator", "generate-root", "status")
    done = await cli.json("operator", "generate-root", "give", stdin="\n".join(node.shares))
    encoded = done["encoded_token"]
    found = await cli.json("operator", "generate-root", "decode", encoded, stdin=begun["otp"])
    assert (await cli.json("token", "lookup", SECRETHUB_TOKEN=found["token"]))["policies"] == ["root"]
    assert "do not fit" in await cli("operator", "generate-root", "decode", encoded, stdin="x", code=1)


async def test_data_keys(cli: Cli, node: Node) -> None:
    """Rotate, see the new key, wait until older keys seal nothing any more."""
    assert (await cli.json("operator", "key-status"))["term"] == 1
    await node.call("POST", "secrets/a", json={"data": {"k": "v"}})
    assert (await cli.json("operator", "rotate"))["term"] == 2
    assert "Key term" in await cli("operator", "key-status")
    before = await cli.json("operator", "reencrypt")
    assert before["left"] > 0
    after = await cli.json("operator", "reencrypt", "--wait")
    assert (after["left"], after["sealing"]) == (0, 2)
    assert "kv_versions" in await cli("operator", "reencrypt")
    assert (await node.call("GET", "secrets/a")).json()["data"]["data"] == {"k": "v"}
