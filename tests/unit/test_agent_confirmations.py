"""When an agent says that a version is in use."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from agent.confirmations import Confirmations
from secrethub.wire.messages import Confirm


@dataclass(eq=False)
class File:
    """A file that holds secrets."""

    paths: set[str] = field(default_factory=set)


async def test_the_last_file_counts() -> None:
    """A secret in two files is confirmed when both have it, one in none when the cache has it."""
    said: list[tuple[str, int]] = []

    async def tell(message: Confirm) -> None:
        said.append((message.path, message.version))

    async def settled() -> list[tuple[str, int]]:
        for _ in range(3):
            await asyncio.sleep(0)
        found = list(said)
        said.clear()
        return found

    confirmations = Confirmations(tell)
    one, two = File({"secrets/a", "secrets/b"}), File({"secrets/a"})
    confirmations.watch_over([one, two])
    running = asyncio.create_task(confirmations.run())
    confirmations.delivered(one, {"secrets/a": 2, "secrets/b": 5})
    assert await settled() == [("secrets/b", 5)]
    confirmations.delivered(two, {"secrets/a": 1})
    assert await settled() == [("secrets/a", 1)]
    confirmations.delivered(two, {"secrets/a": 2})
    confirmations.cached("secrets/a", 3)
    confirmations.cached("secrets/c", 7)
    assert await settled() == [("secrets/a", 2), ("secrets/c", 7)]
    running.cancel()
