"""What older data keys sealed is sealed anew: all of it, in place, whatever happens in between."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import asyncpg
import pytest

from secrethub.engines.archive.config import KEY, Archive, body_of, configured
from secrethub.engines.engine import Fence
from secrethub.errors import Unavailable
from secrethub.operations.reencrypt import reencrypt
from secrethub.sensitive import Sensitive
from secrethub.storage.authority import AUDIT_SETTINGS
from serve.timing import Timing
from tests.gateway.behind import entries, integrity_failures, ledger_is_good, sql, until
from tests.gateway.conftest import Node
from tests.gateway.key_steps import got, put, rotated, seals_with
from tests.gateway.pair import second
from tests.gateway.second_process import Second

__all__ = ["second"]  # the fixture

MANY = 150


async def status(node: Node) -> dict[str, Any]:
    found: dict[str, Any] = (await node.call("GET", "sys/rotate/status")).json()["data"]
    return found


async def filled(node: Node, count: int = MANY) -> str:
    """Keep something sealed in every column; return a wrapping token."""
    await asyncio.gather(*(put(node, f"many/{number}", n=number) for number in range(count)))
    await put(node, "many/0", n=0)
    assert (await node.call("POST", "cubbyhole/mine", json={"x": "y"})).status_code == 204
    for _ in range(5):
        made = await node.call("POST", "auth/token/create", json={"policies": ["default"]})
        assert made.status_code == 200
    sink = {
        "type": "http",
        "options": {"url": "https://192.0.2.1/", "authorization": "Bearer canary"},
    }
    enabled = await node.call("PUT", "sys/audit/collector", json=sink)
    assert enabled.status_code == 204, enabled.text
    core = node.process.core
    await core.ledger.look()
    fence = Fence(generation=core.caches.generation, seal_epoch=core.caches.seal_epoch, written=[])
    archive = Archive(
        uuid="u1", type="s3", retention=10**9, segment_entries=1, secret_access_key=Sensitive("canary")
    )
    async with core.authority.change(fence) as change:
        await change.put(AUDIT_SETTINGS, KEY, body_of(core.keyring(), archive))
    answer = await node.call("GET", "secrets/many/1", headers={"X-Vault-Wrap-TTL": "5m"})
    return str(answer.json()["wrap_info"]["token"])


async def everything_reads(node: Node, wrapping: str, count: int = MANY) -> None:
    """Check that all that :func:`filled` has kept is there."""
    found = await asyncio.gather(*(got(node, f"many/{number}") for number in range(count)))
    assert found == [{"n": number} for number in range(count)]
    assert await got(node, "many/0", 1) == {"n": 0}
    assert (await node.call("GET", "cubbyhole/mine")).json()["data"] == {"x": "y"}
    opened = await node.call("POST", "sys/wrapping/unwrap", wrapping)
    assert opened.json()["data"]["data"] == {"n": 1}
    accessors = (await node.call("GET", "auth/token/accessors?list=true")).json()["data"]["keys"]
    assert len(accessors) >= 6
    archive = await configured(node.process.core)
    assert archive is not None
    assert archive.secret_access_key is not None
    assert archive.secret_access_key.reveal() == "canary"
    assert "collector/" in (await node.call("GET", "sys/audit")).json()["data"]
    await ledger_is_good(node)


async def sealed_with(url: str, number: int) -> list[str]:
    """Columns of any table, known or not, that hold something sealed with that data key."""
    prefix = b"\x01" + number.to_bytes(4, "big")
    # Seven characters are five bytes and the first bits of the sixth.
    text = "|".join(base64.b64encode(prefix + bytes([top << 6])).decode()[:7] for top in range(4))
    columns = await sql(
        url,
        """SELECT table_name, column_name, data_type FROM information_schema.columns
           WHERE table_schema = 'public' AND data_type IN ('bytea', 'text', 'jsonb')""",
    )
    found = []
    for column in columns:
        table, name = column["table_name"], column["column_name"]
        holds = (
            f"substring({name} FROM 1 FOR 5) = '\\x{prefix.hex()}'"
            if column["data_type"] == "bytea"
            else f"{name}::text ~ '(^|\")({text})'"
        )
        if await sql(url, f"SELECT 1 FROM {table} WHERE {holds} LIMIT 1"):
            found.append(f"{table}.{name}")
    return sorted(found)


async def test_all_is_sealed_anew_in_place(node: Node) -> None:
    """After a rotation everything is sealed with the new key, no head, version or right has changed."""
    url, core = node.settings.database_url, node.process.core
    wrapping = await filled(node)
    heads = await sql(url, "SELECT * FROM kv_secrets ORDER BY store, path")
    before = await sealed_with(url, 1)
    assert before == [
        "audit_settings.body",
        "certificate_authorities.body",
        "cubbyholes.body",
        "kv_versions.sealed",
        "tokens.body",
    ]
    generation = core.caches.generation
    await rotated(node)
    assert (await status(node))["left"] >= MANY + 9
    await reencrypt(core)
    found = await status(node)
    assert (found["term"], found["sealing"], found["left"]) == (2, 2, 0)
    assert {row["left"] for row in found["columns"]} == {0}
    assert await sealed_with(url, 1) == []
    assert await sealed_with(url, 2) == before
    assert await sql(url, "SELECT * FROM kv_secrets ORDER BY store, path") == heads
    assert core.caches.generation == generation
    assert await reencrypt(core) == 0
    await everything_reads(node, wrapping)
    told = await entries(url, operation="sys.reencrypt")
    assert told[0]["outcome"] == "begun"
    assert told[-1]["outcome"] == "done"
    written = {row["table"] for entry in told for row in entry["detail"].get("written", ())}
    assert written == {"tokens", "cubbyholes", "certificate_authorities", "audit_settings"}


@pytest.mark.parametrize("timing", [Timing(keys=0.2)])
async def test_it_happens_by_itself(node: Node) -> None:
    """Nobody has to ask for it: soon after a rotation nothing is left."""
    await put(node, "a", k="v")
    await rotated(node)

    async def nothing_left() -> bool:
        return bool((await status(node))["left"] == 0)

    await until(nothing_left)
    assert await got(node, "a") == {"k": "v"}


async def test_what_was_tampered_with_is_left_alone_and_told_once(node: Node) -> None:
    """A damaged value, and rows of a damaged bucket, stay as they are; all else is sealed anew."""
    url, core = node.settings.database_url, node.process.core
    await filled(node, 20)
    where = "(SELECT id FROM kv_secrets WHERE path = 'many/7')"
    await sql(
        url,
        f"UPDATE kv_versions SET sealed = set_byte(sealed, 30, 1 # get_byte(sealed, 30)) WHERE id = {where}",
    )
    await sql(
        url,
        """UPDATE cubbyholes SET body = jsonb_set(body, '{entries}', '"garbage"') WHERE body ? 'entries'""",
    )
    await rotated(node)
    await reencrypt(core)
    left = {
        (row["table"], row["column"]): row["left"] for row in (await status(node))["columns"] if row["left"]
    }
    assert left == {("kv_versions", "sealed"): 1, ("cubbyholes", "entries"): 1}
    assert await reencrypt(core) == 0
    refused = await entries(url, operation="sys.reencrypt", outcome="refused")
    assert len(refused) == 2
    counted = await integrity_failures(node)
    assert (counted["kv_versions"], counted["cubbyholes"]) == (1, 1)
    assert await got(node, "many/8") == {"n": 8}
    # By its number: the newest version is still in the memory of the process that wrote it.
    assert (await node.call("GET", "secrets/many/7", params={"version": "1"})).status_code == 500
    await ledger_is_good(node)


async def test_what_others_are_busy_with_is_not_waited_for(node: Node) -> None:
    """Locked values and buckets are skipped, and sealed anew the next time."""
    url, core = node.settings.database_url, node.process.core
    wrapping = await filled(node, 20)
    await rotated(node)
    busy = await asyncpg.connect(url)
    try:
        async with busy.transaction():
            await busy.execute(
                """SELECT 1 FROM kv_versions v JOIN kv_secrets s ON s.id = v.id
                   WHERE s.path = 'many/3' FOR UPDATE OF v"""
            )
            await busy.execute("SELECT 1 FROM authority_buckets WHERE table_name = 'tokens' FOR UPDATE")
            await asyncio.wait_for(reencrypt(core), 4)
            left = {row["table"]: row["left"] for row in (await status(node))["columns"] if row["left"]}
            assert left["kv_versions"] == 1
            assert left["tokens"] >= 6
            assert set(left) == {"kv_versions", "tokens"}
    finally:
        await busy.close()
    await reencrypt(core)
    assert (await status(node))["left"] == 0
    await everything_reads(node, wrapping, 20)


async def test_the_database_goes_away_in_between(node: Node) -> None:
    """Whenever connections are cut what was sealed anew stays, the rest follows, and nothing is lost."""
    url, core = node.settings.database_url, node.process.core
    wrapping = await filled(node)
    await rotated(node)
    name = url.split("?")[0].rsplit("/", 1)[1]

    async def cut() -> None:
        for _ in range(5):
            await asyncio.sleep(0.05)
            await sql(
                url,
                """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                   WHERE datname = $1 AND pid <> pg_backend_pid()""",
                name,
            )

    async def done() -> bool:
        try:
            await reencrypt(core)
            return bool((await status(node))["left"] == 0)
        except (Unavailable, KeyError):
            return False

    cutting = asyncio.create_task(cut())
    await until(done)
    await cutting
    await until(lambda: seals_with(node, 2))
    await everything_reads(node, wrapping)


@pytest.mark.parametrize("others", [0, 2])
async def test_a_process_is_killed_in_between(node: Node, second: Second, others: int) -> None:
    """A process that dies while it seals anew, alone or beside others, leaves nothing half done."""
    url, core = node.settings.database_url, node.process.core
    wrapping = await filled(node, 400)
    await rotated(node, alone=False)

    async def under_way() -> bool:
        rows = await sql(url, "SELECT count(*) AS left FROM kv_versions WHERE sealed_under(sealed) < 2")
        return bool(rows[0]["left"] < 380)

    helping = [asyncio.create_task(reencrypt(core)) for _ in range(others)]
    await until(under_way, patient=False)
    second.kill()
    await asyncio.gather(*helping)

    async def done() -> bool:
        """It leaves alone what is held, as by the connection of the dead; the next time takes that."""
        await reencrypt(core)
        return bool((await status(node))["left"] == 0)

    await until(done)
    await everything_reads(node, wrapping, 400)


async def test_writers_and_readers_go_on_meanwhile(node: Node, second: Second) -> None:
    """No request fails on two processes while both seal anew, and the newest versions win."""
    core = node.process.core
    wrapping = await filled(node, 60)
    ended = asyncio.Event()
    failed: list[str] = []

    async def ask(process: Any, token: tuple[str, ...], number: int) -> None:
        count = 0
        path = f"secrets/busy-{number}"
        while not ended.is_set():
            count += 1
            written = await process.call("POST", path, *token, json={"data": {"n": count}})
            read = await process.call("GET", path, *token)
            made = await process.call("POST", "auth/token/create", *token, json={"ttl": "1m"})
            client = made.json().get("auth", {}).get("client_token", "")
            kept = await process.call("POST", "cubbyhole/a", client, json={"n": count})
            ends = await process.call("POST", "auth/token/revoke-self", client)
            codes = [answer.status_code for answer in (written, read, made, kept, ends)]
            if codes != [200, 200, 200, 204, 204] or read.json()["data"]["data"] != {"n": count}:
                failed.append(f"{codes} {read.text}")

    clients = [
        asyncio.create_task(ask(process, token, 10 * place + number))
        for place, (process, token) in enumerate(((node, ()), (second, (node.root,))))
        for number in range(2)
    ]
    for number in (2, 3):
        assert await rotated(node, alone=False) == number
        await reencrypt(core)
    ended.set()
    await asyncio.gather(*clients)
    assert not failed, failed[:3]
    await reencrypt(core)
    await everything_reads(node, wrapping, 60)
