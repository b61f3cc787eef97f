"""A database that was put back: nodes that saw more seal it, until enough shares accept that."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import shutil
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from actors.wiring import Pulses
from tests.gateway.behind import entries, ledger_is_good, sql, until
from tests.gateway.conftest import Node, node_settings, running
from tests.gateway.shell import Cli
from tests.gateway.test_ledger_tamper import settled


class Backup:
    """A copy of a node's database, which takes the database's place when it is restored."""

    def __init__(self, url: str) -> None:
        self._server = urlsplit(url)._replace(path="/postgres").geturl()
        self._name = urlsplit(url).path[1:]

    async def _run(self, *statements: str) -> None:
        connection = await asyncpg.connect(self._server)
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()

    async def _alone(self, *statements: str) -> None:
        """Run statements while nobody is connected to the database."""
        await self._run(f'ALTER DATABASE "{self._name}" ALLOW_CONNECTIONS false')
        try:
            await self._run(
                f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{self._name}'"
            )
            await asyncio.sleep(0.1)
            await self._run(*statements)
        finally:
            await self._run(f'ALTER DATABASE "{self._name}" ALLOW_CONNECTIONS true')

    async def make(self) -> None:
        """Copy the database as it is."""
        await self._alone(f'CREATE DATABASE "{self._name}_backup" TEMPLATE "{self._name}"')

    async def restore(self) -> None:
        """Put the copy in the database's place."""
        await self._alone(
            f'ALTER DATABASE "{self._name}" RENAME TO "{self._name}_lost"',
            f'CREATE DATABASE "{self._name}" TEMPLATE "{self._name}_backup" ALLOW_CONNECTIONS false',
        )

    async def remove(self) -> None:
        """Remove what is beside the database."""
        for what in ("backup", "lost"):
            await self._run(f'DROP DATABASE IF EXISTS "{self._name}_{what}" WITH (FORCE)')


@pytest.fixture
def pulses() -> Pulses:
    """Checkpoints, and looks whether the database was put back, soon after it."""
    return Pulses(key_holder=0.2, seal_state=0.2, notary=0.1)


@pytest.fixture
async def backup(database_url: str) -> AsyncIterator[Backup]:
    """What copies the test's database."""
    made = Backup(database_url)
    yield made
    await made.remove()


async def status(node: Node) -> dict[str, Any]:
    """What the seal's status is."""
    return dict((await node.call("GET", "sys/seal-status")).json())


async def rolled_back(node: Node) -> bool:
    """Tell whether the node says that its database was put back, and is sealed."""
    with contextlib.suppress(Exception):
        found = await status(node)
        return bool(found["rolled_back"] and found["sealed"])
    return False


async def refused(node: Node) -> bool:
    """Tell whether a read is refused, and why: it must be refused."""
    answer = await node.call("GET", "secrets/a")
    assert answer.status_code == 503
    return bool(answer.json()["code"] == "rolled_back" and "put back" in answer.json()["errors"][0])


async def healthy(node: Node) -> bool:
    """Tell whether the node serves."""
    return (await node.call("GET", "sys/health")).status_code == 200


