"""Searching the ledger: by everything an entry has, page by page, by those who may."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime
from typing import Any, get_args
from urllib.parse import quote, urlencode

import asyncpg
import pytest

from agent.conversation import converse
from secrethub.audit.event import Outcome
from secrethub.engines.system import ledger_entries
from secrethub.errors import PermissionDenied, Unavailable
from secrethub.storage.ledger_search import Place, place_text
from secrethub.wire import messages as wire
from tests.gateway.behind import fill_ledger, integrity_failures, sql, until
from tests.gateway.conftest import Node, native
from tests.gateway.kv import ok, put, status
from tests.gateway.shell import Cli, cli
from tests.gateway.test_agents_as_witnesses import enrolled, reachable

__all__ = ["cli"]  # the fixture


async def found(node: Node, **query: Any) -> list[dict[str, Any]]:
    """Return every entry that a search finds, whatever the number of pages."""
    entries: list[dict[str, Any]] = []
    after = ""
    while True:
        page = await ok(node, "GET", f"sys/audit/entries?{urlencode({**query, 'after': after})}")
        entries += page["entries"]
        after = page["next"]
        if not after:
            return entries


async def test_by_everything_an_entry_has(node: Node) -> None:
    """Each criterion finds exactly the entries that it describes, and several must hold together."""
    await put(node, "app/db", {"n": 1})
    made = await node.call("PUT", "sys/policies/acl/app", json={"policy": native("secrets/app/*")})
    assert made.status_code == 204
    created = await node.call(
        "POST", "auth/token/create", json={"policies": ["app"], "display_name": "billing"}
    )
    auth = created.json()["auth"]
    token, accessor = auth["client_token"], auth["accessor"]
    answer = await node.call("GET", "secret/data/app/db", token)
    assert await status(node, "GET", "secret/data/other", token=token) == 403
    assert await status(node, "GET", "secret/data/app/db/deeper", token=token) == 403
    mine = await found(node, accessor=accessor)
    assert [(entry["path"], entry["outcome"]) for entry in mine] == [
        ("secret/data/app/db/deeper", "denied"),
        ("secret/data/other", "denied"),
        ("secret/data/app/db", "done"),
    ]
    assert {entry["integrity"] for entry in mine} == {"ok"}
    actor = mine[0]["actor"]
    assert await found(node, actor=actor) == mine
    assert await found(node, actor=actor[:42]) == mine
    assert await found(node, name="token-billing") == mine
    assert await found(node, name="token-billing", outcome="denied") == mine[:2]
    assert await found(node, name="token-billing", outcome="done", operation="kv.read") == mine[2:]
    assert await found(node, request_id=answer.headers["x-request-id"].upper()) == mine[2:]
    assert await found(node, name="token-billing", path="secret/data/app/*") == mine[2:]
    assert await found(node, name="token-billing", path="secret/data/app/**") == [mine[0], mine[2]]
    assert await found(node, name="token-billing", path="*/data/other") == [mine[1]]
    assert await found(node, name="token-billing", path="secret/data/app/db") == mine[2:]
    assert await found(node, name="token-billing", path="secret/data/app") == []
    assert await found(node, name="token-billing", client="127.0.0.1") == mine
    assert await found(node, name="token-billing", client="10.0.0.1") == []
    assert await found(node, kind="outcome", operation="token.create")
    middle = mine[1]["time"]
    assert await found(node, name="token-billing", since=middle) == mine[:2]
    assert await found(node, name="token-billing", until=middle) == mine[2:]
    assert await found(node, name="token-billing", since="1h") == mine
    assert await found(node, name="token-billing", until="1h") == []


async def test_by_role(node: Node) -> None:
    """What tokens of a role did is found by the role's name."""
    await ok(node, "POST", "auth/approle/role/web", {"token_policies": ["default"]})
    role_id = (await ok(node, "GET", "auth/approle/role/web/role-id"))["role_id"]
    secret_id = (await ok(node, "POST", "auth/approle/role/web/secret-id"))["secret_id"]
    login = await node.call(
        "POST", "auth/approle/login", "", json={"role_id": role_id, "secret_id": secret_id}
    )
    assert await status(node, "GET", "secret/data/x", token=login.json()["auth"]["client_token"]) == 403
    assert [entry["path"] for entry in await found(node, role="web")] == ["secret/data/x"]
    assert await found(node, role="we") == []


