"""Rekey and root tokens over HTTP: who may, through which door, and what the ledger says."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import pytest

from tests.gateway.conftest import SHARING, Node, native

_REKEY = {"secret_shares": 1, "secret_threshold": 1}


async def start(node: Node, path: str = "sys/rekey/init", **body: Any) -> dict[str, Any]:
    """Begin an attempt."""
    answer = await node.call("PUT", path, json=body)
    assert answer.status_code == 200, answer.text
    begun: dict[str, Any] = answer.json()
    return begun


async def shares_given(node: Node, path: str, nonce: str, token: str = "") -> dict[str, Any]:
    """Give three shares, by default without a token."""
    for share in node.shares[:3]:
        answer = await node.call("PUT", path, token, json={"key": share, "nonce": nonce})
        assert answer.status_code == 200, answer.text
    done: dict[str, Any] = answer.json()
    return done


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", "sys/rekey/init", _REKEY),
        ("DELETE", "sys/rekey/init", None),
        ("DELETE", "sys/rekey/verify", None),
        ("PUT", "sys/rekey-recovery-key/init", _REKEY),
    ],
)
async def test_a_rekey_is_begun_and_given_up_with_sudo(
    node: Node, method: str, path: str, body: dict[str, Any] | None
) -> None:
    """Without a token, or with one that lacks sudo, nothing begins and nothing ends."""
    begun = await start(node, **_REKEY)
    capabilities = ("create", "read", "update", "delete", "list")
    weak = await node.token("weak", native("sys/**", capabilities=capabilities))
    for token in ("", weak, "hvs.unknown"):
        answer = await node.call(method, path, token, json=body)
        assert answer.status_code == 403, (token, answer.text)
    found = (await node.call("GET", "sys/rekey/init")).json()
    assert (found["started"], found["nonce"]) == (True, begun["nonce"])


async def test_shares_need_no_token_and_are_not_in_the_ledger(node: Node) -> None:
    """Whoever holds a share gives it without a token; no share, old or new, is written down."""
    begun = await start(node, secret_shares=2, secret_threshold=2)
    made = await shares_given(node, "sys/rekey/update", begun["nonce"])
    async with node.process.core.database.read() as connection:
        rows = await connection.fetch("SELECT * FROM audit_entries")
    text = " ".join(str(dict(row)) for row in rows)
    assert "sys.rekey.update" in text
    for share in (*node.shares, *made["keys"], *made["keys_base64"]):
        assert share not in text


async def test_old_shares_go_once_the_answer_is_out(node: Node) -> None:
    """After the answer with the new shares the old ones are removed, and new ones decide."""
    begun = await start(node, **_REKEY)
    made = await shares_given(node, "sys/rekey/update", begun["nonce"])

    async with asyncio.timeout(15):
        while True:
            async with node.process.core.database.read() as connection:
                if await connection.fetchval("SELECT count(*) FROM seal_slots") == 1:
                    break
            await asyncio.sleep(0.02)
    again = await start(node, **_REKEY)
    refused = await node.call(
        "PUT", "sys/rekey/update", json={"key": node.shares[0], "nonce": again["nonce"]}
    )
    assert (refused.status_code, refused.json()["code"]) == (400, "wrong_share")
    done = await node.call("PUT", "sys/rekey/update", json={"key": made["keys"][0], "nonce": again["nonce"]})
    assert done.json()["complete"] is True


async def test_a_rekey_interrupts_nobody(node: Node) -> None:
    """Reads and writes go on through a rekey: no answer is 503."""
    stop = asyncio.Event()
    codes: set[int] = set()

    async def requests() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            written = await node.call("POST", "secret/data/a", json={"data": {"n": number}})
            found = await node.call("GET", "secret/data/a")
            codes.update({written.status_code, found.status_code})

    busy = asyncio.create_task(requests())
    for _ in range(3):
        begun = await start(node, secret_shares=5, secret_threshold=3)
        node.shares = (await shares_given(node, "sys/rekey/update", begun["nonce"]))["keys_base64"]
    stop.set()
    await busy
    assert codes == {200}


@SHARING
@pytest.mark.parametrize("extra", [{"pgp_keys": ["x"]}, {"backup": True}, {"secret_threshold": 9}, {"no": 1}])
async def test_what_is_not_done_is_refused(shared_node: Node, extra: dict[str, Any]) -> None:
    """Nothing begins with encrypted shares, a backup of them, impossible numbers or unknown fields."""
    answer = await shared_node.call("PUT", "sys/rekey/init", json={**_REKEY, **extra})
    assert answer.status_code == 400, answer.text
    assert (await shared_node.call("GET", "sys/rekey/init")).json()["started"] is False


async def test_nothing_of_this_through_the_ingress(node: Node) -> None:
    """Ray Serve's ingress answers neither progress nor changes of the seal."""
    transport = httpx2.ASGITransport(app=node.process.application("serve"), client=("127.0.0.1", 4000))
    nonce = {"key": node.shares[0], "nonce": "x"}
    [slot] = (await node.call("GET", "sys/seal/slots")).json()["data"]["keys"]
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
        for method, path, body in (
            ("GET", "sys/rekey/init", None),
            ("PUT", "sys/rekey/init", _REKEY),
            ("DELETE", "sys/rekey/init", None),
            ("PUT", "sys/rekey/update", nonce),
            ("GET", "sys/rekey/verify", None),
            ("PUT", "sys/rekey/verify", nonce),
            ("DELETE", "sys/rekey/verify", None),
            ("GET", "sys/generate-root/attempt", None),
            ("PUT", "sys/generate-root/attempt", {}),
            ("DELETE", "sys/generate-root/attempt", None),
            ("PUT", "sys/generate-root/update", nonce),
            ("PUT", "sys/rekey-recovery-key/init", _REKEY),
            ("PUT", "sys/rekey-recovery-key/update", nonce),
            ("PUT", "sys/rekey-recovery-key/verify", nonce),
            ("POST", "sys/seal/slots", {"type": "gcpckms", "service": "none"}),
            ("DELETE", f"sys/seal/slots/{slot}", None),
            ("GET", "sys/seal/slots/attempt", None),
            ("DELETE", "sys/seal/slots/attempt", None),
            ("PUT", "sys/seal/slots/update", nonce),
            ("PUT", "sys/unseal", {"key": node.shares[0]}),
            ("PUT", "sys/accept-restore", {"key": node.shares[0]}),
        ):
            answer = await client.request(
                method, f"/v1/{path}", json=body, headers={"X-Vault-Token": node.root}
            )
            assert answer.status_code == 403, (method, path, answer.text)


