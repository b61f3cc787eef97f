"""What tests of key/value secrets share."""

from __future__ import annotations

from typing import Any

from tests.gateway.conftest import Caller


async def ok(node: Caller, method: str, path: str, body: Any = None, **how: Any) -> Any:
    """Carry out a request that must succeed and return its data, None where there is none."""
    answer = await node.call(method, path, json=body, **how)
    assert answer.status_code in {200, 204}, (method, path, answer.status_code, answer.text)
    return answer.json()["data"] if answer.content else None


async def put(node: Caller, path: str, *values: dict[str, Any]) -> None:
    """Write versions, one after the other."""
    for value in values:
        await ok(node, "POST", f"secret/data/{path}", {"data": value})


async def status(node: Caller, method: str, path: str, body: Any = None, **how: Any) -> int:
    """Return what a request is answered with."""
    return (await node.call(method, path, json=body, **how)).status_code
