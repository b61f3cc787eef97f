"""Secrets found by their paths and custom metadata, within what the caller may list."""

from __future__ import annotations

import base64
from typing import Any

from secrethub.storage.kv_search import SCANNED
from tests.gateway.behind import sql
from tests.gateway.conftest import Node, native
from tests.gateway.kv import ok, put, status


async def _found(node: Node, query: str, folder: str = "", **how: Any) -> list[str]:
    return list((await ok(node, "GET", f"secret/search{folder}?{query}", **how))["keys"])


async def test_what_is_found(node: Node) -> None:
    """Paths and custom metadata are searched, ASCII letters of either case, below a folder or everywhere."""
    for path in ("prod/db", "prod/web/DB-key", "dev/db", "other", "ünique/x"):
        await put(node, path, {"k": "dbcanary"})
    await ok(node, "POST", "secret/metadata/other", {"custom_metadata": {"Owner": 'the "DB" team'}})
    everything = await ok(node, "GET", "secret/search?q=db")
    assert everything["keys"] == ["dev/db", "other", "prod/db", "prod/web/DB-key"]
    assert everything["next"] == ""
    told = everything["key_info"]["other"]
    assert told["matched"] == ["custom_metadata"]
    assert (told["custom_metadata"], told["current_version"]) == ({"Owner": 'the "DB" team'}, 1)
    assert everything["key_info"]["dev/db"]["matched"] == ["path"]
    assert await _found(node, "q=DB", "/prod") == ["prod/db", "prod/web/DB-key"]
    assert await _found(node, "q=prod", "/prod") == []
    assert await _found(node, "q=owner") == ["other"]
    assert await _found(node, 'q="db"') == ["other"]
    assert await _found(node, "q=ünique") == ["ünique/x"]
    assert await _found(node, "q=dbcanary") == await _found(node, "q=%25") == []
    assert len(await _found(node, "")) == 5
    assert await status(node, "GET", "secret/search?q=" + "x" * 257) == 400
    assert await status(node, "GET", "secret/search?limit=x") == 400


async def test_pages(node: Node) -> None:
    """Page after page everything is found once, also where a page looks at few and finds none."""
    hits = [f"{folder}/hit{number}" for folder in "az" for number in range(3)]
    for path in (*hits, "m"):
        await put(node, path, {})
    # Between them more than a page looks at. What is not found is not authenticated.
    await sql(
        node.settings.database_url,
        """INSERT INTO kv_secrets
           SELECT store, 'm/' || n, id || n, revision, current_version, oldest_version, max_versions,
                  cas_required, delete_version_after, custom_metadata, created_at, updated_at, versions, mac
           FROM kv_secrets, generate_series(1, $1::int) AS n WHERE path = 'm'""",
        2 * SCANNED + 10,
    )
    for limit in (1, 2, 100):
        found: list[str] = []
        after, empty = "", 0
        while True:
            page = await ok(node, "GET", f"secret/search?q=hit&limit={limit}&after={after}")
            assert len(page["keys"]) <= limit
            found += page["keys"]
            empty += not page["keys"]
            after = page["next"]
            if not after:
                break
        assert empty
        assert found == hits


async def test_a_page_that_ends_at_what_is_hidden(node: Node) -> None:
    """Where a page ends is not told in clear, and nobody begins one at a name that he guesses."""
    for path in ("a/hidden", "a/hit", "z/hit"):
        await put(node, path, {})
    await sql(
        node.settings.database_url,
        """INSERT INTO kv_secrets
           SELECT store, path || '/' || n, id || n, revision, current_version, oldest_version, max_versions,
                  cas_required, delete_version_after, custom_metadata, created_at, updated_at, versions, mac
           FROM kv_secrets, generate_series(1, $1::int) AS n WHERE path = 'a/hidden'""",
        SCANNED,
    )
    document = native("secrets/**", capabilities=("list",))
    document["statements"].append({"effect": "deny", "paths": ["secrets/a/hidden/**"], "capabilities": ["*"]})
    token = await node.token("seeing", document)
    found: list[str] = []
    page = await ok(node, "GET", "secret/search?q=hit", token=token)
    assert page["next"]
    while page["next"]:
        assert b"hidden" not in base64.urlsafe_b64decode(page["next"])
        found += page["keys"]
        page = await ok(node, "GET", f"secret/search?q=hit&after={page['next']}", token=token)
    assert [*found, *page["keys"]] == ["a/hit", "z/hit"]
    assert await status(node, "GET", "secret/search?q=hit&after=a/hidden", token=token) == 400


async def test_only_what_may_be_listed_is_found(node: Node) -> None:
    """Nothing is found that a list would not show, and by metadata only what may be read of it."""
    for path in ("a/x", "a/secret", "a/deep/x", "b/x"):
        await put(node, path, {})
        await ok(node, "POST", f"secret/metadata/{path}", {"custom_metadata": {"label": "findme"}})
    listing = {"capabilities": ["list"]}
    reading = {"capabilities": ["read", "list"]}
    deny = {"capabilities": ["deny"]}
    searching = {"secret/search/*": {"capabilities": ["read"]}, "secret/search": {"capabilities": ["read"]}}
    for name, policy, by_path, by_metadata in (
        ("l", {"path": {"secret/metadata/a/*": listing} | searching}, ["a/deep/x", "a/secret", "a/x"], []),
        ("r", {"path": {"secret/metadata/a/*": reading} | searching}, ["a/deep/x", "a/secret", "a/x"], "all"),
        (
            "d",
            {"path": {"secret/metadata/a/*": reading, "secret/metadata/a/secret": deny} | searching},
            ["a/deep/x", "a/x"],
            "all",
        ),
        ("n", native("secrets/a/**", capabilities=("list",)), ["a/deep/x", "a/secret", "a/x"], []),
        (
            "m",
            native("secrets/a/*", capabilities=("list", "read")),
            ["a/deep/x", "a/secret", "a/x"],
            ["a/secret", "a/x"],
        ),
    ):
        token = await node.token(name, policy)
        assert await _found(node, "q=", "/a", token=token) == by_path, name
        expected = by_path if by_metadata == "all" else by_metadata
        assert await _found(node, "q=findme", "/a", token=token) == expected, name
        shown = (await node.call("GET", "secret/search/a", token)).text
        assert ("findme" in shown) == bool(by_metadata), name
        if "path" in policy:
            assert await _found(node, "q=x", token=token) == [p for p in by_path if "x" in p], name
        else:
            assert await status(node, "GET", "secret/search?q=x", token=token) == 403
    blind = await node.token("blind", {"path": searching})
    assert await _found(node, "q=x", token=blind) == []


async def test_an_edited_secret_is_not_found(node: Node) -> None:
    """Custom metadata that somebody wrote into the database is refused, not shown."""
    await put(node, "a", {})
    await sql(node.settings.database_url, """UPDATE kv_secrets SET custom_metadata = '{"forged":"yes"}'""")
    node.process.core.caches.flush()
    answer = await node.call("GET", "secret/search?q=forged")
    assert (answer.status_code, answer.json()["code"]) == (500, "integrity_failure")
