"""Data keys over HTTP: rotation by hand and by itself, counting, and what is refused."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from secrethub.engines.data_keys import BLOCK
from secrethub.operations.key_rotation import rotate_when_due
from secrethub.operations.transport_ca import issue_gateway_certificate
from secrethub.storage.data_keys import MAX_USES
from serve.timing import Timing
from serve.wiring import Process
from tests.gateway.authority_core import MovingClock
from tests.gateway.behind import entries, ledger_is_good, sql, until
from tests.gateway.conftest import SHARING, Node, native, node_settings
from tests.gateway.key_steps import got, put, rotated, sealed_under, seals_with, term
from tests.gateway.pair import healthy
from tests.gateway.second_process import started
from tests.gateway.standstill import standing_still

MOST = 3_865_470_566
HOUR = timedelta(hours=1)


async def test_a_new_key_seals_and_the_old_one_still_opens(node: Node) -> None:
    """After a rotation new values are sealed with the new key, and old ones are read as before."""
    url = node.settings.database_url
    await put(node, "a", k="old")
    before = (await node.call("GET", "sys/key-status")).json()
    assert before["data"]["term"] == before["term"] == 1
    assert await rotated(node) == 2
    after = (await node.call("GET", "sys/key-status")).json()["data"]
    assert after["term"] == 2
    assert after["install_time"] >= before["data"]["install_time"]
    await put(node, "a", k="new")
    assert await sealed_under(url, "a") == [1, 2]
    assert (await got(node, "a"), await got(node, "a", 1)) == ({"k": "new"}, {"k": "old"})
    told = [(entry["kind"], entry["outcome"]) for entry in await entries(url, operation="sys.rotate")]
    assert told == [("intent", "begun"), ("event", "intent"), ("event", "done"), ("outcome", "done")]
    await ledger_is_good(node)


async def test_tokens_and_certificates_outlive_rotations(node: Node) -> None:
    """Tokens, accessors, cubbyholes, wrapped answers and the authorities of before work after rotations."""
    await node.call("POST", "secrets/app", json={"data": {"k": "v"}})
    token = await node.token("reader", native("secrets/app"))
    wrapping = (await node.call("GET", "secrets/app", headers={"X-Vault-Wrap-TTL": "5m"})).json()
    assert (await node.call("POST", "cubbyhole/mine", json={"x": "y"})).status_code == 204
    accessor = (await node.call("GET", "auth/token/lookup-self", token)).json()["data"]["accessor"]
    for number in (2, 3):
        assert await rotated(node) == number
    assert (await node.call("GET", "secrets/app", token)).status_code == 200
    found = (await node.call("POST", "auth/token/lookup-accessor", json={"accessor": accessor})).json()
    assert found["data"]["accessor"] == accessor
    assert (await node.call("GET", "cubbyhole/mine")).json()["data"] == {"x": "y"}
    opened = await node.call("POST", "sys/wrapping/unwrap", wrapping["wrap_info"]["token"])
    assert opened.json()["data"]["data"] == {"k": "v"}
    chain, _ = await issue_gateway_certificate(node.process.core, "n1", (), ("127.0.0.1",))
    assert chain.startswith(b"-----BEGIN CERTIFICATE-----")


async def test_who_rotates_needs_sudo(node: Node) -> None:
    """Without sudo nobody makes a key or changes when one is made; the status is for whoever may read it."""
    policy = native("sys/rotate", "sys/rotate/config", "sys/key-status", capabilities=("read", "update"))
    token = await node.token("operator", policy)
    for path in ("sys/rotate", "sys/rotate/config"):
        assert (await node.call("PUT", path, token, json={})).status_code == 403
    assert (await node.call("GET", "sys/rotate/config", token)).status_code == 200
    assert (await node.call("GET", "sys/key-status", token)).status_code == 200
    stranger = await node.token("nothing", native("secrets/none"))
    for path in ("sys/rotate/config", "sys/key-status"):
        assert (await node.call("GET", path, stranger)).status_code == 403
    assert await term(node) == 1


@SHARING
@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"interval": "1h"}, "interval must be greater or equal to 24h0m0s"),
        ({"max_operations": 999_999}, "max_operations must be in the range"),
        ({"max_operations": MOST + 1}, "max_operations must be in the range"),
        ({"interval": "tomorrow"}, ""),
        ({"enabled": "perhaps"}, ""),
    ],
)
async def test_impossible_settings_are_refused(shared_node: Node, body: dict[str, Any], reason: str) -> None:
    """Settings beyond their limits answer 400 and change nothing."""
    answer = await shared_node.call("POST", "sys/rotate/config", json=body)
    assert answer.status_code == 400
    assert reason in answer.json()["errors"][0]
    found = (await shared_node.call("GET", "sys/rotate/config")).json()["data"]
    assert found == {"enabled": True, "interval": 0, "max_operations": MOST}


async def test_settings_are_changed_one_by_one(node: Node) -> None:
    """What is not given stays; durations and numbers are taken as Vault takes them."""
    assert (await node.call("POST", "sys/rotate/config", json={"interval": "4320h"})).status_code == 204
    answer = await node.call("POST", "sys/rotate/config", json={"max_operations": "2000000"})
    assert answer.status_code == 204
    found = (await node.call("GET", "sys/rotate/config")).json()["data"]
    assert found == {"enabled": True, "interval": "4320h0m0s", "max_operations": 2_000_000}
    warned = await node.call("POST", "sys/rotate/config", json={"enabled": False, "interval": 0})
    assert "rotate in time" in warned.json()["warnings"][0]
    found = (await node.call("GET", "sys/rotate/config")).json()["data"]
    assert found == {"enabled": False, "interval": 0, "max_operations": 2_000_000}


async def test_a_key_that_was_used_often_is_followed_by_another(node: Node) -> None:
    """A key is rotated once it reached its number of uses, unless that was switched off."""
    core, url = node.process.core, node.settings.database_url
    assert await rotate_when_due(core) is None
    await sql(url, "UPDATE data_keys SET reserved = $1", MOST)
    await node.call("POST", "sys/rotate/config", json={"enabled": False})
    assert await rotate_when_due(core) is None
    await node.call("POST", "sys/rotate/config", json={"enabled": True})
    assert await rotate_when_due(core) == 2
    assert await rotate_when_due(core) is None
    begun = await entries(url, operation="sys.rotate", outcome="begun")
    assert [(entry["actor"], entry["reason"]) for entry in begun] == [("system", "data key 1 is used often")]
    await ledger_is_good(node)


async def test_a_key_that_is_old_is_followed_by_another(node: Node) -> None:
    """A key is rotated once it is as old as the settings say, and not before."""
    core = node.process.core
    await node.call("POST", "sys/rotate/config", json={"interval": "48h"})
    clock = core.clock = MovingClock()
    clock.ahead += 47 * HOUR
    assert await rotate_when_due(core) is None
    clock.ahead += 1 * HOUR
    assert await rotate_when_due(core) == 2


@pytest.mark.parametrize("timing", [Timing(keys=0.1)])
async def test_nobody_has_to_ask_for_a_key_that_is_due(node: Node) -> None:
    """A node looks after its keys by itself: one that is used often or old is followed, and no other."""
    await sql(node.settings.database_url, "UPDATE data_keys SET reserved = $1", MOST)
    await until(lambda: _is(node, 2))
    await node.call("POST", "sys/rotate/config", json={"interval": "48h"})
    node.clock.move(47 * 3600)
    assert await rotate_when_due(node.process.core) is None
    node.clock.move(48 * 3600 + 60)
    await until(lambda: _is(node, 3))
    begun = await entries(node.settings.database_url, operation="sys.rotate", outcome="begun")
    assert [entry["reason"] for entry in begun] == ["data key 1 is used often", "data key 2 is old"]


async def _is(node: Node, number: int) -> bool:
    return await term(node) == number


async def test_several_who_rotate_at_once_make_one_key(node: Node) -> None:
    """Of many who find at the same time that a key is due, one makes the next."""
    core, url = node.process.core, node.settings.database_url
    await sql(url, "UPDATE data_keys SET reserved = $1", MOST)
    assert await asyncio.gather(*(rotate_when_due(core) for _ in range(8))) == [2] * 8
    assert await term(node) == 2


async def test_no_key_seals_more_than_it_may(node: Node) -> None:
    """Where no more uses can be reserved nothing is written, everything is read, and a new key mends it."""
    core, url = node.process.core, node.settings.database_url
    await put(node, "a", k="v")
    await node.call("POST", "sys/rotate/config", json={"enabled": False})
    await sql(url, "UPDATE data_keys SET reserved = $1", MAX_USES)
    core.keyring()._left = 1
    await put(node, "b", k="last")
    refused = await node.call("POST", "secrets/c", json={"data": {"k": "v"}})
    assert refused.status_code == 503
    assert "reserved" in refused.text
    assert (await node.call("GET", "secrets/c")).status_code == 404
    assert await got(node, "b") == {"k": "last"}
    await rotated(node)
    await put(node, "c", k="v")
    assert await sealed_under(url, "c") == [2]
    await ledger_is_good(node)


async def test_a_process_starts_with_a_key_that_may_not_be_used(node: Node, tmp_path: Path) -> None:
    """Where the key was used up a restarted process reads and rotates, and only does not write."""
    url = node.settings.database_url
    await put(node, "a", k="v")
    await sql(url, "UPDATE data_keys SET reserved = $1", MAX_USES)
    settings = node_settings(tmp_path, url, "n2", Path(node.settings.cluster_key_file).read_text())
    async with started(settings, node.tree.handles) as second:
        await until(lambda: healthy(second))
        assert (await second.call("GET", "secrets/a", node.root)).status_code == 200
        written = await second.call("POST", "secrets/a", node.root, json={"data": {"k": "w"}})
        assert written.status_code == 503
        assert (await second.call("PUT", "sys/rotate", node.root)).status_code == 204

        async def writes() -> bool:
            answer = await second.call("POST", "secrets/a", node.root, json={"data": {"k": "w"}})
            return answer.status_code == 200

        await until(writes)


async def test_what_is_counted_outlives_the_process(node: Node) -> None:
    """Uses are reserved before they are made, so that nothing is forgotten when a process ends."""
    core, url = node.process.core, node.settings.database_url

    async def counted() -> int:
        return int((await sql(url, "SELECT reserved FROM data_keys WHERE number = 1"))[0]["reserved"])

    first = await counted()
    left = core.keyring().left
    assert left is not None
    assert left <= first
    core.keyring()._left = 10
    await until(lambda: _more(counted, first))
    assert (core.keyring().left or 0) > 10
    status = (await node.call("GET", "sys/key-status")).json()["data"]
    assert status["encryptions"] == await counted()


async def test_uses_of_a_killed_process_stay_counted(node: Node, tmp_path: Path) -> None:
    """What a process had reserved when it was killed counts as used, and the next one reserves its own."""
    url = node.settings.database_url

    async def counted() -> int:
        return int((await sql(url, "SELECT reserved FROM data_keys WHERE number = 1"))[0]["reserved"])

    settings = node_settings(tmp_path, url, "n2", Path(node.settings.cluster_key_file).read_text())
    before = await counted()
    for killed in range(1, 4):
        async with started(settings, node.tree.handles) as process:
            await until(lambda: healthy(process))
            written = await process.call("POST", "secrets/a", node.root, json={"data": {"n": killed}})
            assert written.status_code == 200
            process.kill()
        assert await counted() == before + killed * BLOCK
    assert await sealed_under(url, "a") == [1, 1, 1]


async def test_uses_are_counted_first(node: Node, tmp_path: Path) -> None:
    """While a process that has just got its keys reserves uses of them, nothing in it can seal with them."""
    url = node.settings.database_url
    settings = node_settings(tmp_path / "late", url, "n1", Path(node.settings.cluster_key_file).read_text())
    late = Process(settings, node.tree.handles, ("gateway",), "late")
    try:
        async with standing_still(url, "INSERT ON data_keys") as reached:
            await late.start()
            await reached()
            assert not late.core.keys.held
        await until(lambda: _open(late))
        assert late.core.keyring().left
    finally:
        await late.stop()


async def _open(process: Process) -> bool:
    return process.core.opened.is_set()


async def _more(counted: Any, first: int) -> bool:
    return bool(await counted() > first)


async def test_a_damaged_number_is_damage(node: Node) -> None:
    """A value whose key number was changed to one that does not exist answers 500, and is in the ledger."""
    url = node.settings.database_url
    await put(node, "a", k="v")
    await sql(url, "UPDATE kv_versions SET sealed = set_byte(sealed, 4, 77)")
    for _ in range(2):
        # By its number: the newest version is still in the memory of the process that wrote it.
        answer = await node.call("GET", "secrets/a", params={"version": "1"})
        assert (answer.status_code, answer.json()["code"]) == (500, "decryption_failed")
    told = [entry["reason"] for entry in await entries(url, operation="kv.read", outcome="refused")]
    assert told == ["decryption_failed: data key 77 is not in the keyring"] * 2
    await rotated(node)
    assert await seals_with(node, 2)


async def test_a_sealed_cluster_makes_no_key(node: Node) -> None:
    """After a seal nobody rotates; after the unseal the keys of before are there."""
    await rotated(node)
    await put(node, "a", k="v")
    assert (await node.call("PUT", "sys/seal")).status_code == 204
    assert (await node.call("PUT", "sys/rotate")).status_code == 503
    await node.unseal()
    assert await term(node) == 2
    assert await got(node, "a") == {"k": "v"}