async def test_by_agent(cli: Cli) -> None:
    """What an agent asked over its connection is found by its id, and by its name, and nothing of others."""
    node = cli.node
    await put(node, "app/db", {"n": 1})
    await ok(node, "PUT", "sys/policies/acl/app", {"policy": native("secrets/app/*")})
    wanted: dict[str, list[dict[str, Any]]] = {}
    # One is called as the display name of a token is.
    for number, name in enumerate(("web-1", "root"), 1):
        identity = await enrolled(node, name, "app")
        await until(lambda identity=identity: reachable(node, identity))
        async with converse(identity, node.settings.agent_urls[0], name) as conversation:
            listening = asyncio.create_task(conversation.listen(lambda _: None))
            for _ in range(number):
                await conversation.ask(lambda at: wire.Read(id=at, path="secrets/app/db"), wire.Result)
            with pytest.raises(PermissionDenied):
                await conversation.ask(lambda at: wire.Read(id=at, path="secrets/other"), wire.Result)
        with contextlib.suppress(Unavailable):
            await listening
        mine = await found(node, agent=identity.agent_id)
        assert {entry["actor"] for entry in mine} == {f"agent:{identity.agent_id}:{name}"}
        reads = [(entry["path"], entry["outcome"]) for entry in mine if entry["operation"] == "kv.read"]
        assert reads == [("secret/data/other", "denied"), *[("secret/data/app/db", "done")] * number]
        wanted[identity.agent_id] = wanted[name] = mine
    for agent, entries in wanted.items():
        kept = await sql(
            node.settings.database_url,
            "SELECT stream, number FROM audit_entries WHERE actor = $1",
            entries[0]["actor"],
        )
        assert {(entry["stream"], entry["number"]) for entry in entries} == {tuple(row) for row in kept}
        assert await found(node, agent=agent) == entries
        assert (await cli.json("audit", "search", "--agent", agent))["entries"] == entries
    assert await found(node, agent="nobody") == await found(node, agent="web") == []
    everything = await cli.json("audit", "search", "--name", "root", "--limit", "1000")
    assert {entry["actor"].partition(":")[0] for entry in everything["entries"]} == {"agent", "token"}


async def test_pages_are_stable_while_others_write(node: Node) -> None:
    """No entry that was there at the first page is missed or told twice, whatever is written meanwhile."""
    await put(node, "a", {"n": 1})
    for _ in range(60):
        assert await status(node, "GET", "secret/data/a") == 200
    there = {(entry["stream"], entry["number"]) for entry in await found(node, limit=500)}

    async def others() -> None:
        while True:
            await node.call("GET", "secret/data/a")

    writers = [asyncio.create_task(others()) for _ in range(4)]
    try:
        paged = await found(node, limit=7, until=datetime.now(UTC).isoformat().replace("+00:00", "Z"))
    finally:
        for writer in writers:
            writer.cancel()
        await asyncio.gather(*writers, return_exceptions=True)
    places = [(entry["stream"], entry["number"]) for entry in paged]
    assert len(set(places)) == len(places)
    assert there <= set(places)
    # As texts they have no order: zeros at the end of a fraction are left out.
    times = [datetime.fromisoformat(entry["time"]) for entry in paged]
    assert times == sorted(times, reverse=True)


