"""Who is refused, on what ground, and that the ledger says so: one process on a real database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from authority_core import Running, running
from enrolled_hosts import certificate_of, host_of

from secrethub.auth.digests import token_digest
from secrethub.errors import (
    InvalidRequest,
    LoginFailed,
    NotFound,
    PermissionDenied,
    SecretHubError,
    TooManyRequests,
    UnsupportedOperation,
)
from secrethub.operations.call import AgentCertificate
from secrethub.operations.tidy import tidy
from tests.gateway.behind import entries, sql, until
from tests.gateway.conftest import SHARING, native

READER = native("secrets/app/**")


@asynccontextmanager
async def _started(url: str, folder: Path) -> AsyncIterator[Running]:
    async with running(url, folder) as started:
        await started.ask("write", "sys/policies/acl/reader", {"policy": READER})
        await started.ask("write", "secret/data/app/db", {"data": {"k": "canary"}})
        yield started


@pytest.fixture
async def hub(database_url: str, tmp_path: Path) -> AsyncIterator[Running]:
    """One process with a secret and a policy that reads it."""
    async with _started(database_url, tmp_path) as started:
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_hub(
    shared_database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Running]:
    """The same for tests that change nothing which others see."""
    async with _started(shared_database_url, tmp_path_factory.mktemp("shared")) as started:
        yield started


async def _token(hub: Running, **options: Any) -> str:
    made = await hub.ask("write", "auth/token/create", {"policies": ["reader"], **options})
    assert made.auth is not None
    return made.auth.client_token


async def _newest(hub: Running) -> dict[str, Any]:
    """Return the newest entry about a request."""
    found = [entry for entry in await entries(hub.url) if entry["request_id"]]
    return found[-1]


async def _refused(hub: Running, reason: str, **how: Any) -> dict[str, Any]:
    """Check that a read is refused and that its entry says why."""
    with pytest.raises(PermissionDenied):
        await hub.ask("read", "secrets/app/db", **how)
    entry = await _newest(hub)
    assert (entry["operation"], entry["path"]) == ("kv.read", "secret/data/app/db")
    assert entry["outcome"] == "denied"
    assert reason in entry["reason"]
    return entry


@SHARING
async def test_nobody_and_unknown_tokens(shared_hub: Running) -> None:
    """Without a token, or with one that was never given out, the answer is no, by name of the path."""
    assert (await _refused(shared_hub, "no token was given", token=None))["actor"] == "anonymous"
    for unknown in (
        "hvs.wrong",
        "x" * 300,
        shared_hub.root[:-1],
        shared_hub.root + "x",
        shared_hub.root.lower(),
    ):
        await _refused(shared_hub, "unknown token", token=unknown)


async def test_an_expired_token(hub: Running) -> None:
    """A token is refused from the instant of its expiry on, with its digest in the reason."""
    token = await _token(hub, ttl="60s")
    await hub.ask("read", "secrets/app/db", token=token)
    hub.clock.ahead = timedelta(seconds=61)
    digest = token_digest(hub.core.keyring(), token)
    await _refused(hub, f"token {digest[:16]} has expired", token=token)


async def test_children_of_an_expired_token(hub: Running) -> None:
    """A token ends with the one it was made from, though its own time is not over."""
    policy = {"path": {"auth/token/create": {"capabilities": ["update"]}, **_acl("secret/data/app/*")}}
    await hub.ask("write", "sys/policies/acl/maker", {"policy": policy})
    made = await hub.ask("write", "auth/token/create", {"policies": ["maker"], "ttl": "60s"})
    assert made.auth is not None
    child = await hub.ask("write", "auth/token/create", {"ttl": "1h"}, token=made.auth.client_token)
    assert child.auth is not None
    await hub.ask("read", "secrets/app/db", token=child.auth.client_token)
    hub.clock.ahead = timedelta(seconds=61)
    await _refused(hub, "has ended", token=child.auth.client_token)


async def test_a_token_that_ends_while_its_read_is_written_down(hub: Running) -> None:
    """A read decided before a token's expiry is not answered after it, however long the ledger took."""
    token = await _token(hub, ttl="60s")
    await hub.ask("read", "secrets/app/db", token=token)
    connection = await asyncpg.connect(hub.url)
    try:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("LOCK TABLE audit_entries IN SHARE MODE")
        read = asyncio.create_task(hub.ask("read", "secrets/app/db", token=token))
        waiting = "SELECT 1 FROM pg_locks WHERE NOT granted AND relation = 'audit_entries'::regclass"
        await until(lambda: sql(hub.url, waiting))
        hub.clock.ahead = timedelta(seconds=61)
        await transaction.commit()
        with pytest.raises(PermissionDenied):
            await read
    finally:
        await connection.close()
    assert "has expired" in (await _newest(hub))["reason"]


