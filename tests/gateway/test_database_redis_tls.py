"""Connections to Redis over TLS: who it must prove to be, and who we are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.gateway import redis_target
from tests.gateway.conftest import Node, free_port
from tests.gateway.kv import ok
from tests.gateway.redis_target import CANARY, TargetRedis
from tests.gateway.test_database_redis import MOUNT, RULES, creds

USERS = "{{username}}:{{password}}"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Who vouches for the server and for its clients."""
    return trustme.CA()


@pytest.fixture
def port() -> int:
    """Where TLS is spoken."""
    return free_port()


@pytest.fixture
def target(tmp_path: Path, authority: trustme.CA, port: int) -> Iterator[TargetRedis]:
    """A server called ``localhost``, which lets in over TLS who has a certificate."""
    folder = tmp_path / "redis"
    folder.mkdir()
    own = authority.issue_cert("localhost")
    own.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    own.private_key_pem.write_to_path(folder / "key.pem")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    files = {"cert": "cert.pem", "key": "key.pem", "ca-cert": "ca.pem"}
    options = [word for kind, file in files.items() for word in (f"--tls-{kind}-file", str(folder / file))]
    with redis_target.running(folder, "--tls-port", str(port), *options) as started:
        yield started


async def test_both_ends_prove_who_they_are(
    leasing: Node, target: TargetRedis, authority: trustme.CA, port: int
) -> None:
    """With the right authority, name and certificate users are made; without one of them nothing is kept."""
    ours, others = authority.cert_pem.bytes().decode(), trustme.CA().cert_pem.bytes().decode()
    own, alien = authority.issue_cert("secrethub"), trustme.CA().issue_cert("secrethub")

    def body(host: str, trusted: str, shown: trustme.LeafCert | None, kind: str = "rediss") -> dict[str, Any]:
        place: dict[str, Any] = {
            "plugin_name": "redis-database-plugin",
            "connection_url": f"{kind}://{USERS}@{host}:{port}",
            "username": "secrethub",
            "password": CANARY,
            "allowed_roles": ["*"],
            "tls_ca": trusted,
        }
        if shown is not None:
            place["tls_certificate"] = shown.cert_chain_pems[0].bytes().decode()
            place["private_key"] = shown.private_key_pem.bytes().decode()
        return place

    for wrong in (
        body("localhost", others, own),
        body("localhost", "", own),
        body("127.0.0.1", ours, own),
        body("localhost", ours, None),
        body("localhost", ours, alien),
        body("localhost", "", None, "redis"),
    ):
        refused = await leasing.call("POST", f"{MOUNT}/config/cache", json=wrong)
        assert refused.status_code == 400, (wrong["connection_url"], refused.text)
        assert "error verifying connection" in refused.text
        assert CANARY not in refused.text
    await ok(leasing, "POST", f"{MOUNT}/config/cache", body("localhost", ours, own))
    read = await leasing.call("GET", f"{MOUNT}/config/cache")
    assert read.json()["data"]["connection_details"]["connection_url"] == f"rediss://{USERS}@localhost:{port}"
    assert "PRIVATE" not in read.text
    role = {"db_name": "cache", "creation_statements": RULES, "default_ttl": "1h", "max_ttl": "24h"}
    await ok(leasing, "POST", f"{MOUNT}/roles/app", role)
    made = await creds(leasing)
    assert target.opens(made["data"]["username"], made["data"]["password"])
    await ok(leasing, "PUT", "sys/leases/revoke", {"lease_id": made["lease_id"], "sync": True})
    assert target.made() == set()
