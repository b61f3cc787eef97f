"""A seal ends when nobody has keys any more, and names who did not say so."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest

from actors.tree import SEAL_STATE
from secrethub.crypto.keyring import Keyring
from secrethub.errors import Sealed
from secrethub.storage.restore import commit_rolled_back
from serve.wiring import Process
from tests.gateway.behind import sql, until
from tests.gateway.conftest import Node, node_settings, running
from tests.gateway.pair import healthy, second
from tests.gateway.second_process import Second
from tests.gateway.standstill import standing_still

__all__ = ["second"]  # the fixture


async def test_a_seal_waits_for_every_process(node: Node, second: Second) -> None:
    """When the seal is answered no process holds keys, and none of them answers a secret."""
    await node.call("POST", "secret/data/a", json={"data": {"k": "v"}})
    holders = await sql(node.settings.database_url, "SELECT shown FROM key_users ORDER BY shown")
    assert [row["shown"] for row in holders] == ["n1/single", "n2/second"]
    answer = await node.call("PUT", "sys/seal")
    assert answer.status_code == 204, answer.text
    assert not await sql(node.settings.database_url, "SELECT 1 FROM key_users")
    for process in (node, second):
        assert (await process.call("GET", "secret/data/a", node.root)).status_code == 503


async def test_a_process_that_does_not_answer_is_named_and_fenced(node: Node, second: Second) -> None:
    """A stopped process keeps nobody from sealing; it is named, and answers nothing when it goes on."""
    await node.call("POST", "secret/data/a", json={"data": {"k": "v"}})
    assert (await second.call("GET", "secret/data/a", node.root)).status_code == 200
    second.stop()
    answer = await node.call("PUT", "sys/seal")
    assert answer.status_code == 200, answer.text
    assert answer.json()["data"] == {"sealed": True, "unreached": ["n2/second"]}
    assert "n2/second" in answer.json()["warnings"][0]
    second.go_on()
    assert (await second.call("GET", "secret/data/a", node.root)).status_code == 503

    async def dropped() -> bool:
        return not await sql(node.settings.database_url, "SELECT 1 FROM key_users")

    await until(dropped)


async def test_no_process_has_keys_that_a_seal_knows_nothing_of(node: Node, tmp_path: Path) -> None:
    """A process says that it has keys before it asks for them: none are under way when a seal is answered."""
    before = open_keyrings()
    key = Path(node.settings.cluster_key_file).read_text()
    settings = node_settings(tmp_path, node.settings.database_url, "n2", key)
    late = Process(settings, node.tree.handles, ("gateway",), "late")
    try:
        async with standing_still(
            node.settings.database_url, "INSERT ON key_users", "NEW.shown = 'n2/late'"
        ) as reached:
            await late.start()
            await reached()
            assert (await node.call("PUT", "sys/seal")).status_code == 204
            known = {id(one) for one in before}
            assert not [one for one in open_keyrings() if id(one) not in known]
        assert not late.core.keys.held
    finally:
        await late.stop()


async def test_a_process_that_waits_for_keys_does_not_write_all_the_time(node: Node) -> None:
    """Where nobody has an open cluster's keys, who asks for them says so now and then; a seal ends it."""
    url = node.settings.database_url
    await node.process.stop()
    await node.tree.stop()
    async with running(node.settings) as again:
        core, said, steps = again.process.core, set[str](), 20
        for _ in range(steps):
            with pytest.raises(Sealed):
                await again.process._keys.step()
            rows = await sql(url, "SELECT xmin::text FROM key_users")
            said.update(row["xmin"] for row in rows)
        assert 1 <= len(said) <= steps // 2
        await commit_rolled_back(core.database, "older", known=1)

        async def dropped() -> bool:
            return not await sql(url, "SELECT 1 FROM key_users")

        await until(dropped)


def open_keyrings() -> list[Keyring]:
    """Keyrings in this process that are not wiped."""
    return [one for one in gc.get_objects() if type(one) is Keyring and not one._wiped]


async def test_a_process_that_was_stopped_long_ago_is_named(node: Node, second: Second) -> None:
    """Who is silent for minutes is gone only where nothing of it is left: a stopped process has keys."""
    second.stop()
    await _long_silent(node)

    async def said_again() -> bool:
        shown = "SELECT 1 FROM key_users WHERE shown = 'n1/single' AND seen_at > $1"
        return bool(await sql(node.settings.database_url, shown, at))

    # The others forget who is gone each time that they speak.
    at = (await sql(node.settings.database_url, "SELECT clock_timestamp() AS at"))[0]["at"]
    await until(said_again)
    answer = await node.call("PUT", "sys/seal")
    assert answer.json()["data"]["unreached"] == ["n2/second"]
    second.go_on()


async def test_a_killed_process_is_forgotten(node: Node, second: Second) -> None:
    """A process that ended without a word is named by a seal soon after, and by none later."""
    second.kill()
    await _long_silent(node)
    assert (await node.call("PUT", "sys/seal")).status_code == 204


async def test_a_gateway_has_data_keys_and_no_root_key(node: Node, second: Second) -> None:
    """Whatever of the seal goes through a gateway, the root key is nowhere in its memory; data keys are."""

    async def root_key() -> bytes:
        state: Any = await node.tree.handles.find(SEAL_STATE)
        root: bytes = state._held.reveal()
        return root

    roots = [await root_key()]
    begun = await second.call("PUT", "sys/rekey/init", node.root, json=_REKEY)
    made = {"key": "", "nonce": begun.json()["nonce"]}
    for share in node.shares[:3]:
        answer = await second.call("PUT", "sys/rekey/update", "", json={**made, "key": share})
    roots.append(await root_key())
    assert (await second.call("PUT", "sys/rotate", node.root)).status_code == 204
    assert (await second.call("PUT", "sys/seal", node.root)).status_code == 204
    for share in answer.json()["keys"]:
        await second.call("PUT", "sys/unseal", "", json={"key": share})
    for process in (second, node):
        await until(lambda process=process: healthy(process))
    roots.append(await root_key())
    assert len({*roots}) >= 2
    data_key = bytes(node.process.core.keyring()._keys[1])
    second.stop()
    try:
        found = in_memory(second.pid, data_key, *roots)
    except PermissionError:
        pytest.skip("whoever runs the tests may not look into processes that are not dumpable")
    assert found == [True] + [False] * len(roots)


_REKEY = {"secret_shares": 2, "secret_threshold": 2}


def in_memory(pid: int, *wanted: bytes) -> list[bool]:
    """Tell which of some bytes are in what a process can write to."""
    found = set[bytes]()
    with Path(f"/proc/{pid}/mem").open("rb", 0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text("utf-8").splitlines():
            place, rights, *_ = line.split()
            if rights.startswith("rw"):
                start, end = (int(number, 16) for number in place.split("-"))
                memory.seek(start)
                content = memory.read(end - start)
                found.update(one for one in wanted if one in content)
    return [one in found for one in wanted]


async def _long_silent(node: Node) -> None:
    await sql(
        node.settings.database_url,
        "UPDATE key_users SET seen_at = seen_at - interval '2 minutes' WHERE shown = 'n2/second'",
    )
