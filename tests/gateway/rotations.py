"""What tests of rotations share."""

from __future__ import annotations

from typing import Any

from tests.gateway.behind import until
from tests.gateway.conftest import Node
from tests.gateway.kv import ok

STEPS = ("create", "verify", "promote", "confirm", "retire")


async def configured(node: Node, path: str = "secrets/app", **body: Any) -> None:
    """Have a secret rotated."""
    await ok(node, "POST", f"sys/rotation/config/{path}", {"rotator": "generated", **body})


async def history(node: Any, path: str = "secrets/app", token: str | None = None) -> list[dict[str, Any]]:
    """Return the ended runs, the newest first."""
    answer = await node.call("GET", f"sys/rotation/history/{path}", token or node.root)
    assert answer.status_code == 200, answer.text
    return list(answer.json()["data"]["runs"])


async def ended(
    node: Any, number: int, path: str = "secrets/app", token: str | None = None
) -> dict[str, Any]:
    """Wait until a run has ended and return how."""

    async def look() -> dict[str, Any] | None:
        return next((run for run in await history(node, path, token) if run["run"] == number), None)

    found = await until(look)
    assert found is not None
    return found


async def rotated(node: Node, path: str = "secrets/app") -> dict[str, Any]:
    """Rotate a secret now and return how that ended."""
    begun = await ok(node, "POST", f"sys/rotation/run/{path}")
    return await ended(node, begun["run"], path)


async def fields(node: Any, path: str = "secrets/app", token: str | None = None) -> dict[str, Any]:
    """Return a secret's fields."""
    answer = await node.call("GET", path, token or node.root)
    assert answer.status_code == 200, answer.text
    return dict(answer.json()["data"]["data"])
