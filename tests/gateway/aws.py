"""Fixtures of tests on AWS: a node that may connect to loopback, and the service there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.gateway import aws_target
from tests.gateway.aws_target import Target
from tests.gateway.conftest import Node
from tests.gateway.kv import ok

MOUNT = "secrets/dynamic/aws"


@pytest.fixture(scope="module")
def service() -> Iterator[Target]:
    """The running service, one for all tests of a file."""
    with aws_target.running() as target:
        yield target


@pytest.fixture
def target(service: Target, monkeypatch: pytest.MonkeyPatch) -> Target:
    """The service as new, and credentials of somebody else lying around."""
    service.begin_anew()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", service.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", service.secret_key)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    return service


@pytest.fixture
async def ready(leasing: Node, target: Target) -> Node:
    """The node with its key configured."""
    await ok(leasing, "POST", f"{MOUNT}/config/root", target.config())
    return leasing


async def creds(node: Node, role: str, token: str | None = None, **asked: str) -> dict[str, Any]:
    """Have credentials given out, and return the whole answer."""
    answer = await node.call("GET", f"{MOUNT}/creds/{role}", token, params=asked)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body