async def seen(node: Node) -> bool:
    """Tell whether the node's witness has the newest checkpoint, and that has every entry."""
    if not await settled(node.settings.database_url):
        return False
    rows = await sql(node.settings.database_url, "SELECT max(sequence) AS n FROM audit_checkpoints")
    for path in Path(node.settings.state_dir).glob("witness-*.json"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        return bool(json.loads(path.read_bytes())["signed"]["checkpoint"]["sequence"] == rows[0]["n"])
    return False


async def accept(node: Node, shares: list[str]) -> None:
    """Accept the restore."""
    for share in shares:
        answer = await node.call("PUT", "sys/accept-restore", "", json={"key": share})
        assert answer.status_code == 200, answer.text
    assert answer.json()["sealed"] is False


async def written(node: Node, value: str) -> None:
    """Write a secret, and wait until a checkpoint that the node's witness has vouches for it."""
    assert (await node.call("POST", "secrets/a", json={"data": {"k": value}})).status_code == 200
    await until(lambda: seen(node))


async def root_of(node: Node) -> str:
    """Make a root token with shares."""
    otp = "0123456789abcdefghijklmnopqr"
    begun = (await node.call("PUT", "sys/generate-root/attempt", "", json={})).json()
    nonce, otp = begun["nonce"], begun.get("otp") or otp
    for share in node.shares[:3]:
        answer = await node.call("PUT", "sys/generate-root/update", "", json={"key": share, "nonce": nonce})
        assert answer.status_code == 200, answer.text
    encoded = answer.json()["encoded_token"]
    raw = base64.b64decode(encoded + "=" * (-len(encoded) % 4))
    return bytes(a ^ b for a, b in zip(raw, otp.encode(), strict=True)).decode()


async def batch_token(node: Node, path: str) -> str:
    """Make a batch token below ``auth/token/``."""
    body = {"type": "batch", "ttl": "1h", "policies": ["default"]}
    return str((await node.call("POST", f"auth/token/{path}", json=body)).json()["auth"]["client_token"])


async def test_a_restored_backup(node: Node, backup: Backup, tmp_path: Path) -> None:
    """Under a running node, an older database is sealed, stays so, and goes on once accepted."""
    url = node.settings.database_url
    await written(node, "old")
    login = {"role_id": "", "secret_id": ""}
    await node.call("POST", "auth/approle/role/r", json={"token_policies": ["default"]})
    login["role_id"] = (await node.call("GET", "auth/approle/role/r/role-id")).json()["data"]["role_id"]
    made = await node.call("POST", "auth/approle/role/r/secret-id", json={})
    login["secret_id"] = made.json()["data"]["secret_id"]
    child, orphan = [await batch_token(node, path) for path in ("create", "create-orphan")]
    await until(lambda: seen(node))
    await backup.make()
    await until(lambda: healthy(node))
    await written(node, "new")
    await backup.restore()
    await until(lambda: rolled_back(node))
    await until(lambda: refused(node))
    assert (await node.call("GET", "sys/health")).json()["rolled_back"] is True
    unsealing = await node.call("PUT", "sys/unseal", "", json={"key": node.shares[0]})
    assert (unsealing.status_code, unsealing.json()["code"]) == (503, "rolled_back")
    # Who edits the row gets no further, also with shares: the node has seen more.
    await sql(url, "UPDATE cluster SET rolled_back = ''")
    for share in node.shares[:3]:
        await node.call("PUT", "sys/unseal", "", json={"key": share})
    assert not node.process.core.unsealed
    await until(lambda: rolled_back(node))

    cli = Cli(node, tmp_path)
    accept_restore = ("operator", "accept-restore")
    assert "Rolled back" in await cli(*accept_restore, stdin=node.shares[0])
    assert (await cli.json(*accept_restore, stdin=node.shares[1]))["progress"] == 2
    assert (await cli.json(*accept_restore, "--reset"))["progress"] == 0
    assert "none of those" in await cli(*accept_restore, stdin=f"{'00' * 32}07\n", code=1)
    (tmp_path / "shares").write_text("\n".join(node.shares[:3]))
    assert (await cli.json(*accept_restore, "--file", str(tmp_path / "shares")))["sealed"] is False
    # The process's own stream has lost entries, as a new one says then: so the first answer says, unless
    # something of the process itself was to be written down before.
    statuses = [(await node.call("GET", "secrets/a")).status_code for _ in range(2)]
    assert statuses in ([503, 403], [403, 403])
    assert await sql(url, "SELECT 1 FROM audit_entries WHERE kind = 'lost'")
    answer = await node.call("POST", "auth/approle/login", "", json=login)
    assert answer.status_code == 400
    # Of batch tokens nothing is stored but what they were made from.
    assert (await node.call("GET", "auth/token/lookup-self", child)).status_code == 403
    assert (await node.call("GET", "auth/token/lookup-self", orphan)).status_code == 200
    node.root = await root_of(node)
    assert (await node.call("GET", "secrets/a")).json()["data"]["data"] == {"k": "old"}
    await written(node, "newer")
    assert (await sql(url, "SELECT max(timeline) AS t FROM audit_checkpoints"))[0]["t"] > 1
    assert not await rolled_back(node)
    await ledger_is_good(node, state=True)
    done = await entries(url, operation="sys.accept-restore", outcome="done")
    assert done[-1]["detail"]["timeline"] > 1


async def test_a_backup_restored_while_nobody_was_there(
    database_url: str, tmp_path: Path, backup: Backup, pulses: Pulses
) -> None:
    """Without its witness a node cannot know; with it, verification tells, and at a start it is sealed."""
    settings = node_settings(tmp_path, database_url)
    async with running(settings, pulses=pulses) as node:
        await node.initialise()
        await node.unseal()
        await written(node, "old")
        await backup.make()
        await until(lambda: healthy(node))
        await written(node, "new")
        shares, root = node.shares, node.root
    await backup.restore()
    path = next(Path(settings.state_dir).glob("witness-*"))
    witness = path.rename(tmp_path / "witness")
    async with running(settings, pulses=pulses) as node:
        node.shares, node.root = shares, root
        await node.unseal()
        await until(lambda: healthy(node))
        await written(node, "other")

        async def told() -> bool:
            # The key-holder has in memory what it saw since.
            shutil.copy(witness, path)
            found = (await node.call("POST", "sys/audit/verify")).json()["data"]
            return not found["ok"] and found["first_bad"]["stream"] == "checkpoints"

        await until(told)
    shutil.copy(witness, path)
    async with running(settings, pulses=pulses) as node:
        await until(lambda: rolled_back(node))
        answer = await node.call("PUT", "sys/unseal", "", json={"key": shares[0]})
        assert answer.json()["code"] == "rolled_back"


async def test_a_fork(node: Node) -> None:
    """A newest checkpoint that is not what the node has seen under its number seals the cluster."""
    await written(node, "a")
    await sql(
        node.settings.database_url,
        """UPDATE audit_checkpoints SET at = at + 1
           WHERE sequence = (SELECT max(sequence) FROM audit_checkpoints)""",
    )
    await until(lambda: rolled_back(node))


async def test_removed_checkpoints(node: Node) -> None:
    """Who removes the newest checkpoints and what they vouch for is found out by the node."""
    await written(node, "a")
    await sql(
        node.settings.database_url,
        "DELETE FROM audit_checkpoints WHERE sequence = (SELECT max(sequence) FROM audit_checkpoints)",
    )
    await until(lambda: rolled_back(node))


async def test_there_is_nothing_to_accept(node: Node) -> None:
    """A database that was not put back is not accepted as one, with whatever shares; that is written down."""
    before = (await sql(node.settings.database_url, "SELECT timeline, seal_epoch FROM cluster"))[0]
    for share in node.shares[:3]:
        answer = await node.call("PUT", "sys/accept-restore", "", json={"key": share})
        assert answer.status_code == 400
    assert (await node.call("GET", "secrets/none")).status_code == 404
    assert (await sql(node.settings.database_url, "SELECT timeline, seal_epoch FROM cluster"))[0] == before
    found = await entries(node.settings.database_url, operation="sys.accept-restore", outcome="refused")
    assert len(found) == 3
    for body in ({}, {"key": "x"}, {"key": node.shares[0], "reset": True}, {"other": 1}):
        answer = await node.call("PUT", "sys/accept-restore", "", json=body)
        assert answer.status_code == 400, body


async def test_a_timeline_that_nobody_began(node: Node) -> None:
    """Who writes another timeline into the database gets no checkpoint in it."""
    url = node.settings.database_url
    await written(node, "a")
    await sql(url, "UPDATE cluster SET timeline = 9")
    assert (await node.call("PUT", "sys/seal")).status_code == 204
    for share in node.shares[:3]:
        await node.call("PUT", "sys/unseal", "", json={"key": share})
    await asyncio.sleep(3)
    assert (await sql(url, "SELECT count(*) AS n FROM audit_checkpoints WHERE timeline > 1"))[0]["n"] == 0
