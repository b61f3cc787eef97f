"""Lease-count quotas: how many leases there may be, exactly, on however many nodes they are asked for."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import hvac
import pytest
from hvac import exceptions

from secrethub.operations.leases import tell
from tests.gateway import lease_process
from tests.gateway.behind import entries, ledger_is_good, until
from tests.gateway.conftest import Node, node_settings
from tests.gateway.kv import ok, status
from tests.gateway.leased import creds, files, gone, leased, place
from tests.gateway.pair import healthy
from tests.gateway.second_process import started
from tests.gateway.shell import Cli

__all__ = ["leased", "place"]  # the fixtures

QUOTAS = "sys/quotas/lease-count"


async def refused(node: Any, path: str = "db/creds/app") -> dict[str, Any]:
    """Ask for a lease that there is no room for, and return the answer's body."""
    answer = await node.call("GET", path)
    assert answer.status_code == 429, answer.text
    assert int(answer.headers["retry-after"]) >= 1
    body: dict[str, Any] = answer.json()
    return body


async def test_no_more_leases_than_a_quota_allows(leased: Node, place: Path) -> None:
    """One too many is refused and written down, nothing happens at the target; an end makes room again."""
    await ok(leased, "POST", f"{QUOTAS}/mine", {"path": "db/", "max_leases": 2, "type": "lease-count"})
    made = [await creds(leased), await creds(leased, role="other")]
    body = await refused(leased)
    assert (body["code"], body["errors"]) == (
        "lease_quota_exceeded",
        ['request path "db/creds/app": lease count quota exceeded'],
    )
    assert len(files(place)) == 2
    seen = await entries(leased.settings.database_url, operation="folder.creds", outcome="failed")
    assert [entry["reason"].partition(":")[0] for entry in seen] == ["lease_quota_exceeded"]
    core = leased.process.core
    await tell(core)
    for name, value in (("leases", 2), ("most", 2)):
        labels = {"quota": "mine"}
        assert core.metrics.registry.get_sample_value(f"secrethub_lease_quota_{name}", labels) == value
    assert core.metrics.registry.get_sample_value("secrethub_lease_quota_refusals_total") == 1
    told = await ok(leased, "GET", f"{QUOTAS}/mine")
    assert told == {
        "name": "mine",
        "type": "lease-count",
        "path": "db/",
        "role": "",
        "max_leases": 2,
        "counter": 2,
        "inheritable": False,
    }
    await ok(leased, "PUT", "sys/leases/revoke", {"lease_id": made[0]["lease_id"], "sync": True})
    await creds(leased)
    await refused(leased)
    await ok(leased, "POST", f"{QUOTAS}/mine", {"max_leases": 3})
    await creds(leased)
    await refused(leased)
    await ok(leased, "DELETE", f"{QUOTAS}/mine")
    await creds(leased)
    assert await status(leased, "LIST", QUOTAS) == 404
    await tell(core)
    assert core.metrics.registry.get_sample_value("secrethub_lease_quota_most", {"quota": "mine"}) is None
    await ledger_is_good(leased, state=True)


async def test_it_holds_exactly_on_two_nodes(leased: Node, place: Path, tmp_path: Path) -> None:
    """However many ask at once on two nodes, as many get one as there may be, and the others nothing."""
    await ok(leased, "POST", f"{QUOTAS}/all", {"max_leases": 7})
    key = Path(leased.settings.cluster_key_file).read_text()
    settings = node_settings(tmp_path, leased.settings.database_url, "n2", key)
    async with started(settings, leased.tree.handles, lease_process.run, str(place)) as second:
        await until(lambda: healthy(second))
        answers = await asyncio.gather(
            *(
                (leased if number % 2 else second).call("GET", "db/creds/app", leased.root)
                for number in range(40)
            )
        )
    assert sorted(answer.status_code for answer in answers) == [200] * 7 + [429] * 33
    assert files(place) == {a.json()["data"]["username"] for a in answers if a.status_code == 200}
    assert (await ok(leased, "GET", f"{QUOTAS}/all"))["counter"] == 7
    await ledger_is_good(leased)