async def test_a_renewal_that_shortens_counts_at_once(hub: Running) -> None:
    """Whoever shortens a token's life ends it everywhere at that time."""
    token = await _token(hub, ttl="1h")
    await hub.ask("read", "secrets/app/db", token=token)
    before = hub.core.caches.generation
    await hub.ask("write", "auth/token/renew-self", {"increment": "60s"}, token=token)
    assert hub.core.caches.generation == before + 1
    await hub.ask("write", "auth/token/renew-self", {"increment": "70s"}, token=token)
    assert hub.core.caches.generation == before + 1
    hub.clock.ahead = timedelta(seconds=71)
    await _refused(hub, "has expired", token=token)


def _acl(*paths: str) -> dict[str, Any]:
    return {path: {"capabilities": ["read"]} for path in paths}


@SHARING
async def test_a_token_without_a_grant(shared_hub: Running) -> None:
    """What no policy grants is refused, and the entry names the token and the ground."""
    token = await _token(shared_hub)
    with pytest.raises(PermissionDenied):
        await shared_hub.ask("read", "secrets/other", token=token)
    entry = await _newest(shared_hub)
    digest = token_digest(shared_hub.core.keyring(), token)
    assert entry["actor"] == f"token:{digest[:36]}:token"
    assert entry["path"] == "secret/data/other"
    assert entry["reason"]
    with pytest.raises(PermissionDenied):
        await shared_hub.ask("write", "secrets/app/db", {"data": {}}, token=token)
    with pytest.raises(PermissionDenied):
        await shared_hub.ask("list", "secrets/app", token=token)
    with pytest.raises(PermissionDenied):
        await shared_hub.ask("write", "sys/seal", token=token)
    assert (await _newest(shared_hub))["operation"] == "sys.seal"


@SHARING
async def test_a_refused_write_changes_nothing(shared_hub: Running) -> None:
    """A write without a grant leaves the secret as it was, and has no intent in the ledger."""
    token = await _token(shared_hub)
    await shared_hub.ask("write", "secrets/app/kept", {"data": {"k": "mine"}})
    with pytest.raises(PermissionDenied):
        await shared_hub.ask("write", "secrets/app/kept", {"data": {"k": "theirs"}}, token=token)
    found = await shared_hub.data("read", "secrets/app/kept")
    assert found["metadata"]["version"] == 1
    written = await entries(shared_hub.url, operation="kv.write", path="secret/data/app/kept")
    kinds = [entry["kind"] for entry in written]
    assert kinds == ["intent", "outcome", "request"]


@SHARING
async def test_paths_that_nobody_serves_tell_nothing_to_strangers(shared_hub: Running) -> None:
    """Unknown paths are denied to who may not ask, and missing or unsupported to who may."""
    token = await _token(shared_hub)
    for path in ("nowhere/at/all", "sys/nothing", "secret/undocumented"):
        with pytest.raises(PermissionDenied):
            await shared_hub.ask("read", path, token=token)
        with pytest.raises(PermissionDenied):
            await shared_hub.ask("read", path, token=None)
        with pytest.raises(NotFound):
            await shared_hub.ask("read", path)
    with pytest.raises(UnsupportedOperation):
        await shared_hub.ask("patch", "sys/mounts")
    assert {entry["path"] for entry in await entries(shared_hub.url, operation="unknown")} >= {
        "nowhere/at/all"
    }


