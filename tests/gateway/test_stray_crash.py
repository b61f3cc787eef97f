"""Killed while users without a lease are removed: what was begun is done by whoever does it again."""

from __future__ import annotations

import asyncio

import httpx2
import pytest

from secrethub.engines.database.usernames import cluster_tag
from tests.gateway.behind import ledger_is_good, until
from tests.gateway.conftest import Node
from tests.gateway.database_target import TargetDatabase
from tests.gateway.databases import MOUNT, creds, ready, target
from tests.gateway.kv import ok
from tests.gateway.second_process import Second
from tests.gateway.stray_searches import due, searched
from tests.gateway.test_database_crash import doomed

__all__ = ["doomed", "ready", "target"]  # the fixtures

_MORE_THAN_A_BATCH = 201


async def _peopled(node: Node, target: TargetDatabase) -> tuple[set[str], list[str]]:
    """Have users at the target; return those that are to stay, and those that have no lease."""
    tag = cluster_tag(node.process.core.keys.cluster_id)
    strays = [f"v-x-{tag}-{number:024}" for number in range(_MORE_THAN_A_BATCH)]
    theirs = f"v-x-{'0' * 12}-{'A' * 24}"
    made = "".join(f'CREATE ROLE "{user}" LOGIN; ' for user in (*strays, theirs))
    await target.sql(f"DO $$ BEGIN {made} END $$")
    return {(await creds(node))["data"]["username"], theirs}, strays


@pytest.mark.parametrize(
    ("said", "lost", "left"),
    [
        ("DROP OWNED", True, _MORE_THAN_A_BATCH),  # nothing of it came to the target
        ("DROP OWNED", False, _MORE_THAN_A_BATCH),  # done there, and rolled back
        ("COMMIT", False, 1),  # the first batch is gone, and nobody was told
        ("last", True, 1),  # between two batches
    ],
)
async def test_a_removal_that_was_killed_is_done_again(
    ready: Node, doomed: Second, target: TargetDatabase, said: str, *, lost: bool, left: int
) -> None:
    """Wherever it dies, whoever has a lease or is another cluster's stays; repeated, the others are gone."""
    kept, strays = await _peopled(ready, target)
    text = f'"{strays[-1]}"' if said == "last" else said
    target.proxy.set(text.encode(), lost=lost)
    asking = asyncio.create_task(doomed.call("POST", f"{MOUNT}/strays/db", ready.root))
    await target.proxy.sprung.wait()
    doomed.kill()
    with pytest.raises(httpx2.HTTPError):
        await asking
    target.proxy.cut()

    async def found() -> bool:
        # What it asks with first may have been cut off, too.
        answer = await ready.call("GET", f"{MOUNT}/strays/db")
        return answer.status_code == 200 and answer.json()["data"]["strays"] == strays[-left:]

    await until(found)
    assert await target.users() == kept | set(strays[-left:])
    done = await ok(ready, "POST", f"{MOUNT}/strays/db")
    assert (done["removed"], done["failed"]) == (strays[-left:], {})
    assert await target.users() == kept
    await ledger_is_good(ready, state=True)


async def test_a_search_that_was_killed_is_done_by_another(
    ready: Node, doomed: Second, target: TargetDatabase
) -> None:
    """A node dies while it removes what its search found: once its claim is over another's search does it."""
    kept, _ = await _peopled(ready, target)
    await ready.tree.workplace.take_back()  # only the second process searches
    await ok(ready, "POST", f"{MOUNT}/config/db", target.config(remove_strays=True))
    target.proxy.set(b"COMMIT", lost=False)
    await due(ready)
    await target.proxy.sprung.wait()
    doomed.kill()
    target.proxy.cut()

    async def half_done() -> bool:
        return len(await target.users()) == len(kept) + 1

    await until(half_done)
    await ready.tree.workplace.lend(ready.process.core)
    assert await searched(ready) == (0, [])
    assert await target.users() == kept
    await ledger_is_good(ready, state=True)
