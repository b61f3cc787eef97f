"""What a process keeps of the secrets that it wrote itself."""

from __future__ import annotations

from secrethub.engines.kv.cache import SecretCache
from secrethub.engines.kv.store import cache_of
from tests.gateway.behind import sql
from tests.gateway.conftest import Node


async def _key(node: Node, path: str) -> str:
    """Return what the newest version of a secret is kept as."""
    found = await sql(node.settings.database_url, "SELECT store FROM kv_secrets WHERE path = $1", path)
    return f"{found[0]['store']}/{path}"


async def _write(node: Node, path: str, value: str) -> None:
    answer = await node.call("POST", f"secrets/{path}", json={"data": {"k": value}})
    assert answer.status_code == 200, answer.text


async def _value(node: Node, path: str) -> object:
    answer = await node.call("GET", f"secrets/{path}")
    return answer.json()["data"]["data"]["k"] if answer.status_code == 200 else answer.status_code


async def test_what_was_written_is_not_fetched(node: Node) -> None:
    """Writing again and reading need no look at the secret's rows."""
    url = node.settings.database_url
    await _write(node, "kept", "first")
    await sql(url, "UPDATE kv_versions SET sealed = sealed || 'x'::bytea")
    assert await _value(node, "kept") == "first"
    for number in range(3):
        await _write(node, "kept", f"value {number}")
        assert await _value(node, "kept") == f"value {number}"
    versions = (await node.call("GET", "secret/metadata/kept")).json()["data"]["versions"]
    assert sorted(versions) == ["1", "2", "3", "4"]


async def test_only_its_own_announcement_may_have_come(node: Node) -> None:
    """A version is not kept when the secret was removed, made anew or written since, or all dropped."""
    core = node.process.core
    cache = cache_of(core)
    await _write(node, "kept", "first")
    key = await _key(node, "kept")
    start = core.caches.position

    def keep(since: int) -> bool:
        cache.written(key, head, sealed, since)
        kept = cache.kept(key)
        return kept is not None and kept.found == (head, version)

    await _write(node, "kept", "second")
    kept = cache.kept(key)
    assert kept is not None
    head, version = kept.found
    assert version is not None
    assert version.sealed is not None
    sealed = version.sealed
    assert keep(start)
    await node.call("DELETE", "secret/metadata/kept")
    assert cache.kept(key) is None
    assert not keep(start)
    assert await _value(node, "kept") == 404
    await _write(node, "kept", "anew")
    await _write(node, "kept", "anew, with the same revision")
    assert not keep(start)
    assert await _value(node, "kept") == "anew, with the same revision"
    core.caches.flush()
    assert not keep(start)


async def test_what_answers_say_takes_its_room(node: Node) -> None:
    """Whatever is kept of secrets and their custom metadata, all of it counts."""
    room = 200_000
    node.process.core.engine_state["kv"] = SecretCache(node.process.core, room=room)
    metadata = {f"name {number}": "x" * 500 for number in range(40)}
    for number in range(8):
        path = f"secret/metadata/s{number}"
        assert (await node.call("POST", path, json={"custom_metadata": metadata})).status_code == 204
        await _write(node, f"s{number}", "v")
        for _ in range(3):
            assert await _value(node, f"s{number}") == "v"
    kept = cache_of(node.process.core)._entries.values()
    told = [len(bytes(one.told)) for one in kept if one.told is not None]
    assert min(told) > 20_000
    assert sum(told) + sum(len(one.found[0].custom_metadata) for one in kept) < room
