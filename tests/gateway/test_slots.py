"""Unseal slots over HTTP and on the command line: who may, and what it looks like."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cluster.kms import OPENER
from tests.clouds import gcp_cloud
from tests.clouds.cloud import Cloud
from tests.gateway.conftest import Node, native, node_settings, running
from tests.gateway.shell import Cli


@pytest.fixture
def google(tmp_path: Path) -> Iterator[Cloud]:
    """Google's key service."""
    with gcp_cloud.running(tmp_path) as started:
        yield started


@pytest.fixture
async def hub(database_url: str, tmp_path: Path, google: Cloud) -> AsyncIterator[Node]:
    """A node whose settings have one key of a key service."""
    settings = msgspec.structs.replace(
        node_settings(tmp_path, database_url), key_services=(google.settings,), key_service_opener=OPENER
    )
    async with running(settings) as node:
        await node.initialise()
        await node.unseal()
        yield node


async def answered(node: Node, method: str, path: str, body: Any = None, code: int = 200) -> Any:
    """Send a request with the root token; return what was answered."""
    answer = await node.call(method, path, json=body)
    assert answer.status_code == code, answer.text
    return answer.json() if answer.content else None


async def change_made(node: Node, nonce: str) -> dict[str, Any]:
    """Give three shares, without a token; with two of them nothing has changed."""
    before = (await answered(node, "GET", "sys/seal-status"))["slots"]
    for number, share in enumerate(node.shares[:3], 1):
        assert (await answered(node, "GET", "sys/seal-status"))["slots"] == before
        body = {"key": share, "nonce": nonce}
        answer = await node.call("PUT", "sys/seal/slots/update", "", json=body)
        assert answer.status_code == 200, answer.text
        done: dict[str, Any] = answer.json()["data"]
        assert done["complete"] is (number == 3)
    assert (await answered(node, "GET", "sys/seal-status"))["slots"] != before
    return done


async def test_a_slot_is_added_tried_and_removed(hub: Node, google: Cloud) -> None:
    """Each change is begun with a token, made by shares and shown by list and seal-status."""
    body = {"type": "gcpckms", "service": "gcp"}
    begun = (await answered(hub, "POST", "sys/seal/slots", body))["data"]
    assert (begun["started"], begun["required"], begun["complete"]) == (True, 3, False)
    assert (await answered(hub, "GET", "sys/seal/slots/attempt"))["data"]["nonce"] == begun["nonce"]
    await answered(hub, "POST", "sys/seal/slots", body, code=400)
    done = await change_made(hub, begun["nonce"])
    assert done["complete"] is True
    for method, path in (("GET", "sys/seal/slots"), ("LIST", "sys/seal/slots")):
        found = (await answered(hub, method, path))["data"]
        shown = [found["key_info"][name] for name in found["keys"]]
        assert shown[0] == {"type": "shamir", "shares": 5, "threshold": 3, "leaving": False}
        assert shown[1] == {"type": "gcpckms", "service": "gcp"}
    status = await answered(hub, "GET", "sys/seal-status")
    assert [slot["type"] for slot in status["slots"]] == ["shamir", "gcpckms"]
    assert (status["type"], status["recovery_seal"]) == ("shamir", False)
    slot = f"sys/seal/slots/{done['slot']}"
    await answered(hub, "POST", f"{slot}/test", code=204)
    shamir = status["slots"][0]["id"]
    begun = (await answered(hub, "DELETE", f"sys/seal/slots/{shamir}"))["data"]
    await change_made(hub, begun["nonce"])
    status = await answered(hub, "GET", "sys/seal-status")
    assert (status["type"], status["recovery_seal"], status["t"], status["n"]) == ("gcpckms", True, 3, 5)
    await answered(hub, "DELETE", slot, code=400)
    google.close()
    await answered(hub, "POST", f"{slot}/test", code=503)
    assert (await answered(hub, "GET", "auth/token/lookup-self"))["data"]["display_name"] == "root"


async def test_a_slot_of_shares_comes_back(hub: Node) -> None:
    """A cluster without unseal shares gets new ones from its recovery shares, once, in the answer."""
    begun = (await answered(hub, "POST", "sys/seal/slots", {"type": "gcpckms", "service": "gcp"}))["data"]
    await change_made(hub, begun["nonce"])
    shamir = (await answered(hub, "GET", "sys/seal-status"))["slots"][0]["id"]
    begun = (await answered(hub, "DELETE", f"sys/seal/slots/{shamir}"))["data"]
    await change_made(hub, begun["nonce"])
    body = {"type": "shamir", "secret_shares": 3, "secret_threshold": 3}
    begun = (await answered(hub, "POST", "sys/seal/slots", body))["data"]
    done = await change_made(hub, begun["nonce"])
    await answered(hub, "PUT", "sys/seal", code=204)
    for share in done["keys_base64"]:
        status = await answered(hub, "PUT", "sys/unseal", {"key": share})
    assert (status["sealed"], status["type"], status["recovery_seal"]) == (False, "shamir", False)


