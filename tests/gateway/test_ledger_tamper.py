"""Somebody writes to the ledger's tables: verification names the first record that is not as it was."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import pytest

from actors.wiring import Pulses
from secrethub.storage.ledger_read import _PAGE
from tests.gateway.behind import fill_ledger, integrity_failures, sql, until
from tests.gateway.conftest import Node

_OWN = """SELECT stream FROM audit_entries WHERE kind = 'open' AND detail LIKE '%"process":"single"%'"""


async def settled(url: str) -> bool:
    """Tell whether a checkpoint has every entry."""
    rows = await sql(
        url,
        """SELECT 1 FROM audit_streams s LEFT JOIN notarised_streams n USING (stream)
           WHERE n.number IS DISTINCT FROM s.number""",
    )
    return not rows


async def verified(hub: Node) -> dict[str, Any]:
    """Verify the ledger and return the verdict.

    A process whose stream does not go on from where it was refuses one request, and begins another stream.
    """
    answer = await hub.call("POST", "sys/audit/verify", json={})
    if answer.status_code == 503:
        answer = await hub.call("POST", "sys/audit/verify", json={})
    assert answer.status_code == 200, answer.text
    return dict(answer.json()["data"])


@pytest.fixture
def pulses() -> Pulses:
    """Checkpoints soon after the entries."""
    return Pulses(notary=0.05)


@pytest.fixture
async def stream(node: Node) -> str:
    """The stream of the node's serving process, with 20 reads in it that checkpoints have."""
    await node.call("POST", "secrets/a", json={"data": {"k": "v"}})
    for _ in range(4):
        await asyncio.gather(*(node.call("GET", "secrets/a") for _ in range(5)))
        await until(lambda: settled(node.settings.database_url))
    return str((await sql(node.settings.database_url, _OWN))[0]["stream"])


async def test_checkpoints_keep_up(node: Node, stream: str) -> None:
    """Checkpoints follow the entries, one after the other, and the whole verifies with them."""
    found = await verified(node)
    assert found["ok"] is True
    assert found["first_bad"] is None
    rows = await sql(node.settings.database_url, "SELECT sequence FROM audit_checkpoints ORDER BY sequence")
    assert [row["sequence"] for row in rows] == list(range(1, len(rows) + 1))
    assert 4 <= found["checkpoints"] <= len(rows)
    assert found["unproven"] < 10


async def test_few_at_once(node: Node, stream: str) -> None:
    """Whoever verifies again and again is refused at some time, and takes no connections from others."""
    stopped = await asyncpg.connect(node.settings.database_url)

    async def ask(accept: str) -> int:
        answer = await node.call("POST", "sys/audit/verify", headers={"Accept": accept})
        return answer.status_code

    async def under_way() -> bool:
        return len(node.process.core.engine_state.get("verifications", ())) == 2  # type: ignore[arg-type]

    try:
        async with stopped.transaction():
            await stopped.execute("LOCK TABLE audit_checkpoints IN ACCESS EXCLUSIVE MODE")
            first = [asyncio.create_task(ask("application/json")) for _ in range(2)]
            await until(under_way)
            assert [await ask(accept) for accept in ("application/json", "application/x-ndjson")] == [
                429,
                429,
            ]
            assert (await node.call("GET", "secrets/a")).status_code == 200
        assert await asyncio.gather(*first) == [200, 200]
    finally:
        await stopped.close()
    assert await ask("application/x-ndjson") == 200


_Attack = Callable[[str, str], Awaitable[object]]


def _by(*statements: str) -> _Attack:
    async def attack(url: str, stream: str) -> None:
        for statement in statements:
            await sql(url, statement, *([stream] if "$1" in statement else []))

    return attack


_TAMPERED: dict[str, tuple[_Attack, int, str]] = {
    "edited field": (
        _by("UPDATE audit_entries SET actor = 'nobody' WHERE stream = $1 AND number = 7"),
        7,
        "edited",
    ),
    "edited instant": (
        _by("UPDATE audit_entries SET at = at + 1 WHERE stream = $1 AND number = 7"),
        7,
        "edited",
    ),
    "edited signature": (
        _by("UPDATE audit_entries SET signature = sha256('x') WHERE stream = $1 AND number = 7"),
        7,
        "bad signature",
    ),
    "deleted row": (_by("DELETE FROM audit_entries WHERE stream = $1 AND number = 9"), 9, "gap"),
    "deleted tail": (
        _by(
            "DELETE FROM audit_entries WHERE stream = $1 AND number > 12",
            """UPDATE audit_streams s SET number = 12, hash = e.hash, signature = e.signature
               FROM audit_entries e WHERE s.stream = $1 AND e.stream = s.stream AND e.number = 12""",
        ),
        13,
        "truncated",
    ),
    "deleted stream": (
        _by(
            "DELETE FROM audit_entries WHERE stream = $1",
            "DELETE FROM audit_streams WHERE stream = $1",
        ),
        1,
        "truncated",
    ),
    "reordered rows": (
        _by(
            "UPDATE audit_entries SET number = -6 WHERE stream = $1 AND number = 6",
            "UPDATE audit_entries SET number = 6 WHERE stream = $1 AND number = 8",
            "UPDATE audit_entries SET number = 8 WHERE stream = $1 AND number = -6",
        ),
        6,
        "edited",
    ),
    "inserted row": (
        _by(
            "UPDATE audit_entries SET number = number + 1000 WHERE stream = $1 AND number >= 10",
            """INSERT INTO audit_entries SELECT stream, 10, at, kind, request_id, actor, operation, path,
               outcome, reason, client, door, detail, hash, signature
               FROM audit_entries WHERE stream = $1 AND number = 9""",
            "UPDATE audit_entries SET number = number - 999 WHERE stream = $1 AND number >= 1000",
        ),
        10,
        "edited",
    ),
}