async def test_a_root_token_is_begun_on_the_node_itself(node: Node) -> None:
    """From another machine no attempt begins or ends, with a token or without; shares come from there."""
    begun = await start(node, "sys/generate-root/attempt")
    transport = httpx2.ASGITransport(app=node.process.application("tls"), client=("192.0.2.7", 4000))
    async with httpx2.AsyncClient(transport=transport, base_url="https://localhost") as client:
        for method in ("PUT", "DELETE"):
            for token in ("", node.root):
                headers = {"X-Vault-Token": token} if token else {}
                answer = await client.request(method, "/v1/sys/generate-root/attempt", headers=headers)
                assert answer.status_code == 403, answer.text
        share = {"key": node.shares[0], "nonce": begun["nonce"]}
        answer = await client.put("/v1/sys/generate-root/update", json=share)
        assert answer.json()["progress"] == 1


@pytest.mark.parametrize(
    ("path", "body"), [("sys/rekey/init", _REKEY), ("sys/generate-root/attempt", {})], ids=["rekey", "root"]
)
async def test_another_attempt_is_not_given_up(node: Node, path: str, body: dict[str, Any]) -> None:
    """Whoever names an attempt ends that one: not what somebody else has begun since."""
    begun = await start(node, path, **body)
    assert (await node.call("DELETE", path, json={"nonce": begun["nonce"]})).status_code == 204
    later = await start(node, path, **body)
    answer = await node.call("DELETE", path, json={"nonce": begun["nonce"]})
    assert answer.status_code == 400, answer.text
    assert (await node.call("GET", path)).json()["nonce"] == later["nonce"]
    assert (await node.call("DELETE", path)).status_code == 204
    assert (await node.call("GET", path)).json()["started"] is False
    assert (await node.call("DELETE", path, json={"nonce": begun["nonce"]})).status_code == 204


async def test_a_share_of_a_root_token_needs_the_right_nonce(node: Node) -> None:
    """Without the nonce of the attempt under way a share is refused, so nobody authorises a stranger's."""
    begun = await start(node, "sys/generate-root/attempt")
    for body in ({"key": node.shares[0]}, {"key": node.shares[0], "nonce": ""}, {"nonce": begun["nonce"]}):
        answer = await node.call("PUT", "sys/generate-root/update", json=body)
        assert answer.status_code == 400, answer.text
    found = (await node.call("GET", "sys/generate-root/attempt")).json()
    assert (found["progress"], found["otp"], found["encoded_token"]) == (0, "", "")
