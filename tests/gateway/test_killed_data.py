"""The whole server killed while values are sealed anew, and while a restored database is accepted."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.gateway.behind import entries, sql, until
from tests.gateway.conftest import node_settings
from tests.gateway.key_steps import got, put, term
from tests.gateway.killing import STEP, call, last_words, restarted, sweep
from tests.gateway.test_rolled_back import accept, rolled_back, root_of, status
from tests.gateway.whole_server import Server, mortal

MANY = 80
"""Values: more than are sealed anew at once."""


@pytest.fixture
async def server(database_url: str, tmp_path: Path) -> AsyncIterator[Server]:
    """A server that three shares open, with secrets."""
    async with mortal(node_settings(tmp_path, database_url)) as started:
        await started.initialise(3, 3)
        await started.unseal()
        await asyncio.gather(*(put(started, f"many/{number}", n=number) for number in range(MANY)))
        yield started


async def all_sealed_anew(server: Server, term: int) -> bool:
    """Tell whether that came to its end; not asked of the server, which counts what it commits."""
    found = await entries(server.settings.database_url, operation="sys.reencrypt", outcome="done")
    return any(entry["detail"]["term"] == term for entry in found)


async def nothing_left(server: Server) -> bool:
    """Tell whether older data keys seal nothing any more."""
    return bool((await call(server, "GET", "sys/rotate/status"))["data"]["left"] == 0)


async def test_sealing_values_anew(server: Server) -> None:
    """Beside writers, it goes on wherever it was: no value is unreadable, no acknowledged one is missing."""
    promised: dict[str, dict[str, int]] = {}

    async def write(name: str) -> None:
        with contextlib.suppress(httpx2.TransportError):
            for n in range(3):
                answer = await server.call("POST", f"secrets/{name}", json={"data": {"n": n}})
                assert answer.status_code == 200, answer.text
                promised[name] = {"n": n}

    async def done_or_dead(newest: int) -> bool:
        return not server.alive or await all_sealed_anew(server, newest)

    async def attempt(number: int) -> bool:
        await call(server, "PUT", "sys/rotate")
        newest = await term(server)
        server.doom(number)
        await asyncio.gather(*(write(f"busy/{number}-{writer}") for writer in range(2)))
        await until(lambda: done_or_dead(newest))
        again = await restarted(server)
        if again:
            await server.unseal()
            await until(lambda: nothing_left(server))
        assert await asyncio.gather(*(got(server, f"many/{n}") for n in range(MANY))) == [
            {"n": n} for n in range(MANY)
        ]
        # One that was not acknowledged may have been written.
        for name, data in promised.items():
            assert (await got(server, name))["n"] - data["n"] in {0, 1}
        return not again

    await sweep(server, attempt, least=18, step=9 if STEP > 1 else 1)


async def test_accepting_a_restore(server: Server) -> None:
    """It is accepted or not, never twice; what was written opens, and tokens of before are void."""
    url = server.settings.database_url

    async def timeline() -> int:
        return int((await sql(url, "SELECT timeline FROM cluster"))[0]["timeline"])

    async def witnessed() -> int:
        """Return the number of the node's newest checkpoint, once that is of the present timeline."""
        for path in Path(server.settings.state_dir).glob("witness-*.json"):
            newest = json.loads(path.read_bytes())["signed"]["checkpoint"]
            if newest["timeline"] == await timeline():
                return int(newest["sequence"])
        return 0

    async def put_back() -> None:
        """Let the database be older than what the node has seen of it."""
        await until(witnessed)
        server.kill()
        await server.ended()
        sequence = await witnessed()
        await sql(url, "DELETE FROM audit_checkpoints WHERE sequence >= $1", sequence)
        await server.start()
        await until(lambda: rolled_back(server))

    async def attempt(number: int) -> bool:
        before, old = await timeline(), server.root
        await put_back()
        await accept_but_one()
        server.doom(number)
        done: Any = await last_words(server, "PUT", "sys/accept-restore", {"key": server.shares[2]}, "")
        again = await restarted(server)
        if again and (await status(server))["rolled_back"]:
            assert done is None
            await accept(server, server.shares)
        elif again:
            await server.unseal()
        assert await timeline() == before + 1
        # A process that remembers the lost future says so once.
        codes = [(await server.call("GET", "auth/token/lookup-self", old)).status_code for _ in range(2)]
        assert codes[-1] == 403
        server.root = await root_of(server)
        return not again

    async def accept_but_one() -> None:
        for share in server.shares[:2]:
            await call(server, "PUT", "sys/accept-restore", {"key": share}, "")

    await sweep(server, attempt, least=4)