async def test_the_most_special_one_counts(leased: Node) -> None:
    """That of the role, of the path, of what begins so, of the mount, of everything: alone."""
    for name, body in (
        ("all", {"max_leases": 1}),
        ("mount", {"max_leases": 2, "path": "db"}),
        ("begins", {"max_leases": 3, "path": "db/creds/b*"}),
        ("path", {"max_leases": 1, "path": "db/creds/brief"}),
        ("role", {"max_leases": 4, "path": "db", "role": "fixed"}),
    ):
        await ok(leased, "POST", f"{QUOTAS}/{name}", body)
    for _ in range(2):
        await creds(leased)
    await refused(leased)
    for _ in range(4):
        await creds(leased, role="fixed")
    await refused(leased, "db/creds/fixed")
    await creds(leased, role="brief")
    await refused(leased, "db/creds/brief")
    counters = {}
    for name in (await ok(leased, "LIST", QUOTAS))["keys"]:
        counters[name] = (await ok(leased, "GET", f"{QUOTAS}/{name}"))["counter"]
    assert (counters["role"], counters["all"] >= 6, counters["mount"]) == (4, True, counters["all"])
    assert counters["begins"] == counters["path"] <= 1


async def test_quotas_go_and_follow_with_their_mount(leased: Node, place: Path) -> None:
    """A mount that moves takes its quotas along, of both kinds; one that is removed takes them away."""
    await ok(leased, "POST", f"{QUOTAS}/one", {"max_leases": 1, "path": "db/creds/app"})
    await ok(leased, "POST", "sys/quotas/rate-limit/fast", {"rate": 9000, "path": "db"})
    await ok(leased, "POST", f"{QUOTAS}/all", {"max_leases": 50})
    before = (await creds(leased))["data"]["username"]
    await ok(leased, "POST", "sys/remount", {"from": "db", "to": "other/db"})
    await gone(place, before)
    told = await ok(leased, "GET", f"{QUOTAS}/one")
    assert (told["path"], told["counter"]) == ("other/db/creds/app", 0)
    assert (await ok(leased, "GET", "sys/quotas/rate-limit/fast"))["path"] == "other/db/"
    await ok(leased, "GET", "other/db/creds/app")
    await refused(leased, "other/db/creds/app")
    await ok(leased, "DELETE", "sys/mounts/other/db")
    assert (await ok(leased, "LIST", QUOTAS))["keys"] == ["all"]
    assert await status(leased, "LIST", "sys/quotas/rate-limit") == 404
    await ledger_is_good(leased, state=True)


async def test_what_cannot_be_limited(leased: Node) -> None:
    """What makes no sense, or would not be done, is refused and leaves nothing behind."""
    for body in (
        {},
        {"max_leases": 0},
        {"max_leases": -1},
        {"max_leases": "many"},
        {"max_leases": 10**30},
        {"max_leases": 1, "path": "nowhere"},
        {"max_leases": 1, "path": "secret/"},
        {"max_leases": 1, "path": "auth/approle"},
        {"max_leases": 1, "path": "db/../sys"},
        {"max_leases": 1, "role": "app"},
        {"max_leases": 1, "path": "db/creds/app", "role": "app"},
        {"max_leases": 1, "type": "rate-limit"},
        {"max_leases": 1, "name": "y"},
        {"max_leases": 1, "rate": 5},
        {"max_leases": 1, "path": "db/creds/app\x00"},
    ):
        assert await status(leased, "POST", f"{QUOTAS}/x", body) == 400, body
    assert await status(leased, "LIST", QUOTAS) == 404


async def test_the_command_line_and_hvac(leased: Node, tmp_path: Path) -> None:
    """Quotas are written, shown, listed and lifted; whoever is refused is told what to do."""
    cli = Cli(leased, tmp_path)
    assert await cli("quota", "leases", "write", "few", "--max", "1", "--path", "db") == (
        "Quota few is written and in force.\n"
    )
    await creds(leased)
    shown = await cli.json("quota", "leases", "read", "few")
    assert (shown["max_leases"], shown["counter"], shown["path"]) == (1, 1, "db/")
    assert await cli.json("quota", "leases", "list") == ["few"]
    address = f"http://127.0.0.1:{leased.settings.http.port}"  # type: ignore[union-attr]
    client = hvac.Client(url=address, token=leased.root)
    with pytest.raises(exceptions.RateLimitExceeded, match="lease count quota exceeded"):
        await asyncio.to_thread(client.read, "db/creds/app")
    told = await asyncio.to_thread(client.read, f"{QUOTAS}/few")
    assert told["data"]["max_leases"] == 1
    assert await cli("quota", "leases", "delete", "few") == "Quota few is deleted.\n"
    assert "max_leases is from 1" in await cli("quota", "leases", "write", "few", code=1)
