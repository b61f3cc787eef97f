"""Two processes and their data keys: learning of new ones, whatever happens in between."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.gateway.behind import ledger_is_good, until
from tests.gateway.conftest import Node
from tests.gateway.key_steps import got, put, rotated, sealed_under, term
from tests.gateway.pair import second
from tests.gateway.second_process import Second

__all__ = ["second"]  # the fixture


async def test_a_process_that_stood_still_reads_what_a_new_key_sealed(node: Node, second: Second) -> None:
    """A process that was stopped during a rotation answers its first read with the new key's value."""
    await put(node, "a", k="old")
    assert (await second.call("GET", "secrets/a", node.root)).status_code == 200
    second.stop()
    await rotated(node, alone=False)
    await put(node, "a", k="new")
    assert await sealed_under(node.settings.database_url, "a") == [1, 2]
    asked = asyncio.create_task(second.call("GET", "secrets/a", node.root))
    second.go_on()
    answer = await asked
    assert answer.json()["data"]["data"] == {"k": "new"}


async def test_a_process_that_hears_nothing_fetches_the_key(node: Node, second: Second) -> None:
    """A process that heard of no rotation gets the key when it meets a value that is sealed with it."""
    core = node.process.core
    await node.process._keys.stop()
    assert (await second.call("PUT", "sys/rotate", node.root)).status_code == 204
    url = node.settings.database_url

    async def written() -> bool:
        answer = await second.call("POST", "secrets/a", node.root, json={"data": {"k": "v"}})
        assert answer.status_code == 200
        return (await sealed_under(url, "a"))[-1] == 2

    await until(written)
    assert core.keyring().newest == 1
    assert await got(node, "a") == {"k": "v"}
    assert (core.keyring().newest, core.keyring().sealing) == (2, 1)
    await node.process._keys.start()


async def test_a_key_made_through_one_process_is_told_by_the_other(node: Node, second: Second) -> None:
    """Whoever asks another process right after a rotation is told of the new key."""
    for number in (2, 3, 4):
        assert (await node.call("PUT", "sys/rotate")).status_code == 204
        status = (await second.call("GET", "sys/key-status", node.root)).json()["data"]
        assert status["term"] == number


async def test_rotations_at_once_lose_no_key(node: Node, second: Second) -> None:
    """Rotations through two processes at once end with keys that both of them know."""
    answers = await asyncio.gather(
        *(node.call("PUT", "sys/rotate") for _ in range(4)),
        *(second.call("PUT", "sys/rotate", node.root) for _ in range(4)),
    )
    assert {answer.status_code for answer in answers} == {204}
    newest = await term(node)
    assert 2 <= newest <= 9
    status = (await second.call("GET", "sys/key-status", node.root)).json()["data"]
    assert status["term"] == newest
    await ledger_is_good(node, state=True)


async def test_nothing_fails_while_keys_are_rotated(node: Node, second: Second) -> None:
    """No read, write, token or login fails on two processes while keys are rotated again and again."""
    await node.call("POST", "secrets/shared", json={"data": {"n": 0}})
    ended = asyncio.Event()
    failed: list[str] = []
    done = 0

    async def ask(process: Any, token: tuple[str, ...], number: int) -> None:
        nonlocal done
        path = f"secrets/own-{number}"
        while not ended.is_set():
            value = {"n": done}
            for method, place, body in (
                ("POST", path, {"data": value}),
                ("GET", path, None),
                ("GET", "secrets/shared", None),
                ("POST", "secrets/shared", {"data": value}),
                ("POST", "auth/token/create", {"policies": ["default"], "ttl": "1m"}),
            ):
                answer = await process.call(method, place, *token, json=body)
                if answer.status_code != 200:
                    failed.append(f"{method} {place}: {answer.status_code} {answer.text}")
                elif method == "GET" and place == path and answer.json()["data"]["data"] != value:
                    failed.append(f"{place}: {answer.text}")
                done += 1

    clients = [
        asyncio.create_task(ask(process, token, 10 * place + number))
        for place, (process, token) in enumerate(((node, ()), (second, (node.root,))))
        for number in range(3)
    ]
    for _ in range(3):
        await rotated(node, alone=False)
        before = done
        await until(lambda before=before: _beyond(lambda: done, before + 60))
    await until(lambda: _seal_with(node, 4))
    ended.set()
    await asyncio.gather(*clients)
    assert not failed, failed[:5]
    await ledger_is_good(node, state=True)


async def _seal_with(node: Node, number: int) -> bool:
    """Tell whether as many of the newest versions as there are clients are sealed with that data key."""
    return (await sealed_under(node.settings.database_url, "shared"))[-6:] == [number] * 6


async def _beyond(count: Any, least: int) -> bool:
    return bool(count() > least)