@pytest.mark.parametrize("name", _TAMPERED)
async def test_a_tampered_stream(node: Node, stream: str, name: str) -> None:
    """An edited, deleted, cut, moved or inserted record is named, and counted in the metrics."""
    attack, number, reason = _TAMPERED[name]
    await attack(node.settings.database_url, stream)
    found = await verified(node)
    assert found["ok"] is False
    assert found["first_bad"] == {"stream": stream, "number": number, "reason": reason}
    assert (await integrity_failures(node))["audit_entries"] >= 1


async def test_an_entry_beside_the_last_one_of_a_page(node: Node) -> None:
    """A second entry of the same place is named also where it lies between two pages of a verification."""
    url = node.settings.database_url
    await fill_ledger(node, 4 * _PAGE)
    last = (
        await sql(
            url,
            "SELECT stream, number FROM audit_entries ORDER BY stream, number OFFSET $1 LIMIT 1",
            _PAGE - 1,
        )
    )[0]
    await sql(
        url,
        """INSERT INTO audit_entries
           SELECT stream, number, at - 400 * 86400 * 1000000::bigint, kind, request_id, 'token:x:framed',
                  operation, path, outcome, reason, client, door, detail, hash, signature
           FROM audit_entries WHERE stream = $1 AND number = $2""",
        *last,
    )
    # Read by its indexes, as a large ledger is, the genuine entry comes first.
    await sql(url, "ANALYZE audit_entries")
    assert (await verified(node))["first_bad"] == {
        "stream": last["stream"],
        "number": last["number"],
        "reason": "duplicate",
    }


_REPLACED: dict[str, tuple[_Attack, int, str]] = {
    "edited": (_by("UPDATE audit_checkpoints SET at = at + 1 WHERE sequence = 3"), 3, "bad signature"),
    "unreadable": (_by("UPDATE audit_checkpoints SET heads = 'x' WHERE sequence = 3"), 3, "edited"),
    "deleted": (_by("DELETE FROM audit_checkpoints WHERE sequence = 2"), 2, "gap"),
    "swapped": (
        _by(
            "UPDATE audit_checkpoints SET sequence = -2 WHERE sequence = 2",
            "UPDATE audit_checkpoints SET sequence = 2 WHERE sequence = 3",
            "UPDATE audit_checkpoints SET sequence = 3 WHERE sequence = -2",
        ),
        2,
        "bad signature",
    ),
}


@pytest.mark.parametrize("name", _REPLACED)
async def test_a_replaced_checkpoint(node: Node, stream: str, name: str) -> None:
    """A checkpoint that is not the one that was signed is named."""
    attack, number, reason = _REPLACED[name]
    await attack(node.settings.database_url, stream)
    found = await verified(node)
    assert found["first_bad"] == {"stream": "checkpoints", "number": number, "reason": reason}


async def test_another_notary(node: Node, stream: str) -> None:
    """Who replaces the public key in the database proves nothing: the key is not the cluster's."""
    await sql(node.settings.database_url, "UPDATE cluster SET notary_public = sha256('mine')")
    for method, path in (("POST", "sys/audit/verify"), ("GET", "sys/audit/public-key")):
        answer = await node.call(method, path, **({"json": {}} if method == "POST" else {}))
        assert (answer.status_code, answer.json()["code"]) == (500, "integrity_failure")


async def test_the_public_key(node: Node, stream: str) -> None:
    """Whoever may read it gets the public key in PEM; nobody else does."""
    answer = await node.call("GET", "sys/audit/public-key")
    assert answer.json()["data"]["public_key"].startswith("-----BEGIN PUBLIC KEY-----")
    token = await node.token("none", {"path": {"secret/data/a": {"capabilities": ["read"]}}})
    assert (await node.call("GET", "sys/audit/public-key", token)).status_code == 403


async def test_a_database_that_lost_entries(node: Node, stream: str) -> None:
    """A process whose newest entries are gone closes its stream, and the next one says what was lost."""
    url = node.settings.database_url
    last = (await sql(url, "SELECT number FROM audit_streams WHERE stream = $1", stream))[0]["number"]
    await sql(url, "DELETE FROM audit_entries WHERE stream = $1 AND number > $2", stream, last - 3)
    await sql(
        url,
        """UPDATE audit_streams s SET number = e.number, hash = e.hash, signature = e.signature
           FROM audit_entries e WHERE s.stream = $1 AND e.stream = $1 AND e.number = $2""",
        stream,
        last - 3,
    )
    answers = [(await node.call("GET", "secrets/a")).status_code for _ in range(2)]
    assert answers == [503, 200]
    lost = await sql(url, "SELECT detail FROM audit_entries WHERE kind = 'lost'")
    told = json.loads(lost[0]["detail"])
    assert (told["stream"], told["first"], told["last"]) == (stream, last - 2, last + 1)
    # A checkpoint had them, so it was no failover that lost them.
    assert (await verified(node))["first_bad"] == {
        "stream": stream,
        "number": last - 2,
        "reason": "truncated",
    }