async def test_slots_are_changed_with_sudo_and_shares(hub: Node) -> None:
    """A token without sudo begins nothing; one that may read sees the slots; strangers see nothing."""
    slots = (await answered(hub, "GET", "sys/seal-status"))["slots"]
    weak = await hub.token("weak", native("sys/**", capabilities=("create", "read", "update", "delete")))
    slot = f"sys/seal/slots/{slots[0]['id']}"
    for method, path, body in (
        ("POST", "sys/seal/slots", {"type": "gcpckms", "service": "gcp"}),
        ("DELETE", slot, None),
        ("POST", f"{slot}/test", {}),
        ("DELETE", "sys/seal/slots/attempt", None),
    ):
        for token in ("", weak):
            answer = await hub.call(method, path, token, json=body)
            assert answer.status_code == 403, (method, path, answer.text)
    assert (await hub.call("GET", "sys/seal/slots", weak)).status_code == 200
    assert (await hub.call("GET", "sys/seal/slots", "")).status_code == 403


@pytest.mark.parametrize(
    "body",
    [
        {"type": "gcpckms"},
        {"type": "gcpckms", "service": "gcp", "endpoint": "http://192.0.2.1"},
        {"type": "gcpckms", "service": "gcp", "credentials_file": "/etc/shadow"},
        {"type": "awskms", "service": "gcp"},
        {"type": "pkcs11", "service": "gcp"},
        {"type": "shamir", "service": "gcp"},
        {"type": "shamir"},
    ],
)
async def test_where_a_key_is_cannot_be_said_in_a_request(hub: Node, body: dict[str, Any]) -> None:
    """A request names a key in the nodes' settings and nothing else; anything else is refused."""
    await answered(hub, "POST", "sys/seal/slots", body, code=400)
    assert (await answered(hub, "GET", "sys/seal/slots/attempt"))["data"]["started"] is False


async def test_the_command_line(hub: Node, tmp_path: Path) -> None:
    """List, add, status, give, test, remove and cancel."""
    cli = Cli(hub, tmp_path)
    assert "3 of 5 shares" in await cli("operator", "slot", "list")
    assert "--service" in await cli("operator", "slot", "add", "gcpckms", code=2)
    begun = await cli.json("operator", "slot", "add", "gcpckms", "--service", "gcp")
    assert begun["nonce"] in await cli("operator", "slot", "status")
    await cli("operator", "slot", "cancel")
    await cli("operator", "slot", "add", "gcpckms", "--service", "gcp")
    assert "2 of 3" in await cli(
        "operator", "slot", "give", stdin="\n".join(hub.shares[:2]), SECRETHUB_TOKEN=""
    )
    done = await cli.json("operator", "slot", "give", stdin=hub.shares[3])
    assert "gcp" in await cli("operator", "slot", "list")
    assert "opens" in await cli("operator", "slot", "test", done["slot"])
    await cli("operator", "slot", "remove", done["slot"])
    assert done["slot"] in await cli("operator", "slot", "give", stdin="\n".join(hub.shares[:3]))


async def test_shares_that_decide_and_shares_that_open_on_the_command_line(hub: Node, tmp_path: Path) -> None:
    """Without a slot of shares they are recovery shares: these make shares that open again."""
    cli = Cli(hub, tmp_path)
    old = tmp_path / "old"
    old.write_text("\n".join(hub.shares[:3]))
    slot, rekey = ("operator", "slot"), ("operator", "rekey")
    shares = ("--shares", "2", "--threshold", "2")
    assert "no recovery shares" in await cli(*rekey, "start", *shares, "--recovery", code=1)
    begun = await cli.json(*slot, "add", "gcpckms", "--service", "gcp")
    assert "nonce" in await cli(*slot, "give", "--file", str(old), "--nonce", "another", code=1)
    await cli(*slot, "give", "--file", str(old), "--nonce", begun["nonce"])
    shamir = (await answered(hub, "GET", "sys/seal-status"))["slots"][0]["id"]
    await cli(*slot, "remove", shamir)
    await cli(*slot, "give", "--file", str(old))

    await cli(*rekey, "start", *shares, "--recovery")
    assert (await cli.json(*rekey, "status", "--recovery"))["started"] is True
    await cli(*rekey, "cancel", "--recovery")
    await cli(*rekey, "start", *shares, "--recovery")
    out = tmp_path / "new.json"
    await cli(*rekey, "give", "--recovery", "--file", str(old), "--out", str(out))
    made = json.loads(out.read_text())["keys_base64"]
    assert "have replaced" in await cli(*rekey, "verify", "--recovery", stdin="\n".join(made))

    await cli(*slot, "add", "shamir", *shares)
    assert "none of those" in await cli(*slot, "give", "--file", str(old), code=1)
    opening = (await cli.json(*slot, "give", stdin="\n".join(made)))["keys_base64"]
    assert len(opening) == 2
    await cli("operator", "seal")
    assert (await cli.json("operator", "unseal", stdin="\n".join(opening)))["sealed"] is False
