"""A server on Ray that AWS's key service opens: when it is made, and after everything was away at once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clouds import aws_cloud
from tests.clouds.cloud import Cloud
from tests.e2e.api import Api
from tests.e2e.nodes import Node, TwoNodes
from tests.e2e.processes import killed, the, until

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def amazon(place: Path) -> Iterator[Cloud]:
    """AWS's key service."""
    with aws_cloud.running(place) as started:
        yield started


@pytest.fixture
def head(place: Path, empty_database: str, amazon: Cloud) -> Iterator[Node]:
    """A head that has no worker, and a key of the key service in its settings."""
    found = amazon.settings
    words = {
        "type": found.kind,
        "key": found.key,
        "region": found.region,
        "endpoint": found.endpoint,
        "credentials_file": found.credentials_file,
    }
    section = "".join(f"{name} = {json.dumps(word)}\n" for name, word in words.items())
    made = TwoNodes(place, empty_database, f"[key_services.{found.name}]\n{section}")
    try:
        yield made.head
    finally:
        made.end()


def outcomes(api: Api) -> list[str]:
    """How the attempts to unseal by a key service went, in order."""
    found = api.call("GET", "sys/audit/entries?operation=sys.auto-unseal")["data"]["entries"]
    return [entry["outcome"] for entry in reversed(found)]


def test_nobody_has_to_unseal(head: Node, amazon: Cloud) -> None:
    """It opens after init and after SIGKILL of all; without the cloud it goes on running."""
    head.start()
    head.wait(501)
    with Api(head.api) as api:
        asked = {"service": amazon.settings.name, "recovery_shares": 1, "recovery_threshold": 1}
        root = api.call("PUT", "sys/init", asked)["root_token"]
    head.wait()
    with Api(head.api, root) as api:
        api.put_secret("app/kept", value="v")
        assert outcomes(api) == ["intent", "done"]
    head.kill()
    head.start()
    head.wait()
    amazon.close()
    with Api(head.api, root) as api:
        assert api.secret("app/kept") == {"value": "v"}
        # That it took its time to start is no failure.
        assert outcomes(api) == ["intent", "done"] * 2
        for process in (r"ray::SealState", r"ray::KeyHolder"):
            killed(the(head.pid, process))
            until(api.is_open, "SealState has the root key again")
            the(head.pid, process)
        api.put_secret("app/kept", value="w")
        assert outcomes(api) == ["intent", "done"] * 2
        assert api.call("POST", "sys/audit/verify")["data"]["ok"]