async def test_a_page_is_cut_by_its_size(node: Node) -> None:
    """Entries that are large come in more pages, none is left out."""
    await fill_ledger(node, 7, detail='{"long": "' + "x" * (ledger_entries._PAGE_BYTES // 3) + '"}')
    page = await ok(node, "GET", "sys/audit/entries?path=secret/data/filler&limit=500")
    assert len(page["entries"]) == 2
    assert page["next"]
    numbers = [entry["number"] for entry in await found(node, path="secret/data/filler", limit=500)]
    assert len(numbers) == 7
    assert numbers == sorted(numbers, reverse=True)


async def test_who_may_search(node: Node) -> None:
    """Searching takes read and sudo on its own path, and is in the ledger with what was looked for."""
    without = await node.token("all", native("**", capabilities=("read", "list", "update")))
    assert await status(node, "GET", "sys/audit/entries", token=without) == 403
    assert await status(node, "GET", "sys/audit/entries", token="") == 403
    auditor = await node.token(
        "auditor", native("sys/audit/entries", capabilities=("read", "sudo")), display_name="auditor"
    )
    assert await status(node, "GET", "sys/audit/entries?path=secret/**", token=auditor) == 200
    assert await status(node, "POST", "sys/audit/verify", {}, token=auditor) == 403
    entry = (await found(node, name="token-auditor", outcome="done"))[0]
    assert entry["operation"] == "sys.audit.entries"
    assert entry["detail"]["query"] == {"path": "secret/**"}
    assert entry["detail"]["answer"] == {"count": 0}


async def test_an_accessor_is_not_written_down(node: Node) -> None:
    """The accessor that somebody looks for is masked in the ledger."""
    made = await node.call("POST", "auth/token/create", json={})
    accessor = made.json()["auth"]["accessor"]
    await found(node, accessor=accessor)
    for row in await sql(node.settings.database_url, "SELECT detail FROM audit_entries"):
        assert accessor not in row["detail"]


async def test_what_cannot_be_looked_for(node: Node) -> None:
    """Unknown criteria, impossible values and made-up places are refused, never answered with a failure."""
    for wrong in (
        "limit=0",
        "limit=501",
        "limit=x",
        "color=red",
        "after=x",
        "after=WzFd",
        f"after={quote('WyJ4IiwxLCJ5Il0')}",
        f"after={place_text(Place(1 << 63, 'x', 1))}",
        f"after={place_text(Place(1, 'x', 1 << 63))}",
        "since=yesterday",
        "until=2020-13-01T00:00:00Z",
        "outcome=refuzed",
        "outcome=Denied",
        "kind=reqest",
        "accessor=none",
        "name=a&role=b",
        "actor=a&accessor=b",
        f"path={quote('*/' * 20)}",
        f"name={'x' * 5000}",
    ):
        assert await status(node, "GET", f"sys/audit/entries?{wrong}") == 400, wrong
    for odd in ("path=" + quote("a(b[c\\{d^$.|?+"), "name=" + quote("'; --"), "path=" + quote("é/**")):
        assert await status(node, "GET", f"sys/audit/entries?{odd}") == 200, odd


async def test_a_mistyped_outcome(node: Node) -> None:
    """What an entry can never say is refused, with what it can; so it is in exports."""
    for place in ("entries", "export"):
        answer = await node.call("GET", f"sys/audit/{place}?outcome=refuzed")
        assert answer.status_code == 400
        assert "outcome is one of" in answer.json()["errors"][0]
        assert " refused," in answer.json()["errors"][0]
        for outcome in get_args(Outcome):
            assert await status(node, "GET", f"sys/audit/{place}?outcome={quote(outcome)}") == 200


async def test_an_entry_that_was_tampered_with_is_marked(node: Node) -> None:
    """A search shows entries that were edited or forged as such, and goes on."""
    url = node.settings.database_url
    await put(node, "a", {"n": 1})
    await ok(node, "GET", "secret/data/a")
    await ok(node, "GET", "secret/data/a")
    before = await integrity_failures(node)
    await sql(
        url,
        """UPDATE audit_entries SET actor = 'token:x:innocent' WHERE (stream, number) =
           (SELECT stream, number FROM audit_entries WHERE operation = 'kv.read' ORDER BY number LIMIT 1)""",
    )
    await sql(
        url,
        """INSERT INTO audit_entries
           SELECT 'x.y', -1, 1, kind, request_id, 'token:x:framed', operation, path, outcome, reason, client,
                  door, detail, hash, signature FROM audit_entries WHERE operation = 'kv.read' LIMIT 1""",
    )
    reads = await found(node, operation="kv.read", limit=1)
    assert [entry["integrity"] for entry in reads] == ["ok", "broken", "broken"]
    assert (await integrity_failures(node))["audit_entries"] > before.get("audit_entries", 0)


async def test_indexes_are_used(node: Node) -> None:
    """On a large ledger no criterion that names something reads through all entries."""
    url = node.settings.database_url
    await sql(
        url,
        """INSERT INTO audit_entries
           SELECT 'many', n, (extract(epoch FROM now()) * 1000000)::bigint - n, 'request', md5(n::text),
                  'token:' || left(md5((n % 500)::text) || md5(n::text), 36) || ':app-' || n % 500, 'kv.read',
                  'secret/data/' || n % 3000, 'done', '', '10.0.0.1', 'tls', '{}', ''::bytea, ''::bytea
           FROM generate_series(1, 60000) AS n""",
    )
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("ANALYZE audit_entries")
        for wanted in (
            "request_id=none",
            "name=app-7",
            "actor=token:x",
            "path=secret/data/17",
            "path=secret/data/17*",
            "operation=sys.seal",
            "outcome=denied",
        ):
            assert await _read(node, connection, wanted) < 5000, wanted
        assert await _read(node, connection, "client=192.0.2.99") >= 60000
    finally:
        await connection.close()


async def _read(node: Node, connection: asyncpg.Connection[Any], wanted: str) -> int:
    """Return how many entries a search reads, by an index or without."""
    counted = """SELECT sum(seq_tup_read + idx_tup_fetch) FROM pg_stat_user_tables
                 WHERE relname LIKE 'audit_entries%'"""
    await _flushed(node)
    before = await connection.fetchval(counted)
    assert await status(node, "GET", f"sys/audit/entries?{wanted}") == 200
    await _flushed(node)
    return int(await connection.fetchval(counted) - before)


async def _flushed(node: Node) -> None:
    """Return when the process's connections have told what they read."""
    database = node.process.core.database
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(node.settings.database_pool):
            lent = await stack.enter_async_context(database.read())
            await lent.execute("SELECT pg_stat_force_next_flush()")


async def test_the_command(cli: Cli) -> None:
    """The command shows entries as a table and as JSON, and says how to go on."""
    await put(cli.node, "a", {"n": 1})
    for _ in range(3):
        await cli.node.call("GET", "secret/data/a")
    shown = await cli("audit", "search", "--operation", "kv.read", "--path", "secret/data/*")
    assert shown.count("secret/data/a") == 3
    two = await cli.json("audit", "search", "--operation", "kv.read", "--limit", "2")
    assert len(two["entries"]) == 2
    rest = await cli.json("audit", "search", "--operation", "kv.read", "--after", two["next"])
    assert [entry["number"] for entry in two["entries"] + rest["entries"]] == sorted(
        (entry["number"] for entry in two["entries"] + rest["entries"]), reverse=True
    )
    assert len(rest["entries"]) == 1
    assert "duration" in await cli("audit", "search", "--since", "yesterday", code=1)
