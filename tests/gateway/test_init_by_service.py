"""Init with a key service: no unseal shares, recovery shares that decide, and nothing half made."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import hvac
import msgspec
import pytest
from hvac import exceptions

from cluster.kms import OPENER
from secrethub.seal.wishes import decode_token
from tests.clouds import aws_cloud
from tests.clouds.cloud import Cloud
from tests.gateway.behind import entries, ledger_is_good, sql, until
from tests.gateway.conftest import Node, node_settings, running
from tests.gateway.shell import Cli
from tests.gateway.test_hvac import with_client


@pytest.fixture(scope="module")
def amazon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """AWS's key service."""
    with aws_cloud.running(tmp_path_factory.mktemp("amazon")) as started:
        yield started


@pytest.fixture
async def hub(database_url: str, tmp_path: Path, amazon: Cloud) -> AsyncIterator[Node]:
    """A node without a cluster, whose settings have two keys, one of which nobody answers for."""
    silent = msgspec.structs.replace(amazon.settings, name="silent", endpoint="http://127.0.0.1:1")
    settings = msgspec.structs.replace(
        node_settings(tmp_path, database_url),
        key_services=(amazon.settings, silent),
        key_service_opener=OPENER,
    )
    async with running(settings) as node:
        yield node


async def _open(node: Node) -> bool:
    return (await node.call("GET", "sys/health")).status_code == 200


async def test_a_cluster_that_a_key_service_opens(hub: Node, tmp_path: Path) -> None:
    """It is open when init answers, opens again after an outage of everything, and its shares decide."""
    url = hub.settings.database_url
    for body, words in (
        ({"recovery_shares": 3, "recovery_threshold": 2}, "aws, silent"),
        ({"recovery_shares": 3, "recovery_threshold": 2, "service": "gcp"}, "aws, silent"),
        ({"recovery_shares": 3, "recovery_threshold": 1, "service": "aws"}, "recovery_threshold"),
        ({"recovery_shares": 3, "recovery_threshold": 0, "service": "aws"}, "recovery_threshold"),
        ({"recovery_shares": 3, "secret_shares": 5, "service": "aws"}, "secret_shares"),
        ({"stored_shares": 2, "service": "aws"}, "stored_shares"),
        ({"recovery_pgp_keys": ["mQENBF"], "service": "aws"}, "recovery_pgp_keys"),
    ):
        refused = await hub.call("PUT", "sys/init", json=body)
        assert (refused.status_code, words in refused.text) == (400, True), (body, refused.text)
    away = await hub.call("PUT", "sys/init", json={"service": "silent"})
    assert away.status_code == 503, away.text
    assert (await hub.call("GET", "sys/init")).json() == {"initialized": False}
    assert await sql(url, "SELECT 1 FROM seal_slots") == []
    told = await entries(url, operation="sys.init")
    assert told
    assert {entry["outcome"] for entry in told} == {"refused"}

    out = tmp_path / "keys.json"
    command = ("operator", "init", "--service", "aws", "--recovery-shares", "3", "--recovery-threshold", "2")
    await Cli(hub, tmp_path)(*command, "--out", str(out))
    made = json.loads(out.read_text())
    assert (made["keys"], made["keys_base64"], len(made["recovery_keys"])) == ([], [], 3)
    hub.root = made["root_token"]
    written = await hub.call("POST", "secrets/a", json={"data": {"k": "v"}})
    assert written.status_code == 200, written.text
    await hub.process.stop()
    await hub.tree.stop()

    async with running(hub.settings) as node:
        node.root, node.shares = hub.root, made["recovery_keys_base64"]
        await until(lambda: _open(node))
        await with_client(node, lambda client: _decided(client, node.shares))
        assert (await node.call("GET", "secrets/a")).json()["data"]["data"] == {"k": "v"}
        await ledger_is_good(node)
        opened = await entries(url, operation="sys.auto-unseal", outcome="done")
        assert len(opened) == 2
    rows = await sql(url, "SELECT * FROM audit_entries")
    text = " ".join(str(dict(row)) for row in rows)
    for share in (*made["recovery_keys"], *made["recovery_keys_base64"]):
        assert share not in text


def _decided(client: hvac.Client, shares: list[str]) -> None:
    """Seal, open and make a root token with recovery shares; unseal shares there are none to rekey."""
    status = client.sys.read_seal_status()
    assert (status["type"], status["recovery_seal"], status["t"], status["n"]) == ("awskms", True, 2, 3)
    with pytest.raises(exceptions.InvalidRequest, match="rekey-recovery-key"):
        client.sys.start_rekey(secret_shares=1, secret_threshold=1)
    begun = client.sys.start_rekey(secret_shares=1, secret_threshold=1, recovery_key=True)
    assert begun["required"] == 2
    client.sys.cancel_rekey(recovery_key=True)
    client.sys.seal()
    assert client.sys.submit_unseal_key(shares[0])["sealed"] is True
    assert client.sys.submit_unseal_key(shares[2])["sealed"] is False
    begun = client.sys.start_root_token_generation()
    client.sys.generate_root(shares[0], begun["nonce"])
    done = client.sys.generate_root(shares[1], begun["nonce"])
    client.auth.token.lookup(decode_token(done["encoded_token"], begun["otp"]))


async def test_hvac_and_the_command_line(database_url: str, tmp_path: Path, amazon: Cloud) -> None:
    """The only key need not be named; hvac gets recovery keys; the command line says what it made."""
    settings = msgspec.structs.replace(
        node_settings(tmp_path, database_url), key_services=(amazon.settings,), key_service_opener=OPENER
    )

    def work(client: hvac.Client) -> Any:
        # Vault's own command line says zero for what was not asked for.
        return client.sys.initialize(
            secret_shares=0, secret_threshold=0, recovery_shares=2, recovery_threshold=2
        )

    async with running(settings) as node:
        made = await with_client(node, work)
        node.root = made["root_token"]
        assert len(made["recovery_keys_base64"]) == 2
        assert (await node.call("GET", "auth/token/lookup-self")).status_code == 200
        cli = Cli(node, tmp_path)
        refused = await cli("operator", "init", "--recovery-shares", "3", "--shares", "3", code=1)
        assert "secret_shares" in refused
        assert "already" in await cli("operator", "init", "--recovery-shares", "3", code=1)
        assert "Sealed       false" in await cli("status")
