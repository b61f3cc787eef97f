"""What the OpenAPI document says holds: generated requests get answers that it names, and no defect."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import httpx2
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.gateway.behind import ledger_is_good
from tests.gateway.conftest import NOBODY, Node, native
from tests.gateway.kv import ok

EXAMPLES = 2
"""Requests an operation; there are hundreds of operations."""
QUERIES = 8
"""The same where there is something in the query to choose."""
LAST = "sys.seal"
"""Nothing can be asked after it."""
THERE = {"path": "a/b", "name": "readers", "role": "web", "algorithm": "sha2-256"}
"""Values of path parameters that lead to something, in half of the requests."""
KNOWN: list[tuple[str, str, dict[str, str], dict[str, Any]]] = [
    ("GET", "/secret/data/{path}", {}, {}),
    ("POST", "/secret/data/{path}", {}, {"data": {"k": "w"}}),
    ("PATCH", "/secret/data/{path}", {}, {"data": {"l": 1}}),
    ("GET", "/secret/subkeys/{path}", {}, {}),
    ("POST", "/secret/metadata/{path}", {}, {"custom_metadata": {"owner": "b"}}),
    ("GET", "/secret/metadata/{path}", {}, {}),
    ("GET", "/secret/metadata", {"list": "true"}, {}),
    ("GET", "/secret/config", {}, {}),
    ("GET", "/secret/compare/{path}", {}, {}),
    ("GET", "/secret/search", {"q": "b"}, {}),
    ("GET", "/secret/unused", {"since": "0s"}, {}),
    ("GET", "/secret/readers/{path}", {}, {}),
    ("GET", "/auth/token/lookup-self", {}, {}),
    ("POST", "/auth/token/lookup", {}, {}),
    ("POST", "/auth/token/create", {}, {"meta": {"a": "b"}, "period": "1h"}),
    ("GET", "/auth/token/accessors", {"list": "true"}, {}),
    ("GET", "/auth/approle/role", {"list": "true"}, {}),
    ("GET", "/auth/approle/role/{role}/role-id", {}, {}),
    ("POST", "/auth/approle/role/{role}/secret-id", {}, {"ttl": "1h"}),
    ("POST", "/auth/approle/role/{role}/custom-secret-id", {}, {"secret_id": "c" * 30}),
    ("GET", "/sys/policies/acl/{name}", {}, {}),
    ("GET", "/sys/policy/{name}", {}, {}),
    ("POST", "/sys/policies/bindings/{name}", {}, {"role": "web"}),
    ("GET", "/sys/policies/bindings/{name}", {}, {}),
    ("POST", "/sys/policies/bound", {}, {"role": "web"}),
    ("GET", "/sys/audit/entries", {"limit": "20"}, {}),
]
"""Requests that are carried out: answers with all that they can have."""
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


async def seed(node: Node) -> None:
    """Make what :data:`THERE` names."""
    await ok(node, "POST", "sys/mounts/plain", {"type": "kv-v1"})
    await ok(node, "POST", "plain/a/b", {"k": "v"})
    await ok(node, "POST", "secret/data/a/b", {"data": {"k": "v"}})
    await ok(node, "POST", "cubbyhole/a/b", {"k": "v"})
    await ok(node, "PUT", "sys/policies/acl/readers", {"policy": native("secrets/**")})
    await ok(node, "POST", "auth/approle/role/web", {"token_policies": ["readers"]})
    await ok(node, "POST", "auth/token/roles/web", {})


def fresh(owner: httpx2.Client) -> dict[str, str]:
    """Return the header of a token for one operation: some of them end the token that they are asked with."""
    made = owner.post("/auth/token/create")
    return {"X-Vault-Token": made.json()["auth"]["client_token"]}


def exercise(operation: Any, url: str, owner: httpx2.Client) -> set[int]:
    """Send generated requests to one operation and return the answers' statuses."""
    statuses: set[int] = set()
    headers = fresh(owner)
    chosen = any(parameter.name != "list" for parameter in operation.query)

    @given(case=operation.as_strategy(), known=st.booleans())
    @settings(
        max_examples=QUERIES if chosen else EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def send(case: Any, known: bool) -> None:
        if known:
            case.path_parameters = {n: THERE.get(n, v) for n, v in (case.path_parameters or {}).items()}
        response = case.call(base_url=url, headers=headers, timeout=30)
        statuses.add(response.status_code)
        # Sealed or without a database it is right; here neither is.
        assert response.status_code != 503, response.text
        case.validate_response(response, checks=CHECKS)

    send()
    return statuses


def answer_known(
    document: dict[str, Any], url: str, root: str, asked: Sequence[tuple[str, str, dict[str, str], Any]]
) -> None:
    """Ask what is answered with something, and check the answers."""
    described = schemathesis.openapi.from_dict(document)
    for method, path, query, body in asked:
        given = {"body": body, "media_type": "application/json"} if body else {}
        operation = described[path][method]
        names = [parameter.name for parameter in operation.path_parameters]
        case = operation.Case(path_parameters={name: THERE[name] for name in names}, query=query, **given)
        response = case.call(base_url=url, headers={"X-Vault-Token": root}, timeout=30)
        assert response.status_code in {200, 204}, (method, path, response.text)
        case.validate_response(response, checks=CHECKS)


def drive(document: dict[str, Any], url: str, root: str) -> tuple[dict[str, set[int]], list[str]]:
    """Ask every operation; return the answers' statuses, and what did not hold."""
    seen: dict[str, set[int]] = {}
    wrong: list[str] = []
    with httpx2.Client(base_url=url, headers={"X-Vault-Token": root}, timeout=30, verify=NOBODY) as owner:
        for found in schemathesis.openapi.from_dict(document).get_all_operations():
            operation = found.ok()
            name = operation.definition.raw["operationId"]
            if name.partition(":")[0] == LAST:
                continue
            try:
                seen[name] = exercise(operation, url, owner)
            except Exception as exc:  # noqa: BLE001 - all of them are told at the end
                wrong.append(f"{operation.label}: {exc}"[:800])
    return seen, wrong


async def test_the_document_holds(node: Node) -> None:
    """For every operation: only statuses and forms that are documented, and nothing above 499."""
    await seed(node)
    answer = await node.call("GET", "sys/internal/specs/openapi")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert node.settings.http is not None
    url = f"http://127.0.0.1:{node.settings.http.port}/v1"
    await asyncio.to_thread(answer_known, answer.json(), url, node.root, KNOWN)
    seen, wrong = await asyncio.to_thread(drive, answer.json(), url, node.root)
    assert not wrong, "\n\n".join(wrong)
    # Not only what is refused was checked.
    done = {name for name, statuses in seen.items() if statuses & {200, 204}}
    assert len(done) > 50, sorted(seen.keys() - done)
    assert (await node.call("GET", "auth/token/lookup-self")).status_code == 200
    await asyncio.to_thread(answer_known, answer.json(), url, node.root, [("POST", "/sys/seal", {}, {})])
    await node.unseal()
    await ledger_is_good(node)
