"""Secrets go through everything, and afterwards are looked for where they must not be."""

from __future__ import annotations

import base64
import json
import secrets
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest

from tests.e2e.api import readers
from tests.e2e.canaries import Canaries
from tests.e2e.development import Development
from tests.e2e.hosts import Host
from tests.e2e.processes import until

pytestmark = pytest.mark.timeout(300)
SECRET = "canaries/delivered"


@pytest.fixture
def host(development: Development) -> Iterator[Host]:
    """A host on which nothing runs yet."""
    made = Host(development.folder / "canaries-host", "canaries-host")
    try:
        yield made
    finally:
        made.stop()


def doors(development: Development) -> Iterator[httpx2.Client]:
    """A client of each door: plain HTTP, HTTPS, Ray Serve's ingress."""
    found = json.loads((development.core.data_dir / "dev.json").read_text())
    trust = ssl.create_default_context(cafile=str(development.ca_file))
    for url in (found["api"], found["api_tls"], found["serve"]):
        with httpx2.Client(base_url=f"{url}/v1/", verify=trust, timeout=30.0, trust_env=False) as client:
            yield client


def uses(development: Development, canaries: Canaries) -> None:
    """What people and programs do all day, with a canary wherever a secret belongs."""
    root = {"X-Vault-Token": development.root_token}
    for number, door in enumerate(doors(development)):
        path = f"secrets/canaries/used-{number}"
        value = canaries.value("a secret's value")
        digits = canaries.text("a secret's number", str(secrets.randbelow(9 * 10**17) + 10**17))
        data = {"plain": value, "number": int(digits), "deep": [{"er": canaries.value("a nested value")}]}
        for _ in range(2):
            assert door.post(path, json={"data": data}, headers=root).status_code == 200
        assert door.get(path, headers=root).json()["data"]["data"] == data
        assert door.get(path, params={"version": 1}, headers=root).json()["data"]["data"] == data
        issued = door.post(
            "pki/issue",
            json={"common_name": f"canary-{number}.example.com", "ttl": "1h"},
            headers={"Authorization": f"Bearer {development.root_token}"},
        ).json()["data"]
        canaries.private_key("an issued key", issued["private_key"])
        made = door.post("auth/token/create", json={"policies": ["default"], "ttl": "1h"}, headers=root)
        token = canaries.text("a token", made.json()["auth"]["client_token"])
        assert door.get("auth/token/lookup-self", headers={"X-Vault-Token": token}).status_code == 200
        assert door.post("auth/token/renew-self", headers={"X-Vault-Token": token}).status_code == 200
        revoked = door.post("auth/token/revoke-self", headers={"X-Vault-Token": token})
        assert revoked.status_code == 204


def is_refused(development: Development, canaries: Canaries) -> list[str]:
    """Send what must be refused, with a canary wherever one fits; return answers that repeat it."""
    repeated: list[str] = []
    with development.api() as api:
        machine = api.machine("canaries-reader", readers("secrets/canaries/allowed"))
        canaries.text("a SecretID", machine[1])
        reader = canaries.text("a login's token", api.login(*machine))

    def refused(door: httpx2.Client, method: str, path: str, canary: str, **request: Any) -> None:
        answer = door.request(method, path, **request)
        assert answer.status_code >= 400, (method, path, answer.status_code)
        if canary in answer.text or any(canary in value for value in answer.headers.values()):
            repeated.append(f"{method} {door.base_url}{path}: {answer.text}")

    for door in doors(development):
        for headers in _tokens(canaries):
            refused(
                door, "GET", "secrets/canaries/used-0", next(iter(headers.values()))[-20:], headers=headers
            )
        for headers in _strange_headers(canaries, reader):
            canary = next(value for value in headers.values() if value != reader)
            refused(door, "GET", "secrets/canaries/used-0", canary, headers=headers)
        denied = {"X-Vault-Token": reader}
        canary = canaries.value("a denied write's value")
        refused(door, "POST", "secrets/canaries/used-0", canary, json={"data": {"v": canary}}, headers=denied)
        canary = canaries.value("a value sent to nowhere")
        for method, path in (("POST", "nowhere/at-all"), ("PATCH", "sys/health"), ("DELETE", "secrets/")):
            refused(door, method, path, canary, json={"data": {"v": canary}}, headers=denied)
        root = {"X-Vault-Token": development.root_token}
        for method, path, content, canary in _broken_bodies(canaries):
            refused(door, method, path, canary, content=content, headers=root)
        for path in ("secrets/canaries/used-0", "nowhere/at-all"):
            canary = canaries.value("a query's value")
            query = {"version": canary, "token": canary}
            refused(door, "GET", path, canary, params=query, headers=root)
        canary = canaries.value("a status code that is none")
        refused(door, "GET", "sys/health", canary, params={"sealedcode": canary, "activecode": canary})
        canary = canaries.value("a SecretID that is none")
        body = {"role_id": machine[0], "secret_id": canary}
        refused(door, "POST", "auth/approle/login", canary, json=body)
        canary = canaries.value("an init token that is none")
        refused(door, "POST", "sys/init", canary, json={"init_token": canary})
    return repeated