@SHARING
async def test_bad_input_is_on_record(shared_hub: Running) -> None:
    """A request that is allowed but cannot be read is refused with the reason, and nothing happens."""
    with pytest.raises(InvalidRequest):
        await shared_hub.ask("write", "secrets/app/db", {"data": "no object"})
    entry = await _newest(shared_hub)
    assert entry["outcome"] == "refused"
    assert entry["reason"].startswith("invalid_request: ")
    for text in ("\x00", "a\x00b"):
        with pytest.raises(InvalidRequest):
            await shared_hub.ask("write", "auth/token/create", {"meta": {"k": text}})
        with pytest.raises(SecretHubError) as caught:
            await shared_hub.ask("list", "secrets", query={"after": text})
        assert caught.value.code == "invalid_request"


@SHARING
async def test_an_agent_on_another_agents_path(shared_hub: Running) -> None:
    """An agent reads what its role grants, nothing of others, and nothing at all once revoked."""
    await shared_hub.ask("write", "sys/policies/acl/enrolling", {"policy": native("secrets/app/web/**")})
    await shared_hub.ask("write", "secret/data/app/web/db", {"data": {"k": "v"}})
    host = await host_of(shared_hub, "web")
    agent = certificate_of(await host.enroll())
    await shared_hub.ask("read", "secrets/app/web/db", agent=agent)
    entry = await _refused(shared_hub, "", agent=agent)
    assert entry["actor"] == f"agent:{agent.agent_id}:web-1"
    assert entry["reason"]
    await _refused(
        shared_hub, "is not one of the agent's", agent=AgentCertificate(agent_id=agent.agent_id, serial="ff")
    )
    nobody = AgentCertificate(agent_id="00000000-0000-8000-8000-000000000000", serial=agent.serial)
    assert (await _refused(shared_hub, "is unknown", agent=nobody))["actor"] == f"agent:{nobody.agent_id}"
    with pytest.raises(PermissionDenied):
        await shared_hub.ask("write", "auth/token/create", {}, agent=agent)
    await shared_hub.ask("write", f"agents/{agent.agent_id}/revoke", {})
    with pytest.raises(PermissionDenied):
        await shared_hub.ask("read", "secrets/app/web/db", agent=agent)
    assert (await _newest(shared_hub))["reason"] == f"agent {agent.agent_id} is revoked"


@SHARING
async def test_an_agent_whose_role_is_gone(shared_hub: Running) -> None:
    """An agent's rights are those of its role now, and none without it."""
    await shared_hub.ask("write", "sys/policies/acl/enrolling", {"policy": native("secrets/app/**")})
    host = await host_of(shared_hub, "gone")
    agent = certificate_of(await host.enroll("gone-1"))
    await shared_hub.ask("read", "secrets/app/db", agent=agent)
    await shared_hub.ask("write", "auth/approle/role/gone", {"token_policies": []})
    await _refused(shared_hub, "", agent=agent)
    await shared_hub.ask("delete", "auth/approle/role/gone")
    await _refused(shared_hub, "no longer exists", agent=agent)


async def _fails(hub: Running, role_id: str, secret_id: str, reason: str) -> None:
    """Check that a login fails with Vault's words, and that the ledger says why."""
    body = {"role_id": role_id, "secret_id": secret_id}
    with pytest.raises(LoginFailed) as caught:
        await hub.ask("write", "auth/approle/login", body, token=None)
    assert str(caught.value) == "invalid role or secret ID"
    entry = await _newest(hub)
    assert (entry["kind"], entry["operation"], entry["outcome"]) == ("outcome", "approle.login", "denied")
    assert reason in entry["reason"]
    assert secret_id not in str(entry)


async def test_logins_that_fail(hub: Running) -> None:
    """Each way in which a login fails is the same to the caller, and told apart in the ledger."""
    role_id, secret_id = await hub.role("web", "reader")
    await _fails(hub, "00000000", secret_id, "unknown RoleID")
    await _fails(hub, role_id, "00000000", "the role web has no such SecretID")
    once = await hub.data("write", "auth/approle/role/web/secret-id", {"num_uses": 1})
    await hub.login(role_id, once["secret_id"])
    await _fails(hub, role_id, once["secret_id"], "the role web has no such SecretID")
    bound = await hub.data("write", "auth/approle/role/web/secret-id", {"cidr_list": "10.0.0.0/8"})
    await _fails(hub, role_id, bound["secret_id"], "is not bound to this address")
    brief = await hub.data("write", "auth/approle/role/web/secret-id", {"ttl": "60s"})
    hub.clock.ahead = timedelta(seconds=61)
    await _fails(
        hub, role_id, brief["secret_id"], f"{brief['secret_id_accessor']} of the role web has expired"
    )
    await hub.login(role_id, secret_id)


