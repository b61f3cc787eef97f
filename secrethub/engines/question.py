"""The question that a request puts to the policies, as each language of rules names it."""

from __future__ import annotations

from secrethub.engines.engine import Capability, Method, Operation
from secrethub.engines.mounts import Route
from secrethub.policy.conditions import Circumstances
from secrethub.policy.decision import Question

_CAPABILITY: dict[Method, Capability] = {
    "read": "read",
    "write": "update",
    "delete": "delete",
    "list": "list",
    "patch": "patch",
}


def question_of(
    route: Route | None, method: Method, path: str, when: Circumstances, *, creates: bool = False
) -> Question:
    """Return the question.

    Args:
        route: the way of the request; None where nothing is mounted.
        method: how.
        path: the canonical path.
        when: what conditions are about.
        creates: a write of something that is not there yet.
    """
    operation = None if route is None else route.operation
    return Question(
        path=path,
        acl_capability="create" if creates else _CAPABILITY[method],
        needs_sudo=operation is not None and operation.sudo,
        native_path=_native_path(route, operation, path),
        native_capability=_native_capability(operation, method, creates=creates),
        when=when,
    )


def _native_path(route: Route | None, operation: Operation | None, path: str) -> str:
    """Return what native rules call it: the secret itself, not the engine's endpoint."""
    if route is None or operation is None or operation.subject is None:
        return path
    return (route.engine.native_prefix(route.mount.path) + route.params.get(operation.subject, "")).rstrip(
        "/"
    )


def _native_capability(operation: Operation | None, method: Method, *, creates: bool) -> Capability:
    if operation is None:
        return _CAPABILITY[method]
    return "create" if creates and operation.capability == "update" else operation.capability