def _tokens(canaries: Canaries) -> Iterator[dict[str, str]]:
    yield {"X-Vault-Token": canaries.value("an unknown token")}
    yield {"X-Vault-Token": canaries.text("an unknown service token", f"hvs.{secrets.token_urlsafe(24)}")}
    yield {"Authorization": f"Bearer {canaries.value('an unknown bearer')}"}
    basic = base64.b64encode(f"user:{canaries.value('a basic password')}".encode()).decode()
    yield {"Authorization": f"Basic {basic}"}


def _strange_headers(canaries: Canaries, token: str) -> Iterator[dict[str, str]]:
    for name in (
        *("Cookie", "User-Agent", "Referer", "X-Forwarded-For", "Forwarded", "Content-Type"),
        *("X-Vault-Namespace", "X-Vault-Wrap-TTL", "X-Vault-Index", "X-Vault-Unseal-Key", "Traceparent"),
        "Origin",
    ):
        yield {"X-Vault-Token": token, name: canaries.value(f"a {name} header")}


def _broken_bodies(canaries: Canaries) -> Iterator[tuple[str, str, bytes, str]]:
    """Bodies that are refused before or while they are understood."""
    # Names of fields, and fields that are declared to hold no secret (``ttl``), stay readable in the ledger.
    shapes = (
        ("POST", "secrets/canaries/x", '{{"data": {{"v": "{0}'),
        ("POST", "secrets/canaries/x", '"{0}"'),
        ("POST", "secrets/canaries/x", '{{"data": "{0}"}}'),
        ("POST", "secrets/canaries/x", '{{"data": {{"v": "{0}"}}, "options": {{"cas": "x"}}}}'),
        ("POST", "secrets/canaries/x", '{{"data": {{"v": "{0}\xff"}}}}'),
        ("POST", "secrets/canaries/x", '{{"data": {{"v": "{0}", "w": 1e999}}}}'),
        ("POST", "secrets/canaries/x", "[" * 100 + '"{0}"' + "]" * 100),
        ("POST", "secrets/canaries/x", '{{"data": {{"v": "{0}' + "x" * 1_100_000 + '"}}}}'),
        ("POST", "sys/unseal", '{{"key": "{0}", "migrate": "{0}"}}'),
        ("PUT", "sys/policies/acl/canaries", '{{"policy": {{"version": "{0}"}}}}'),
        ("POST", "auth/token/create", '{{"ttl": "x", "id": "{0}"}}'),
        ("POST", "auth/token/create", '{{"policies": {{"a": "{0}"}}}}'),
        ("POST", "auth/approle/role/canaries", '{{"secret_id_ttl": "x", "secret_id": "{0}"}}'),
        ("POST", "pki/issue", '{{"common_name": "!", "private_key": "{0}"}}'),
        ("POST", "agents/enroll", '{{"csr": "{0}", "name": "a", "version": "1"}}'),
    )
    for number, (method, path, shape) in enumerate(shapes):
        canary = canaries.value(f"the value in broken body {number}")
        yield method, path, shape.format(canary).encode("latin-1"), canary


