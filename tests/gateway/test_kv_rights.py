"""Every operation of key/value secrets, asked by callers with and without the right to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from secrethub.engines.engine import Operation
from secrethub.engines.kv import KvEngine
from tests.gateway.behind import entries
from tests.gateway.conftest import Node, native
from tests.gateway.kv import ok, put

_METHODS = {"read": "GET", "write": "POST", "delete": "DELETE", "list": "LIST", "patch": "PATCH"}
_ACL = {"read": "read", "write": "update", "delete": "delete", "list": "list", "patch": "patch"}
_BODIES: Mapping[str, Any] = {
    "kv.write": {"data": {"n": 3}},
    "kv.patch": {"data": {"n": 3}},
    "kv.metadata.write": {"max_versions": 3},
    "kv.metadata.patch": {"max_versions": 3},
    "kv.config.write": {"max_versions": 3},
    "kv.rollback": {"version": 1},
}
_ALSO: Mapping[str, tuple[str, str]] = {
    "kv.compare": ("secret/data/a/b", "read"),
    "kv.rollback": ("secret/data/a/b", "update"),
    "kv.readers": ("secret/metadata/a/", "list"),
}
"""What operations that Vault does not have need beside the right at their own path."""
_EVERY = ("create", "read", "update", "patch", "delete", "list", "sudo")


def _path(operation: Operation) -> str:
    return "secret/" + operation.pattern.replace("{path*}", "a/b").replace("{path?}", "a")


async def _fresh(node: Node) -> None:
    """Make the secret anew, with two versions."""
    await ok(node, "DELETE", "secret/metadata/a/b")
    await put(node, "a/b", {"n": 1}, {"n": 2})


async def test_every_operation(node: Node) -> None:
    """Each is refused without a token, without the right and where that is denied; the ledger has it all."""
    for number, operation in enumerate(KvEngine().operations()):
        await _check(node, operation, str(number))


async def _check(node: Node, operation: Operation, number: str) -> None:
    path, method = _path(operation), _METHODS[operation.method]
    subject = path
    if operation.subject is not None:
        subject = ("secrets/" + operation.pattern.partition("/")[2]).rstrip("/")
        subject = subject.replace("{path*}", "a/b").replace("{path?}", "a")
    body = None
    if operation.request is not None:
        body = _BODIES.get(operation.name, {"versions": [1]})
    needed = {operation.capability} | ({"sudo"} if operation.sudo else set())
    others = tuple(name for name in _EVERY if name != operation.capability)
    acl = {path: {"capabilities": [_ACL[operation.method], *(["sudo"] if operation.sudo else [])]}}
    acl_others = {path: {"capabilities": [name for name in _EVERY if name != _ACL[operation.method]]}}
    if operation.name in _ALSO:
        place, capability = _ALSO[operation.name]
        acl |= {place: {"capabilities": [capability]}}
        acl_others |= {place: {"capabilities": [capability]}}
    denies = native("**", capabilities=("*",))
    denies["statements"] += native(subject, capabilities=(operation.capability,), effect="deny")["statements"]
    refused: list[tuple[str, Any]] = [
        ("unrelated", native("secrets/elsewhere/**", "other/**", capabilities=("*",))),
        ("others", native(subject, capabilities=others)),
        ("others-acl", {"path": acl_others}),
        ("denied", denies),
        ("denied-acl", {"path": {"secret/*": {"capabilities": [*_EVERY]}, path: {"capabilities": ["deny"]}}}),
    ]
    natively = native(subject, capabilities=tuple(needed))
    if operation.name == "kv.readers":
        natively["statements"] += native("secrets/a", capabilities=("list",))["statements"]
    granted: list[tuple[str, Any]] = [("native", natively), ("acl", {"path": acl})]
    tokens = {name: await node.token(name + number, policy) for name, policy in (*refused, *granted)}
    for name, _ in refused:
        await _fresh(node)
        answer = await node.call(method, path, tokens[name], json=body)
        assert answer.status_code == 403, (operation.name, name, answer.text)
        assert answer.json()["errors"] == ["permission denied"]
    answer = await node.call(method, path, "", json=body)
    assert answer.status_code == 403
    for name, _ in granted:
        await _fresh(node)
        answer = await node.call(method, path, tokens[name], json=body)
        assert answer.status_code in {200, 204}, (operation.name, name, answer.text)
    found = await entries(node.settings.database_url, operation=operation.name, path=path)
    found = [entry for entry in found if not entry["actor"].endswith(":root")]
    assert sum(entry["outcome"] == "denied" for entry in found) == len(refused) + 1
    assert sum(entry["outcome"] == "done" for entry in found) == len(granted)
    if operation.changes:
        assert sum(entry["kind"] == "intent" for entry in found) == len(granted)


async def test_denying_to_delete_covers_everything_that_deletes(node: Node) -> None:
    """In native rules of the flat view one word stands for all ways to the same end."""
    policy = native("secrets/**", capabilities=("*",))
    policy["statements"] += native("secrets/keep/**", capabilities=("delete",), effect="deny")["statements"]
    token = await node.token("careful", policy)
    for path, code in (("keep/a", 403), ("free/a", 204)):
        await put(node, path, {"n": 1})
        for method, place, body in (
            ("DELETE", f"secrets/{path}", None),
            ("DELETE", f"secret/data/{path}", None),
            ("POST", f"secret/delete/{path}", {"versions": [1]}),
            ("POST", f"secret/undelete/{path}", {"versions": [1]}),
            ("POST", f"secret/destroy/{path}", {"versions": [1]}),
            ("DELETE", f"secret/metadata/{path}", None),
        ):
            answer = await node.call(method, place, token, json=body)
            assert answer.status_code == code, (method, place, answer.text)
    assert (await node.call("GET", "secrets/keep/a")).status_code == 200


async def test_to_create_is_not_to_update(node: Node) -> None:
    """Who may only create, makes secrets and their metadata and changes neither; and the other way round."""
    for language in ("native", "acl"):
        for granted, made, changed in (("create", True, False), ("update", False, True)):
            name = f"{language}-{granted}"
            policy: dict[str, Any] = native("secrets/**", capabilities=(granted,))
            if language == "acl":
                policy = {"path": {"secret/*": {"capabilities": [granted]}}}
            token = await node.token(name, policy)
            await put(node, f"{name}/old", {"n": 1})
            for endpoint, body in (("data", {"data": {}}), ("metadata", {"max_versions": 3})):
                for path, allowed in (("old", changed), (f"new-{endpoint}", made)):
                    answer = await node.call("POST", f"secret/{endpoint}/{name}/{path}", token, json=body)
                    assert (answer.status_code == 403) == (not allowed), (name, endpoint, path, answer.text)
                    assert answer.status_code in {200, 204, 403}
