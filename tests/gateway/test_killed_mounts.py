"""The whole server killed while what is mounted moves: it is at one path, whole, and never at two."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from secrethub.storage.lease_ends import CLAIM_SECONDS
from tests.gateway.behind import until
from tests.gateway.conftest import node_settings
from tests.gateway.database_target import TargetDatabase
from tests.gateway.databases import CREATION, target
from tests.gateway.killing import call, last_words, restarted, sweep
from tests.gateway.whole_server import Server, mortal

__all__ = ["target"]  # the fixture

SECRETS = {f"folder/s{n}": {"n": n} for n in range(3)}
RATE = "sys/quotas/rate-limit/of-the-mount"


@pytest.fixture
async def server(database_url: str, tmp_path: Path) -> AsyncIterator[Server]:
    """A server that three shares open."""
    settings = node_settings(tmp_path, database_url)
    settings = msgspec.structs.replace(settings, outbound_networks=("127.0.0.1/32",))
    async with mortal(settings) as started:
        await started.initialise(3, 3)
        await started.unseal()
        yield started


async def status(server: Server, method: str, path: str, token: str | None = None, body: Any = None) -> int:
    """Send a request; return the status of its answer."""
    return (await server.call(method, path, token, json=body)).status_code


async def where(server: Server, listing: str, *paths: str) -> str:
    """Return at which one of two paths something is mounted."""
    mounts = (await call(server, "GET", listing))["data"]
    (found,) = [path for path in paths if f"{path}/" in mounts]
    assert (await call(server, "GET", RATE))["data"]["path"].removeprefix("auth/") == f"{found}/"
    return found


async def moved(server: Server, number: int, old: str, new: str) -> tuple[bool, bool]:
    """Move something, let the server die of it and open it again; tell if it answered, and if it lived."""
    server.doom(number)
    answer = await last_words(server, "POST", "sys/remount", {"from": old, "to": new})
    again = await restarted(server)
    if again:
        await server.unseal()
    return answer is not None, not again


async def test_a_store(server: Server) -> None:
    """All its secrets are at exactly one of both paths; a move that was acknowledged stays done."""

    async def attempt(number: int) -> bool:
        old, new = f"old{number}", f"far/new{number}"
        await call(server, "POST", f"sys/mounts/{old}", {"type": "kv-v2"})
        for name, data in SECRETS.items():
            await call(server, "POST", f"{old}/data/{name}", {"data": data})
        await call(server, "POST", RATE, {"rate": 1000, "path": f"{old}/"})
        acknowledged, lived = await moved(server, number, old, new)
        here = await where(server, "sys/mounts", old, new)
        assert here == new or not acknowledged
        elsewhere = old if here == new else new
        for name, data in SECRETS.items():
            found = await call(server, "GET", f"{here}/data/{name}")
            assert found["data"]["data"] == data
            assert await status(server, "GET", f"{elsewhere}/data/{name}") == 404
        # It goes on to be an ordinary mount: it takes writes, and moves.
        await call(server, "POST", f"{here}/data/more", {"data": {"here": here}})
        await call(server, "POST", "sys/remount", {"from": here, "to": f"at/last{number}"})
        found = await call(server, "GET", f"at/last{number}/data/more")
        assert found["data"]["data"] == {"here": here}
        assert await status(server, "GET", f"{here}/data/more") == 404
        return lived

    await sweep(server, attempt, least=3)


async def test_an_auth_method(server: Server) -> None:
    """Its roles are at exactly one of both paths; its tokens of before are good unless it has moved."""

    async def attempt(number: int) -> bool:
        old, new = f"old{number}", f"far/new{number}"
        await call(server, "POST", f"sys/auth/{old}", {"type": "approle"})
        await call(server, "POST", f"auth/{old}/role/web", {"token_ttl": "1h"})
        role_id = (await call(server, "GET", f"auth/{old}/role/web/role-id"))["data"]["role_id"]
        secret_id = (await call(server, "POST", f"auth/{old}/role/web/secret-id"))["data"]["secret_id"]
        login = {"role_id": role_id, "secret_id": secret_id}
        token = (await call(server, "POST", f"auth/{old}/login", login, ""))["auth"]["client_token"]
        await call(server, "POST", RATE, {"rate": 1000, "path": f"auth/{old}/"})
        acknowledged, lived = await moved(server, number, f"auth/{old}", f"auth/{new}")
        here = await where(server, "sys/auth", old, new)
        assert here == new or not acknowledged
        good = await status(server, "GET", "auth/token/lookup-self", token)
        assert good == (200 if here == old else 403)
        elsewhere = old if here == new else new
        assert await status(server, "POST", f"auth/{elsewhere}/login", "", login) in {403, 404}
        again = (await call(server, "POST", f"auth/{here}/login", login, ""))["auth"]["client_token"]
        assert await status(server, "GET", "auth/token/lookup-self", again) == 200

        # The other path can be had again, at the latest when what is left there has been disabled.
        await call(server, "DELETE", f"sys/auth/{elsewhere}")
        await call(server, "POST", f"sys/auth/{elsewhere}", {"type": "approle"})
        assert await status(server, "POST", f"auth/{elsewhere}/login", "", login) == 400
        assert await status(server, "GET", "auth/token/lookup-self", token) == good
        assert await status(server, "GET", "auth/token/lookup-self", again) == 200
        return lived

    await sweep(server, attempt, least=3)


@pytest.mark.timeout(400)
async def test_an_engine_with_leases(server: Server, target: TargetDatabase) -> None:
    """Either it has not moved and its leases live, or it has, and they end; what is new lives either way."""
    kept: set[str] = set()

    async def attempt(number: int) -> bool:
        old, new = f"old{number}", f"far/new{number}"
        await call(server, "POST", f"sys/mounts/{old}", {"type": "database"})
        await call(server, "POST", f"{old}/config/db", target.config())
        await call(server, "POST", f"{old}/roles/app", {"db_name": "db", "creation_statements": CREATION})
        await call(server, "POST", RATE, {"rate": 1000, "path": f"{old}/"})
        lease = await call(server, "GET", f"{old}/creds/app")
        user = lease["data"]["username"]
        acknowledged, lived = await moved(server, number, old, new)
        here = await where(server, "sys/mounts", old, new)
        assert here == new or not acknowledged
        if here == new:
            # What a server that died had claimed is another's only when that claim has run out.
            await until(lambda: left(target, user), CLAIM_SECONDS + 30)
            assert (
                await status(server, "PUT", "sys/leases/lookup", None, {"lease_id": lease["lease_id"]}) == 400
            )
        else:
            await call(server, "PUT", "sys/leases/renew", {"lease_id": lease["lease_id"]})
            assert await target.opens(user, lease["data"]["password"])
            kept.add(user)
        again = (await call(server, "GET", f"{here}/creds/app"))["data"]
        assert await target.opens(again["username"], again["password"])
        kept.add(again["username"])
        elsewhere = old if here == new else new
        assert await status(server, "GET", f"{elsewhere}/creds/app") == 404
        assert await target.users() == kept
        return lived

    await sweep(server, attempt, least=3)


async def left(target: TargetDatabase, user: str) -> bool:
    """Tell whether a user is no longer there."""
    return user not in await target.users()