def speaks_out_of_turn(development: Development, canaries: Canaries) -> None:
    """Send canaries where another protocol is spoken."""
    found = json.loads((development.core.data_dir / "dev.json").read_text())
    for name in ("api", "api_tls", "serve", "agent_url", "metrics"):
        at = urlsplit(found[name])
        canary = canaries.value(f"noise at {name}")
        for noise in (f"{canary}\r\n\r\n", f"GET / HTTP/9.9\r\nX: {canary}\r\n\r\n", f"\x16\x03\x01{canary}"):
            with socket.create_connection((at.hostname, at.port), timeout=10) as connection:
                connection.sendall(noise.encode("latin-1"))
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65536):
                    pass


def test_the_search_finds_what_is_there(tmp_path: Path) -> None:
    """A secret is found as it is, in hexadecimal digits, and in base64 beside anything else."""
    canaries = Canaries()
    value = canaries.value("planted")
    for before in range(3):
        mixed = b"x" * before + value.encode() + b"y"
        for form in (mixed, mixed.hex().encode(), mixed.hex().upper().encode(), base64.b64encode(mixed)):
            for start in range(8):
                assert list(canaries.within("here", b" " * start + form)), (start, form)
                assert list(canaries.within("here", b" " * start + form + b" after")), (start, form)
    assert not list(canaries.within("here", b"canary and nothing more"))
    (tmp_path / "kept").write_text(value)
    assert canaries.in_files(tmp_path)
    canaries.text("planted", value, tmp_path / "kept")
    assert not canaries.in_files(tmp_path)
    key, short = secrets.token_bytes(32), "canary"
    canaries.key("a key", key)
    canaries.text("something short", short)
    for start in range(8):
        for part in (key[:16], key[16:], short.encode()):
            assert list(canaries.within("here", b" " * start + part)), (start, part)


def test_no_secret_is_found_where_it_must_not_be(development: Development, host: Host) -> None:
    """After a day's work and many refusals, secrets are where they belong and nowhere else."""
    canaries = development.canaries
    with development.api() as api:
        delivered = canaries.text("the delivered value", f"canary{secrets.token_hex(12)}", host.file)
        api.put_secret(SECRET, value=delivered)
        machine = api.machine("canaries-host", readers(f"secrets/{SECRET}"))
        canaries.text("the agent's SecretID", machine[1])
        host.enrol([development.core.addresses().api_tls], development.ca_file, machine, SECRET)
        host.wait_for(delivered)
        assert host.read(SECRET) == {"value": delivered}
        identity = host.state / "identity.pem"
        canaries.private_key("the agent's key", identity.read_text(), identity)
        uses(development, canaries)
        assert is_refused(development, canaries) == []
        speaks_out_of_turn(development, canaries)
        during = canaries.in_processes(development.pid, host.pid)
        # What is decided while sealed is written down by another writer.
        api.call("POST", "sys/seal")
        wrong = secrets.token_bytes(33)
        canaries.key("a share that is none", wrong)
        for text in (canaries.value("a share that is no share"), base64.b64encode(wrong).decode()):
            assert api.send("POST", "sys/unseal", json={"key": text}).status_code == 400
        assert api.send("GET", f"secrets/{SECRET}").status_code == 503
        api.unseal(development.shares)
        until(lambda: api.status() == 200, "unsealed again")
        host.wait_for(delivered)
        metrics = api.send("GET", "sys/metrics").text
        assert api.call("POST", "sys/audit/verify")["data"]["ok"]
    assert during == []
    assert canaries.in_processes(development.pid, host.pid) == []
    assert list(canaries.within("metrics", metrics.encode())) == []
    found = canaries.in_database(development.core.addresses().database_url)
    found += canaries.in_files(*development.folders)
    assert not found, "\n".join(found)


def test_what_is_no_secret_is_found(development: Development) -> None:
    """The same search finds the path of a secret in ledger and database files: it does look there."""
    path = f"visible{secrets.token_hex(8)}"
    with development.api() as api:
        api.put_secret(path, value="v")
    visible = Canaries()
    visible.text("a path", path)
    found = visible.in_database(development.core.addresses().database_url)
    assert any("audit_entries" in line for line in found)
    assert any("kv_secrets" in line for line in found)
    assert visible.in_files(*development.folders)
