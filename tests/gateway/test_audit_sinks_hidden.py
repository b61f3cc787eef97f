"""Somebody edits what is kept of the ends of streams, where sinks and the notary look for new entries."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from secrethub.storage import sinks, stream_ends
from serve.timing import Timing
from tests.gateway.audit_sinks import caught_up, delivered, enable, state
from tests.gateway.behind import entries, integrity_failures, ledger_is_good, sql, until
from tests.gateway.conftest import Node
from tests.gateway.kv import ok
from tests.gateway.test_audit_clocks import another, write
from tests.gateway.test_ledger_tamper import settled

_HIDING = {
    "removed": "DELETE FROM audit_streams WHERE stream = $1",
    "lowered": """UPDATE audit_streams s SET number = p.number, hash = p.hash FROM audit_sink_positions p
                  WHERE s.stream = $1 AND p.stream = $1""",
    "another": "UPDATE audit_streams SET hash = sha256(hash) WHERE stream = $1",
}
_IN_VAIN = (
    "UPDATE audit_streams SET number = number + 5 WHERE stream = $1",
    """DELETE FROM audit_entries
       WHERE stream = $1 AND number > (SELECT number - 5 FROM audit_streams WHERE stream = $1)""",
)
_WRONG = """SELECT FROM audit_streams s
            FULL JOIN (SELECT DISTINCT ON (stream) * FROM audit_entries
                       ORDER BY stream, number DESC) e USING (stream)
            WHERE (s.number, s.hash, s.signature) IS DISTINCT FROM (e.number, e.hash, e.signature)"""

SOON = Timing(streams=0.3)


@pytest.mark.parametrize("timing", [SOON])
@pytest.mark.parametrize("how", _HIDING)
async def test_hidden_entries(node: Node, folder: Path, how: str) -> None:
    """Entries that somebody hides at the end of a stream reach the sink and a checkpoint, loudly."""
    url, place = node.settings.database_url, folder / "ledger.jsonl"
    await enable(node, "local", "file", file_path=str(place))
    await ok(node, "POST", "secret/data/a", {"data": {}})
    await caught_up(node, place)
    folder.rename(folder.parent / "away")
    for number in range(5):
        await node.call("GET", f"secret/data/x{number}")
    (row,) = await sql(url, "SELECT DISTINCT stream FROM audit_entries WHERE path = 'secret/data/x4'")
    await ok(node, "PUT", "sys/seal")
    await sql(url, _HIDING[how], row["stream"])
    await node.unseal()
    (folder.parent / "away").rename(folder)

    async def there() -> bool:
        found = {entry["path"] for entry in delivered(place)}
        return {f"secret/data/x{number}" for number in range(5)} <= found

    await until(there)

    async def noted() -> bool:
        return bool(await entries(url, operation="audit.stream.mend"))

    await until(noted)
    told = (await entries(url, operation="audit.stream.mend"))[0]
    assert told["detail"] == {"count": 1, "streams": [row["stream"]]}
    assert (await integrity_failures(node))["audit_streams"] >= 1
    await until(lambda: settled(url))
    assert not await sql(url, _WRONG)
    assert (await ledger_is_good(node, state=True))["unproven"] < 10
    assert "audit.stream.mend" in {entry["operation"] for entry in await caught_up(node, place)}


@pytest.mark.parametrize("statement", _IN_VAIN)
async def test_entries_that_are_not_there(node: Node, folder: Path, statement: str) -> None:
    """A sink that waits for entries which the ledger does not have says so, and is given all others."""
    url, place = node.settings.database_url, folder / "ledger.jsonl"
    await enable(node, "local", "file", file_path=str(place))
    await caught_up(node, place)
    folder.rename(folder.parent / "away")
    async with another(node, time.time) as other:
        await write(other, "secret/data/x", 9)
    (row,) = await sql(url, "SELECT DISTINCT stream FROM audit_entries WHERE path = 'secret/data/x'")
    await sql(url, statement, row["stream"])
    (folder.parent / "away").rename(folder)
    await node.call("GET", "secret/data/later")

    async def told(error: str) -> bool:
        return bool((await state(node, "local"))["error"] == error)

    async def counted() -> bool:
        return (await integrity_failures(node)).get("audit_streams") == 5

    await until(lambda: told(sinks.MISSING % 5))
    await until(counted)
    assert (await state(node, "local"))["behind"] >= 5
    assert {"secret/data/x", "secret/data/later"} <= {entry["path"] for entry in delivered(place)}
    last = "(SELECT max(number) FROM audit_entries WHERE stream = $1)"
    await sql(url, f"UPDATE audit_streams SET number = {last} WHERE stream = $1", row["stream"])
    await until(lambda: told(""))


@pytest.mark.parametrize("timing", [SOON])
async def test_nothing_is_put_right_that_is_right(node: Node) -> None:
    """While streams are written, end and begin, none is taken for an edited one."""
    url = node.settings.database_url
    for _ in range(3):
        for number in range(40):
            await asyncio.gather(*(node.call("GET", f"secret/data/x{number}") for _ in range(4)))
        await ok(node, "PUT", "sys/seal")
        await node.unseal()
    assert not await entries(url, operation="audit.stream.mend")


async def test_many_streams(node: Node) -> None:
    """Every stream is looked at, however many pages of them there are."""
    url = node.settings.database_url
    for _ in range(3):
        await ok(node, "PUT", "sys/seal")
        await node.unseal()
        await node.call("GET", "secret/data/x")
    wanted = [row["stream"] for row in await sql(url, "SELECT stream FROM audit_streams ORDER BY stream")]
    assert len(wanted) > 4

    async def found() -> list[str]:
        async with node.process.core.database.read() as connection:
            return [end.stream async for page in stream_ends.hidden(connection, 2) for end in page]

    assert await found() == []
    await sql(url, "DELETE FROM audit_streams")
    assert await found() == wanted
