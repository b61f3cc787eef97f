"""Tokens that are good for a number of requests, from some networks, or without a row."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from authority_core import Running, running

from secrethub.engines.engine import Auth
from secrethub.errors import InvalidRequest, NotFound, PermissionDenied
from secrethub.operations.tidy import tidy
from tests.gateway.behind import entries, sql
from tests.gateway.conftest import ALONE, SHARING, native

pytestmark = SHARING
READER = native("secrets/app/**", capabilities=("read", "create", "update", "list"))


@contextlib.asynccontextmanager
async def with_a_secret(url: str, folder: Path) -> AsyncIterator[Running]:
    """One process with a secret and a policy that reads it."""
    async with running(url, folder) as started:
        await started.ask("write", "sys/policies/acl/reader", {"policy": READER})
        await started.ask("write", "secret/data/app/db", {"data": {"k": "canary"}})
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hub(shared_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    """A process of all tests here, each of which has tokens and roles of its own."""
    async with with_a_secret(shared_database_url, tmp_path_factory.mktemp("shared")) as started:
        yield started


@pytest.fixture
async def own(database_url: str, tmp_path: Path) -> AsyncIterator[Running]:
    """A process of one test alone."""
    async with with_a_secret(database_url, tmp_path) as started:
        yield started


async def made(hub: Running, path: str = "create", token: str = "", **body: Any) -> Auth:
    answer = await hub.ask("write", f"auth/token/{path}", {"policies": ["reader"], **body}, token=token)
    assert answer.auth is not None
    return answer.auth


async def token_of(hub: Running, **body: Any) -> str:
    return (await made(hub, **body)).client_token


async def by_role(hub: Running, **role: Any) -> str:
    await hub.ask("write", "auth/token/roles/r", role)
    return (await made(hub, "create/r")).client_token


@ALONE
async def test_every_request_counts(own: Running) -> None:
    """Reads, writes and refusals spend a use each; then the token is gone, and all that is its."""
    token = await token_of(own, num_uses=5)
    await own.ask("read", "secrets/app/db", token=token)
    assert (await own.data("read", "auth/token/lookup-self", token=token))["num_uses"] == 3
    await own.ask("write", "secrets/app/db", {"data": {"k": "2"}}, token=token)
    with pytest.raises(PermissionDenied):
        await own.ask("read", "secrets/other", token=token)
    await own.ask("write", "cubbyhole/a", {"k": "v"}, token=token)
    for _ in range(3):
        with pytest.raises(PermissionDenied):
            await own.ask("read", "secrets/app/db", token=token)
    assert [row["n"] for row in await sql(own.url, "SELECT count(*) AS n FROM tokens")] == [1]
    assert [row["n"] for row in await sql(own.url, "SELECT count(*) AS n FROM accessors")] == [1]
    assert await sql(own.url, "SELECT 1 FROM cubbyholes") == []


async def test_the_last_use_is_a_whole_one(hub: Running) -> None:
    """With its last use a token reads what it keeps."""
    token = await token_of(hub, num_uses=2)
    await hub.ask("write", "cubbyhole/a", {"k": "v"}, token=token)
    assert bytes((await hub.data("read", "cubbyhole/a", token=token))["k"]) == b'"v"'
    with pytest.raises(PermissionDenied):
        await hub.ask("read", "cubbyhole/a", token=token)


async def test_uses_are_not_remembered(hub: Running) -> None:
    """The same read again is counted again, though its decision is known."""
    token = await token_of(hub, num_uses=3)
    for _ in range(3):
        await hub.ask("read", "secrets/app/db", token=token)
    with pytest.raises(PermissionDenied):
        await hub.ask("read", "secrets/app/db", token=token)


async def test_uses_counted_at_the_same_time(hub: Running) -> None:
    """Of many requests at once as many pass as there were uses."""
    token = await token_of(hub, num_uses=7)
    answers = await asyncio.gather(
        *(hub.ask("read", "secrets/app/db", token=token) for _ in range(30)), return_exceptions=True
    )
    refused = [answer for answer in answers if isinstance(answer, BaseException)]
    assert len(answers) - len(refused) == 7
    assert {type(answer) for answer in refused} == {PermissionDenied}


@ALONE
async def test_a_use_has_an_intent_and_an_outcome(own: Running) -> None:
    """The ledger tells of a read that spends a use before it does, and how it ended."""
    token = await token_of(own, num_uses=2)
    await own.ask("read", "secrets/app/db", token=token)
    with pytest.raises(NotFound):
        await own.ask("read", "secrets/app/none", token=token)
    told = [e for e in await entries(own.url, operation="kv.read") if e["actor"].endswith(":token")]
    assert [(entry["kind"], entry["outcome"]) for entry in told] == [
        ("intent", "begun"),
        ("outcome", "done"),
        ("intent", "begun"),
        ("outcome", "missing"),
    ]


async def test_what_tokens_with_uses_do_not(hub: Running) -> None:
    """They make no other tokens, or a use would be worth any number."""
    token = (await made(hub, policies=["root"], num_uses=3)).client_token
    with pytest.raises(InvalidRequest, match="restricted use token cannot generate child tokens"):
        await hub.ask("write", "auth/token/create", {}, token=token)


async def test_renewed_tokens_keep_their_count(hub: Running) -> None:
    """A renewal gives time and no uses."""
    token = await token_of(hub, num_uses=3, ttl="60s")
    renewed = await hub.ask("write", "auth/token/renew-self", {"increment": "1h"}, token=token)
    assert renewed.auth is not None
    assert renewed.auth.num_uses == 2
    await hub.ask("read", "secrets/app/db", token=token)
    await hub.ask("write", "auth/token/renew-self", {"increment": "2h"}, token=token)
    with pytest.raises(PermissionDenied):
        await hub.ask("read", "secrets/app/db", token=token)


@ALONE
async def test_used_up_tokens_are_tidied_away(own: Running) -> None:
    """What a process leaves that was killed after a last use is worth nothing, and is tidied away."""
    from secrethub.engines.engine import Fence
    from secrethub.engines.token.known import find_token, holder_of
    from secrethub.engines.token.using import spend

    token = await token_of(own, num_uses=1)
    core = own.core
    row = await find_token(core, token)
    assert row is not None
    fence = Fence(generation=core.caches.generation, seal_epoch=core.caches.seal_epoch, written=[])
    own.clock.ahead = timedelta(minutes=-5)
    assert await spend(core, fence, await holder_of(core, row, core.clock.now())) == 0
    own.clock.ahead = timedelta()
    with pytest.raises(PermissionDenied):
        await own.ask("read", "secrets/app/db", token=token)
    assert await tidy(core) == 1
    assert len(await sql(own.url, "SELECT 1 FROM accessors")) == 1


@ALONE
async def test_bound_networks(own: Running) -> None:
    """A token is good from its networks, and from nowhere else, not even where its read is remembered."""
    token = await by_role(own, token_bound_cidrs=["10.1.0.0/16", "2001:db8::/32"])
    for address in ("10.1.2.3", "::ffff:10.1.2.3", "2001:db8::5", "10.1.2.3"):
        await own.ask("read", "secrets/app/db", token=token, client_address=address)
    for elsewhere in ("10.2.0.1", "127.0.0.1", "2001:db9::5", None, "unix"):
        with pytest.raises(PermissionDenied):
            await own.ask("read", "secrets/app/db", token=token, client_address=elsewhere)
    told = await entries(own.url, outcome="denied")
    assert len(told) == 5
    assert all("is not bound to this address" in entry["reason"] for entry in told)


async def test_children_are_bound_as_their_parents(hub: Running) -> None:
    """A child is good from where its parent is; a root token without an end is bound to nothing."""
    makes = native("auth/token/create", capabilities=("update",))
    await hub.ask("write", "sys/policies/acl/makes", {"policy": makes})
    await hub.ask(
        "write",
        "auth/token/roles/bound",
        {"token_bound_cidrs": ["10.1.0.0/16"], "allowed_policies": ["reader", "makes", "root"]},
    )
    parent = (await made(hub, "create/bound", policies=["reader", "makes"])).client_token
    answer = await hub.ask("write", "auth/token/create", {}, token=parent, client_address="10.1.0.1")
    assert answer.auth is not None
    with pytest.raises(PermissionDenied):
        await hub.ask("read", "secrets/app/db", token=answer.auth.client_token)
    root = (await made(hub, "create/bound", policies=["root"])).client_token
    assert "bound_cidrs" not in await hub.data("read", "auth/token/lookup-self", token=root)


async def test_a_role_says_where_its_tokens_are_good(hub: Running) -> None:
    """A role with networks of its own binds to those, as in Vault; else a child is bound as its maker."""
    makes = native("auth/token/create/*", capabilities=("update",))
    await hub.ask("write", "sys/policies/acl/makes", {"policy": makes})
    allowed = {"allowed_policies": ["reader", "makes"]}
    for name, networks in (("here", ["10.1.0.0/16"]), ("elsewhere", ["10.2.0.0/16"]), ("none", [])):
        await hub.ask("write", f"auth/token/roles/{name}", {**allowed, "token_bound_cidrs": networks})
    parent = (await made(hub, "create/here", policies=["reader", "makes"])).client_token
    for name, good, bad in (("elsewhere", "10.2.0.1", "10.1.0.1"), ("none", "10.1.0.1", "10.2.0.1")):
        answer = await hub.ask(
            "write", f"auth/token/create/{name}", {}, token=parent, client_address="10.1.0.1"
        )
        assert answer.auth is not None
        child = answer.auth.client_token
        await hub.ask("read", "secrets/app/db", token=child, client_address=good)
        with pytest.raises(PermissionDenied):
            await hub.ask("read", "secrets/app/db", token=child, client_address=bad)


@ALONE
async def test_batch_tokens(own: Running) -> None:
    """A batch token reads as its policies say, tells what it says, and leaves no row."""
    before = await sql(own.url, "SELECT count(*) AS n FROM tokens")
    auth = await made(own, type="batch", ttl="1h", meta={"k": "v"}, display_name="job")
    assert auth.client_token.startswith("hvb.")
    assert (auth.accessor, auth.renewable, auth.token_type, auth.orphan) == ("", False, "batch", False)
    assert await sql(own.url, "SELECT count(*) AS n FROM tokens") == before
    for _ in range(2):
        await own.ask("read", "secrets/app/db", token=auth.client_token)
    seen = await own.data("read", "auth/token/lookup-self", token=auth.client_token)
    assert seen["id"] == auth.client_token
    assert (seen["type"], seen["accessor"], seen["meta"]) == ("batch", "", {"k": "v"})
    assert (seen["display_name"], seen["creation_ttl"], seen["renewable"]) == ("token-job", 3600, False)
    assert 3590 < seen["ttl"] <= 3600
    assert seen == await own.data("write", "auth/token/lookup", {"token": auth.client_token})
    text = str([dict(row) for row in await sql(own.url, "SELECT * FROM audit_entries")])
    assert auth.client_token not in text
    own.clock.ahead = timedelta(seconds=3601)
    with pytest.raises(PermissionDenied):
        await own.ask("read", "secrets/app/db", token=auth.client_token)


async def test_what_batch_tokens_cannot(hub: Running) -> None:
    """They are not renewed, revoked, parents, root, nor keepers of anything, as in Vault."""
    wide = native("auth/token/**", "cubbyhole/**", capabilities=("update", "create", "read", "list"))
    await hub.ask("write", "sys/policies/acl/wide", {"policy": wide})
    token = (await made(hub, type="batch", policies=["wide"])).client_token
    for path, body, says in (
        ("auth/token/renew-self", None, "batch tokens cannot be renewed"),
        ("auth/token/renew", {"token": token}, "batch tokens cannot be renewed"),
        ("auth/token/revoke-self", None, "batch tokens cannot be revoked"),
        ("auth/token/revoke", {"token": token}, "batch tokens cannot be revoked"),
        ("auth/token/create", {}, "batch tokens cannot create more tokens"),
        ("auth/token/create-orphan", {"type": "batch"}, "batch tokens cannot create more tokens"),
        ("cubbyhole/a", {"k": "v"}, "cubbyhole operations are only supported"),
    ):
        with pytest.raises(InvalidRequest, match=says):
            await hub.ask("write", path, body, token=token)
    with pytest.raises(InvalidRequest, match="only supported"):
        await hub.ask("read", "cubbyhole/a", token=token)
    with pytest.raises(InvalidRequest, match="batch tokens cannot be root tokens"):
        await made(hub, type="batch", policies=["root"])
    with pytest.raises(InvalidRequest, match="so many policies"):
        await made(hub, type="batch", policies=[f"{n:0>127}" for n in range(60)])


async def test_batch_tokens_end_with_their_parent(hub: Running) -> None:
    """Revoking what a batch token was made from ends it at once; an orphan goes on."""
    makes = native("auth/token/create", capabilities=("update", "sudo"))
    await hub.ask("write", "sys/policies/acl/makes", {"policy": makes})
    parent = (await made(hub, policies=["reader", "makes"])).client_token
    child = (await made(hub, token=parent, type="batch")).client_token
    orphan = (await made(hub, token=parent, type="batch", no_parent=True)).client_token
    for token in (child, orphan):
        await hub.ask("read", "secrets/app/db", token=token)
    await hub.ask("write", "auth/token/revoke", {"token": parent})
    with pytest.raises(PermissionDenied):
        await hub.ask("read", "secrets/app/db", token=child)
    await hub.ask("read", "secrets/app/db", token=orphan)


async def test_batch_tokens_are_bound_to_networks(hub: Running) -> None:
    """What a role binds a batch token to holds on every use."""
    token = await by_role(hub, token_type="batch", token_bound_cidrs=["10.1.0.0/16"])
    await hub.ask("read", "secrets/app/db", token=token, client_address="10.1.0.1")
    with pytest.raises(PermissionDenied):
        await hub.ask("read", "secrets/app/db", token=token)


async def test_damaged_batch_tokens(hub: Running) -> None:
    """A batch token with any bit changed, cut, lengthened or spelled otherwise is unknown."""
    good = (await made(hub, type="batch")).client_token
    await hub.ask("read", "secrets/app/db", token=good)
    raw = base64.urlsafe_b64decode(good[4:] + "===")
    wrong = [
        good[:-1],
        good + "A",
        good + "=",
        good.replace("hvb.", "hvs."),
        good[4:],
        "hvb.",
        "hvb." + "A" * 60,
    ]
    for position in range(0, len(raw), 7):
        changed = bytes([*raw[:position], raw[position] ^ 1, *raw[position + 1 :]])
        wrong.append("hvb." + base64.urlsafe_b64encode(changed).decode().rstrip("="))
    for text in wrong:
        with pytest.raises(PermissionDenied):
            await hub.ask("read", "secrets/app/db", token=text)
