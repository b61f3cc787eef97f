"""Steps of tests about logins with AppRole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from secrethub.engines.engine import Answer
from secrethub.errors import SecretHubError
from secrethub.ids import new_uuid
from secrethub.operations.call import Call
from secrethub.operations.perform import perform
from tests.gateway.conftest import Node

FAILED = ["invalid role or secret ID"]


async def role(node: Node, name: str = "app", **body: Any) -> str:
    """Write a role and return its RoleID."""
    written = await node.call("POST", f"auth/approle/role/{name}", json=body)
    assert written.is_success, written.text
    answer = await node.call("GET", f"auth/approle/role/{name}/role-id")
    return str(answer.json()["data"]["role_id"])


async def secret_id(node: Node, name: str = "app", **body: Any) -> dict[str, Any]:
    """Make a SecretID and return what is told of it."""
    answer = await node.call("POST", f"auth/approle/role/{name}/secret-id", json=body)
    assert answer.status_code == 200, answer.text
    data: dict[str, Any] = answer.json()["data"]
    return data


async def login(node: Node, role_id: str, secret: str) -> Any:
    """Log in and return the answer."""
    return await node.call("POST", "auth/approle/login", "", json={"role_id": role_id, "secret_id": secret})


async def from_address(
    node: Node, address: str | None, body: Mapping[str, Any], *, path: str = "auth/approle/login"
) -> Answer | SecretHubError:
    """Carry out a call as if it came from somewhere else."""
    call = Call(
        method="write",
        path=path,
        credential=None,
        client_address=address,
        door="tls",
        request_id=new_uuid(),
        body=msgspec.json.encode(body),
    )
    try:
        return await perform(node.process.core, call)
    except SecretHubError as exc:
        return exc