async def test_secret_ids_end_with_their_role(hub: Running) -> None:
    """A SecretID of a deleted role is no good for a new role of that name, also while its row is there."""
    role_id, secret_id = await hub.role("web", "reader")
    # The deletion is cut off before it removes SecretIDs, as by a process that dies there.
    connection = await asyncpg.connect(hub.url)
    try:
        await connection.execute("BEGIN; LOCK TABLE secret_ids IN SHARE MODE")
        deleting = asyncio.create_task(hub.ask("delete", "auth/approle/role/web"))
        cut = """SELECT pg_terminate_backend(pid) FROM pg_locks
                 WHERE NOT granted AND relation = 'secret_ids'::regclass"""
        await until(lambda: sql(hub.url, cut))
        await deleting
    finally:
        await connection.close()
    assert len(await sql(hub.url, "SELECT 1 FROM secret_ids")) == 1
    again, _ = await hub.role("web", "reader")
    await _fails(hub, again, secret_id, "has no such SecretID")
    await _fails(hub, role_id, secret_id, "unknown RoleID")
    listed = await hub.data("list", "auth/approle/role/web/secret-id")
    assert len(listed["keys"]) == 1
    await hub.ask("delete", "auth/approle/role/web")
    assert await sql(hub.url, "SELECT 1 FROM secret_ids") == []


async def test_the_throttle_bounds_what_strangers_write(hub: Running) -> None:
    """Beyond the bound strangers are turned away without an entry and counted; who has a token is not."""
    before = len(await entries(hub.url))
    kinds: list[type[BaseException]] = []
    for _ in range(600):
        with pytest.raises((PermissionDenied, TooManyRequests)) as caught:
            await hub.ask("read", "secrets/app/db", token="hvs.unknown")
        kinds.append(caught.type)
    throttled = kinds.count(TooManyRequests)
    assert throttled > 0
    assert len(await entries(hub.url)) - before == 600 - throttled
    assert hub.core.throttle_anonymous.take_refused() == throttled
    await hub.ask("read", "secrets/app/db")


async def test_failed_logins_are_bounded_and_good_ones_are_not(hub: Running) -> None:
    """Logins that fail use up a bound that logins that succeed do not."""
    role_id, secret_id = await hub.role("web", "reader")
    throttle = hub.core.throttle_public
    throttle.burst = throttle.address_burst = 10
    throttle.rate = throttle.address_rate = 0.001
    throttle.__post_init__()
    for _ in range(30):
        await hub.login(role_id, secret_id)
    for _ in range(10):
        with pytest.raises(LoginFailed):
            await hub.login(role_id, "wrong")
    with pytest.raises(TooManyRequests):
        await hub.login(role_id, "wrong")
    found = await entries(hub.url, operation="approle.login", outcome="denied")
    assert len(found) == 10
    assert throttle.take_refused() == 1


async def test_what_has_expired_is_removed(hub: Running) -> None:
    """Tidying removes expired tokens with their accessors, and SecretIDs, however many they are."""
    role_id, _ = await hub.role("web", "reader")
    for _ in range(30):
        secret = await hub.data("write", "auth/approle/role/web/secret-id", {"ttl": "60s", "num_uses": 9})
        await hub.login(role_id, secret["secret_id"])
        await _token(hub, ttl="60s")
    kept = await _token(hub, ttl="1h")
    hub.clock.ahead = timedelta(seconds=-300)
    for _ in range(20):
        await _token(hub, ttl="60s")
    # 20 tokens ended four minutes ago; each has an accessor that would have stayed for a month.
    tokens = (await sql(hub.url, "SELECT count(*) AS n FROM tokens"))[0]["n"]
    assert await tidy(hub.core) == 20
    assert (await sql(hub.url, "SELECT count(*) AS n FROM tokens"))[0]["n"] == tokens - 20
    assert (await sql(hub.url, "SELECT count(*) AS n FROM accessors"))[0]["n"] == tokens - 20
    hub.clock.ahead = timedelta()
    await hub.ask("read", "secrets/app/db", token=kept)
    assert await tidy(hub.core) == 0
